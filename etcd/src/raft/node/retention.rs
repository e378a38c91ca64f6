//! Which applied entries stay, in memory and in the log's files, for members that lag.

use raft::eraftpb::Entry;

use super::Node;
use crate::raft::log::Log;
use crate::raft::older::Fetch;

/// Entries in memory for members that lag take no more than this, however many they are.
const MAX_KEPT_BYTES: u64 = 16 * 1024 * 1024;
/// So many of the log's files stay for members that lag.
const KEPT_SEGMENTS: usize = 4;

/// Entries in the log's files for each that may stay in memory: they are read faster than a store is sent.
pub const OLDER: u64 = 10;

/// Which applied entries stay for members that lag. In memory: `--snapshot-count` and `--snapshot-catchup-entries`.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    pub snapshot_count: u64,
    pub catchup_entries: u64,
    /// Bytes in memory that nobody is known to need.
    pub tail_bytes: u64,
    /// Entries that are read from the log's files at most before a member is sent the store, which is as little then.
    pub older_entries: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            snapshot_count: 10_000,
            catchup_entries: 5_000,
            tail_bytes: 1024 * 1024,
            older_entries: 5_000 * OLDER,
        }
    }
}

impl Node {
    pub fn retain(&mut self, retention: Retention) {
        self.retention = retention;
    }

    /// Entries up to `index` were applied; they are forgotten unless a peer may want them. Returns up to where raft knows it: a snapshot
    /// is in the store before the log knows of it.
    pub fn applied(&mut self, index: u64) -> u64 {
        let log = &self.raw.raft.raft_log;
        let known = index.min(log.persisted).min(log.committed);
        if known <= log.applied {
            return log.applied;
        }
        self.raw.advance_apply_to(known);
        let (alone, retention, everywhere) = (self.is_sole_member(), self.retention, self.on_everyone());
        let store = self.raw.mut_store();
        store.set_applied(known);
        if alone {
            store.compact(known);
            store.cut_older(known);
        } else {
            forget(store, known, retention);
            store.trim(retention.tail_bytes, known.min(everywhere));
            store.cut_older(known.saturating_sub(retention.older_entries));
        }
        known
    }

    /// Up to where no member needs entries, as far as this one knows: a follower does not hear how far others are.
    fn on_everyone(&self) -> u64 {
        let matched = self.raw.raft.prs().iter().map(|(_, progress)| progress.matched);
        match self.is_leader() {
            true => matched.min().unwrap_or(0),
            false => u64::MAX,
        }
    }

    /// Applied entries up to `index` are forgotten, whoever may want them.
    pub fn forget(&mut self, index: u64) {
        let applied = self.raw.raft.raft_log.applied;
        let store = self.raw.mut_store();
        store.compact(index.min(applied));
        store.cut_older(index);
    }

    /// How many of the log's files are to stay although the store holds what they say.
    pub fn kept_segments(&self) -> usize {
        match self.is_sole_member() || self.retention.older_entries == 0 {
            true => 0,
            false => KEPT_SEGMENTS,
        }
    }

    /// The log's files hold entries up to `index` no more.
    pub fn released(&mut self, index: u64) {
        self.raw.mut_store().cut_older(index);
    }

    /// What raft waits for: to be read from the log's files, for [`Node::fetched`].
    pub fn fetches(&mut self) -> Vec<Fetch> {
        let leads = self.is_leader();
        self.flow.begin(self.raw.raft.term);
        let store = self.raw.mut_store();
        if !leads {
            store.forget_pieces();
        }
        // Mostly, and this is asked after every turn.
        if !store.is_asked_for_older() {
            return Vec::new();
        }
        let raft = &self.raw.raft;
        let next: Vec<(u64, u64, u64)> = raft
            .prs()
            .iter()
            .map(|(id, progress)| (*id, progress.matched, progress.next_idx))
            .collect();
        let flow = &mut self.flow;
        self.raw.mut_store().fetches(|low| {
            let waits = next.iter().filter(|(_, _, next)| leads && *next == low);
            waits.fold(false, |may, (id, matched, _)| {
                flow.may_begin(*id, *matched, low) || may
            })
        })
    }

    /// Entries from `low`, or none where they cannot be read: then whoever needs them is sent the store.
    pub fn fetched(&mut self, low: u64, entries: Option<Vec<Entry>>) {
        for context in self.raw.mut_store().fetched(low, entries) {
            self.raw.on_entries_fetched(context);
        }
    }
}

fn forget(log: &mut Log, applied: u64, retention: Retention) {
    let (entries, bytes) = log.kept();
    if bytes > MAX_KEPT_BYTES {
        // Half of them at once, so that this is rare.
        return log.compact(applied.saturating_sub(entries / 2));
    }
    if entries > retention.snapshot_count + retention.catchup_entries {
        log.compact(applied.saturating_sub(retention.catchup_entries));
    }
}
