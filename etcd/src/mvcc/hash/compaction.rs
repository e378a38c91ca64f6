//! Hashes of what compactions found: members drop the same history at the same revision, and compare what they had there.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::warn;

use super::{HashPlan, Hashed, KvHash, Pace};
use crate::mvcc::Store;

/// etcd's.
const KEPT: usize = 10;

/// The newest hashes, and the next to be computed.
#[derive(Default)]
pub struct CompactionHashes {
    wanted: AtomicBool,
    kept: Mutex<VecDeque<KvHash>>,
    planned: Mutex<Option<HashPlan>>,
    changed: Notify,
}

impl CompactionHashes {
    /// Whether there is anybody to compare with.
    pub fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    pub fn at(&self, revision: i64) -> Option<KvHash> {
        let kept = self.kept.lock();
        kept.iter().find(|hash| hash.revision == revision).copied()
    }

    /// Newest first.
    pub fn newest(&self) -> Vec<KvHash> {
        self.kept.lock().iter().copied().collect()
    }

    fn keep(&self, hash: KvHash) {
        let mut kept = self.kept.lock();
        kept.push_front(hash);
        kept.truncate(KEPT);
    }

    /// What they were computed from is not this store's past any more.
    pub fn forget(&self) {
        *self.planned.lock() = None;
        self.kept.lock().clear();
    }
}

impl Store {
    /// Before a compaction drops anything. A plan that nobody has taken yet gives way: the newest tells the most.
    pub(in crate::mvcc) fn plan_compaction_hash(&self, revision: i64) {
        let compacted = self.swept.fetch_max(revision, Ordering::SeqCst);
        if compacted >= revision || !self.hashes.wanted.load(Ordering::Relaxed) {
            return;
        }
        match self.plan_hash(Hashed { compacted, revision }) {
            Ok(plan) => {
                *self.hashes.planned.lock() = Some(plan);
                self.hashes.changed.notify_one();
            }
            Err(error) => {
                warn!("compact-revision" = revision, error = %error, "a compaction is not hashed")
            }
        }
    }

    /// Computes what compactions have planned; never returns.
    pub async fn hash_compactions(self: Arc<Self>) {
        loop {
            self.hashes.changed.notified().await;
            let store = self.clone();
            let computed = tokio::task::spawn_blocking(move || store.compute_planned()).await;
            if let Err(error) = computed.unwrap_or_else(|error| Err(io::Error::other(error))) {
                warn!(error = %error, "failed to hash what a compaction found");
            }
        }
    }

    pub(in crate::mvcc) fn compute_planned(&self) -> io::Result<()> {
        let Some(plan) = self.hashes.planned.lock().take() else {
            return Ok(());
        };
        let installed = self.storage.installed.load(Ordering::SeqCst);
        let hash = plan.compute(&self.storage, Pace::Half)?;
        // The plan may be of a store that was replaced meanwhile.
        if self.storage.installed.load(Ordering::SeqCst) == installed {
            self.hashes.keep(hash);
        }
        Ok(())
    }
}
