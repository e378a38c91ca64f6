//! The versions before the newest: a few within some bytes, more in blocks of one size, and with them what of the newest is long.
//!
//! Most keys that were written twice were written twice or three times. Histories grow by turns, thousands of them at once: buffers that grew
//! with them would leave a hole for each size that they had.

use super::block::{Block, Stretch};
use super::{is_same, order};
use crate::storage::record::{Loc, Version};

/// So that the whole takes no more room than blocks without versions do.
const FEW_BYTES: usize = 39;
/// Together with their count 64 bytes, the line of a processor's cache.
const BLOCK_BYTES: usize = 63;

#[derive(Debug)]
pub enum Rest {
    Few(Block<FEW_BYTES>),
    Many { blocks: Blocks, long: Long },
}

/// What the newest version's short form has no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Long {
    pub create: i64,
    pub version: i64,
    pub lease: i64,
}

/// Oldest first.
#[allow(clippy::vec_box, reason = "so that what grows is a few pointers")]
type Blocks = Vec<Box<Block<BLOCK_BYTES>>>;

/// All of them, to be searched.
#[derive(Clone, Copy)]
pub enum Stretches<'a> {
    One(Stretch<'a>),
    Many(&'a [Box<Block<BLOCK_BYTES>>]),
}

impl Default for Rest {
    fn default() -> Self {
        Rest::Few(Block::EMPTY)
    }
}

impl Rest {
    pub fn long(&self) -> Long {
        match self {
            Rest::Few(_) => Long::default(),
            Rest::Many { long, .. } => *long,
        }
    }

    pub fn set_long(&mut self, new: Long) {
        let Rest::Many { long, .. } = self else {
            let blocks = packed(self.stretches().since(0).flat_map(Stretch::versions));
            return *self = Rest::Many { blocks, long: new };
        };
        *long = new;
    }

    /// `version` is newer than those that are here.
    pub fn push(&mut self, version: &Version) {
        match self {
            Rest::Few(few) => {
                if !few.push(version) {
                    let blocks = packed(few.stretch().versions().chain([*version]));
                    let long = Long::default();
                    *self = Rest::Many { blocks, long };
                }
            }
            Rest::Many { blocks, .. } => push(blocks, version),
        }
    }

    /// In whatever order they come.
    pub fn enter(&mut self, version: Version) {
        let place = self.stretches().place_of(order(&version));
        if let (None, Rest::Many { blocks, .. }) = (place, &mut *self) {
            return blocks.insert(0, block(&version));
        }
        let place = place.unwrap_or(0);
        // What comes next is likely the next one: its block is left open behind it.
        let mut before: Vec<Version> = self.stretches().get(place).versions().collect();
        let at = before.partition_point(|other| order(other) < order(&version));
        let after = before.split_off(at);
        before.push(version);
        self.replace(place, &before, &after);
    }

    /// False when `from` is not here, or lies elsewhere by now.
    pub fn relocate(&mut self, from: &Version, to: Loc) -> bool {
        let Some(place) = self.stretches().place_of(order(from)) else {
            return false;
        };
        let mut versions: Vec<Version> = self.stretches().get(place).versions().collect();
        let Some(version) = versions.iter_mut().find(|version| is_same(version, from)) else {
            return false;
        };
        version.loc = to;
        // They may take more room than before.
        self.replace(place, &versions, &[]);
        true
    }

    /// Gives the place of a stretch to two others, either of which may be empty.
    fn replace(&mut self, place: usize, first: &[Version], second: &[Version]) {
        let Rest::Many { blocks, .. } = self else {
            *self = Rest::default();
            return first.iter().chain(second).for_each(|version| self.push(version));
        };
        let [first, second] = [first, second].map(|versions| packed(versions.iter().copied()));
        blocks.splice(place..=place, first.into_iter().chain(second));
    }

    pub fn stretches(&self) -> Stretches<'_> {
        match self {
            Rest::Few(few) => Stretches::One(few.stretch()),
            Rest::Many { blocks, .. } => Stretches::Many(blocks),
        }
    }
}

impl<'a> Stretches<'a> {
    /// Main revision of the oldest version.
    pub fn oldest(self) -> Option<i64> {
        match self {
            Stretches::One(stretch) => stretch.first(),
            Stretches::Many(blocks) => blocks.first()?.stretch().first(),
        }
    }

    /// With what was there at `revision`.
    pub fn at(self, revision: i64) -> Option<Stretch<'a>> {
        let place = self.begun(revision).checked_sub(1)?;
        Some(self.get(place))
    }

    /// The version with this revision.
    pub fn find(self, revision: (i64, u32)) -> Option<Version> {
        let stretch = self.get(self.place_of(revision)?);
        stretch.versions().find(|version| order(version) == revision)
    }

    /// At least from the version on that was there before revision `from`.
    pub fn since(self, from: i64) -> impl Iterator<Item = Stretch<'a>> {
        let all = match self {
            Stretches::One(_) => 1,
            Stretches::Many(blocks) => blocks.len(),
        };
        let before = self.begun(from.saturating_sub(1));
        (before.saturating_sub(1)..all).map(move |place| self.get(place))
    }

    /// Where the version with this revision is, if it is here. Versions of one transaction may lie in several places.
    fn place_of(self, revision: (i64, u32)) -> Option<usize> {
        (0..self.begun(revision.0)).rev().find(|place| {
            let first = self.get(*place).versions().next();
            first.is_some_and(|first| order(&first) <= revision)
        })
    }

    /// How many begin at `revision` or before.
    fn begun(self, revision: i64) -> usize {
        let has_begun = |stretch: Stretch<'_>| stretch.first().is_some_and(|first| first <= revision);
        match self {
            Stretches::One(stretch) => has_begun(stretch).into(),
            Stretches::Many(blocks) => blocks.partition_point(|block| has_begun(block.stretch())),
        }
    }

    fn get(self, place: usize) -> Stretch<'a> {
        match self {
            Stretches::One(stretch) => stretch,
            Stretches::Many(blocks) => blocks[place].stretch(),
        }
    }
}

fn packed(versions: impl Iterator<Item = Version>) -> Blocks {
    let mut blocks = Vec::with_capacity(1);
    versions.for_each(|version| push(&mut blocks, &version));
    blocks
}

fn push(blocks: &mut Blocks, version: &Version) {
    let fits = blocks.last_mut().is_some_and(|open| open.push(version));
    if !fits {
        blocks.push(block(version));
    }
}

fn block(version: &Version) -> Box<Block<BLOCK_BYTES>> {
    let mut block = Box::new(Block::EMPTY);
    block.push(version);
    block
}
