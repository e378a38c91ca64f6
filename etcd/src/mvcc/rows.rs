//! Versions by their revisions, as etcd's database has them, with the segments that they lie in.

use std::io;

use super::Store;
use crate::storage::Segments;
use crate::storage::held::Held;
use crate::storage::record::{Loc, Version};

/// One revision of a key, and where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub main: i64,
    pub sub: u32,
    pub is_tombstone: bool,
    pub loc: Loc,
}

/// What a walk over the history gathers. Only the segments of what was added are held, so that the space of the others comes back.
pub struct Collector<'a> {
    store: &'a Store,
    rows: Vec<Row>,
    held: Held,
}

impl<'a> Collector<'a> {
    pub fn new(store: &'a Store) -> Collector<'a> {
        Collector {
            store,
            rows: Vec::new(),
            held: Held::default(),
        }
    }

    /// Call from within the walk that found it.
    pub fn add(&mut self, version: &Version) {
        self.held.hold(&self.store.storage, version.loc.segment);
        self.rows.push(Row {
            main: version.main,
            sub: version.sub,
            is_tombstone: version.is_tombstone(),
            loc: version.loc,
        });
    }

    /// In the order of revisions.
    pub fn finish(mut self) -> io::Result<(Vec<Row>, Segments)> {
        self.rows.sort_unstable_by_key(|row| (row.main, row.sub));
        Ok((self.rows, self.held.list()?))
    }
}
