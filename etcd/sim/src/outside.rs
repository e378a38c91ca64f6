//! Where a member's threads reach each other and the world, in one thread.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etcd::apply::{Arrived, Effects};
use etcd::bootstrap::ApplyJob;
use etcd::disk::fake::FakeDisk;
use etcd::lease::primary::{self, Primary as _};
use etcd::raft::driver::{Driver, Event, Outside};
use etcd::raft::inbox::Inbox;
use etcd::raft::log_thread::{Beside, Job};
use etcd::raft::older::Fetch;
use etcd::storage::keeper::Request;
use etcd::wal::SpareJob;
use etcd_api::raftpb;
use parking_lot::Mutex;
use raft::eraftpb::{ConfState, Entry, Message, SnapshotMetadata};

use crate::server::Server;

/// What ends a process, as a panic that only the simulation sees.
pub struct Ended(pub String);

pub fn end(reason: &dyn Display) -> ! {
    std::panic::resume_unwind(Box::new(Ended(reason.to_string())))
}

pub fn take_all<T>(inbox: &Inbox<T>) -> Vec<T> {
    let mut batch = Vec::new();
    if !inbox.is_empty() {
        inbox.drain(&mut batch, None);
    }
    batch
}

/// As `Loop::run`, one round of it.
pub fn turn_driver(driver: &Mutex<Driver<Outgoing>>, events: &Inbox<Event>) {
    let mut driver = driver.lock();
    let now = driver.outside.server.clock.instant();
    driver.woken(now);
    driver.turn(&mut take_all(events));
    driver.tick_if_due();
}

pub struct Outgoing {
    pub out: Arc<Mutex<Vec<Message>>>,
    pub apply_jobs: Arc<Inbox<ApplyJob>>,
    pub arrived: Option<Box<Arrived>>,
    pub server: Arc<Server>,
    pub fetches: Arc<Mutex<VecDeque<Fetch>>>,
}

impl Outside for Outgoing {
    fn apply(&mut self, entries: Vec<Entry>) {
        self.apply_jobs.push(ApplyJob::Entries(entries));
    }

    fn send(&mut self, messages: Vec<Message>) {
        self.out.lock().extend(messages);
    }

    fn arrived(&mut self, arrived: Box<Arrived>) {
        self.arrived = Some(arrived);
    }

    fn install(&mut self, _: &SnapshotMetadata) {
        match self.arrived.take() {
            Some(arrived) => self.apply_jobs.push(ApplyJob::Install(arrived)),
            None => end(&"the snapshot that raft wants is gone"),
        }
    }

    fn decided(&mut self) {
        self.arrived = None;
    }

    fn leadership(&mut self, leading: bool) {
        primary::leadership(&*self.server, leading);
    }

    fn stalled(&mut self, gap: Duration) {
        primary::stalled(&*self.server, gap);
    }

    fn fetch(&mut self, fetch: Fetch) {
        self.fetches.lock().push_back(fetch);
    }

    fn space_changed(&mut self) {}
}

/// Spare segments that are asked for and not yet made.
pub struct Spares {
    pub wanted: Arc<Mutex<VecDeque<(SpareJob, Arc<Inbox<Job>>)>>>,
    pub disk: FakeDisk,
}

impl Spares {
    pub fn make(wanted: &Mutex<VecDeque<(SpareJob, Arc<Inbox<Job>>)>>) {
        let next = wanted.lock().pop_front();
        if let Some((job, jobs)) = next {
            jobs.push(Job::Spare(job.run()));
        }
    }
}

impl Beside for Spares {
    fn spare(&mut self, job: SpareJob, jobs: &Arc<Inbox<Job>>) -> io::Result<()> {
        self.wanted.lock().push_back((job, jobs.clone()));
        Ok(())
    }

    fn hurry(&mut self) {
        Spares::make(&self.wanted);
    }

    /// Nothing else happens until somebody has made room.
    fn wait_for_space(&mut self) {
        self.disk.set_capacity(None);
    }
}

/// What a member's applying has told, for the world to see.
#[derive(Default)]
pub struct Told {
    pub members_changed: AtomicBool,
    pub removed: AtomicBool,
    pub store_full: AtomicBool,
}

pub struct SimEffects {
    pub driver: Arc<Mutex<Driver<Outgoing>>>,
    pub events: Arc<Inbox<Event>>,
    pub asked: Arc<Mutex<Request>>,
    pub compactions: Arc<Mutex<Vec<i64>>>,
    pub told: Arc<Told>,
    pub server: Arc<Server>,
    pub disk: FakeDisk,
    pub since_checkpoint: u64,
    pub checkpoint_bytes: u64,
}

impl Effects for SimEffects {
    /// The apply thread waits for the driver; here it turns the driver itself.
    fn conf_change(&mut self, index: u64, change: raftpb::ConfChange) -> Option<ConfState> {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.events
            .push(Event::ConfChange(index, Box::new(change), sender));
        turn_driver(&self.driver, &self.events);
        receiver.try_recv().ok()
    }

    fn members_changed(&mut self) {
        self.told.members_changed.store(true, Ordering::SeqCst);
    }

    fn removed(&mut self) {
        self.told.removed.store(true, Ordering::SeqCst);
    }

    fn compacted(&mut self, revision: i64) {
        self.compactions.lock().push(revision);
        *self.asked.lock() |= Request::RECLAIM;
    }

    fn checkpoint(&mut self) {
        self.since_checkpoint = 0;
        *self.asked.lock() |= Request::CHECKPOINT;
    }

    fn frame_written(&mut self, _: u64, bytes: u64) {
        self.since_checkpoint += bytes;
        if self.since_checkpoint >= self.checkpoint_bytes {
            self.checkpoint();
        }
    }

    fn store_full(&mut self, full: bool) {
        self.told.store_full.store(full, Ordering::SeqCst);
        if full {
            *self.asked.lock() |= Request::RECLAIM;
        }
    }

    fn wait_for_space(&mut self) {
        self.disk.set_capacity(None);
    }

    fn leases_changed(&mut self) {
        self.server.leases_changed();
    }

    fn fatal(&mut self, source: &io::Error) -> ! {
        end(source)
    }
}
