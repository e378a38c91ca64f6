//! What raft reads of its log: the last entries in memory, [`older`](super::older) ones from the log's files.

use std::cell::RefCell;
use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

use super::older::{Fetch, Older};

pub struct Log {
    hard_state: HardState,
    conf_state: ConfState,
    /// Index and term of the entry before the first in memory.
    before: (u64, u64),
    older: RefCell<Older>,
    entries: VecDeque<Entry>,
    /// Bytes of the entries' data.
    bytes: u64,
    applied: u64,
}

impl Log {
    pub fn new(
        hard_state: HardState,
        conf_state: ConfState,
        before: (u64, u64),
        entries: Vec<Entry>,
    ) -> Self {
        let bytes = entries.iter().map(|entry| entry.data.len() as u64).sum();
        Log {
            hard_state,
            conf_state,
            before,
            older: RefCell::new(Older::none(before)),
            entries: entries.into(),
            bytes,
            applied: before.0,
        }
    }

    /// Index of the entry before the first in memory.
    pub fn before(&self) -> u64 {
        self.before.0
    }

    fn first(&self) -> u64 {
        self.before.0 + 1
    }

    fn last(&self) -> u64 {
        self.before.0 + self.entries.len() as u64
    }

    /// How many entries are kept, and how many bytes they hold.
    pub fn kept(&self) -> (u64, u64) {
        (self.entries.len() as u64, self.bytes)
    }

    /// Later entries with the same index supersede.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let keep = first.index.saturating_sub(self.first()) as usize;
        let superseded = self.entries.range(keep.min(self.entries.len())..);
        self.bytes -= superseded.map(|entry| entry.data.len() as u64).sum::<u64>();
        self.entries.truncate(keep);
        self.bytes += entries.iter().map(|entry| entry.data.len() as u64).sum::<u64>();
        self.entries.extend(entries.iter().cloned());
    }

    pub fn set_hard_state(&mut self, state: HardState) {
        self.hard_state = state;
    }

    pub fn set_conf_state(&mut self, state: ConfState) {
        self.conf_state = state;
    }

    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    /// What was applied is what a snapshot for a member that lags would hold.
    pub fn set_applied(&mut self, index: u64) {
        self.applied = index;
    }

    /// A snapshot takes the place of everything.
    pub fn install(&mut self, metadata: &SnapshotMetadata) {
        self.before = (metadata.index, metadata.term);
        self.older = RefCell::new(Older::none(self.before));
        self.conf_state = metadata.conf_state.clone().unwrap_or_default();
        self.entries.clear();
        self.bytes = 0;
    }

    /// Keeps no more than so many bytes of what lies up to `index`, which was applied; half of them go at once, so that this is rare.
    pub fn trim(&mut self, bytes: u64, index: u64) {
        if self.bytes <= bytes {
            return;
        }
        let mut left = self.bytes;
        let goes = |entry: &&Entry| {
            let goes = left > bytes / 2 && entry.index <= index;
            left -= entry.data.len() as u64;
            goes
        };
        if let Some(last) = self.entries.iter().take_while(goes).last() {
            self.compact(last.index);
        }
    }

    /// Entries up to `index`, which memory holds no more, cannot be read from the files either.
    pub fn cut_older(&mut self, index: u64) {
        self.older.get_mut().cut(index.min(self.before.0));
    }

    /// Pieces of the files that raft waits for and `wanted` says yes to.
    pub fn fetches(&mut self, wanted: impl FnMut(u64) -> bool) -> Vec<Fetch> {
        self.older.get_mut().fetches(wanted)
    }

    /// A piece that was read, or cannot be; returns who waits for it.
    pub fn fetched(&mut self, low: u64, entries: Option<Vec<Entry>>) -> Vec<GetEntriesContext> {
        self.older.get_mut().fetched(low, entries)
    }

    pub fn is_asked_for_older(&self) -> bool {
        self.older.borrow().is_asked()
    }

    pub fn forget_pieces(&mut self) {
        self.older.get_mut().forget_pieces();
    }

    /// Memory forgets entries up to `index`, which were applied.
    pub fn compact(&mut self, index: u64) {
        let count = index.min(self.last()).saturating_sub(self.before.0) as usize;
        let (mut freed, older) = (0, self.older.get_mut());
        for gone in self.entries.drain(..count) {
            freed += gone.data.len() as u64;
            older.push(gone.index, gone.term);
            self.before = (gone.index, gone.term);
        }
        self.bytes -= freed;
        if self.entries.is_empty() && self.entries.capacity() > 1024 {
            self.entries.shrink_to(256);
        }
    }
}

impl Storage for Log {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState {
            hard_state: self.hard_state.clone(),
            conf_state: self.conf_state.clone(),
        })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low < self.first() {
            let mut older = self.older.borrow_mut();
            if low <= older.before() || !context.can_async() {
                return Err(Error::Store(StorageError::Compacted));
            }
            let piece = older.take(low, high.min(self.first()), context);
            return piece.ok_or(Error::Store(StorageError::LogTemporarilyUnavailable));
        }
        let start = (low - self.first()) as usize;
        let end = (high.saturating_sub(self.first()) as usize).min(self.entries.len());
        let max = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0;
        let within = |entry: &&Entry| {
            let first = size == 0;
            size += entry.data.len() as u64 + 16;
            first || size <= max
        };
        Ok(self
            .entries
            .range(start..end.max(start))
            .take_while(within)
            .cloned()
            .collect())
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index <= self.before.0 {
            let term = self.older.borrow().term(index);
            return term.ok_or(Error::Store(StorageError::Compacted));
        }
        let entry = self.entries.get((index - self.first()) as usize);
        entry
            .map(|entry| entry.term)
            .ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.older.borrow().before() + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    /// Only says that one is to be sent, and from where on: the store that travels is taken when it is sent, and is at least as new.
    fn snapshot(&self, _: u64, _: u64) -> Result<Snapshot> {
        let unavailable = Error::Store(StorageError::SnapshotTemporarilyUnavailable);
        if self.applied == 0 {
            return Err(unavailable);
        }
        let term = self.term(self.applied).map_err(|_| unavailable)?;
        Ok(Snapshot {
            metadata: Some(SnapshotMetadata {
                conf_state: Some(self.conf_state.clone()),
                index: self.applied,
                term,
            }),
            ..Snapshot::default()
        })
    }
}
