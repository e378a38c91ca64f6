//! One segment of the store: its file, and how much of it is still alive.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::damage::{self, Damage};
use super::record::{self, Version};
use crate::disk::DiskFile;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Written by the apply thread, in order; carries meta and the consistent index.
    Log,
    /// Survivors of reclaimed segments.
    Reclaimed,
}

pub struct Segment {
    pub number: u32,
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
    pub origin: Origin,
    used: AtomicU64,
    /// Signed: a copy may be discounted a moment before it is counted.
    live: AtomicI64,
    /// Bytes of tombstones that the index dropped: dead, but kept as long as an older dead put exists elsewhere.
    pinned: AtomicU64,
    newest_pinned: AtomicI64,
    oldest_dead_put: AtomicI64,
    /// Offset of the footer; 0 while there is none.
    footer: AtomicU64,
    closed: AtomicBool,
    damage: OnceLock<Damage>,
}

impl Segment {
    pub fn new(number: u32, path: PathBuf, file: Arc<dyn DiskFile>, origin: Origin, used: u64) -> Self {
        Segment {
            number,
            path,
            file,
            origin,
            used: AtomicU64::new(used),
            live: AtomicI64::new(0),
            pinned: AtomicU64::new(0),
            newest_pinned: AtomicI64::new(0),
            oldest_dead_put: AtomicI64::new(i64::MAX),
            footer: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            damage: OnceLock::new(),
        }
    }

    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    pub fn set_used(&self, used: u64) {
        self.used.store(used, Ordering::Release);
    }

    pub fn live(&self) -> u64 {
        self.live.load(Ordering::Relaxed).max(0) as u64
    }

    pub fn pinned(&self) -> u64 {
        self.pinned.load(Ordering::Relaxed)
    }

    pub fn newest_pinned(&self) -> i64 {
        self.newest_pinned.load(Ordering::Relaxed)
    }

    pub fn oldest_dead_put(&self) -> i64 {
        self.oldest_dead_put.load(Ordering::Relaxed)
    }

    pub fn footer(&self) -> Option<u64> {
        Some(self.footer.load(Ordering::Acquire)).filter(|offset| *offset != 0)
    }

    pub fn set_footer(&self, offset: u64) {
        self.footer.store(offset, Ordering::Release);
    }

    /// No frame will be added.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub fn count(&self, version: &Version) {
        self.live.fetch_add(version.loc.length.into(), Ordering::Relaxed);
    }

    /// The index let go of a version in this segment that it had counted.
    pub fn discount(&self, version: &Version) {
        self.live.fetch_sub(version.loc.length.into(), Ordering::Relaxed);
        self.bury(version);
    }

    /// A dead record that was never counted, found at load or copied while it was pinned.
    pub fn bury(&self, version: &Version) {
        if version.is_tombstone() {
            self.pinned
                .fetch_add(version.loc.length.into(), Ordering::Relaxed);
            self.newest_pinned.fetch_max(version.main, Ordering::Relaxed);
        } else {
            self.oldest_dead_put.fetch_min(version.main, Ordering::Relaxed);
        }
    }

    /// Fills `buffer` from `offset`.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file
            .read_at(buffer, offset)
            .map_err(|source| match damage::is_lost(&source) {
                true => self.damaged(offset, &source.to_string()),
                false => source,
            })
    }

    /// Checks a whole record that was read from `offset`.
    pub fn check(&self, record: &[u8], offset: u32) -> io::Result<()> {
        record::check(record).map_err(|what| self.note(offset.into(), what, record))
    }

    pub fn damaged(&self, offset: u64, what: &str) -> io::Error {
        self.note(offset, what, &[])
    }

    fn note(&self, offset: u64, what: &str, record: &[u8]) -> io::Error {
        let damage = Damage {
            file: self.path.clone(),
            offset,
            what: what.to_owned(),
        };
        if self.damage.set(damage.clone()).is_ok() {
            damage.report(record);
        }
        damage.into()
    }

    /// What was found first in it that does not check.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.get()
    }
}

pub fn name(number: u32) -> String {
    format!("{number:016x}.seg")
}

pub fn parse_name(name: &str) -> Option<u32> {
    u32::from_str_radix(name.strip_suffix(".seg")?, 16).ok()
}
