//! The index: for every key its versions, oldest first.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::history::History;
use super::key::KeyRange;
use crate::storage::Storage;
use crate::storage::record::{Loc, Version};

#[derive(Default)]
pub struct Index {
    keys: BTreeMap<Box<[u8]>, History>,
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
    /// Sorts everything that the segments hold and drops what was compacted; counts what lives in each segment.
    pub fn build(mut versions: Vec<(Bytes, Version)>, compacted: i64, storage: &Storage) -> Index {
        versions.sort_unstable_by(|left, right| {
            left.0
                .cmp(&right.0)
                .then_with(|| order(&left.1).cmp(&order(&right.1)))
        });
        let segments = storage.segments();
        let segment = |version: &Version| {
            segments
                .binary_search_by_key(&version.loc.segment, |segment| segment.number)
                .ok()
                .map(|place| &segments[place])
        };
        let grouped = versions
            .chunk_by(|left, right| left.0 == right.0)
            .filter_map(|chunk| {
                let history: Vec<Version> = chunk.iter().map(|(_, version)| *version).collect();
                let (gone, left) = history.split_at(dropped_by(&history, compacted));
                for version in gone {
                    segment(version)
                        .into_iter()
                        .for_each(|segment| segment.bury(version));
                }
                for version in left {
                    segment(version)
                        .into_iter()
                        .for_each(|segment| segment.count(version));
                }
                Some((Box::from(&chunk[0].0[..]), History::pack(left)?))
            });
        Index {
            keys: grouped.collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn get(&self, key: &[u8], revision: i64) -> Option<Version> {
        self.keys.get(key)?.at(revision)
    }

    /// The newest version, a tombstone too.
    pub fn newest(&self, key: &[u8]) -> Option<&Version> {
        self.keys.get(key).map(History::newest)
    }

    /// The version with the same revision as `version`, wherever it lies.
    pub fn find(&self, key: &[u8], version: &Version) -> Option<Version> {
        self.keys.get(key)?.find(order(version))
    }

    pub fn insert(&mut self, key: &[u8], version: Version) {
        match self.keys.get_mut(key) {
            Some(history) => history.push(version),
            None => {
                self.keys.insert(Box::from(key), History::new(version));
            }
        }
    }

    pub fn relocate(&mut self, key: &[u8], from: &Version, to: Loc) -> bool {
        self.keys
            .get_mut(key)
            .is_some_and(|history| history.relocate(from, to))
    }

    /// Visits at most `count` keys from `cursor` on. Returns where to go on, None at the end.
    pub fn step(
        &self,
        cursor: &Bound<Vec<u8>>,
        range: &KeyRange,
        count: usize,
        visit: &mut dyn FnMut(&[u8], &History) -> ControlFlow<()>,
    ) -> Option<Bound<Vec<u8>>> {
        let from = cursor.as_ref().map(Vec::as_slice);
        let is_before_end = |from: &[u8]| range.is_before_end(from);
        if !matches!(from, Bound::Included(first) if is_before_end(first)) {
            return None;
        }
        for (visited, (key, history)) in self.keys.range::<[u8], _>((from, range.end())).enumerate() {
            if visited == count {
                return Some(Bound::Included(key.to_vec()));
            }
            if visit(key, history).is_break() {
                return None;
            }
        }
        None
    }

    /// Compacts at most `count` keys after `cursor`; hands every dropped version to `dropped`. Returns where to go on.
    pub fn compact_step(
        &mut self,
        cursor: Bound<&[u8]>,
        count: usize,
        revision: i64,
        mut dropped: impl FnMut(&Version),
    ) -> Option<Box<[u8]>> {
        let mut empty = Vec::new();
        let mut last = None;
        for (visited, (key, history)) in self
            .keys
            .range_mut::<[u8], _>((cursor, Bound::Unbounded))
            .enumerate()
        {
            if visited == count {
                break;
            }
            if !history.compact(revision, &mut dropped) {
                empty.push(key.clone());
            }
            last = (visited + 1 == count).then(|| key.clone());
        }
        for key in empty {
            self.keys.remove(&key);
        }
        last
    }
}

fn order(version: &Version) -> (i64, u32) {
    (version.main, version.sub)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(mains: &[(i64, bool)]) -> Vec<Version> {
        let version = |(main, put): &(i64, bool)| Version {
            main: *main,
            create: 1,
            version: i64::from(*put),
            lease: 0,
            sub: 0,
            loc: Loc::default(),
        };
        mains.iter().map(version).collect()
    }

    #[test]
    fn a_read_sees_the_newest_version_at_its_revision() {
        let versions = history(&[(2, true), (4, true), (6, false), (8, true)]);
        let main = |revision| at(&versions, revision).map(|version| version.main);
        assert_eq!(
            [main(1), main(2), main(5), main(6), main(7), main(9)],
            [None, Some(2), Some(4), None, None, Some(8)]
        );
    }

    #[test]
    fn compaction_keeps_what_reads_and_watches_at_its_revision_need() {
        let versions = history(&[(2, true), (4, true), (6, false), (8, true)]);
        let dropped = |revision| dropped_by(&versions, revision);
        assert_eq!(
            [dropped(1), dropped(2), dropped(3), dropped(4), dropped(5)],
            [0, 0, 0, 1, 1]
        );
        assert_eq!(
            dropped(6),
            2,
            "the tombstone at the compaction's own revision stays"
        );
        assert_eq!([dropped(7), dropped(8), dropped(9)], [3, 3, 3]);
    }
}
