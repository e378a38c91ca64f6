//! From the live store to a bbolt file, in one pass over the values.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;

use bbolt::{Layout, Plan, WriteError, Writer};
use ring::digest::{Context, SHA256};

use super::SnapshotError;
use super::schema::{self, Rows};
use super::view::View;
use crate::metrics;
use crate::mvcc::hash::bucket_key;
use crate::mvcc::rows::Row;
use crate::mvcc::{self, Store};
use crate::storage::Segments;
use crate::storage::fetch::Fetched;
use crate::storage::record::{Loc, RECORD_HEADER_BYTES};

/// Values are fetched in pieces of at most so many, and so many bytes.
const PIECE_ROWS: usize = 1024;
const PIECE_BYTES: usize = 1024 * 1024;

/// A snapshot that is ready to be written. It holds the segments that its values lie in: reclaiming does not wait, only their disk space does.
pub struct Export {
    store: Arc<Store>,
    segments: Segments,
    rows: Vec<Row>,
    small: Rows,
    layout: Layout,
    pub index: u64,
    pub term: u64,
    pub revision: i64,
    start: Instant,
}

impl Drop for Export {
    fn drop(&mut self) {
        metrics::BACKEND_SNAPSHOT.observe_since(self.start);
    }
}

impl Export {
    /// `ask` gets the view from the apply thread; None when that has stopped. Blocks for as long as a walk over the index takes.
    pub fn take(store: &Arc<Store>, ask: impl FnOnce() -> Option<View>) -> Result<Export, SnapshotError> {
        let start = Instant::now();
        let held = store.hold_history();
        let view = ask().ok_or(SnapshotError::Stopped)?;
        let (rows, segments) = view.rows(store).map_err(mvcc::Error::Io)?;
        drop(held);
        let small = schema::export(&view)?;
        let layout = plan(&rows, &small)?;
        Ok(Export {
            store: store.clone(),
            segments,
            rows,
            small,
            layout,
            index: view.index,
            term: view.term,
            revision: view.revision,
            start,
        })
    }

    /// Size of the database, without the hash.
    pub fn bytes(&self) -> u64 {
        self.layout.bytes()
    }

    /// The database and then, as etcd's snapshot files have it, its SHA-256.
    pub fn write(&self, out: impl Write) -> Result<(), SnapshotError> {
        let hashing = Hashing {
            out,
            context: Context::new(&SHA256),
        };
        let mut hashing = self.write_database(hashing)?;
        let sum = hashing.context.finish();
        hashing.out.write_all(sum.as_ref()).map_err(WriteError::Io)?;
        Ok(())
    }

    /// Without the hash.
    pub fn write_database<W: Write>(&self, out: W) -> Result<W, SnapshotError> {
        let mut writer = Writer::new(self.layout, out)?;
        for (bucket, items) in self.small.each() {
            writer.bucket(bucket.as_bytes())?;
            if bucket == schema::KEY {
                self.write_keys(&mut writer)?;
            }
            for (key, value) in items {
                writer.item(key, value)?;
            }
        }
        Ok(writer.finish()?)
    }

    fn write_keys<W: Write>(&self, writer: &mut Writer<W>) -> Result<(), SnapshotError> {
        let mut rest = &self.rows[..];
        let mut fetched = Fetched::default();
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(piece_length(rest));
            let locs: Vec<Loc> = piece.iter().map(|row| row.loc).collect();
            let read = fetched.read(&self.store.storage, &self.segments, &locs);
            read.map_err(mvcc::Error::Io)?;
            for (row, kv) in piece.iter().zip(fetched.iter()) {
                writer.item(&key(row), kv)?;
            }
            rest = tail;
        }
        Ok(())
    }
}

fn plan(rows: &[Row], small: &Rows) -> Result<Layout, SnapshotError> {
    let mut plan = Plan::default();
    for (bucket, items) in small.each() {
        plan.bucket(bucket.as_bytes())?;
        if bucket == schema::KEY {
            for row in rows {
                plan.item(&key(row), row.loc.length as usize - RECORD_HEADER_BYTES)?;
            }
        }
        for (key, value) in items {
            plan.item(key, value.len())?;
        }
    }
    Ok(plan.finish()?)
}

fn key(row: &Row) -> Vec<u8> {
    bucket_key(row.main, row.sub.into(), row.is_tombstone)
}

fn piece_length(rows: &[Row]) -> usize {
    let mut bytes = 0;
    let fits = |row: &&Row| {
        bytes += row.loc.length as usize;
        bytes <= PIECE_BYTES
    };
    rows.iter().take(PIECE_ROWS).take_while(fits).count().max(1)
}

struct Hashing<W> {
    out: W,
    context: Context,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.context.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
