//! The hub as everyone else knows it: an inbox and a few counters. [`thread`] owns all watchers; it tells those that are present of a frame
//! in [`dispatch`], and lets those that are not go on in [`behind`].

mod behind;
mod dispatch;
mod recent;
mod stream;
mod thread;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use etcd_api::etcdserverpb::{ResponseHeader, WatchCreateRequest};

pub use self::stream::slow_watchers;
pub use self::thread::HubThread;
use super::Batch;
use super::catch_up::Piece;
use super::outbox::Outbox;
use crate::metrics;
use crate::raft::inbox::Inbox;

/// etcd's id in answers that are about no watcher or about all of them.
pub const INVALID_WATCH_ID: i64 = -1;

/// Fills in the header of a response for a revision.
pub type Header = Arc<dyn Fn(i64) -> ResponseHeader + Send + Sync>;

/// Everything that can happen to watchers; the first number is the stream's.
pub enum HubEvent {
    Batch(Batch),
    Open(u64, Arc<Outbox>),
    Create(u64, WatchCreateRequest),
    /// A creation that its user may not have, with the reason.
    Refuse(u64, String),
    Cancel(u64, i64),
    Progress(u64),
    CaughtUp(Piece),
    Drained(u64),
    Close(u64),
    Tick,
    Stop,
}

#[derive(Default)]
pub struct Hub {
    events: Inbox<HubEvent>,
    watchers: AtomicUsize,
    streams: AtomicI64,
}

impl Hub {
    pub fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::SeqCst) > 0
    }

    pub fn watchers(&self) -> usize {
        self.watchers.load(Ordering::SeqCst)
    }

    pub fn publish(&self, batch: Batch) {
        self.events.push(HubEvent::Batch(batch));
    }

    pub fn is_idle(&self) -> bool {
        self.events.is_empty()
    }

    /// Everything that waits, into the empty `batch`; blocks while there is nothing, at most `timeout`.
    pub fn drain(&self, batch: &mut Vec<HubEvent>, timeout: Option<Duration>) {
        self.events.drain(batch, timeout);
    }

    pub fn send(&self, event: HubEvent) {
        self.events.push(event);
    }

    pub fn open(&self, outbox: Arc<Outbox>) -> u64 {
        let id = self.streams.fetch_add(1, Ordering::Relaxed) as u64;
        metrics::WATCH_STREAMS.inc();
        self.send(HubEvent::Open(id, outbox));
        id
    }
}
