//! One member's process: the parts that are threads in the real one, taking turns.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use etcd::apply::{Applied, Applier, State};
use etcd::auth::Options;
use etcd::bootstrap::{self, ApplyJob, first};
use etcd::clock::Clock;
use etcd::disk::Disk;
use etcd::disk::fake::FakeDisk;
use etcd::lease::Lessor;
use etcd::lease::primary::Primary as _;
use etcd::membership::Membership;
use etcd::meta;
use etcd::mvcc::Store;
use etcd::raft::driver::{Driver, Event, Status};
use etcd::raft::inbox::Inbox;
use etcd::raft::log_thread::{Job, LogStatus, LogThread};
use etcd::raft::node::Timing;
use etcd::raft::older::Fetch;
use etcd::storage::keeper::{Keeper, Request};
use etcd::storage::{Writer, load};
use etcd::wal::format::Ids;
use etcd::wal::past::Past;
use etcd::wal::reader::Replay;
use etcd::wal::{SpareJob, Wal};
use etcd::watch::hub::{HubEvent, HubThread};
use etcd::watch::{Hub, catch_up};
use etcd_api::etcdserverpb::{InternalRaftRequest, RequestHeader, ResponseHeader};
use parking_lot::Mutex;
use prost::Message as _;
use raft::eraftpb::{Entry, Message};
use tokio::sync::oneshot::Receiver;

use crate::outside::{Outgoing, SimEffects, Spares, Told, end, take_all, turn_driver};
use crate::plan::Plan;
use crate::server::{Server, Task};

pub const TICK_US: u64 = 100_000;
pub const ELECTION_TICKS: usize = 10;
pub const MIN_LEASE_TTL: i64 = 2;
/// Of older entries that are read at once: little, so that some need several.
const PIECE_BYTES: u64 = 512;
const WAL_DIR: &str = "/member/wal";
const STORE_DIR: &str = "/member/store";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Driver,
    Wal,
    Apply,
    Keeper,
    Hub,
    History,
    Spare,
    Past,
    Tasks,
}

pub const PARTS: [Part; 9] = [
    Part::Driver,
    Part::Wal,
    Part::Apply,
    Part::Keeper,
    Part::Hub,
    Part::History,
    Part::Spare,
    Part::Past,
    Part::Tasks,
];

/// A process.
pub struct Life {
    pub state: Arc<State>,
    pub status: Arc<Status>,
    pub events: Arc<Inbox<Event>>,
    pub hub: Arc<Hub>,
    pub applier: Applier,
    pub server: Arc<Server>,
    tasks: Vec<Task>,
    driver: Arc<Mutex<Driver<Outgoing>>>,
    log: LogThread,
    jobs: Arc<Inbox<Job>>,
    apply_jobs: Arc<Inbox<ApplyJob>>,
    applying: VecDeque<ApplyJob>,
    keeper: Keeper,
    asked: Arc<Mutex<Request>>,
    compactions: Arc<Mutex<Vec<i64>>>,
    spares: Arc<Mutex<VecDeque<(SpareJob, Arc<Inbox<Job>>)>>>,
    log_status: Arc<LogStatus>,
    pub told: Arc<Told>,
    /// What it had applied when it heard of its members last.
    pub members_at: u64,
    past: Past,
    fetches: Arc<Mutex<VecDeque<Fetch>>>,
    hub_thread: HubThread,
    hub_events: VecDeque<HubEvent>,
    history: Arc<Inbox<Option<catch_up::Job>>>,
    reading: VecDeque<catch_up::Job>,
    out: Arc<Mutex<Vec<Message>>>,
    /// Pieces of the log that were read from its files.
    pub fetched: u64,
    ids: Ids,
    machine: FakeDisk,
}

impl Life {
    /// As `etcd::bootstrap` does it, without sockets.
    pub fn start(
        disk: &FakeDisk,
        ids: Ids,
        joins: bool,
        configured: &Membership,
        plan: &Plan,
        timeout_ticks: usize,
        next_id: u64,
    ) -> Result<Life> {
        let machine = disk.clone();
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let wal_dir = Path::new(WAL_DIR);
        let (mut wal, mut replay) = match Wal::identify(&*disk, wal_dir)? {
            Some(ids) => {
                let (mut wal, mut replay) = Wal::open(disk.clone(), wal_dir, ids, plan.wal_segment_bytes)?;
                if !joins {
                    first::resume(&mut wal, &mut replay, ids, configured)?;
                }
                (wal, replay)
            }
            None => {
                let mut wal = Wal::create(disk.clone(), wal_dir, ids, plan.wal_segment_bytes)?;
                let replay = match joins {
                    true => Replay::default(),
                    false => first::begin(&mut wal, configured)?,
                };
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
        let state = Arc::new(State::new(store.clone(), lessor, read, &Options::default())?);
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
        let server = Server::new(state.clone(), status.clone(), events.clone(), next_id);
        let out: Arc<Mutex<Vec<Message>>> = Arc::default();
        let (past, fetches) = (wal.past(), Arc::<Mutex<VecDeque<_>>>::default());
        let outgoing = Outgoing {
            out: out.clone(),
            apply_jobs: apply_jobs.clone(),
            arrived: None,
            server: server.clone(),
            fetches: fetches.clone(),
        };
        let mut driver = Driver::new(
            node,
            ids.member,
            events.clone(),
            jobs.clone(),
            status.clone(),
            outgoing,
            Duration::from_micros(TICK_US),
            conf_state,
        );
        driver.lazy = plan.lazy;
        let driver = Arc::new(Mutex::new(driver));
        let (asked, compactions, told) = (
            Arc::<Mutex<Request>>::default(),
            Arc::default(),
            Arc::<Told>::default(),
        );
        let effects = SimEffects {
            driver: driver.clone(),
            events: events.clone(),
            asked: asked.clone(),
            compactions: Arc::clone(&compactions),
            told: told.clone(),
            server: server.clone(),
            disk: machine.clone(),
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
        let clock: Arc<dyn Clock> = server.clock.clone();
        let mut applier = Applier::new(
            state.clone(),
            writer,
            hub.clone(),
            clock,
            Box::new(effects),
            ids.member,
            frame,
        );
        applier.rules.persist_checkpoints = plan.persist_checkpoints;
        applier.reserve();
        let (log_status, spares) = (
            Arc::new(LogStatus::default()),
            Arc::<Mutex<VecDeque<_>>>::default(),
        );
        let mut log = LogThread::new(wal, jobs.clone(), events.clone(), log_status.clone());
        log.fatal = end;
        log.beside = Box::new(Spares {
            wanted: spares.clone(),
            disk: machine.clone(),
        });
        let header = move |revision| ResponseHeader {
            cluster_id: ids.cluster,
            member_id: ids.member,
            revision,
            raft_term: 0,
        };
        let hub_thread = HubThread::new(hub.clone(), store, Arc::new(header), history.clone());
        driver.lock().start(server.clock.instant());
        server.start(plan.checkpoint_interval);
        Ok(Life {
            state,
            status,
            events,
            hub,
            applier,
            server,
            tasks: Vec::new(),
            driver,
            log,
            jobs,
            apply_jobs,
            applying: VecDeque::new(),
            keeper,
            asked,
            compactions,
            spares,
            log_status,
            told,
            members_at: frame.index,
            past,
            fetches,
            hub_thread,
            hub_events: VecDeque::new(),
            history,
            reading: VecDeque::new(),
            out,
            fetched: 0,
            ids,
            machine,
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
        let id = self.server.next_id();
        request.header = Some(RequestHeader {
            id,
            ..request.header.unwrap_or_default()
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
            Part::Keeper => *self.asked.lock() != Request::NONE,
            Part::Hub => !self.hub_events.is_empty() || !self.hub.is_idle(),
            Part::History => !self.reading.is_empty() || !self.history.is_empty(),
            Part::Spare => !self.spares.lock().is_empty(),
            Part::Past => !self.fetches.lock().is_empty(),
            Part::Tasks => self.server.is_awake(),
        }
    }

    /// A spare segment that is being made, which on a slow disk may take longer than anything, changes nothing for anybody.
    pub fn is_idle(&self) -> bool {
        self.due().into_iter().all(|part| part == Part::Spare)
    }

    pub fn due(&self) -> Vec<Part> {
        PARTS.into_iter().filter(|part| self.is_due(*part)).collect()
    }

    pub fn turn(&mut self, part: Part) {
        match part {
            Part::Driver => turn_driver(&self.driver, &self.events),
            Part::Wal => drop(self.log.turn(&mut take_all(&self.jobs))),
            Part::Apply => self.apply(),
            Part::Keeper => self.keep(),
            Part::Hub => self.hub(),
            Part::History => self.read_history(),
            Part::Spare => Spares::make(&self.spares),
            Part::Past => self.read_past(),
            Part::Tasks => self.server.poll(&mut self.tasks),
        }
    }

    fn read_past(&mut self) {
        let next = self.fetches.lock().pop_front();
        if let Some(fetch) = next {
            let entries = self.past.read(&fetch, PIECE_BYTES).ok();
            self.fetched += u64::from(entries.is_some());
            self.events.push(Event::Fetched(fetch.low, entries));
        }
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
        self.server.wake();
    }

    fn apply_entries(&mut self, entries: Vec<Entry>) {
        let Some(last) = entries.last().map(|entry| entry.index) else {
            return;
        };
        self.server.note_ends(&entries);
        self.applier.apply(entries);
        self.status.applied.store(last, Ordering::SeqCst);
        self.status.wake_to_campaign(&self.events);
    }

    fn keep(&mut self) {
        let asked = std::mem::take(&mut *self.asked.lock());
        let (store, events) = (&self.state.store, &self.events);
        let kept = bootstrap::keep(
            &mut self.keeper,
            store,
            events,
            &self.compactions,
            asked,
            |_| (),
            end,
        );
        if let Err(again) = kept {
            *self.asked.lock() |= again;
        }
        self.apply_jobs.push(ApplyJob::Reserve);
    }

    /// As `EtcdServer::check_space`: what takes space is refused.
    pub fn is_full(&self) -> bool {
        self.log_status.full.load(Ordering::SeqCst) || self.told.store_full.load(Ordering::SeqCst)
    }

    /// There is space again, and both threads look.
    pub fn made_room(&mut self) {
        *self.asked.lock() |= Request::RECLAIM;
        self.turn(Part::Wal);
    }

    /// Its disk has failed, and it is about to find out.
    pub fn is_burnt(&self) -> bool {
        self.machine.is_burnt()
    }

    pub fn is_leader(&self) -> bool {
        self.status.is_leader.load(Ordering::SeqCst)
    }

    /// A learner answers no client.
    pub fn is_learner(&self) -> bool {
        self.state.membership.read().is_learner(self.ids.member)
    }

    /// It knows that a member was removed, and does not forget it with the power.
    pub fn knows_removed(&self, id: u64) -> bool {
        self.state.membership.read().is_removed(id) && self.forgets_no_member()
    }

    /// The same of where a member is.
    pub fn knows_place(&self, id: u64, url: &String) -> bool {
        let known = self.state.membership.read();
        let member = known.members.get(&id);
        member.is_some_and(|member| member.peer_urls.contains(url)) && self.forgets_no_member()
    }

    fn forgets_no_member(&self) -> bool {
        self.keeper.durable_index() >= self.members_at
    }

    /// How much of this leader's log a member has, in percent.
    pub fn followed(&self, id: u64) -> Option<u64> {
        let followers = self.driver.lock().node.followers()?;
        let matched = |id: u64| {
            let follower = followers.iter().find(|follower| follower.id == id);
            follower.map(|follower| follower.matched)
        };
        Some(matched(id)? * 100 / matched(self.ids.member)?.max(1))
    }

    pub fn raft(&self) -> etcd::raft::node::Situation {
        self.driver.lock().node.situation()
    }

    /// Up to where its log goes on its disk.
    pub fn log_end(&self) -> u64 {
        self.log.wal.last_index()
    }

    pub fn has_nothing(&self) -> bool {
        self.log_end() == 0 && self.status.applied.load(Ordering::SeqCst) == 0
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
