//! That plans draw everything that a run may have: what no plan draws is not tested.

use std::collections::BTreeMap;

use etcd_sim::Plan;
use etcd_sim::faults::KINDS;
use etcd_sim::plan::NEVER;

const SEEDS: u64 = 200;

/// How many of the first plans have it.
fn having(what: impl Fn(&Plan) -> bool) -> usize {
    (0..SEEDS).filter(|seed| what(&Plan::draw(*seed))).count()
}

#[test]
fn every_fault_is_in_many_plans_and_missing_in_many() {
    let counts: BTreeMap<_, _> = KINDS
        .into_iter()
        .map(|kind| (format!("{kind:?}"), having(|plan| plan.faults.contains(&kind))))
        .collect();
    let usual = |count: &usize| (20..180).contains(count);
    assert!(counts.values().all(usual), "of {SEEDS}: {counts:?}");
}

#[test]
fn what_is_no_fault_of_one_moment_is_in_many_plans() {
    type Has = fn(&Plan) -> bool;
    let all: [(&str, Has); 10] = [
        ("lost messages", |plan| plan.lost > 0),
        ("repeated messages", |plan| plan.repeated > 0),
        ("late messages, which others overtake", |plan| plan.late > 0),
        ("clocks at different speeds", |plan| plan.skew > 0),
        ("members that come and go", |plan| plan.change_interval_us < NEVER),
        ("leases", |plan| plan.holders > 0),
        ("checkpoints of leases", |plan| plan.checkpoint_interval.is_some()),
        ("one member", |plan| plan.members == 1),
        ("five members", |plan| plan.members == 5),
        ("no faults", |plan| plan.faults.is_empty()),
    ];
    let missing = all.map(|(name, has)| (name, having(has)));
    assert!(
        missing.iter().all(|(_, count)| *count >= 10),
        "of {SEEDS}: {missing:?}"
    );
}

#[test]
fn members_that_come_and_go_move_too() {
    let moved = (0..SEEDS)
        .filter(|seed| Plan::draw(*seed).change_interval_us < NEVER)
        .take(20)
        .map(|seed| etcd_sim::run(seed, false).unwrap().moved);
    assert!(moved.sum::<u64>() > 0);
}
