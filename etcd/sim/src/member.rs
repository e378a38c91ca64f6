//! One member: the parts that are threads in the real process, taking turns.

use std::collections::VecDeque;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use etcd::apply::{Applied, Applier, Effects, State, Waits};
use etcd::auth::{AuthStore, Options};
use etcd::bootstrap::{self, ApplyJob, first};
use etcd::clock::{Clock, FakeClock};
use etcd::disk::Disk;
use etcd::disk::fake::FakeDisk;
use etcd::lease::Lessor;
use etcd::membership::Membership;
use etcd::meta;
use etcd::mvcc::Store;
use etcd::peer::snapshot::Arrivals;
use etcd::raft::driver::{Driver, Event, Outside, Status};
use etcd::raft::inbox::Inbox;
use etcd::raft::log_thread::{Job, LogStatus, LogThread};
use etcd::raft::node::Timing;
use etcd::storage::keeper::{Asked, Keeper};
use etcd::storage::{Writer, load};
use etcd::wal::format::Ids;
use etcd::wal::{SpareJob, Wal};
use etcd::watch::hub::{HubEvent, HubThread};
use etcd::watch::{Hub, catch_up};
use etcd_api::etcdserverpb::{InternalRaftRequest, RequestHeader, ResponseHeader};
use etcd_api::raftpb;
use parking_lot::{Mutex, RwLock};
use prost::Message as _;
use raft::eraftpb::{ConfState, Entry, Message, SnapshotMetadata};
use tokio::sync::oneshot::Receiver;

use crate::faults::Down;
use crate::plan::Plan;

pub const TICK_US: u64 = 100_000;
pub const ELECTION_TICKS: usize = 10;
pub const MIN_LEASE_TTL: i64 = 2;
const WAL_DIR: &str = "/member/wal";
const STORE_DIR: &str = "/member/store";

/// What ends a process, as a panic that only the simulation sees.
pub struct Ended(pub String);

fn end(reason: &dyn Display) -> ! {
    std::panic::resume_unwind(Box::new(Ended(reason.to_string())))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Driver,
    Wal,
    Apply,
    Keeper,
    Hub,
    History,
}

pub const PARTS: [Part; 6] = [
    Part::Driver,
    Part::Wal,
    Part::Apply,
    Part::Keeper,
    Part::Hub,
    Part::History,
];

/// The machine: what outlives a process.
pub struct Member {
    pub ids: Ids,
    pub disk: FakeDisk,
    pub life: Option<Life>,
    pub restart_at: u64,
    pub paused_until: u64,
    pub slow_until: u64,
    /// How a burnt fuse ends the process.
    pub ends: Down,
    pub tick_us: u64,
    pub next_tick: u64,
    pub last_tick: u64,
    /// When each part takes its next turn, if it has something to do.
    pub turns: [Option<u64>; PARTS.len()],
}

impl Member {
    pub fn new(ids: Ids, tick_us: u64) -> Member {
        Member {
            ids,
            disk: FakeDisk::new(),
            life: None,
            restart_at: 0,
            paused_until: 0,
            slow_until: 0,
            ends: Down::PowerLoss,
            tick_us,
            next_tick: 0,
            last_tick: 0,
            turns: [None; PARTS.len()],
        }
    }

    /// False when it was down already.
    pub fn end(&mut self, how: Down, seed: u64) -> bool {
        // Whatever a dying process still does to its disk does not happen.
        self.disk.burn_after(0);
        let lived = self.life.take().is_some();
        self.turns = [None; PARTS.len()];
        self.paused_until = 0;
        match how {
            Down::PowerLoss => self.disk.crash(seed),
            Down::Kill => self.disk.revive(),
        }
        lived
    }
}

/// A process.
pub struct Life {
    pub state: Arc<State>,
    pub status: Arc<Status>,
    pub events: Arc<Inbox<Event>>,
    pub hub: Arc<Hub>,
    pub arrivals: Arc<Arrivals>,
    pub applier: Applier,
    pub clock: Arc<FakeClock>,
    driver: Arc<Mutex<Driver<Outgoing>>>,
    log: LogThread,
    jobs: Arc<Inbox<Job>>,
    apply_jobs: Arc<Inbox<ApplyJob>>,
    applying: VecDeque<ApplyJob>,
    keeper: Keeper,
    asked: Arc<Mutex<Asked>>,
    compactions: Arc<Mutex<Vec<i64>>>,
    hub_thread: HubThread,
    hub_events: VecDeque<HubEvent>,
    history: Arc<Inbox<Option<catch_up::Job>>>,
    reading: VecDeque<catch_up::Job>,
    out: Arc<Mutex<Vec<Message>>>,
    pub next_id: u64,
    ids: Ids,
}

impl Life {
    /// As `etcd::bootstrap` does it, without sockets.
    pub fn start(
        disk: &FakeDisk,
        ids: Ids,
        configured: &Membership,
        plan: &Plan,
        timeout_ticks: usize,
        next_id: u64,
    ) -> Result<Life> {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let wal_dir = Path::new(WAL_DIR);
        let (mut wal, mut replay) = match Wal::identify(&*disk, wal_dir)? {
            Some(ids) => {
                let (mut wal, mut replay) = Wal::open(disk.clone(), wal_dir, ids, plan.wal_segment_bytes)?;
                first::resume(&mut wal, &mut replay, ids, configured)?;
                (wal, replay)
            }
            None => {
                let mut wal = Wal::create(disk.clone(), wal_dir, ids, plan.wal_segment_bytes)?;
                let replay = first::begin(&mut wal, configured)?;
                (wal, replay)
            }
        };
        let mut loaded = load::load(
            disk.clone(),
            Path::new(STORE_DIR),
            ids.cluster,
            plan.store_segment_bytes,
        )?;
        let mut lessor = Lessor::new(MIN_LEASE_TTL);
        let read = meta::read(&loaded, &mut lessor)?;
        bootstrap::finish_install(&mut wal, &mut replay, &loaded, &read)?;
        bootstrap::check_consistent(Path::new("/member"), &replay, &loaded)?;
        let (storage, frame) = (loaded.storage.clone(), loaded.frame);
        let versions = std::mem::take(&mut loaded.versions);
        let store = Arc::new(Store::open(
            storage.clone(),
            versions,
            frame.revision,
            read.compacted,
        ));
        let conf_state = bootstrap::conf_state(&read.conf_state, &replay);
        let state = Arc::new(State {
            store: store.clone(),
            lessor: Mutex::new(lessor.attached_to(&store)),
            membership: RwLock::new(read.membership),
            alarms: RwLock::new(read.alarms),
            auth: AuthStore::new(read.auth, &Options::default())?,
            v2: RwLock::new(read.v2),
            waits: Waits::default(),
        });
        let writer = Writer::new(storage.clone(), loaded.active.take(), loaded.meta, frame)?;
        let timing = Timing {
            election_ticks: ELECTION_TICKS,
            pre_vote: plan.pre_vote,
            timeout_ticks: Some(timeout_ticks),
        };
        let mut node = bootstrap::node(&timing, ids.member, &conf_state, replay, frame.index)?;
        node.retain(plan.retention);
        let (status, events, hub) = (
            Arc::new(Status::default()),
            Arc::<Inbox<Event>>::default(),
            Arc::new(Hub::default()),
        );
        status.applied.store(frame.index, Ordering::SeqCst);
        let (jobs, apply_jobs, history) = (
            Arc::<Inbox<Job>>::default(),
            Arc::<Inbox<ApplyJob>>::default(),
            Arc::<Inbox<Option<catch_up::Job>>>::default(),
        );
        let (clock, arrivals) = (Arc::new(FakeClock::default()), Arc::new(Arrivals::default()));
        let out: Arc<Mutex<Vec<Message>>> = Arc::default();
        let outgoing = Outgoing {
            out: out.clone(),
            apply_jobs: apply_jobs.clone(),
            arrivals: arrivals.clone(),
            state: state.clone(),
            clock: clock.clone(),
        };
        let driver = Driver::new(
            node,
            ids.member,
            events.clone(),
            jobs.clone(),
            status.clone(),
            outgoing,
            Duration::from_micros(TICK_US),
            conf_state,
        );
        let driver = Arc::new(Mutex::new(driver));
        let (asked, compactions) = (Arc::<Mutex<Asked>>::default(), Arc::default());
        let effects = SimEffects {
            driver: driver.clone(),
            events: events.clone(),
            asked: asked.clone(),
            compactions: Arc::clone(&compactions),
            since_checkpoint: 0,
            checkpoint_bytes: plan.checkpoint_bytes,
        };
        let keeper = Keeper::new(
            storage,
            ids.member,
            writer.written(),
            store.clone(),
            loaded.durable,
        );
        let dyn_clock: Arc<dyn Clock> = clock.clone();
        let mut applier = Applier::new(
            state.clone(),
            writer,
            hub.clone(),
            dyn_clock,
            Box::new(effects),
            ids.member,
            frame,
        );
        applier.reserve();
        let mut log = LogThread::new(wal, jobs.clone(), events.clone(), Arc::new(LogStatus::default()));
        log.fatal = end;
        log.beside = at_once;
        let header = move |revision| ResponseHeader {
            cluster_id: ids.cluster,
            member_id: ids.member,
            revision,
            raft_term: 0,
        };
        let hub_thread = HubThread::new(hub.clone(), store, Arc::new(header), history.clone());
        driver.lock().start();
        Ok(Life {
            state,
            status,
            events,
            hub,
            arrivals,
            applier,
            clock,
            driver,
            log,
            jobs,
            apply_jobs,
            applying: VecDeque::new(),
            keeper,
            asked,
            compactions,
            hub_thread,
            hub_events: VecDeque::new(),
            history,
            reading: VecDeque::new(),
            out,
            next_id,
            ids,
        })
    }

    pub fn header(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.ids.cluster,
            member_id: self.ids.member,
            revision,
            raft_term: self.status.term.load(Ordering::SeqCst),
        }
    }

    /// As `EtcdServer::propose`, up to the waiting.
    pub fn propose(&mut self, mut request: InternalRaftRequest) -> (u64, Receiver<Applied>) {
        self.next_id += 1;
        let id = self.next_id;
        request.header = Some(RequestHeader {
            id,
            ..RequestHeader::default()
        });
        let receiver = self.state.waits.register(id);
        self.events.push(Event::Propose(request.encode_to_vec()));
        (id, receiver)
    }

    pub fn is_due(&self, part: Part) -> bool {
        match part {
            Part::Driver => !self.events.is_empty(),
            Part::Wal => !self.jobs.is_empty(),
            Part::Apply => !self.applying.is_empty() || !self.apply_jobs.is_empty(),
            Part::Keeper => *self.asked.lock() != Asked::default(),
            Part::Hub => !self.hub_events.is_empty() || !self.hub.is_idle(),
            Part::History => !self.reading.is_empty() || !self.history.is_empty(),
        }
    }

    pub fn is_idle(&self) -> bool {
        !PARTS.into_iter().any(|part| self.is_due(part))
    }

    pub fn turn(&mut self, part: Part) {
        match part {
            Part::Driver => turn_driver(&self.driver, &self.events),
            Part::Wal => drop(self.log.turn(&mut take_all(&self.jobs))),
            Part::Apply => self.apply(),
            Part::Keeper => self.keep(),
            Part::Hub => self.hub(),
            Part::History => self.read_history(),
        }
    }

    pub fn tick(&mut self, stood_still: Option<Duration>) {
        let mut driver = self.driver.lock();
        if let Some(gap) = stood_still {
            driver.outside.stalled(gap);
        }
        driver.on_tick();
    }

    pub fn take_messages(&self) -> Vec<Message> {
        std::mem::take(&mut *self.out.lock())
    }

    fn apply(&mut self) {
        if self.applying.is_empty() {
            self.applying.extend(take_all(&self.apply_jobs));
        }
        match self.applying.pop_front() {
            Some(ApplyJob::Entries(entries)) => self.apply_entries(entries),
            Some(ApplyJob::Install(arrived)) => {
                let index = arrived.imported.frame.index;
                self.applier.install(*arrived);
                self.status.applied.store(index, Ordering::SeqCst);
            }
            Some(ApplyJob::Reserve) => self.applier.reserve(),
            Some(ApplyJob::View(_) | ApplyJob::Stop) | None => {}
        }
    }

    fn apply_entries(&mut self, entries: Vec<Entry>) {
        let Some(last) = entries.last().map(|entry| entry.index) else {
            return;
        };
        self.applier.apply(entries);
        self.status.applied.store(last, Ordering::SeqCst);
        if !self.status.is_leader.load(Ordering::SeqCst) {
            self.events.push(Event::Applied);
        }
    }

    fn keep(&mut self) {
        let asked = std::mem::take(&mut *self.asked.lock());
        let (store, events) = (&self.state.store, &self.events);
        let kept = bootstrap::keep(&mut self.keeper, store, events, &self.compactions, asked, |_| ());
        if let Err(error) = kept {
            // Without a full disk only a disk that fails does this.
            end(&error);
        }
        self.apply_jobs.push(ApplyJob::Reserve);
    }

    fn hub(&mut self) {
        if self.hub_events.is_empty() {
            let mut batch = Vec::new();
            self.hub.drain(&mut batch, Some(Duration::ZERO));
            self.hub_events.extend(batch);
        }
        if let Some(event) = self.hub_events.pop_front() {
            self.hub_thread.event(event);
        }
    }

    fn read_history(&mut self) {
        if self.reading.is_empty() {
            self.reading.extend(take_all(&self.history).into_iter().flatten());
        }
        if let Some(job) = self.reading.pop_front() {
            let piece = catch_up::read(&self.state.store, job);
            self.hub.send(HubEvent::CaughtUp(piece));
        }
    }
}

fn take_all<T>(inbox: &Inbox<T>) -> Vec<T> {
    let mut batch = Vec::new();
    if !inbox.is_empty() {
        inbox.drain(&mut batch, None);
    }
    batch
}

fn turn_driver(driver: &Mutex<Driver<Outgoing>>, events: &Inbox<Event>) {
    driver.lock().turn(&mut take_all(events));
}

/// The spare is ready before the next group is: that it can be late is the WAL's own test.
fn at_once(job: SpareJob, jobs: Arc<Inbox<Job>>) -> std::io::Result<()> {
    jobs.push(Job::Spare(job.run()));
    Ok(())
}

struct Outgoing {
    out: Arc<Mutex<Vec<Message>>>,
    apply_jobs: Arc<Inbox<ApplyJob>>,
    arrivals: Arc<Arrivals>,
    state: Arc<State>,
    clock: Arc<FakeClock>,
}

impl Outside for Outgoing {
    fn apply(&mut self, entries: Vec<Entry>) {
        self.apply_jobs.push(ApplyJob::Entries(entries));
    }

    fn send(&mut self, messages: Vec<Message>) {
        self.out.lock().extend(messages);
    }

    fn install(&mut self, snapshot: &SnapshotMetadata) {
        match self.arrivals.take(snapshot.index) {
            Some(arrived) => self.apply_jobs.push(ApplyJob::Install(Box::new(arrived))),
            None => end(&"the snapshot that raft wants is gone"),
        }
    }

    fn leadership(&mut self, leading: bool) {
        let mut lessor = self.state.lessor.lock();
        match leading {
            true => lessor.promote(self.clock.now(), TICK_US / 1000 * ELECTION_TICKS as u64),
            false => lessor.demote(),
        }
    }

    fn stalled(&mut self, gap: Duration) {
        self.state.lessor.lock().extend(gap.as_millis() as u64);
    }

    fn space_changed(&mut self) {}
}

struct SimEffects {
    driver: Arc<Mutex<Driver<Outgoing>>>,
    events: Arc<Inbox<Event>>,
    asked: Arc<Mutex<Asked>>,
    compactions: Arc<Mutex<Vec<i64>>>,
    since_checkpoint: u64,
    checkpoint_bytes: u64,
}

impl SimEffects {
    fn checkpoint(&mut self) {
        self.since_checkpoint = 0;
        self.asked.lock().checkpoint = true;
    }
}

impl Effects for SimEffects {
    /// The apply thread waits for the driver; here it turns the driver itself.
    fn conf_change(&mut self, change: raftpb::ConfChange) -> Option<ConfState> {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.events.push(Event::ConfChange(Box::new(change), sender));
        turn_driver(&self.driver, &self.events);
        receiver.try_recv().ok()
    }

    fn members_changed(&mut self) {}

    fn removed(&mut self) {}

    fn compacted(&mut self, revision: i64) {
        self.compactions.lock().push(revision);
        self.asked.lock().reclaim = true;
    }

    fn segment_closed(&mut self) {
        self.checkpoint();
    }

    fn frame_written(&mut self, _: u64, bytes: u64) {
        self.since_checkpoint += bytes;
        if self.since_checkpoint >= self.checkpoint_bytes {
            self.checkpoint();
        }
    }

    fn space_changed(&mut self) {}

    fn store_full(&mut self, _: bool) {}

    fn leases_changed(&mut self) {}

    fn fatal(&mut self, source: &std::io::Error) -> ! {
        end(source)
    }
}
