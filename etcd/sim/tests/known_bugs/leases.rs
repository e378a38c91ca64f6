//! What leaders that were away, came late or went do about leases.

use std::time::Duration;

use etcd::clock::Clock as _;
use etcd_api::etcdserverpb::{InternalRaftRequest, LeaseGrantRequest};
use etcd_sim::World;
use etcd_sim::faults::{Down, Kind};
use etcd_sim::holder::renewed;

use crate::scenario::{ask_at, cut_off, hold, life, often, pass, quiet, quiet_with, until};

const LEASE: i64 = 7;

/// Grants the lease at the leader, which is returned.
fn grant(world: &mut World, ttl: i64) -> usize {
    let leader = until(world, |world| world.leader());
    let called = world.now;
    let request = InternalRaftRequest {
        lease_grant: Some(LeaseGrantRequest { id: LEASE, ttl }),
        ..InternalRaftRequest::default()
    };
    assert!(ask_at(world, leader, request).result.is_ok());
    world.book.promised(LEASE, called, ttl, &world.plan);
    leader
}

/// Once the leader may.
fn renew(world: &mut World, leader: usize) {
    loop {
        let called = world.now;
        let mut answer = renewed(&life(world, leader).server, LEASE, false);
        if let Ok(ttl) = until(world, |_| answer.try_recv().ok()) {
            return world.book.promised(LEASE, called, ttl, &world.plan);
        }
    }
}

/// It is away for long enough that another one leads.
fn kill(world: &mut World, leader: usize) {
    world.down(leader, Down::Kill);
    world.members[leader].restart_at = world.now + 5_000_000;
}

fn left(world: &World, place: usize) -> Option<i64> {
    let life = life(world, place);
    let lessor = life.state.lessor.lock();
    let left = lessor.time_to_live(LEASE, life.server.clock.now());
    left.map(|left| left.remaining_seconds)
}

fn successor(world: &mut World, of: usize) -> usize {
    until(world, |world| world.leader().filter(|leader| *leader != of))
}

/// etcd's issue 15247.
#[test]
fn a_leader_that_was_away_ends_nothing_that_its_successor_has_renewed() {
    let mut world = quiet(3);
    let old = grant(&mut world, 3);
    world.members[old].paused_until = world.now + 8_000_000;
    let new = successor(&mut world, old);
    while world.members[old].paused_until > world.now {
        renew(&mut world, new);
        pass(&mut world, 300_000);
    }
    until(&mut world, |world| (!life(world, old).is_leader()).then_some(()));
    pass(&mut world, 500_000);
    assert!(left(&world, old).is_some());
}

#[test]
fn a_renewal_outlives_the_checkpoint_before_it() {
    let mut world = quiet_with(3, |plan| {
        plan.checkpoint_interval = Some(Duration::from_millis(200));
    });
    let old = grant(&mut world, 10);
    pass(&mut world, 8_000_000);
    renew(&mut world, old);
    kill(&mut world, old);
    let new = successor(&mut world, old);
    pass(&mut world, 6_000_000);
    assert!(left(&world, new).is_some());
}

#[test]
fn a_new_leader_gives_what_a_checkpoint_has_left() {
    let mut world = quiet_with(3, |plan| {
        plan.checkpoint_interval = Some(Duration::from_millis(200));
    });
    let old = grant(&mut world, 100);
    pass(&mut world, 10_000_000);
    kill(&mut world, old);
    let new = successor(&mut world, old);
    let left = left(&world, new).unwrap();
    // And an election on top, and what the last checkpoints are behind.
    assert!((89..=95).contains(&left), "{left} s");
}

/// Nobody could renew it meanwhile.
#[test]
fn time_that_the_only_member_did_not_have_does_not_count() {
    let mut world = quiet(1);
    let only = grant(&mut world, 3);
    pass(&mut world, 1_000_000);
    world.members[only].paused_until = world.now + 20_000_000;
    pass(&mut world, 21_000_000);
    assert!(left(&world, only).is_some());
    pass(&mut world, 3_000_000);
    assert!(left(&world, only).is_none());
}

#[test]
fn leases_hold_while_leaders_go_and_come_back() {
    hold(|plan| {
        (plan.members, plan.holders) = (3, 8);
        plan.checkpoint_interval = Some(Duration::from_millis(200));
        plan.think_us = 500_000;
        often(
            plan,
            &[Kind::Pause, Kind::Partition, Kind::MoveLeader, Kind::Kill],
        );
        plan.fault_interval_us = 1_000_000;
    });
}

/// Raft has ticked since, and nobody has told it yet who leads.
#[test]
fn a_leader_that_was_away_renews_nothing_before_it_has_asked() {
    let mut world = quiet(3);
    let old = grant(&mut world, 2);
    cut_off(&mut world, old, 7_000_000);
    world.members[old].paused_until = world.now + 4_000_000;
    pass(&mut world, 4_150_000);
    assert!(life(&world, old).is_leader());
    let called = world.now;
    let mut answer = renewed(&life(&world, old).server, LEASE, false);
    if let Ok(ttl) = until(&mut world, |_| answer.try_recv().ok()) {
        world.book.promised(LEASE, called, ttl, &world.plan);
    }
    until(&mut world, |world| left(world, old).is_none().then_some(()));
}
