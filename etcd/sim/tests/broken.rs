//! That the simulation finds what is wrong: each of these breaks something on purpose.

use etcd_sim::Plan;
use etcd_sim::plan::Broken;

const SEEDS: u64 = 1000;

fn is_found(broken: Broken) {
    let found = (0..SEEDS).find(|seed| {
        let plan = Plan {
            broken: Some(broken),
            ..Plan::draw(*seed)
        };
        etcd_sim::run_plan(plan, false).is_err()
    });
    assert!(found.is_some(), "{SEEDS} seeds do not find it");
}

#[test]
fn a_disk_that_has_not_synced_is_found() {
    is_found(Broken::Sync);
}

#[test]
fn reads_that_do_not_ask_the_leader_are_found() {
    is_found(Broken::ReadIndex);
}
