//! From a bbolt file to a store of ours.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bbolt::Database;
use bytes::{BufMut as _, Bytes};

use super::read::{self, Contents, KeyRow};
use super::{SnapshotError, schema};
use crate::disk::Disk;
use crate::meta;
use crate::storage::keeper::Keeper;
use crate::storage::manifest::Durable;
use crate::storage::reclaim::{Liveness, Move};
use crate::storage::record::{FrameHeader, Loc, Version};
use crate::storage::{self, Storage, Writer};
use crate::wal::format::Ids;

/// Makes a store of everything that the snapshot of a leader holds: keys, leases, members, raft's index. `dir` must be empty or not exist; the store is
/// durable on return, and [`crate::storage::load`] opens it. On an error `dir` holds leftovers and no store.
pub fn whole(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    ids: Ids,
    database: &Database,
) -> Result<FrameHeader, SnapshotError> {
    let contents = read::contents(database)?;
    store(disk, dir, ids, database, contents, 0, |_| ())
}

/// Makes a store of the keys of `database` and of `contents`, which the caller may have changed; `bump` is added to the newest revision, which then
/// counts as compacted. `also` writes what the caller adds to the meta.
pub fn store(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    ids: Ids,
    database: &Database,
    contents: Contents,
    bump: i64,
    also: impl FnOnce(&mut Writer),
) -> Result<FrameHeader, SnapshotError> {
    if contents.auth_enabled && !schema::is_mapped(schema::AUTH.as_bytes()) {
        return Err(SnapshotError::Auth {
            file: database.path().to_owned(),
        });
    }
    disk.create_dir(dir).map_err(SnapshotError::io(dir))?;
    let mut loader = Loader::new(disk, dir, ids, &contents)?;
    read::each_key(database, |_, value, row| loader.row(database, row, value))?;
    loader.finish(contents, bump, also)
}

struct Loader<'a> {
    dir: &'a Path,
    ids: Ids,
    storage: Arc<Storage>,
    writer: Writer,
    frame: FrameHeader,
}

impl<'a> Loader<'a> {
    fn new(
        disk: &Arc<dyn Disk>,
        dir: &'a Path,
        ids: Ids,
        contents: &Contents,
    ) -> Result<Self, SnapshotError> {
        let storage = Arc::new(Storage::new(
            disk.clone(),
            dir.to_owned(),
            ids.cluster,
            storage::SEGMENT_BYTES,
            Vec::new(),
        ));
        let frame = FrameHeader {
            index: contents.index,
            term: contents.term,
            revision: 1,
        };
        let writer = Writer::new(storage.clone(), None, Default::default(), FrameHeader::default())
            .map_err(SnapshotError::io(dir))?;
        Ok(Loader {
            dir,
            ids,
            storage,
            writer,
            frame,
        })
    }

    /// A stored KeyValue is the same bytes on both sides.
    fn row(&mut self, database: &Database, row: KeyRow, value: &[u8]) -> Result<(), SnapshotError> {
        self.frame.revision = row.main;
        // `etcdutl snapshot restore --bump-revision` leaves one without a key: it says only what the newest revision is.
        if row.kv.key.is_empty() {
            return Ok(());
        }
        let (version, is_whole) = version_of(&row);
        if !is_whole {
            let what = format!("the revision {}/{} does not fit its key", row.main, row.sub);
            return Err(SnapshotError::content(database.path(), what));
        }
        self.writer.put(version, |out| out.put_slice(value));
        self.flush_if(self.writer.frame_is_large())
    }

    fn flush_if(&mut self, wanted: bool) -> Result<(), SnapshotError> {
        if !wanted {
            return Ok(());
        }
        self.writer
            .flush(self.frame)
            .and_then(|_| self.writer.roll_if_full())
            .map_err(SnapshotError::io(self.dir))?;
        Ok(())
    }

    /// Only the newest segment's meta counts, so it comes last.
    fn finish(
        mut self,
        contents: Contents,
        bump: i64,
        also: impl FnOnce(&mut Writer),
    ) -> Result<FrameHeader, SnapshotError> {
        self.flush_if(true)?;
        for ((bucket, key), value) in contents.meta {
            self.writer.set_meta(bucket, key, value);
        }
        self.frame.revision = self.frame.revision.max(contents.compacted) + bump;
        let compacted = if bump > 0 {
            self.frame.revision
        } else {
            contents.compacted
        };
        if compacted > 0 {
            meta::put_compacted(&mut self.writer, compacted);
        }
        also(&mut self.writer);
        self.writer
            .flush(self.frame)
            .map_err(SnapshotError::io(self.dir))?;
        let mut keeper = Keeper::new(
            self.storage,
            self.ids.member,
            self.writer.written(),
            Arc::new(NoIndex),
            Durable::default(),
        );
        keeper.checkpoint().map_err(SnapshotError::io(self.dir))
    }
}

/// As the index needs it, and whether the key and the value say the same.
fn version_of(row: &KeyRow) -> (Version, bool) {
    let (kv, sub) = (&row.kv, u32::try_from(row.sub));
    let version = Version {
        main: row.main,
        create: kv.create_revision,
        version: kv.version,
        lease: kv.lease,
        sub: sub.unwrap_or(0),
        loc: Loc::default(),
    };
    let is_whole = match row.is_tombstone {
        true => kv.version == 0,
        false => kv.version > 0 && kv.mod_revision == row.main,
    };
    (version, is_whole && sub.is_ok())
}

/// Nothing is reclaimed while a store is made.
struct NoIndex;

impl Liveness for NoIndex {
    fn live(&self, items: &[(Bytes, Version)]) -> Vec<bool> {
        vec![true; items.len()]
    }

    fn relocate(&self, moves: &[Move]) -> Vec<bool> {
        vec![false; moves.len()]
    }
}

/// Whether a directory holds anything.
pub(super) fn is_empty_or_missing(dir: &Path) -> io::Result<bool> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}
