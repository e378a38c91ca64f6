//! What the simulation has found in our own code.

use etcd::membership::Change;
use etcd::raft::driver::Event;
use etcd_sim::faults::Down;

use crate::scenario::{ask, life, put, quiet, until};

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

/// 2469: a leader that does not know that it was replaced calls a lease gone.
#[test]
fn seeds_that_have_failed_hold() {
    for seed in [2469] {
        if let Err(what) = etcd_sim::run(seed, false) {
            panic!("{what}");
        }
    }
}
