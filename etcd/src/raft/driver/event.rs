//! Everything that can happen to the node, and where its decisions go.

use std::sync::mpsc;
use std::time::Duration;

use etcd_api::raftpb;
use raft::eraftpb::{ConfState, Entry, Message, SnapshotMetadata};
use tokio::sync::oneshot;

use crate::apply::Arrived;
use crate::peer::streams::Opened;
use crate::raft::inbox::Inbox;
use crate::raft::node::{Follower, Report};
use crate::raft::older::Fetch;

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
    Report(oneshot::Sender<Report>),
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
