//! The index: for every key its versions, oldest first.
//!
//! A tree of two levels: [`Leaf`]s of up to a hundred keys, found by a fence before the first of them.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use super::history::History;
use super::key::KeyRange;
use super::leaf::Leaf;
use crate::storage::Storage;
use crate::storage::record::{Loc, Version};

#[derive(Default)]
pub struct Index {
    /// By a key that is not behind any of the leaf's, and behind all of those before it; the first one's is empty.
    leaves: BTreeMap<Box<[u8]>, Leaf>,
    keys: usize,
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
        for history in self.leaves.values_mut().flat_map(Leaf::histories_mut) {
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
        for history in self.leaves.values_mut().flat_map(Leaf::histories_mut) {
            history.for_each(|version| {
                segment(&version)
                    .into_iter()
                    .for_each(|segment| segment.count(&version));
            });
        }
        newest
    }

    pub fn len(&self) -> usize {
        self.keys
    }

    pub fn is_empty(&self) -> bool {
        self.keys == 0
    }

    pub fn get(&self, key: &[u8], revision: i64) -> Option<Version> {
        self.history(key)?.at(revision)
    }

    /// The newest version, a tombstone too.
    pub fn newest(&self, key: &[u8]) -> Option<Version> {
        self.history(key).map(History::newest)
    }

    /// The version with the same revision as `version`, wherever it lies.
    pub fn find(&self, key: &[u8], version: &Version) -> Option<Version> {
        self.history(key)?.find((version.main, version.sub))
    }

    fn history(&self, key: &[u8]) -> Option<&History> {
        let (_, leaf) = self.leaves.range::<[u8], _>(until(key)).next_back()?;
        leaf.place(key).ok().map(|place| leaf.history(place))
    }

    /// In whatever order they come; newest last costs least.
    pub fn insert(&mut self, key: &[u8], version: Version) {
        let Some((_, leaf)) = self.leaves.range_mut::<[u8], _>(until(key)).next_back() else {
            self.leaves.insert(Box::default(), Leaf::default());
            return self.insert(key, version);
        };
        let place = match leaf.place(key) {
            Ok(place) => return leaf.history_mut(place).enter(version),
            Err(place) => place,
        };
        if leaf.is_full_for(key) {
            let later = leaf.split(place);
            let fence = later.fence(leaf);
            self.leaves.insert(fence, later);
            return self.insert(key, version);
        }
        leaf.insert(place, key, History::new(version));
        self.keys += 1;
    }

    pub fn relocate(&mut self, key: &[u8], from: &Version, to: Loc) -> bool {
        let leaf = self.leaves.range_mut::<[u8], _>(until(key)).next_back();
        let found = leaf.and_then(|(_, leaf)| leaf.place(key).ok().map(|place| leaf.history_mut(place)));
        found.is_some_and(|history| history.relocate(from, to))
    }

    /// Visits at most `count` keys from `cursor` on. Returns where to go on, None at the end.
    pub fn step(
        &self,
        cursor: &[u8],
        range: &KeyRange,
        count: usize,
        visit: &mut dyn FnMut(&[u8], &History) -> ControlFlow<()>,
    ) -> Option<Vec<u8>> {
        let (mut key, mut visited) = (Vec::new(), 0);
        for (place, leaf) in self.leaves_from(cursor) {
            for place in place..leaf.len() {
                leaf.read_key(place, &mut key);
                if !range.is_before_end(&key) {
                    return None;
                }
                if visited == count {
                    return Some(key);
                }
                if visit(&key, leaf.history(place)).is_break() {
                    return None;
                }
                visited += 1;
            }
        }
        None
    }

    /// Each with the place to begin at.
    fn leaves_from(&self, key: &[u8]) -> impl Iterator<Item = (usize, &Leaf)> {
        let first = self.leaves.range::<[u8], _>(until(key)).next_back();
        let later = self
            .leaves
            .range::<[u8], _>((Bound::Excluded(key), Bound::Unbounded));
        let begin = |(_, leaf): (_, &'_ Leaf)| leaf.place(key).unwrap_or_else(|place| place);
        first
            .into_iter()
            .map(move |found| (begin(found), found.1))
            .chain(later.map(|(_, leaf)| (0, leaf)))
    }

    /// Compacts from the leaf at `fence` on, until `count` keys were visited; hands every dropped version to `dropped`. Returns where to go on.
    pub fn compact_step(
        &mut self,
        fence: &[u8],
        count: usize,
        revision: i64,
        mut dropped: impl FnMut(&Version),
    ) -> Option<Box<[u8]>> {
        let (mut visited, mut shrunk, mut next) = (0, Vec::new(), None);
        let from = (Bound::Included(fence), Bound::Unbounded);
        for (fence, leaf) in self.leaves.range_mut::<[u8], _>(from) {
            if visited >= count {
                next = Some(fence.clone());
                break;
            }
            visited += leaf.len();
            let gone = leaf.retain(|history| history.compact(revision, &mut dropped));
            self.keys -= gone;
            if gone > 0 {
                shrunk.push(fence.clone());
            }
        }
        shrunk.iter().for_each(|fence| self.join(fence));
        next
    }

    /// Leaves that lost keys are joined to the one before, so that few keys do not keep many leaves. The first one, whose fence is before
    /// every key, stays.
    fn join(&mut self, fence: &[u8]) {
        let before = (Bound::Unbounded, Bound::Excluded(fence));
        let fits = match (
            self.leaves.range::<[u8], _>(before).next_back(),
            self.leaves.get(fence),
        ) {
            (Some((_, before)), Some(leaf)) => leaf.is_empty() || before.can_take(leaf),
            _ => false,
        };
        if !fits {
            return;
        }
        if let Some(leaf) = self.leaves.remove(fence)
            && let Some((_, before)) = self.leaves.range_mut::<[u8], _>(before).next_back()
            && !leaf.is_empty()
        {
            before.append(leaf);
        }
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

fn until(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Unbounded, Bound::Included(key))
}

#[cfg(test)]
mod tests;
