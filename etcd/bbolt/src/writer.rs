//! A database in one pass: first planned, then streamed.

use std::io::{Sink, Write};

use crate::error::WriteError;
use crate::format::{BUCKET, BUCKET_HEADER_BYTES, FREELIST, META, META_PAGES, Meta, PAGE_BYTES, PageHeader};
use crate::node::{Body, Value};
use crate::tree::{Pages, Tree};

/// Behind the meta pages; it is empty.
const FREELIST_PAGE: u64 = META_PAGES;
const FIRST_PAGE: u64 = FREELIST_PAGE + 1;
/// The first meta page has the newer transaction, which bbolt writes into even pages.
const TRANSACTION: u64 = 2;

/// Where everything will lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    root: u64,
    pages: u64,
}

impl Layout {
    /// The size of the file.
    pub fn bytes(&self) -> u64 {
        self.pages * PAGE_BYTES as u64
    }
}

/// Lays a database out before its values are at hand: buckets and keys in ascending order, values by their lengths.
pub struct Plan {
    builder: Builder<Sink>,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            builder: Builder::new(None),
        }
    }
}

impl Plan {
    pub fn bucket(&mut self, name: &[u8]) -> Result<(), WriteError> {
        self.builder.bucket(name)
    }

    pub fn item(&mut self, key: &[u8], value_length: usize) -> Result<(), WriteError> {
        self.builder.item(key, Value::Length(value_length))
    }

    pub fn finish(self) -> Result<Layout, WriteError> {
        self.builder.finish().map(|(layout, _)| layout)
    }
}

/// Streams a database: the same buckets and keys as planned, with values of the same lengths.
pub struct Writer<W: Write> {
    builder: Builder<W>,
    planned: Layout,
}

impl<W: Write> Writer<W> {
    pub fn new(planned: Layout, mut out: W) -> Result<Self, WriteError> {
        for (id, transaction) in [(0, TRANSACTION), (1, TRANSACTION - 1)] {
            let meta = Meta {
                page_size: PAGE_BYTES as u32,
                root: planned.root,
                freelist: FREELIST_PAGE,
                pages: planned.pages,
                transaction,
            };
            write_page(&mut out, id, META, &meta.encode())?;
        }
        write_page(&mut out, FREELIST_PAGE, FREELIST, &[])?;
        Ok(Writer {
            builder: Builder::new(Some(out)),
            planned,
        })
    }

    pub fn bucket(&mut self, name: &[u8]) -> Result<(), WriteError> {
        self.builder.bucket(name)
    }

    pub fn item(&mut self, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        self.builder.item(key, Value::Bytes(value))
    }

    pub fn finish(self) -> Result<W, WriteError> {
        let planned = self.planned;
        let (written, out) = self.builder.finish()?;
        match out {
            Some(out) if written == planned => Ok(out),
            _ => Err(WriteError::NotAsPlanned {
                root: written.root,
                pages: written.pages,
                planned_root: planned.root,
                planned_pages: planned.pages,
            }),
        }
    }
}

fn write_page(out: &mut impl Write, id: u64, flags: u16, body: &[u8]) -> Result<(), WriteError> {
    let header = PageHeader {
        id,
        flags,
        count: 0,
        overflow: 0,
    };
    let mut page = Vec::with_capacity(PAGE_BYTES);
    page.extend_from_slice(&header.encode());
    page.extend_from_slice(body);
    page.resize(PAGE_BYTES, 0);
    out.write_all(&page)?;
    Ok(())
}

/// The tree of buckets, and the tree of the bucket that is open.
struct Builder<W> {
    pages: Pages<W>,
    root: Tree,
    open: Option<(Vec<u8>, Tree)>,
}

impl<W: Write> Builder<W> {
    fn new(out: Option<W>) -> Self {
        Builder {
            pages: Pages::new(out, FIRST_PAGE),
            root: Tree::default(),
            open: None,
        }
    }

    fn bucket(&mut self, name: &[u8]) -> Result<(), WriteError> {
        self.close()?;
        self.open = Some((name.to_vec(), Tree::default()));
        Ok(())
    }

    fn item(&mut self, key: &[u8], value: Value<'_>) -> Result<(), WriteError> {
        let (_, tree) = self.open.as_mut().ok_or(WriteError::NoBucket)?;
        tree.add(&mut self.pages, key, &Body::Value { flags: 0, value })
    }

    /// Enters the open bucket in the tree of buckets.
    fn close(&mut self) -> Result<(), WriteError> {
        let Some((name, mut tree)) = self.open.take() else {
            return Ok(());
        };
        let mut value = vec![0; BUCKET_HEADER_BYTES];
        // A plan's leaf lacks its values, but the length is right.
        let mut length = BUCKET_HEADER_BYTES;
        match tree.take_inline() {
            Some(node) => {
                length += node.size();
                node.encode_inline(&mut value);
            }
            None => {
                let root = tree.finish(&mut self.pages)?;
                value[..8].copy_from_slice(&root.to_le_bytes());
            }
        }
        let value = match value.len() == length {
            true => Value::Bytes(&value),
            false => Value::Length(length),
        };
        self.root
            .add(&mut self.pages, &name, &Body::Value { flags: BUCKET, value })
    }

    fn finish(mut self) -> Result<(Layout, Option<W>), WriteError> {
        self.close()?;
        let root = self.root.finish(&mut self.pages)?;
        let pages = self.pages.next();
        Ok((Layout { root, pages }, self.pages.into_out()))
    }
}
