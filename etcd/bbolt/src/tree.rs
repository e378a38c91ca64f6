//! A B+tree filled from the left: of each level only the page that is being filled is in memory.

use std::io::Write;

use crate::error::WriteError;
use crate::format::{BRANCH, LEAF, MAX_INLINE_BYTES, MAX_KEY_BYTES, MAX_VALUE_BYTES, PAGE_BYTES};
use crate::node::{Body, Node};

/// Where full pages go, one behind the other.
pub struct Pages<W> {
    /// None while only counting.
    out: Option<W>,
    next: u64,
    buffer: Vec<u8>,
}

impl<W: Write> Pages<W> {
    pub fn new(out: Option<W>, next: u64) -> Self {
        Pages {
            out,
            next,
            buffer: Vec::new(),
        }
    }

    pub fn next(&self) -> u64 {
        self.next
    }

    pub fn into_out(self) -> Option<W> {
        self.out
    }

    fn emit(&mut self, node: &Node) -> Result<u64, WriteError> {
        let (id, overflow) = (self.next, node.overflow());
        self.next += 1 + u64::from(overflow);
        if let Some(out) = &mut self.out {
            self.buffer.clear();
            self.buffer.shrink_to(PAGE_BYTES);
            node.encode(id, overflow, &mut self.buffer);
            self.buffer.resize((1 + overflow as usize) * PAGE_BYTES, 0);
            out.write_all(&self.buffer)?;
        }
        Ok(id)
    }
}

#[derive(Default)]
pub struct Tree {
    /// Leaves first.
    levels: Vec<Node>,
    last_key: Option<Vec<u8>>,
}

impl Tree {
    pub fn add<W: Write>(
        &mut self,
        pages: &mut Pages<W>,
        key: &[u8],
        body: &Body<'_>,
    ) -> Result<(), WriteError> {
        self.check(key, body)?;
        let last = self.last_key.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
        self.push(pages, 0, key, body)
    }

    fn check(&self, key: &[u8], body: &Body<'_>) -> Result<(), WriteError> {
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Err(WriteError::KeySize(key.len()));
        }
        if let Body::Value { value, .. } = body
            && value.len() > MAX_VALUE_BYTES
        {
            return Err(WriteError::ValueSize(value.len()));
        }
        if self.last_key.as_deref().is_some_and(|last| key <= last) {
            return Err(WriteError::Order);
        }
        Ok(())
    }

    fn push<W: Write>(
        &mut self,
        pages: &mut Pages<W>,
        level: usize,
        key: &[u8],
        body: &Body<'_>,
    ) -> Result<(), WriteError> {
        if level == self.levels.len() {
            self.levels
                .push(Node::new(if level == 0 { LEAF } else { BRANCH }));
        }
        if !self.levels[level].fits(key, body) {
            self.flush(pages, level)?;
        }
        self.levels[level].push(key, body);
        Ok(())
    }

    /// The page of `level` is done: it is written and entered in the level above.
    fn flush<W: Write>(&mut self, pages: &mut Pages<W>, level: usize) -> Result<(), WriteError> {
        let page = pages.emit(&self.levels[level])?;
        let first = self.levels[level].first_key().to_vec();
        self.levels[level].clear();
        self.push(pages, level + 1, &first, &Body::Child(page))
    }

    /// Small enough to lie in its parent's value: its only leaf, or an empty one.
    pub fn take_inline(&mut self) -> Option<Node> {
        match self.levels.len() {
            0 => Some(Node::new(LEAF)),
            1 if self.levels[0].size() <= MAX_INLINE_BYTES => self.levels.pop(),
            _ => None,
        }
    }

    /// Writes what is left. Returns the page of the root.
    pub fn finish<W: Write>(mut self, pages: &mut Pages<W>) -> Result<u64, WriteError> {
        if self.levels.is_empty() {
            return pages.emit(&Node::new(LEAF));
        }
        let mut level = 0;
        // Flushing may add a level.
        while level + 1 < self.levels.len() {
            if !self.levels[level].is_empty() {
                self.flush(pages, level)?;
            }
            level += 1;
        }
        pages.emit(&self.levels[level])
    }
}
