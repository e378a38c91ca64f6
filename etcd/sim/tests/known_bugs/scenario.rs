//! Clusters in which nothing happens but what the test does.

use bytes::Bytes;
use etcd::apply::Applied;
use etcd_api::etcdserverpb::request_op::Request as Op;
use etcd_api::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, InternalRaftRequest, PutRequest, RangeRequest, RequestHeader,
    RequestOp, TxnRequest, WatchCreateRequest,
};
use etcd_sim::faults::Kind;
use etcd_sim::member::Life;
use etcd_sim::plan::NEVER;
use etcd_sim::watcher::Watcher;
use etcd_sim::{Plan, World};

const SEEDS: u64 = 12;
const STEPS: usize = 200_000;

/// Runs plans that were made such that the bug is likely.
pub fn hold(change: impl Fn(&mut Plan)) {
    for seed in 1000..1000 + SEEDS {
        let mut plan = Plan::draw(seed);
        change(&mut plan);
        if let Err(what) = etcd_sim::run_plan(plan, false) {
            panic!("{what}");
        }
    }
}

pub fn often(plan: &mut Plan, faults: &[Kind]) {
    plan.faults = faults.to_vec();
    plan.fault_interval_us = 100_000;
}

pub fn quiet(members: usize) -> World {
    quiet_with(members, |_| ())
}

pub fn quiet_with(members: usize, change: impl Fn(&mut Plan)) -> World {
    let mut plan = Plan::draw(1);
    (plan.members, plan.clients, plan.watchers, plan.holders) = (members, 0, 0, 0);
    (plan.lost, plan.repeated, plan.late, plan.skew) = (0, 0, 0, 0);
    plan.faults.clear();
    (plan.compaction_interval_us, plan.change_interval_us) = (NEVER, NEVER);
    change(&mut plan);
    World::new(plan, false)
}

pub fn until<T>(world: &mut World, mut condition: impl FnMut(&mut World) -> Option<T>) -> T {
    for _ in 0..STEPS {
        world.step();
        if let Some(value) = condition(world) {
            return value;
        }
    }
    panic!("it does not come to that");
}

/// Lets time pass.
pub fn pass(world: &mut World, us: u64) {
    let end = world.now + us;
    until(world, |world| (world.now >= end).then_some(()));
}

pub fn life(world: &World, place: usize) -> &Life {
    world.members[place].life.as_ref().unwrap()
}

fn all_live(world: &World) -> bool {
    world.members.iter().all(|member| member.life.is_some())
}

pub fn ask_at(world: &mut World, place: usize, request: InternalRaftRequest) -> Applied {
    until(world, |world| all_live(world).then_some(()));
    let life = world.members[place].life.as_mut().unwrap();
    let (_, mut receiver) = life.propose(request);
    until(world, |_| receiver.try_recv().ok())
}

/// Every member has it before the next.
pub fn ask(world: &mut World, request: InternalRaftRequest) -> Applied {
    let applied = ask_at(world, 0, request);
    everywhere(world, applied.revision);
    applied
}

pub fn everywhere(world: &mut World, revision: i64) {
    until(world, |world| {
        let has = |place| life(world, place).state.store.current() >= revision;
        (all_live(world) && (0..world.members.len()).all(has)).then_some(())
    });
}

/// Until nobody has anything to do, but to let time pass.
pub fn rest(world: &mut World) {
    for _ in 0..2000 {
        world.step();
    }
    until(world, |world| {
        (all_live(world) && (0..world.members.len()).all(|place| life(world, place).is_idle())).then_some(())
    });
}

/// What every member has of the revision, which must be the same.
pub fn hash(world: &World, revision: i64) -> (u32, i64) {
    let hash = |place: usize| {
        let hash = life(world, place).state.store.hash_kv(revision).unwrap();
        (hash.hash, hash.compacted)
    };
    let hashes: Vec<_> = (0..world.members.len()).map(hash).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    hashes[0]
}

/// A member that nobody reaches for so long that it needs a store.
pub fn cut_off(world: &mut World, place: usize, us: u64) {
    let members = world.members.len();
    world.network.part(&[place].into(), members, world.now + us);
}

pub fn put(key: &str, value: &str) -> InternalRaftRequest {
    InternalRaftRequest {
        put: Some(PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            ..PutRequest::default()
        }),
        ..InternalRaftRequest::default()
    }
}

pub fn of_user(user: &str, auth_revision: u64, request: InternalRaftRequest) -> InternalRaftRequest {
    InternalRaftRequest {
        header: Some(RequestHeader {
            username: user.to_owned(),
            auth_revision,
            ..RequestHeader::default()
        }),
        ..request
    }
}

pub fn delete(key: &str) -> InternalRaftRequest {
    InternalRaftRequest {
        delete_range: Some(DeleteRangeRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            ..DeleteRangeRequest::default()
        }),
        ..InternalRaftRequest::default()
    }
}

pub fn compact(revision: i64) -> InternalRaftRequest {
    InternalRaftRequest {
        compaction: Some(CompactionRequest {
            revision,
            physical: false,
        }),
        ..InternalRaftRequest::default()
    }
}

/// A transaction that puts one key, then reads another at a revision.
pub fn put_and_read(put_key: &str, read_key: &str, revision: i64) -> InternalRaftRequest {
    let read = RangeRequest {
        key: Bytes::copy_from_slice(read_key.as_bytes()),
        revision,
        ..RangeRequest::default()
    };
    let op = |op| RequestOp { request: Some(op) };
    let put = put(put_key, "of a transaction").put.unwrap_or_default();
    InternalRaftRequest {
        txn: Some(TxnRequest {
            success: vec![op(Op::RequestPut(put)), op(Op::RequestRange(read))],
            ..TxnRequest::default()
        }),
        ..InternalRaftRequest::default()
    }
}

pub fn watch(world: &World, start_revision: i64, outbox_bytes: usize) -> Watcher {
    let mut watcher = Watcher::new(false);
    let request = WatchCreateRequest {
        key: Bytes::from_static(b"k"),
        start_revision,
        progress_notify: true,
        ..WatchCreateRequest::default()
    };
    watcher.open_with(0, life(world, 0), outbox_bytes, request);
    watcher
}

/// Revisions of the events that have come.
pub fn heard(watcher: &Watcher) -> Vec<i64> {
    let ended = watcher.lives.iter().flat_map(|(_, seen)| seen);
    let events = ended.chain(watcher.seen()).flat_map(|seen| &seen.events);
    events
        .filter_map(|event| Some(event.kv.as_ref()?.mod_revision))
        .collect()
}

/// The same, once there are so many.
pub fn revisions(world: &mut World, watcher: &mut Watcher, wanted: usize) -> Vec<i64> {
    until(world, |world| {
        let life = world.members[0].life.as_ref().unwrap();
        watcher.poll(Some(life), true, &mut world.random);
        let revisions = heard(watcher);
        (revisions.len() >= wanted).then_some(revisions)
    })
}
