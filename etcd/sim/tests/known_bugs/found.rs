//! What the simulation has found in our own code.

use etcd::membership::Change;
use etcd::raft::driver::Event;
use etcd_sim::World;
use etcd_sim::faults::Down;
use prost::Message as _;

use crate::scenario::{ask, ask_at, cut_off, everywhere, life, put, quiet, quiet_with, until};

/// Its log holds the removal, and not that it was committed.
#[test]
fn the_survivor_of_two_needs_no_vote_of_the_leader_that_it_removed() {
    let mut world = quiet(2);
    ask(&mut world, put("k", "a"));
    let leader = until(&mut world, |world| world.leader());
    let other = 1 - leader;
    let removal = Change::Remove(world.members[leader].ids.member).entry(7);
    world.tell(leader, Event::ProposeConfChange(removal));
    until(&mut world, |world| world.members[leader].gone.then_some(()));
    world.down(other, Down::PowerLoss);
    until(&mut world, |world| (world.leader() == Some(other)).then_some(()));
    assert_eq!(life(&world, other).state.membership.read().members.len(), 1);
}

/// It stands for no election itself, and its log ends with what it could tell nobody any more.
#[test]
fn the_survivor_of_two_hears_of_the_removal_from_the_leader_that_refuses_its_vote() {
    // The leader has applied the removal before the other hears that it is committed.
    let mut world = quiet_with(2, |plan| plan.delay_us = 5_000);
    ask(&mut world, put("k", "a"));
    let leader = until(&mut world, |world| world.leader());
    let other = 1 - leader;
    let id = world.members[leader].ids.member;
    world.tell(leader, Event::ProposeConfChange(Change::Remove(id).entry(7)));
    let knows = |world: &World, place| life(world, place).state.membership.read().is_removed(id);
    until(&mut world, |world| knows(world, leader).then_some(()));
    cut_off(&mut world, other, u64::MAX / 4);
    let end = |world: &World| life(world, leader).log_end();
    let before = end(&world);
    world.tell(leader, Event::Propose(put("k", "b").encode_to_vec()));
    until(&mut world, |world| (end(world) > before).then_some(()));
    world.down(leader, Down::Kill);
    assert!(!knows(&world, other), "it has heard of the removal before");
    world.network.heal();
    until(&mut world, |world| (world.leader() == Some(other)).then_some(()));
    assert!(knows(&world, other));
}

#[test]
fn who_is_behind_when_the_leader_changes_is_sent_entries_that_no_memory_holds() {
    let mut world = quiet_with(3, |plan| {
        (plan.retention.snapshot_count, plan.retention.catchup_entries) = (5, 1);
        (plan.retention.tail_bytes, plan.retention.older_entries) = (64, u64::MAX);
        plan.wal_segment_bytes = 4096;
    });
    ask(&mut world, put("k", "first"));
    let leader = until(&mut world, |world| world.leader());
    let (lagging, next) = ((leader + 1) % 3, (leader + 2) % 3);
    cut_off(&mut world, lagging, 600_000_000);
    let last = (0..40).map(|number| ask_at(&mut world, leader, put("k", &format!("{number}"))).revision);
    let last = last.max().unwrap_or(0);
    world.down(leader, Down::Kill);
    world.members[leader].restart_at = world.now + 2_000_000;
    world.network.heal();
    world.members[lagging].paused_until = 0;
    until(&mut world, |world| (world.leader() == Some(next)).then_some(()));
    everywhere(&mut world, last);
    assert!(life(&world, next).fetched > 1, "nothing was read back");
    assert_eq!(world.snapshots, 0);
}
