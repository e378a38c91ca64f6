//! The index: for every key its versions, oldest first.

use std::cell::Cell;
use std::ops::ControlFlow;

use super::history::History;
use super::key::KeyRange;
use crate::runs::Runs;
use crate::storage::Storage;
use crate::storage::record::{Loc, Version};

#[derive(Default)]
pub struct Index {
    keys: Runs<History>,
    /// Keys whose newest version is no tombstone.
    live: usize,
}

/// The live version at `revision`.
pub fn at(history: &[Version], revision: i64) -> Option<&Version> {
    let place = history.partition_point(|version| version.main <= revision);
    history[..place].last().filter(|version| !version.is_tombstone())
}

/// How many of the oldest versions a compaction at `revision` drops. A tombstone exactly at `revision` stays: a watch may begin there.
pub fn dropped_by(history: &[Version], revision: i64) -> usize {
    let place = history.partition_point(|version| version.main <= revision);
    match history[..place].last() {
        Some(newest) if newest.is_tombstone() && newest.main < revision => place,
        Some(_) => place - 1,
        None => 0,
    }
}

impl Index {
    /// Of what the segments hold, once all of it is here: drops what was compacted, and counts what lives in each segment. Returns the newest
    /// revision that was there.
    pub fn settle(&mut self, compacted: i64, storage: &Storage) -> i64 {
        let segments = storage.segments();
        let segment = |version: &Version| {
            segments
                .binary_search_by_key(&version.loc.segment, |segment| segment.number)
                .ok()
                .map(|place| &segments[place])
        };
        let mut newest = 0;
        for history in self.keys.values_mut() {
            newest = newest.max(history.newest().main);
        }
        let mut fence: Option<Box<[u8]>> = Some(Box::default());
        while let Some(from) = fence {
            fence = self.compact_step(&from, usize::MAX, compacted, |version| {
                segment(version)
                    .into_iter()
                    .for_each(|segment| segment.bury(version));
            });
        }
        for history in self.keys.values_mut() {
            history.for_each(|version| {
                segment(&version)
                    .into_iter()
                    .for_each(|segment| segment.count(&version));
            });
        }
        newest
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Without those that were deleted and not compacted.
    pub fn live(&self) -> usize {
        self.live
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn get(&self, key: &[u8], revision: i64) -> Option<Version> {
        self.keys.get(key)?.at(revision)
    }

    /// The newest version, a tombstone too.
    pub fn newest(&self, key: &[u8]) -> Option<Version> {
        self.keys.get(key).map(History::newest)
    }

    /// The version with the same revision as `version`, wherever it lies.
    pub fn find(&self, key: &[u8], version: &Version) -> Option<Version> {
        self.keys.get(key)?.find((version.main, version.sub))
    }

    /// In whatever order they come; newest last costs least.
    pub fn insert(&mut self, key: &[u8], version: Version) {
        let (before, after) = (Cell::new(false), Cell::new(!version.is_tombstone()));
        let change = |history: &mut History| {
            before.set(!history.newest().is_tombstone());
            history.enter(version);
            after.set(!history.newest().is_tombstone());
        };
        self.keys.enter(key, change, || History::new(version));
        self.live = self.live + usize::from(after.get()) - usize::from(before.get());
    }

    pub fn relocate(&mut self, key: &[u8], from: &Version, to: Loc) -> bool {
        self.keys
            .get_mut(key)
            .is_some_and(|history| history.relocate(from, to))
    }

    /// Visits at most `count` keys from `cursor` on. Returns where to go on, None at the end.
    pub fn step(
        &self,
        cursor: &[u8],
        range: &KeyRange,
        count: usize,
        visit: &mut dyn FnMut(&[u8], &History) -> ControlFlow<()>,
    ) -> Option<Vec<u8>> {
        let (mut visited, mut next) = (0, None);
        // Where it ends is in `next`.
        let _: ControlFlow<()> = self.keys.visit(cursor, |key, history| {
            if !range.is_before_end(key) {
                return ControlFlow::Break(());
            }
            if visited == count {
                next = Some(key.to_vec());
                return ControlFlow::Break(());
            }
            visited += 1;
            visit(key, history)
        });
        next
    }

    /// Compacts from `fence` on, until `count` keys were visited; hands every dropped version to `dropped`. Returns where to go on.
    pub fn compact_step(
        &mut self,
        fence: &[u8],
        count: usize,
        revision: i64,
        mut dropped: impl FnMut(&Version),
    ) -> Option<Box<[u8]>> {
        self.keys
            .retain(fence, count, |history| history.compact(revision, &mut dropped))
    }
}

impl<K: AsRef<[u8]>> FromIterator<(K, Version)> for Index {
    fn from_iter<I: IntoIterator<Item = (K, Version)>>(versions: I) -> Index {
        let mut index = Index::default();
        for (key, version) in versions {
            index.insert(key.as_ref(), version);
        }
        index
    }
}

#[cfg(test)]
mod tests;
