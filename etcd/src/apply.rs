//! Applying committed entries, in order, on one thread: what every member does alike.
//!
//! A batch of entries becomes frames of the store. Nothing of a frame is visible before the frame was written; then the revision is
//! published, watchers are told, and only then do the requests get their answers.

mod auth;
mod cluster;
mod effects;
mod frame;
mod install;
mod kv;
mod lease;
mod wait;

use std::sync::Arc;

use etcd_api::etcdserverpb::{AlarmMember, InternalRaftRequest};
use parking_lot::{Mutex, RwLock};
use prost::Message as _;
use raft::eraftpb::{Entry, EntryType};
use tracing::warn;

pub use self::effects::Effects;
pub use self::install::Arrived;
pub use self::wait::Waits;
use crate::auth::token::TokenError;
use crate::auth::{AuthError, AuthStore, Reply};
use crate::clock::Clock;
use crate::lease::{LeaseError, Lessor};
use crate::membership::{MemberError, Membership};
use crate::meta::{self, Alarms};
use crate::metrics::applied::Applying;
use crate::mvcc::response::Response;
use crate::mvcc::txn::Change;
use crate::mvcc::{self, Store};
use crate::snapshot::View;
use crate::storage::record::FrameHeader;
use crate::storage::{Segments, Writer};
use crate::v2;
use crate::watch::Hub;

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Mvcc(#[from] mvcc::Error),
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    #[error(transparent)]
    Member(#[from] MemberError),
    #[error("etcdserver: corrupt cluster")]
    Corrupt,
    #[error("etcdserver: this request is not supported by this member")]
    Unsupported,
}

#[derive(Debug)]
pub enum Answer {
    Kv(Response),
    LeaseGrant { id: i64, ttl_seconds: i64 },
    Done,
    Alarms(Vec<AlarmMember>),
    Members,
    Auth(Reply),
    V2(v2::Outcome),
}

/// What came of one entry, and the revision after it.
pub struct Applied {
    pub revision: i64,
    pub result: Result<Answer, ApplyError>,
}

/// What others read while entries are being applied.
pub struct State {
    pub store: Arc<Store>,
    pub lessor: Mutex<Lessor>,
    pub membership: RwLock<Membership>,
    pub alarms: RwLock<Alarms>,
    pub auth: AuthStore,
    /// Changed by the apply thread alone; who reads or watches comes for a moment.
    pub v2: RwLock<v2::Store>,
    pub waits: Waits,
}

impl State {
    /// As a store was read back.
    pub fn new(
        store: Arc<Store>,
        lessor: Lessor,
        read: meta::State,
        options: &crate::auth::Options,
    ) -> Result<State, TokenError> {
        Ok(State {
            lessor: Mutex::new(lessor.attached_to(&store)),
            store,
            membership: RwLock::new(read.membership),
            alarms: RwLock::new(read.alarms),
            auth: AuthStore::new(read.auth, options)?,
            v2: RwLock::new(read.v2),
            waits: Waits::default(),
        })
    }
}

/// What members must be configured alike for.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// `--max-learners`
    pub max_learners: usize,
    /// Whether checkpoints of leases outlive a restart: `LeaseCheckpointPersist`.
    pub persist_checkpoints: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            max_learners: 1,
            persist_checkpoints: false,
        }
    }
}

pub struct Applier {
    pub state: Arc<State>,
    pub writer: Writer,
    pub hub: Arc<Hub>,
    pub clock: Arc<dyn Clock>,
    pub effects: Box<dyn Effects>,
    pub member: u64,
    pub rules: Rules,
    revision: i64,
    frame: FrameHeader,
    /// Somebody watched when this batch began: its changes are recorded.
    watched: bool,
    changes: Vec<Change>,
    /// As they were before the first of these changes looked for what was there.
    before: Option<Segments>,
    /// Answers that wait for the frame to be written.
    done: Vec<(u64, Applied)>,
    compactions: Vec<i64>,
    /// There is no segment reserved after this one.
    full: bool,
    /// In the frame that is being made.
    members_changed: bool,
}

impl Applier {
    pub fn new(
        state: Arc<State>,
        writer: Writer,
        hub: Arc<Hub>,
        clock: Arc<dyn Clock>,
        effects: Box<dyn Effects>,
        member: u64,
        frame: FrameHeader,
    ) -> Self {
        let revision = state.store.current();
        Applier {
            state,
            writer,
            hub,
            clock,
            effects,
            member,
            rules: Rules::default(),
            revision,
            frame,
            watched: false,
            changes: Vec::new(),
            before: None,
            done: Vec::new(),
            compactions: Vec::new(),
            full: false,
            members_changed: false,
        }
    }

    /// Applies committed entries. Those at or before the consistent index were applied before a restart.
    pub fn apply(&mut self, entries: Vec<Entry>) {
        self.watched = self.hub.is_watched();
        for entry in entries {
            if entry.index <= self.frame.index {
                continue;
            }
            self.entry(entry);
            if self.writer.frame_is_large() {
                self.finish_frame();
            }
        }
        self.finish_frame();
    }

    /// What a snapshot taken now holds. Call between batches.
    pub fn view(&self) -> View {
        View {
            index: self.frame.index,
            term: self.frame.term,
            revision: self.revision,
            compacted: self.state.store.compacted(),
            meta: self.writer.meta(),
        }
    }

    fn entry(&mut self, entry: Entry) {
        self.frame.index = entry.index;
        self.frame.term = entry.term;
        if entry.entry_type != EntryType::EntryNormal as i32 {
            return self.conf_change(&entry);
        }
        if entry.data.is_empty() {
            return;
        }
        match InternalRaftRequest::decode(entry.data.clone()) {
            Ok(request) => self.request(request),
            Err(_) if self.v2_request(&entry) => {}
            // Every member meets the same bytes; skipping is what all of them do.
            Err(error) => {
                warn!(index = entry.index, error = %error, "an entry that cannot be decoded was skipped")
            }
        }
    }

    fn request(&mut self, request: InternalRaftRequest) {
        let id = request.header.as_ref().map_or(request.id, |header| header.id);
        let result = match self.authorize(&request) {
            Ok(()) => self.timed(request),
            Err(refused) => Err(refused),
        };
        self.answer(id, result);
    }

    fn timed(&mut self, request: InternalRaftRequest) -> Result<Answer, ApplyError> {
        let applying = Applying::begin(&request);
        let result = self.dispatch(request);
        // As in etcd: a compaction that was made before has done what it is for.
        let compacted = matches!(result, Err(ApplyError::Mvcc(mvcc::Error::Compacted)));
        applying.end(result.is_ok() || compacted);
        result
    }

    fn dispatch(&mut self, request: InternalRaftRequest) -> Result<Answer, ApplyError> {
        if let Some(put) = &request.put {
            return self.put(put);
        }
        if let Some(txn) = &request.txn {
            return self.txn(txn);
        }
        if let Some(delete) = &request.delete_range {
            return self.delete_range(delete);
        }
        if let Some(compaction) = &request.compaction {
            return self.compaction(compaction);
        }
        if let Some(grant) = &request.lease_grant {
            return self.lease_grant(grant);
        }
        if let Some(revoke) = &request.lease_revoke {
            return self.lease_revoke(revoke.id);
        }
        if let Some(checkpoint) = &request.lease_checkpoint {
            self.lease_checkpoint(checkpoint);
            return Ok(Answer::Done);
        }
        if let Some(request) = &request.v2 {
            let outcome = self.state.v2.write().apply(request, &mut self.writer);
            return Ok(Answer::V2(outcome));
        }
        let answered = self.cluster(&request).or_else(|| self.auth(&request));
        answered.unwrap_or(Err(ApplyError::Unsupported))
    }

    fn answer(&mut self, id: u64, result: Result<Answer, ApplyError>) {
        let revision = self.revision;
        self.done.push((id, Applied { revision, result }));
    }
}

#[cfg(test)]
mod tests;
