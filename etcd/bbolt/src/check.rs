//! Accounting for every page, as bbolt's own check does.

use crate::cursor::{Cursor, Seen};
use crate::database::{Database, Root, bucket_of};
use crate::error::{Error, Fault};
use crate::format::{FREELIST, LARGE_FREELIST, META_PAGES, NO_FREELIST, PAGE_HEADER_BYTES, u64_at};

impl Database {
    /// Walks all buckets; every page must be met once, or be in the freelist.
    pub fn check(&self) -> Result<(), Error> {
        let pages = self.meta().pages;
        let mut seen = Seen::new(pages);
        for page in 0..META_PAGES.min(pages) {
            seen.mark(page);
        }
        let free = self.freelist(&mut seen)?;
        let mut pending = vec![Root::Page(self.meta().root)];
        while let Some(root) = pending.pop() {
            let mut cursor = Cursor::open_with(self, &root, seen)?;
            while let Some(item) = cursor.next()? {
                if item.is_bucket {
                    pending.push(
                        bucket_of(&item)
                            .map_err(|fault| self.fault(item.page, fault))?
                            .root,
                    );
                }
            }
            seen = cursor.into_seen();
        }
        let Some(free) = free else { return Ok(()) };
        for page in 0..pages {
            match (seen.has(page), free.has(page)) {
                (true, true) => return Err(self.fault(page, Fault::Freed)),
                (false, false) => return Err(self.fault(page, Fault::Unreachable)),
                _ => {}
            }
        }
        Ok(())
    }

    /// The free pages; None when the file does not list them.
    fn freelist(&self, seen: &mut Seen) -> Result<Option<Seen>, Error> {
        let id = self.meta().freelist;
        if id == NO_FREELIST {
            return Ok(None);
        }
        let (header, bytes) = self.page(id)?;
        if header.flags != FREELIST {
            return Err(self.fault(id, Fault::NotFreelist(header.flags)));
        }
        for page in id..=id + u64::from(header.overflow) {
            seen.mark(page);
        }
        let words = &bytes[PAGE_HEADER_BYTES..];
        let (first, count) = match header.count {
            LARGE_FREELIST => (1, u64_at(words, 0)),
            count => (0, count.into()),
        };
        let mut free = Seen::new(self.meta().pages);
        for place in first..count.saturating_add(first) {
            let at = place.saturating_mul(8) as usize;
            if at.saturating_add(8) > words.len() {
                return Err(self.fault(id, Fault::Element(place as usize)));
            }
            let page = u64_at(words, at);
            if page >= self.meta().pages {
                let pages = self.meta().pages;
                return Err(self.fault(page, Fault::OutOfRange { pages }));
            }
            if !free.mark(page) {
                return Err(self.fault(page, Fault::Twice));
            }
        }
        Ok(Some(free))
    }
}
