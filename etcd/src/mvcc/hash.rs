//! etcd's hash of the keys, over the same bytes in the same order, so that members of either kind compare equal.

use super::index;
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
        let mut versions = self.hashed_versions(Hashed { compacted, revision });
        versions.sort_unstable_by_key(|version| (version.main, version.sub));
        let mut hasher = KvHasher::new();
        for batch in versions.chunks(BATCH) {
            let locs: Vec<_> = batch.iter().map(|version| version.loc).collect();
            for (version, kv) in batch.iter().zip(self.storage.read_many(&segments, &locs)?) {
                hasher.add(&revision_key(version), &kv);
            }
        }
        self.still_there(revision)?;
        Ok(KvHash {
            hash: hasher.finish(),
            compacted: shown_compacted(compacted),
            revision,
        })
    }

    fn hashed_versions(&self, hashed: Hashed) -> Vec<Version> {
        let (mut versions, mut doomed) = (Vec::new(), Vec::new());
        let mut any_live = false;
        self.walk_history(&KeyRange::all(), |_, history| {
            let live = index::at(history, hashed.revision).map(|version| (version.main, version.sub));
            any_live |= live.is_some();
            for version in history {
                match hashed.is_hashed(
                    version.main,
                    version.is_tombstone(),
                    live == Some((version.main, version.sub)),
                ) {
                    Verdict::Yes => versions.push(*version),
                    Verdict::UnlessAnyLive => doomed.push(*version),
                    Verdict::No => {}
                }
            }
        });
        if !any_live {
            versions.append(&mut doomed);
        }
        versions
    }
}

/// Which revisions etcd hashes.
#[derive(Clone, Copy)]
pub struct Hashed {
    pub compacted: i64,
    pub revision: i64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Yes,
    No,
    /// Hashed only when no key is live at the hash's revision.
    UnlessAnyLive,
}

impl Hashed {
    /// Of what lies at or before the compacted revision only versions count that are live at the hash's revision: a member that has not
    /// finished its compaction gets the same. A tombstone at the compacted revision itself is kept by some versions and never hashed.
    pub fn is_hashed(&self, main: i64, is_tombstone: bool, is_live: bool) -> Verdict {
        if main > self.revision || (main == self.compacted && is_tombstone) {
            return Verdict::No;
        }
        match main > self.compacted || is_live {
            true => Verdict::Yes,
            false => Verdict::UnlessAnyLive,
        }
    }
}

/// etcd says -1 before the first compaction.
pub fn shown_compacted(compacted: i64) -> i64 {
    if compacted == 0 { -1 } else { compacted }
}

pub struct KvHasher {
    hash: u32,
}

impl KvHasher {
    /// Begins with the bucket's name, as etcd does.
    #[allow(
        clippy::new_without_default,
        reason = "an empty hash is not a default of anything"
    )]
    pub fn new() -> KvHasher {
        KvHasher {
            hash: crc32c::crc32c(b"key"),
        }
    }

    pub fn add(&mut self, key: &[u8], kv: &[u8]) {
        self.hash = crc32c::crc32c_append(self.hash, key);
        self.hash = crc32c::crc32c_append(self.hash, kv);
    }

    pub fn finish(self) -> u32 {
        self.hash
    }
}

/// The key of a revision in etcd's bucket.
pub fn revision_key(version: &Version) -> Vec<u8> {
    bucket_key(version.main, version.sub.into(), version.is_tombstone())
}

/// Main, `_`, sub, and `t` behind a tombstone.
pub fn bucket_key(main: i64, sub: i64, is_tombstone: bool) -> Vec<u8> {
    let mut key = Vec::with_capacity(18);
    key.extend_from_slice(&main.to_be_bytes());
    key.push(b'_');
    key.extend_from_slice(&sub.to_be_bytes());
    if is_tombstone {
        key.push(b't');
    }
    key
}
