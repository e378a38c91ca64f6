//! The member: proposing, reading linearizably, and what the RPCs need to know. [`leases`] keeps them alive and ends them, [`members`] changes
//! who is in the cluster, [`corruption`] compares what they have, [`space`] says when there is no room for more.

pub mod corruption;
pub mod leases;
pub mod members;
mod proposal;
mod space;
mod timeout;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use component_base::health::Health;
use etcd_api::etcdserverpb::{InternalRaftRequest, RequestHeader, ResponseHeader};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

pub use self::proposal::Proposal;
pub use self::timeout::request_timeout;
use crate::apply::{Applied, ApplyError, State};
use crate::auth::{self, AuthInfo};
use crate::bootstrap::ApplyJob;
use crate::clock::Clock;
use crate::lease::LeaseError;
use crate::membership::MemberError;
use crate::mvcc::{self, Store, check};
use crate::peer::lease::Renewals;
use crate::peer::transport::{Network, Transport};
use crate::raft::driver::{Event, Status};
use crate::raft::inbox::Inbox;
use crate::raft::log_thread::LogStatus;
use crate::raft::read::{self, Replica};
use crate::rpc::unfinished::Unfinished;
use crate::snapshot::View;
use crate::storage::keeper::Requests;
use crate::traces::Traces;
use crate::watch::Hub;

/// Requests that wait to be applied; beyond it new ones are refused.
const MAX_WAITING: usize = 20_000;
/// etcd warns about requests that took longer to apply.
pub const SLOW_APPLY: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Invalid(#[from] check::Invalid),
    #[error("etcdserver: request is too large")]
    RequestTooLarge,
    #[error("etcdserver: too many requests")]
    TooManyRequests,
    #[error("etcdserver: request timed out")]
    Timeout,
    #[error("etcdserver: request timed out, possibly due to previous leader failure")]
    LeaderFailed,
    #[error("etcdserver: request timed out, possibly due to connection lost")]
    ConnectionLost,
    #[error("etcdserver: no leader")]
    NoLeader,
    #[error("etcdserver: server stopped")]
    Stopped,
    #[error("etcdserver: not leader")]
    NotLeader,
    #[error("etcdserver: leader changed")]
    LeaderChanged,
    #[error("etcdserver: request timed out, waiting for the applied index took too long")]
    AppliedTimeout,
    #[error("etcdserver: rpc not supported for learner")]
    Learner,
    #[error(transparent)]
    Member(MemberError),
    #[error(transparent)]
    Lease(LeaseError),
}

impl From<mvcc::Error> for ServerError {
    fn from(error: mvcc::Error) -> Self {
        ServerError::Apply(error.into())
    }
}

impl From<auth::AuthError> for ServerError {
    fn from(error: auth::AuthError) -> Self {
        ServerError::Apply(error.into())
    }
}

impl From<LeaseError> for ServerError {
    fn from(error: LeaseError) -> Self {
        ServerError::Lease(error)
    }
}

impl From<MemberError> for ServerError {
    fn from(error: MemberError) -> Self {
        ServerError::Member(error)
    }
}

pub struct Limits {
    pub max_request_bytes: usize,
    pub max_txn_ops: usize,
    pub quota_bytes: u64,
    pub warning_apply: Duration,
    /// `--warning-unary-request-duration`
    pub warning_unary: Duration,
    pub heartbeat: Duration,
    pub election: Duration,
    pub min_lease_ttl: i64,
    /// `--strict-reconfig-check`
    pub strict_reconfig: bool,
    /// The feature `LeaseCheckpoint`.
    pub lease_checkpoints: bool,
    /// The feature `CompactHashCheck`.
    pub compact_hashes: bool,
}

pub struct EtcdServer {
    pub member: u64,
    pub cluster: u64,
    pub limits: Limits,
    pub state: Arc<State>,
    pub raft: Arc<Status>,
    pub log: Arc<LogStatus>,
    pub events: Arc<Inbox<Event>>,
    pub apply_jobs: Arc<Inbox<ApplyJob>>,
    pub hub: Arc<Hub>,
    pub keeper: Arc<Requests>,
    pub clock: Arc<dyn Clock>,
    pub health: Health,
    pub applied: watch::Sender<u64>,
    /// The revision up to which history has been dropped.
    pub swept: watch::Sender<i64>,
    pub space: Notify,
    /// Something was refused that the quota has no room for, since the keeper has looked for some.
    quota_reached: AtomicBool,
    pub leases_changed: Notify,
    pub unfinished: Unfinished,
    /// Streams that require a leader end when this changes.
    pub leader_lost: watch::Sender<()>,
    /// So do all that have no end of their own, once this is true.
    pub stopping: watch::Sender<bool>,
    pub store_full: AtomicBool,
    pub live_bytes: AtomicU64,
    /// The way to the other members.
    pub transport: Arc<Transport>,
    renewals: Arc<Renewals>,
    /// When the leader of now was heard of.
    elected: Mutex<Option<Instant>>,
    /// Set where calls are traced.
    pub traces: OnceLock<Traces>,
    /// The cluster has removed this member.
    pub removed: watch::Sender<bool>,
    learner: AtomicBool,
    next_id: AtomicU64,
}

/// What [`EtcdServer::new`] is made of.
pub struct Parts {
    pub member: u64,
    pub cluster: u64,
    pub limits: Limits,
    pub state: Arc<State>,
    pub events: Arc<Inbox<Event>>,
    pub clock: Arc<dyn Clock>,
    pub transport: Arc<Transport>,
    pub removed: watch::Sender<bool>,
}

impl EtcdServer {
    pub fn new(parts: Parts) -> Self {
        let Parts {
            member,
            cluster,
            limits,
            state,
            events,
            clock,
            transport,
            removed,
        } = parts;
        let live_bytes = AtomicU64::new(state.store.storage.live_bytes());
        let swept = watch::Sender::new(state.store.compacted());
        EtcdServer {
            member,
            cluster,
            limits,
            state,
            raft: Arc::default(),
            log: Arc::default(),
            events,
            apply_jobs: Arc::default(),
            hub: Arc::default(),
            keeper: Arc::default(),
            clock,
            health: Health::new(),
            applied: watch::Sender::new(0),
            swept,
            space: Notify::new(),
            quota_reached: AtomicBool::new(false),
            leases_changed: Notify::new(),
            unfinished: Unfinished::default(),
            leader_lost: watch::Sender::new(()),
            stopping: watch::Sender::new(false),
            store_full: AtomicBool::new(false),
            live_bytes,
            transport,
            renewals: Arc::default(),
            elected: Mutex::default(),
            traces: OnceLock::new(),
            removed,
            learner: AtomicBool::new(false),
            next_id: AtomicU64::new(first_id(member)),
        }
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.state.store
    }

    pub fn header(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster,
            member_id: self.member,
            revision,
            raft_term: self.raft.term.load(Ordering::Relaxed),
        }
    }

    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// What a snapshot taken now holds, as the apply thread knows it; blocks. None when that has stopped or is held up.
    pub fn view(&self) -> Option<View> {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.apply_jobs.push(ApplyJob::View(sender));
        receiver.recv_timeout(self.request_timeout()).ok()
    }

    /// Proposes what the server itself wants, and waits until it is applied here.
    pub fn propose(
        &self,
        request: InternalRaftRequest,
    ) -> impl Future<Output = Result<Applied, ServerError>> + Send + '_ {
        // The revision is no matter: root may do everything under each.
        let root = AuthInfo {
            username: auth::ROOT.to_owned(),
            revision: 0,
        };
        self.propose_as(request.into(), root)
    }

    /// Proposes on behalf of a user.
    pub async fn propose_as(&self, proposal: Proposal, who: AuthInfo) -> Result<Applied, ServerError> {
        let id = self.next_id();
        let data = proposal.signed(&RequestHeader {
            id,
            username: who.username,
            auth_revision: who.revision,
        });
        if data.len() > self.limits.max_request_bytes {
            return Err(ServerError::RequestTooLarge);
        }
        self.submit(id, Event::Propose(data)).await
    }

    /// Hands the event to raft at once; the future waits until what it proposes is applied here.
    pub(crate) fn submit(
        &self,
        id: u64,
        event: Event,
    ) -> impl Future<Output = Result<Applied, ServerError>> + Send {
        let waiting = (self.state.waits.len() < MAX_WAITING).then(|| {
            let answer = self.state.waits.register(id);
            self.events.push(event);
            Waiting {
                server: self,
                id,
                answer,
            }
        });
        async move { waiting.ok_or(ServerError::TooManyRequests)?.wait().await }
    }

    /// Returns once everything that was acknowledged before the call is visible here.
    pub async fn linearizable(&self) -> Result<(), ServerError> {
        read::linearizable(self).await
    }

    pub fn leader(&self) -> u64 {
        self.raft.leader.load(Ordering::SeqCst)
    }

    pub fn is_leader(&self) -> bool {
        self.raft.is_leader.load(Ordering::SeqCst)
    }

    pub fn is_learner(&self) -> bool {
        self.learner.load(Ordering::Relaxed)
    }

    /// Whoever the members are now, they are whom this member speaks to. One that joins learns of them one by one, and of itself last: until
    /// then it keeps whom it was told of.
    pub fn members_changed(&self) {
        let membership = self.state.membership.read();
        self.learner
            .store(membership.is_learner(self.member), Ordering::Relaxed);
        if membership.members.contains_key(&self.member) {
            self.transport.set_members(&membership.list());
        } else if !membership.members.is_empty() {
            self.transport.add_members(&membership.list());
        }
        self.store()
            .hashes
            .want(self.limits.compact_hashes && membership.members.len() > 1);
    }

    /// Where to ask the leader, once there is one that is not this member. None when this member leads.
    pub(crate) async fn leader_urls(&self) -> Option<Vec<String>> {
        match self.leader() {
            leader if leader == self.member => None,
            leader => {
                let known = self.state.membership.read().members.get(&leader).cloned();
                match known {
                    Some(member) => Some(member.peer_urls),
                    // An election is on, or its outcome is not known here yet.
                    None => {
                        tokio::time::sleep(self.limits.heartbeat).await;
                        Some(Vec::new())
                    }
                }
            }
        }
    }

    pub fn active_for(&self, id: u64) -> Option<Duration> {
        self.transport.active_for(id)
    }
}

impl Replica for EtcdServer {
    fn status(&self) -> &Status {
        &self.raft
    }

    fn request_timeout(&self) -> Duration {
        EtcdServer::request_timeout(self)
    }

    fn events(&self) -> &Inbox<Event> {
        &self.events
    }

    async fn applied(&self, index: u64) -> Result<(), ServerError> {
        let mut applied = self.applied.subscribe();
        let reached = applied.wait_for(|applied| *applied >= index).await;
        reached.map_or(Err(ServerError::Stopped), |_| Ok(()))
    }

    fn pause(&self, time: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(time)
    }

    async fn within<T: Send>(&self, limit: Duration, future: impl Future<Output = T> + Send) -> Option<T> {
        tokio::time::timeout(limit, future).await.ok()
    }
}

/// Forgets its request when it is dropped before the answer came.
struct Waiting<'a> {
    server: &'a EtcdServer,
    id: u64,
    answer: oneshot::Receiver<Applied>,
}

impl Waiting<'_> {
    async fn wait(mut self) -> Result<Applied, ServerError> {
        let answer = tokio::time::timeout(self.server.request_timeout(), &mut self.answer).await;
        let error = match answer {
            Ok(Ok(applied)) => return Ok(applied),
            // Nobody knows what became of it: a snapshot took the place of the log.
            Ok(Err(_)) => ServerError::Timeout,
            Err(_) => self.server.why_late(),
        };
        self.server.raft.proposals_failed.fetch_add(1, Ordering::Relaxed);
        Err(error)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answer.is_terminated() {
            self.server.state.waits.forget(self.id);
        }
    }
}

/// etcd's ids of requests: the member, the time, a count; no two members and no two lives of one share any.
fn first_id(member: u64) -> u64 {
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64);
    (member << 48) | ((now_ms & 0xff_ffff_ffff) << 8)
}
