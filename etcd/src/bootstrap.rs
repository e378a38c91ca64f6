//! From a data directory to a running member.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use etcd_api::{membershippb, raftpb};
use parking_lot::{Mutex, RwLock};
use prost::Message as _;
use raft::eraftpb::{ConfChange, ConfState, Entry, EntryType, HardState, Message};
use tracing::{info, warn};

use crate::apply::{Applier, Effects, State, Waits};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::disk::real::{self, DirLock, RealDisk};
use crate::disk::{Disk, Fill};
use crate::lease::Lessor;
use crate::membership::Membership;
use crate::meta;
use crate::mvcc::Store;
use crate::raft::driver::{Driver, Event, Outside, Status};
use crate::raft::inbox::Inbox;
use crate::raft::log::Log;
use crate::raft::log_thread::{Job, LogStatus, LogThread, fatal};
use crate::raft::node::{Node, Timing};
use crate::server::{EtcdServer, Limits, Parts};
use crate::storage::keeper::{Asked, Keeper};
use crate::storage::load::{self, Loaded};
use crate::storage::{self, Writer};
use crate::wal::format::{Group, Ids};
use crate::wal::{self, Wal, reader::Replay};
use crate::watch::{Hub, hub};

/// A checkpoint is taken after so many bytes of frames.
const CHECKPOINT_BYTES: u64 = 8 * 1024 * 1024;
const THREAD_STACK: usize = 2 * 1024 * 1024;
/// An fdatasync at start that takes longer gets a warning.
const SLOW_PROBE: Duration = Duration::from_millis(10);
const PROBES: usize = 8;

/// A running member; dropping the lock last frees the directory.
pub struct Member {
    pub server: Arc<EtcdServer>,
    threads: Vec<std::thread::JoinHandle<()>>,
    keeper: std::thread::JoinHandle<()>,
    apply_jobs: Arc<Inbox<ApplyJob>>,
    _lock: DirLock,
}

pub enum ApplyJob {
    Entries(Vec<Entry>),
    Reserve,
    Stop,
}

pub fn start(config: &Config) -> Result<Member> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let lock = prepare(&*disk, &config.data_dir)?;
    probe(&*disk, &config.data_dir.join("member"), config.election)?;
    let opened = open(&disk, config)?;
    Running::start(config, opened, lock)
}

/// Makes the directories, refuses a foreign or busy one, and takes the lock.
fn prepare(disk: &dyn Disk, data_dir: &Path) -> Result<DirLock> {
    let member = data_dir.join("member");
    if member.join("snap").join("db").exists() {
        bail!(
            "{}: this data directory was written by the Go etcd; take a snapshot there with `etcdctl snapshot save` and restore it into a new --data-dir",
            member.display()
        );
    }
    for dir in [&member.join("wal"), &member.join("store")] {
        disk.create_dir(dir)
            .with_context(|| format!("cannot create {}", dir.display()))?;
    }
    restrict(data_dir)?;
    let lock =
        real::lock(&member.join("lock")).with_context(|| format!("cannot lock {}", member.display()))?;
    lock.with_context(|| format!("{}: the data directory is in use by another etcd process; stop it, or give this one another --data-dir", data_dir.display()))
}

/// etcd wants its directory for itself.
fn restrict(data_dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(data_dir)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        std::fs::set_permissions(data_dir, std::fs::Permissions::from_mode(0o700)).with_context(|| {
            format!(
                "{} has mode {mode:o}, and it cannot be changed to 0700",
                data_dir.display()
            )
        })?;
    }
    Ok(())
}

/// One line about what this disk will do to elections and requests.
fn probe(disk: &dyn Disk, dir: &Path, election: Duration) -> Result<()> {
    let path = dir.join("probe.tmp");
    crate::disk::remove_if_there(disk, &path).with_context(|| path.display().to_string())?;
    let file = match disk.create(&path, 64 * 1024, Fill::Zeroes) {
        Ok(file) => file,
        Err(error) if crate::disk::is_full(&error) => {
            warn!("the disk is full");
            return Ok(());
        }
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let mut times = Vec::with_capacity(PROBES);
    for number in 0..PROBES {
        let start = Instant::now();
        file.write_at(&[1; 1024], number as u64 * 4096)?;
        file.sync()?;
        times.push(start.elapsed());
    }
    disk.remove(&path)?;
    times.sort();
    let (median, worst) = (times[PROBES / 2], times[PROBES - 1]);
    match median > SLOW_PROBE {
        true => {
            warn!(median = ?median, worst = ?worst, "election-timeout" = ?election, "the disk is slow: fdatasync should take less than 10 ms; requests will be slow and elections may follow")
        }
        false => info!(median = ?median, worst = ?worst, "fdatasync of the data directory is fast enough"),
    }
    Ok(())
}

struct Opened {
    ids: Ids,
    wal: Wal,
    replay: Replay,
    loaded: Loaded,
    state: meta::State,
    lessor: Lessor,
}

fn open(disk: &Arc<dyn Disk>, config: &Config) -> Result<Opened> {
    let wal_dir = config.data_dir.join("member/wal");
    let (ids, wal, replay) = match Wal::identify(&**disk, &wal_dir)? {
        Some(ids) => {
            let (wal, replay) = Wal::open(disk.clone(), &wal_dir, ids, wal::SEGMENT_BYTES)?;
            (ids, wal, replay)
        }
        None => first_start(disk, config, &wal_dir)?,
    };
    if replay.torn_bytes > 0 {
        warn!(
            bytes = replay.torn_bytes,
            "repaired the torn tail of the WAL: nothing of it was acknowledged"
        );
    }
    let mut loaded = load::load(
        disk.clone(),
        &config.data_dir.join("member/store"),
        ids.cluster,
        storage::SEGMENT_BYTES,
    )?;
    let mut lessor = Lessor::new(config.min_lease_ttl());
    let state = meta::read(&loaded, &mut lessor)?;
    check_consistent(&config.data_dir, &replay, &loaded)?;
    loaded.versions.shrink_to_fit();
    Ok(Opened {
        ids,
        wal,
        replay,
        loaded,
        state,
        lessor,
    })
}

/// The log must reach from where the store is durable to where the store is.
fn check_consistent(data_dir: &Path, replay: &Replay, loaded: &Loaded) -> Result<()> {
    let index = loaded.frame.index;
    if index < replay.snapshot.index {
        bail!(
            "{}: the store ends at index {index} but the log begins after {}; the store was replaced or lost: restore a snapshot into a new data directory",
            data_dir.display(),
            replay.snapshot.index
        );
    }
    if index > replay.last_index() {
        bail!(
            "{}: the store is at index {index} but the log ends at {}; the log was replaced or lost: restore a snapshot into a new data directory",
            data_dir.display(),
            replay.last_index()
        );
    }
    Ok(())
}

/// As etcd does it: the first entries of a new cluster are its members, committed by definition.
fn first_start(disk: &Arc<dyn Disk>, config: &Config, wal_dir: &Path) -> Result<(Ids, Wal, Replay)> {
    if config.initial_cluster_state == "existing" {
        bail!(
            "--initial-cluster-state=existing: joining a running cluster is not supported yet by this version; start with --initial-cluster-state=new"
        );
    }
    let membership = Membership::initial(&config.initial_cluster, &config.initial_cluster_token)?;
    let local = membership.local(&config.name, &config.initial_advertise_peer_urls)?;
    if membership.members.len() > 1 {
        bail!(
            "--initial-cluster names {} members; clusters of more than one member are not supported yet by this version",
            membership.members.len()
        );
    }
    let ids = Ids {
        cluster: membership.cluster_id,
        member: local.id,
    };
    info!("local-member-id" = %format!("{:x}", ids.member), "cluster-id" = %format!("{:x}", ids.cluster), "starting local member");
    let mut wal = Wal::create(disk.clone(), wal_dir, ids, wal::SEGMENT_BYTES)?;
    let mut replay = Replay::default();
    for (place, member) in membership.members.values().enumerate() {
        let change = raftpb::ConfChange {
            id: 0,
            r#type: 0,
            node_id: member.id,
            context: Some(serde_json::to_vec(member)?.into()),
        };
        replay.entries.push(Entry {
            entry_type: EntryType::EntryConfChange as i32,
            term: 1,
            index: place as u64 + 1,
            data: change.encode_to_vec().into(),
            ..Entry::default()
        });
    }
    replay.hard_state = HardState {
        term: 1,
        vote: 0,
        commit: replay.entries.len() as u64,
    };
    let mut group = Group::default();
    replay.entries.iter().for_each(|entry| group.entry(entry));
    group.hard_state(&replay.hard_state);
    wal.append(&mut group).context("cannot write the log")?;
    Ok((ids, wal, replay))
}

/// What the threads share while they are being started.
struct Running {
    server: Arc<EtcdServer>,
    events: Arc<Inbox<Event>>,
    jobs: Arc<Inbox<Job>>,
    apply_jobs: Arc<Inbox<ApplyJob>>,
    compactions: Arc<Mutex<Vec<i64>>>,
}

impl Running {
    fn start(config: &Config, opened: Opened, lock: DirLock) -> Result<Member> {
        let Opened {
            ids,
            wal,
            replay,
            loaded,
            state: read,
            lessor,
        } = opened;
        let Loaded {
            storage,
            versions,
            meta,
            frame,
            durable,
            active,
        } = loaded;
        let store = Arc::new(Store::open(
            storage.clone(),
            versions,
            frame.revision,
            read.compacted,
        ));
        let conf_state = conf_state(&read.conf_state, &replay);
        let state = Arc::new(State {
            store: store.clone(),
            lessor: Mutex::new(attach_leases(lessor, &store)),
            membership: RwLock::new(read.membership),
            alarms: RwLock::new(read.alarms),
            v2: RwLock::new(read.v2),
            waits: Waits::default(),
        });
        let writer =
            Writer::new(storage.clone(), active, meta, frame).context("cannot write to the store")?;
        let node = node(config, ids.member, &conf_state, replay, frame.index)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let (raft, log, events, hub) = (
            Arc::new(Status::default()),
            Arc::new(LogStatus::default()),
            Arc::new(Inbox::default()),
            Arc::new(Hub::default()),
        );
        raft.applied.store(frame.index, Ordering::SeqCst);
        let parts = Parts {
            member: ids.member,
            cluster: ids.cluster,
            limits: limits(config),
            state: state.clone(),
            raft: raft.clone(),
            log: log.clone(),
            events: events.clone(),
            hub: hub.clone(),
            clock: clock.clone(),
        };
        let server = Arc::new(EtcdServer::new(parts));
        let running = Running {
            server: server.clone(),
            events: events.clone(),
            jobs: Arc::default(),
            apply_jobs: Arc::default(),
            compactions: Arc::default(),
        };
        let keeper = Keeper::new(storage, ids.member, writer.written(), store.clone(), durable);
        let effects = Box::new(running.effects());
        let applier = Applier::new(state, writer, hub.clone(), clock, effects, ids.member, frame);
        let driver = Driver::new(
            node,
            ids.member,
            events.clone(),
            running.jobs.clone(),
            raft,
            running.outside(),
            config.heartbeat,
            conf_state,
        );
        let log_thread = LogThread {
            wal,
            jobs: running.jobs.clone(),
            events: events.clone(),
            status: log,
        };
        let keeper = running.keeper(keeper)?;
        let header_server = server.clone();
        let mut threads = hub::spawn(
            &hub,
            &store,
            Arc::new(move |revision| header_server.header(revision)),
            config.watch_progress_notify_interval,
        )?;
        threads.push(thread("etcd-wal", move || log_thread.run())?);
        threads.push(running.applying(applier)?);
        threads.push(thread("etcd-raft", move || driver.run())?);
        Ok(Member {
            server,
            threads,
            keeper,
            apply_jobs: running.apply_jobs,
            _lock: lock,
        })
    }

    fn effects(&self) -> ServerEffects {
        ServerEffects {
            server: self.server.clone(),
            events: self.events.clone(),
            compactions: self.compactions.clone(),
            since_checkpoint: 0,
        }
    }

    fn outside(&self) -> ServerOutside {
        ServerOutside {
            server: self.server.clone(),
            apply_jobs: self.apply_jobs.clone(),
        }
    }

    fn applying(&self, mut applier: Applier) -> Result<std::thread::JoinHandle<()>> {
        let (jobs, events, server) = (self.apply_jobs.clone(), self.events.clone(), self.server.clone());
        thread("etcd-apply", move || {
            let mut batch = Vec::new();
            applier.reserve();
            loop {
                jobs.drain(&mut batch, None);
                for job in batch.drain(..) {
                    match job {
                        ApplyJob::Entries(entries) => apply(&mut applier, entries, &server, &events),
                        ApplyJob::Reserve => applier.reserve(),
                        ApplyJob::Stop => return,
                    }
                }
            }
        })
    }

    /// Checkpoints, sweeps and reclaims, one after the other, whenever it is asked.
    fn keeper(&self, mut keeper: Keeper) -> Result<std::thread::JoinHandle<()>> {
        let (server, events, apply_jobs, compactions) = (
            self.server.clone(),
            self.events.clone(),
            self.apply_jobs.clone(),
            self.compactions.clone(),
        );
        thread("etcd-keeper", move || {
            loop {
                let asked = server.bell.wait();
                let result = keep(&mut keeper, &server, &events, &compactions, asked);
                if let Err(error) = &result {
                    warn!(error = %error, "failed to make the store durable or smaller; it will be tried again");
                }
                apply_jobs.push(ApplyJob::Reserve);
                server.space.notify_one();
                if asked.stop {
                    return;
                }
            }
        })
    }
}

fn keep(
    keeper: &mut Keeper,
    server: &EtcdServer,
    events: &Inbox<Event>,
    compactions: &Mutex<Vec<i64>>,
    asked: Asked,
) -> std::io::Result<()> {
    let sweeps = std::mem::take(&mut *compactions.lock());
    for revision in sweeps {
        let start = Instant::now();
        let dropped = server.store().compact_index(revision);
        server.swept.send_replace(revision);
        info!("compact-revision" = revision, dropped, took = ?start.elapsed(), "finished scheduled compaction");
    }
    if asked.checkpoint || asked.reclaim {
        let frame = keeper.checkpoint()?;
        events.push(Event::Durable(frame.index, frame.term));
    }
    if asked.reclaim {
        keeper.reclaim()?;
    }
    Ok(())
}

fn apply(applier: &mut Applier, entries: Vec<Entry>, server: &EtcdServer, events: &Inbox<Event>) {
    let Some(last) = entries.last().map(|entry| entry.index) else {
        return;
    };
    let (count, start) = (entries.len(), Instant::now());
    applier.apply(entries);
    let took = start.elapsed();
    if took > server.limits.warning_apply {
        warn!(took = ?took, "expected-duration" = ?server.limits.warning_apply, entries = count, "apply request took too long");
        crate::metrics::SLOW_APPLY.with(&[]).inc();
    }
    server.raft.applied.store(last, Ordering::SeqCst);
    server.applied.send_replace(last);
    // A leader reads the index when it has something to do anyway; only who may have to campaign is woken.
    if !server.raft.is_leader.load(Ordering::SeqCst) {
        events.push(Event::Applied);
    }
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>> {
    let guarded = move || {
        let guard = PanicEnds;
        run();
        std::mem::forget(guard);
    };
    Ok(std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(THREAD_STACK)
        .spawn(guarded)?)
}

/// A member without one of its threads would answer nothing and say nothing: it ends instead, and is started again.
struct PanicEnds;

impl Drop for PanicEnds {
    #[allow(
        clippy::disallowed_methods,
        reason = "a drain would wait for the thread that has just died"
    )]
    fn drop(&mut self) {
        std::process::exit(1);
    }
}

fn limits(config: &Config) -> Limits {
    Limits {
        max_request_bytes: config.max_request_bytes,
        max_txn_ops: config.max_txn_ops,
        quota_bytes: config.quota_bytes,
        warning_apply: config.warning_apply_duration,
    }
}

/// What the store says as of its index; before the first entry was applied, the members that the first entries add.
fn conf_state(stored: &raftpb::ConfState, replay: &Replay) -> ConfState {
    if stored.voters.is_empty() {
        let added = replay
            .entries
            .iter()
            .filter_map(crate::raft::node::conf_change)
            .map(|change| change.node_id);
        return ConfState {
            voters: added.collect(),
            ..ConfState::default()
        };
    }
    ConfState {
        voters: stored.voters.clone(),
        learners: stored.learners.clone(),
        voters_outgoing: stored.voters_outgoing.clone(),
        learners_next: stored.learners_next.clone(),
        auto_leave: stored.auto_leave,
    }
}

fn node(config: &Config, id: u64, conf_state: &ConfState, replay: Replay, applied: u64) -> Result<Node> {
    let mut hard_state = replay.hard_state;
    // The commit index is written lazily; what was applied was committed.
    hard_state.commit = hard_state.commit.max(applied);
    let log = Log::new(
        hard_state,
        conf_state.clone(),
        (replay.snapshot.index, replay.snapshot.term),
        replay.entries,
    );
    let timing = Timing {
        election_ticks: config.election_ticks(),
        pre_vote: config.pre_vote,
    };
    Node::new(id, log, applied, &timing).context("cannot start raft")
}

fn attach_leases(mut lessor: Lessor, store: &Store) -> Lessor {
    use crate::mvcc::txn::Leases as _;
    if lessor.is_empty() {
        return lessor;
    }
    store.walk(&crate::mvcc::key::KeyRange::all(), i64::MAX, |key, version| {
        if version.lease != 0 {
            lessor.attach(version.lease, &bytes::Bytes::copy_from_slice(key));
        }
        std::ops::ControlFlow::Continue(())
    });
    lessor
}

struct ServerOutside {
    server: Arc<EtcdServer>,
    apply_jobs: Arc<Inbox<ApplyJob>>,
}

impl Outside for ServerOutside {
    fn apply(&mut self, entries: Vec<Entry>) {
        self.apply_jobs.push(ApplyJob::Entries(entries));
    }

    /// The only member has nobody to send to.
    fn send(&mut self, _: Vec<Message>) {}

    fn leadership(&mut self, leading: bool) {
        let mut lessor = self.server.state.lessor.lock();
        if leading {
            lessor.promote(self.server.clock.now())
        } else {
            lessor.demote()
        }
        drop(lessor);
        self.server.leases_changed.notify_one();
        self.server.space.notify_one();
    }

    fn space_changed(&mut self) {
        self.server.space.notify_one();
    }
}

struct ServerEffects {
    server: Arc<EtcdServer>,
    events: Arc<Inbox<Event>>,
    compactions: Arc<Mutex<Vec<i64>>>,
    since_checkpoint: u64,
}

impl Effects for ServerEffects {
    fn conf_change(&mut self, change: ConfChange) -> Option<ConfState> {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.events.push(Event::ConfChange(Box::new(change), sender));
        // The driver may have stopped with the question in its inbox.
        receiver.recv_timeout(crate::server::REQUEST_TIMEOUT).ok()
    }

    fn compacted(&mut self, revision: i64) {
        self.compactions.lock().push(revision);
        self.server.bell.ask(Asked {
            reclaim: true,
            ..Asked::default()
        });
    }

    fn segment_closed(&mut self) {
        self.checkpoint();
    }

    fn frame_written(&mut self, _: u64, bytes: u64) {
        self.server
            .live_bytes
            .store(self.server.store().storage.live_bytes(), Ordering::Relaxed);
        self.since_checkpoint += bytes;
        if self.since_checkpoint >= CHECKPOINT_BYTES {
            self.checkpoint();
        }
    }

    fn space_changed(&mut self) {
        self.server.space.notify_one();
    }

    fn store_full(&mut self, full: bool) {
        self.server.store_full.store(full, Ordering::SeqCst);
        match full {
            true => warn!(
                "the disk is full: writes are refused until there is space for the next segment of the store"
            ),
            false => info!("there is space for the store again"),
        }
        self.server.bell.ask(Asked {
            reclaim: full,
            ..Asked::default()
        });
        self.server.space.notify_one();
    }

    fn leases_changed(&mut self) {
        self.server.leases_changed.notify_one();
    }

    fn fatal(&mut self, source: &std::io::Error) -> ! {
        fatal(source)
    }
}

impl ServerEffects {
    fn checkpoint(&mut self) {
        self.since_checkpoint = 0;
        self.server.bell.ask(Asked {
            checkpoint: true,
            ..Asked::default()
        });
    }
}

impl Member {
    /// Tells the cluster who this member is and, when it leads, what version the cluster has.
    pub async fn publish(&self, config: &Config) -> Result<()> {
        let attributes = membershippb::Attributes {
            name: config.name.clone(),
            client_urls: config.advertise_client_urls.clone(),
        };
        let request = etcd_api::etcdserverpb::InternalRaftRequest {
            cluster_member_attr_set: Some(membershippb::ClusterMemberAttrSetRequest {
                member_id: self.server.member,
                member_attributes: Some(attributes),
            }),
            ..Default::default()
        };
        self.server.propose(request).await?;
        info!("local-member-id" = %format!("{:x}", self.server.member), "published local member to cluster through raft");
        if self.server.state.membership.read().version.is_empty() {
            let version = membershippb::ClusterVersionSetRequest {
                ver: crate::config::CLUSTER_VERSION.to_owned(),
            };
            let request = etcd_api::etcdserverpb::InternalRaftRequest {
                cluster_version_set: Some(version),
                ..Default::default()
            };
            self.server.propose(request).await?;
        }
        Ok(())
    }

    /// Stops everything in the order of the data's way, and leaves the store durable for a fast start.
    pub fn stop(self) {
        self.server.events.push(Event::Stop);
        self.server.hub.send(hub::HubEvent::Stop);
        self.server.bell.ask(Asked {
            checkpoint: true,
            stop: true,
            ..Asked::default()
        });
        join(self.keeper);
        self.apply_jobs.push(ApplyJob::Stop);
        self.threads.into_iter().for_each(join);
    }
}

fn join(thread: std::thread::JoinHandle<()>) {
    if thread.join().is_err() {
        warn!("a thread panicked before the end");
    }
}

/// Where a member's files are.
pub fn data_dir(config_dir: &str, name: &str) -> PathBuf {
    if config_dir.is_empty() {
        PathBuf::from(format!("{name}.etcd"))
    } else {
        PathBuf::from(config_dir)
    }
}

/// Whether reclaiming is worth waking for at start: dead space of the last life.
pub fn reclaim_at_start(server: &EtcdServer) {
    server.bell.ask(Asked {
        reclaim: true,
        ..Asked::default()
    });
}
