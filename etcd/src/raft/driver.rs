//! The doing half of raft: the thread that owns the node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use etcd_api::walpb;
use raft::eraftpb::{ConfChange, ConfState, Entry, Message};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::inbox::Inbox;
use super::log_thread::Job;
use super::node::{Node, Work};

/// Everything that can happen to the node.
pub enum Event {
    Propose(Vec<u8>),
    ProposeConfChange(ConfChange),
    /// Answered with the index that must have been applied; dropped when there is no leader.
    ReadIndex(oneshot::Sender<u64>),
    Step(Box<Message>),
    Persisted(u64, Vec<Message>),
    /// More was applied than when the node was asked to campaign last.
    Applied,
    ConfChange(Box<ConfChange>, std::sync::mpsc::Sender<ConfState>),
    /// The store is durable up to this index and term.
    Durable(u64, u64),
    SpaceChanged,
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
    /// The only voter, and leading: what it has published is what is linearizable.
    pub alone: AtomicBool,
    pub leader_changes: AtomicU64,
    pub proposals_pending: AtomicU64,
    pub proposals_failed: AtomicU64,
}

/// Where the driver's decisions go.
pub trait Outside: Send {
    fn apply(&mut self, entries: Vec<Entry>);
    fn send(&mut self, messages: Vec<Message>);
    fn leadership(&mut self, leading: bool);
    fn space_changed(&mut self);
}

pub struct Driver<O> {
    pub node: Node,
    pub id: u64,
    pub events: Arc<Inbox<Event>>,
    pub jobs: Arc<Inbox<Job>>,
    pub status: Arc<Status>,
    pub outside: O,
    pub tick: Duration,
    reads: Vec<oneshot::Sender<u64>>,
    asked: Option<(Vec<u8>, Vec<oneshot::Sender<u64>>)>,
    reads_asked: u64,
    conf_state: ConfState,
    held: Vec<Event>,
    noted_applied: u64,
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
            reads: Vec::new(),
            asked: None,
            reads_asked: 0,
            conf_state,
            held: Vec::new(),
            noted_applied: 0,
        }
    }

    pub fn run(mut self) {
        self.campaign();
        let mut batch = Vec::new();
        let mut next_tick = Instant::now() + self.tick;
        loop {
            self.work();
            self.events.drain(
                &mut batch,
                Some(next_tick.saturating_duration_since(Instant::now())),
            );
            self.note_applied();
            for event in batch.drain(..) {
                if matches!(event, Event::Stop) {
                    return self.jobs.push(Job::Stop);
                }
                self.event(event);
            }
            if Instant::now() >= next_tick {
                self.node.tick();
                next_tick = Instant::now() + self.tick;
            }
            self.ask_reads();
        }
    }

    fn note_applied(&mut self) {
        let applied = self.status.applied.load(Ordering::SeqCst);
        if applied > self.noted_applied {
            self.noted_applied = applied;
            self.node.applied(applied);
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

    fn event(&mut self, event: Event) {
        match event {
            // Without a leader proposals wait for one; their proposers know when to give up.
            Event::Propose(_) | Event::ProposeConfChange(_) if self.node.leader() == 0 => {
                self.held.push(event)
            }
            Event::Propose(data) => self.proposed(|node| node.propose(data)),
            Event::ProposeConfChange(change) => self.proposed(|node| node.propose_conf_change(change)),
            Event::ReadIndex(answer) => self.reads.push(answer),
            Event::Step(message) => {
                if let Err(error) = self.node.step(*message) {
                    warn!(error = %error, "failed to process Raft message");
                }
            }
            Event::Persisted(number, messages) => {
                self.node.persisted(number);
                self.outside.send(messages);
            }
            Event::Applied => self.campaign(),
            Event::ConfChange(change, answer) => self.conf_change(&change, &answer),
            Event::Durable(index, term) => self.durable(index, term),
            Event::SpaceChanged => self.outside.space_changed(),
            Event::Stop => {}
        }
    }

    /// A proposal that raft refuses times out at the proposer, as in etcd; the count tells.
    fn proposed(&mut self, propose: impl FnOnce(&mut Node) -> raft::Result<()>) {
        if propose(&mut self.node).is_err() {
            self.status.proposals_failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn conf_change(&mut self, change: &ConfChange, answer: &std::sync::mpsc::Sender<ConfState>) {
        match self.node.apply_conf_change(change) {
            Ok(state) => self.conf_state = state,
            Err(error) => warn!(error = %error, "a configuration change was refused"),
        }
        self.publish();
        // The apply thread waits for this; when it is gone the process is going too.
        answer.send(self.conf_state.clone()).ok();
    }

    fn durable(&mut self, index: u64, term: u64) {
        let conf_state = etcd_api::raftpb::ConfState {
            voters: self.conf_state.voters.clone(),
            learners: self.conf_state.learners.clone(),
            voters_outgoing: self.conf_state.voters_outgoing.clone(),
            learners_next: self.conf_state.learners_next.clone(),
            auto_leave: self.conf_state.auto_leave,
        };
        self.jobs.push(Job::Snapshot(walpb::Snapshot {
            index,
            term,
            conf_state: Some(conf_state),
        }));
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
        self.reads_asked += 1;
        let context = self.reads_asked.to_be_bytes().to_vec();
        self.node.read_index(context.clone());
        self.asked = Some((context, std::mem::take(&mut self.reads)));
    }

    fn work(&mut self) {
        while let Some(work) = self.node.work() {
            self.run_work(work);
            self.publish();
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
        self.outside.send(work.messages);
        if let Some(persist) = work.persist {
            self.jobs.push(Job::Persist(persist));
        }
    }

    fn answer_reads(&mut self, context: &[u8], index: u64) {
        if let Some((_, readers)) = self.asked.take_if(|(asked, _)| asked == context) {
            for reader in readers {
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
            }
            // Readers of a lost leader try again.
            self.asked = None;
        }
        if leader != 0 {
            std::mem::take(&mut self.held)
                .into_iter()
                .for_each(|event| self.events.push(event));
        }
        self.publish();
        self.outside.leadership(self.node.is_leader());
    }

    fn publish(&self) {
        let leading = self.node.is_leader();
        self.status.term.store(self.node.term(), Ordering::SeqCst);
        self.status
            .committed
            .store(self.node.committed(), Ordering::SeqCst);
        self.status.is_leader.store(leading, Ordering::SeqCst);
        self.status
            .alone
            .store(leading && self.node.is_sole_voter(), Ordering::SeqCst);
    }
}
