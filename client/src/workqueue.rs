//! Keys waiting for work: each key once, never two workers on the same key, failures retried ever later.
//!
//! A key added while it is being worked on is handed out again after [`WorkQueue::done`]. Delayed keys sleep in a
//! heap; whoever waits in [`WorkQueue::get`] wakes for the earliest, so an idle queue costs no task and no tick.

use component_base::metrics::{
    Counter, CounterValue, Gauge, GaugeValue, Histogram, HistogramValue, counter, gauge, histogram,
};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Upstream's default per-key limiter: 5 ms doubled at each failure, up to 1000 s.
const BASE_DELAY: Duration = Duration::from_millis(5);
const MAX_DELAY: Duration = Duration::from_secs(1000);

pub struct WorkQueue<K> {
    inner: Arc<Inner<K>>,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        WorkQueue {
            inner: self.inner.clone(),
        }
    }
}

struct Inner<K> {
    state: Mutex<State<K>>,
    changed: Notify,
    delays: (Duration, Duration),
    metrics: Metrics,
}

struct State<K> {
    /// In order of arrival; each also in `dirty`.
    queue: VecDeque<K>,
    dirty: HashMap<K, Instant>,
    processing: HashMap<K, Instant>,
    /// By due time; `due` keeps the earliest for each key.
    waiting: BTreeSet<(Instant, u64)>,
    sleepers: HashMap<u64, K>,
    due: HashMap<K, (Instant, u64)>,
    failures: HashMap<K, u32>,
    sequence: u64,
    shut_down: bool,
}

impl<K> Default for State<K> {
    fn default() -> Self {
        State {
            queue: VecDeque::new(),
            dirty: HashMap::new(),
            processing: HashMap::new(),
            waiting: BTreeSet::new(),
            sleepers: HashMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
            shut_down: false,
        }
    }
}

impl<K: Hash + Eq + Clone> WorkQueue<K> {
    /// `name` labels the queue's metrics.
    pub fn new(name: &str) -> Self {
        Self::with_delays(name, BASE_DELAY, MAX_DELAY)
    }

    pub fn with_delays(name: &str, base: Duration, max: Duration) -> Self {
        let inner = Inner {
            state: Mutex::default(),
            changed: Notify::new(),
            delays: (base, max),
            metrics: Metrics::new(name),
        };
        WorkQueue {
            inner: Arc::new(inner),
        }
    }

    pub fn add(&self, key: K) {
        let added = self.inner.state.lock().add(key);
        self.added(added);
    }

    fn added(&self, added: Added) {
        match added {
            Added::No => {}
            Added::Dirty => self.inner.metrics.adds.inc(),
            Added::Queued(depth) => {
                self.inner.metrics.adds.inc();
                self.inner.metrics.depth.set(depth as f64);
                self.inner.changed.notify_one();
            }
        }
    }

    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        if self.inner.state.lock().sleep(key, Instant::now() + delay) {
            self.inner.changed.notify_one();
        }
    }

    /// Adds again after a delay that doubles with each call until [`WorkQueue::forget`].
    pub fn add_rate_limited(&self, key: K) {
        self.inner.metrics.retries.inc();
        let delay = self.next_delay(&key);
        self.add_after(key, delay);
    }

    fn next_delay(&self, key: &K) -> Duration {
        let (base, max) = self.inner.delays;
        let mut state = self.inner.state.lock();
        let failures = state.failures.entry(key.clone()).or_insert(0);
        let delay = base
            .saturating_mul(2u32.saturating_pow((*failures).min(31)))
            .min(max);
        *failures = failures.saturating_add(1);
        delay
    }

    /// The key did well: its next failure waits the shortest time again.
    pub fn forget(&self, key: &K) {
        self.inner.state.lock().failures.remove(key);
    }

    pub fn num_requeues(&self, key: &K) -> u32 {
        self.inner.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    pub fn len(&self) -> usize {
        self.inner.state.lock().queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next key, which must be given back with [`WorkQueue::done`]; `None` once shut down and drained.
    pub async fn get(&self) -> Option<K> {
        loop {
            let notified = self.inner.changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            match self.take() {
                Next::Key(key) => return Some(key),
                Next::End => return None,
                Next::At(None) => notified.await,
                Next::At(Some(due)) => tokio::select! {
                    () = notified => {}
                    () = tokio::time::sleep_until(due.into()) => {}
                },
            }
        }
    }

    fn take(&self) -> Next<K> {
        let now = Instant::now();
        let mut state = self.inner.state.lock();
        let woken = state.wake(now);
        let next = state.take(now);
        let (depth, more) = (state.queue.len(), !state.queue.is_empty());
        drop(state);
        self.inner.metrics.adds.add(woken as f64);
        if let Next::Key((key, waited)) = next {
            self.inner.metrics.depth.set(depth as f64);
            self.inner.metrics.queued.observe(waited.as_secs_f64());
            // Several keys may have become due at once, and each notification wakes one worker only.
            if more {
                self.inner.changed.notify_one();
            }
            return Next::Key(key);
        }
        next.map(|(key, _)| key)
    }

    pub fn done(&self, key: &K) {
        let mut state = self.inner.state.lock();
        let Some(began) = state.processing.remove(key) else {
            return;
        };
        let again = state.dirty.contains_key(key);
        if again {
            state.queue.push_back(key.clone());
            self.inner.metrics.depth.set(state.queue.len() as f64);
        }
        let finished = state.shut_down;
        drop(state);
        self.inner.metrics.worked.observe(began.elapsed().as_secs_f64());
        if finished {
            self.inner.changed.notify_waiters();
        } else if again {
            self.inner.changed.notify_one();
        }
    }

    /// No key is taken any more; those queued are still handed out.
    pub fn shut_down(&self) {
        let mut state = self.inner.state.lock();
        state.shut_down = true;
        state.waiting.clear();
        state.sleepers.clear();
        state.due.clear();
        drop(state);
        self.inner.changed.notify_waiters();
    }
}

enum Added {
    No,
    /// It will be queued when its worker is done.
    Dirty,
    Queued(usize),
}

enum Next<T> {
    Key(T),
    /// Nothing before this time.
    At(Option<Instant>),
    End,
}

impl<T> Next<T> {
    fn map<R>(self, f: impl FnOnce(T) -> R) -> Next<R> {
        match self {
            Next::Key(key) => Next::Key(f(key)),
            Next::At(due) => Next::At(due),
            Next::End => Next::End,
        }
    }
}

impl<K: Hash + Eq + Clone> State<K> {
    fn add(&mut self, key: K) -> Added {
        if self.shut_down || self.dirty.contains_key(&key) {
            return Added::No;
        }
        self.dirty.insert(key.clone(), Instant::now());
        if self.processing.contains_key(&key) {
            return Added::Dirty;
        }
        self.queue.push_back(key);
        Added::Queued(self.queue.len())
    }

    /// True when the key is now the first to become due. A key that sleeps already keeps the earlier time.
    fn sleep(&mut self, key: K, until: Instant) -> bool {
        if self.shut_down {
            return false;
        }
        if let Some(known) = self.due.get(&key).copied() {
            if known.0 <= until {
                return false;
            }
            self.waiting.remove(&known);
            self.sleepers.remove(&known.1);
        }
        self.sequence += 1;
        let entry = (until, self.sequence);
        self.waiting.insert(entry);
        self.sleepers.insert(self.sequence, key.clone());
        self.due.insert(key, entry);
        self.waiting.first() == Some(&entry)
    }

    /// Queues what has become due; how many were new.
    fn wake(&mut self, now: Instant) -> usize {
        let mut woken = 0;
        while let Some(first) = self.waiting.first().copied().filter(|(due, _)| *due <= now) {
            self.waiting.remove(&first);
            let Some(key) = self.sleepers.remove(&first.1) else {
                continue;
            };
            self.due.remove(&key);
            woken += usize::from(!matches!(self.add(key), Added::No));
        }
        woken
    }

    fn take(&mut self, now: Instant) -> Next<(K, Duration)> {
        match self.queue.pop_front() {
            Some(key) => {
                let waited = self
                    .dirty
                    .remove(&key)
                    .map_or(Duration::ZERO, |added| now.saturating_duration_since(added));
                self.processing.insert(key.clone(), now);
                Next::Key((key, waited))
            }
            // A key in work may still come back dirty.
            None if self.shut_down && self.processing.keys().all(|k| !self.dirty.contains_key(k)) => {
                Next::End
            }
            None => Next::At(self.waiting.first().map(|(due, _)| *due)),
        }
    }
}

/// Upstream's buckets: 10 ns to 10 s by tens.
const BUCKETS: &[f64] = &[1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0];
const NAME: &[&str] = &["name"];

static DEPTH: LazyLock<Gauge> =
    LazyLock::new(|| gauge("workqueue_depth", "[BETA] Current depth of workqueue", NAME));
static ADDS: LazyLock<Counter> = LazyLock::new(|| {
    counter(
        "workqueue_adds_total",
        "[BETA] Total number of adds handled by workqueue",
        NAME,
    )
});
static RETRIES: LazyLock<Counter> = LazyLock::new(|| {
    counter(
        "workqueue_retries_total",
        "[BETA] Total number of retries handled by workqueue",
        NAME,
    )
});
static QUEUED: LazyLock<Histogram> = LazyLock::new(|| {
    histogram(
        "workqueue_queue_duration_seconds",
        "[BETA] How long in seconds an item stays in workqueue before being requested.",
        NAME,
        BUCKETS,
    )
});
static WORKED: LazyLock<Histogram> = LazyLock::new(|| {
    histogram(
        "workqueue_work_duration_seconds",
        "[BETA] How long in seconds processing an item from workqueue takes.",
        NAME,
        BUCKETS,
    )
});

struct Metrics {
    depth: Arc<GaugeValue>,
    adds: Arc<CounterValue>,
    retries: Arc<CounterValue>,
    queued: Arc<HistogramValue>,
    worked: Arc<HistogramValue>,
}

impl Metrics {
    fn new(name: &str) -> Self {
        let name = &[name];
        Metrics {
            depth: DEPTH.with(name),
            adds: ADDS.with(name),
            retries: RETRIES.with(name),
            queued: QUEUED.with(name),
            worked: WORKED.with(name),
        }
    }
}

#[cfg(test)]
mod tests;
