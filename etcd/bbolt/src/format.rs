//! The bytes of meta pages, page headers and elements.

/// What this crate writes; files with other page sizes are read too.
pub const PAGE_BYTES: usize = 4096;
pub const PAGE_HEADER_BYTES: usize = 16;
pub const ELEMENT_BYTES: usize = 16;
pub const BUCKET_HEADER_BYTES: usize = 16;
/// A bucket of one leaf up to this size lies in its parent's value.
pub const MAX_INLINE_BYTES: usize = PAGE_BYTES / 4;
pub const MAX_KEY_BYTES: usize = 32768;
pub const MAX_VALUE_BYTES: usize = (1 << 31) - 2;

pub const BRANCH: u16 = 0x01;
pub const LEAF: u16 = 0x02;
pub const META: u16 = 0x04;
pub const FREELIST: u16 = 0x10;
/// Flag of a leaf element whose value is a bucket.
pub const BUCKET: u32 = 0x01;

/// The two meta pages come first.
pub const META_PAGES: u64 = 2;
/// Instead of a freelist's page when it was not written.
pub const NO_FREELIST: u64 = u64::MAX;
/// In a freelist page's count: the true count is the first word.
pub const LARGE_FREELIST: u16 = u16::MAX;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const META_BYTES: usize = 64;
const CHECKED_BYTES: usize = META_BYTES - 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    pub page_size: u32,
    pub root: u64,
    pub freelist: u64,
    /// Pages in use, from the start of the file.
    pub pages: u64,
    pub transaction: u64,
}

impl Meta {
    pub fn encode(&self) -> [u8; META_BYTES] {
        let mut bytes = [0; META_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.page_size.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.root.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.freelist.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.pages.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.transaction.to_le_bytes());
        let check = fnv64a(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// From the page that `bytes` begin with; None when it is no valid meta page.
    pub fn decode(bytes: &[u8]) -> Option<Meta> {
        let bytes = bytes.get(PAGE_HEADER_BYTES..PAGE_HEADER_BYTES + META_BYTES)?;
        let valid = u32_at(bytes, 0) == MAGIC
            && u32_at(bytes, 4) == VERSION
            && u64_at(bytes, CHECKED_BYTES) == fnv64a(&bytes[..CHECKED_BYTES]);
        valid.then(|| Meta {
            page_size: u32_at(bytes, 8),
            root: u64_at(bytes, 16),
            freelist: u64_at(bytes, 32),
            pages: u64_at(bytes, 40),
            transaction: u64_at(bytes, 48),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageHeader {
    pub id: u64,
    pub flags: u16,
    pub count: u16,
    /// Pages that belong to this one, behind it.
    pub overflow: u32,
}

impl PageHeader {
    pub fn encode(&self) -> [u8; PAGE_HEADER_BYTES] {
        let mut bytes = [0; PAGE_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.flags.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.overflow.to_le_bytes());
        bytes
    }

    /// `bytes` hold at least a header.
    pub fn decode(bytes: &[u8]) -> PageHeader {
        PageHeader {
            id: u64_at(bytes, 0),
            flags: u16::from_le_bytes([bytes[8], bytes[9]]),
            count: u16::from_le_bytes([bytes[10], bytes[11]]),
            overflow: u32_at(bytes, 12),
        }
    }
}

fn fnv64a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_page_checks_itself() {
        assert_eq!(fnv64a(b"foobar"), 0x8594_4171_f739_67e8);
        let meta = Meta {
            page_size: 4096,
            root: 5,
            freelist: 2,
            pages: 9,
            transaction: 7,
        };
        let mut page = vec![0; PAGE_HEADER_BYTES];
        page.extend_from_slice(&meta.encode());
        assert_eq!(Meta::decode(&page), Some(meta));
        for place in PAGE_HEADER_BYTES..page.len() {
            page[place] ^= 1;
            assert_eq!(Meta::decode(&page), None);
            page[place] ^= 1;
        }
        assert_eq!(Meta::decode(&page[..40]), None);
    }
}
