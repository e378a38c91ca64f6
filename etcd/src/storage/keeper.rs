//! What keeps the store durable and small, on a thread that no write waits for: syncs, footers, MANIFEST, reclaiming.

use std::io;
use std::ops::BitOrAssign;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{BufMut as _, BytesMut};
use parking_lot::{Condvar, Mutex};

use super::damage::Damage;
use super::load::{FOOTER_ITEM_BYTES, TRAILER_BYTES, TRAILER_MAGIC};
use super::manifest::{Durable, Item, Manifest};
use super::reclaim::{self, Liveness};
use super::record::{self, FRAME_HEADER_BYTES, FrameHeader, Kind, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use super::segment::{Origin, Segment};
use super::writer::Written;
use super::{Segments, Storage};
use crate::disk::{self, Fill};

pub struct Keeper {
    pub storage: Arc<Storage>,
    pub member: u64,
    pub written: Arc<Mutex<Written>>,
    pub index: Arc<dyn Liveness>,
    /// Highest log segment that is synced with all its frames.
    synced: u32,
    durable: Durable,
    /// What the last checkpoint knew of [`Storage::installed`].
    installed: u64,
}

/// Given up when the disk is so full that not even MANIFEST can be written: space could not be reclaimed otherwise.
pub const BALLAST: &str = "ballast";
const BALLAST_BYTES: u64 = 256 * 1024;
/// Of a segment that is read from one end to the other.
const WINDOW_BYTES: usize = 256 * 1024;

impl Keeper {
    pub fn new(
        storage: Arc<Storage>,
        member: u64,
        written: Arc<Mutex<Written>>,
        index: Arc<dyn Liveness>,
        durable: Durable,
    ) -> Self {
        let synced = durable.segment.saturating_sub(1);
        let installed = storage.installed.load(Ordering::SeqCst);
        Keeper {
            storage,
            member,
            written,
            index,
            synced,
            durable,
            installed,
        }
    }

    /// Makes everything written so far durable, and gives footers to closed segments. Returns up to where.
    pub fn checkpoint(&mut self) -> io::Result<FrameHeader> {
        let storage = self.storage.clone();
        let _structure = storage.structure.lock();
        let written = self.written.lock().clone();
        let segments = self.storage.segments();
        if storage.installed.load(Ordering::SeqCst) != self.installed {
            // An installed store may bear lower numbers than what the old one had written meanwhile.
            self.synced = 0;
        }
        for segment in segments
            .iter()
            .filter(|segment| self.needs_sync(segment, &written))
        {
            segment.file.sync()?;
        }
        // The newest segment in the manifest stays without a footer: it is the one to go on with.
        let closed = |segment: &&Arc<Segment>| {
            segment.is_closed() && segment.number < written.segment.number && segment.footer().is_none()
        };
        for segment in segments.iter().filter(closed) {
            match seal(segment) {
                // It stays as it is: a footer would hide from the next start that its frames do not check.
                Err(error) if Damage::of(&error).is_some() => {}
                sealed => sealed?,
            }
        }
        self.storage.disk.sync_dir(&self.storage.dir)?;
        let durable = Durable {
            segment: written.segment.number,
            offset: written.offset,
            index: written.frame.index,
        };
        let before = std::mem::replace(&mut self.durable, durable);
        if let Err(error) = self.write_manifest() {
            // What MANIFEST does not list goes at the next start.
            self.durable = before;
            return Err(error);
        }
        self.installed = storage.installed.load(Ordering::SeqCst);
        self.synced = written.segment.number.saturating_sub(1);
        Ok(written.frame)
    }

    /// Up to which entry of raft the store outlives a loss of power.
    pub fn durable_index(&self) -> u64 {
        self.durable.index
    }

    fn needs_sync(&self, segment: &Segment, written: &Written) -> bool {
        segment.origin == Origin::Log
            && segment.number > self.synced
            && segment.number <= written.segment.number
    }

    fn write_manifest(&mut self) -> io::Result<()> {
        let manifest = self.manifest();
        let (disk, dir) = (self.storage.disk.clone(), self.storage.dir.clone());
        match manifest.write(&*disk, &dir) {
            Err(error) if disk::is_full(&error) => {
                let Ok(ballast) = disk.open(&dir.join(BALLAST)) else {
                    return Err(error);
                };
                ballast.truncate(0)?;
                manifest.write(&*disk, &dir)?;
            }
            result => result?,
        }
        let mut doomed = self.storage.doomed.lock();
        for segment in doomed.drain(..) {
            crate::disk::remove_if_there(&*disk, &segment.path)?;
        }
        drop(doomed);
        self.load_ballast();
        Ok(())
    }

    /// Best effort: without ballast a full disk is only harder to leave.
    fn load_ballast(&self) {
        let (disk, path) = (&self.storage.disk, self.storage.dir.join(BALLAST));
        if disk
            .open(&path)
            .and_then(|file| file.len())
            .is_ok_and(|length| length == BALLAST_BYTES)
        {
            return;
        }
        disk.remove(&path).ok();
        disk.create(&path, BALLAST_BYTES, Fill::Reserve).ok();
    }

    fn manifest(&self) -> Manifest {
        let segments = self.storage.segments();
        let listed = |segment: &&Arc<Segment>| {
            segment.origin == Origin::Reclaimed || segment.number <= self.durable.segment
        };
        let items = segments.iter().filter(listed).map(|segment| Item {
            number: segment.number,
            origin: segment.origin,
            used: if segment.number == self.durable.segment {
                self.durable.offset
            } else {
                segment.used()
            },
            footer: segment.footer().unwrap_or(0),
        });
        Manifest {
            cluster: self.storage.cluster,
            member: self.member,
            items: items.collect(),
            durable: self.durable,
            installed: self.storage.installed.load(Ordering::SeqCst),
        }
    }

    /// Reclaims until nothing is worth it. Returns the bytes given back. A segment of which something lives that cannot be read stays as it is,
    /// and the others go on: what is damaged is neither lost nor copied.
    pub fn reclaim(&mut self) -> io::Result<u64> {
        let (mut freed, storage) = (0, self.storage.clone());
        let mut unreadable: Vec<u32> = Vec::new();
        loop {
            let _structure = storage.structure.lock();
            if storage.installed.load(Ordering::SeqCst) != self.installed {
                // The store was replaced: MANIFEST must first say where its log goes on.
                return Ok(freed);
            }
            let Some(victims) = self.victims(&unreadable) else {
                return Ok(freed);
            };
            match self.reclaim_some(&victims) {
                Err(error) if Damage::of(&error).is_some() => {
                    let damaged = victims.iter().filter(|victim| victim.damage().is_some());
                    unreadable.extend(damaged.map(|victim| victim.number));
                }
                given => freed += given?,
            }
        }
    }

    fn victims(&self, unreadable: &[u32]) -> Option<Vec<Arc<Segment>>> {
        let sealed = |segment: &&Arc<Segment>| {
            segment.footer().is_some() && self.is_durable(segment) && !unreadable.contains(&segment.number)
        };
        reclaim::choose(
            &self
                .storage
                .segments()
                .iter()
                .filter(sealed)
                .cloned()
                .collect::<Vec<_>>(),
            self.storage.segment_bytes,
        )
    }

    fn is_durable(&self, segment: &Segment) -> bool {
        segment.origin == Origin::Reclaimed || segment.number < self.durable.segment
    }

    fn reclaim_some(&mut self, victims: &[Arc<Segment>]) -> io::Result<u64> {
        let before: Segments = self.storage.segments();
        let copied = reclaim::copy(&self.storage, &before, victims, &*self.index)?;
        if let Some(copied) = &copied {
            self.storage.add(copied.segment.clone());
            copied.install(&*self.index);
        }
        let numbers: Vec<u32> = victims.iter().map(|segment| segment.number).collect();
        self.storage.remove(&numbers);
        self.storage.doomed.lock().extend(victims.iter().cloned());
        self.write_manifest()?;
        let given: u64 = victims.iter().map(|segment| segment.used()).sum();
        Ok(given.saturating_sub(copied.map_or(0, |copied| copied.segment.used())))
    }
}

/// Appends the footer to a closed segment and cuts off what was reserved and not used.
pub fn seal(segment: &Segment) -> io::Result<()> {
    let mut footer = BytesMut::new();
    let mut frames = Frames::new(segment);
    while let Some((start, payload)) = frames.next()? {
        footer_items(&mut footer, payload, start);
    }
    write_footer(segment, segment.used(), footer)
}

/// The frames of a segment, read through a window: a whole segment in memory would be most of what the process holds.
struct Frames<'a> {
    segment: &'a Segment,
    used: usize,
    /// Of the next frame.
    offset: usize,
    /// What the file holds from `offset` on, behind `seen` bytes that are done with.
    window: Vec<u8>,
    seen: usize,
}

impl Frames<'_> {
    fn new(segment: &Segment) -> Frames<'_> {
        Frames {
            segment,
            used: segment.used() as usize,
            offset: SEGMENT_HEADER_BYTES,
            window: Vec::new(),
            seen: 0,
        }
    }

    /// A payload and where it begins; None at the end.
    fn next(&mut self) -> io::Result<Option<(usize, &[u8])>> {
        if self.offset >= self.used {
            return Ok(None);
        }
        self.fill(FRAME_HEADER_BYTES)?;
        self.fill(record::frame_len(&self.window[self.seen..]))?;
        let Some((_, payload)) = record::decode_frame(&self.window[self.seen..]) else {
            return Err(self
                .segment
                .damaged(self.offset as u64, "a frame that does not check"));
        };
        let start = self.offset + FRAME_HEADER_BYTES;
        self.seen += FRAME_HEADER_BYTES + payload.len();
        self.offset = start + payload.len();
        Ok(Some((start, payload)))
    }

    /// So many bytes are in the window, unless the segment ends before.
    fn fill(&mut self, bytes: usize) -> io::Result<()> {
        if self.window.len() - self.seen >= bytes {
            return Ok(());
        }
        self.window.drain(..self.seen);
        self.seen = 0;
        let have = self.window.len();
        let wanted = bytes.max(WINDOW_BYTES).min(self.used - self.offset);
        self.window.resize(wanted.max(have), 0);
        let at = self.offset + have;
        self.segment.read_at(&mut self.window[have..], at as u64)
    }
}

pub fn write_footer(segment: &Segment, offset: u64, mut footer: BytesMut) -> io::Result<()> {
    let (length, check) = (footer.len() as u64, crc32c::crc32c(&footer));
    footer.put_u64_le(offset);
    footer.put_u64_le(length);
    footer.put_u32_le(check);
    footer.put_u32_le(0);
    footer.put_slice(&TRAILER_MAGIC);
    debug_assert_eq!(footer.len() as u64, length + TRAILER_BYTES as u64);
    segment.file.write_at(&footer, offset)?;
    segment.file.truncate(offset + footer.len() as u64)?;
    segment.file.sync()?;
    segment.set_footer(offset);
    Ok(())
}

fn footer_items(footer: &mut BytesMut, payload: &[u8], start: usize) {
    let mut at = 0;
    while let Some((header, length)) = record::decode(&payload[at.min(payload.len())..]) {
        if matches!(header.kind, Kind::Put | Kind::Tombstone) {
            append_footer_item(footer, &payload[at..at + length], (start + at) as u32);
        }
        at = (at + length).next_multiple_of(record::ALIGNMENT);
    }
}

pub fn append_footer_item(footer: &mut BytesMut, record: &[u8], offset: u32) {
    let key = record::key_of(&record[RECORD_HEADER_BYTES..]).unwrap_or_default();
    footer.reserve(FOOTER_ITEM_BYTES + key.len());
    footer.put_slice(&record[..RECORD_HEADER_BYTES]);
    footer.put_u32_le(offset);
    footer.put_u32_le(key.len() as u32);
    footer.put_slice(key);
}

/// What the keeper is asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub checkpoint: bool,
    pub reclaim: bool,
    pub stop: bool,
}

impl Request {
    pub const NONE: Request = Request {
        checkpoint: false,
        reclaim: false,
        stop: false,
    };
    pub const CHECKPOINT: Request = Request {
        checkpoint: true,
        ..Request::NONE
    };
    pub const RECLAIM: Request = Request {
        reclaim: true,
        ..Request::NONE
    };
    /// Ends the keeper's thread, and leaves the store durable.
    pub const STOP: Request = Request {
        checkpoint: true,
        stop: true,
        ..Request::NONE
    };
}

impl BitOrAssign for Request {
    fn bitor_assign(&mut self, other: Request) {
        self.checkpoint |= other.checkpoint;
        self.reclaim |= other.reclaim;
        self.stop |= other.stop;
    }
}

/// What the keeper's thread was asked for since it looked last: one request, whoever asked and however often.
#[derive(Default)]
pub struct Requests {
    pending: Mutex<Request>,
    changed: Condvar,
}

impl Requests {
    pub fn ask(&self, request: Request) {
        *self.pending.lock() |= request;
        self.changed.notify_one();
    }

    pub fn wait(&self) -> Request {
        let mut pending = self.pending.lock();
        while *pending == Request::NONE {
            self.changed.wait(&mut pending);
        }
        std::mem::take(&mut *pending)
    }
}
