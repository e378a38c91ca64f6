//! The layout of segments and groups: encoding and checking, no IO.

use etcd_api::{raftpb, walpb};
use prost::Message as _;
use raft::eraftpb;

pub const SEGMENT_HEADER_BYTES: usize = 64;
pub const GROUP_HEADER_BYTES: usize = 24;
pub const VERSION: u32 = 1;
const SEGMENT_MAGIC: [u8; 5] = *b"FKWAL";
const GROUP_MAGIC: [u8; 4] = *b"FKWG";
const RECORD_HEADER_BYTES: usize = 5;
pub const ALIGNMENT: usize = 8;

const ENTRY: u8 = 1;
const HARD_STATE: u8 = 2;
const SNAPSHOT: u8 = 3;

/// Whose log it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    pub cluster: u64,
    pub member: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub number: u64,
    pub ids: Ids,
    pub first_sequence: u64,
    pub chain: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub enum HeaderError {
    Damaged,
    Version(u32),
}

pub fn name(number: u64) -> String {
    format!("{number:016x}.wal")
}

pub fn parse_name(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_suffix(".wal")?, 16).ok()
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..5].copy_from_slice(&SEGMENT_MAGIC);
        bytes[7] = VERSION as u8;
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.ids.cluster.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.ids.member.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first_sequence.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.chain.to_le_bytes());
        let check = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderError> {
        if bytes.len() < SEGMENT_HEADER_BYTES
            || bytes[..5] != SEGMENT_MAGIC
            || u32_at(bytes, 60) != crc32c::crc32c(&bytes[..60])
        {
            return Err(HeaderError::Damaged);
        }
        if u32::from(bytes[7]) != VERSION {
            return Err(HeaderError::Version(bytes[7].into()));
        }
        Ok(SegmentHeader {
            number: u64_at(bytes, 8),
            ids: Ids {
                cluster: u64_at(bytes, 16),
                member: u64_at(bytes, 24),
            },
            first_sequence: u64_at(bytes, 32),
            chain: u32_at(bytes, 40),
        })
    }
}

/// The records that one fdatasync will make durable. Reused from group to group.
#[derive(Default)]
pub struct Group {
    bytes: Vec<u8>,
    last_index: Option<u64>,
    has_hard_state: bool,
    has_snapshot: bool,
}

/// A buffer that grew beyond this for one large group is given back.
const KEPT_BYTES: usize = 1024 * 1024;

impl Group {
    pub fn clear(&mut self) {
        (self.last_index, self.has_hard_state, self.has_snapshot) = (None, false, false);
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.len() <= GROUP_HEADER_BYTES
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn last_index(&self) -> Option<u64> {
        self.last_index
    }

    pub fn has_hard_state(&self) -> bool {
        self.has_hard_state
    }

    pub fn has_snapshot(&self) -> bool {
        self.has_snapshot
    }

    /// raft's entries and etcd's share their encoding but for two fields that raft leaves empty here.
    pub fn entry(&mut self, entry: &eraftpb::Entry) {
        self.record(ENTRY, |bytes| {
            for (tag, value) in [(1, entry.entry_type as u64), (2, entry.term), (3, entry.index)] {
                prost::encoding::uint64::encode(tag, &value, bytes);
            }
            prost::encoding::encode_key(4, prost::encoding::WireType::LengthDelimited, bytes);
            prost::encoding::encode_varint(entry.data.len() as u64, bytes);
            bytes.extend_from_slice(&entry.data);
        });
        self.last_index = Some(entry.index);
    }

    pub fn hard_state(&mut self, state: &eraftpb::HardState) {
        let state = raftpb::HardState {
            term: state.term,
            vote: state.vote,
            commit: state.commit,
        };
        self.record(HARD_STATE, |bytes| state.encode_raw(bytes));
        self.has_hard_state = true;
    }

    pub fn snapshot(&mut self, snapshot: &walpb::Snapshot) {
        self.record(SNAPSHOT, |bytes| snapshot.encode_raw(bytes));
        self.has_snapshot = true;
    }

    fn record(&mut self, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
        if self.bytes.is_empty() {
            self.bytes.resize(GROUP_HEADER_BYTES, 0);
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[kind, 0, 0, 0, 0]);
        write(&mut self.bytes);
        let length = (self.bytes.len() - start - RECORD_HEADER_BYTES) as u32;
        self.bytes[start + 1..start + RECORD_HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
    }

    /// Pads and writes the header. Returns the chain value after this group. May be repeated for another place in the log.
    pub fn seal(&mut self, sequence: u64, chain: u32) -> u32 {
        let padded = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(padded, 0);
        let chain = crc32c::crc32c_append(chain, &self.bytes[GROUP_HEADER_BYTES..]);
        let length = (self.bytes.len() - GROUP_HEADER_BYTES) as u32;
        self.bytes[..4].copy_from_slice(&GROUP_MAGIC);
        self.bytes[4..8].copy_from_slice(&length.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&sequence.to_le_bytes());
        self.bytes[16..20].copy_from_slice(&chain.to_le_bytes());
        let check = crc32c::crc32c(&self.bytes[..20]);
        self.bytes[20..24].copy_from_slice(&check.to_le_bytes());
        chain
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    pub length: u32,
    pub sequence: u64,
    pub chain: u32,
}

impl GroupHeader {
    /// None when the bytes are no valid header.
    pub fn decode(bytes: &[u8]) -> Option<GroupHeader> {
        let bytes = bytes.get(..GROUP_HEADER_BYTES)?;
        if bytes[..4] != GROUP_MAGIC || crc32c::crc32c(&bytes[..20]) != u32_at(bytes, 20) {
            return None;
        }
        Some(GroupHeader {
            length: u32_at(bytes, 4),
            sequence: u64_at(bytes, 8),
            chain: u32_at(bytes, 16),
        })
    }
}

#[derive(Debug)]
pub enum Record {
    Entry(eraftpb::Entry),
    HardState(eraftpb::HardState),
    Snapshot(walpb::Snapshot),
}

/// The records of a group's payload; an error is the offset in the payload.
pub fn records(payload: &[u8]) -> Result<Vec<Record>, usize> {
    let mut out = Vec::new();
    let mut offset = 0;
    while payload.len() - offset >= RECORD_HEADER_BYTES && payload[offset] != 0 {
        let body_at = offset + RECORD_HEADER_BYTES;
        let body = payload
            .get(body_at..body_at + u32_at(payload, offset + 1) as usize)
            .ok_or(offset)?;
        out.push(decode(payload[offset], body).ok_or(offset)?);
        offset = body_at + body.len();
    }
    Ok(out)
}

fn decode(kind: u8, body: &[u8]) -> Option<Record> {
    match kind {
        ENTRY => raftpb::Entry::decode(body)
            .ok()
            .map(|entry| Record::Entry(entry_of(entry))),
        HARD_STATE => raftpb::HardState::decode(body).ok().map(|state| {
            let mut out = eraftpb::HardState::default();
            (out.term, out.vote, out.commit) = (state.term, state.vote, state.commit);
            Record::HardState(out)
        }),
        SNAPSHOT => walpb::Snapshot::decode(body).ok().map(Record::Snapshot),
        _ => None,
    }
}

fn entry_of(entry: raftpb::Entry) -> eraftpb::Entry {
    eraftpb::Entry {
        entry_type: entry.r#type,
        term: entry.term,
        index: entry.index,
        data: entry.data.unwrap_or_default(),
        ..Default::default()
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}
