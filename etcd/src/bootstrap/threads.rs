//! A member's parts, and the threads that own them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use component_base::allocator;
use parking_lot::Mutex;
use raft::eraftpb::ConfState;
use tokio::sync::watch;

use super::applying::Applying;
use super::effects::ServerEffects;
use super::open::{self, Opened};
use super::outside::ServerOutside;
use super::{Member, keeping};
use crate::apply::{Applier, Rules, State};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::disk::real::DirLock;
use crate::mvcc::Store;
use crate::peer::client::Client;
use crate::peer::headers::Local;
use crate::peer::remote::Shared;
use crate::peer::transport::{Network as _, Transport};
use crate::raft::driver::Driver;
use crate::raft::inbox::Inbox;
use crate::raft::log_thread::{Job, LogThread};
use crate::raft::node::{Node, Timing};
use crate::raft::run::Loop;
use crate::raft::stage::Stage;
use crate::server::{EtcdServer, Limits, Parts};
use crate::storage::Writer;
use crate::storage::damage::DAMAGED_SEGMENTS;
use crate::storage::keeper::Keeper;
use crate::storage::load::Loaded;
use crate::storage::record::FrameHeader;
use crate::wal::Wal;
use crate::wal::format::Ids;
use crate::wal::past::Past;
use crate::watch::catch_up;
use crate::watch::hub::{HubEvent, HubThread};

const STACK_BYTES: usize = 2 * 1024 * 1024;

/// Gives every part its thread; from here on a member runs.
pub fn start(config: &Config, opened: Opened, lock: DirLock, client: Client) -> Result<Member> {
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
    // A series that is absent tells nobody that nothing was found.
    DAMAGED_SEGMENTS.with(&[]);
    let store = Store::open(storage.clone(), versions, frame.revision, read.compacted);
    let store = Arc::new(store);
    let conf_state = open::conf_state(&read.conf_state, &replay);
    let state = State::new(store.clone(), lessor, read, &config.auth)?;
    let writer = Writer::new(storage.clone(), active, meta, frame).context("cannot write to the store")?;
    // Segments and the log were read whole.
    allocator::collect();
    let mut node = open::node(&timing(config), ids.member, &conf_state, replay, frame.index)?;
    node.retain(config.retention);
    let server = server(config, ids, state, client);
    server.raft.applied.store(frame.index, Ordering::SeqCst);
    server.members_changed();
    server.transport.set_members(&members);

    let compactions: Arc<Mutex<Vec<i64>>> = Arc::default();
    let keeper = Keeper::new(storage, ids.member, writer.written(), store, durable);
    let applier = applier(config, &server, writer, frame, compactions.clone());
    let jobs: Arc<Inbox<Job>> = Arc::default();
    let driver = driver(config, &server, node, conf_state, jobs.clone(), wal.past())?;

    let keeping = server.clone();
    let keeper = thread("etcd-keeper", move || {
        keeping::run(keeper, &keeping, &compactions);
    })?;
    let mut threads = watch_threads(&server, config.watch_progress_notify_interval)?;
    threads.extend(raft_threads(&server, driver, applier, wal, jobs)?);
    Ok(Member {
        server,
        threads,
        keeper,
        _lock: lock,
    })
}

fn server(config: &Config, ids: Ids, state: State, client: Client) -> Arc<EtcdServer> {
    let (events, removed) = (Arc::<Inbox<_>>::default(), watch::Sender::new(false));
    let remove = removed.clone();
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
        removed: Arc::new(move || {
            remove.send_replace(true);
        }),
    }));
    Arc::new(EtcdServer::new(Parts {
        member: ids.member,
        cluster: ids.cluster,
        limits: limits(config),
        state: Arc::new(state),
        events,
        clock: Arc::new(SystemClock::default()),
        transport,
        removed,
    }))
}

fn applier(
    config: &Config,
    server: &Arc<EtcdServer>,
    writer: Writer,
    frame: FrameHeader,
    compactions: Arc<Mutex<Vec<i64>>>,
) -> Applier {
    let effects = Box::new(ServerEffects::new(server.clone(), compactions));
    let (state, hub, clock) = (server.state.clone(), server.hub.clone(), server.clock.clone());
    let mut applier = Applier::new(state, writer, hub, clock, effects, server.member, frame);
    applier.rules = Rules {
        max_learners: config.max_learners,
        persist_checkpoints: config.features.lease_checkpoint_persist,
    };
    applier
}

fn driver(
    config: &Config,
    server: &Arc<EtcdServer>,
    node: Node,
    conf_state: ConfState,
    jobs: Arc<Inbox<Job>>,
    past: Past,
) -> Result<Driver<ServerOutside>> {
    let mut driver = Driver::new(
        node,
        server.member,
        server.events.clone(),
        jobs,
        server.raft.clone(),
        ServerOutside::new(server, past)?,
        config.heartbeat,
        conf_state,
    );
    driver.election = config.election;
    Ok(driver)
}

/// Raft's loop with its stages, which it runs itself while there is little to do, and who stands in for it.
fn raft_threads(
    server: &Arc<EtcdServer>,
    driver: Driver<ServerOutside>,
    applier: Applier,
    wal: Wal,
    jobs: Arc<Inbox<Job>>,
) -> Result<[JoinHandle<()>; 4]> {
    let log = LogThread::new(wal, jobs.clone(), server.events.clone(), server.log.clone());
    let log = Stage::new(jobs, log);
    let applying = Applying::new(applier, server.clone());
    let applying = Stage::new(server.apply_jobs.clone(), applying);
    let raft = Loop::new(driver, vec![applying.clone(), log.clone()]);
    let stand_in = raft.clone();
    Ok([
        thread("etcd-wal", move || log.run())?,
        thread("etcd-apply", move || applying.run())?,
        thread("etcd-raft", move || raft.run())?,
        thread("etcd-raft-spare", move || stand_in.stand_in())?,
    ])
}

/// The owner of all watchers, who reads history for it, and its clock.
fn watch_threads(server: &Arc<EtcdServer>, progress_interval: Duration) -> Result<Vec<JoinHandle<()>>> {
    let (hub, store, heading) = (server.hub.clone(), server.store().clone(), server.clone());
    let history: Arc<Inbox<_>> = Arc::default();
    let header = Arc::new(move |revision| heading.header(revision));
    let owner = HubThread::new(hub.clone(), store.clone(), header, history.clone());
    let ticking = hub.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(progress_interval);
        loop {
            ticks.tick().await;
            ticking.send(HubEvent::Tick);
        }
    });
    Ok(vec![
        thread("etcd-watch", move || owner.run())?,
        thread("etcd-watch-past", move || catch_up::run(&hub, &store, &history))?,
    ])
}

fn timing(config: &Config) -> Timing {
    Timing {
        election_ticks: config.election_ticks(),
        pre_vote: config.pre_vote,
        timeout_ticks: None,
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

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let guarded = move || {
        let guard = PanicEnds;
        run();
        std::mem::forget(guard);
    };
    Ok(std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
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
