//! The store between two frames.

use crate::mvcc::key::KeyRange;
use crate::mvcc::{Store, index};
use crate::storage::record::Loc;
use crate::storage::writer::Meta;

/// What the apply thread says; everything in it belongs to the same entry of the log.
pub struct View {
    pub index: u64,
    pub term: u64,
    pub revision: i64,
    pub compacted: i64,
    pub meta: Meta,
}

/// One revision of a key, and where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub main: i64,
    pub sub: u32,
    pub is_tombstone: bool,
    pub loc: Loc,
}

impl View {
    /// Every revision that a store at this view holds after its compaction, in order. The caller holds [`Store::hold_history`] since before
    /// the view was made: what a later compaction drops would be missing.
    pub fn rows(&self, store: &Store) -> Vec<Row> {
        let mut rows = Vec::new();
        store.walk_history(&KeyRange::all(), |_, history| {
            let end = history.partition_point(|version| version.main <= self.revision);
            let start = index::dropped_by(&history[..end], self.compacted);
            rows.extend(history[start..end].iter().map(|version| Row {
                main: version.main,
                sub: version.sub,
                is_tombstone: version.is_tombstone(),
                loc: version.loc,
            }));
        });
        rows.sort_unstable_by_key(|row| (row.main, row.sub));
        rows
    }
}
