//! Entries read back from the log's files while the log goes on, for members that are far behind.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use raft::eraftpb::Entry;

use super::format::{self, GROUP_HEADER_BYTES, GroupHeader, Ids, Record, SEGMENT_HEADER_BYTES};
use super::{Sealed, WalError, reader};
use crate::disk::{Disk, DiskFile};
use crate::raft::older::Fetch;

/// Read at once.
const CHUNK_BYTES: u64 = 256 * 1024;
/// Members that read on, each from where it was.
const MAX_CURSORS: usize = 8;
/// What an entry counts for beside its data, as raft has it.
const ENTRY_BYTES: u64 = 16;

pub struct Past {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    ids: Ids,
    sealed: Arc<Mutex<Vec<Sealed>>>,
    cursors: Mutex<Vec<Cursor>>,
}

/// The group that the next entry is in, or a later one.
#[derive(Clone, Copy)]
struct Cursor {
    index: u64,
    number: u64,
    offset: u64,
    chain: u32,
}

impl Past {
    pub fn new(disk: Arc<dyn Disk>, dir: &Path, ids: Ids, sealed: Arc<Mutex<Vec<Sealed>>>) -> Past {
        Past {
            disk,
            dir: dir.to_owned(),
            ids,
            sealed,
            cursors: Mutex::default(),
        }
    }

    /// At least one entry, and as many as hold `max_bytes`.
    pub fn read(&self, fetch: &Fetch, max_bytes: u64) -> Result<Vec<Entry>, WalError> {
        let mut found = Found {
            fetch,
            max_bytes,
            bytes: 0,
            entries: Vec::new(),
        };
        let mut cursor = self.cursor(fetch.low)?;
        loop {
            let mut segment = self.open(&mut cursor)?;
            if segment.read(&mut cursor, &mut found)? {
                break;
            }
            // What the log still writes to has no successor.
            if self
                .sealed
                .lock()
                .last()
                .is_none_or(|last| last.number < cursor.number)
            {
                break;
            }
            cursor = self.start_of(cursor.number + 1);
        }
        let Some(last) = found.entries.last() else {
            return Err(WalError::Missing {
                dir: self.dir.clone(),
                missing: cursor.number,
            });
        };
        cursor.index = last.index + 1;
        self.remember(cursor);
        Ok(found.entries)
    }

    fn cursor(&self, low: u64) -> Result<Cursor, WalError> {
        let mut cursors = self.cursors.lock();
        if let Some(place) = cursors.iter().position(|cursor| cursor.index == low) {
            return Ok(cursors.swap_remove(place));
        }
        let sealed = self.sealed.lock();
        let first = sealed.iter().find(|segment| segment.last_index >= low);
        let number = match (first, sealed.last()) {
            (Some(segment), _) => segment.number,
            (None, Some(last)) => last.number + 1,
            (None, None) => reader::last_number(&*self.disk, &self.dir)?,
        };
        Ok(self.start_of(number))
    }

    fn start_of(&self, number: u64) -> Cursor {
        Cursor {
            index: 0,
            number,
            offset: 0,
            chain: 0,
        }
    }

    fn remember(&self, cursor: Cursor) {
        let mut cursors = self.cursors.lock();
        if cursors.len() == MAX_CURSORS {
            cursors.remove(0);
        }
        cursors.push(cursor);
    }

    fn open(&self, cursor: &mut Cursor) -> Result<Segment, WalError> {
        let path = self.dir.join(format::name(cursor.number));
        let file = self.disk.open(&path).map_err(WalError::io(&path))?;
        if cursor.offset == 0 {
            let mut bytes = [0; SEGMENT_HEADER_BYTES];
            file.read_at(&mut bytes, 0).map_err(WalError::io(&path))?;
            cursor.chain = reader::check_header(&path, &bytes, cursor.number, self.ids)?.chain;
            cursor.offset = SEGMENT_HEADER_BYTES as u64;
        }
        let len = file.len().map_err(WalError::io(&path))?;
        Ok(Segment {
            path,
            file,
            len,
            start: 0,
            bytes: Vec::new(),
        })
    }
}

struct Found<'a> {
    fetch: &'a Fetch,
    max_bytes: u64,
    bytes: u64,
    entries: Vec<Entry>,
}

impl Found<'_> {
    /// False when no more is wanted. What has another term was superseded.
    fn take(&mut self, entry: Entry) -> bool {
        let next = self.fetch.low + self.entries.len() as u64;
        if entry.index != next || self.fetch.term(next) != Some(entry.term) {
            return true;
        }
        let bytes = entry.data.len() as u64 + ENTRY_BYTES;
        if next >= self.fetch.high || (!self.entries.is_empty() && self.bytes + bytes > self.max_bytes) {
            return false;
        }
        self.bytes += bytes;
        self.entries.push(entry);
        next + 1 < self.fetch.high
    }
}

struct Segment {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    len: u64,
    /// Where `bytes` begin.
    start: u64,
    bytes: Vec<u8>,
}

impl Segment {
    /// True when no more is wanted; the cursor is at the group that the last entry was in.
    fn read(&mut self, cursor: &mut Cursor, found: &mut Found<'_>) -> Result<bool, WalError> {
        while let Some((chain, end)) = self.group(cursor)? {
            let at = (cursor.offset - self.start) as usize + GROUP_HEADER_BYTES;
            let payload = &self.bytes[at..(end - self.start) as usize];
            let records = format::records(payload).map_err(|offset| {
                self.corrupt(cursor.offset + offset as u64, "a record that cannot be decoded")
            })?;
            for record in records {
                if let Record::Entry(entry) = record
                    && !found.take(entry)
                {
                    return Ok(true);
                }
            }
            (cursor.offset, cursor.chain) = (end, chain);
        }
        Ok(false)
    }

    /// The chain after the group at the cursor, which is in `bytes` then, and where it ends; None at the end of what was written.
    fn group(&mut self, cursor: &Cursor) -> Result<Option<(u32, u64)>, WalError> {
        if !self.has(cursor.offset, GROUP_HEADER_BYTES as u64)? {
            return Ok(None);
        }
        let Some(header) = GroupHeader::decode(&self.bytes[(cursor.offset - self.start) as usize..]) else {
            return Ok(None);
        };
        let length = GROUP_HEADER_BYTES as u64 + u64::from(header.length);
        if !self.has(cursor.offset, length)? {
            return Ok(None);
        }
        let at = (cursor.offset - self.start) as usize;
        let payload = &self.bytes[at + GROUP_HEADER_BYTES..at + length as usize];
        match crc32c::crc32c_append(cursor.chain, payload) == header.chain {
            true => Ok(Some((header.chain, cursor.offset + length))),
            // It may be on its way to the disk just now.
            false => Ok(None),
        }
    }

    /// False when the file ends before.
    fn has(&mut self, offset: u64, length: u64) -> Result<bool, WalError> {
        if offset + length > self.len {
            return Ok(false);
        }
        if offset < self.start || offset + length > self.start + self.bytes.len() as u64 {
            let wanted = length.max(CHUNK_BYTES).min(self.len - offset);
            self.bytes.resize(wanted as usize, 0);
            self.start = offset;
            let read: io::Result<()> = self.file.read_at(&mut self.bytes, offset);
            read.map_err(WalError::io(&self.path))?;
        }
        Ok(true)
    }

    fn corrupt(&self, offset: u64, what: &str) -> WalError {
        WalError::Corrupt {
            file: self.path.clone(),
            offset,
            what: what.to_owned(),
        }
    }
}
