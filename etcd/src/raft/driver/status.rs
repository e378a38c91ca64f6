//! What the rest of the server may read of raft at any time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::Event;
use crate::raft::inbox::Inbox;
use crate::raft::node::Node;

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

impl Status {
    /// After entries were applied. The driver reads the index when it has something to do anyway; only who may have to campaign is woken.
    pub fn wake_to_campaign(&self, events: &Inbox<Event>) {
        if self.leader.load(Ordering::SeqCst) == 0 {
            events.push(Event::Applied);
        }
    }
}

/// What must have been applied before a leader may say of itself ...
#[derive(Default)]
pub struct LeadingFrom {
    /// ... that it is settled.
    settled: Option<u64>,
    /// ... that it answers reads by itself, as the only member.
    alone: Option<u64>,
}

impl LeadingFrom {
    pub fn publish(&mut self, node: &Node, status: &Status) {
        let (leading, committed) = (node.is_leader(), node.committed());
        status.term.store(node.term(), Ordering::SeqCst);
        status.committed.store(committed, Ordering::SeqCst);
        status.is_leader.store(leading, Ordering::SeqCst);
        let can_read = leading && node.can_read();
        let from = |before: Option<u64>, holds: bool| holds.then(|| before.unwrap_or(committed));
        self.settled = from(self.settled, can_read);
        self.alone = from(self.alone, can_read && node.is_sole_member());
        let applied = status.applied.load(Ordering::SeqCst);
        let is_applied = |from: Option<u64>| from.is_some_and(|from| applied >= from);
        status.settled.store(is_applied(self.settled), Ordering::SeqCst);
        status.alone.store(is_applied(self.alone), Ordering::SeqCst);
    }
}
