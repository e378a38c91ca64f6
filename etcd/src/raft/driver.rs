//! The doing half of raft: the thread that owns the node.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use component_base::allocator;
use etcd_api::{raftpb, walpb};
use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType, SnapshotMetadata};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::conf_change;
use super::inbox::Inbox;
use super::log_thread::Job;
use super::node::{Follower, Node, Persist, Work};
use super::older::Fetch;
use crate::apply::Arrived;
use crate::peer::streams::Opened;

/// A question to the leader that was not answered within so many ticks is asked again.
const READ_RETRY_TICKS: u32 = 5;
/// Proposals in one message, by their size.
const PROPOSE_BYTES: usize = 1024 * 1024;
/// Whoever is asked first whether this member leads answers within this time, or the others are asked too.
const ANSWER_WITHIN: Duration = Duration::from_millis(2);
/// Followers hear so soon of a commit, if nothing else is sent to them first.
const TELL_WITHIN: Duration = Duration::from_millis(1);
/// Proposals that wait for a leader.
const MAX_HELD: usize = 20_000;

/// Everything that can happen to the node.
pub enum Event {
    Propose(Vec<u8>),
    /// Only as the leader of this term: nobody else may say so in its name.
    ProposeLeading(Vec<u8>, u64),
    ProposeConfChange(raftpb::ConfChange),
    /// Answered with the index that must have been applied; dropped when there is no leader.
    ReadIndex(oneshot::Sender<u64>),
    Step(Box<Message>),
    /// A store of another member, with the message that tells raft of it.
    Arrived(Box<Message>, Box<Arrived>),
    Unreachable(u64),
    /// Whether the snapshot for a member arrived.
    Snapshot(u64, bool),
    TransferLeader(u64),
    /// Answered with everyone's progress; dropped where this member does not lead.
    Followers(oneshot::Sender<Vec<Follower>>),
    Persisted(u64, Vec<Message>),
    /// More was applied than when the node was asked to campaign last.
    Applied,
    /// The entry at this index is being applied.
    ConfChange(u64, Box<raftpb::ConfChange>, mpsc::Sender<ConfState>),
    /// The store is durable up to this index and term.
    Durable(u64, u64),
    /// Whoever lacks entries up to this index is sent the store.
    Forget(u64),
    /// The first election need not wait so many ticks of its timeout.
    AdvanceTicks(usize),
    /// What [`Outside::fetch`] was asked for, from this index; None when it cannot be read.
    Fetched(u64, Option<Vec<Entry>>),
    /// The log's files hold entries up to this index no more.
    Released(u64),
    SpaceChanged,
    /// To or from a peer.
    Stream(Box<Opened>),
    PeerStopped,
    Stop,
}

/// What the rest of the server may read at any time.
#[derive(Default)]
pub struct Status {
    pub leader: AtomicU64,
    pub term: AtomicU64,
    pub committed: AtomicU64,
    pub applied: AtomicU64,
    pub is_leader: AtomicBool,
    /// Leading, and whatever earlier leaders have answered was applied here.
    pub settled: AtomicBool,
    /// The only member, and leading: what it has published is what is linearizable. A learner may have applied more, and be a voter already.
    pub alone: AtomicBool,
    pub leader_changes: AtomicU64,
    pub proposals_pending: AtomicU64,
    pub proposals_failed: AtomicU64,
    pub heartbeat_failures: AtomicU64,
    /// When raft's clock went on last, on [`crate::clock::uptime_ms`].
    pub last_tick_ms: AtomicU64,
}

/// Where the driver's decisions go.
pub trait Outside: Send {
    fn apply(&mut self, entries: Vec<Entry>);
    /// It may wait for [`Outside::flush`].
    fn send(&mut self, messages: Vec<Message>);
    fn flush(&mut self) {}
    /// Until something has happened, at most so long; then what has happened.
    fn wait(&mut self, events: &Inbox<Event>, batch: &mut Vec<Event>, timeout: Duration) {
        events.drain(batch, Some(timeout));
    }
    /// Raft decides next whether it wants this store.
    fn arrived(&mut self, arrived: Box<Arrived>);
    /// It does: the store is to be replaced by the one that has arrived; [`Event::Durable`] tells when it is.
    fn install(&mut self, snapshot: &SnapshotMetadata);
    /// What has arrived and was not installed is not wanted.
    fn decided(&mut self);
    fn leadership(&mut self, leading: bool);
    /// Reads older entries beside this thread; [`Event::Fetched`] brings them.
    fn fetch(&mut self, fetch: Fetch);
    /// The clock of this process stood still for so long.
    fn stalled(&mut self, gap: Duration);
    fn space_changed(&mut self);
    fn open(&mut self, _: Opened) {}
    fn close_stopped(&mut self) {}
}

pub struct Driver<O> {
    pub node: Node,
    pub id: u64,
    pub events: Arc<Inbox<Event>>,
    pub jobs: Arc<Inbox<Job>>,
    pub status: Arc<Status>,
    pub outside: O,
    pub tick: Duration,
    /// A gap between two ticks as long as this is a stall.
    pub election: Duration,
    last_tick: Instant,
    woke: Instant,
    /// Followers hear of a commit with the next append, which is soon to come.
    pub lazy: bool,
    last_proposal: Option<Instant>,
    untold_since: Option<Instant>,
    spared_since: Option<Instant>,
    reads: Vec<oneshot::Sender<u64>>,
    asked: Option<Asked>,
    reads_asked: u64,
    conf_state: ConfState,
    held: Vec<Event>,
    proposals: Vec<Vec<u8>>,
    proposal_bytes: usize,
    noted_applied: u64,
    installing: Option<Installing>,
    /// What must have been applied before a leader is settled.
    settled_from: Option<u64>,
    /// What must have been applied before the only member may answer reads by itself.
    alone_from: Option<u64>,
}

/// A question to the leader and who waits for its answer.
struct Asked {
    context: Vec<u8>,
    readers: Vec<oneshot::Sender<u64>>,
    ticks: u32,
}

/// What must not be written before the store was replaced.
struct Installing {
    index: u64,
    persists: Vec<Persist>,
    /// The configurations before, each with the snapshot that it came with: the store may still be on its way there.
    earlier: Vec<(u64, ConfState)>,
}

impl Installing {
    /// What a change that comes before the snapshot made of the configuration of its time.
    fn change(&mut self, index: u64, change: &raftpb::ConfChange) -> ConfState {
        let mut known = self.earlier.iter_mut().rev();
        let Some((_, state)) = known.find(|(from, _)| *from < index) else {
            return ConfState::default();
        };
        conf_change::change(state, change);
        state.clone()
    }
}

impl<O: Outside> Driver<O> {
    pub fn new(
        node: Node,
        id: u64,
        events: Arc<Inbox<Event>>,
        jobs: Arc<Inbox<Job>>,
        status: Arc<Status>,
        outside: O,
        tick: Duration,
        conf_state: ConfState,
    ) -> Self {
        // Between members whose clocks all start at zero, contexts of reads must differ over restarts.
        let reads_asked = rand::random::<u64>() >> 1;
        Driver {
            node,
            id,
            events,
            jobs,
            status,
            outside,
            tick,
            election: tick * 10,
            last_tick: Instant::now(),
            woke: Instant::now(),
            lazy: false,
            last_proposal: None,
            untold_since: None,
            spared_since: None,
            reads: Vec::new(),
            asked: None,
            reads_asked,
            conf_state,
            held: Vec::new(),
            proposals: Vec::new(),
            proposal_bytes: 0,
            noted_applied: 0,
            installing: None,
            settled_from: None,
            alone_from: None,
        }
    }

    /// Until something has happened or a tick is due; then what has happened. Whoever asks after a stall is answered once the leases have been
    /// extended by it.
    pub fn wait(&mut self, batch: &mut Vec<Event>) {
        let mut until = self.last_tick + self.tick;
        if let Some(since) = self.untold_since {
            until = until.min(since + TELL_WITHIN);
        }
        if let Some(since) = self.spared_since {
            until = until.min(since + ANSWER_WITHIN);
        }
        let wait = until.saturating_duration_since(Instant::now());
        self.outside.wait(&self.events, batch, wait);
        // One look at the clock: a stall between two looks would be nobody's.
        self.woken(Instant::now());
        self.judge_pace(batch);
        if self
            .spared_since
            .is_some_and(|since| since.elapsed() >= ANSWER_WITHIN)
            && self.node.ask_spared()
        {
            self.spared_since = None;
            self.work();
            self.outside.flush();
        }
    }

    /// Where proposals follow each other closely the next one tells of the commit of the one before.
    fn judge_pace(&mut self, batch: &[Event]) {
        if batch.iter().any(|event| matches!(event, Event::Propose(_))) {
            let now = Instant::now();
            let last = self.last_proposal.replace(now);
            self.lazy = last.is_some_and(|last| now - last < TELL_WITHIN);
        } else if self
            .untold_since
            .is_some_and(|since| since.elapsed() >= TELL_WITHIN)
        {
            self.lazy = false;
        }
    }

    pub fn woken(&mut self, now: Instant) {
        self.woke = now;
        let since = now - self.last_tick;
        if since >= self.election {
            self.outside.stalled(since - self.tick);
        }
    }

    /// What is due since this thread woke.
    pub fn tick_if_due(&mut self) {
        if self.woke - self.last_tick < self.tick {
            return;
        }
        self.last_tick = self.woke;
        self.on_tick();
        self.outside.flush();
        self.status
            .last_tick_ms
            .store(crate::clock::uptime_ms(self.woke), Ordering::SeqCst);
        allocator::collect();
    }

    /// Before the first [`Driver::turn`].
    pub fn start(&mut self) {
        self.campaign();
        self.work();
    }

    /// One round without waiting: what has happened, then what follows from it. False when it was told to stop.
    pub fn turn(&mut self, batch: &mut Vec<Event>) -> bool {
        self.note_applied();
        for event in batch.drain(..) {
            if matches!(event, Event::Stop) {
                return false;
            }
            self.event(event);
        }
        self.release_held();
        self.flush_proposals();
        self.ask_reads();
        self.work();
        self.outside.flush();
        true
    }

    pub fn on_tick(&mut self) {
        if self.node.is_leader() && self.events.len() > MAX_HELD {
            self.status.heartbeat_failures.fetch_add(1, Ordering::Relaxed);
        }
        self.node.tick();
        self.node.ask_spared();
        if let Some(asked) = &mut self.asked {
            asked.ticks += 1;
            if asked.ticks >= READ_RETRY_TICKS
                && let Some(asked) = self.asked.take()
            {
                self.reads.extend(asked.readers);
            }
        }
        self.release_held();
        self.ask_reads();
        self.work();
        self.publish();
    }

    fn note_applied(&mut self) {
        let applied = self.status.applied.load(Ordering::SeqCst);
        if applied > self.noted_applied {
            self.noted_applied = self.node.applied(applied);
        }
    }

    /// Raft refuses while a configuration change is committed and not applied; applying asks again.
    fn campaign(&mut self) {
        if self.node.leader() == 0
            && let Err(error) = self.node.campaign_if_alone()
        {
            warn!(error = %error, "failed to campaign");
        }
    }

    /// Without a leader proposals wait for one; their proposers know when to give up.
    fn must_hold(&self) -> bool {
        self.node.leader() == 0 || self.node.is_transferring()
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Propose(_) | Event::ProposeConfChange(_) if self.must_hold() => self.hold(event),
            // Raft would put an empty entry in its place.
            Event::ProposeConfChange(_) if self.node.has_pending_conf_change() => self.hold(event),
            Event::Step(message) if self.must_wait(&message) => self.hold(Event::Step(message)),
            Event::Propose(data) => self.propose(data),
            Event::ProposeLeading(data, term) => {
                if self.node.is_leader() && self.node.term() == term {
                    self.propose(data);
                }
            }
            Event::ProposeConfChange(change) => {
                self.flush_proposals();
                self.proposed(1, |node| node.propose_conf_change(&change));
            }
            Event::ReadIndex(answer) => self.reads.push(answer),
            Event::Step(message) => self.step(*message),
            Event::Arrived(message, arrived) => self.arrived(*message, arrived),
            Event::Unreachable(id) => self.node.report_unreachable(id),
            Event::Snapshot(id, arrived) => self.node.report_snapshot(id, arrived),
            Event::TransferLeader(to) => {
                self.flush_proposals();
                self.node.transfer_leader(to);
            }
            Event::Followers(answer) => {
                if let Some(followers) = self.node.followers() {
                    // Whoever left needs no answer.
                    answer.send(followers).ok();
                }
            }
            Event::Persisted(number, messages) => {
                self.node.persisted(number);
                self.outside.send(messages);
                self.note_applied();
            }
            Event::Applied => self.campaign(),
            Event::ConfChange(index, change, answer) => self.conf_change(index, &change, &answer),
            Event::Durable(index, term) => self.durable(index, term),
            Event::Forget(index) => self.node.forget(index),
            Event::AdvanceTicks(ticks) => (0..ticks).for_each(|_| self.node.tick()),
            Event::Fetched(low, entries) => self.node.fetched(low, entries),
            Event::Released(index) => self.node.released(index),
            Event::SpaceChanged => self.outside.space_changed(),
            Event::Stream(opened) => self.outside.open(*opened),
            Event::PeerStopped => self.outside.close_stopped(),
            Event::Stop => {}
        }
    }

    /// A change of the configuration that another member forwarded, while one before it was not applied here.
    fn must_wait(&self, message: &Message) -> bool {
        message.msg_type == MessageType::MsgPropose as i32
            && self.node.has_pending_conf_change()
            && message
                .entries
                .iter()
                .any(|entry| entry.entry_type == EntryType::EntryConfChange as i32)
    }

    fn step(&mut self, message: Message) {
        if self.node.has_lost_log(&message) {
            error!("leader-id" = %format!("{:x}", message.from), commit = message.commit, "the leader has committed entries that this member had acknowledged and has no more: its log was truncated or lost; remove the member, remove its data directory, and add it again");
            return;
        }
        match self.node.step(message) {
            Ok(()) | Err(raft::Error::ProposalDropped | raft::Error::StepPeerNotFound) => {}
            Err(error) => warn!(error = %error, "failed to process Raft message"),
        }
    }

    /// Decided at once: the next one may be here before this turn ends.
    fn arrived(&mut self, message: Message, arrived: Box<Arrived>) {
        self.outside.arrived(arrived);
        self.step(message);
        self.work();
        self.outside.decided();
    }

    fn hold(&mut self, event: Event) {
        match self.held.len() < MAX_HELD {
            true => self.held.push(event),
            false => drop(self.status.proposals_failed.fetch_add(1, Ordering::Relaxed)),
        }
    }

    fn release_held(&mut self) {
        if self.held.is_empty() || self.must_hold() {
            return;
        }
        for event in std::mem::take(&mut self.held) {
            self.event(event);
        }
        self.flush_proposals();
    }

    fn propose(&mut self, data: Vec<u8>) {
        self.proposal_bytes += data.len();
        self.proposals.push(data);
        if self.proposal_bytes >= PROPOSE_BYTES {
            self.flush_proposals();
        }
    }

    fn flush_proposals(&mut self) {
        if self.proposals.is_empty() {
            return;
        }
        self.proposal_bytes = 0;
        let proposals = std::mem::take(&mut self.proposals);
        self.proposed(proposals.len() as u64, |node| node.propose(proposals));
    }

    /// A proposal that raft refuses times out at the proposer, as in etcd; the count tells.
    fn proposed(&mut self, count: u64, propose: impl FnOnce(&mut Node) -> raft::Result<()>) {
        if propose(&mut self.node).is_err() {
            self.status.proposals_failed.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// A snapshot that raft has taken in holds the changes before it: made again, they would make a voter a learner once more.
    fn conf_change(&mut self, index: u64, change: &raftpb::ConfChange, answer: &mpsc::Sender<ConfState>) {
        if let Some(installing) = self.installing.as_mut().filter(|it| index <= it.index) {
            // As below.
            answer.send(installing.change(index, change)).ok();
            return;
        }
        match self.node.apply_conf_change(change) {
            Ok(state) => self.conf_state = state,
            Err(error) => warn!(error = %error, "a configuration change was refused"),
        }
        self.publish();
        // The apply thread waits for this; when it is gone the process is going too.
        answer.send(self.conf_state.clone()).ok();
    }

    fn durable(&mut self, index: u64, term: u64) {
        if let Some(installed) = self.installing.take_if(|installing| index >= installing.index) {
            for persist in installed.persists {
                self.jobs.push(Job::Persist(persist));
            }
        }
        // Entries of the old log must not be released by a record that the new one lies before.
        if self.installing.is_none() {
            let snapshot = walpb::Snapshot {
                index,
                term,
                conf_state: Some(conf_change::wal_conf_state(&self.conf_state)),
            };
            self.jobs.push(Job::Snapshot(snapshot, self.node.kept_segments()));
        }
    }

    /// One ReadIndex at a time answers all reads that waited when it was asked.
    fn ask_reads(&mut self) {
        if self.asked.is_some() || self.reads.is_empty() {
            return;
        }
        if self.node.leader() == 0 {
            // Dropping the senders tells the readers to try again.
            self.reads.clear();
            return;
        }
        if !self.node.can_read() {
            return;
        }
        self.reads.retain(|reader| !reader.is_closed());
        if self.reads.is_empty() {
            return;
        }
        self.reads_asked += 1;
        let context = self.reads_asked.to_be_bytes().to_vec();
        self.node.read_index(context.clone());
        self.asked = Some(Asked {
            context,
            readers: std::mem::take(&mut self.reads),
            ticks: 0,
        });
    }

    fn work(&mut self) {
        self.do_work();
        if self.node.tell_commits(self.lazy) {
            self.do_work();
        }
        for fetch in self.node.fetches() {
            self.outside.fetch(fetch);
        }
        self.untold_since = match self.lazy && self.node.has_untold() {
            true => self.untold_since.or_else(|| Some(Instant::now())),
            false => None,
        };
        self.note_spared();
    }

    /// Since when a question waits for those who were asked first.
    fn note_spared(&mut self) {
        self.spared_since = match self.node.has_spared() {
            true => self.spared_since.or_else(|| Some(Instant::now())),
            false => None,
        };
    }

    fn do_work(&mut self) {
        while let Some(work) = self.node.work() {
            self.run_work(work);
            self.publish();
            // An answered question makes room for the next one, and a committed entry makes it possible.
            self.ask_reads();
        }
    }

    /// The order is etcd's: reads, soft state, apply, send as leader, persist, send as follower once persisted.
    fn run_work(&mut self, work: Work) {
        for read in work.read_states {
            self.answer_reads(&read.request_ctx, read.index);
        }
        if let Some(state) = work.soft_state {
            self.soft_state(state.leader_id);
        }
        if !work.committed.is_empty() {
            self.publish();
            self.outside.apply(work.committed);
        }
        if !work.messages.is_empty() {
            self.outside.send(work.messages);
        }
        if let Some(persist) = work.persist {
            self.persist(persist);
        }
    }

    fn persist(&mut self, persist: Persist) {
        if let Some(snapshot) = &persist.snapshot {
            let conf_state = snapshot.conf_state.clone().unwrap_or_default();
            let before = std::mem::replace(&mut self.conf_state, conf_state);
            self.outside.install(snapshot);
            let installing = self.installing.get_or_insert_with(|| Installing {
                index: 0,
                persists: Vec::new(),
                earlier: Vec::new(),
            });
            installing.earlier.push((installing.index, before));
            installing.index = snapshot.index;
        }
        match &mut self.installing {
            Some(installing) => installing.persists.push(persist),
            None => self.jobs.push(Job::Persist(persist)),
        }
    }

    fn answer_reads(&mut self, context: &[u8], index: u64) {
        if let Some(asked) = self.asked.take_if(|asked| asked.context == context) {
            for reader in asked.readers {
                // A reader that left needs no answer.
                reader.send(index).ok();
            }
        }
    }

    fn soft_state(&mut self, leader: u64) {
        let before = self.status.leader.swap(leader, Ordering::SeqCst);
        if before != leader {
            if leader != 0 {
                self.status.leader_changes.fetch_add(1, Ordering::Relaxed);
                info!("local-member-id" = %format!("{:x}", self.id), "leader-id" = %format!("{leader:x}"), "raft.node: elected leader");
            } else {
                info!("local-member-id" = %format!("{:x}", self.id), "leader-id" = %format!("{before:x}"), "raft.node: lost leader");
            }
            // Readers of a lost leader try again.
            self.asked = None;
        }
        self.publish();
        self.outside.leadership(self.node.is_leader());
        self.release_held();
    }

    fn publish(&mut self) {
        let leading = self.node.is_leader();
        self.status.term.store(self.node.term(), Ordering::SeqCst);
        self.status
            .committed
            .store(self.node.committed(), Ordering::SeqCst);
        self.status.is_leader.store(leading, Ordering::SeqCst);
        let applied = self.status.applied.load(Ordering::SeqCst);
        let (committed, can_read) = (self.node.committed(), leading && self.node.can_read());
        let since = |from: Option<u64>, holds: bool| holds.then(|| from.unwrap_or(committed));
        self.settled_from = since(self.settled_from, can_read);
        self.alone_from = since(self.alone_from, can_read && self.node.is_sole_member());
        let is_applied = |from: Option<u64>| from.is_some_and(|from| applied >= from);
        self.status
            .settled
            .store(is_applied(self.settled_from), Ordering::SeqCst);
        self.status
            .alone
            .store(is_applied(self.alone_from), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
