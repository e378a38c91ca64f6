//! What watchers see.

use etcd_sim::faults::Kind;

use crate::scenario::{
    ask, compact, delete, heard, hold, life, often, put, quiet, rest, revisions, until, watch,
};

const OUTBOX_BYTES: usize = 4096;

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
        plan.retention.older_entries = 0;
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

/// Whoever reads too slowly is told that history was compacted, or gets all of it: nothing in between is skipped.
#[test]
fn issue_17529_a_starved_watch_loses_nothing_without_being_told() {
    for behind in 0..30 {
        let mut world = quiet(1);
        let first = ask(&mut world, put("k", "first")).revision;
        let mut watcher = watch(&world, first, 64);
        let mut last = first;
        for number in 0..150 {
            last = ask(&mut world, put("k", &format!("{number}-{}", "x".repeat(200)))).revision;
        }
        ask(&mut world, compact(last - behind));
        ask(&mut world, put("k", "last"));
        // It reads one piece now and then; everything else goes on.
        let seen = until(&mut world, |world| {
            let life = world.members[0].life.as_ref().unwrap();
            watcher.poll(Some(life), false, &mut world.random);
            let seen = heard(&watcher);
            (watcher.connection.is_none() || seen.last() == Some(&(last + 1))).then_some(seen)
        });
        let expected: Vec<i64> = (first..).take(seen.len()).collect();
        assert_eq!(seen, expected);
        rest(&mut world);
    }
    hold(|plan| {
        plan.watchers = 10;
        plan.outbox_bytes = 256;
        plan.think_us = 1000;
        plan.compaction_interval_us = 20_000;
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
fn issue_19179_a_delete_at_the_compacted_revision_is_seen() {
    let mut world = quiet(1);
    ask(&mut world, put("k", "a"));
    let deleted = ask(&mut world, delete("k")).revision;
    let last = ask(&mut world, put("k", "b")).revision;
    ask(&mut world, compact(deleted));
    rest(&mut world);
    let mut watcher = watch(&world, deleted, OUTBOX_BYTES);
    assert_eq!(revisions(&mut world, &mut watcher, 2), [deleted, last]);
}

#[test]
fn issue_20221_a_watch_from_the_future_hears_nothing_of_the_past() {
    let mut world = quiet(1);
    let now = ask(&mut world, put("k", "a")).revision;
    // The watcher refuses progress to before its start.
    let mut watcher = watch(&world, now + 3, OUTBOX_BYTES);
    for _ in 0..20 {
        watcher.ask_progress(life(&world, 0));
    }
    for value in ["b", "c", "d", "e"] {
        ask(&mut world, put("k", value));
    }
    assert_eq!(revisions(&mut world, &mut watcher, 2), [now + 3, now + 4]);
}
