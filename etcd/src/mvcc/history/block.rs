//! A stretch of versions in bytes of one size, with all that is needed to read them: the first stands whole, the others count from it.

use bytes::BufMut as _;
use prost::encoding::{decode_varint, encode_varint};

use crate::storage::record::{Loc, Version};

/// Together with their count 64 bytes, the line of a processor's cache. A version takes about 14 of them, and never more than 59.
const BLOCK_BYTES: usize = 63;
/// Records begin at multiples of eight: turned by so many bits an offset is a small number.
const OFFSET_ZEROS: u32 = 3;

const HAS_SUB: u8 = 1;
const HAS_LEASE: u8 = 2;

#[derive(Debug)]
pub struct Block {
    length: u8,
    bytes: [u8; BLOCK_BYTES],
}

impl Block {
    pub fn new(version: &Version) -> Block {
        let mut block = Block {
            length: 0,
            bytes: [0; BLOCK_BYTES],
        };
        block.push(version);
        block
    }

    /// False when there is no room.
    pub fn push(&mut self, version: &Version) -> bool {
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
    pub fn first(&self) -> i64 {
        decode_varint(&mut &self.bytes[1..]).unwrap_or_default() as i64
    }

    pub fn versions(&self) -> impl Iterator<Item = Version> {
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
