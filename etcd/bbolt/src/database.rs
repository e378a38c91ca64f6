//! Opening a file, and fetching pages of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::cursor::{Cursor, Item};
use crate::error::{Error, Fault};
use crate::format::{BUCKET_HEADER_BYTES, META_PAGES, Meta, PAGE_HEADER_BYTES, PageHeader, u64_at};

/// Page sizes that bbolt knows, as powers of two.
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 10..=24;
/// Enough of a page for its meta.
const META_READ_BYTES: usize = 128;

/// A database in a file, read only. What follows its last page is not looked at: etcd's snapshots end with a checksum.
pub struct Database {
    file: File,
    path: PathBuf,
    meta: Meta,
}

/// Where a bucket's tree lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub name: Vec<u8>,
    pub(crate) root: Root,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    Page(u64),
    /// A leaf within a value of the page.
    Inline {
        page: u64,
        bytes: Vec<u8>,
    },
}

impl Database {
    pub fn open(path: &Path) -> Result<Database, Error> {
        let io = |source| Error::Io {
            file: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let meta = find_meta(&file, length)
            .map_err(io)?
            .ok_or_else(|| Error::NotADatabase {
                file: path.to_owned(),
            })?;
        let database = Database {
            file,
            path: path.to_owned(),
            meta,
        };
        match database.checked_bytes() {
            Some(expected) if expected <= length => Ok(database),
            expected => Err(Error::Truncated {
                file: path.to_owned(),
                expected: expected.unwrap_or(u64::MAX),
                found: length,
            }),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the database, which the file may exceed.
    pub fn bytes(&self) -> u64 {
        self.checked_bytes().unwrap_or(u64::MAX)
    }

    fn checked_bytes(&self) -> Option<u64> {
        self.meta.pages.checked_mul(self.page_bytes() as u64)
    }

    pub(crate) fn page_bytes(&self) -> usize {
        self.meta.page_size as usize
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The buckets at the top, in order of their names.
    pub fn buckets(&self) -> Result<Vec<Bucket>, Error> {
        let mut cursor = self.root()?;
        let mut buckets = Vec::new();
        while let Some(item) = cursor.next()? {
            if item.is_bucket {
                buckets.push(bucket_of(&item).map_err(|fault| self.fault(item.page, fault))?);
            }
        }
        Ok(buckets)
    }

    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket>, Error> {
        Ok(self.buckets()?.into_iter().find(|bucket| bucket.name == name))
    }

    /// Walks a bucket in the order of its keys.
    pub fn cursor(&self, bucket: &Bucket) -> Result<Cursor<'_>, Error> {
        Cursor::open(self, &bucket.root)
    }

    pub(crate) fn root(&self) -> Result<Cursor<'_>, Error> {
        Cursor::open(self, &Root::Page(self.meta.root))
    }

    pub(crate) fn fault(&self, page: u64, fault: Fault) -> Error {
        Error::Page {
            file: self.path.clone(),
            page,
            fault,
        }
    }

    /// The page with what overflows it; its id and bounds are checked.
    pub(crate) fn page(&self, id: u64) -> Result<(PageHeader, Vec<u8>), Error> {
        let out_of_range = Fault::OutOfRange {
            pages: self.meta.pages,
        };
        if id < META_PAGES || id >= self.meta.pages {
            return Err(self.fault(id, out_of_range));
        }
        let mut bytes = vec![0; self.page_bytes()];
        self.read(&mut bytes, id)?;
        let header = PageHeader::decode(&bytes);
        if header.id != id {
            return Err(self.fault(id, Fault::Id(header.id)));
        }
        if u64::from(header.overflow) >= self.meta.pages - id {
            return Err(self.fault(id, Fault::Overflow(header.overflow)));
        }
        if header.overflow > 0 {
            let first = bytes.len();
            bytes.resize(first * (1 + header.overflow as usize), 0);
            self.read(&mut bytes[first..], id + 1)?;
        }
        Ok((header, bytes))
    }

    fn read(&self, buffer: &mut [u8], page: u64) -> Result<(), Error> {
        self.file
            .read_exact_at(buffer, page * self.page_bytes() as u64)
            .map_err(|source| Error::Io {
                file: self.path.clone(),
                source,
            })
    }
}

/// The newest of the valid meta pages. The second lies where the page size says, which a damaged first one does not tell.
fn find_meta(file: &File, length: u64) -> io::Result<Option<Meta>> {
    let mut newest = meta_at(file, length, 0)?;
    for size in PAGE_SIZES.map(|power| 1u32 << power) {
        let other = meta_at(file, length, size.into())?.filter(|meta| meta.page_size == size);
        newest = match (newest, other) {
            (Some(first), Some(other)) if other.transaction <= first.transaction => Some(first),
            (first, other) => other.or(first),
        };
    }
    Ok(newest.filter(|meta| {
        PAGE_SIZES
            .map(|power| 1u32 << power)
            .any(|size| size == meta.page_size)
    }))
}

fn meta_at(file: &File, length: u64, offset: u64) -> io::Result<Option<Meta>> {
    if length < offset + META_READ_BYTES as u64 {
        return Ok(None);
    }
    let mut bytes = [0; META_READ_BYTES];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(Meta::decode(&bytes))
}

/// The bucket that an item's value is.
pub(crate) fn bucket_of(item: &Item<'_>) -> Result<Bucket, Fault> {
    if item.value.len() < BUCKET_HEADER_BYTES {
        return Err(Fault::Bucket);
    }
    let root = match u64_at(item.value, 0) {
        0 => Root::Inline {
            page: item.page,
            bytes: item.value[BUCKET_HEADER_BYTES..].to_vec(),
        },
        page => Root::Page(page),
    };
    match &root {
        Root::Inline { bytes, .. } if bytes.len() < PAGE_HEADER_BYTES => Err(Fault::Bucket),
        _ => Ok(Bucket {
            name: item.key.to_vec(),
            root,
        }),
    }
}
