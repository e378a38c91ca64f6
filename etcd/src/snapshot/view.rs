//! The store between two frames.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use crate::mvcc::key::KeyRange;
use crate::mvcc::{Store, index};
use crate::storage::record::{Loc, Version};
use crate::storage::segment::Segment;
use crate::storage::writer::Meta;
use crate::storage::{Segments, Storage};

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
    /// Every revision that a store at this view holds after its compaction, in order, and the segments that they lie in. The caller holds
    /// [`Store::hold_history`] since before the view was made: what a later compaction drops would be missing.
    pub fn rows(&self, store: &Store) -> io::Result<(Vec<Row>, Segments)> {
        let mut rows = Vec::with_capacity(store.keys());
        let mut segments = Held::default();
        store.walk_history(&KeyRange::all(), |_, history| {
            let end = history.partition_point(|version| version.main <= self.revision);
            let start = index::dropped_by(&history[..end], self.compacted);
            rows.extend(history[start..end].iter().map(|version| Row {
                main: version.main,
                sub: version.sub,
                is_tombstone: version.is_tombstone(),
                loc: version.loc,
            }));
            segments.hold(&store.storage, &history[start..end]);
        });
        rows.sort_unstable_by_key(|row| (row.main, row.sub));
        Ok((rows, segments.list()?))
    }
}

/// Segments that stay readable after they were reclaimed. A version is looked at under the lock of the index, and reclaiming removes a segment
/// only after the index was pointed elsewhere: here it is always still found.
#[derive(Default)]
struct Held {
    segments: BTreeMap<u32, Arc<Segment>>,
    missing: Option<io::Error>,
}

impl Held {
    fn hold(&mut self, storage: &Storage, versions: &[Version]) {
        for version in versions {
            let number = version.loc.segment;
            if self.segments.contains_key(&number) {
                continue;
            }
            match storage.find(&Segments::default(), number) {
                Ok(segment) => drop(self.segments.insert(number, segment)),
                Err(error) => self.missing = Some(error),
            }
        }
    }

    fn list(self) -> io::Result<Segments> {
        match self.missing {
            Some(error) => Err(error),
            None => Ok(Arc::new(self.segments.into_values().collect())),
        }
    }
}
