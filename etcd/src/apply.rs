//! Applying committed entries, in order, on one thread: what every member does alike.
//!
//! A batch of entries becomes frames of the store. Nothing of a frame is visible before the frame was written; then the revision is
//! published, watchers are told, and only then do the requests get their answers.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_api::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, InternalRaftRequest,
    LeaseCheckpointRequest, LeaseGrantRequest, PutRequest, Request, TxnRequest, alarm_request::AlarmAction,
};
use etcd_api::raftpb;
use parking_lot::{Mutex, RwLock};
use prost::Message as _;
use raft::eraftpb::{ConfState, Entry, EntryType};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::auth::{AuthError, AuthStore, Reply};
use crate::clock::Clock;
use crate::disk;
use crate::lease::{LeaseError, Lessor};
use crate::membership::{self, MemberError, Membership, V2Change};
use crate::meta::{self, Alarms};
use crate::mvcc::response::Response;
use crate::mvcc::txn::{Change, WriteTxn};
use crate::mvcc::{self, Store};
use crate::peer::headers;
use crate::raft::conf_change;
use crate::snapshot::View;
use crate::storage::held::Held;
use crate::storage::import::Imported;
use crate::storage::record::{FrameHeader, Loc};
use crate::storage::{Segments, Writer};
use crate::v2;
use crate::watch::{Batch, Hub};

/// How often a write to a full disk is tried again.
const FULL_RETRY: Duration = Duration::from_millis(200);

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

/// Who waits for which request id.
#[derive(Default)]
pub struct Waits {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Applied>>>,
}

impl Waits {
    pub fn register(&self, id: u64) -> oneshot::Receiver<Applied> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().insert(id, sender);
        receiver
    }

    pub fn forget(&self, id: u64) {
        self.waiting.lock().remove(&id);
    }

    /// A store that was installed may hold what they wait for, and says nothing about it.
    fn abandon(&self) {
        self.waiting.lock().clear();
    }

    pub fn len(&self) -> usize {
        self.waiting.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn complete(&self, done: &mut Vec<(u64, Applied)>) {
        let mut waiting = self.waiting.lock();
        for (id, applied) in done.drain(..) {
            if let Some(sender) = waiting.remove(&id) {
                // Who left meanwhile does not need the answer.
                sender.send(applied).ok();
            }
        }
    }
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

/// What applying sets off elsewhere.
pub trait Effects: Send {
    /// Raft must know a configuration change when it is applied. None when the server stops.
    fn conf_change(&mut self, index: u64, change: raftpb::ConfChange) -> Option<ConfState>;
    /// The members are others than before.
    fn members_changed(&mut self);
    /// This member is none any more.
    fn removed(&mut self);
    fn compacted(&mut self, revision: i64);
    /// The store is to be made durable soon.
    fn checkpoint(&mut self);
    fn frame_written(&mut self, index: u64, bytes: u64);
    fn space_changed(&mut self);
    fn store_full(&mut self, full: bool);
    /// What was applied cannot be written before there is space.
    fn wait_for_space(&mut self) {
        std::thread::sleep(FULL_RETRY);
    }
    fn leases_changed(&mut self);
    /// Members of the version before may come: they cannot read what the log says before `index`.
    fn version_lowered(&mut self, _index: u64) {}
    /// The disk failed, and only a restart knows what it holds.
    fn fatal(&mut self, source: &io::Error) -> !;
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

/// A store that arrived from the leader, with what its small buckets say.
pub struct Arrived {
    pub imported: Imported,
    pub state: meta::State,
    pub lessor: Lessor,
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
    changes: Vec<Change>,
    /// As they were before the first of these changes looked for what was there.
    before: Option<Segments>,
    done: Vec<(u64, Applied)>,
    compactions: Vec<i64>,
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
        let watched = self.hub.is_watched();
        for entry in entries {
            if entry.index <= self.frame.index {
                continue;
            }
            self.entry(entry, watched);
            if self.writer.frame_is_large() {
                self.finish_frame(watched);
            }
        }
        self.finish_frame(watched);
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

    fn entry(&mut self, entry: Entry, watched: bool) {
        self.frame.index = entry.index;
        self.frame.term = entry.term;
        if entry.entry_type != EntryType::EntryNormal as i32 {
            return self.conf_change(&entry);
        }
        if entry.data.is_empty() {
            return;
        }
        match InternalRaftRequest::decode(entry.data.clone()) {
            Ok(request) => self.request(request, watched),
            Err(_) if self.v2_request(&entry) => {}
            // Every member meets the same bytes; skipping is what all of them do.
            Err(error) => {
                warn!(index = entry.index, error = %error, "an entry that cannot be decoded was skipped")
            }
        }
    }

    /// Members before 3.6 say their names and the cluster's version by requests of the old store. Nothing else of it is known here.
    fn v2_request(&mut self, entry: &Entry) -> bool {
        let Ok(request) = Request::decode(entry.data.clone()) else {
            return false;
        };
        let mut membership = self.state.membership.write();
        match membership.apply_v2(&request.path, &request.val) {
            Some(V2Change::Attributes(member)) => meta::put_member(&mut self.writer, member),
            Some(V2Change::Version) => meta::put_cluster_version(&mut self.writer, &request.val),
            None => return false,
        }
        drop(membership);
        self.done.push((
            request.id,
            Applied {
                revision: self.revision,
                result: Ok(Answer::Done),
            },
        ));
        true
    }

    fn request(&mut self, request: InternalRaftRequest, watched: bool) {
        let id = request.header.as_ref().map_or(request.id, |header| header.id);
        let result = match self.authorize(&request) {
            Ok(()) => self.dispatch(request, watched),
            Err(refused) => Err(refused),
        };
        self.done.push((
            id,
            Applied {
                revision: self.revision,
                result,
            },
        ));
    }

    fn dispatch(&mut self, request: InternalRaftRequest, watched: bool) -> Result<Answer, ApplyError> {
        if let Some(put) = &request.put {
            return self.put(put, watched);
        }
        if let Some(txn) = &request.txn {
            return self.txn(txn, watched);
        }
        if let Some(delete) = &request.delete_range {
            return self.delete_range(delete, watched);
        }
        if let Some(compaction) = &request.compaction {
            return self.compaction(compaction);
        }
        if let Some(grant) = &request.lease_grant {
            return self.lease_grant(grant);
        }
        if let Some(revoke) = &request.lease_revoke {
            return self.lease_revoke(revoke.id, watched);
        }
        if let Some(checkpoint) = &request.lease_checkpoint {
            self.lease_checkpoint(checkpoint);
            return Ok(Answer::Done);
        }
        if let Some(alarm) = &request.alarm {
            return Ok(Answer::Alarms(self.alarm(alarm)));
        }
        if let Some(attributes) = &request.cluster_member_attr_set {
            let mut membership = self.state.membership.write();
            if let Some(member) = membership.set_attributes(attributes) {
                meta::put_member(&mut self.writer, member);
            }
            return Ok(Answer::Done);
        }
        if let Some(version) = &request.cluster_version_set {
            meta::put_cluster_version(&mut self.writer, &version.ver);
            let before = std::mem::replace(&mut self.state.membership.write().version, version.ver.clone());
            if headers::minor(&version.ver) < headers::minor(&before) {
                self.effects.version_lowered(self.frame.index);
            }
            info!("cluster-version" = %version.ver, "set cluster version");
            return Ok(Answer::Done);
        }
        if let Some(info) = &request.downgrade_info_set {
            meta::put_downgrade(&mut self.writer, info);
            self.state.membership.write().downgrade.clone_from(info);
            return Ok(Answer::Done);
        }
        if request.downgrade_version_test.is_some() {
            return Ok(Answer::Done);
        }
        if let Some(request) = &request.v2 {
            let outcome = self.state.v2.write().apply(request, &mut self.writer);
            return Ok(Answer::V2(outcome));
        }
        self.auth(&request).unwrap_or(Err(ApplyError::Unsupported))
    }

    /// Runs one transaction under the next revision.
    fn write(
        &mut self,
        watched: bool,
        run: impl FnOnce(&mut WriteTxn<'_>) -> Result<Response, mvcc::Error>,
    ) -> Result<Answer, ApplyError> {
        let mut lessor = self.state.lessor.lock();
        let segments = self.state.store.storage.segments();
        if watched && self.before.is_none() {
            self.before = Some(segments.clone());
        }
        let mut txn = WriteTxn {
            store: &self.state.store,
            writer: &mut self.writer,
            leases: &mut *lessor,
            segments,
            begin: self.revision,
            sub: 0,
            changes: watched.then_some(&mut self.changes),
        };
        let result = run(&mut txn);
        self.revision = txn.end();
        if let Err(mvcc::Error::Io(source)) = &result {
            self.effects.fatal(source);
        }
        Ok(Answer::Kv(result?))
    }

    fn has_alarm(&self, wanted: AlarmType) -> bool {
        let alarms = self.state.alarms.read();
        alarms.iter().any(|(_, kind)| *kind == wanted as i32)
    }

    /// Whoever is corrupt, nobody writes: what the members have would only differ more.
    fn check_intact(&self) -> Result<(), ApplyError> {
        match self.has_alarm(AlarmType::Corrupt) {
            true => Err(ApplyError::Corrupt),
            false => Ok(()),
        }
    }

    fn check_space(&self) -> Result<(), ApplyError> {
        self.check_intact()?;
        match self.has_alarm(AlarmType::Nospace) {
            true => Err(ApplyError::NoSpace),
            false => Ok(()),
        }
    }

    fn put(&mut self, request: &PutRequest, watched: bool) -> Result<Answer, ApplyError> {
        self.check_space()?;
        self.write(watched, |txn| {
            txn.check_put(request)?;
            txn.put(request)
        })
    }

    fn txn(&mut self, request: &TxnRequest, watched: bool) -> Result<Answer, ApplyError> {
        match crate::quota::takes_space(request) {
            true => self.check_space()?,
            false => self.check_intact()?,
        }
        self.write(watched, |txn| txn.txn(request))
    }

    fn delete_range(&mut self, request: &DeleteRangeRequest, watched: bool) -> Result<Answer, ApplyError> {
        self.check_intact()?;
        self.write(watched, |txn| txn.delete_range(request))
    }

    fn compaction(&mut self, request: &CompactionRequest) -> Result<Answer, ApplyError> {
        self.check_intact()?;
        let store = &self.state.store;
        if request.revision <= store.compacted() {
            return Err(mvcc::Error::Compacted.into());
        }
        if request.revision > self.revision {
            return Err(mvcc::Error::FutureRevision.into());
        }
        meta::put_compacted(&mut self.writer, request.revision);
        store.set_compacted(request.revision);
        self.compactions.push(request.revision);
        Ok(Answer::Kv(Response::Compaction))
    }

    fn lease_grant(&mut self, request: &LeaseGrantRequest) -> Result<Answer, ApplyError> {
        self.check_space()?;
        let ttl_seconds = self
            .state
            .lessor
            .lock()
            .grant(request.id, request.ttl, self.clock.now())?;
        meta::put_lease(&mut self.writer, request.id, ttl_seconds, 0);
        self.effects.leases_changed();
        Ok(Answer::LeaseGrant {
            id: request.id,
            ttl_seconds,
        })
    }

    fn lease_checkpoint(&mut self, request: &LeaseCheckpointRequest) {
        let mut lessor = self.state.lessor.lock();
        for checkpoint in &request.checkpoints {
            let known = lessor.checkpoint(checkpoint.id, checkpoint.remaining_ttl);
            if let Some(ttl_seconds) = known
                && self.rules.persist_checkpoints
            {
                meta::put_lease(
                    &mut self.writer,
                    checkpoint.id,
                    ttl_seconds,
                    checkpoint.remaining_ttl,
                );
            }
        }
    }

    /// The keys go first, then the lease: it detaches nothing that it does not find.
    fn lease_revoke(&mut self, id: i64, watched: bool) -> Result<Answer, ApplyError> {
        self.check_intact()?;
        let keys = self.state.lessor.lock().keys_of(id)?;
        self.write(watched, |txn| {
            txn.delete_keys(&keys);
            Ok(Response::Compaction)
        })?;
        self.state.lessor.lock().revoke(id)?;
        meta::delete_lease(&mut self.writer, id);
        Ok(Answer::Done)
    }

    fn alarm(&mut self, request: &AlarmRequest) -> Vec<AlarmMember> {
        let mut alarms = self.state.alarms.write();
        let asked = (request.member_id, request.alarm);
        match request.action() {
            AlarmAction::Get => meta::alarms_of(&alarms, request.alarm),
            AlarmAction::Activate if request.alarm == AlarmType::None as i32 => Vec::new(),
            AlarmAction::Activate => {
                if alarms.insert(asked) {
                    meta::put_alarm(&mut self.writer, request.member_id, request.alarm);
                    warn!("from" = %format!("{:x}", request.member_id), alarm = request.alarm().as_str_name(), "alarm raised");
                }
                vec![meta::alarm_member(asked)]
            }
            AlarmAction::Deactivate if alarms.remove(&asked) => {
                meta::delete_alarm(&mut self.writer, request.member_id, request.alarm);
                info!("from" = %format!("{:x}", request.member_id), alarm = request.alarm().as_str_name(), "alarm disarmed");
                vec![meta::alarm_member(asked)]
            }
            AlarmAction::Deactivate => Vec::new(),
        }
    }

    fn conf_change(&mut self, entry: &Entry) {
        let Some(change) = conf_change::decode(entry) else {
            return warn!(
                index = entry.index,
                "a configuration change that cannot be decoded was skipped"
            );
        };
        let id = change.id;
        let result = self.change_members(change, entry.index);
        self.done.push((
            id,
            Applied {
                revision: self.revision,
                result: result.map(|()| Answer::Members).map_err(ApplyError::Member),
            },
        ));
    }

    /// What every member refuses alike does not reach raft.
    fn change_members(&mut self, change: raftpb::ConfChange, index: u64) -> Result<(), MemberError> {
        let Some(read) = membership::Change::read(&change) else {
            warn!(
                index,
                "a configuration change whose context does not fit it was skipped"
            );
            return Err(MemberError::BadUrls);
        };
        let checked = self
            .state
            .membership
            .read()
            .validate(&read, self.rules.max_learners);
        if let Err(error) = checked {
            warn!(index, change = ?read, error = %error, "validation on configuration change failed");
            return Err(error);
        }
        if let Some(state) = self.effects.conf_change(index, change) {
            meta::put_conf_state(&mut self.writer, &state);
        }
        let changed = self.state.membership.write().apply(&read).cloned();
        match changed {
            Some(member) => meta::put_member(&mut self.writer, &member),
            None => self.member_removed(&read),
        }
        info!(change = ?read, "applied a configuration change");
        self.members_changed = true;
        Ok(())
    }

    fn member_removed(&mut self, change: &membership::Change) {
        if let membership::Change::Remove(id) = change {
            meta::remove_member(&mut self.writer, *id);
            if *id == self.member {
                self.effects.removed();
            }
        }
    }

    /// Puts a store that arrived from the leader in the place of this one. Call between batches. It counts once a checkpoint has written
    /// down its segments.
    pub fn install(&mut self, arrived: Arrived) {
        let Arrived {
            mut imported,
            state,
            lessor,
        } = arrived;
        let Some(active) = imported.active.clone() else {
            return;
        };
        let store = self.state.store.clone();
        let storage = &store.storage;
        let structure = storage.structure.lock();
        let old = storage.segments();
        imported
            .all_segments()
            .for_each(|segment| storage.add(segment.clone()));
        let (versions, frame) = (std::mem::take(&mut imported.versions), imported.frame);
        store.replace(versions, frame.revision, state.compacted);
        self.writer
            .replace(active, std::mem::take(&mut imported.meta), frame);
        storage.remove(&old.iter().map(|segment| segment.number).collect::<Vec<_>>());
        storage.doomed.lock().extend(old.iter().cloned());
        storage
            .installed
            .store(frame.index, std::sync::atomic::Ordering::SeqCst);
        imported.keep();
        drop(structure);
        (self.revision, self.frame) = (frame.revision.max(store.current()), frame);
        let learned = state.membership.is_removed(self.member);
        *self.state.lessor.lock() = lessor.attached_to(&store);
        *self.state.alarms.write() = state.alarms;
        *self.state.membership.write() = state.membership;
        self.state.auth.restore(state.auth);
        *self.state.v2.write() = state.v2;
        self.effects.members_changed();
        self.effects.leases_changed();
        // Whoever watches reads what it has missed from the new history.
        self.hub.publish(Batch {
            revision: self.revision,
            changes: None,
            place: Loc::default(),
            bytes: Bytes::new(),
            segments: storage.segments(),
        });
        if learned {
            self.effects.removed();
        }
        self.state.waits.abandon();
        self.effects.checkpoint();
        self.reserve();
    }

    /// The changes of this frame with the segments that their previous values lie in, whatever was reclaimed since they were found. None when
    /// one of them is gone all the same: whoever watches reads history, which says where it is now.
    fn readable(&mut self, watched: bool) -> (Option<Vec<Change>>, Segments) {
        let storage = &self.state.store.storage;
        let mut held = Held::since(self.before.take().unwrap_or_default());
        let changes = watched.then(|| std::mem::take(&mut self.changes));
        for prev in changes.iter().flatten().filter_map(|change| change.prev) {
            held.hold(storage, prev.loc.segment);
        }
        match held.list() {
            Ok(segments) => (changes, segments),
            Err(_) => (None, storage.segments()),
        }
    }

    fn finish_frame(&mut self, watched: bool) {
        self.frame.revision = self.revision;
        let (place, bytes) = self.flush();
        let before = self.state.store.current();
        self.state.store.publish(self.revision);
        self.effects.frame_written(self.frame.index, bytes.len() as u64);
        // Asked again: whoever came after the first asking has seen the revision before this frame, and catches up.
        if self.revision > before && (watched || self.hub.is_watched()) {
            let (changes, segments) = self.readable(watched);
            self.hub.publish(Batch {
                revision: self.revision,
                changes,
                place,
                bytes,
                segments,
            });
        } else {
            self.writer.reuse(bytes);
        }
        self.before = None;
        self.changes.clear();
        if std::mem::take(&mut self.members_changed) {
            self.effects.members_changed();
            // Who was removed takes its vote along, and the log may not say that this was committed: the store must.
            self.effects.checkpoint();
        }
        self.state.waits.complete(&mut self.done);
        for revision in self.compactions.drain(..) {
            self.effects.compacted(revision);
        }
        self.roll();
    }

    /// A full disk holds everything up until there is space: what is applied is in the log, and nothing is lost.
    fn flush(&mut self) -> (Loc, Bytes) {
        self.persistently(|writer, frame| writer.flush(frame))
    }

    fn roll(&mut self) {
        if self.persistently(|writer, _| writer.roll_if_full()) {
            self.effects.checkpoint();
        }
        self.reserve();
    }

    /// Keeps the next segment reserved; while that fails, the server refuses what takes space.
    pub fn reserve(&mut self) {
        let result = self.writer.reserve_next();
        let full = match &result {
            Ok(()) => false,
            Err(source) if disk::is_full(source) => true,
            Err(source) => self.effects.fatal(source),
        };
        if full != self.full {
            self.full = full;
            self.effects.store_full(full);
        }
    }

    pub fn is_full(&self) -> bool {
        self.full
    }

    fn persistently<T>(&mut self, mut attempt: impl FnMut(&mut Writer, FrameHeader) -> io::Result<T>) -> T {
        loop {
            match attempt(&mut self.writer, self.frame) {
                Ok(value) => return value,
                Err(source) if disk::is_full(&source) => {
                    if !std::mem::replace(&mut self.full, true) {
                        warn!("the disk is full: applied entries wait for space");
                        self.effects.store_full(true);
                    }
                    self.effects.wait_for_space();
                }
                Err(source) => self.effects.fatal(&source),
            }
        }
    }
}

mod auth;

#[cfg(test)]
mod tests;
