//! The apply thread's end of the store: frames into the current segment.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;

use super::meta_rows::MetaRows;
use super::record::{
    self, FRAME_HEADER_BYTES, FrameHeader, Header, Kind, Loc, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES,
    Version,
};
use super::segment::{self, Origin, Segment};
use super::{Segments, Storage};
use crate::disk::Fill;

/// A frame is flushed at the end of the entry that takes it beyond this.
pub const FRAME_BYTES: usize = 1024 * 1024;
/// What is kept from one frame to the next; more is rarely needed.
const KEPT_BYTES: usize = 256 * 1024;
/// Room that a segment must have for another frame to begin in it, as a share of the segment.
const ROLL_ROOM: u64 = 8;

pub type Meta = BTreeMap<(u8, Bytes), Bytes>;

/// Up to where frames were written, for the keeper that makes them durable.
#[derive(Clone)]
pub struct Written {
    pub segment: Arc<Segment>,
    pub offset: u64,
    pub frame: FrameHeader,
}

pub struct Writer {
    storage: Arc<Storage>,
    active: Arc<Segment>,
    offset: u64,
    /// Reserved ahead: the headroom of a full disk.
    next: Option<Arc<Segment>>,
    frame: BytesMut,
    meta: MetaRows,
    written: Arc<Mutex<Written>>,
}

impl Writer {
    /// Begins in a fresh segment when there is none to go on with.
    pub fn new(
        storage: Arc<Storage>,
        active: Option<Arc<Segment>>,
        meta: Meta,
        frame: FrameHeader,
    ) -> io::Result<Writer> {
        let (active, fresh) = match active {
            Some(active) => (active, false),
            None => (reserve(&storage)?, true),
        };
        if fresh {
            storage.add(active.clone());
        }
        let offset = active.used();
        let written = Arc::new(Mutex::new(Written {
            segment: active.clone(),
            offset,
            frame,
        }));
        let mut writer = Writer {
            storage,
            active,
            offset,
            next: None,
            frame: BytesMut::new(),
            meta: MetaRows::from(&meta),
            written,
        };
        record::begin_frame(&mut writer.frame);
        if fresh {
            writer.repeat_meta();
        }
        Ok(writer)
    }

    pub fn written(&self) -> Arc<Mutex<Written>> {
        self.written.clone()
    }

    pub fn frame_is_large(&self) -> bool {
        self.frame.len() >= FRAME_BYTES
    }

    /// Appends a put; `write` writes the encoded KeyValue.
    pub fn put(&mut self, mut version: Version, write: impl FnOnce(&mut BytesMut)) -> Version {
        let kind = if version.is_tombstone() {
            Kind::Tombstone
        } else {
            Kind::Put
        };
        let header = Header {
            kind,
            sub: version.sub,
            main: version.main,
            create: version.create,
            version: version.version,
            lease: version.lease,
        };
        let start = record::begin(&mut self.frame, &header);
        write(&mut self.frame);
        let length = record::finish(&mut self.frame, start);
        version.loc = Loc {
            segment: self.active.number,
            offset: (self.offset + start as u64) as u32,
            length,
        };
        self.active.count(&version);
        version
    }

    pub fn meta(&self) -> Meta {
        self.meta.to_map()
    }

    pub fn set_meta(&mut self, bucket: u8, key: Bytes, value: Bytes) {
        append_meta(&mut self.frame, Kind::MetaPut, bucket, &key, &value);
        self.meta.insert(bucket, &key, &value);
    }

    pub fn delete_meta(&mut self, bucket: u8, key: &Bytes) {
        append_meta(&mut self.frame, Kind::MetaDelete, bucket, key, &[]);
        self.meta.remove(bucket, key);
    }

    /// The encoded KeyValue at `loc`, which may lie in the frame that is not written yet.
    pub fn read(&self, before: &Segments, loc: Loc) -> io::Result<Bytes> {
        if loc.segment == self.active.number && u64::from(loc.offset) >= self.offset {
            let start = (u64::from(loc.offset) - self.offset) as usize;
            return Ok(Bytes::copy_from_slice(
                &self.frame[start + RECORD_HEADER_BYTES..start + loc.length as usize],
            ));
        }
        self.storage.read(before, loc)
    }

    /// Writes the frame. On an error nothing changed, and it may be called again. Returns the frame's bytes with the place of the first.
    pub fn flush(&mut self, header: FrameHeader) -> io::Result<(Loc, Bytes)> {
        record::pad(&mut self.frame);
        if self.frame.len() == FRAME_HEADER_BYTES {
            // An empty frame still moves the consistent index.
            append_meta(&mut self.frame, Kind::MetaDelete, 0, &[], &[]);
        }
        record::finish_frame(&mut self.frame, header);
        self.active.file.write_at(&self.frame, self.offset)?;
        let place = Loc {
            segment: self.active.number,
            offset: self.offset as u32,
            length: self.frame.len() as u32,
        };
        self.offset += self.frame.len() as u64;
        self.active.set_used(self.offset);
        let bytes = std::mem::take(&mut self.frame).freeze();
        *self.written.lock() = Written {
            segment: self.active.clone(),
            offset: self.offset,
            frame: header,
        };
        record::begin_frame(&mut self.frame);
        Ok((place, bytes))
    }

    /// What [`Writer::flush`] returned, and nobody else wants, is the next frame's room. Call before anything is put into it.
    pub fn reuse(&mut self, bytes: Bytes) {
        if let Ok(mut room) = bytes.try_into_mut()
            && room.capacity() <= KEPT_BYTES
        {
            room.clear();
            record::begin_frame(&mut room);
            self.frame = room;
        }
    }

    /// Goes on in the next segment when this one is full. Call between frames. True when a segment was closed.
    pub fn roll_if_full(&mut self) -> io::Result<bool> {
        let size = self.storage.segment_bytes;
        if self.offset + size / ROLL_ROOM <= size {
            return Ok(false);
        }
        let next = match self.next.take() {
            Some(next) => next,
            None => reserve(&self.storage)?,
        };
        self.storage.add(next.clone());
        self.active.close();
        self.offset = next.used();
        self.active = next;
        self.repeat_meta();
        Ok(true)
    }

    fn repeat_meta(&mut self) {
        append_all_meta(&mut self.frame, &self.meta);
    }

    /// Goes on behind a store that takes the place of this one. Call between frames.
    pub fn replace(&mut self, active: Arc<Segment>, meta: Meta, frame: FrameHeader) {
        // Its number is lower than the new segment's, and the newest one is to be the newest.
        self.storage.doomed.lock().extend(self.next.take());
        self.offset = active.used();
        self.frame.clear();
        record::begin_frame(&mut self.frame);
        self.meta = MetaRows::from(&meta);
        *self.written.lock() = Written {
            segment: active.clone(),
            offset: self.offset,
            frame,
        };
        self.active = active;
    }

    /// Reserves the segment after this one. While this fails, writes that take space must be refused.
    pub fn reserve_next(&mut self) -> io::Result<()> {
        if self.next.is_none() {
            self.next = Some(reserve(&self.storage)?);
        }
        Ok(())
    }
}

pub(super) fn reserve(storage: &Storage) -> io::Result<Arc<Segment>> {
    let number = storage.take_number();
    let path = storage.dir.join(segment::name(number));
    let file = storage.disk.create(&path, storage.segment_bytes, Fill::Reserve)?;
    file.write_at(&record::segment_header(number, storage.cluster), 0)?;
    Ok(Arc::new(Segment::new(
        number,
        path,
        file,
        Origin::Log,
        SEGMENT_HEADER_BYTES as u64,
    )))
}

/// Everything anew, as the first frame of a segment begins.
pub(super) fn append_all_meta(frame: &mut BytesMut, meta: &MetaRows) {
    append_meta(frame, Kind::MetaReset, 0, &[], &[]);
    meta.for_each(|bucket, key, value| append_meta(frame, Kind::MetaPut, bucket, key, value));
}

fn append_meta(frame: &mut BytesMut, kind: Kind, bucket: u8, key: &[u8], value: &[u8]) {
    let start = record::begin(
        frame,
        &Header {
            kind,
            sub: 0,
            main: 0,
            create: 0,
            version: 0,
            lease: 0,
        },
    );
    frame.put_u8(bucket);
    frame.put_u32_le(key.len() as u32);
    frame.put_slice(key);
    frame.put_slice(value);
    record::finish(frame, start);
}

/// Bucket, key and value of a meta record's body.
pub fn split_meta(body: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (bucket, rest) = body.split_first()?;
    if rest.len() < 4 {
        return None;
    }
    let length = record::u32_at(rest, 0) as usize;
    let rest = &rest[4..];
    (length <= rest.len()).then(|| (*bucket, &rest[..length], &rest[length..]))
}
