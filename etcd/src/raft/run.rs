//! The thread that owns the driver, and the one that stands in for it.
//!
//! Waking a thread for the log and one for the store costs more than a small entry's way through both, so the raft thread does what is little
//! itself ([`super::stage`]). It gives the driver out of its hands meanwhile: should the disk keep it, the stand-in takes the driver after half
//! a tick, so that ticks, heartbeats and messages never stand behind a disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::driver::{Driver, Event, Outside};
use super::inbox::Inbox;
use super::log_thread::Job;
use super::stage::Attend;
use crate::clock::uptime_ms;

/// With no more than so many events at once, the raft thread does what follows from them.
const FEW: usize = 64;
/// Nobody else's disk is at work meanwhile: more than this is done sooner by several threads.
const FEW_ALONE: usize = 16;
/// The stand-in looks again so many times after the last help before it sleeps for good.
const LOOKS: u32 = 20;

pub struct Loop<O> {
    driver: Mutex<Driver<O>>,
    events: Arc<Inbox<Event>>,
    jobs: Arc<Inbox<Job>>,
    /// In the order in which answers are nearest.
    stages: Vec<Arc<dyn Attend>>,
    patience: Duration,
    helping: Helping,
    stopping: AtomicBool,
}

/// Whether the raft thread is with a stage, and since when.
#[derive(Default)]
struct Helping {
    /// Milliseconds of the uptime plus one; 0 when it is not.
    since: AtomicU64,
    count: AtomicU64,
    /// The stand-in sleeps without a bound.
    asleep: AtomicBool,
    /// The stand-in has the driver.
    taken: AtomicBool,
    bed: Mutex<()>,
    called: Condvar,
}

impl Helping {
    fn begin(&self) {
        self.since.store(uptime_ms(Instant::now()) + 1, Ordering::SeqCst);
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            self.call();
        }
    }

    fn end(&self) {
        self.since.store(0, Ordering::SeqCst);
    }

    fn is_on(&self) -> bool {
        self.since.load(Ordering::SeqCst) != 0
    }

    fn is_overdue(&self, patience: Duration) -> bool {
        let since = self.since.load(Ordering::SeqCst);
        since != 0 && uptime_ms(Instant::now()) + 1 - since >= patience.as_millis() as u64
    }

    fn call(&self) {
        let _bed = self.bed.lock();
        self.asleep.store(false, Ordering::SeqCst);
        self.called.notify_all();
    }

    fn sleep(&self, patience: Duration) {
        self.called.wait_for(&mut self.bed.lock(), patience);
    }

    /// Until the next help begins.
    fn sleep_long(&self, seen: u64) {
        let mut bed = self.bed.lock();
        self.asleep.store(true, Ordering::SeqCst);
        if self.count.load(Ordering::SeqCst) == seen {
            self.called
                .wait_while(&mut bed, |()| self.asleep.load(Ordering::SeqCst));
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}

impl<O: Outside> Loop<O> {
    pub fn new(driver: Driver<O>, stages: Vec<Arc<dyn Attend>>) -> Arc<Self> {
        Arc::new(Loop {
            events: driver.events.clone(),
            jobs: driver.jobs.clone(),
            patience: driver.tick / 2,
            driver: Mutex::new(driver),
            stages,
            helping: Helping::default(),
            stopping: AtomicBool::new(false),
        })
    }

    /// The raft thread.
    pub fn run(&self) {
        let mut batch = Vec::new();
        let mut driver = self.driver.lock();
        driver.start(Instant::now());
        while !self.stopping.load(Ordering::SeqCst) {
            driver.wait(&mut batch);
            if !self.turn(&mut driver, &mut batch) {
                break;
            }
            driver.tick_if_due();
        }
        self.stopping.store(true, Ordering::SeqCst);
        self.helping.call();
        self.jobs.push(Job::Stop);
    }

    fn turn(&self, driver: &mut MutexGuard<'_, Driver<O>>, batch: &mut Vec<Event>) -> bool {
        let few = if driver.node.is_sole_member() {
            FEW_ALONE
        } else {
            FEW
        };
        if batch.len() > few {
            return driver.turn(batch);
        }
        self.stages.iter().for_each(|stage| stage.attend());
        let goes_on = driver.turn(batch);
        if self.stages.iter().any(|stage| stage.is_wanted()) {
            self.helping.begin();
            MutexGuard::unlocked(driver, || self.help());
        }
        self.leave();
        goes_on
    }

    fn help(&self) {
        self.stages.iter().for_each(|stage| stage.help());
        self.helping.end();
        if self.helping.taken.load(Ordering::SeqCst) {
            self.events.ring();
        }
    }

    /// What is not done yet is for the stages' own threads.
    fn leave(&self) {
        self.stages.iter().for_each(|stage| stage.leave());
    }

    /// The stand-in.
    pub fn stand_in(&self) {
        let (mut seen, mut looks) = (0, 0);
        while !self.stopping.load(Ordering::SeqCst) {
            let count = self.helping.count.load(Ordering::SeqCst);
            looks = if count == seen { looks + 1 } else { 0 };
            seen = count;
            match looks > LOOKS && !self.helping.is_on() {
                true => self.helping.sleep_long(count),
                false => self.helping.sleep(self.patience),
            }
            if self.helping.is_overdue(self.patience) {
                self.take_over();
            }
        }
    }

    /// Until the raft thread is back.
    fn take_over(&self) {
        let mut driver = self.driver.lock();
        self.helping.taken.store(true, Ordering::SeqCst);
        self.leave();
        let mut batch = Vec::new();
        while self.helping.is_on() {
            driver.wait(&mut batch);
            if !driver.turn(&mut batch) {
                self.stopping.store(true, Ordering::SeqCst);
                break;
            }
            driver.tick_if_due();
        }
        self.helping.taken.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
