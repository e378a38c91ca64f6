//! The apply thread's jobs, and its turn.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use raft::eraftpb::Entry;
use tracing::{info, warn};

use crate::apply::{Applier, Arrived};
use crate::metrics;
use crate::raft::stage::Worker;
use crate::server::EtcdServer;
use crate::snapshot::View;

/// How often a full disk is asked for the store's next segment.
const FULL_RETRY: Duration = Duration::from_millis(500);

pub enum ApplyJob {
    Entries(Vec<Entry>),
    /// A store that takes the place of this one.
    Install(Box<Arrived>),
    Reserve,
    /// What a snapshot taken now holds.
    View(std::sync::mpsc::Sender<View>),
    Stop,
}

/// The worker of the apply thread.
pub struct Applying {
    applier: Applier,
    server: Arc<EtcdServer>,
}

impl Applying {
    pub fn new(mut applier: Applier, server: Arc<EtcdServer>) -> Self {
        applier.reserve();
        Applying { applier, server }
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        let Some(last) = entries.last().map(|entry| entry.index) else {
            return;
        };
        let (server, count, start) = (&self.server, entries.len(), Instant::now());
        self.applier.apply(entries);
        let (took, expected) = (start.elapsed(), server.limits.warning_apply);
        if took > expected {
            warn!(took = ?took, "expected-duration" = ?expected, entries = count, "apply request took too long");
            metrics::SLOW_APPLY.inc();
        }
        self.applied(last);
        server.raft.wake_to_campaign(&server.events);
    }

    fn install(&mut self, arrived: Arrived) {
        let (index, start) = (arrived.imported.frame.index, Instant::now());
        metrics::INSTALLING.set(1.0);
        self.applier.install(arrived);
        metrics::INSTALLING.set(0.0);
        info!("snapshot-index" = index, took = ?start.elapsed(), "applied snapshot");
        self.applied(index);
    }

    fn applied(&self, index: u64) {
        self.server.raft.applied.store(index, Ordering::SeqCst);
        self.server.applied.send_replace(index);
    }
}

impl Worker<ApplyJob> for Applying {
    fn turn(&mut self, batch: &mut Vec<ApplyJob>) -> bool {
        if batch.is_empty() && self.applier.is_full() {
            self.applier.reserve();
        }
        for job in batch.drain(..) {
            match job {
                ApplyJob::Entries(entries) => self.apply(entries),
                ApplyJob::Install(arrived) => self.install(*arrived),
                ApplyJob::Reserve => self.applier.reserve(),
                // Who asked may have given up.
                ApplyJob::View(asker) => drop(asker.send(self.applier.view())),
                ApplyJob::Stop => return false,
            }
        }
        true
    }

    /// Nobody says when the disk has space again.
    fn timeout(&self) -> Option<Duration> {
        self.applier.is_full().then_some(FULL_RETRY)
    }

    fn wants_its_thread(&self) -> bool {
        self.applier.is_full()
    }
}
