//! The raft log on disk: what is acknowledged is in here, durable, before the answer leaves.
//!
//! A [`Group`] collects the records of all proposals that wait; [`Wal::append`] writes it at once and syncs it. [`Wal::open`]
//! reads everything back ([`reader`]), cuts a torn tail and refuses anything else that does not check. Segments are prepared
//! ahead by a [`SpareJob`], run wherever the caller likes. The layout is in `docs/format.md`, and in [`format`].

pub mod format;
pub mod past;
pub mod reader;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::disk::{self, Disk, DiskFile, Fill};
use crate::metrics;
use format::{Group, Ids, SEGMENT_HEADER_BYTES, SegmentHeader};
use past::Past;
use reader::Replay;

/// Size of a segment; a larger group gets a larger segment of its own.
pub const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// A spare is prepared once this share of the current segment is used.
const SPARE_AT: u64 = 4;
pub const SPARE_NAME: &str = "spare.tmp";

#[derive(Debug, thiserror::Error)]
pub enum WalError {
    #[error("{file}: corrupt at offset {offset}: {what}; what was acknowledged may be lost here, so this member does not start: remove the member and add it again, or restore a snapshot into a new data directory", file = file.display())]
    Corrupt {
        file: PathBuf,
        offset: u64,
        what: String,
    },
    #[error("{}: segment {missing} of the log is missing between others; put the file back, or restore a snapshot into a new data directory", dir.display())]
    Missing { dir: PathBuf, missing: u64 },
    #[error("{file}: the log belongs to cluster {found_cluster:x} member {found_member:x}, expected cluster {cluster:x} member {member:x}; the data directory is another member's", file = file.display())]
    Foreign {
        file: PathBuf,
        found_cluster: u64,
        found_member: u64,
        cluster: u64,
        member: u64,
    },
    #[error("{file}: written in log format {found}, this version reads format {known}; use the version that wrote it", file = file.display(), known = format::VERSION)]
    Version { file: PathBuf, found: u32 },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl WalError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> WalError + '_ {
        move |source| WalError::Io {
            path: path.to_owned(),
            source,
        }
    }
}

pub struct Wal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    ids: Ids,
    segment_bytes: u64,
    current: Current,
    /// Older segments, each with the highest entry index that was written while it was current.
    sealed: Arc<Mutex<Vec<Sealed>>>,
    spare: Spare,
    sequence: u64,
    chain: u32,
    last_index: u64,
    /// The segments that hold the newest hard state and the newest snapshot record; 0 as long as this process has written none.
    hard_state_in: u64,
    snapshot_in: u64,
}

struct Current {
    number: u64,
    file: Arc<dyn DiskFile>,
    size: u64,
    offset: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Sealed {
    number: u64,
    last_index: u64,
}

enum Spare {
    Wanted,
    Preparing,
    Ready(Arc<dyn DiskFile>),
}

/// Prepares the next segment; runs beside the appends.
pub struct SpareJob {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    size: u64,
}

impl SpareJob {
    pub fn run(&self) -> io::Result<Arc<dyn DiskFile>> {
        disk::remove_if_there(&*self.disk, &self.path)?;
        self.disk.create(&self.path, self.size, Fill::Zeroes)
    }
}

impl Wal {
    /// Begins a log in an empty directory.
    pub fn create(disk: Arc<dyn Disk>, dir: &Path, ids: Ids, segment_bytes: u64) -> Result<Wal, WalError> {
        disk.create_dir(dir).map_err(WalError::io(dir))?;
        let path = dir.join(SPARE_NAME);
        disk::remove_if_there(&*disk, &path).map_err(WalError::io(&path))?;
        let file = disk
            .create(&path, segment_bytes, Fill::Zeroes)
            .map_err(WalError::io(dir))?;
        let current = install(
            &*disk,
            dir,
            file,
            SegmentHeader {
                number: 1,
                ids,
                first_sequence: 1,
                chain: 0,
            },
        )
        .map_err(WalError::io(dir))?;
        Ok(Wal {
            disk,
            dir: dir.to_owned(),
            ids,
            segment_bytes,
            current,
            sealed: Arc::default(),
            spare: Spare::Wanted,
            sequence: 0,
            chain: 0,
            last_index: 0,
            hard_state_in: 0,
            snapshot_in: 0,
        })
    }

    /// Reads the log of member `ids`; a torn tail is cut off.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        ids: Ids,
        segment_bytes: u64,
    ) -> Result<(Wal, Replay), WalError> {
        let (replay, position) = reader::read(&*disk, dir, ids)?;
        // A process that was killed may have left what it had not synced: now it counts, and must not go with the power.
        position.file.sync().map_err(WalError::io(dir))?;
        disk.sync_dir(dir).map_err(WalError::io(dir))?;
        let current = Current {
            number: position.number,
            size: position.size,
            offset: position.offset,
            file: position.file,
        };
        let sealed = position
            .sealed
            .into_iter()
            .map(|(number, last_index)| Sealed { number, last_index })
            .collect();
        let last_index = replay.last_index();
        let wal = Wal {
            disk,
            dir: dir.to_owned(),
            ids,
            segment_bytes,
            current,
            sealed: Arc::new(Mutex::new(sealed)),
            spare: Spare::Wanted,
            sequence: position.sequence,
            chain: position.chain,
            last_index,
            hard_state_in: 0,
            snapshot_in: 0,
        };
        Ok((wal, replay))
    }

    /// Whose log `dir` holds; None when there is none.
    pub fn identify(disk: &dyn Disk, dir: &Path) -> Result<Option<Ids>, WalError> {
        let names = match disk.list(dir) {
            Ok(names) => names,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(WalError::Io {
                    path: dir.to_owned(),
                    source,
                });
            }
        };
        match names.iter().find(|name| format::parse_name(name).is_some()) {
            Some(name) => reader::identify(disk, &dir.join(name)).map(Some),
            None => Ok(None),
        }
    }

    /// Writes the group and syncs it; afterwards it is durable. On a full disk nothing was written, and the group may be offered again.
    pub fn append(&mut self, group: &mut Group) -> io::Result<()> {
        if group.is_empty() {
            return Ok(());
        }
        let chain = group.seal(self.sequence + 1, self.chain);
        self.make_room(group.bytes().len() as u64)?;
        let start = Instant::now();
        self.current.file.write_at(group.bytes(), self.current.offset)?;
        let written = start.elapsed();
        self.current.file.sync()?;
        metrics::WAL_WRITE.observe(written.as_secs_f64());
        metrics::WAL_FSYNC.observe((start.elapsed() - written).as_secs_f64());
        metrics::WAL_BYTES.add(group.bytes().len() as f64);
        self.current.offset += group.bytes().len() as u64;
        self.sequence += 1;
        self.chain = chain;
        self.last_index = group.last_index().unwrap_or(self.last_index);
        if group.has_hard_state() {
            self.hard_state_in = self.current.number;
        }
        if group.has_snapshot() {
            self.snapshot_in = self.current.number;
        }
        Ok(())
    }

    fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        if self.current.offset + bytes <= self.current.size {
            return Ok(());
        }
        self.roll(bytes)
    }

    fn roll(&mut self, bytes: u64) -> io::Result<()> {
        let needed = bytes + SEGMENT_HEADER_BYTES as u64;
        let file = match std::mem::replace(&mut self.spare, Spare::Wanted) {
            Spare::Ready(file) if needed <= self.segment_bytes => file,
            _ => self.fresh(needed.max(self.segment_bytes))?,
        };
        let header = SegmentHeader {
            number: self.current.number + 1,
            ids: self.ids,
            first_sequence: self.sequence + 1,
            chain: self.chain,
        };
        let next = install(&*self.disk, &self.dir, file, header)?;
        self.sealed.lock().push(Sealed {
            number: self.current.number,
            last_index: self.last_index,
        });
        self.current = next;
        Ok(())
    }

    fn fresh(&self, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.dir.join(SPARE_NAME);
        disk::remove_if_there(&*self.disk, &path)?;
        self.disk.create(&path, size, Fill::Zeroes)
    }

    /// Work to be done beside the appends, if there is any; its result goes to [`Wal::spare_done`].
    pub fn spare_job(&mut self) -> Option<SpareJob> {
        if !matches!(self.spare, Spare::Wanted) || self.current.offset < self.segment_bytes / SPARE_AT {
            return None;
        }
        self.spare = Spare::Preparing;
        Some(SpareJob {
            disk: self.disk.clone(),
            path: self.dir.join(SPARE_NAME),
            size: self.segment_bytes,
        })
    }

    pub fn spare_done(&mut self, result: io::Result<Arc<dyn DiskFile>>) -> io::Result<()> {
        // A roll that could not wait made its own segment from the same file.
        if !matches!(self.spare, Spare::Preparing) {
            return Ok(());
        }
        match result {
            Ok(file) => self.spare = Spare::Ready(file),
            Err(error) => {
                self.spare = Spare::Wanted;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Waits for a spare that is being made before rolling without it would race for its name.
    pub fn must_wait_for_spare(&self, bytes: usize) -> bool {
        matches!(self.spare, Spare::Preparing)
            && self.current.offset + bytes as u64 + format::GROUP_HEADER_BYTES as u64 > self.current.size
    }

    /// Bytes that can still be appended without new space on the disk.
    pub fn headroom(&self) -> u64 {
        let spare = if matches!(self.spare, Spare::Ready(_)) {
            self.segment_bytes
        } else {
            0
        };
        self.current.size.saturating_sub(self.current.offset) + spare
    }

    /// Removes segments that hold nothing beyond `index`, which the store and a snapshot record must cover durably; so many of the last stay for
    /// members that are behind, and whatever comes after the newest hard state or snapshot record. Returns up to where entries are gone.
    pub fn release(&mut self, index: u64, kept: usize) -> io::Result<Option<u64>> {
        let needed = self.hard_state_in.min(self.snapshot_in);
        let mut gone = None;
        loop {
            let sealed = self.sealed.lock();
            let first = sealed
                .first()
                .filter(|first| first.last_index <= index && first.number < needed);
            let Some(first) = first.filter(|_| sealed.len() > kept) else {
                return Ok(gone);
            };
            let (number, last_index) = (first.number, first.last_index);
            // Whoever reads older entries looks here, and must not wait for the disk.
            drop(sealed);
            self.disk.remove(&self.dir.join(format::name(number)))?;
            self.sealed.lock().remove(0);
            gone = gone.max(Some(last_index));
        }
    }

    /// For whoever reads older entries while this goes on.
    pub fn past(&self) -> Past {
        Past::new(self.disk.clone(), &self.dir, self.ids, self.sealed.clone())
    }

    /// Of the last entry.
    pub fn last_index(&self) -> u64 {
        self.last_index
    }

    pub fn segments(&self) -> usize {
        self.sealed.lock().len() + 1
    }
}

/// Gives a prepared file its header and its name.
fn install(
    disk: &dyn Disk,
    dir: &Path,
    file: Arc<dyn DiskFile>,
    header: SegmentHeader,
) -> io::Result<Current> {
    let size = file.len()?;
    file.write_at(&header.encode(), 0)?;
    file.sync()?;
    disk.rename(&dir.join(SPARE_NAME), &dir.join(format::name(header.number)))?;
    disk.sync_dir(dir)?;
    Ok(Current {
        number: header.number,
        file,
        size,
        offset: SEGMENT_HEADER_BYTES as u64,
    })
}

#[cfg(test)]
mod tests;
