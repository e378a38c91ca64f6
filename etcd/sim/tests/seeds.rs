//! Whole runs: drawn at random, judged by the checker. `etcd-sim --seeds FROM..TO` runs more of them.

use std::ops::Range;

/// Four tests, so that as many cores work.
const EACH: u64 = 500;

fn hold(seeds: Range<u64>) {
    for seed in seeds {
        if let Err(what) = etcd_sim::run(seed, false) {
            panic!("{what}");
        }
    }
}

#[test]
fn first_seeds_hold() {
    hold(0..EACH);
}

#[test]
fn second_seeds_hold() {
    hold(EACH..2 * EACH);
}

#[test]
fn third_seeds_hold() {
    hold(2 * EACH..3 * EACH);
}

#[test]
fn fourth_seeds_hold() {
    hold(3 * EACH..4 * EACH);
}

/// With leases, full disks, crashes and members that come and go among them.
#[test]
fn a_seed_replays_exactly() {
    for seed in 0..20 {
        let (one, other) = (
            etcd_sim::run(seed, false).unwrap(),
            etcd_sim::run(seed, false).unwrap(),
        );
        assert_eq!((one.trace, one.steps), (other.trace, other.steps), "seed {seed}");
    }
}
