//! A stretch of versions in bytes of one size, with all that is needed to read them: the first stands whole, the others count from it.

use bytes::BufMut as _;
use prost::encoding::{decode_varint, encode_varint};

use crate::storage::record::{Loc, Version};

/// What a version takes at most; most take about 14.
pub const MOST_BYTES: usize = 59;
/// Records begin at multiples of eight: turned by so many bits an offset is a small number.
const OFFSET_ZEROS: u32 = 3;

const HAS_SUB: u8 = 1;
const HAS_LEASE: u8 = 2;

#[derive(Debug)]
pub struct Block<const N: usize> {
    length: u8,
    bytes: [u8; N],
}

/// What a block holds, whatever its size.
#[derive(Clone, Copy)]
pub struct Stretch<'a>(&'a [u8]);

impl<const N: usize> Block<N> {
    pub const EMPTY: Self = Block {
        length: 0,
        bytes: [0; N],
    };

    /// False when there is no room.
    pub fn push(&mut self, version: &Version) -> bool {
        let mut encoded = [0; MOST_BYTES];
        let size = encode(version, self.stretch().first().unwrap_or(0), &mut encoded);
        let start = usize::from(self.length);
        let Some(room) = self.bytes.get_mut(start..start + size) else {
            return false;
        };
        room.copy_from_slice(&encoded[..size]);
        self.length += size as u8;
        true
    }

    pub fn stretch(&self) -> Stretch<'_> {
        Stretch(&self.bytes[..self.length.into()])
    }
}

impl<'a> Stretch<'a> {
    /// Main revision of its first version, which the others count from.
    pub fn first(self) -> Option<i64> {
        let mut number = self.0.get(1..)?;
        decode_varint(&mut number).ok().map(|main| main as i64)
    }

    pub fn versions(self) -> impl Iterator<Item = Version> + use<'a> {
        let mut rest = self.0;
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
fn encode(version: &Version, base: i64, out: &mut [u8; MOST_BYTES]) -> usize {
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
    MOST_BYTES - rest.len()
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
