//! Reading the log back: what is whole, what was torn by a crash, and what is corrupt.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use etcd_api::walpb;
use raft::eraftpb::{Entry, HardState};

use super::WalError;
use super::format::{
    self, ALIGNMENT, GROUP_HEADER_BYTES, GroupHeader, HeaderError, Ids, Record, SEGMENT_HEADER_BYTES,
    SegmentHeader,
};
use crate::disk::{Disk, DiskFile};

const SECTOR: usize = 512;

/// What the log says: the last snapshot record, the last hard state, and the entries after the snapshot.
#[derive(Debug, Default)]
pub struct Replay {
    pub snapshot: walpb::Snapshot,
    pub hard_state: HardState,
    pub entries: Vec<Entry>,
    /// Bytes of a torn tail that were cut off.
    pub torn_bytes: u64,
}

impl Replay {
    pub fn last_index(&self) -> u64 {
        self.entries
            .last()
            .map_or(self.snapshot.index, |entry| entry.index)
    }

    fn take(&mut self, record: Record) {
        match record {
            Record::HardState(state) => self.hard_state = state,
            Record::Snapshot(snapshot) => self.covered(snapshot),
            Record::Entry(entry) => self.entry(entry),
        }
    }

    /// A snapshot that came from another member takes the place of the whole log, unless the log held the same entry.
    pub fn covered(&mut self, snapshot: walpb::Snapshot) {
        let same = self
            .entries
            .iter()
            .find(|entry| entry.index == snapshot.index)
            .is_none_or(|entry| entry.term == snapshot.term);
        match same {
            true => self.entries.retain(|entry| entry.index > snapshot.index),
            false => self.entries.clear(),
        }
        self.snapshot = snapshot;
    }

    fn entry(&mut self, entry: Entry) {
        if entry.index <= self.snapshot.index {
            return;
        }
        let keep = self
            .entries
            .partition_point(|earlier| earlier.index < entry.index);
        self.entries.truncate(keep);
        self.entries.push(entry);
    }
}

/// Where the next group goes.
pub struct Position {
    pub number: u64,
    pub file: Arc<dyn DiskFile>,
    pub size: u64,
    pub offset: u64,
    pub sequence: u64,
    pub chain: u32,
    pub sealed: Vec<(u64, u64)>,
}

pub fn read(disk: &dyn Disk, dir: &Path, ids: Ids) -> Result<(Replay, Position), WalError> {
    let numbers = numbers(disk, dir)?;
    let mut replay = Replay::default();
    let mut sealed = Vec::new();
    let mut expected = None;
    for (place, number) in numbers.iter().enumerate() {
        let last = place + 1 == numbers.len();
        let mut segment = SegmentReader::open(disk, dir, *number, ids, expected, last)?;
        segment.read(&mut replay)?;
        expected = Some((segment.sequence, segment.chain));
        if last {
            return Ok((replay, segment.position(sealed)?));
        }
        sealed.push((*number, replay.last_index()));
    }
    Err(WalError::Missing {
        dir: dir.to_owned(),
        missing: 1,
    })
}

fn numbers(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>, WalError> {
    let names = disk.list(dir).map_err(WalError::io(dir))?;
    let numbers: Vec<u64> = names.iter().filter_map(|name| format::parse_name(name)).collect();
    match numbers.windows(2).find(|pair| pair[1] != pair[0] + 1) {
        Some(pair) => Err(WalError::Missing {
            dir: dir.to_owned(),
            missing: pair[0] + 1,
        }),
        None => Ok(numbers),
    }
}

/// Of the segment that is being written.
pub fn last_number(disk: &dyn Disk, dir: &Path) -> Result<u64, WalError> {
    let missing = || WalError::Missing {
        dir: dir.to_owned(),
        missing: 1,
    };
    numbers(disk, dir)?.last().copied().ok_or_else(missing)
}

struct SegmentReader {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    number: u64,
    bytes: Vec<u8>,
    offset: usize,
    sequence: u64,
    chain: u32,
    last: bool,
}

impl SegmentReader {
    fn open(
        disk: &dyn Disk,
        dir: &Path,
        number: u64,
        ids: Ids,
        expected: Option<(u64, u32)>,
        last: bool,
    ) -> Result<Self, WalError> {
        let path = dir.join(format::name(number));
        let file = disk.open(&path).map_err(WalError::io(&path))?;
        let mut bytes = vec![0; file.len().map_err(WalError::io(&path))? as usize];
        file.read_at(&mut bytes, 0).map_err(WalError::io(&path))?;
        let header = check_header(&path, &bytes, number, ids)?;
        let before = (header.first_sequence - 1, header.chain);
        if expected.is_some_and(|expected| expected != before) {
            let what = "the segment does not continue the one before it".to_owned();
            return Err(WalError::Corrupt {
                file: path,
                offset: 0,
                what,
            });
        }
        Ok(SegmentReader {
            path,
            file,
            number,
            bytes,
            offset: SEGMENT_HEADER_BYTES,
            sequence: before.0,
            chain: before.1,
            last,
        })
    }

    fn read(&mut self, replay: &mut Replay) -> Result<(), WalError> {
        while let Some(payload) = self.next_group(replay)? {
            let at = payload.start;
            let records = format::records(&self.bytes[payload])
                .map_err(|offset| self.corrupt(at + offset, "a record that cannot be decoded"))?;
            records.into_iter().for_each(|record| replay.take(record));
        }
        Ok(())
    }

    /// The payload of the next group; None at the end of the log or of a sealed segment.
    fn next_group(&mut self, replay: &mut Replay) -> Result<Option<std::ops::Range<usize>>, WalError> {
        let rest = &self.bytes[self.offset..];
        let Some(header) = GroupHeader::decode(rest) else {
            return self.end(replay);
        };
        let start = self.offset + GROUP_HEADER_BYTES;
        let end = start + header.length as usize;
        let whole = self
            .bytes
            .get(start..end)
            .is_some_and(|payload| crc32c::crc32c_append(self.chain, payload) == header.chain);
        if header.sequence != self.sequence + 1 {
            return Err(self.corrupt(
                self.offset,
                &format!(
                    "group {} stands where group {} is expected",
                    header.sequence,
                    self.sequence + 1
                ),
            ));
        }
        if !whole {
            return self.torn(end.min(self.bytes.len()), replay);
        }
        self.offset = end;
        self.sequence = header.sequence;
        self.chain = header.chain;
        Ok(Some(start..end))
    }

    /// No header here: the end of the log, unless something valid follows.
    fn end(&mut self, replay: &mut Replay) -> Result<Option<std::ops::Range<usize>>, WalError> {
        let rest = &self.bytes[self.offset..];
        let Some(last) = rest.iter().rposition(|byte| *byte != 0) else {
            return Ok(None);
        };
        if !self.last {
            return Err(self.corrupt(self.offset, "a group header that does not check"));
        }
        // A header may lie across two sectors.
        let end = self.offset + (last + 1).max(GROUP_HEADER_BYTES);
        self.torn(end.min(self.bytes.len()), replay)
    }

    /// A group that was being written when the power went: cut off. Anything else is corruption.
    fn torn(&mut self, end: usize, replay: &mut Replay) -> Result<Option<std::ops::Range<usize>>, WalError> {
        if !self.last {
            return Err(self.corrupt(
                self.offset,
                "a group whose checksum does not match, in a segment that later ones follow",
            ));
        }
        if let Some(later) = self.later_group() {
            return Err(self.corrupt(
                self.offset,
                &format!("a group whose checksum does not match, with a later group at {later}"),
            ));
        }
        if !self.has_unwritten_sector(end) {
            return Err(self.corrupt(
                self.offset,
                "a completely written group whose checksum does not match",
            ));
        }
        self.cut(end, replay)?;
        Ok(None)
    }

    fn later_group(&self) -> Option<usize> {
        let places =
            (self.offset + ALIGNMENT..self.bytes.len().saturating_sub(GROUP_HEADER_BYTES)).step_by(ALIGNMENT);
        places.into_iter().find(|place| {
            GroupHeader::decode(&self.bytes[*place..]).is_some_and(|header| header.sequence > self.sequence)
        })
    }

    /// Sectors of the group that still hold the zeros of preparation were never written.
    fn has_unwritten_sector(&self, end: usize) -> bool {
        let mut start = self.offset;
        while start < end {
            let stop = ((start / SECTOR) + 1) * SECTOR;
            if self.bytes[start..stop.min(end)].iter().all(|byte| *byte == 0) {
                return true;
            }
            start = stop;
        }
        false
    }

    fn cut(&mut self, end: usize, replay: &mut Replay) -> Result<(), WalError> {
        let zeroes = vec![0; end - self.offset];
        self.file
            .write_at(&zeroes, self.offset as u64)
            .map_err(WalError::io(&self.path))?;
        self.file.sync().map_err(WalError::io(&self.path))?;
        self.bytes[self.offset..end].fill(0);
        replay.torn_bytes += zeroes.len() as u64;
        Ok(())
    }

    fn corrupt(&self, offset: usize, what: &str) -> WalError {
        WalError::Corrupt {
            file: self.path.clone(),
            offset: offset as u64,
            what: what.to_owned(),
        }
    }

    fn position(self, sealed: Vec<(u64, u64)>) -> Result<Position, WalError> {
        Ok(Position {
            number: self.number,
            size: self.bytes.len() as u64,
            offset: self.offset as u64,
            file: self.file,
            sequence: self.sequence,
            chain: self.chain,
            sealed,
        })
    }
}

/// Whose log a segment belongs to.
pub fn identify(disk: &dyn Disk, path: &Path) -> Result<Ids, WalError> {
    let file = disk.open(path).map_err(WalError::io(path))?;
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    file.read_at(&mut bytes, 0).map_err(WalError::io(path))?;
    decode_header(path, &bytes).map(|header| header.ids)
}

fn decode_header(path: &Path, bytes: &[u8]) -> Result<SegmentHeader, WalError> {
    SegmentHeader::decode(bytes).map_err(|error| match error {
        HeaderError::Version(found) => WalError::Version {
            file: path.to_owned(),
            found,
        },
        HeaderError::Damaged => WalError::Corrupt {
            file: path.to_owned(),
            offset: 0,
            what: "the segment header does not check".to_owned(),
        },
    })
}

pub fn check_header(path: &Path, bytes: &[u8], number: u64, ids: Ids) -> Result<SegmentHeader, WalError> {
    let corrupt = |what: &str| WalError::Corrupt {
        file: path.to_owned(),
        offset: 0,
        what: what.to_owned(),
    };
    let header = decode_header(path, bytes)?;
    if header.ids != ids {
        let Ids {
            cluster: found_cluster,
            member: found_member,
        } = header.ids;
        return Err(WalError::Foreign {
            file: path.to_owned(),
            found_cluster,
            found_member,
            cluster: ids.cluster,
            member: ids.member,
        });
    }
    if header.number != number {
        return Err(corrupt("the file was renamed: its header bears another number"));
    }
    Ok(header)
}
