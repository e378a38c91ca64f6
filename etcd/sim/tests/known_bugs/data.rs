//! What is stored: after crashes, compactions, reclaiming, and in transactions.

use etcd::apply::{Answer, ApplyError};
use etcd::mvcc;
use etcd_api::etcdserverpb::response_op::Response as OpResponse;
use etcd_api::etcdserverpb::{ResponseHeader, TxnResponse};
use etcd_sim::faults::{Down, Kind};
use prost::Message as _;

use crate::scenario::{
    ask, compact, delete, hash, hold, life, often, put, put_and_read, quiet, quiet_with, rest,
};

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

/// Where etcd defragments, we reclaim.
#[test]
fn issue_14685_a_crash_while_space_is_reclaimed_changes_nothing() {
    let mut crashes = 0;
    for fuse in 0..60 {
        let mut world = quiet_with(1, |plan| {
            (plan.store_segment_bytes, plan.checkpoint_bytes) = (4096, 2048);
        });
        let mut last = 0;
        for number in 0..40 {
            last = ask(&mut world, put(&format!("k/{}", number % 5), &"x".repeat(400))).revision;
        }
        ask(&mut world, delete("k/0"));
        let current = ask(&mut world, put("k/1", "last")).revision;
        ask(&mut world, compact(last));
        let before = hash(&world, current);
        world.members[0].ends = if fuse % 2 == 0 {
            Down::PowerLoss
        } else {
            Down::Kill
        };
        world.members[0].disk.burn_after(fuse);
        rest(&mut world);
        world.members[0].disk.revive();
        crashes += world.crashes;
        assert_eq!(
            life(&world, 0).state.store.current(),
            current,
            "after {fuse} operations"
        );
        assert_eq!(hash(&world, current), before, "after {fuse} operations");
        assert_eq!(ask(&mut world, put("k/2", "next")).revision, current + 1);
    }
    assert!(crashes > 10, "{crashes} crashes");
}

#[test]
fn issue_17780_the_revision_survives_a_crash_in_a_compaction() {
    hold(|plan| {
        plan.members = 1;
        plan.compaction_interval_us = 10_000;
        often(plan, &[Kind::Fuse, Kind::KillAtOperation]);
    });
    // The last revisions are of keys that are gone: nothing of them is left but the number.
    let mut world = quiet_with(1, |plan| {
        (plan.store_segment_bytes, plan.checkpoint_bytes) = (4096, 1024);
    });
    for number in 0..30 {
        ask(&mut world, put(&format!("k/{number}"), &"x".repeat(300)));
    }
    let current = (0..30).fold(0, |_, number| {
        ask(&mut world, delete(&format!("k/{number}"))).revision
    });
    ask(&mut world, compact(current));
    rest(&mut world);
    world.down(0, Down::PowerLoss);
    rest(&mut world);
    assert_eq!(life(&world, 0).state.store.current(), current);
}

#[test]
fn issue_18667_a_transaction_that_reads_a_compacted_revision_fails_alike_everywhere() {
    let mut world = quiet(3);
    ask(&mut world, put("k", "a"));
    let second = ask(&mut world, put("k", "b")).revision;
    let third = ask(&mut world, put("k", "c")).revision;
    ask(&mut world, compact(third));
    let applied = ask(&mut world, put_and_read("other", "k", second));
    assert!(matches!(
        applied.result,
        Err(ApplyError::Mvcc(mvcc::Error::Compacted))
    ));
    assert_eq!(applied.revision, third);
    let next = ask(&mut world, put("k", "d")).revision;
    assert_eq!(next, third + 1);
    hash(&world, next);
}

/// Reads in a transaction are done by every member, also by those that answer nobody: all or none of it happens.
#[test]
fn issue_21432_a_transaction_that_reads_at_a_revision_does_the_same_everywhere() {
    let mut world = quiet(3);
    let first = ask(&mut world, put("k", "a")).revision;
    let second = ask(&mut world, put("k", "b")).revision;
    let applied = ask(&mut world, put_and_read("k", "k", first));
    assert_eq!(applied.revision, second + 1);
    let Ok(Answer::Kv(response)) = applied.result else {
        panic!("it fails")
    };
    let mut bytes = bytes::BytesMut::new();
    response.encode(&ResponseHeader::default(), &mut bytes);
    let response = TxnResponse::decode(bytes).unwrap();
    let Some(OpResponse::ResponseRange(read)) = response.responses[1].response.clone() else {
        panic!("it read nothing")
    };
    assert_eq!(
        (read.kvs[0].mod_revision, &read.kvs[0].value[..]),
        (first, &b"a"[..])
    );
    // What comes later fails, its own revision too, and takes the put along.
    for future in [second + 2, second + 9] {
        let applied = ask(&mut world, put_and_read("k", "k", future));
        assert!(matches!(
            applied.result,
            Err(ApplyError::Mvcc(mvcc::Error::FutureRevision))
        ));
        assert_eq!(applied.revision, second + 1);
    }
    let last = ask(&mut world, put("k", "c")).revision;
    assert_eq!(last, second + 2);
    let before = hash(&world, last);
    // And the same once more, when the log is applied again.
    world.down(1, Down::PowerLoss);
    rest(&mut world);
    assert_eq!(hash(&world, last), before);
}

/// Where a reader of etcd met a page that was another one by then.
#[test]
fn issue_20271_what_a_reader_was_pointed_to_stays_what_it_was() {
    let mut world = quiet_with(1, |plan| {
        (plan.store_segment_bytes, plan.checkpoint_bytes) = (4096, 1024);
    });
    for number in 0..40 {
        ask(
            &mut world,
            put(
                &format!("k/{}", number % 8),
                &format!("{number}-{}", "x".repeat(300)),
            ),
        );
    }
    let store = life(&world, 0).state.store.clone();
    let mut locs = Vec::new();
    let all = etcd::mvcc::key::KeyRange::all();
    let before = store.storage.segments();
    store.walk(&all, i64::MAX, |_, version| {
        locs.push(version.loc);
        std::ops::ControlFlow::Continue(())
    });
    let values = store.storage.read_many(&before, &locs).unwrap();
    for number in 0..40 {
        let last = ask(&mut world, put(&format!("k/{}", number % 8), &"y".repeat(300))).revision;
        if number % 10 == 9 {
            ask(&mut world, compact(last));
            rest(&mut world);
        }
    }
    let kept = store.storage.segments();
    let gone = before
        .iter()
        .filter(|old| !kept.iter().any(|new| new.number == old.number));
    assert!(gone.count() > 2, "nothing was reclaimed");
    assert_eq!(store.storage.read_many(&before, &locs).unwrap(), values);
}
