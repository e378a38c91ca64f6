//! A store that arrived from another member: written beside the old one, then put in its place at once.
//!
//! Keys go into sealed segments as reclaiming writes them, and the rest into a first segment of the log. None of them is in MANIFEST until
//! the whole is, so a crash before leaves the old store, and a crash after the new one.

use std::io;
use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};

use super::Storage;
use super::keeper::{append_footer_item, write_footer};
use super::meta_rows::MetaRows;
use super::record::{
    self, FRAME_HEADER_BYTES, FrameHeader, Header, Kind, Loc, SEGMENT_HEADER_BYTES, Version,
};
use super::segment::{self, Origin, Segment};
use super::writer::{self, Meta};
use crate::disk::{Disk, Fill};
use crate::mvcc::index::Index;

const FRAME_BYTES: usize = 256 * 1024;

pub struct Import {
    storage: Arc<Storage>,
    building: Option<Building>,
    done: Imported,
}

struct Building {
    disk: Arc<dyn Disk>,
    segment: Arc<Segment>,
    offset: u64,
    frame: BytesMut,
    footer: BytesMut,
}

/// Ready to take the old store's place. Dropped instead, its files go.
pub struct Imported {
    storage: Arc<Storage>,
    /// Sealed and durable.
    pub segments: Vec<Arc<Segment>>,
    pub versions: Index,
    /// Where the apply thread goes on; written, and made durable by the next checkpoint.
    pub active: Option<Arc<Segment>>,
    pub meta: Meta,
    pub frame: FrameHeader,
    installed: bool,
}

impl Import {
    pub fn new(storage: Arc<Storage>) -> Import {
        Import {
            done: Imported {
                storage: storage.clone(),
                segments: Vec::new(),
                versions: Index::default(),
                active: None,
                meta: Meta::new(),
                frame: FrameHeader::default(),
                installed: false,
            },
            building: None,
            storage,
        }
    }

    /// One version of a key with its encoded KeyValue. In the order of revisions or any other.
    pub fn put(&mut self, key: &[u8], version: Version, kv: &[u8]) -> io::Result<()> {
        let kind = match version.is_tombstone() {
            true => Kind::Tombstone,
            false => Kind::Put,
        };
        let header = Header {
            kind,
            sub: version.sub,
            main: version.main,
            create: version.create,
            version: version.version,
            lease: version.lease,
        };
        let segment_bytes = self.storage.segment_bytes;
        let building = self.building()?;
        let start = record::begin(&mut building.frame, &header);
        building.frame.put_slice(kv);
        let length = record::finish(&mut building.frame, start);
        let loc = Loc {
            segment: building.segment.number,
            offset: (building.offset + start as u64) as u32,
            length,
        };
        append_footer_item(
            &mut building.footer,
            &building.frame[start..start + length as usize],
            loc.offset,
        );
        let (large, full) = building.fill(segment_bytes);
        self.done.versions.insert(key, Version { loc, ..version });
        match (large, full) {
            (_, true) => self.seal(),
            (true, _) => self.building()?.flush(),
            _ => Ok(()),
        }
    }

    fn building(&mut self) -> io::Result<&mut Building> {
        let building = match self.building.take() {
            Some(building) => building,
            None => Building::begin(&self.storage)?,
        };
        Ok(self.building.insert(building))
    }

    fn seal(&mut self) -> io::Result<()> {
        let Some(mut building) = self.building.take() else {
            return Ok(());
        };
        // Known before anything can fail, so that the file goes with the rest.
        self.done.segments.push(building.segment.clone());
        building.flush()?;
        building.segment.close();
        write_footer(
            &building.segment,
            building.offset,
            std::mem::take(&mut building.footer),
        )
    }

    /// What is not keys, and where in the log of raft all this stands.
    pub fn finish(mut self, meta: Meta, frame: FrameHeader) -> io::Result<Imported> {
        self.seal()?;
        let active = writer::reserve(&self.storage)?;
        self.done.active = Some(active.clone());
        let mut bytes = BytesMut::new();
        record::begin_frame(&mut bytes);
        writer::append_all_meta(&mut bytes, &MetaRows::from(&meta));
        record::finish_frame(&mut bytes, frame);
        let offset = active.used();
        active.file.write_at(&bytes, offset)?;
        active.set_used(offset + bytes.len() as u64);
        self.done.meta = meta;
        self.done.frame = frame;
        Ok(self.done)
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        // What was not sealed is no part of anything; a leftover goes at the next start.
        if !self.segment.is_closed() {
            self.disk.remove(&self.segment.path).ok();
        }
    }
}

impl Building {
    fn begin(storage: &Storage) -> io::Result<Building> {
        let number = storage.take_number();
        let path = storage.dir.join(segment::name(number));
        let file = storage
            .disk
            .create(&path, SEGMENT_HEADER_BYTES as u64, Fill::Reserve)?;
        file.write_at(&record::segment_header(number, storage.cluster), 0)?;
        let offset = SEGMENT_HEADER_BYTES as u64;
        let mut frame = BytesMut::new();
        record::begin_frame(&mut frame);
        Ok(Building {
            disk: storage.disk.clone(),
            segment: Arc::new(Segment::new(number, path, file, Origin::Reclaimed, offset)),
            offset,
            frame,
            footer: BytesMut::new(),
        })
    }

    /// Whether the frame is to be written, and whether the segment is full.
    fn fill(&self, segment_bytes: u64) -> (bool, bool) {
        let large = self.frame.len() >= FRAME_BYTES;
        (large, self.offset + self.frame.len() as u64 >= segment_bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.frame.len() == FRAME_HEADER_BYTES {
            return Ok(());
        }
        record::pad(&mut self.frame);
        record::finish_frame(&mut self.frame, FrameHeader::default());
        self.segment.file.write_at(&self.frame, self.offset)?;
        self.offset += self.frame.len() as u64;
        self.segment.set_used(self.offset);
        self.frame.clear();
        record::begin_frame(&mut self.frame);
        Ok(())
    }
}

impl Imported {
    pub fn all_segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.segments.iter().chain(&self.active)
    }

    /// Its files belong to the store now.
    pub fn keep(&mut self) {
        self.installed = true;
    }
}

impl Drop for Imported {
    fn drop(&mut self) {
        if self.installed {
            return;
        }
        for segment in self.all_segments() {
            // A leftover goes at the next start.
            self.storage.disk.remove(&segment.path).ok();
        }
    }
}
