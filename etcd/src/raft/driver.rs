//! The doing half of raft: the thread that owns the node.

mod event;
mod installing;
mod pace;
mod reads;
mod status;

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use etcd_api::{raftpb, walpb};
use raft::eraftpb::{ConfState, EntryType, Message, MessageType};
use tracing::{debug, error, info, warn};

pub use self::event::{Event, Outside};
use self::installing::Installing;
use self::pace::Pace;
use self::reads::Reads;
use self::status::LeadingFrom;
pub use self::status::Status;
use super::conf_change;
use super::inbox::Inbox;
use super::log_thread::Job;
use super::node::{Node, Persist, Work};
use crate::apply::Arrived;

/// Proposals in one message, by their size.
const PROPOSE_BYTES: usize = 1024 * 1024;
/// Proposals that wait for a leader.
const MAX_HELD: usize = 20_000;

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
    pace: Pace,
    /// Followers hear of a commit with the next append, which is soon to come.
    pub lazy: bool,
    reads: Reads,
    conf_state: ConfState,
    held: Vec<Event>,
    proposals: Vec<Vec<u8>>,
    proposal_bytes: usize,
    noted_applied: u64,
    installing: Option<Installing>,
    leading_from: LeadingFrom,
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
        Driver {
            node,
            id,
            events,
            jobs,
            status,
            outside,
            tick,
            election: tick * 10,
            pace: Pace::new(Instant::now()),
            lazy: false,
            reads: Reads::default(),
            conf_state,
            held: Vec::new(),
            proposals: Vec::new(),
            proposal_bytes: 0,
            noted_applied: 0,
            installing: None,
            leading_from: LeadingFrom::default(),
        }
    }

    /// Before the first [`Driver::turn`].
    pub fn start(&mut self, now: Instant) {
        self.pace = Pace::new(now);
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
        self.reads.ask(&mut self.node);
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
        self.reads.tick();
        self.release_held();
        self.reads.ask(&mut self.node);
        self.work();
        self.leading_from.publish(&self.node, &self.status);
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
                self.proposed(|node| node.propose_conf_change(&change));
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
            // Whoever asked may have left.
            Event::Report(answer) => drop(answer.send(self.node.report())),
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
        if self.held.len() < MAX_HELD {
            self.held.push(event);
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
        self.proposed(|node| node.propose(proposals));
    }

    /// What raft refuses times out at the proposer, which counts it.
    fn proposed(&mut self, propose: impl FnOnce(&mut Node) -> raft::Result<()>) {
        if let Err(error) = propose(&mut self.node) {
            debug!(error = %error, "raft refused a proposal");
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
        self.leading_from.publish(&self.node, &self.status);
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

    fn work(&mut self) {
        self.do_work();
        if self.node.tell_commits(self.lazy) {
            self.do_work();
        }
        for fetch in self.node.fetches() {
            self.outside.fetch(fetch);
        }
        self.note_waits();
    }

    fn do_work(&mut self) {
        while let Some(work) = self.node.work() {
            self.run_work(work);
            self.leading_from.publish(&self.node, &self.status);
            // An answered question makes room for the next one, and a committed entry makes it possible.
            self.reads.ask(&mut self.node);
        }
    }

    /// The order is etcd's: reads, soft state, apply, send as leader, persist, send as follower once persisted.
    fn run_work(&mut self, work: Work) {
        for read in work.read_states {
            self.reads.answer(&read.request_ctx, read.index);
        }
        if let Some(state) = work.soft_state {
            self.soft_state(state.leader_id);
        }
        if !work.committed.is_empty() {
            self.leading_from.publish(&self.node, &self.status);
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
            let installing = self.installing.get_or_insert_with(Installing::new);
            installing.snapshot(snapshot.index, before);
        }
        match &mut self.installing {
            Some(installing) => installing.persists.push(persist),
            None => self.jobs.push(Job::Persist(persist)),
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
            self.reads.leader_changed();
        }
        self.leading_from.publish(&self.node, &self.status);
        self.outside.leadership(self.node.is_leader());
        self.release_held();
    }
}

#[cfg(test)]
mod tests;
