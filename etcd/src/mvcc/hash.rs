//! etcd's HashKV: a CRC-32C over the name of its bucket and every revision in order, so that members of either kind compare equal.

use super::key::KeyRange;
use super::{Error, Store};
use crate::storage::record::Version;

const BATCH: usize = 4096;

pub struct KvHash {
    pub hash: u32,
    pub compacted: i64,
    /// The revision up to which it was computed.
    pub revision: i64,
}

impl Store {
    pub fn hash_kv(&self, asked: i64) -> Result<KvHash, Error> {
        let current = self.current();
        if asked != 0 && asked < self.compacted() {
            return Err(Error::Compacted);
        }
        let revision = if asked == 0 { current } else { asked };
        if revision > current {
            return Err(Error::FutureRevision);
        }
        let compacted = self.compacted();
        let segments = self.storage.segments();
        let mut versions = self.versions_up_to(revision);
        versions.sort_unstable_by_key(|version| (version.main, version.sub));
        let mut hash = crc32c::crc32c(b"key");
        for batch in versions.chunks(BATCH) {
            let locs: Vec<_> = batch.iter().map(|version| version.loc).collect();
            for (version, kv) in batch.iter().zip(self.storage.read_many(&segments, &locs)?) {
                hash = crc32c::crc32c_append(hash, &revision_key(version));
                hash = crc32c::crc32c_append(hash, &kv);
            }
        }
        self.still_there(revision)?;
        Ok(KvHash {
            hash,
            compacted,
            revision,
        })
    }

    fn versions_up_to(&self, revision: i64) -> Vec<Version> {
        let mut versions = Vec::new();
        self.walk_history(&KeyRange::all(), |_, history| {
            versions.extend(history.iter().filter(|version| version.main <= revision));
        });
        versions
    }
}

/// The key of a revision in etcd's bucket: main, `_`, sub, and `t` behind a tombstone.
pub fn revision_key(version: &Version) -> Vec<u8> {
    let mut key = Vec::with_capacity(18);
    key.extend_from_slice(&version.main.to_be_bytes());
    key.push(b'_');
    key.extend_from_slice(&i64::from(version.sub).to_be_bytes());
    if version.is_tombstone() {
        key.push(b't');
    }
    key
}
