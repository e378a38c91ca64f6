//! Records and frames: encoding and checking, no IO.

use bytes::{BufMut as _, BytesMut};

pub const SEGMENT_HEADER_BYTES: usize = 64;
pub const FRAME_HEADER_BYTES: usize = 32;
pub const RECORD_HEADER_BYTES: usize = 48;
pub const ALIGNMENT: usize = 8;
const SEGMENT_MAGIC: [u8; 5] = *b"FKSEG";
pub const VERSION: u8 = 1;

/// Where a record lies: its header is at `offset`, `length` counts header and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Loc {
    pub segment: u32,
    pub offset: u32,
    pub length: u32,
}

/// One version of a key, as the index keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    pub main: i64,
    pub create: i64,
    /// How many puts since creation; 0 is a tombstone.
    pub version: i64,
    pub lease: i64,
    pub sub: u32,
    pub loc: Loc,
}

impl Version {
    pub fn is_tombstone(&self) -> bool {
        self.version == 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Put,
    Tombstone,
    MetaPut,
    MetaDelete,
    /// All meta before this is void; a segment's first frame begins with it.
    MetaReset,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        [
            Kind::Put,
            Kind::Tombstone,
            Kind::MetaPut,
            Kind::MetaDelete,
            Kind::MetaReset,
        ]
        .get(byte.wrapping_sub(1) as usize)
        .copied()
    }

    fn to_byte(self) -> u8 {
        self as u8 + 1
    }
}

/// What stands before a record's body.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub kind: Kind,
    pub sub: u32,
    pub main: i64,
    pub create: i64,
    pub version: i64,
    pub lease: i64,
}

/// Begins a record in `out`; the body follows, then [`finish`].
pub fn begin(out: &mut BytesMut, header: &Header) -> usize {
    let start = out.len();
    out.put_u64_le(0);
    out.put_u32_le(header.kind.to_byte().into());
    out.put_u32_le(header.sub);
    out.put_i64_le(header.main);
    out.put_i64_le(header.create);
    out.put_i64_le(header.version);
    out.put_i64_le(header.lease);
    start
}

/// Writes length and checksum of the record that began at `start`, and pads. Returns the length without padding.
pub fn finish(out: &mut BytesMut, start: usize) -> u32 {
    let length = out.len() - start;
    let body = (length - RECORD_HEADER_BYTES) as u32;
    out[start + 4..start + 8].copy_from_slice(&body.to_le_bytes());
    let check = crc32c::crc32c(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&check.to_le_bytes());
    pad(out);
    length as u32
}

pub fn pad(out: &mut BytesMut) {
    let padded = out.len().next_multiple_of(ALIGNMENT);
    out.resize(padded, 0);
}

/// Checks a whole record.
pub fn check(record: &[u8]) -> Result<(), &'static str> {
    if record.len() < RECORD_HEADER_BYTES || u32_at(record, 4) as usize != record.len() - RECORD_HEADER_BYTES
    {
        return Err("a record whose length does not match");
    }
    if crc32c::crc32c(&record[4..]) != u32_at(record, 0) {
        return Err("a record whose checksum does not match");
    }
    Ok(())
}

/// The header of the record at the start of `bytes`, and the record's length without padding.
pub fn decode(bytes: &[u8]) -> Option<(Header, usize)> {
    let header = decode_header(bytes)?;
    let length = RECORD_HEADER_BYTES + u32_at(bytes, 4) as usize;
    (length <= bytes.len()).then_some((header, length))
}

/// A record header alone.
pub fn decode_header(bytes: &[u8]) -> Option<Header> {
    if bytes.len() < RECORD_HEADER_BYTES {
        return None;
    }
    Some(Header {
        kind: Kind::from_byte(bytes[8])?,
        sub: u32_at(bytes, 12),
        main: i64_at(bytes, 16),
        create: i64_at(bytes, 24),
        version: i64_at(bytes, 32),
        lease: i64_at(bytes, 40),
    })
}

impl Header {
    pub fn version_at(&self, loc: Loc) -> Version {
        Version {
            main: self.main,
            create: self.create,
            version: self.version,
            lease: self.lease,
            sub: self.sub,
            loc,
        }
    }
}

/// The key of an encoded KeyValue, which begins with it; None when the bytes are none.
pub fn key_of(kv: &[u8]) -> Option<&[u8]> {
    let (tag, rest) = kv.split_first()?;
    if *tag != 0x0a {
        return None;
    }
    let mut rest = rest;
    let length = prost::encoding::decode_varint(&mut rest).ok()? as usize;
    rest.get(..length)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FrameHeader {
    pub index: u64,
    pub term: u64,
    pub revision: i64,
}

/// Begins a frame in an empty buffer.
pub fn begin_frame(out: &mut BytesMut) {
    out.put_bytes(0, FRAME_HEADER_BYTES);
}

pub fn finish_frame(out: &mut BytesMut, header: FrameHeader) {
    let length = (out.len() - FRAME_HEADER_BYTES) as u32;
    out[..4].copy_from_slice(&length.to_le_bytes());
    out[8..16].copy_from_slice(&header.index.to_le_bytes());
    out[16..24].copy_from_slice(&header.term.to_le_bytes());
    out[24..32].copy_from_slice(&header.revision.to_le_bytes());
    let check = crc32c::crc32c(&out[8..]);
    out[4..8].copy_from_slice(&check.to_le_bytes());
}

/// How long the frame is whose header begins `bytes`, as far as that can be believed.
pub fn frame_len(bytes: &[u8]) -> usize {
    let payload = bytes
        .get(..FRAME_HEADER_BYTES)
        .map_or(0, |header| u32_at(header, 0));
    FRAME_HEADER_BYTES + payload as usize
}

/// A frame at the start of `bytes`: its header and payload, None at the end or where it does not check.
pub fn decode_frame(bytes: &[u8]) -> Option<(FrameHeader, &[u8])> {
    if bytes.len() < FRAME_HEADER_BYTES {
        return None;
    }
    let length = u32_at(bytes, 0) as usize;
    let frame = bytes.get(8..FRAME_HEADER_BYTES + length)?;
    if length == 0 || crc32c::crc32c(frame) != u32_at(bytes, 4) {
        return None;
    }
    let header = FrameHeader {
        index: i64_at(bytes, 8) as u64,
        term: i64_at(bytes, 16) as u64,
        revision: i64_at(bytes, 24),
    };
    Some((header, &bytes[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + length]))
}

pub fn segment_header(number: u32, cluster: u64) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    bytes[..5].copy_from_slice(&SEGMENT_MAGIC);
    bytes[7] = VERSION;
    bytes[8..16].copy_from_slice(&u64::from(number).to_le_bytes());
    bytes[16..24].copy_from_slice(&cluster.to_le_bytes());
    let check = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&check.to_le_bytes());
    bytes
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

pub fn i64_at(bytes: &[u8], at: usize) -> i64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    i64::from_le_bytes(eight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_whole_or_nothing() {
        let mut out = BytesMut::new();
        begin_frame(&mut out);
        let header = Header {
            kind: Kind::Put,
            sub: 2,
            main: 5,
            create: 4,
            version: 3,
            lease: 1,
        };
        let start = begin(&mut out, &header);
        out.put_slice(b"\x0a\x03key");
        finish(&mut out, start);
        finish_frame(
            &mut out,
            FrameHeader {
                index: 9,
                term: 2,
                revision: 5,
            },
        );
        let (frame, payload) = decode_frame(&out).unwrap();
        assert_eq!((frame.index, frame.revision), (9, 5));
        let (record, length) = decode(payload).unwrap();
        assert_eq!((record.main, record.sub, record.kind), (5, 2, Kind::Put));
        check(&payload[..length]).unwrap();
        assert_eq!(key_of(&payload[RECORD_HEADER_BYTES..length]), Some(&b"key"[..]));
        for place in 8..out.len() {
            out[place] ^= 1;
            assert!(decode_frame(&out).is_none());
            out[place] ^= 1;
        }
    }
}
