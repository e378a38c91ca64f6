//! The deciding half of raft: no IO, no clock, no threads. [`telling`] spares messages about commits, [`retention`] says what stays for members
//! that lag.

mod retention;
mod telling;

use std::collections::VecDeque;

use etcd_api::raftpb;
use raft::eraftpb::{
    ConfChange, ConfChangeType, ConfState, Entry, HardState, Message, MessageType, SnapshotMetadata,
};
use raft::{Config, ProgressState, RawNode, ReadState, SnapshotStatus, SoftState, StateRole};

use self::telling::Telling;
use super::conf_change;
use super::log::Log;
use super::older::Flow;

pub use self::retention::{OLDER, Retention};

/// Limits and timing as etcd sets them.
pub const MAX_MESSAGE_BYTES: u64 = 1024 * 1024;
const MAX_INFLIGHT_MESSAGES: usize = 512;
const MAX_COMMITTED_BYTES: u64 = 4 * 1024 * 1024;
pub struct Node {
    raw: RawNode<Log>,
    id: u64,
    retention: Retention,
    /// This leader was removed. Somebody must tell the others that this was committed, so it leads on as a member, which raft knows no leader without:
    /// a quorum that has one member more meets every quorum of the others. Once it leads no more it is none.
    removal: Option<ConfChange>,
    telling: Telling,
    /// Questions of reads to members that need not be asked as long as others answer.
    spared: Vec<Message>,
    /// The member that has answered such a question last.
    prompt: u64,
    flow: Flow,
    durable_term: u64,
    /// Terms on their way to the disk, each with the number of its [`Persist`].
    terms: VecDeque<(u64, u64)>,
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
    /// The store must be replaced by this snapshot before anything of this is written.
    pub snapshot: Option<SnapshotMetadata>,
    pub entries: Vec<Entry>,
    pub hard_state: Option<HardState>,
    /// A change of the commit index alone may wait for the next group.
    pub must_sync: bool,
    pub messages_after: Vec<Message>,
}

pub struct Timing {
    pub election_ticks: usize,
    pub pre_vote: bool,
    /// The election timeout in ticks; drawn anew by raft, between one and two elections, when None.
    pub timeout_ticks: Option<usize>,
}

/// How far a member has followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follower {
    pub id: u64,
    pub matched: u64,
    /// The index that it is sent next.
    pub next: u64,
    pub state: ProgressState,
}

/// What raft says of itself.
#[derive(Debug)]
pub struct Report {
    pub role: StateRole,
    pub vote: u64,
    /// To whom this leader hands over; 0 when to nobody.
    pub transferee: u64,
    /// Empty where this member does not lead.
    pub followers: Vec<Follower>,
}

/// For whoever looks for the reason of a standstill.
#[derive(Debug)]
pub struct Situation {
    pub role: StateRole,
    pub conf_state: ConfState,
    /// Index before the first entry, of the last one that was persisted, and of the last.
    pub log: (u64, u64, u64),
    pub is_installing: bool,
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
            // See [`Node::tell_commits`].
            skip_bcast_commit: true,
            pre_vote: timing.pre_vote,
            // 0 leaves it to raft.
            min_election_tick: timing.timeout_ticks.unwrap_or(0),
            max_election_tick: timing.timeout_ticks.map_or(0, |ticks| ticks + 1),
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut raw = RawNode::new(&config, log, &logger)?;
        let durable_term = raw.raft.term;
        raw.mut_store().set_applied(applied);
        Ok(Node {
            raw,
            id,
            retention: Retention::default(),
            removal: None,
            telling: Telling::default(),
            spared: Vec::new(),
            prompt: 0,
            flow: Flow::default(),
            durable_term,
            terms: VecDeque::new(),
        })
    }

    /// All that waited goes into one message, which costs followers one append.
    pub fn propose(&mut self, batch: impl IntoIterator<Item = Vec<u8>>) -> raft::Result<()> {
        let entry = |data: Vec<u8>| Entry {
            data: data.into(),
            ..Entry::default()
        };
        self.propose_entries(batch.into_iter().map(entry).collect())
    }

    pub fn propose_conf_change(&mut self, change: &raftpb::ConfChange) -> raft::Result<()> {
        self.propose_entries(vec![conf_change::entry(change)])
    }

    fn propose_entries(&mut self, entries: Vec<Entry>) -> raft::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut message = Message {
            from: self.id,
            entries,
            ..Message::default()
        };
        message.set_msg_type(MessageType::MsgPropose);
        self.raw.step(message)
    }

    pub fn apply_conf_change(&mut self, change: &raftpb::ConfChange) -> raft::Result<ConfState> {
        let Some(change) = conf_change::for_raft(change) else {
            return Ok(self.raw.store().conf_state().clone());
        };
        let removes_self =
            change.node_id == self.id && change.change_type == ConfChangeType::RemoveNode as i32;
        let mut state = match removes_self && self.is_leader() {
            true => {
                self.removal = Some(change);
                self.raw.store().conf_state().clone()
            }
            false => self.raw.apply_conf_change(&change)?,
        };
        if self.removal.is_some() {
            state.voters.retain(|id| *id != self.id);
        }
        self.raw.mut_store().set_conf_state(state.clone());
        Ok(state)
    }

    pub fn read_index(&mut self, context: Vec<u8>) {
        let before = self.raw.raft.msgs.len();
        self.raw.read_index(context);
        self.spare_some(before);
    }

    /// Raft asks everyone whether this member still leads, and needs the answers of a quorum: whoever answered last is asked, and as many others
    /// as that takes. The rest is asked by [`Node::ask_spared`].
    fn spare_some(&mut self, before: usize) {
        let conf = self.raw.raft.prs().conf().to_conf_state();
        if !self.is_leader() || !conf.voters_outgoing.is_empty() {
            return;
        }
        let mut needed = conf.voters.len() / 2;
        let mut asked = self.raw.raft.msgs.split_off(before.min(self.raw.raft.msgs.len()));
        let is_question = |message: &Message| {
            message.msg_type == MessageType::MsgHeartbeat as i32 && !message.context.is_empty()
        };
        asked.sort_by_key(|message| message.to != self.prompt);
        let mut spared = Vec::new();
        for message in asked {
            let counts = conf.voters.contains(&message.to);
            match is_question(&message) && (needed == 0 || !counts) {
                true => spared.push(message),
                false => {
                    needed -= usize::from(is_question(&message));
                    self.raw.raft.msgs.push(message);
                }
            }
        }
        if !spared.is_empty() {
            self.spared = spared;
        }
    }

    pub fn has_spared(&self) -> bool {
        !self.spared.is_empty()
    }

    /// Whoever was asked has not answered in time. Whether there was somebody else to ask.
    pub fn ask_spared(&mut self) -> bool {
        let spared = std::mem::take(&mut self.spared);
        let asks = self.is_leader() && self.raw.raft.pending_read_count() > 0;
        let term = self.term();
        let current = spared.into_iter().filter(|message| asks && message.term == term);
        let before = self.raw.raft.msgs.len();
        self.raw.raft.msgs.extend(current);
        self.raw.raft.msgs.len() > before
    }

    /// A leader can answer reads once an entry of its term was committed; a follower asks whoever leads.
    pub fn can_read(&self) -> bool {
        match self.is_leader() {
            true => self.raw.raft.commit_to_current_term(),
            false => self.leader() != 0,
        }
    }

    /// Takes a message that another member sent; raft relies on its kinds being known, which whoever decoded it has made sure of.
    pub fn step(&mut self, message: Message) -> raft::Result<()> {
        if message.msg_type == MessageType::MsgPropose as i32
            && !message.entries.iter().all(conf_change::is_proposable)
        {
            return Err(raft::Error::ProposalDropped);
        }
        if message.msg_type == MessageType::MsgTimeoutNow as i32 && self.must_not_campaign() {
            return Ok(());
        }
        let leads = self.is_leader();
        let forwarded = message.msg_type == MessageType::MsgPropose as i32 && leads;
        let asks = message.msg_type == MessageType::MsgReadIndex as i32 && leads;
        if message.msg_type == MessageType::MsgHeartbeatResponse as i32 && !message.context.is_empty() {
            self.prompt = message.from;
        }
        let (from, before) = (message.from, self.raw.raft.msgs.len());
        let stepped = self.raw.step(message);
        if asks {
            self.spare_some(before);
        }
        if forwarded && stepped.is_ok() {
            let last = self.raw.raft.raft_log.last_index();
            self.telling.waiting.insert(from, last);
        }
        stepped
    }

    /// A leader counts on more than this member's log holds: the log was lost, and raft would take its word for a bug.
    pub fn has_lost_log(&self, message: &Message) -> bool {
        message.msg_type == MessageType::MsgHeartbeat as i32
            && message.term >= self.term()
            && message.commit > self.raw.raft.raft_log.last_index()
    }

    pub fn tick(&mut self) {
        if !self.must_not_campaign() {
            self.raw.tick();
        }
        let members = self.raw.raft.prs();
        self.flow
            .tick(|id| members.get(id).map_or(0, |progress| progress.matched));
    }

    /// Whoever waits for a store to be replaced does not campaign: raft would look for entries in the log that the snapshot has taken the place of.
    /// Nor does the only voter, which leads as soon as it does, before its log is on the disk: raft takes that for granted of a leader.
    fn must_not_campaign(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        let unsynced = || log.persisted < log.last_index() && !self.is_leader() && self.is_sole_voter();
        self.is_installing() || unsynced()
    }

    fn is_installing(&self) -> bool {
        self.raw.store().before() > self.raw.raft.raft_log.applied
    }

    pub fn report_unreachable(&mut self, id: u64) {
        self.raw.report_unreachable(id);
    }

    pub fn report_snapshot(&mut self, id: u64, arrived: bool) {
        let status = match arrived {
            true => SnapshotStatus::Finish,
            false => SnapshotStatus::Failure,
        };
        self.raw.report_snapshot(id, status);
    }

    pub fn transfer_leader(&mut self, to: u64) {
        self.raw.transfer_leader(to);
    }

    /// Raft drops proposals meanwhile.
    pub fn is_transferring(&self) -> bool {
        self.raw.raft.lead_transferee.is_some()
    }

    /// Of a leader: the next change of the configuration must wait until the one before it was applied. The removal of this leader is not done
    /// while it leads: with another change, raft's quorums would no more meet those of the others.
    pub fn has_pending_conf_change(&self) -> bool {
        self.is_leader() && (self.raw.raft.has_pending_conf() || self.removal.is_some())
    }

    /// The only voter need not wait for an election timeout.
    pub fn campaign_if_alone(&mut self) -> raft::Result<()> {
        if self.is_sole_voter() && !self.is_leader() && !self.must_not_campaign() {
            self.raw.campaign()
        } else {
            Ok(())
        }
    }

    pub fn is_sole_voter(&self) -> bool {
        let voters = self.raw.raft.prs().conf().voters().ids();
        voters.len() == 1 && voters.contains(self.id)
    }

    pub fn is_sole_member(&self) -> bool {
        self.raw.raft.prs().iter().all(|(id, _)| *id == self.id)
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

    /// Everyone's progress; None where this member does not lead.
    pub fn followers(&self) -> Option<Vec<Follower>> {
        let progress = self.raw.raft.prs().iter().map(|(id, progress)| Follower {
            id: *id,
            matched: progress.matched,
            next: progress.next_idx,
            state: progress.state,
        });
        self.is_leader().then(|| progress.collect())
    }

    pub fn report(&self) -> Report {
        let raft = &self.raw.raft;
        Report {
            role: raft.state,
            vote: raft.vote,
            transferee: raft.lead_transferee.unwrap_or_default(),
            followers: self.followers().unwrap_or_default(),
        }
    }

    pub fn situation(&self) -> Situation {
        let (raft, log) = (&self.raw.raft, &self.raw.raft.raft_log);
        Situation {
            role: raft.state,
            conf_state: raft.prs().conf().to_conf_state(),
            log: (self.raw.store().before(), log.persisted, log.last_index()),
            is_installing: self.is_installing(),
        }
    }

    pub fn persisted(&mut self, number: u64) {
        while let Some((_, term)) = self.terms.front().filter(|(waits, _)| *waits <= number) {
            self.durable_term = *term;
            self.terms.pop_front();
        }
        self.raw.on_persist_ready(number);
    }

    /// The next thing to do, None when there is nothing.
    pub fn work(&mut self) -> Option<Work> {
        if !self.is_leader()
            && let Some(removal) = self.removal.take()
        {
            // It was applied before, and can only be refused for a reason that raft has logged.
            self.raw.apply_conf_change(&removal).ok();
        }
        if !self.raw.has_ready() {
            return None;
        }
        let mut ready = self.raw.ready();
        if let Some(state) = ready.hs().filter(|state| state.term > self.durable_term) {
            self.terms.push_back((ready.number(), state.term));
        }
        let (mut messages, mut messages_after) = (ready.take_messages(), Vec::new());
        if self.is_leader() && !self.terms.is_empty() {
            // The only voter leads as soon as it wants to. Without power it would forget that it did, and say something else in the same term.
            messages_after = std::mem::take(&mut messages);
        }
        for message in ready.take_persisted_messages() {
            match waits_for_disk(&message) {
                true => messages_after.push(message),
                false => messages.push(message),
            }
        }
        let persist = Persist {
            number: ready.number(),
            snapshot: (!ready.snapshot().is_empty())
                .then(|| ready.snapshot().metadata.clone().unwrap_or_default()),
            entries: ready.take_entries(),
            hard_state: ready.hs().cloned(),
            must_sync: ready.must_sync(),
            messages_after,
        };
        let work = Work {
            soft_state: ready.ss().map(|state| SoftState {
                leader_id: state.leader_id,
                raft_state: state.raft_state,
            }),
            read_states: ready.take_read_states(),
            committed: ready.take_committed_entries(),
            messages,
            persist: Some(persist),
        };
        self.note_told(&work.messages);
        if self.raw.raft.pending_read_count() == 0 {
            self.spared.clear();
        }
        self.remember(&work);
        self.raw.advance_append_async(ready);
        Some(work)
    }

    /// Raft must be able to read entries before they are durable.
    fn remember(&mut self, work: &Work) {
        let Some(persist) = &work.persist else { return };
        let store = self.raw.mut_store();
        if let Some(metadata) = &persist.snapshot {
            store.install(metadata);
        }
        store.append(&persist.entries);
        if let Some(state) = &persist.hard_state {
            store.set_hard_state(state.clone());
        }
    }
}

/// What promises something about this member's log or vote. Anything else, heartbeats' answers first, must not stand behind an fsync.
fn waits_for_disk(message: &Message) -> bool {
    matches!(
        MessageType::try_from(message.msg_type),
        Ok(MessageType::MsgAppendResponse
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVoteResponse)
    )
}

#[cfg(test)]
mod tests;
