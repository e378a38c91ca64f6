//! The store on disk: segments of records, appended in revision order and reclaimed while everything goes on.
//!
//! The apply thread owns the [`Writer`]: records go into a frame, a frame becomes visible and, after a crash, is there as a whole
//! together with its consistent index. Readers resolve a [`Loc`] of the index through [`Storage`] without any lock of the writer.
//! Many of them are [`fetch`]ed at once. What cannot be read is told by [`damage`]. [`load`] reads everything back at start; [`keeper`] makes it durable, seals segments and [`reclaim`]s dead space on its own thread.
//! The layout is in `docs/format.md`, and in [`record`] and [`manifest`].

pub mod damage;
pub mod fetch;
pub mod held;
pub mod import;
pub mod keeper;
pub mod load;
pub mod manifest;
pub mod meta_rows;
pub mod reclaim;
pub mod record;
pub mod segment;
pub mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::disk::Disk;
use damage::Damage;
use fetch::Fetched;
use record::{Loc, RECORD_HEADER_BYTES};
use segment::Segment;
pub use writer::Writer;

/// Size of a segment; a single larger entry makes a larger one.
pub const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// Of records that are to be held in memory so many are fetched at once.
const READ_RECORDS: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("{}: corrupt at offset {offset}: {what}; this member does not start: remove it from the cluster and add it again, or restore a snapshot into a new data directory", file.display())]
    Corrupt {
        file: PathBuf,
        offset: u64,
        what: String,
    },
    #[error("{}: belongs to cluster {found:x}, expected {expected:x}; the data directory is another cluster's", file.display())]
    Foreign {
        file: PathBuf,
        found: u64,
        expected: u64,
    },
    #[error("{}: written in store format {found}, this version reads format {known}; use the version that wrote it", file.display(), known = manifest::VERSION)]
    Version { file: PathBuf, found: u32 },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl StorageError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> StorageError + '_ {
        move |source| StorageError::Io {
            path: path.to_owned(),
            source,
        }
    }

    fn corrupt(file: &Path, offset: u64, what: &str) -> StorageError {
        StorageError::Corrupt {
            file: file.to_owned(),
            offset,
            what: what.to_owned(),
        }
    }
}

/// All segments, for readers and for accounting.
pub struct Storage {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub cluster: u64,
    /// A segment is closed when the next frame begins beyond this.
    pub segment_bytes: u64,
    segments: ArcSwap<Vec<Arc<Segment>>>,
    next_number: AtomicU64,
    /// Held by whoever changes which segments there are, or writes down which there are.
    pub structure: Mutex<()>,
    /// Not in use any more, to be unlinked once MANIFEST does not list them.
    pub doomed: Mutex<Vec<Arc<Segment>>>,
    /// Index of the snapshot of another member that this store began with; 0 for none.
    pub installed: AtomicU64,
}

/// The segments as they were when a reader began; keeps their files open.
pub type Segments = Arc<Vec<Arc<Segment>>>;

impl Storage {
    pub fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        cluster: u64,
        segment_bytes: u64,
        segments: Vec<Arc<Segment>>,
    ) -> Self {
        let next = segments
            .iter()
            .map(|segment| u64::from(segment.number) + 1)
            .max()
            .unwrap_or(1);
        Storage {
            disk,
            dir,
            cluster,
            segment_bytes,
            segments: ArcSwap::from_pointee(segments),
            next_number: AtomicU64::new(next),
            structure: Mutex::default(),
            doomed: Mutex::default(),
            installed: AtomicU64::new(0),
        }
    }

    pub fn segments(&self) -> Segments {
        self.segments.load_full()
    }

    pub fn take_number(&self) -> u32 {
        self.next_number.fetch_add(1, Ordering::SeqCst) as u32
    }

    pub fn add(&self, segment: Arc<Segment>) {
        self.update(|segments| segments.push(segment.clone()));
    }

    pub fn remove(&self, numbers: &[u32]) {
        self.update(|segments| segments.retain(|segment| !numbers.contains(&segment.number)));
    }

    fn update(&self, change: impl Fn(&mut Vec<Arc<Segment>>)) {
        self.segments.rcu(|old| {
            let mut new = Vec::clone(old);
            change(&mut new);
            new.sort_by_key(|segment| segment.number);
            new
        });
    }

    /// `before` was taken before the index was read: it has what was reclaimed since; the current list has what was added since.
    pub fn find(&self, before: &Segments, number: u32) -> io::Result<Arc<Segment>> {
        find_in(before, number)
            .or_else(|| find_in(&self.segments.load(), number))
            .ok_or_else(|| io::Error::other(format!("segment {number} of the store is gone")))
    }

    /// Bytes of records that the index refers to: what the quota counts.
    pub fn live_bytes(&self) -> u64 {
        self.segments.load().iter().map(|segment| segment.live()).sum()
    }

    /// Bytes that the files hold.
    pub fn total_bytes(&self) -> u64 {
        self.segments.load().iter().map(|segment| segment.used()).sum()
    }

    /// What was found in the segments that does not check; None again once nothing is in use of which that is so.
    pub fn damage(&self) -> Option<Damage> {
        let segments = self.segments.load();
        segments.iter().find_map(|segment| segment.damage().cloned())
    }

    /// The encoded KeyValue at `loc`, checked.
    pub fn read(&self, before: &Segments, loc: Loc) -> io::Result<Bytes> {
        let segment = self.find(before, loc.segment)?;
        let mut bytes = BytesMut::zeroed(loc.length as usize);
        segment.read_at(&mut bytes, loc.offset.into())?;
        segment.check(&bytes, loc.offset)?;
        Ok(bytes.freeze().slice(RECORD_HEADER_BYTES..))
    }

    /// The encoded KeyValues at `locs`, in their order, with few reads.
    pub fn read_many(&self, before: &Segments, locs: &[Loc]) -> io::Result<Vec<Bytes>> {
        let mut out = Vec::with_capacity(locs.len());
        let mut fetched = Fetched::default();
        for piece in locs.chunks(READ_RECORDS) {
            fetched.read(self, before, piece)?;
            out.extend(fetched.iter().map(Bytes::copy_from_slice));
        }
        Ok(out)
    }
}

fn place_of(segments: &[Arc<Segment>], number: u32) -> Option<usize> {
    segments
        .binary_search_by_key(&number, |segment| segment.number)
        .ok()
}

fn contains(segments: &[Arc<Segment>], number: u32) -> bool {
    place_of(segments, number).is_some()
}

fn find_in(segments: &[Arc<Segment>], number: u32) -> Option<Arc<Segment>> {
    place_of(segments, number).map(|place| segments[place].clone())
}

#[cfg(test)]
pub(crate) mod tests;
