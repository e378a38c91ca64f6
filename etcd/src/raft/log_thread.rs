//! The thread that makes the log durable: everything that waits goes into one group, one write, one fdatasync.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use etcd_api::walpb;
use tracing::{error, info, warn};

use super::driver::Event;
use super::inbox::Inbox;
use super::node::Persist;
use super::stage::Worker;
use crate::disk::{self, DiskFile};
use crate::wal::format::Group;
use crate::wal::{SpareJob, Wal};

/// How often a full disk is tried again.
const FULL_RETRY: Duration = Duration::from_millis(500);
/// etcd warns beyond this.
const SLOW_SYNC: Duration = Duration::from_secs(1);

pub enum Job {
    Persist(Persist),
    /// The store is durable up to here: remember it, and release what lies before but for so many files.
    Snapshot(walpb::Snapshot, usize),
    Spare(io::Result<Arc<dyn DiskFile>>),
    Stop,
}

/// What goes on beside the appends.
pub trait Beside: Send {
    /// Makes a spare segment; the result is to become a [`Job::Spare`].
    fn spare(&mut self, job: SpareJob, jobs: &Arc<Inbox<Job>>) -> io::Result<()>;
    /// The next append cannot go on without the spare that is being made.
    fn hurry(&mut self) {}
    /// The next append cannot go on without space.
    fn wait_for_space(&mut self) {
        std::thread::sleep(FULL_RETRY);
    }
}

struct OnAThread;

impl Beside for OnAThread {
    fn spare(&mut self, job: SpareJob, jobs: &Arc<Inbox<Job>>) -> io::Result<()> {
        let jobs = jobs.clone();
        let run = move || jobs.push(Job::Spare(job.run()));
        let thread = std::thread::Builder::new()
            .name("etcd-wal-spare".into())
            .stack_size(128 * 1024)
            .spawn(run);
        thread.map(drop)
    }
}

/// What others may know about the log's disk.
#[derive(Default)]
pub struct LogStatus {
    /// There is no room for the segment after this one: writes that take space are refused.
    pub full: AtomicBool,
    pub headroom: AtomicU64,
}

pub struct LogThread {
    pub wal: Wal,
    pub jobs: Arc<Inbox<Job>>,
    pub events: Arc<Inbox<Event>>,
    pub status: Arc<LogStatus>,
    pub beside: Box<dyn Beside>,
    pub fatal: fn(&dyn std::fmt::Display) -> !,
    group: Group,
    /// A commit index that need not be synced alone waits here for the next group.
    pending: Option<raft::eraftpb::HardState>,
    /// The store holds what the log says up to here.
    releasable: u64,
}

impl LogThread {
    pub fn new(
        wal: Wal,
        jobs: Arc<Inbox<Job>>,
        events: Arc<Inbox<Event>>,
        status: Arc<LogStatus>,
    ) -> LogThread {
        LogThread {
            wal,
            jobs,
            events,
            status,
            beside: Box::new(OnAThread),
            fatal,
            group: Group::default(),
            pending: None,
            releasable: 0,
        }
    }

    /// One group without waiting for jobs; an error other than a full disk ends the process, because what the kernel holds is unknown after
    /// it. False when it was told to stop.
    pub fn turn(&mut self, batch: &mut Vec<Job>) -> bool {
        let mut group = std::mem::take(&mut self.group);
        group.clear();
        let mut round = Round {
            pending: self.pending.take(),
            ..Round::default()
        };
        for job in batch.drain(..) {
            self.take(job, &mut group, &mut round);
        }
        if round.stop && !round.must_sync {
            return false;
        }
        self.prepare_spare();
        let stop = round.stop;
        self.pending = self.finish(&mut group, round);
        self.group = group;
        !stop
    }

    fn take(&mut self, job: Job, group: &mut Group, round: &mut Round) {
        match job {
            Job::Persist(persist) => {
                if let Some(metadata) = &persist.snapshot {
                    group.snapshot(&snapshot_record(metadata));
                    round.release = Some((metadata.index, 0));
                }
                persist.entries.iter().for_each(|entry| group.entry(entry));
                if persist.hard_state.is_some() {
                    round.pending = persist.hard_state;
                }
                round.must_sync |= persist.must_sync;
                round.persisted = Some(persist.number);
                round.messages.extend(persist.messages_after);
            }
            Job::Snapshot(snapshot, kept) => {
                group.snapshot(&snapshot);
                round.release = Some((snapshot.index, kept));
                round.must_sync = true;
            }
            Job::Spare(result) => self.spare_done(result),
            Job::Stop => round.stop = true,
        }
    }

    fn finish(&mut self, group: &mut Group, round: Round) -> Option<raft::eraftpb::HardState> {
        if !round.must_sync {
            self.report(round.persisted, round.messages);
            return round.pending;
        }
        if let Some(state) = &round.pending {
            group.hard_state(state);
        }
        self.append(group);
        self.report(round.persisted, round.messages);
        if let Some((index, kept)) = round.release {
            self.releasable = index;
            self.release(kept);
        }
        None
    }

    fn release(&mut self, kept: usize) {
        match self.wal.release(self.releasable, kept) {
            Ok(Some(index)) => self.events.push(Event::Released(index)),
            Ok(None) => {}
            Err(source) => warn!(error = %source, "failed to purge wal file"),
        }
    }

    fn report(&self, number: Option<u64>, messages: Vec<raft::eraftpb::Message>) {
        if let Some(number) = number {
            self.events.push(Event::Persisted(number, messages));
        }
    }

    fn append(&mut self, group: &mut Group) {
        loop {
            self.wait_for_spare(group.bytes().len());
            let start = Instant::now();
            match self.wal.append(group) {
                Ok(()) => return self.observe(start.elapsed()),
                Err(source) if disk::is_full(&source) => {
                    self.set_full(true);
                    self.beside.wait_for_space();
                }
                Err(source) => (self.fatal)(&source),
            }
        }
    }

    fn observe(&self, took: Duration) {
        if took > SLOW_SYNC {
            warn!(took = ?took, "expected-duration" = ?SLOW_SYNC, "slow fdatasync");
        }
        self.status.headroom.store(self.wal.headroom(), Ordering::Relaxed);
    }

    /// The group does not fit, and the next segment is nearly ready.
    fn wait_for_spare(&mut self, bytes: usize) {
        let mut batch = Vec::new();
        while self.wal.must_wait_for_spare(bytes) {
            self.beside.hurry();
            // The spare's arrival is to wake this thread, even where it stands in for the log's own.
            self.jobs.leave();
            self.jobs.drain(&mut batch, Some(FULL_RETRY));
            let (spares, others): (Vec<_>, Vec<_>) =
                batch.drain(..).partition(|job| matches!(job, Job::Spare(_)));
            for job in spares {
                if let Job::Spare(result) = job {
                    self.spare_done(result);
                }
            }
            let waiting = !others.is_empty();
            others.into_iter().for_each(|job| self.jobs.push(job));
            if waiting {
                // Jobs that must wait keep the queue from blocking.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn prepare_spare(&mut self) {
        let Some(job) = self.wal.spare_job() else { return };
        if let Err(source) = self.beside.spare(job, &self.jobs) {
            self.spare_done(Err(source));
        }
    }

    fn spare_done(&mut self, result: io::Result<Arc<dyn DiskFile>>) {
        match self.wal.spare_done(result) {
            Ok(()) => self.set_full(false),
            Err(source) if disk::is_full(&source) => self.set_full(true),
            Err(source) => warn!(error = %source, "failed to prepare the next wal segment"),
        }
    }

    fn set_full(&mut self, full: bool) {
        if full {
            // What is kept for members that are behind goes first.
            self.release(0);
        }
        if self.status.full.swap(full, Ordering::SeqCst) == full {
            return;
        }
        match full {
            true => {
                warn!("the disk is full: writes are refused until there is space for the next wal segment")
            }
            false => info!("there is space on the disk again"),
        }
        self.events.push(Event::SpaceChanged);
    }
}

impl Worker<Job> for LogThread {
    fn turn(&mut self, batch: &mut Vec<Job>) -> bool {
        LogThread::turn(self, batch)
    }

    fn timeout(&self) -> Option<Duration> {
        self.status.full.load(Ordering::Relaxed).then_some(FULL_RETRY)
    }

    fn wants_its_thread(&self) -> bool {
        self.status.full.load(Ordering::Relaxed)
    }
}

fn snapshot_record(metadata: &raft::eraftpb::SnapshotMetadata) -> walpb::Snapshot {
    walpb::Snapshot {
        index: metadata.index,
        term: metadata.term,
        conf_state: metadata
            .conf_state
            .as_ref()
            .map(super::conf_change::wal_conf_state),
    }
}

#[derive(Default)]
struct Round {
    pending: Option<raft::eraftpb::HardState>,
    must_sync: bool,
    persisted: Option<u64>,
    messages: Vec<raft::eraftpb::Message>,
    release: Option<(u64, usize)>,
    stop: bool,
}

/// After a failed write or sync nobody knows what the disk holds: only a restart, which reads it, does.
#[allow(
    clippy::disallowed_methods,
    reason = "a drain would write to the disk that has just failed"
)]
pub fn fatal(source: &dyn std::fmt::Display) -> ! {
    error!(error = %source, "failed to write to the disk; the process ends, because what was written is unknown until it is read again");
    std::process::exit(1)
}
