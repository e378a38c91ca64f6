//! Files of bbolt, the B+tree that the Go etcd keeps its data in: reading them, and writing them in one pass.
//!
//! Writing: [`Plan`] is told the keys and the lengths of the values and says how large the file will be and where its root will lie;
//! [`Writer`] is then told the same items with their values and streams the file, meta pages first, holding one page of each tree
//! level ([`node`], [`tree`]). So a file of any size can go into a socket.
//!
//! Reading: [`Database::open`] chooses the newest valid meta page; a [`Cursor`] walks a bucket in order, one page of each level in memory, and
//! checks what it meets: page ids, kinds, bounds, the order of keys, and that no page is met twice. [`Database::check`] does so for
//! all buckets and accounts for every page, as bbolt's own check does.
//!
//! What is not here: changing a file, transactions, memory maps, locks. The format is little-endian as bbolt writes it on every
//! platform that etcd supports.

mod check;
mod cursor;
mod database;
mod error;
mod format;
mod node;
mod tree;
mod writer;

pub use cursor::{Cursor, Item};
pub use database::{Bucket, Database};
pub use error::{Error, Fault, WriteError};
pub use format::PAGE_BYTES;
pub use writer::{Layout, Plan, Writer};
