//! What a member's leases and reads need of its server, in virtual time: its tasks are polled one turn at a time, and wait on the member's own clock.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use etcd::apply::{Applied, State};
use etcd::clock::{Clock, FakeClock};
use etcd::lease::Lessor;
use etcd::lease::primary::{self, Primary};
use etcd::raft::driver::{Event, Status};
use etcd::raft::inbox::Inbox;
use etcd::raft::read::Replica;
use etcd::server::{ServerError, request_timeout};
use etcd_api::etcdserverpb::InternalRaftRequest;
use parking_lot::Mutex;
use prost::Message as _;
use raft::eraftpb::{Entry, EntryType};

use crate::member::{ELECTION_TICKS, TICK_US};

/// Ends with its process.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

pub struct Server {
    pub state: Arc<State>,
    pub status: Arc<Status>,
    pub events: Arc<Inbox<Event>>,
    pub clock: Arc<FakeClock>,
    /// Leases whose end it has applied.
    pub ended: Mutex<Vec<i64>>,
    next_id: AtomicU64,
    leases_changed: AtomicBool,
    spawned: Mutex<Vec<Task>>,
    awake: Arc<Awake>,
}

/// Some task has something to do.
#[derive(Default)]
pub struct Awake(AtomicBool);

impl Wake for Awake {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Server {
    pub fn new(
        state: Arc<State>,
        status: Arc<Status>,
        events: Arc<Inbox<Event>>,
        next_id: u64,
    ) -> Arc<Server> {
        Arc::new(Server {
            state,
            status,
            events,
            clock: Arc::default(),
            ended: Mutex::default(),
            next_id: AtomicU64::new(next_id),
            leases_changed: AtomicBool::new(false),
            spawned: Mutex::default(),
            awake: Arc::default(),
        })
    }

    /// As the server's tasks: they end with the process.
    pub fn start(self: &Arc<Self>, checkpoint_interval: Option<Duration>) {
        self.spawn(primary::expire(self.clone()));
        if let Some(interval) = checkpoint_interval {
            self.spawn(primary::checkpoint_regularly(self.clone(), interval));
        }
    }

    pub fn wake(&self) {
        self.awake.0.store(true, Ordering::SeqCst);
    }

    pub fn is_awake(&self) -> bool {
        self.awake.0.load(Ordering::SeqCst)
    }

    /// Goes on with everything that can go on.
    pub fn poll(&self, tasks: &mut Vec<Task>) {
        self.awake.0.store(false, Ordering::SeqCst);
        tasks.append(&mut self.spawned.lock());
        let waker = Waker::from(self.awake.clone());
        let mut context = Context::from_waker(&waker);
        tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
    }

    /// These entries are applied.
    pub fn note_ends(&self, entries: &[Entry]) {
        let revoked = |entry: &Entry| InternalRaftRequest::decode(&entry.data[..]).ok()?.lease_revoke;
        let normal = entries
            .iter()
            .filter(|entry| entry.entry_type == EntryType::EntryNormal as i32);
        let ids = normal.filter_map(revoked).map(|revoke| revoke.id);
        self.ended.lock().extend(ids);
    }
}

/// What it waits for is looked at whenever the tasks have a turn.
async fn until(holds: impl Fn() -> bool) {
    poll_fn(|_| match holds() {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

impl Replica for Server {
    fn status(&self) -> &Status {
        &self.status
    }

    fn events(&self) -> &Inbox<Event> {
        &self.events
    }

    fn request_timeout(&self) -> Duration {
        request_timeout(self.election())
    }

    async fn applied(&self, index: u64) -> Result<(), ServerError> {
        until(|| self.status.applied.load(Ordering::SeqCst) >= index).await;
        Ok(())
    }

    async fn pause(&self, time: Duration) {
        let end = self.clock.elapsed() + time;
        until(|| self.clock.elapsed() >= end).await;
    }

    async fn within<T: Send>(&self, limit: Duration, future: impl Future<Output = T> + Send) -> Option<T> {
        tokio::select! {
            // By chance otherwise.
            biased;
            value = future => Some(value),
            () = self.pause(limit) => None,
        }
    }
}

impl Primary for Server {
    fn lessor(&self) -> &Mutex<Lessor> {
        &self.state.lessor
    }

    fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    fn election(&self) -> Duration {
        Duration::from_micros(TICK_US) * ELECTION_TICKS as u32
    }

    fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::SeqCst)
    }

    fn submit(&self, id: u64, event: Event) -> impl Future<Output = Result<Applied, ServerError>> + Send {
        let answer = self.state.waits.register(id);
        self.events.push(event);
        async move {
            match self.within(self.request_timeout(), answer).await {
                Some(Ok(applied)) => Ok(applied),
                _ => {
                    self.state.waits.forget(id);
                    Err(ServerError::Timeout)
                }
            }
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawned.lock().push(Box::pin(task));
        self.wake();
    }

    fn leases_changed(&self) {
        self.leases_changed.store(true, Ordering::SeqCst);
        self.wake();
    }

    async fn wait_changed(&self, most: Duration) {
        let changed = until(|| self.leases_changed.swap(false, Ordering::SeqCst));
        self.within(most, changed).await;
    }
}
