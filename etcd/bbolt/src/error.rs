//! What can be wrong with a file, and with what is written into one.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: not a bbolt database: no valid meta page", file.display())]
    NotADatabase { file: PathBuf },
    #[error("{}: truncated: the database has {expected} bytes, the file {found}; copy it again", file.display())]
    Truncated {
        file: PathBuf,
        expected: u64,
        found: u64,
    },
    #[error("{}: corrupt at page {page}: {fault}", file.display())]
    Page { file: PathBuf, page: u64, fault: Fault },
    #[error("{}: {source}", file.display())]
    Io { file: PathBuf, source: io::Error },
}

/// What is wrong with a page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("referred to, but the database has only {pages} pages")]
    OutOfRange { pages: u64 },
    #[error("the page says that it is page {0}")]
    Id(u64),
    #[error("a page of kind {0:#x} where a branch or leaf is expected")]
    Kind(u16),
    #[error("it is not a freelist but a page of kind {0:#x}")]
    NotFreelist(u16),
    #[error("{0} overflow pages reach beyond the end of the database")]
    Overflow(u32),
    #[error("referred to twice")]
    Twice,
    #[error("in use, but in the freelist")]
    Freed,
    #[error("neither in use nor in the freelist")]
    Unreachable,
    #[error("an empty page within a tree")]
    Empty,
    #[error("element {0} lies outside of the page")]
    Element(usize),
    #[error("element {0} has an empty key")]
    EmptyKey(usize),
    #[error("the key of element {0} is not in order")]
    Order(usize),
    #[error("the tree is deeper than any real one")]
    TooDeep,
    #[error("a bucket whose header does not fit its value")]
    Bucket,
}

/// What cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("an item outside of any bucket")]
    NoBucket,
    #[error("keys must be given in ascending order, once each")]
    Order,
    #[error("a key of {0} bytes; bbolt takes 1 to 32768")]
    KeySize(usize),
    #[error("a value of {0} bytes is larger than bbolt takes")]
    ValueSize(usize),
    #[error(
        "what was written is not what was planned: root page {root} of {pages}, planned {planned_root} of {planned_pages}"
    )]
    NotAsPlanned {
        root: u64,
        pages: u64,
        planned_root: u64,
        planned_pages: u64,
    },
    #[error(transparent)]
    Io(#[from] io::Error),
}
