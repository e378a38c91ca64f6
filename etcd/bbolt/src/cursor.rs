//! Walking one tree in order, checking every page on the way.

use crate::database::{Database, Root};
use crate::error::{Error, Fault};
use crate::format::{BRANCH, BUCKET, ELEMENT_BYTES, LEAF, PAGE_HEADER_BYTES, PageHeader, u32_at, u64_at};

/// A tree of the largest file has a handful of levels.
const MAX_DEPTH: usize = 48;

/// One item of a bucket.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    pub key: &'a [u8],
    pub value: &'a [u8],
    /// The value is a bucket.
    pub is_bucket: bool,
    /// Where it lies.
    pub page: u64,
}

pub struct Cursor<'a> {
    database: &'a Database,
    /// From the root to the leaf.
    path: Vec<Page>,
    seen: Seen,
    last_key: Vec<u8>,
}

impl<'a> Cursor<'a> {
    pub(crate) fn open(database: &'a Database, root: &Root) -> Result<Self, Error> {
        Cursor::open_with(database, root, Seen::new(database.meta().pages))
    }

    /// `seen` are pages that must not be met.
    pub(crate) fn open_with(database: &'a Database, root: &Root, seen: Seen) -> Result<Self, Error> {
        let mut cursor = Cursor {
            database,
            path: Vec::new(),
            seen,
            last_key: Vec::new(),
        };
        let page = match root {
            Root::Page(id) => cursor.load(*id)?,
            Root::Inline { page, bytes } => Page::parse(*page, PageHeader::decode(bytes), bytes.clone())
                .map_err(|fault| database.fault(*page, fault))?,
        };
        cursor.path.push(page);
        Ok(cursor)
    }

    pub(crate) fn into_seen(self) -> Seen {
        self.seen
    }

    /// The next item; None at the end.
    #[allow(
        clippy::should_implement_trait,
        reason = "the item borrows the page that the cursor holds"
    )]
    pub fn next(&mut self) -> Result<Option<Item<'_>>, Error> {
        if !self.descend()? {
            return Ok(None);
        }
        let Some(leaf) = self.path.last_mut() else {
            return Ok(None);
        };
        let (id, place) = (leaf.id, leaf.place);
        leaf.place += 1;
        let fault = |fault| self.database.fault(id, fault);
        let item = leaf.item(place).map_err(fault)?;
        // No key is empty, so the first one is greater than none.
        if item.key <= &self.last_key[..] {
            return Err(fault(Fault::Order(place)));
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(item.key);
        Ok(Some(item))
    }

    /// Goes to the leaf with the next item. False at the end.
    fn descend(&mut self) -> Result<bool, Error> {
        while let Some(top) = self.path.last_mut() {
            if top.place == top.count {
                self.path.pop();
                continue;
            }
            if top.is_leaf {
                return Ok(true);
            }
            let (id, place) = (top.id, top.place);
            top.place += 1;
            self.enter(id, place)?;
        }
        Ok(false)
    }

    fn enter(&mut self, id: u64, place: usize) -> Result<(), Error> {
        let database = self.database;
        if self.path.len() == MAX_DEPTH {
            return Err(database.fault(id, Fault::TooDeep));
        }
        let Some(branch) = self.path.last() else {
            return Ok(());
        };
        let (key, child) = branch.child(place).map_err(|fault| database.fault(id, fault))?;
        // Everything before lies before this key, everything below at or behind it.
        if !self.last_key.is_empty() && key <= &self.last_key[..] {
            return Err(database.fault(id, Fault::Order(place)));
        }
        let key = key.to_vec();
        let page = self.load(child)?;
        if page.count == 0 {
            return Err(database.fault(child, Fault::Empty));
        }
        if page.key(0).map_err(|fault| database.fault(child, fault))? < &key[..] {
            return Err(database.fault(child, Fault::Order(0)));
        }
        self.path.push(page);
        Ok(())
    }

    fn load(&mut self, id: u64) -> Result<Page, Error> {
        let (header, bytes) = self.database.page(id)?;
        for page in id..=id + u64::from(header.overflow) {
            if !self.seen.mark(page) {
                return Err(self.database.fault(page, Fault::Twice));
            }
        }
        Page::parse(id, header, bytes).map_err(|fault| self.database.fault(id, fault))
    }
}

/// A branch or leaf page, and how far it was read.
struct Page {
    id: u64,
    is_leaf: bool,
    count: usize,
    bytes: Vec<u8>,
    place: usize,
}

impl Page {
    fn parse(id: u64, header: PageHeader, bytes: Vec<u8>) -> Result<Page, Fault> {
        let count = usize::from(header.count);
        let is_leaf = match header.flags {
            LEAF => true,
            BRANCH => false,
            other => return Err(Fault::Kind(other)),
        };
        if PAGE_HEADER_BYTES + count * ELEMENT_BYTES > bytes.len() {
            return Err(Fault::Element(count - 1));
        }
        Ok(Page {
            id,
            is_leaf,
            count,
            bytes,
            place: 0,
        })
    }

    fn element(place: usize) -> usize {
        PAGE_HEADER_BYTES + place * ELEMENT_BYTES
    }

    /// `length` bytes at `position` behind the element at `place`.
    fn slice(&self, place: usize, position: usize, length: usize) -> Result<&[u8], Fault> {
        let start = Page::element(place).saturating_add(position);
        self.bytes
            .get(start..start.saturating_add(length))
            .filter(|_| start >= Page::element(self.count))
            .ok_or(Fault::Element(place))
    }

    fn key(&self, place: usize) -> Result<&[u8], Fault> {
        let at = Page::element(place);
        let (position, length) = match self.is_leaf {
            true => (u32_at(&self.bytes, at + 4), u32_at(&self.bytes, at + 8)),
            false => (u32_at(&self.bytes, at), u32_at(&self.bytes, at + 4)),
        };
        match self.slice(place, position as usize, length as usize)? {
            [] => Err(Fault::EmptyKey(place)),
            key => Ok(key),
        }
    }

    fn child(&self, place: usize) -> Result<(&[u8], u64), Fault> {
        let page = u64_at(&self.bytes, Page::element(place) + 8);
        self.key(place).map(|key| (key, page))
    }

    fn item(&self, place: usize) -> Result<Item<'_>, Fault> {
        let at = Page::element(place);
        let key = self.key(place)?;
        let (position, length) = (u32_at(&self.bytes, at + 4), u32_at(&self.bytes, at + 12));
        let value = self.slice(
            place,
            (position as usize).saturating_add(key.len()),
            length as usize,
        )?;
        Ok(Item {
            key,
            value,
            is_bucket: u32_at(&self.bytes, at) & BUCKET != 0,
            page: self.id,
        })
    }
}

/// A bit for each page.
pub(crate) struct Seen {
    bits: Vec<u64>,
}

impl Seen {
    pub(crate) fn new(pages: u64) -> Seen {
        Seen {
            bits: vec![0; pages.div_ceil(64) as usize],
        }
    }

    /// False when it was marked already. `page` is within the database.
    pub(crate) fn mark(&mut self, page: u64) -> bool {
        let (word, bit) = ((page / 64) as usize, 1 << (page % 64));
        let fresh = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        fresh
    }

    pub(crate) fn has(&self, page: u64) -> bool {
        self.bits[(page / 64) as usize] & (1 << (page % 64)) != 0
    }
}
