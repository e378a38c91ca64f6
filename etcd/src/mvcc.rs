//! Keys, revisions and their history.
//!
//! A write comes from the apply thread as a [`txn::WriteTxn`]: it looks at the [`index`], appends records to the store's frame, and enters
//! the new versions into their keys' [`history`]. The revision becomes visible to readers when the frame is written ([`Store::publish`]). A read picks a
//! revision, walks the index in small steps under a lock that it holds for microseconds ([`Store::walk`]), and fetches
//! values afterwards. [`compare`] judges a transaction's conditions, [`range`] is the Range request over that, [`compact`] drops history, [`hash`] is etcd's KV hash
//! over [`rows`], which stay readable however long it takes.
//! Responses are written by [`response`] straight from stored bytes: a stored value is never decoded.
//!
//! No clock is read here, and no disk but through [`crate::storage`].

pub mod check;
pub mod compact;
pub mod compare;
pub mod hash;
pub mod history;
pub mod index;
pub mod key;
pub mod range;
pub mod response;
pub mod rows;
pub mod txn;

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard};

use crate::storage::Storage;
use crate::storage::reclaim::{Liveness, Move};
use crate::storage::record::Version;
use hash::compaction::CompactionHashes;
use index::Index;
use key::KeyRange;

/// Keys visited under one lock of the index: some tens of microseconds.
const WALK_STEP: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    #[error("etcdserver: key not found")]
    KeyNotFound,
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What a write does depends on a value that cannot be read.
    #[error("the value of {key:?} decides what is written, and cannot be read: {source}")]
    Undecidable { key: String, source: io::Error },
    /// All is written; only what it answers with is missing.
    #[error("what was asked for is written, but what it answers with cannot be read: {0}")]
    Unanswerable(io::Error),
}

impl Error {
    fn undecidable(key: &[u8]) -> impl Fn(io::Error) -> Error + '_ {
        |source| Error::Undecidable {
            key: String::from_utf8_lossy(key).into_owned(),
            source,
        }
    }
}

pub struct Store {
    pub storage: Arc<Storage>,
    index: RwLock<Index>,
    current: AtomicI64,
    compacted: AtomicI64,
    /// The compaction that history was dropped for last.
    swept: AtomicI64,
    pub hashes: CompactionHashes,
    /// Held while a compaction drops history, and by whoever must see all of it.
    sweeping: RwLock<()>,
}

impl Store {
    /// From what the segments hold; history at or before `compacted` is dropped on the way.
    pub fn open(storage: Arc<Storage>, mut index: Index, current: i64, compacted: i64) -> Self {
        let newest = index.settle(compacted, &storage);
        // A store that was never written to stands at revision 1, as etcd's does.
        let current = current.max(newest).max(compacted).max(1);
        Store {
            storage,
            index: RwLock::new(index),
            current: AtomicI64::new(current),
            compacted: AtomicI64::new(compacted),
            swept: AtomicI64::new(compacted),
            hashes: CompactionHashes::default(),
            sweeping: RwLock::new(()),
        }
    }

    /// The revision up to which everything is visible.
    pub fn current(&self) -> i64 {
        self.current.load(Ordering::SeqCst)
    }

    pub fn compacted(&self) -> i64 {
        self.compacted.load(Ordering::SeqCst)
    }

    pub fn publish(&self, revision: i64) {
        self.current.store(revision, Ordering::SeqCst);
    }

    pub fn set_compacted(&self, revision: i64) {
        self.compacted.fetch_max(revision, Ordering::SeqCst);
    }

    /// No compaction drops history as long as this is held: for a walk over the index, no longer.
    pub fn hold_history(&self) -> RwLockReadGuard<'_, ()> {
        self.sweeping.read()
    }

    /// The revision that a request for `asked` reads, 0 asking for the current one.
    pub fn revision(&self, asked: i64, current: i64) -> Result<i64, Error> {
        let revision = if asked <= 0 { current } else { asked };
        if revision > current {
            return Err(Error::FutureRevision);
        }
        self.still_there(revision).map(|()| revision)
    }

    /// After a walk: whether a compaction passed meanwhile.
    pub fn still_there(&self, revision: i64) -> Result<(), Error> {
        if revision < self.compacted() {
            Err(Error::Compacted)
        } else {
            Ok(())
        }
    }

    /// Takes over everything that a snapshot of another member holds; its segments must be known to the storage already.
    pub fn replace(&self, mut index: Index, current: i64, compacted: i64) {
        let _sweeping = self.sweeping.write();
        index.settle(compacted, &self.storage);
        self.set_compacted(compacted);
        self.swept.store(compacted, Ordering::SeqCst);
        self.hashes.forget();
        std::mem::swap(&mut *self.index.write(), &mut index);
        self.publish(current.max(compacted).max(1));
    }

    /// The live version of one key at `revision`.
    pub fn get(&self, key: &[u8], revision: i64) -> Option<Version> {
        self.index.read().get(key, revision)
    }

    /// Visits the live keys of `range` at `revision` in order, each under the lock of the index.
    pub fn walk(
        &self,
        range: &KeyRange,
        revision: i64,
        mut visit: impl FnMut(&[u8], &Version) -> ControlFlow<()>,
    ) {
        if let KeyRange::Single(key) = range {
            let index = self.index.read();
            if let Some(version) = index.get(key, revision) {
                // One key: nothing is left to break off.
                let _: ControlFlow<()> = visit(key, &version);
            }
            return;
        }
        let mut cursor = range.first().to_vec();
        while let Some(next) = self
            .index
            .read()
            .step(&cursor, range, WALK_STEP, &mut |key, history| {
                let version = history.at(revision);
                version.map_or(ControlFlow::Continue(()), |version| visit(key, &version))
            })
        {
            cursor = next;
        }
    }

    /// Visits every version, live or not, of the keys in `range`; of each key at least from the version on that was there before `from`.
    pub fn walk_history(&self, range: &KeyRange, from: i64, mut visit: impl FnMut(&[u8], &[Version])) {
        let mut cursor = range.first().to_vec();
        let mut versions = Vec::new();
        while let Some(next) = self
            .index
            .read()
            .step(&cursor, range, WALK_STEP, &mut |key, history| {
                versions.clear();
                history.unpack(from, &mut versions);
                visit(key, &versions);
                ControlFlow::Continue(())
            })
        {
            cursor = next;
        }
    }

    pub fn keys(&self) -> usize {
        self.index.read().len()
    }

    pub fn live_keys(&self) -> usize {
        self.index.read().live()
    }
}

impl Liveness for Store {
    fn live(&self, items: &[(Bytes, Version)]) -> Vec<bool> {
        let mut out = Vec::with_capacity(items.len());
        for step in items.chunks(WALK_STEP) {
            let index = self.index.read();
            out.extend(step.iter().map(|(key, version)| {
                index
                    .find(key, version)
                    .is_some_and(|found| found.loc == version.loc)
            }));
        }
        out
    }

    fn relocate(&self, moves: &[Move]) -> Vec<bool> {
        let mut index = self.index.write();
        moves
            .iter()
            .map(|item| index.relocate(&item.key, &item.from, item.to))
            .collect()
    }
}

#[cfg(test)]
mod tests;
