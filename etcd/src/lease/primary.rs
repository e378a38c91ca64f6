//! What the primary lessor does: it keeps leases alive and ends them, as long as its member knows that it leads.
//!
//! Nothing here reads a clock or waits by itself. The server does both on tokio, the simulation in virtual time; both run these lines.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use etcd_api::etcdserverpb::{
    InternalRaftRequest, LeaseCheckpoint, LeaseCheckpointRequest, LeaseRevokeRequest, RequestHeader,
};
use parking_lot::Mutex;
use prost::Message as _;
use tracing::warn;

use super::{LeaseError, Lessor};
use crate::apply::{Applied, ApplyError};
use crate::auth;
use crate::clock::Clock;
use crate::metrics;
use crate::raft::driver::Event;
use crate::raft::read::{self, Replica};
use crate::server::ServerError;

/// etcd revokes at most this many expired leases a second.
const REVOKE_RATE: usize = 1000;
/// An idle lessor is looked at this often at the least.
const EXPIRY_AUDIT: Duration = Duration::from_secs(5);
/// Between two looks at a lease whose end is not agreed on yet.
const ENDING_RETRY: Duration = Duration::from_millis(50);
/// etcd's: how long the leader waits to have applied what it has committed.
pub const APPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// etcd's: how often a long lease's remaining time is agreed on, and how many go into one request.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);
const CHECKPOINT_BATCH: usize = 1000;

/// A member as far as its lessor needs it.
pub trait Primary: Replica + 'static {
    fn lessor(&self) -> &Mutex<Lessor>;
    fn clock(&self) -> &dyn Clock;
    fn election(&self) -> Duration;
    fn next_id(&self) -> u64;
    /// Hands the event to raft at once; the future waits until what it proposes is applied here.
    fn submit(&self, id: u64, event: Event) -> impl Future<Output = Result<Applied, ServerError>> + Send;
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);
    /// A lease may end earlier than the next one was to end.
    fn leases_changed(&self);
    /// Until [`Primary::leases_changed`] is called, for so long at most.
    fn wait_changed(&self, most: Duration) -> impl Future<Output = ()> + Send;
}

/// Whether the member leads for sure: it did so at some time within the last election. As long at the least a later leader gives every lease
/// on top of its time. Whoever stood still or is cut off asks the others first.
pub async fn ensure_leadership(member: &impl Primary) -> bool {
    if !is_leader(member) {
        return false;
    }
    let asked = member.clock().now();
    if member.lessor().lock().is_sure(asked, election_ms(member)) {
        return true;
    }
    // Not even the only member may skip this: raft's thread finds out how long it stood still.
    let answered = Box::pin(read::read_index(member, || Some(read::ask_raft(member.events()))));
    if answered.await.is_err() || !is_leader(member) {
        return false;
    }
    member.lessor().lock().confirm(asked);
    true
}

fn election_ms(member: &impl Primary) -> u64 {
    member.election().as_millis() as u64
}

fn is_leader(member: &impl Primary) -> bool {
    member.status().is_leader.load(Ordering::SeqCst)
}

/// A lease that an earlier leader has granted, or a checkpoint that it has made, may not be applied here before it is settled.
async fn may_renew(member: &impl Primary) -> Result<(), ServerError> {
    match ensure_leadership(member).await && member.status().settled.load(Ordering::SeqCst) {
        true => Ok(()),
        false => Err(ServerError::NotLeader),
    }
}

/// Renews a lease on the leader.
pub async fn renew(member: &impl Primary, id: i64) -> Result<i64, ServerError> {
    read::wait_applied(member, APPLY_TIMEOUT).await?;
    let mut confirmed = false;
    loop {
        may_renew(member).await?;
        let Some(renewed) = renew_without_checkpoint(member, id) else {
            // A later leader must not go by what was left before this renewal.
            let term = member.status().term.load(Ordering::SeqCst);
            Box::pin(checkpoint(member, vec![(id, 0)], term)).await?;
            continue;
        };
        match renewed {
            // As etcd: it is gone once it was revoked, and not before.
            Err(LeaseError::Ending) => member.pause(ENDING_RETRY).await,
            // One that has been replaced and does not know it has not heard of what its successor granted.
            Err(LeaseError::NotFound) if !std::mem::replace(&mut confirmed, true) => {
                let confirmed = Box::pin(read::linearizable(member));
                confirmed.await.map_err(|_| ServerError::NotLeader)?;
            }
            renewed => return Ok(renewed?),
        }
    }
}

/// None, and no renewal, as long as the cluster may go by a checkpoint. In one step: between two another checkpoint could be proposed.
fn renew_without_checkpoint(member: &impl Primary, id: i64) -> Option<Result<i64, LeaseError>> {
    let mut lessor = member.lessor().lock();
    match lessor.has_checkpoint(id) {
        true => None,
        false => Some(lessor.renew(id, member.clock().now())),
    }
}

/// Renews leases on the leader, as far as that needs nobody else; what they have then.
pub async fn renew_many(member: &impl Primary, ids: Vec<i64>) -> Result<Vec<(i64, i64)>, ServerError> {
    read::wait_applied(member, APPLY_TIMEOUT).await?;
    may_renew(member).await?;
    let now = member.clock().now();
    let mut lessor = member.lessor().lock();
    let mut renew = |id: i64| match lessor.has_checkpoint(id) {
        true => None,
        false => lessor.renew(id, now).ok().map(|ttl| (id, ttl)),
    };
    Ok(ids.into_iter().filter_map(&mut renew).collect())
}

/// Revokes leases that ended, as long as this member leads.
pub async fn expire(member: Arc<impl Primary>) {
    loop {
        let busy = revoke_expired(&member).await;
        let wait = match busy {
            true => Duration::from_secs(1),
            false => until_expiry(&*member),
        };
        // Either the time has come or an earlier lease was granted.
        member.wait_changed(wait).await;
    }
}

/// Whether there were any.
async fn revoke_expired(member: &Arc<impl Primary>) -> bool {
    // Read before the lessor is: what a later term's leader promises is not known to this look.
    let term = member.status().term.load(Ordering::SeqCst);
    // A leader that was away has no say in who ended meanwhile. Nor has one that stops between its looks at the clock and at itself: the
    // clock comes first.
    let now = member.clock().now();
    if !ensure_leadership(&**member).await {
        return false;
    }
    let expired = member.lessor().lock().expired(now, REVOKE_RATE);
    let busy = !expired.is_empty();
    for id in expired {
        metrics::LEASES_EXPIRED.inc();
        member.spawn(revoke(member.clone(), id, term));
    }
    busy
}

fn until_expiry(member: &impl Primary) -> Duration {
    let next = member.lessor().lock().next_expiry();
    let wait = next.map_or(EXPIRY_AUDIT, |next| {
        Duration::from_millis(next.since(member.clock().now()) + 1)
    });
    wait.min(EXPIRY_AUDIT)
}

/// In this leader's own term or not at all: what a later leader was told by the lease's holder is not known here.
async fn revoke(member: Arc<impl Primary>, id: i64, term: u64) {
    let request = InternalRaftRequest {
        lease_revoke: Some(LeaseRevokeRequest { id }),
        ..Default::default()
    };
    if let Err(error) = submit_leading(&*member, request, term).await {
        warn!("lease-id" = %format!("{id:x}"), error = %error, "failed to revoke lease");
        member.lessor().lock().not_revoked(id, member.clock().now());
    }
}

fn submit_leading(
    member: &impl Primary,
    mut request: InternalRaftRequest,
    term: u64,
) -> impl Future<Output = Result<(), ServerError>> + Send {
    let id = member.next_id();
    request.header = Some(RequestHeader {
        id,
        username: auth::ROOT.to_owned(),
        ..RequestHeader::default()
    });
    let event = Event::ProposeLeading(request.encode_to_vec(), term);
    let submitted = member.submit(id, event);
    async move {
        match submitted.await?.result {
            // Root may do everything; before the rules of a snapshot are known there may be no root. A corrupt cluster ends no lease.
            Err(error @ (ApplyError::Auth(_) | ApplyError::Corrupt)) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn checkpoint(
    member: &impl Primary,
    leases: Vec<(i64, i64)>,
    term: u64,
) -> impl Future<Output = Result<(), ServerError>> + Send {
    let checkpoints = leases
        .into_iter()
        .map(|(id, remaining_ttl)| LeaseCheckpoint { id, remaining_ttl });
    let request = InternalRaftRequest {
        lease_checkpoint: Some(LeaseCheckpointRequest {
            checkpoints: checkpoints.collect(),
        }),
        ..Default::default()
    };
    submit_leading(member, request, term)
}

/// Lets the cluster know from time to time what long leases have left.
pub async fn checkpoint_regularly(member: Arc<impl Primary>, interval: Duration) {
    loop {
        member.pause(interval).await;
        let interval_ms = interval.as_millis() as u64;
        let due = member
            .lessor()
            .lock()
            .due_for_checkpoint(interval_ms, member.clock().now());
        for batch in due.chunks(CHECKPOINT_BATCH) {
            if let Err(error) = checkpoint_batch(&*member, batch).await {
                warn!(error = %error, "failed to checkpoint leases");
                break;
            }
        }
    }
}

/// What the leases have left is proposed before another renewal can be answered: one that comes later takes it back.
fn checkpoint_batch(
    member: &impl Primary,
    ids: &[i64],
) -> impl Future<Output = Result<(), ServerError>> + Send {
    let term = member.status().term.load(Ordering::SeqCst);
    let mut lessor = member.lessor().lock();
    let left = lessor.begin_checkpoint(ids, member.clock().now());
    checkpoint(member, left, term)
}

/// Raft has made this member the leader, or another one.
pub fn leadership(member: &impl Primary, leading: bool) {
    let mut lessor = member.lessor().lock();
    match leading {
        true => lessor.promote(member.clock().now(), election_ms(member)),
        false => lessor.demote(),
    }
    drop(lessor);
    member.leases_changed();
}

/// The member's clock went on by this, and the member did not.
pub fn stalled(member: &impl Primary, gap: Duration) {
    member.lessor().lock().extend(gap.as_millis() as u64);
}
