//! MANIFEST: which segments make up the store, and up to where they are durable.

use std::io;
use std::path::Path;

use bytes::{BufMut as _, BytesMut};

use super::StorageError;
use super::record::{i64_at, u32_at};
use super::segment::Origin;
use crate::disk::{self, Disk};

pub const NAME: &str = "MANIFEST";
pub const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"FKMANIF\0";
const HEADER_BYTES: usize = 64;
const ITEM_BYTES: usize = 24;

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Manifest {
    pub cluster: u64,
    pub member: u64,
    pub items: Vec<Item>,
    pub durable: Durable,
    /// Index of the snapshot of another member that this store began with; 0 for none.
    pub installed: u64,
}

/// Everything up to here was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Durable {
    pub segment: u32,
    pub offset: u64,
    pub index: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    pub number: u32,
    pub origin: Origin,
    /// Bytes of header and frames.
    pub used: u64,
    /// Offset of the footer, 0 while there is none.
    pub footer: u64,
}

impl Manifest {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = BytesMut::with_capacity(HEADER_BYTES + self.items.len() * ITEM_BYTES + 4);
        out.put_slice(&MAGIC);
        out.put_u32_le(VERSION);
        out.put_u32_le(self.items.len() as u32);
        out.put_u64_le(self.cluster);
        out.put_u64_le(self.member);
        out.put_u64_le(self.durable.segment.into());
        out.put_u64_le(self.durable.offset);
        out.put_u64_le(self.durable.index);
        out.put_u64_le(self.installed);
        for item in &self.items {
            out.put_u32_le(item.number);
            out.put_u32_le(u32::from(item.origin == Origin::Reclaimed));
            out.put_u64_le(item.used);
            out.put_u64_le(item.footer);
        }
        let check = crc32c::crc32c(&out);
        out.put_u32_le(check);
        out.to_vec()
    }

    pub fn decode(file: &Path, bytes: &[u8]) -> Result<Manifest, StorageError> {
        let body = bytes
            .len()
            .checked_sub(4)
            .filter(|body| *body >= HEADER_BYTES && bytes[..8] == MAGIC);
        let Some(body) = body.filter(|body| crc32c::crc32c(&bytes[..*body]) == u32_at(bytes, *body)) else {
            return Err(StorageError::corrupt(file, 0, "the manifest does not check"));
        };
        if u32_at(bytes, 8) != VERSION {
            return Err(StorageError::Version {
                file: file.to_owned(),
                found: u32_at(bytes, 8),
            });
        }
        let word = |at| i64_at(bytes, at) as u64;
        let durable = Durable {
            segment: word(32) as u32,
            offset: word(40),
            index: word(48),
        };
        let items = (HEADER_BYTES..body).step_by(ITEM_BYTES).map(|at| Item {
            number: u32_at(bytes, at),
            origin: if u32_at(bytes, at + 4) == 0 {
                Origin::Log
            } else {
                Origin::Reclaimed
            },
            used: word(at + 8),
            footer: word(at + 16),
        });
        Ok(Manifest {
            cluster: word(16),
            member: word(24),
            items: items.collect(),
            durable,
            installed: word(56),
        })
    }

    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Manifest>, StorageError> {
        let path = dir.join(NAME);
        match disk::read_all(disk, &path) {
            Ok(bytes) => Manifest::decode(&path, &bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StorageError::Io { path, source }),
        }
    }

    pub fn write(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        disk::replace(disk, dir, NAME, &self.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_back_and_damage_is_refused() {
        let manifest = Manifest {
            cluster: 1,
            member: 2,
            items: vec![Item {
                number: 3,
                origin: Origin::Reclaimed,
                used: 100,
                footer: 90,
            }],
            durable: Durable {
                segment: 3,
                offset: 64,
                index: 12,
            },
            installed: 11,
        };
        let mut bytes = manifest.encode();
        assert_eq!(Manifest::decode(Path::new("m"), &bytes).unwrap(), manifest);
        bytes[70] ^= 1;
        assert!(Manifest::decode(Path::new("m"), &bytes).is_err());
    }
}
