//! The deciding half of raft: no IO, no clock, no threads.

use raft::eraftpb::{ConfChange, ConfState, Entry, EntryType, HardState, Message};
use raft::{Config, RawNode, ReadState, SoftState, StateRole};

use super::log::Log;

/// Limits and timing as etcd sets them.
const MAX_MESSAGE_BYTES: u64 = 1024 * 1024;
const MAX_INFLIGHT_MESSAGES: usize = 512;
const MAX_COMMITTED_BYTES: u64 = 4 * 1024 * 1024;

pub struct Node {
    raw: RawNode<Log>,
    id: u64,
}

/// What is to be done, in this order: answer reads, apply, send, persist, send what waited for that.
#[derive(Default)]
pub struct Work {
    pub soft_state: Option<SoftState>,
    pub read_states: Vec<ReadState>,
    pub committed: Vec<Entry>,
    pub messages: Vec<Message>,
    pub persist: Option<Persist>,
}

/// To be made durable before [`Node::persisted`] may be called with `number`.
#[derive(Default)]
pub struct Persist {
    pub number: u64,
    pub entries: Vec<Entry>,
    pub hard_state: Option<HardState>,
    /// A change of the commit index alone may wait for the next group.
    pub must_sync: bool,
    pub messages_after: Vec<Message>,
}

pub struct Timing {
    pub election_ticks: usize,
    pub pre_vote: bool,
}

impl Node {
    pub fn new(id: u64, log: Log, applied: u64, timing: &Timing) -> raft::Result<Node> {
        let config = Config {
            id,
            election_tick: timing.election_ticks,
            heartbeat_tick: 1,
            applied,
            max_size_per_msg: MAX_MESSAGE_BYTES,
            max_inflight_msgs: MAX_INFLIGHT_MESSAGES,
            max_committed_size_per_ready: MAX_COMMITTED_BYTES,
            check_quorum: true,
            pre_vote: timing.pre_vote,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        Ok(Node {
            raw: RawNode::new(&config, log, &logger)?,
            id,
        })
    }

    pub fn propose(&mut self, data: Vec<u8>) -> raft::Result<()> {
        self.raw.propose(Vec::new(), data)
    }

    pub fn propose_conf_change(&mut self, change: ConfChange) -> raft::Result<()> {
        self.raw.propose_conf_change(Vec::new(), change)
    }

    pub fn apply_conf_change(&mut self, change: &ConfChange) -> raft::Result<ConfState> {
        let state = self.raw.apply_conf_change(change)?;
        self.raw.mut_store().set_conf_state(state.clone());
        Ok(state)
    }

    pub fn read_index(&mut self, context: Vec<u8>) {
        self.raw.read_index(context);
    }

    pub fn step(&mut self, message: Message) -> raft::Result<()> {
        self.raw.step(message)
    }

    pub fn tick(&mut self) {
        self.raw.tick();
    }

    /// The only voter need not wait for an election timeout.
    pub fn campaign_if_alone(&mut self) -> raft::Result<()> {
        if self.is_sole_voter() && !self.is_leader() {
            self.raw.campaign()
        } else {
            Ok(())
        }
    }

    pub fn is_sole_voter(&self) -> bool {
        let voters = self.raw.raft.prs().conf().voters().ids();
        voters.len() == 1 && voters.contains(self.id)
    }

    pub fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    pub fn leader(&self) -> u64 {
        self.raw.raft.leader_id
    }

    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    pub fn committed(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    pub fn persisted(&mut self, number: u64) {
        self.raw.on_persist_ready(number);
    }

    /// Entries up to `index` were applied; they are forgotten unless a peer may want them.
    pub fn applied(&mut self, index: u64) {
        self.raw.advance_apply_to(index);
        if self.is_sole_voter() {
            self.raw.mut_store().compact(index);
        }
    }

    /// The next thing to do, None when there is nothing.
    pub fn work(&mut self) -> Option<Work> {
        if !self.raw.has_ready() {
            return None;
        }
        let mut ready = self.raw.ready();
        let persist = Persist {
            number: ready.number(),
            entries: ready.take_entries(),
            hard_state: ready.hs().cloned(),
            must_sync: ready.must_sync(),
            messages_after: ready.take_persisted_messages(),
        };
        let work = Work {
            soft_state: ready.ss().map(|state| SoftState {
                leader_id: state.leader_id,
                raft_state: state.raft_state,
            }),
            read_states: ready.take_read_states(),
            committed: ready.take_committed_entries(),
            messages: ready.take_messages(),
            persist: Some(persist),
        };
        self.remember(&work);
        self.raw.advance_append_async(ready);
        Some(work)
    }

    /// Raft must be able to read entries before they are durable.
    fn remember(&mut self, work: &Work) {
        let Some(persist) = &work.persist else { return };
        let store = self.raw.mut_store();
        store.append(&persist.entries);
        if let Some(state) = &persist.hard_state {
            store.set_hard_state(state.clone());
        }
    }
}

/// The configuration change in an entry, None for any other entry.
pub fn conf_change(entry: &Entry) -> Option<ConfChange> {
    use prost::Message as _;
    if entry.entry_type != EntryType::EntryConfChange as i32 {
        return None;
    }
    ConfChange::decode(entry.data.clone()).ok()
}
