//! A key's versions, oldest first: the newest at hand, in a few bytes less than it would take, those before it packed into a third of the room.
//!
//! Nearly everything asks for the newest. The others are in blocks of one size, each with the versions of one stretch and with all that is
//! needed to read them. Histories grow by turns, thousands of them at once: buffers that grew with them would leave a hole for each size
//! that they had.

mod block;

use self::block::Block;
use super::index::dropped_by;
use crate::storage::record::{Loc, Version};

#[derive(Debug)]
pub struct History {
    newest: Short,
    rest: Option<Box<Rest>>,
}

/// The newest version as nearly all are: without a lease, and with numbers of 32 bits.
#[derive(Clone, Copy, Debug)]
struct Short {
    main: i64,
    /// How many revisions before `main` the key was created; [`IN_REST`] when that, the version and the lease are in the rest.
    age: u32,
    version: u32,
    sub: u32,
    loc: Loc,
}

const IN_REST: u32 = u32::MAX;

#[derive(Debug, Default)]
struct Rest {
    /// Oldest first.
    older: Blocks,
    create: i64,
    version: i64,
    lease: i64,
}

#[allow(clippy::vec_box, reason = "so that what grows is a few pointers")]
type Blocks = Vec<Box<Block>>;

impl History {
    pub fn new(version: Version) -> History {
        let mut history = History {
            newest: Short {
                main: 0,
                age: 0,
                version: 0,
                sub: 0,
                loc: version.loc,
            },
            rest: None,
        };
        history.set_newest(version);
        history
    }

    /// None of no versions.
    pub fn pack(versions: &[Version]) -> Option<History> {
        let (newest, older) = versions.split_last()?;
        let mut history = History::new(*newest);
        if !older.is_empty() {
            history.rest().older = packed(older);
        }
        Some(history)
    }

    /// `version` is newer than all others.
    pub fn push(&mut self, version: Version) {
        let before = self.newest();
        push(&mut self.rest().older, &before);
        self.set_newest(version);
    }

    /// In whatever order they come.
    pub fn enter(&mut self, version: Version) {
        if order(&version) > order(&self.newest()) {
            return self.push(version);
        }
        let older = &mut self.rest().older;
        let Some(place) = place_of(older, order(&version)) else {
            return older.insert(0, Box::new(Block::new(&version)));
        };
        // What comes next is likely the next one: its block is left open behind it.
        let mut before: Vec<Version> = older[place].versions().collect();
        let at = before.partition_point(|other| order(other) < order(&version));
        let after = before.split_off(at);
        before.push(version);
        older.splice(place..=place, packed(&before).into_iter().chain(packed(&after)));
    }

    /// The newest version, a tombstone too.
    pub fn newest(&self) -> Version {
        let Short {
            main,
            age,
            version,
            sub,
            loc,
        } = self.newest;
        let (create, version, lease) = match &self.rest {
            Some(rest) if age == IN_REST => (rest.create, rest.version, rest.lease),
            _ => (main.wrapping_sub(age.into()), version.into(), 0),
        };
        Version {
            main,
            create,
            version,
            lease,
            sub,
            loc,
        }
    }

    fn set_newest(&mut self, newest: Version) {
        let Version {
            main,
            create,
            version,
            lease,
            sub,
            loc,
        } = newest;
        let age = u32::try_from(main.wrapping_sub(create))
            .ok()
            .filter(|age| *age != IN_REST);
        let (age, short) = match (age, u32::try_from(version), lease) {
            (Some(age), Ok(version), 0) => (age, version),
            _ => {
                let rest = self.rest();
                (rest.create, rest.version, rest.lease) = (create, version, lease);
                (IN_REST, 0)
            }
        };
        self.newest = Short {
            main,
            age,
            version: short,
            sub,
            loc,
        };
    }

    fn rest(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    /// The live version at `revision`.
    pub fn at(&self, revision: i64) -> Option<Version> {
        if self.newest.main <= revision {
            return Some(self.newest()).filter(|newest| !newest.is_tombstone());
        }
        let block = blocks_at(self.blocks(), revision).last()?;
        let until = block.versions().take_while(|version| version.main <= revision);
        until.last().filter(|version| !version.is_tombstone())
    }

    /// The version with this revision, wherever it lies.
    pub fn find(&self, revision: (i64, u32)) -> Option<Version> {
        if revision == (self.newest.main, self.newest.sub) {
            return Some(self.newest());
        }
        let place = place_of(self.blocks(), revision)?;
        self.blocks()[place]
            .versions()
            .find(|version| order(version) == revision)
    }

    /// False when `from` is not here, or lies elsewhere by now.
    pub fn relocate(&mut self, from: &Version, to: Loc) -> bool {
        let is_meant = |version: &Version| order(version) == order(from) && version.loc == from.loc;
        if is_meant(&self.newest()) {
            self.newest.loc = to;
            return true;
        }
        let Some(Rest { older, .. }) = self.rest.as_deref_mut() else {
            return false;
        };
        let Some(place) = place_of(older, order(from)) else {
            return false;
        };
        let mut versions: Vec<Version> = older[place].versions().collect();
        let Some(version) = versions.iter_mut().find(|version| is_meant(version)) else {
            return false;
        };
        version.loc = to;
        // They may take more room than before.
        older.splice(place..=place, packed(&versions));
        true
    }

    /// Drops what a compaction at `revision` drops. False when nothing is left.
    pub fn compact(&mut self, revision: i64, dropped: impl FnMut(&Version)) -> bool {
        let oldest = self
            .blocks()
            .first()
            .map_or(self.newest.main, |block| block.first());
        let is_alone = self.blocks().is_empty() && !self.newest().is_tombstone();
        if oldest > revision || is_alone {
            return true;
        }
        let mut versions = Vec::new();
        self.unpack(0, &mut versions);
        let gone = dropped_by(&versions, revision);
        versions[..gone].iter().for_each(dropped);
        match History::pack(&versions[gone..]) {
            Some(left) if gone > 0 => *self = left,
            Some(_) => {}
            None => return false,
        }
        true
    }

    /// Appends the versions, oldest first, at least from the one on that was there before revision `from`.
    pub fn unpack(&self, from: i64, out: &mut Vec<Version>) {
        let before = self.blocks().partition_point(|block| block.first() < from);
        let blocks = &self.blocks()[before.saturating_sub(1)..];
        out.extend(blocks.iter().flat_map(|block| block.versions()));
        out.push(self.newest());
    }

    pub fn for_each(&self, visit: impl FnMut(Version)) {
        let older = self.blocks().iter().flat_map(|block| block.versions());
        older.chain([self.newest()]).for_each(visit);
    }

    fn blocks(&self) -> &[Box<Block>] {
        self.rest.as_ref().map_or(&[], |rest| &rest.older)
    }
}

fn packed(versions: &[Version]) -> Blocks {
    let mut blocks = Vec::with_capacity(1);
    versions.iter().for_each(|version| push(&mut blocks, version));
    blocks
}

fn push(blocks: &mut Blocks, version: &Version) {
    let fits = blocks.last_mut().is_some_and(|open| open.push(version));
    if !fits {
        blocks.push(Box::new(Block::new(version)));
    }
}

/// The blocks that hold what there was at `revision`, and perhaps more.
fn blocks_at(blocks: &[Box<Block>], revision: i64) -> &[Box<Block>] {
    &blocks[..blocks.partition_point(|block| block.first() <= revision)]
}

/// The block with this revision. Versions of one transaction may lie in several.
fn place_of(blocks: &[Box<Block>], revision: (i64, u32)) -> Option<usize> {
    blocks_at(blocks, revision.0).iter().rposition(|block| {
        let first = block.versions().next();
        first.is_some_and(|first| order(&first) <= revision)
    })
}

fn order(version: &Version) -> (i64, u32) {
    (version.main, version.sub)
}

#[cfg(test)]
mod tests;
