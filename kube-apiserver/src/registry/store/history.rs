//! The resource as it was at an earlier revision, for the later pages of a list and for exact reads.
//!
//! A snapshot costs nothing to keep but the objects that changed since, so the last few that readers asked for are kept; what
//! is not kept is listed from etcd, which answers until the revision is compacted.

use std::collections::VecDeque;

use apimachinery::status::StatusError;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{Store, persist};
use crate::storage::etcd::prefix_end;
use crate::storage::watch_cache::{Snapshot, object_key};

/// Snapshots kept for each resource: lists in progress at the same time.
const KEPT: usize = 16;

const PAGE: i64 = 2000;

#[derive(Default)]
pub struct History {
    kept: Mutex<VecDeque<(i64, Snapshot)>>,
}

impl History {
    fn find(&self, revision: i64) -> Option<Snapshot> {
        self.kept
            .lock()
            .iter()
            .find(|(kept, _)| *kept == revision)
            .map(|(_, snapshot)| snapshot.clone())
    }

    fn keep(&self, revision: i64, snapshot: &Snapshot) {
        let mut kept = self.kept.lock();
        if kept.iter().any(|(own, _)| *own == revision) {
            return;
        }
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((revision, snapshot.clone()));
    }
}

impl Store {
    /// Keeps a snapshot for the pages that follow.
    pub fn keep(&self, revision: i64, snapshot: &Snapshot) {
        self.history.keep(revision, snapshot);
    }

    /// The resource exactly as of `revision`.
    pub async fn at(&self, revision: i64) -> Result<(Snapshot, i64), StatusError> {
        if let Some(snapshot) = self.history.find(revision) {
            return Ok((snapshot, revision));
        }
        self.reached(revision).await?;
        let (snapshot, now) = self.now();
        // Nothing of this resource changed since: what is there now is what was there then.
        if snapshot.revision <= revision && revision <= now {
            return Ok((snapshot, revision));
        }
        let snapshot = self.list_etcd(revision).await?;
        self.history.keep(revision, &snapshot);
        Ok((snapshot, revision))
    }

    async fn list_etcd(&self, revision: i64) -> Result<Snapshot, StatusError> {
        let mut snapshot = Snapshot {
            revision,
            ..Default::default()
        };
        let mut start = Bytes::from(self.key_prefix.clone());
        let end = prefix_end(&start);
        loop {
            let page = self.backend.etcd.page(start, end.clone(), PAGE, revision).await?;
            for kv in &page.kvs {
                let object = persist::read(self, kv)?;
                snapshot
                    .objects
                    .insert(object_key(&object.namespace, &object.name).into(), object);
            }
            match page.kvs.last().filter(|_| page.more) {
                Some(last) => start = [&last.key[..], b"\0"].concat().into(),
                None => return Ok(snapshot),
            }
        }
    }
}
