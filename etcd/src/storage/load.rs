//! Reading the store back at start: every version of every key, the meta, and the consistent index.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::manifest::{Durable, Item, Manifest};
use super::record::{
    self, FRAME_HEADER_BYTES, FrameHeader, Kind, Loc, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, Version,
};
use super::segment::{self, Origin, Segment};
use super::writer::{Meta, split_meta};
use super::{Storage, StorageError};
use crate::disk::Disk;
use crate::mvcc::index::Index;

pub const TRAILER_BYTES: usize = 32;
pub const TRAILER_MAGIC: [u8; 8] = *b"FKSEGEND";
/// A footer item: the record header, the record's offset and the key's length; the key follows.
pub const FOOTER_ITEM_BYTES: usize = RECORD_HEADER_BYTES + 8;

pub struct Loaded {
    pub storage: Arc<Storage>,
    /// Everything that the segments hold, what was compacted too.
    pub versions: Index,
    pub meta: Meta,
    pub frame: FrameHeader,
    pub durable: Durable,
    /// Where to go on; None in a fresh store.
    pub active: Option<Arc<Segment>>,
}

pub fn load(
    disk: Arc<dyn Disk>,
    dir: &Path,
    cluster: u64,
    segment_bytes: u64,
) -> Result<Loaded, StorageError> {
    let manifest = open_dir(&*disk, dir, cluster)?;
    let mut loader = Loader {
        disk: &*disk,
        dir,
        cluster,
        durable: manifest.durable,
        versions: Index::default(),
        segments: Vec::new(),
    };
    let newest = manifest
        .items
        .iter()
        .rev()
        .find(|item| item.origin == Origin::Log)
        .map(|item| item.number);
    let mut tail = Tail::default();
    for item in &manifest.items {
        loader.segment(item, newest == Some(item.number), &mut tail)?;
    }
    let Loader {
        versions, segments, ..
    } = loader;
    let active = segments
        .iter()
        .find(|segment| Some(segment.number) == newest)
        .cloned();
    let storage = Arc::new(Storage::new(
        disk.clone(),
        dir.to_owned(),
        cluster,
        segment_bytes,
        segments,
    ));
    storage
        .installed
        .store(manifest.installed, std::sync::atomic::Ordering::SeqCst);
    Ok(Loaded {
        storage,
        versions,
        meta: tail.meta,
        frame: tail.frame,
        durable: manifest.durable,
        active,
    })
}

/// With the files that its MANIFEST lists, and no others.
fn open_dir(disk: &dyn Disk, dir: &Path, cluster: u64) -> Result<Manifest, StorageError> {
    disk.create_dir(dir).map_err(StorageError::io(dir))?;
    let manifest = Manifest::read(disk, dir)?.unwrap_or_else(|| Manifest {
        cluster,
        ..Manifest::default()
    });
    if manifest.cluster != cluster {
        return Err(StorageError::Foreign {
            file: dir.to_owned(),
            found: manifest.cluster,
            expected: cluster,
        });
    }
    remove_leftovers(disk, dir, &manifest).map_err(StorageError::io(dir))?;
    // The MANIFEST that was read may be one whose writer was killed before its name was durable; the log is to rely on it.
    disk.sync_dir(dir).map_err(StorageError::io(dir))?;
    Ok(manifest)
}

fn remove_leftovers(disk: &dyn Disk, dir: &Path, manifest: &Manifest) -> io::Result<()> {
    for name in disk.list(dir)? {
        let listed =
            segment::parse_name(&name).map(|number| manifest.items.iter().any(|item| item.number == number));
        if listed == Some(false) || name.ends_with(".tmp") {
            disk.remove(&dir.join(name))?;
        }
    }
    Ok(())
}

/// What only the newest segment of the log says.
#[derive(Default)]
struct Tail {
    meta: Meta,
    frame: FrameHeader,
}

struct Loader<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    cluster: u64,
    durable: Durable,
    versions: Index,
    segments: Vec<Arc<Segment>>,
}

impl Loader<'_> {
    fn segment(&mut self, item: &Item, newest: bool, tail: &mut Tail) -> Result<(), StorageError> {
        let path = self.dir.join(segment::name(item.number));
        let file = self.disk.open(&path).map_err(|source| missing(&path, source))?;
        let segment = Arc::new(Segment::new(item.number, path, file, item.origin, item.used));
        if item.footer != 0 {
            segment.set_footer(item.footer);
        }
        match item.footer {
            0 => self.scan(&segment, item, newest, tail)?,
            offset => self.footer(&segment, offset)?,
        }
        if !newest {
            segment.close();
        }
        self.segments.push(segment);
        Ok(())
    }

    fn footer(&mut self, segment: &Segment, offset: u64) -> Result<(), StorageError> {
        let bytes = read_footer(segment, offset)?;
        let mut at = 0;
        while at < bytes.len() {
            let Some((key, version)) = footer_item(segment.number, &bytes, &mut at) else {
                return Err(StorageError::corrupt(
                    &segment.path,
                    offset,
                    "a footer that cannot be decoded",
                ));
            };
            self.versions.insert(&key, version);
        }
        Ok(())
    }

    fn scan(
        &mut self,
        segment: &Segment,
        item: &Item,
        newest: bool,
        tail: &mut Tail,
    ) -> Result<(), StorageError> {
        let bytes = self.read_whole(segment)?;
        let must = if segment.number == self.durable.segment {
            self.durable.offset
        } else {
            item.used
        };
        let mut offset = SEGMENT_HEADER_BYTES;
        while let Some((frame, payload)) = record::decode_frame(&bytes[offset.min(bytes.len())..]) {
            let start = offset + FRAME_HEADER_BYTES;
            self.frame(
                segment,
                &bytes.slice(start..start + payload.len()),
                start,
                newest.then_some(&mut *tail),
            )?;
            if newest {
                tail.frame = frame;
            }
            offset = start + payload.len();
        }
        if (offset as u64) < must {
            return Err(StorageError::corrupt(
                &segment.path,
                offset as u64,
                "a frame that was durable does not check",
            ));
        }
        segment.set_used(offset as u64);
        if newest {
            wipe(segment, &bytes, offset)
        } else {
            Ok(())
        }
    }

    fn read_whole(&self, segment: &Segment) -> Result<Bytes, StorageError> {
        let length = segment.file.len().map_err(StorageError::io(&segment.path))?;
        let mut bytes = vec![0; length as usize];
        segment
            .file
            .read_at(&mut bytes, 0)
            .map_err(StorageError::io(&segment.path))?;
        if bytes.len() < SEGMENT_HEADER_BYTES
            || bytes[..SEGMENT_HEADER_BYTES] != record::segment_header(segment.number, self.cluster)
        {
            return Err(StorageError::corrupt(
                &segment.path,
                0,
                "the segment header does not check",
            ));
        }
        Ok(bytes.into())
    }

    fn frame(
        &mut self,
        segment: &Segment,
        payload: &Bytes,
        start: usize,
        mut tail: Option<&mut Tail>,
    ) -> Result<(), StorageError> {
        let mut at = 0;
        while at < payload.len() {
            let corrupt = |what| StorageError::corrupt(&segment.path, (start + at) as u64, what);
            let (header, length) =
                record::decode(&payload[at..]).ok_or_else(|| corrupt("a record that cannot be decoded"))?;
            let body = payload.slice(at + RECORD_HEADER_BYTES..at + length);
            match (header.kind, &mut tail) {
                (Kind::Put | Kind::Tombstone, _) => {
                    let key = record::key_of(&body).ok_or_else(|| corrupt("a record without a key"))?;
                    let loc = Loc {
                        segment: segment.number,
                        offset: (start + at) as u32,
                        length: length as u32,
                    };
                    self.versions.insert(key, header.version_at(loc));
                }
                (kind, Some(tail)) => meta(&mut tail.meta, kind, &body)
                    .ok_or_else(|| corrupt("a meta record that cannot be decoded"))?,
                _ => {}
            }
            at = (at + length).next_multiple_of(record::ALIGNMENT);
        }
        Ok(())
    }
}

fn meta(meta: &mut Meta, kind: Kind, body: &Bytes) -> Option<()> {
    let (bucket, key, value) = split_meta(body)?;
    let place = (bucket, Bytes::copy_from_slice(key));
    match kind {
        Kind::MetaReset => meta.clear(),
        Kind::MetaDelete => {
            meta.remove(&place);
        }
        _ => {
            meta.insert(place, Bytes::copy_from_slice(value));
        }
    }
    Some(())
}

fn missing(path: &Path, source: io::Error) -> StorageError {
    match source.kind() {
        io::ErrorKind::NotFound => StorageError::corrupt(
            path,
            0,
            "the manifest lists this segment, but the file is missing",
        ),
        _ => StorageError::Io {
            path: path.to_owned(),
            source,
        },
    }
}

/// What follows the last good frame must not look like a frame once new ones were written before it.
fn wipe(segment: &Segment, bytes: &[u8], offset: usize) -> Result<(), StorageError> {
    if bytes[offset..].iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    let zeroes = vec![0; bytes.len() - offset];
    segment
        .file
        .write_at(&zeroes, offset as u64)
        .and_then(|()| segment.file.sync())
        .map_err(StorageError::io(&segment.path))
}

pub fn read_footer(segment: &Segment, offset: u64) -> Result<Bytes, StorageError> {
    let path = &segment.path;
    let length = segment.file.len().map_err(StorageError::io(path))?;
    let Some(size) = length
        .checked_sub(offset)
        .filter(|size| *size >= TRAILER_BYTES as u64)
    else {
        return Err(StorageError::corrupt(
            path,
            length,
            "the file is shorter than its footer",
        ));
    };
    let mut bytes = vec![0; size as usize];
    segment
        .file
        .read_at(&mut bytes, offset)
        .map_err(StorageError::io(path))?;
    let body = bytes.len() - TRAILER_BYTES;
    let trailer = &bytes[body..];
    let whole = trailer[24..] == TRAILER_MAGIC
        && record::i64_at(trailer, 0) as u64 == offset
        && record::i64_at(trailer, 8) as usize == body
        && record::u32_at(trailer, 16) == crc32c::crc32c(&bytes[..body]);
    if !whole {
        return Err(StorageError::corrupt(path, offset, "the footer does not check"));
    }
    bytes.truncate(body);
    Ok(bytes.into())
}

/// The item at `at` of a footer, which moves behind it.
pub fn footer_item(number: u32, bytes: &Bytes, at: &mut usize) -> Option<(Bytes, Version)> {
    let item = bytes.get(*at..*at + FOOTER_ITEM_BYTES)?;
    let (offset, key_length) = (
        record::u32_at(item, RECORD_HEADER_BYTES),
        record::u32_at(item, RECORD_HEADER_BYTES + 4) as usize,
    );
    let length = RECORD_HEADER_BYTES as u32 + record::u32_at(item, 4);
    let key_at = *at + FOOTER_ITEM_BYTES;
    if key_at + key_length > bytes.len() {
        return None;
    }
    let header = record::decode_header(item)?;
    *at = key_at + key_length;
    Some((
        bytes.slice(key_at..key_at + key_length),
        header.version_at(Loc {
            segment: number,
            offset,
            length,
        }),
    ))
}
