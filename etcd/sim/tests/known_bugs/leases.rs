//! What leaders that were away, came late or went do about leases.

use std::time::Duration;

use etcd::clock::Clock as _;
use etcd::raft::driver::Event;
use etcd::server::ServerError;
use etcd_api::etcdserverpb::{InternalRaftRequest, LeaseGrantRequest};
use etcd_sim::World;
use etcd_sim::faults::{Down, Kind};
use etcd_sim::holder::renewed;
use raft::StateRole;

use crate::scenario::{ask_at, cut_off, hold, life, often, pass, quiet, quiet_with, until};

const LEASE: i64 = 7;

fn granting(id: i64, ttl: i64) -> InternalRaftRequest {
    InternalRaftRequest {
        lease_grant: Some(LeaseGrantRequest { id, ttl }),
        ..InternalRaftRequest::default()
    }
}

/// Grants the lease at the leader, which is returned.
fn grant(world: &mut World, ttl: i64) -> usize {
    let leader = until(world, |world| world.leader());
    let called = world.now;
    assert!(ask_at(world, leader, granting(LEASE, ttl)).result.is_ok());
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

fn id(world: &World, place: usize) -> u64 {
    world.members[place].ids.member
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

/// Seed 2469. It is sure still, for its successor did not wait for an election.
#[test]
fn a_leader_that_was_replaced_does_not_say_that_there_is_no_such_lease() {
    let mut world = quiet(3);
    let old = grant(&mut world, 20);
    renew(&mut world, old);
    let new = (old + 1) % 3;
    let target = id(&world, new);
    world.tell(old, Event::TransferLeader(target));
    let campaigns = |world: &World| life(world, new).raft().role != StateRole::Follower;
    until(&mut world, |world| campaigns(world).then_some(()));
    cut_off(&mut world, old, 5_000_000);
    until(&mut world, |world| (world.leader() == Some(new)).then_some(()));
    let later = LEASE + 1;
    assert!(ask_at(&mut world, new, granting(later, 20)).result.is_ok());
    assert!(life(&world, old).is_leader(), "it knows already");
    let mut answer = renewed(&life(&world, old).server, later, false);
    let answer = until(&mut world, |_| answer.try_recv().ok());
    assert!(matches!(answer, Err(ServerError::NotLeader)), "{answer:?}");
}

/// It began to end the lease while it was about to hand over.
#[test]
fn a_leader_ends_nothing_in_the_name_of_its_successor() {
    let mut world = quiet(3);
    let old = grant(&mut world, 2);
    let new = (old + 1) % 3;
    let target = id(&world, new);
    pass(&mut world, 1_800_000);
    world.members[new].paused_until = world.now + 400_000;
    world.tell(old, Event::TransferLeader(target));
    pass(&mut world, 350_000);
    assert_eq!(left(&world, old), Some(0), "its time is not over");
    world.network.cut(new, old, u64::MAX / 4);
    until(&mut world, |world| (world.leader() == Some(new)).then_some(()));
    renew(&mut world, new);
    world.network.heal();
    pass(&mut world, 1_000_000);
    assert!(left(&world, new).is_some());
}

#[test]
fn a_checkpoint_of_many_leases_says_nothing_from_before_a_renewal() {
    let mut world = quiet_with(3, |plan| {
        plan.checkpoint_interval = Some(Duration::from_secs(20));
        // Between two requests there is time for a renewal.
        plan.delay_us = 5_000;
    });
    let leader = until(&mut world, |world| world.leader());
    // By their ids: those of the first request, and one of the second.
    let life_of_leader = world.members[leader].life.as_mut().unwrap();
    for id in -1000..0 {
        life_of_leader.propose(granting(id, 1000));
    }
    let old = grant(&mut world, 60);
    assert_eq!(old, leader);
    let has_checkpoint = |world: &World, id| life(world, old).state.lessor.lock().has_checkpoint(id);
    // Its leader is sure that it leads all the time, and asks nobody first.
    let (sure, mut confirmed) = (-1, 0);
    until(&mut world, |world| {
        if world.now > confirmed + 300_000 {
            confirmed = world.now;
            drop(renewed(&life(world, old).server, sure, true));
        }
        has_checkpoint(world, sure).then_some(())
    });
    assert!(left(&world, old).unwrap() < 45);
    renew(&mut world, old);
    until(&mut world, |world| has_checkpoint(world, LEASE).then_some(()));
    pass(&mut world, 500_000);
    kill(&mut world, old);
    let new = successor(&mut world, old);
    assert!(left(&world, new).unwrap() > 55);
}
