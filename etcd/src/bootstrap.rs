//! From a data directory to a running member. [`first`] begins one that has no data, with the members
//! that [`discovery`] finds; [`alone`] is for one that is to go on without the others.

mod alone;
mod discovery;
pub mod first;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use component_base::allocator;
use etcd_api::{membershippb, raftpb, walpb};
use parking_lot::{Mutex, RwLock};
use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType, SnapshotMetadata};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::apply::{Applier, Arrived, Effects, Rules, State, Waits};
use crate::auth::AuthStore;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::disk::real::{self, DirLock, RealDisk};
use crate::disk::unsynced::Unsynced;
use crate::disk::{Disk, Fill};
use crate::lease::Lessor;
use crate::membership::{Change, Member as ClusterMember};
use crate::meta;
use crate::mvcc::Store;
use crate::peer::client::Client;
use crate::peer::headers::Local;
use crate::peer::remote::Shared;
use crate::peer::snapshot;
use crate::peer::streams::{self, Streams};
use crate::peer::transport::{Network as _, Transport};
use crate::raft::conf_change;
use crate::raft::driver::{Driver, Event, Outside, Status, raft_conf_state};
use crate::raft::inbox::Inbox;
use crate::raft::log::Log;
use crate::raft::log_thread::{Job, LogStatus, LogThread, fatal};
use crate::raft::node::{MAX_MESSAGE_BYTES, Node, Timing};
use crate::raft::older::Fetch;
use crate::raft::run::Loop;
use crate::raft::stage::{Stage, Worker};
use crate::server::{EtcdServer, Limits, Parts};
use crate::snapshot::View;
use crate::storage::keeper::{Asked, Keeper};
use crate::storage::load::{self, Loaded};
use crate::storage::{self, Writer};
use crate::wal::format::{Group, Ids};
use crate::wal::past::Past;
use crate::wal::{self, Wal, reader::Replay};
use crate::watch::{Hub, hub};

/// A checkpoint is taken after so many bytes of frames.
const CHECKPOINT_BYTES: u64 = 8 * 1024 * 1024;
const THREAD_STACK: usize = 2 * 1024 * 1024;
/// An fdatasync at start that takes longer gets a warning.
const SLOW_PROBE: Duration = Duration::from_millis(10);
const PROBES: usize = 8;
/// After the store could not be made durable.
const KEEP_RETRY: Duration = Duration::from_millis(500);

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
    /// A store that takes the place of this one.
    Install(Box<Arrived>),
    Reserve,
    /// What a snapshot taken now holds.
    View(std::sync::mpsc::Sender<View>),
    Stop,
}

/// Upstream's: a second and an election.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);

pub async fn start(config: &Config) -> Result<Member> {
    if config.memory_mlock {
        lock_memory()?;
    }
    let disk: Arc<dyn Disk> = match config.no_fsync {
        false => Arc::new(RealDisk),
        true => {
            tracing::warn!(
                "--unsafe-no-fsync: what is acknowledged is not durable; a loss of power loses it, or the whole store"
            );
            Arc::new(Unsynced(RealDisk))
        }
    };
    let lock = prepare(&*disk, config)?;
    for dir in probed(config) {
        probe(&*disk, &dir, config.election)?;
    }
    let client = peer_client(config)?;
    let opened = open(&disk, config, &client).await?;
    Running::start(config, opened, lock, client)
}

/// Index, log and what is allocated later, page by page as they are touched; values stay in files, where the page cache is the kernel's.
fn lock_memory() -> Result<()> {
    use rustix::mm::{MlockAllFlags, mlockall};
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    mlockall(all).context(
        "--memory-mlock: cannot lock memory; raise the limit (ulimit -l unlimited, LimitMEMLOCK=infinity) or give the process CAP_IPC_LOCK",
    )
}

fn peer_client(config: &Config) -> Result<Client> {
    let allowed = &config.allowed_peers;
    let tls = config.peer_client_tls.clone();
    let tls = tls.map(|tls| tls.load_for(allowed.clone()));
    let tls = tls
        .transpose()
        .context("--peer-cert-file, --peer-key-file and --peer-trusted-ca-file")?;
    Ok(Client::new(tls, DIAL_TIMEOUT + config.election))
}

/// Makes the directories, refuses a foreign or busy one, and takes the lock.
fn prepare(disk: &dyn Disk, config: &Config) -> Result<DirLock> {
    let (data_dir, member) = (&config.data_dir, config.data_dir.join("member"));
    let database = member.join("snap").join("db");
    if database.exists() {
        bail!(
            "{}: this data directory was written by the Go etcd; stop that etcd in order, and move its data into a new --data-dir with `{}`; or take a snapshot there with `etcdctl snapshot save`, and restore that in the same way without --skip-hash-check",
            member.display(),
            restore_command(config, &database)
        );
    }
    for dir in [&config.wal_dir, &member.join("store")] {
        disk.create_dir(dir)
            .with_context(|| format!("cannot create {}", dir.display()))?;
    }
    restrict(data_dir)?;
    let lock =
        real::lock(&member.join("lock")).with_context(|| format!("cannot lock {}", member.display()))?;
    lock.with_context(|| format!("{}: the data directory is in use by another etcd process; stop it, or give this one another --data-dir", data_dir.display()))
}

/// What makes a data directory of ours from the database of a Go etcd.
fn restore_command(config: &Config, database: &Path) -> String {
    format!(
        "etcdutl snapshot restore {} --skip-hash-check --data-dir=<new directory> --name={} --initial-cluster={} --initial-cluster-token={} --initial-advertise-peer-urls={}",
        database.display(),
        config.name,
        config.initial_cluster,
        config.initial_cluster_token,
        config.initial_advertise_peer_urls.join(",")
    )
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

/// The log decides how fast an entry is durable; the rest matters by itself only where it lies elsewhere.
fn probed(config: &Config) -> Vec<PathBuf> {
    let mut dirs = vec![config.wal_dir.clone()];
    if !config.wal_dir.starts_with(&config.data_dir) {
        dirs.push(config.data_dir.join("member"));
    }
    dirs
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
            warn!(dir = %dir.display(), median = ?median, worst = ?worst, "election-timeout" = ?election, "the disk is slow: fdatasync should take less than 10 ms; requests will be slow and elections may follow")
        }
        false => {
            info!(dir = %dir.display(), median = ?median, worst = ?worst, "fdatasync of the data directory is fast enough")
        }
    }
    Ok(())
}

struct Opened {
    ids: Ids,
    /// Who is there, until the log says so.
    members: Vec<ClusterMember>,
    wal: Wal,
    replay: Replay,
    loaded: Loaded,
    state: meta::State,
    lessor: Lessor,
}

async fn open(disk: &Arc<dyn Disk>, config: &Config, client: &Client) -> Result<Opened> {
    let wal_dir = &config.wal_dir;
    let (ids, mut wal, mut replay, joined) = match Wal::identify(&**disk, wal_dir)? {
        Some(ids) => {
            let (mut wal, mut replay) = Wal::open(disk.clone(), wal_dir, ids, wal::SEGMENT_BYTES)?;
            if config.initial_cluster_state != "existing" && first::is_blank(&replay) {
                let configured = discovery::configured(config).await?;
                first::resume(&mut wal, &mut replay, ids, &configured)?;
            }
            (ids, wal, replay, Vec::new())
        }
        None => first::start(disk, config, wal_dir, client).await?,
    };
    if replay.torn_bytes > 0 {
        warn!(
            bytes = replay.torn_bytes,
            "repaired the torn tail of the WAL: nothing of it was acknowledged"
        );
    }
    let loaded = load::load(
        disk.clone(),
        &config.data_dir.join("member/store"),
        ids.cluster,
        storage::SEGMENT_BYTES,
    )?;
    let mut lessor = Lessor::new(config.min_lease_ttl());
    let state = meta::read(&loaded, &mut lessor)?;
    finish_install(&mut wal, &mut replay, &loaded, &state)?;
    check_consistent(&config.data_dir, &replay, &loaded)?;
    if config.force_new_cluster {
        alone::force(&mut wal, &mut replay, &state, ids.member, loaded.frame.index)?;
    }
    let members = match (state.membership.members.is_empty(), joined.is_empty()) {
        (false, _) => state.membership.list(),
        (true, false) => joined,
        (true, true) => members_of(&replay),
    };
    Ok(Opened {
        ids,
        members,
        wal,
        replay,
        loaded,
        state,
        lessor,
    })
}

/// The log must reach from where the store is durable to where the store is.
pub fn check_consistent(data_dir: &Path, replay: &Replay, loaded: &Loaded) -> Result<()> {
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

/// The store was replaced by a leader's, and the process ended before the log said so: now it does.
pub fn finish_install(
    wal: &mut Wal,
    replay: &mut Replay,
    loaded: &Loaded,
    state: &meta::State,
) -> Result<()> {
    let installed = loaded.storage.installed.load(Ordering::SeqCst);
    let index = loaded.frame.index;
    if installed <= replay.snapshot.index || installed != index {
        return Ok(());
    }
    let snapshot = walpb::Snapshot {
        index,
        term: loaded.frame.term,
        conf_state: Some(state.conf_state.clone()),
    };
    let mut group = Group::default();
    group.snapshot(&snapshot);
    wal.append(&mut group).context("cannot write the log")?;
    replay.covered(snapshot);
    Ok(())
}

/// The members that the first entries of a log add: those are committed by definition.
fn first_changes(replay: &Replay) -> impl Iterator<Item = raftpb::ConfChange> + '_ {
    let entries = replay.entries.iter().zip(1..);
    entries
        .take_while(|(entry, index)| entry.index == *index && entry.term == first::TERM)
        .map_while(|(entry, _)| conf_change::decode(entry))
}

fn members_of(replay: &Replay) -> Vec<ClusterMember> {
    first_changes(replay)
        .filter_map(|change| match Change::read(&change)? {
            Change::Add(member) => Some(member),
            _ => None,
        })
        .collect()
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
    fn start(config: &Config, opened: Opened, lock: DirLock, client: Client) -> Result<Member> {
        let Opened {
            ids,
            members,
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
            lessor: Mutex::new(lessor.attached_to(&store)),
            membership: RwLock::new(read.membership),
            alarms: RwLock::new(read.alarms),
            auth: AuthStore::new(read.auth, &config.auth)?,
            v2: RwLock::new(read.v2),
            waits: Waits::default(),
        });
        let writer =
            Writer::new(storage.clone(), active, meta, frame).context("cannot write to the store")?;
        // Segments and the log were read whole.
        allocator::collect();
        let timing = Timing {
            election_ticks: config.election_ticks(),
            pre_vote: config.pre_vote,
            timeout_ticks: None,
        };
        let mut node = node(&timing, ids.member, &conf_state, replay, frame.index)?;
        node.retain(config.retention);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let (raft, log, events, hub) = (
            Arc::new(Status::default()),
            Arc::new(LogStatus::default()),
            Arc::new(Inbox::default()),
            Arc::new(Hub::default()),
        );
        let apply_jobs: Arc<Inbox<ApplyJob>> = Arc::default();
        raft.applied.store(frame.index, Ordering::SeqCst);
        let removed = watch::Sender::new(false);
        let transport = Arc::new(Transport::new(Shared {
            local: Local {
                member: ids.member,
                cluster: ids.cluster,
                peer_urls: config.initial_advertise_peer_urls.clone(),
            },
            client,
            events: events.clone(),
            read_timeout: config.raft_read_timeout,
            write_timeout: config.raft_write_timeout,
            removed: on_removal(&removed),
        }));
        let parts = Parts {
            member: ids.member,
            cluster: ids.cluster,
            limits: limits(config),
            state: state.clone(),
            raft: raft.clone(),
            log: log.clone(),
            events: events.clone(),
            apply_jobs: apply_jobs.clone(),
            hub: hub.clone(),
            clock: clock.clone(),
            transport: transport.clone(),
            removed,
        };
        let server = Arc::new(EtcdServer::new(parts));
        server.members_changed();
        transport.set_members(&members);
        let running = Running {
            server: server.clone(),
            events: events.clone(),
            jobs: Arc::default(),
            apply_jobs,
            compactions: Arc::default(),
        };
        let keeper = Keeper::new(storage, ids.member, writer.written(), store.clone(), durable);
        let effects = Box::new(running.effects());
        let mut applier = Applier::new(state, writer, hub.clone(), clock, effects, ids.member, frame);
        applier.rules = Rules {
            max_learners: config.max_learners,
            persist_checkpoints: config.features.lease_checkpoint_persist,
        };
        let mut driver = Driver::new(
            node,
            ids.member,
            events.clone(),
            running.jobs.clone(),
            raft,
            running.outside(wal.past())?,
            config.heartbeat,
            conf_state,
        );
        driver.election = config.election;
        let log_thread = LogThread::new(wal, running.jobs.clone(), events.clone(), log);
        let keeper = running.keeper(keeper)?;
        let header_server = server.clone();
        let mut threads = hub::spawn(
            &hub,
            &store,
            Arc::new(move |revision| header_server.header(revision)),
            config.watch_progress_notify_interval,
        )?;
        let log = Stage::new(running.jobs.clone(), log_thread);
        let applying = Stage::new(running.apply_jobs.clone(), running.applying(applier));
        let raft = Loop::new(driver, vec![applying.clone(), log.clone()]);
        threads.push(thread("etcd-wal", move || log.run())?);
        threads.push(thread("etcd-apply", move || applying.run())?);
        let stand_in = raft.clone();
        threads.push(thread("etcd-raft", move || raft.run())?);
        threads.push(thread("etcd-raft-spare", move || stand_in.stand_in())?);
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

    fn outside(&self, past: Past) -> Result<ServerOutside> {
        Ok(ServerOutside {
            streams: Streams::new(&self.events).context("cannot wait for peers")?,
            server: self.server.clone(),
            apply_jobs: self.apply_jobs.clone(),
            runtime: Handle::current(),
            led: false,
            arrived: None,
            past: Arc::new(past),
        })
    }

    fn applying(&self, mut applier: Applier) -> Applying {
        applier.reserve();
        Applying {
            applier,
            server: self.server.clone(),
            events: self.events.clone(),
        }
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
                let result = keep(
                    &mut keeper,
                    server.store(),
                    &events,
                    &compactions,
                    asked,
                    |revision| {
                        server.swept.send_replace(revision);
                    },
                    fatal,
                );
                if let Err(again) = result {
                    std::thread::sleep(KEEP_RETRY);
                    server.bell.ask(again);
                }
                apply_jobs.push(ApplyJob::Reserve);
                server.space.notify_one();
                allocator::collect();
                if asked.stop {
                    return;
                }
            }
        })
    }
}

/// One round of the keeper; `swept` hears of every sweep. On an error, what is to be asked again: somebody may wait for a checkpoint, as the log
/// of a store that was replaced does not go on before it.
pub fn keep(
    keeper: &mut Keeper,
    store: &Store,
    events: &Inbox<Event>,
    compactions: &Mutex<Vec<i64>>,
    asked: Asked,
    swept: impl Fn(i64),
    fatal: fn(&dyn std::fmt::Display) -> !,
) -> Result<(), Asked> {
    let sweeps = std::mem::take(&mut *compactions.lock());
    for revision in sweeps {
        let start = Instant::now();
        let dropped = store.compact_index(revision);
        swept(revision);
        info!("compact-revision" = revision, dropped, took = ?start.elapsed(), "finished scheduled compaction");
    }
    if asked.checkpoint || asked.reclaim {
        match keeper.checkpoint() {
            Ok(frame) => events.push(Event::Durable(frame.index, frame.term)),
            Err(error) if crate::disk::is_full(&error) => {
                warn!(error = %error, "there is no space to make the store durable; it will be tried again");
                return Err(Asked { stop: false, ..asked });
            }
            // A sync that failed once may succeed the next time without having written anything.
            Err(error) => fatal(&error),
        }
    }
    if asked.reclaim
        && let Err(error) = keeper.reclaim()
    {
        warn!(error = %error, "failed to make the store smaller");
        let again = Asked {
            reclaim: true,
            ..Asked::default()
        };
        return if crate::disk::is_full(&error) {
            Err(again)
        } else {
            Ok(())
        };
    }
    Ok(())
}

/// The worker of the apply thread.
struct Applying {
    applier: Applier,
    server: Arc<EtcdServer>,
    events: Arc<Inbox<Event>>,
}

impl Worker<ApplyJob> for Applying {
    fn turn(&mut self, batch: &mut Vec<ApplyJob>) -> bool {
        for job in batch.drain(..) {
            match job {
                ApplyJob::Entries(entries) => {
                    apply(&mut self.applier, entries, &self.server, &self.events);
                }
                ApplyJob::Install(arrived) => install(&mut self.applier, *arrived, &self.server),
                ApplyJob::Reserve => self.applier.reserve(),
                // Who asked may have given up.
                ApplyJob::View(asker) => drop(asker.send(self.applier.view())),
                ApplyJob::Stop => return false,
            }
        }
        true
    }

    fn wants_its_thread(&self) -> bool {
        self.applier.is_full()
    }
}

fn install(applier: &mut Applier, arrived: Arrived, server: &EtcdServer) {
    let (index, start) = (arrived.imported.frame.index, Instant::now());
    applier.install(arrived);
    info!("snapshot-index" = index, took = ?start.elapsed(), "applied snapshot");
    server.raft.applied.store(index, Ordering::SeqCst);
    server.applied.send_replace(index);
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
    // The raft thread reads the index when it has something to do anyway; only who may have to campaign is woken.
    if server.raft.leader.load(Ordering::SeqCst) == 0 {
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
        warning_unary: config.warning_unary_duration,
        heartbeat: config.heartbeat,
        election: config.election,
        min_lease_ttl: config.min_lease_ttl(),
        strict_reconfig: config.strict_reconfig_check,
        lease_checkpoints: config.features.lease_checkpoint,
        compact_hashes: config.features.compact_hash_check,
    }
}

/// What the store says as of its index; before the first entry was applied, the members that the first entries add.
pub fn conf_state(stored: &raftpb::ConfState, replay: &Replay) -> ConfState {
    if stored.voters.is_empty() {
        return ConfState {
            voters: first_changes(replay).map(|change| change.node_id).collect(),
            ..ConfState::default()
        };
    }
    raft_conf_state(stored)
}

pub fn node(timing: &Timing, id: u64, conf_state: &ConfState, replay: Replay, applied: u64) -> Result<Node> {
    let mut hard_state = replay.hard_state;
    // The commit index is written lazily; what was applied was committed.
    hard_state.commit = hard_state.commit.max(applied);
    // A store may have been replaced by one of a later term, of which the log does not know.
    if hard_state.term < replay.snapshot.term {
        (hard_state.term, hard_state.vote) = (replay.snapshot.term, 0);
    }
    let log = Log::new(
        hard_state,
        conf_state.clone(),
        (replay.snapshot.index, replay.snapshot.term),
        replay.entries,
    );
    Node::new(id, log, applied, timing).context("cannot start raft")
}

/// What the peers call when the cluster says that this member was removed.
fn on_removal(removed: &watch::Sender<bool>) -> Arc<dyn Fn() + Send + Sync> {
    let removed = removed.clone();
    Arc::new(move || {
        removed.send_replace(true);
    })
}

struct ServerOutside {
    streams: Streams,
    server: Arc<EtcdServer>,
    apply_jobs: Arc<Inbox<ApplyJob>>,
    runtime: Handle,
    led: bool,
    arrived: Option<Box<Arrived>>,
    past: Arc<Past>,
}

impl Outside for ServerOutside {
    fn apply(&mut self, entries: Vec<Entry>) {
        // Applying a change of the configuration asks this thread.
        if entries
            .iter()
            .any(|entry| entry.entry_type != EntryType::EntryNormal as i32)
        {
            self.apply_jobs.leave();
        }
        self.apply_jobs.push(ApplyJob::Entries(entries));
    }

    /// A store goes its own way; raft is told when it has arrived.
    fn send(&mut self, messages: Vec<Message>) {
        if messages.is_empty() {
            return;
        }
        let is_store = |message: &Message| message.msg_type == MessageType::MsgSnapshot as i32;
        let (stores, messages): (Vec<_>, Vec<_>) = messages.into_iter().partition(is_store);
        let unsent: Vec<_> = messages
            .into_iter()
            .filter_map(|message| self.streams.send(message))
            .collect();
        self.server.transport.send(unsent);
        for message in stores {
            match self.server.transport.peer(message.to) {
                Some(peer) => drop(
                    self.runtime
                        .spawn(snapshot::send(self.server.clone(), peer, message)),
                ),
                None => self.server.events.push(Event::Snapshot(message.to, false)),
            }
        }
    }

    fn flush(&mut self) {
        self.streams.flush();
    }

    fn wait(&mut self, events: &Inbox<Event>, batch: &mut Vec<Event>, timeout: Duration) {
        self.streams.wait(events, batch, timeout);
    }

    fn open(&mut self, opened: streams::Opened) {
        self.streams.open(opened);
    }

    fn close_stopped(&mut self) {
        self.streams.close_stopped();
    }

    fn arrived(&mut self, arrived: Box<Arrived>) {
        self.arrived = Some(arrived);
    }

    fn install(&mut self, snapshot: &SnapshotMetadata) {
        let of = |arrived: &mut Box<Arrived>| arrived.imported.frame.index == snapshot.index;
        match self.arrived.take_if(of) {
            Some(arrived) => self.apply_jobs.push(ApplyJob::Install(arrived)),
            // Nothing of it was written yet: a restart begins where the store is.
            None => fatal(&"the snapshot that raft wants is gone"),
        }
    }

    fn fetch(&mut self, fetch: Fetch) {
        let (past, events) = (self.past.clone(), self.server.events.clone());
        self.runtime.spawn_blocking(move || {
            let entries = past.read(&fetch, MAX_MESSAGE_BYTES);
            let entries = entries.inspect_err(|error| {
                warn!(index = fetch.low, error = %error, "older entries cannot be read; whoever lacks them is sent the store");
            });
            events.push(Event::Fetched(fetch.low, entries.ok()));
        });
    }

    /// Its files go, which may take longer than a heartbeat may.
    fn decided(&mut self) {
        if let Some(unwanted) = self.arrived.take() {
            self.runtime.spawn_blocking(move || drop(unwanted));
        }
    }

    fn leadership(&mut self, leading: bool) {
        if !leading && !std::mem::replace(&mut self.led, leading) {
            return;
        }
        self.led = leading;
        let election_ms = self.server.limits.election.as_millis() as u64;
        let mut lessor = self.server.state.lessor.lock();
        if leading {
            lessor.promote(self.server.clock.now(), election_ms)
        } else {
            lessor.demote()
        }
        drop(lessor);
        self.server.leases_changed.notify_one();
        self.server.space.notify_one();
    }

    fn stalled(&mut self, gap: Duration) {
        warn!(gap = ?gap, "this process stood still for longer than an election; leases are extended by that");
        self.server.state.lessor.lock().extend(gap.as_millis() as u64);
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
    fn members_changed(&mut self) {
        self.server.members_changed();
    }

    fn removed(&mut self) {
        self.server.removed.send_replace(true);
    }

    fn conf_change(&mut self, index: u64, change: raftpb::ConfChange) -> Option<ConfState> {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.events
            .push(Event::ConfChange(index, Box::new(change), sender));
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

    fn checkpoint(&mut self) {
        self.since_checkpoint = 0;
        self.server.bell.ask(Asked {
            checkpoint: true,
            ..Asked::default()
        });
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

    fn version_lowered(&mut self, index: u64) {
        self.checkpoint();
        self.events.push(Event::Forget(index));
    }

    fn fatal(&mut self, source: &std::io::Error) -> ! {
        fatal(source)
    }
}

impl Member {
    /// Tells the cluster who this member is; tried until it succeeds, because that takes a leader.
    pub async fn publish(&self, config: &Config) {
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
        while let Err(error) = self.server.propose(request.clone()).await {
            warn!(error = %error, "failed to publish local member to cluster through raft");
        }
        info!("local-member-id" = %format!("{:x}", self.server.member), "published local member to cluster through raft");
        self.server.decide_version(&mut 1).await;
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
        if let Some(traces) = self.server.traces.get() {
            traces.stop();
        }
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
