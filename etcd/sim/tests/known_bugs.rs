//! The bugs that etcd itself has had, each with the schedules in which it would show. The numbers are those of etcd's issues.

use bytes::Bytes;
use etcd::apply::Applied;
use etcd_api::etcdserverpb::request_op::Request as Op;
use etcd_api::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, InternalRaftRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest, WatchCreateRequest,
};
use etcd_sim::faults::Kind;
use etcd_sim::watcher::Watcher;
use etcd_sim::{Plan, World};

const SEEDS: u64 = 6;
const STEPS: usize = 200_000;

/// Runs plans that were made such that the bug is likely.
fn hold(change: impl Fn(&mut Plan)) {
    for seed in 1000..1000 + SEEDS {
        let mut plan = Plan::draw(seed);
        change(&mut plan);
        if let Err(what) = etcd_sim::run_plan(plan, false) {
            panic!("{what}");
        }
    }
}

fn often(plan: &mut Plan, faults: &[Kind]) {
    plan.faults = faults.to_vec();
    plan.fault_interval_us = 100_000;
}

#[test]
fn issue_13766_the_consistent_index_is_written_with_its_data() {
    hold(|plan| {
        plan.members = 1;
        often(plan, &[Kind::Fuse, Kind::KillAtOperation]);
        plan.checkpoint_bytes = 512;
    });
}

#[test]
fn issue_14370_one_member_acknowledges_after_the_sync() {
    hold(|plan| {
        plan.members = 1;
        often(plan, &[Kind::PowerLoss, Kind::Fuse]);
    });
}

#[test]
fn issue_15220_progress_comes_after_its_events() {
    hold(|plan| {
        plan.watchers = 12;
        plan.faults.clear();
    });
}

#[test]
fn issue_15271_a_watch_does_not_go_back_in_time_over_a_snapshot() {
    hold(|plan| {
        plan.members = 3;
        (plan.retention.snapshot_count, plan.retention.catchup_entries) = (5, 1);
        often(plan, &[Kind::Partition, Kind::Pause]);
    });
}

#[test]
fn issue_17247_a_slow_watch_gets_no_event_twice() {
    hold(|plan| {
        plan.watchers = 10;
        plan.outbox_bytes = 256;
        plan.think_us = 1000;
    });
}

#[test]
fn issue_17780_the_revision_survives_a_crash_in_a_compaction() {
    hold(|plan| {
        plan.members = 1;
        plan.compaction_interval_us = 10_000;
        often(plan, &[Kind::Fuse, Kind::KillAtOperation]);
    });
}

#[test]
fn issue_18089_no_event_is_lost_while_a_delete_is_compacted() {
    hold(|plan| {
        plan.keys = 2;
        plan.watchers = 10;
        plan.compaction_interval_us = 5_000;
    });
}

#[test]
fn issue_20418_a_paused_leader_reads_nothing_stale() {
    hold(|plan| {
        plan.members = 3;
        plan.clients = 8;
        often(plan, &[Kind::Pause, Kind::Partition, Kind::OneWay]);
        plan.fault_interval_us = 1_000_000;
    });
}

/// Nothing happens but what the test does.
fn quiet(members: usize) -> World {
    let mut plan = Plan::draw(1);
    (plan.members, plan.clients, plan.watchers) = (members, 0, 0);
    (plan.lost, plan.repeated, plan.late) = (0, 0, 0);
    plan.faults.clear();
    plan.compaction_interval_us = u64::MAX / 4;
    World::new(plan, false)
}

fn until<T>(world: &mut World, mut condition: impl FnMut(&mut World) -> Option<T>) -> T {
    for _ in 0..STEPS {
        world.step();
        if let Some(value) = condition(world) {
            return value;
        }
    }
    panic!("it does not come to that");
}

fn ask(world: &mut World, request: InternalRaftRequest) -> Applied {
    until(world, |world| {
        world
            .members
            .iter()
            .all(|member| member.life.is_some())
            .then_some(())
    });
    let life = world.members[0].life.as_mut().unwrap();
    let (_, mut receiver) = life.propose(request);
    let applied = until(world, |_| receiver.try_recv().ok());
    // Every member has it before the next.
    until(world, |world| {
        let revision = |place: usize| world.members[place].life.as_ref().unwrap().state.store.current();
        (0..world.members.len())
            .all(|place| revision(place) >= applied.revision)
            .then_some(())
    });
    applied
}

fn put(key: &'static str, value: &'static str) -> InternalRaftRequest {
    InternalRaftRequest {
        put: Some(PutRequest {
            key: Bytes::from_static(key.as_bytes()),
            value: Bytes::from_static(value.as_bytes()),
            ..PutRequest::default()
        }),
        ..InternalRaftRequest::default()
    }
}

fn delete(key: &'static str) -> InternalRaftRequest {
    InternalRaftRequest {
        delete_range: Some(DeleteRangeRequest {
            key: Bytes::from_static(key.as_bytes()),
            ..DeleteRangeRequest::default()
        }),
        ..InternalRaftRequest::default()
    }
}

fn compact(revision: i64) -> InternalRaftRequest {
    InternalRaftRequest {
        compaction: Some(CompactionRequest {
            revision,
            physical: false,
        }),
        ..InternalRaftRequest::default()
    }
}

fn watch(world: &mut World, start_revision: i64) -> Watcher {
    let mut watcher = Watcher::new(false);
    let request = WatchCreateRequest {
        key: Bytes::from_static(b"k"),
        start_revision,
        progress_notify: true,
        ..WatchCreateRequest::default()
    };
    watcher.open_with(0, world.members[0].life.as_ref().unwrap(), 4096, request);
    watcher
}

/// Revisions of the events that came until `wanted` of them had.
fn revisions(world: &mut World, watcher: &mut Watcher, wanted: usize) -> Vec<i64> {
    until(world, |world| {
        let life = world.members[0].life.as_ref().unwrap();
        watcher.poll(Some(life), true, &mut world.random);
        let events = watcher.seen().iter().flat_map(|seen| &seen.events);
        let revisions: Vec<i64> = events
            .filter_map(|event| Some(event.kv.as_ref()?.mod_revision))
            .collect();
        (revisions.len() >= wanted).then_some(revisions)
    })
}

#[test]
fn issue_19179_a_delete_at_the_compacted_revision_is_seen() {
    let mut world = quiet(1);
    ask(&mut world, put("k", "a"));
    let deleted = ask(&mut world, delete("k")).revision;
    let last = ask(&mut world, put("k", "b")).revision;
    ask(&mut world, compact(deleted));
    let mut watcher = watch(&mut world, deleted);
    assert_eq!(revisions(&mut world, &mut watcher, 2), [deleted, last]);
}

#[test]
fn issue_20221_a_watch_from_the_future_hears_nothing_of_the_past() {
    let mut world = quiet(1);
    let now = ask(&mut world, put("k", "a")).revision;
    // The watcher refuses progress to before its start.
    let mut watcher = watch(&mut world, now + 3);
    for _ in 0..20 {
        watcher.ask_progress(world.members[0].life.as_ref().unwrap());
    }
    for value in ["b", "c", "d", "e"] {
        ask(&mut world, put("k", value));
    }
    assert_eq!(revisions(&mut world, &mut watcher, 2), [now + 3, now + 4]);
}

#[test]
fn issue_18667_a_transaction_that_reads_a_compacted_revision_fails_alike_everywhere() {
    let mut world = quiet(3);
    ask(&mut world, put("k", "a"));
    let second = ask(&mut world, put("k", "b")).revision;
    let third = ask(&mut world, put("k", "c")).revision;
    ask(&mut world, compact(third));
    let op = |op| RequestOp { request: Some(op) };
    let txn = TxnRequest {
        success: vec![
            op(Op::RequestPut(PutRequest {
                key: Bytes::from_static(b"other"),
                ..PutRequest::default()
            })),
            op(Op::RequestRange(RangeRequest {
                key: Bytes::from_static(b"k"),
                revision: second,
                ..RangeRequest::default()
            })),
        ],
        ..TxnRequest::default()
    };
    let request = InternalRaftRequest {
        txn: Some(txn),
        ..InternalRaftRequest::default()
    };
    let applied = ask(&mut world, request);
    assert!(applied.result.is_err());
    assert_eq!(applied.revision, third);
    let next = ask(&mut world, put("k", "d")).revision;
    assert_eq!(next, third + 1);
    let hash = |member: &etcd_sim::member::Member| {
        let hash = member.life.as_ref().unwrap().state.store.hash_kv(next).unwrap();
        (hash.hash, hash.compacted)
    };
    let hashes: Vec<_> = world.members.iter().map(hash).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}
