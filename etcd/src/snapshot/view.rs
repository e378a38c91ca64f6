//! The store between two frames.

use std::io;

use crate::mvcc::key::KeyRange;
use crate::mvcc::rows::{Collector, Row};
use crate::mvcc::{Store, index};
use crate::storage::Segments;
use crate::storage::writer::Meta;

/// What the apply thread says; everything in it belongs to the same entry of the log.
pub struct View {
    pub index: u64,
    pub term: u64,
    pub revision: i64,
    pub compacted: i64,
    pub meta: Meta,
}

impl View {
    /// Every revision that a store at this view holds after its compaction, in order, and the segments that they lie in. The caller holds
    /// [`Store::hold_history`] since before the view was made: what a later compaction drops would be missing.
    pub fn rows(&self, store: &Store) -> io::Result<(Vec<Row>, Segments)> {
        let mut rows = Collector::new(store);
        store.walk_history(&KeyRange::all(), 0, |_, history| {
            let end = history.partition_point(|version| version.main <= self.revision);
            let start = index::dropped_by(&history[..end], self.compacted);
            history[start..end].iter().for_each(|version| rows.add(version));
        });
        rows.finish()
    }
}
