//! Opening a snapshot file, and what it says about itself.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bbolt::Database;
use bytes::Bytes;
use etcd_api::mvccpb::KeyValue;
use prost::Message as _;
use ring::digest::{Context, SHA256};
use rustix::fs::FlockOperation;

use super::SnapshotError;
use super::schema;
use crate::mvcc;
use crate::mvcc::hash::{Hashed, KvHash, KvHasher, Verdict, shown_compacted};
use crate::storage::writer::Meta;

const HASH_BYTES: u64 = 32;
/// Pages are multiples of this; what is over by a hash's length has a hash.
const SECTOR_BYTES: u64 = 512;
const READ_BYTES: usize = 256 * 1024;

/// What `etcdutl snapshot status` tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub hash: u32,
    pub revision: i64,
    pub total_key: usize,
    pub total_size: u64,
    /// Empty before etcd 3.6.
    pub version: String,
}

/// Everything but the keys.
#[derive(Debug, Default)]
pub struct Contents {
    pub meta: Meta,
    pub index: u64,
    pub term: u64,
    pub compacted: i64,
    pub storage_version: String,
    /// As the file says, whether or not this version knows authentication.
    pub auth_enabled: bool,
}

/// Opens a snapshot, or a database copied from a data directory, and checks its hash unless told not to.
pub fn open(path: &Path, skip_hash_check: bool) -> Result<Database, SnapshotError> {
    refuse_in_use(path)?;
    if !skip_hash_check {
        check_hash(path)?;
    }
    Ok(Database::open(path)?)
}

/// bbolt locks its file; what is read while etcd writes it is torn.
fn refuse_in_use(path: &Path) -> Result<(), SnapshotError> {
    let file = File::open(path).map_err(SnapshotError::io(path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err(SnapshotError::InUse {
            file: path.to_owned(),
        }),
        // Some file systems have no locks; then nothing can be known.
        _ => Ok(()),
    }
}

fn check_hash(path: &Path) -> Result<(), SnapshotError> {
    let io = SnapshotError::io;
    let file = File::open(path).map_err(io(path))?;
    let length = file.metadata().map_err(io(path))?.len();
    if length % SECTOR_BYTES != HASH_BYTES {
        return Err(SnapshotError::NoHash {
            file: path.to_owned(),
        });
    }
    let (mut context, mut offset) = (Context::new(&SHA256), 0);
    let mut buffer = vec![0; READ_BYTES];
    while offset < length - HASH_BYTES {
        let piece = (length - HASH_BYTES - offset).min(READ_BYTES as u64) as usize;
        file.read_exact_at(&mut buffer[..piece], offset)
            .map_err(io(path))?;
        context.update(&buffer[..piece]);
        offset += piece as u64;
    }
    let mut expected = [0; HASH_BYTES as usize];
    file.read_exact_at(&mut expected, offset).map_err(io(path))?;
    let found = context.finish();
    if found.as_ref() != expected {
        return Err(SnapshotError::Hash {
            file: path.to_owned(),
            expected: hex(&expected),
            found: hex(found.as_ref()),
        });
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One row of the bucket of keys.
pub struct KeyRow {
    pub main: i64,
    pub sub: i64,
    pub is_tombstone: bool,
    pub kv: KeyValue,
}

impl KeyRow {
    pub fn decode(key: &[u8], value: &[u8]) -> Option<KeyRow> {
        let (main, sub, is_tombstone) = revision_of(key)?;
        let kv = KeyValue::decode(Bytes::copy_from_slice(value)).ok()?;
        Some(KeyRow {
            main,
            sub,
            is_tombstone,
            kv,
        })
    }
}

/// Main, sub and whether it is a tombstone's.
pub fn revision_of(key: &[u8]) -> Option<(i64, i64, bool)> {
    let is_tombstone = match key.get(17..)? {
        [] => false,
        [b't'] => true,
        _ => return None,
    };
    if key[8] != b'_' {
        return None;
    }
    let main = i64::from_be_bytes(key[..8].try_into().ok()?);
    let sub = i64::from_be_bytes(key[9..17].try_into().ok()?);
    (main >= 0 && sub >= 0).then_some((main, sub, is_tombstone))
}

/// Calls `visit` with every row of the bucket of keys, in the order of revisions; the value comes undecoded too.
pub fn each_key(
    database: &Database,
    mut visit: impl FnMut(&[u8], &[u8], KeyRow) -> Result<(), SnapshotError>,
) -> Result<(), SnapshotError> {
    let Some(bucket) = database.bucket(schema::KEY.as_bytes())? else {
        return Ok(());
    };
    let mut cursor = database.cursor(&bucket)?;
    while let Some(item) = cursor.next()? {
        let row = KeyRow::decode(item.key, item.value).ok_or_else(|| bad_key(database, item.page))?;
        visit(item.key, item.value, row)?;
    }
    Ok(())
}

fn bad_key(database: &Database, page: u64) -> SnapshotError {
    SnapshotError::content(
        database.path(),
        format!("a revision in page {page} cannot be decoded"),
    )
}

/// Checks every page, and hashes every row as etcd does.
pub fn status(database: &Database) -> Result<Status, SnapshotError> {
    database.check()?;
    let mut status = Status {
        total_size: database.bytes(),
        version: contents(database)?.storage_version,
        ..Status::default()
    };
    let mut keys = HashSet::new();
    for bucket in database.buckets()? {
        status.hash = crc32c::crc32c_append(status.hash, &bucket.name);
        let is_key = bucket.name == schema::KEY.as_bytes();
        let mut cursor = database.cursor(&bucket)?;
        while let Some(item) = cursor.next()? {
            status.hash = crc32c::crc32c_append(status.hash, item.key);
            status.hash = crc32c::crc32c_append(status.hash, item.value);
            if !is_key {
                continue;
            }
            let row = KeyRow::decode(item.key, item.value).ok_or_else(|| bad_key(database, item.page))?;
            status.revision = row.main;
            match row.is_tombstone {
                true => keys.remove(&row.kv.key),
                // A slice of the row would keep all of the row.
                false => keys.insert(Bytes::copy_from_slice(&row.kv.key)),
            };
        }
    }
    status.total_key = keys.len();
    Ok(status)
}

/// The newest revision of a key up to the hash's, and whether the key lives.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Newest {
    main: i64,
    sub: i64,
    lives: bool,
}

/// What `HashKV` of the member would answer for `asked`, 0 being the newest revision.
pub fn hash_kv(database: &Database, asked: i64) -> Result<KvHash, SnapshotError> {
    let compacted = contents(database)?.compacted;
    let mut current = compacted.max(1);
    each_key(database, |_, _, row| {
        current = current.max(row.main);
        Ok(())
    })?;
    if asked > 0 && asked < compacted {
        return Err(mvcc::Error::Compacted.into());
    }
    if asked > current {
        return Err(mvcc::Error::FutureRevision.into());
    }
    let revision = if asked > 0 { asked } else { current };
    let newest = newest_up_to(database, revision)?;
    let any_live = newest.values().any(|newest| newest.lives);
    let hashed = Hashed { compacted, revision };
    let mut hasher = KvHasher::new();
    each_key(database, |key, value, row| {
        let is_live = newest.get(&row.kv.key)
            == Some(&Newest {
                main: row.main,
                sub: row.sub,
                lives: true,
            });
        let verdict = hashed.is_hashed(row.main, row.is_tombstone, is_live);
        if verdict == Verdict::Yes || (verdict == Verdict::UnlessAnyLive && !any_live) {
            hasher.add(key, value);
        }
        Ok(())
    })?;
    Ok(KvHash {
        hash: hasher.finish(),
        compacted: shown_compacted(compacted),
        revision,
    })
}

fn newest_up_to(database: &Database, revision: i64) -> Result<HashMap<Bytes, Newest>, SnapshotError> {
    let mut newest = HashMap::new();
    each_key(database, |_, _, row| {
        if row.main <= revision {
            let of_key = Newest {
                main: row.main,
                sub: row.sub,
                lives: !row.is_tombstone,
            };
            newest.insert(Bytes::copy_from_slice(&row.kv.key), of_key);
        }
        Ok(())
    })?;
    Ok(newest)
}

/// Reads all buckets but the keys'.
pub fn contents(database: &Database) -> Result<Contents, SnapshotError> {
    let mut contents = Contents::default();
    for bucket in database.buckets()? {
        if bucket.name == schema::KEY.as_bytes() {
            continue;
        }
        let mut cursor = database.cursor(&bucket)?;
        while let Some(item) = cursor.next()? {
            let taken = schema::import(&bucket.name, item.key, item.value, &mut contents.meta)
                && contents.own(&bucket.name, item.key, item.value).is_some();
            if !taken {
                let what = format!(
                    "key {:?} of bucket {:?} cannot be decoded",
                    String::from_utf8_lossy(item.key),
                    String::from_utf8_lossy(&bucket.name)
                );
                return Err(SnapshotError::content(database.path(), what));
            }
        }
    }
    Ok(contents)
}

impl Contents {
    /// What is no row of ours. None when it cannot be decoded.
    fn own(&mut self, bucket: &[u8], key: &[u8], value: &[u8]) -> Option<()> {
        if bucket == schema::AUTH.as_bytes() && key == schema::AUTH_ENABLED {
            self.auth_enabled = value == [1];
        }
        if bucket != schema::META.as_bytes() {
            return Some(());
        }
        match key {
            schema::CONSISTENT_INDEX => self.index = u64::from_be_bytes(value.try_into().ok()?),
            schema::TERM => self.term = u64::from_be_bytes(value.try_into().ok()?),
            schema::STORAGE_VERSION => self.storage_version = String::from_utf8_lossy(value).into_owned(),
            // What was scheduled will be finished by whoever opens the store.
            schema::SCHEDULED_COMPACT | schema::FINISHED_COMPACT => {
                self.compacted = self.compacted.max(revision_of(value)?.0)
            }
            _ => {}
        }
        Some(())
    }
}
