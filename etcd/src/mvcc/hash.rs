//! etcd's hash of the keys, over the same bytes in the same order, so that members of either kind compare equal.

pub mod compaction;

use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::index;
use super::key::KeyRange;
use super::rows::{Collector, Row};
use super::{Error, Store};
use crate::storage::fetch::Fetched;
use crate::storage::{Segments, Storage};

const BATCH: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvHash {
    pub hash: u32,
    pub compacted: i64,
    /// The revision up to which it was computed.
    pub revision: i64,
}

impl Store {
    /// The hash at a revision, 0 for the current one; one that was kept from a compaction stands for its revision.
    pub fn hash_kv(&self, asked: i64) -> Result<KvHash, Error> {
        if let Some(kept) = self.hashes.at(asked) {
            return Ok(kept);
        }
        let (current, compacted) = (self.current(), self.compacted());
        if asked != 0 && asked < compacted {
            return Err(Error::Compacted);
        }
        let revision = if asked == 0 { current } else { asked };
        if revision > current {
            return Err(Error::FutureRevision);
        }
        let hash = self
            .plan_hash(Hashed { compacted, revision })?
            .compute(&self.storage, Pace::Full)?;
        self.still_there(revision)?;
        Ok(hash)
    }

    /// What is to be hashed, without its values.
    fn plan_hash(&self, hashed: Hashed) -> io::Result<HashPlan> {
        let all = KeyRange::all();
        let mut any_live = false;
        self.walk(&all, hashed.revision, |_, _| {
            any_live = true;
            ControlFlow::Break(())
        });
        let mut collector = Collector::new(self);
        self.walk_history(&all, 0, |_, history| {
            let live = index::at(history, hashed.revision).map(|version| (version.main, version.sub));
            for version in history {
                let is_live = live == Some((version.main, version.sub));
                match hashed.is_hashed(version.main, version.is_tombstone(), is_live) {
                    Verdict::Yes => collector.add(version),
                    Verdict::UnlessAnyLive if !any_live => collector.add(version),
                    Verdict::UnlessAnyLive | Verdict::No => {}
                }
            }
        });
        let (rows, segments) = collector.finish()?;
        Ok(HashPlan {
            hashed,
            rows,
            segments,
        })
    }
}

/// How much of a processor a hash may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    Full,
    /// Rests as long as it works: nobody waits for it.
    Half,
}

/// The rows of a hash. It holds their segments: neither compaction nor reclaiming waits for it.
pub struct HashPlan {
    hashed: Hashed,
    rows: Vec<Row>,
    segments: Segments,
}

impl HashPlan {
    pub fn compute(&self, storage: &Storage, pace: Pace) -> io::Result<KvHash> {
        let mut hasher = KvHasher::new();
        let mut fetched = Fetched::default();
        for batch in self.rows.chunks(BATCH) {
            let start = Instant::now();
            let locs: Vec<_> = batch.iter().map(|row| row.loc).collect();
            fetched.read(storage, &self.segments, &locs)?;
            for (row, kv) in batch.iter().zip(fetched.iter()) {
                hasher.add(&bucket_key(row.main, row.sub.into(), row.is_tombstone), kv);
            }
            if pace == Pace::Half {
                std::thread::sleep(start.elapsed().min(MAX_REST));
            }
        }
        Ok(KvHash {
            hash: hasher.finish(),
            compacted: shown_compacted(self.hashed.compacted),
            revision: self.hashed.revision,
        })
    }
}

/// A slow disk is no reason to hold segments for long.
const MAX_REST: Duration = Duration::from_millis(50);

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

/// The key of a revision in etcd's bucket: main, `_`, sub, and `t` behind a tombstone.
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
