//! A key's versions, oldest first: the newest at hand, in a few bytes less than it would take, those before it packed into a third of the room.
//!
//! Nearly everything asks for the newest. The others are in blocks of one size, each with the versions of one stretch and with all that is
//! needed to read them. Histories grow by turns, thousands of them at once: buffers that grew with them would leave a hole for each size
//! that they had.

use bytes::BufMut as _;
use prost::encoding::{decode_varint, encode_varint};

use super::index::dropped_by;
use crate::storage::record::{Loc, Version};

/// Together with their count 64 bytes, the line of a processor's cache. A version takes about 14 of them, and never more than 59.
const BLOCK_BYTES: usize = 63;
/// Records begin at multiples of eight: turned by so many bits an offset is a small number.
const OFFSET_ZEROS: u32 = 3;

const HAS_SUB: u8 = 1;
const HAS_LEASE: u8 = 2;

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

#[derive(Debug)]
struct Block {
    length: u8,
    bytes: [u8; BLOCK_BYTES],
}

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

impl Block {
    fn new(version: &Version) -> Block {
        let mut block = Block {
            length: 0,
            bytes: [0; BLOCK_BYTES],
        };
        block.push(version);
        block
    }

    /// False when there is no room.
    fn push(&mut self, version: &Version) -> bool {
        let mut encoded = [0; BLOCK_BYTES];
        let base = if self.length == 0 { 0 } else { self.first() };
        let size = encode(version, base, &mut encoded);
        let start = usize::from(self.length);
        let Some(room) = self.bytes.get_mut(start..start + size) else {
            return false;
        };
        room.copy_from_slice(&encoded[..size]);
        self.length += size as u8;
        true
    }

    /// Main revision of its first version, which the others count from.
    fn first(&self) -> i64 {
        decode_varint(&mut &self.bytes[1..]).unwrap_or_default() as i64
    }

    fn versions(&self) -> impl Iterator<Item = Version> {
        let mut rest = &self.bytes[..self.length.into()];
        let mut base = 0;
        std::iter::from_fn(move || {
            let version = decode(&mut rest, base)?;
            if base == 0 {
                base = version.main;
            }
            Some(version)
        })
    }
}

/// Returns how many bytes it took.
fn encode(version: &Version, base: i64, out: &mut [u8; BLOCK_BYTES]) -> usize {
    let has = |flag, value| if value { flag } else { 0 };
    out[0] = has(HAS_SUB, version.sub != 0) | has(HAS_LEASE, version.lease != 0);
    let mut rest = &mut out[1..];
    let loc = version.loc;
    for number in [
        version.main.wrapping_sub(base) as u64,
        version.main.wrapping_sub(version.create) as u64,
        version.version as u64,
        loc.segment.into(),
        loc.offset.rotate_right(OFFSET_ZEROS).into(),
        loc.length.into(),
    ] {
        encode_varint(number, &mut rest);
    }
    if version.sub != 0 {
        encode_varint(version.sub.into(), &mut rest);
    }
    if version.lease != 0 {
        rest.put_i64_le(version.lease);
    }
    BLOCK_BYTES - rest.len()
}

/// None at the end.
fn decode(rest: &mut &[u8], base: i64) -> Option<Version> {
    let (flags, tail) = rest.split_first()?;
    *rest = tail;
    let mut number = || decode_varint(rest).ok();
    let main = base.wrapping_add(number()? as i64);
    let mut version = Version {
        main,
        create: main.wrapping_sub(number()? as i64),
        version: number()? as i64,
        loc: Loc {
            segment: number()? as u32,
            offset: (number()? as u32).rotate_left(OFFSET_ZEROS),
            length: number()? as u32,
        },
        sub: 0,
        lease: 0,
    };
    if flags & HAS_SUB != 0 {
        version.sub = number()? as u32;
    }
    if flags & HAS_LEASE != 0 {
        let (lease, tail) = rest.split_first_chunk()?;
        version.lease = i64::from_le_bytes(*lease);
        *rest = tail;
    }
    Some(version)
}

fn order(version: &Version) -> (i64, u32) {
    (version.main, version.sub)
}

#[cfg(test)]
mod tests {
    use super::super::index::at;
    use super::*;

    fn version(main: i64, sub: u32) -> Version {
        let number = (main + i64::from(sub)) as u32;
        Version {
            main,
            create: if main % 7 == 0 { main } else { main - main % 100 },
            version: if main % 5 == 0 { 0 } else { main % 300 },
            lease: if main % 3 == 0 { i64::MIN + main } else { 0 },
            sub,
            loc: Loc {
                segment: number / 50,
                // Some lie where no record would.
                offset: number.wrapping_mul(0x9e37_79b1) & !7 | (number % 11 / 10),
                length: 48 + number % 2000,
            },
        }
    }

    /// Enough for several blocks, with transactions that write the key more than once.
    fn versions() -> Vec<Version> {
        let main = |number: i64| 10 + number * (number + 2);
        (0..300)
            .flat_map(|number| (0..=u32::from(number % 9 == 0)).map(move |sub| version(main(number), sub)))
            .collect()
    }

    fn unpacked(history: &History, from: i64) -> Vec<Version> {
        let mut out = Vec::new();
        history.unpack(from, &mut out);
        out
    }

    #[test]
    fn packed_versions_are_what_was_put_in() {
        let all = versions();
        let history = History::pack(&all).unwrap();
        assert!(history.blocks().len() > 3, "several blocks");
        assert_eq!(unpacked(&history, 0), all);
        assert_eq!(history.newest(), *all.last().unwrap());
        for one in &all {
            assert_eq!(history.find((one.main, one.sub)), Some(*one));
        }
        assert_eq!(history.find((11, 0)), None);
        assert_eq!(history.find((10, 7)), None);
        for revision in 0..all[320].main {
            assert_eq!(history.at(revision), at(&all, revision).copied(), "{revision}");
        }
    }

    #[test]
    fn what_was_there_before_a_revision_is_unpacked_with_what_came_after() {
        let all = versions();
        let history = History::pack(&all).unwrap();
        let last = all.last().unwrap().main;
        for from in 0..last + 10 {
            let out = unpacked(&history, from);
            assert!(all.ends_with(&out));
            let before = all.iter().rfind(|version| version.main < from);
            assert!(before.is_none_or(|before| out.contains(before)), "{from}");
        }
        assert!(unpacked(&history, last).len() < 10, "one block and the newest");
    }

    #[test]
    fn versions_may_come_in_any_order() {
        let all = versions();
        let sorted = History::pack(&all).unwrap();
        // Three runs, each in order, as segments that were copied have them.
        let runs = [200..310, 90..200, 0..90, 310..all.len()];
        let mut history: Option<History> = None;
        for one in runs.into_iter().flat_map(|run| &all[run]) {
            match &mut history {
                Some(history) => history.enter(*one),
                none => *none = Some(History::new(*one)),
            }
        }
        let history = history.unwrap();
        assert_eq!(unpacked(&history, 0), all);
        assert!(history.blocks().len() <= sorted.blocks().len() + 3, "full blocks");
        let mut scattered = History::new(all[7]);
        for number in 1..all.len() {
            scattered.enter(all[(7 + number * 131) % all.len()]);
        }
        assert_eq!(unpacked(&scattered, 0), all);
    }

    #[test]
    fn what_does_not_fit_into_the_short_form_is_kept() {
        let plain = Version {
            lease: 0,
            version: 3,
            create: 900,
            ..version(1000, 2)
        };
        let large = i64::from(u32::MAX);
        for newest in [
            plain,
            Version { lease: -1, ..plain },
            Version {
                version: large + 1,
                ..plain
            },
            Version {
                version: large,
                ..plain
            },
            Version {
                create: 1000 - large,
                ..plain
            },
            Version {
                create: 1001 - large,
                ..plain
            },
            Version {
                create: 1001,
                ..plain
            },
            Version {
                version: 0,
                create: 0,
                main: large * 2,
                ..plain
            },
            Version {
                main: i64::MAX,
                create: i64::MIN,
                ..plain
            },
        ] {
            assert_eq!(History::new(newest).newest(), newest);
            let mut history = History::new(Version {
                main: 1,
                create: 1,
                lease: 5,
                ..plain
            });
            history.push(newest);
            assert_eq!(history.newest(), newest, "after one with a lease");
        }
        assert_eq!(size_of::<History>(), 40);
    }

    #[test]
    fn a_version_moves_only_from_where_it_is_said_to_be() {
        let mut all = versions();
        let mut history = History::pack(&all).unwrap();
        let to = |number: usize| Loc {
            segment: 77,
            offset: number as u32 * 8,
            length: 99,
        };
        for (number, one) in all.iter_mut().enumerate() {
            let elsewhere = Version {
                loc: to(5000),
                ..*one
            };
            assert!(!history.relocate(&elsewhere, to(number)));
            assert!(history.relocate(one, to(number)));
            one.loc = to(number);
        }
        assert_eq!(unpacked(&history, 0), all);
        assert!(!history.relocate(&version(11, 0), to(0)));
    }

    #[test]
    fn compaction_drops_the_same_from_packed_versions() {
        let all = versions();
        for revision in (0..all[299].main + 2)
            .step_by(97)
            .chain([all[150].main, all[320].main])
        {
            let mut history = History::pack(&all).unwrap();
            let mut dropped = Vec::new();
            assert!(history.compact(revision, |version| dropped.push(*version)));
            let gone = dropped_by(&all, revision);
            assert_eq!(
                (&dropped[..], unpacked(&history, 0)),
                (&all[..gone], all[gone..].to_vec())
            );
        }
        let tombstone = Version { version: 0, ..all[0] };
        let mut dropped = 0;
        assert!(!History::new(tombstone).compact(tombstone.main + 1, |_| dropped += 1));
        assert_eq!(dropped, 1);
    }

    #[test]
    fn an_older_version_takes_less_than_half_of_a_new_one() {
        let plain = |main| Version {
            lease: 0,
            create: main - 30_000,
            loc: Loc {
                offset: main as u32 * 8,
                ..version(main, 0).loc
            },
            ..version(main, 0)
        };
        let mut history = History::new(plain(1_000_000));
        (1..1000).for_each(|number| history.push(plain(1_000_000 + number * 100)));
        let bytes = history.blocks().len() * (size_of::<Block>() + size_of::<Box<Block>>());
        assert!(bytes / 999 * 2 < size_of::<Version>(), "{} bytes", bytes / 999);
    }

    #[test]
    fn the_largest_version_fits_into_a_block() {
        let large = |main| Version {
            main,
            create: i64::MIN,
            version: i64::MAX,
            lease: i64::MAX,
            sub: u32::MAX,
            loc: Loc {
                segment: u32::MAX,
                offset: u32::MAX,
                length: u32::MAX,
            },
        };
        let all = [large(i64::MAX - 2), large(i64::MAX - 1), large(i64::MAX)];
        assert_eq!(unpacked(&History::pack(&all).unwrap(), 0), all);
    }
}
