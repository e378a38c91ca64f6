//! A key's versions, oldest first: the newest at hand, in a few bytes less than it would take, those before it packed into a third of the room.
//!
//! Nearly everything asks for the newest.

mod block;
mod rest;

use self::block::Stretch;
use self::rest::{Long, Rest};
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
        older.iter().for_each(|version| history.rest().push(version));
        Some(history)
    }

    /// `version` is newer than all others.
    pub fn push(&mut self, version: Version) {
        let before = self.newest();
        self.rest().push(&before);
        self.set_newest(version);
    }

    /// In whatever order they come.
    pub fn enter(&mut self, version: Version) {
        if order(&version) > order(&self.newest()) {
            return self.push(version);
        }
        self.rest().enter(version);
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
        let long = match &self.rest {
            Some(rest) if age == IN_REST => rest.long(),
            _ => Long {
                create: main.wrapping_sub(age.into()),
                version: version.into(),
                lease: 0,
            },
        };
        let Long {
            create,
            version,
            lease,
        } = long;
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
                self.rest().set_long(Long {
                    create,
                    version,
                    lease,
                });
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
        let stretch = self.rest.as_ref()?.stretches().at(revision)?;
        let until = stretch.versions().take_while(|version| version.main <= revision);
        until.last().filter(|version| !version.is_tombstone())
    }

    /// The version with this revision, wherever it lies.
    pub fn find(&self, revision: (i64, u32)) -> Option<Version> {
        if revision == (self.newest.main, self.newest.sub) {
            return Some(self.newest());
        }
        self.rest.as_ref()?.stretches().find(revision)
    }

    /// False when `from` is not here, or lies elsewhere by now.
    pub fn relocate(&mut self, from: &Version, to: Loc) -> bool {
        if is_same(&self.newest(), from) {
            self.newest.loc = to;
            return true;
        }
        self.rest
            .as_deref_mut()
            .is_some_and(|rest| rest.relocate(from, to))
    }

    /// Drops what a compaction at `revision` drops. False when nothing is left.
    pub fn compact(&mut self, revision: i64, dropped: impl FnMut(&Version)) -> bool {
        let oldest = self.rest.as_ref().and_then(|rest| rest.stretches().oldest());
        let is_alone = oldest.is_none() && !self.newest().is_tombstone();
        if oldest.unwrap_or(self.newest.main) > revision || is_alone {
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
        if let Some(rest) = &self.rest {
            out.extend(rest.stretches().since(from).flat_map(Stretch::versions));
        }
        out.push(self.newest());
    }

    pub fn for_each(&self, mut visit: impl FnMut(Version)) {
        if let Some(rest) = &self.rest {
            rest.stretches()
                .since(0)
                .flat_map(Stretch::versions)
                .for_each(&mut visit);
        }
        visit(self.newest());
    }
}

/// The same revision, at the same place.
fn is_same(one: &Version, other: &Version) -> bool {
    order(one) == order(other) && one.loc == other.loc
}

fn order(version: &Version) -> (i64, u32) {
    (version.main, version.sub)
}

#[cfg(test)]
mod tests;
