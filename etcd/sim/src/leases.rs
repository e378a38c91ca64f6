//! What leases promise: none ends before its time, each ends at last, and its keys go with it.

use std::collections::BTreeMap;

use rand::Rng as _;

use crate::member::{ELECTION_TICKS, Part, TICK_US};
use crate::plan::Plan;
use crate::world::World;

/// Between two looks of a member's tasks at its clock.
const LOOK_US: u64 = 100_000;

/// Lessors count milliseconds.
const CLOCK_US: u64 = 1000;

/// Leases as their holders know them.
#[derive(Default)]
pub struct Book {
    leases: BTreeMap<i64, Held>,
    /// When the first member has applied their ends.
    ended: BTreeMap<i64, u64>,
}

struct Held {
    /// Until when it must not end.
    until: u64,
    /// Its holder has asked for its end.
    given_up: bool,
}

impl Book {
    /// A grant or a renewal that was asked for at `called` was answered.
    pub fn promised(&mut self, id: i64, called: u64, ttl_seconds: i64, plan: &Plan) {
        let until = called + own_to_least(ttl_seconds as u64 * 1_000_000, plan).saturating_sub(slack(plan));
        let held = self.leases.entry(id).or_insert(Held {
            until,
            given_up: false,
        });
        held.until = held.until.max(until);
        let is_true = held.given_up || self.ended.get(&id).is_none_or(|ended| held.until <= *ended);
        assert!(is_true, "lease {id:x} was promised, and had ended already");
    }

    pub fn give_up(&mut self, id: i64) {
        if let Some(held) = self.leases.get_mut(&id) {
            held.given_up = true;
        }
    }

    /// Its end was applied. False when it was elsewhere before.
    pub fn end(&mut self, id: i64, now: u64) -> bool {
        let first = !self.ended.contains_key(&id);
        self.ended.entry(id).or_insert(now);
        first
    }

    /// Whether the lease may have ended by now.
    pub fn may_be_over(&self, id: i64, now: u64) -> bool {
        self.leases
            .get(&id)
            .is_none_or(|held| held.given_up || held.until <= now)
    }
}

/// How long a member may take such a time for, by its own clock, if that is the fastest.
fn own_to_least(us: u64, plan: &Plan) -> u64 {
    us * (100 - plan.skew / 2) / 100
}

/// For how long an old leader with a slow clock may renew leases after a new one with a fast clock began to count.
fn slack(plan: &Plan) -> u64 {
    let election = TICK_US * ELECTION_TICKS as u64;
    let apart = plan.skew + plan.skew / 2;
    CLOCK_US + election * apart / 100
}

impl World {
    /// Time has passed for a member's tasks.
    pub fn look(&mut self, who: usize) {
        self.members[who].next_look = self.now + self.random.random_range(1..LOOK_US);
        self.turn(who, Part::Tasks);
    }

    /// What a member has applied ends a lease for all; who applies it first must not be too early.
    pub fn judge_ended(&mut self, who: usize) {
        let Some(life) = &self.members[who].life else {
            return;
        };
        let ended = std::mem::take(&mut *life.server.ended.lock());
        for id in ended {
            if self.book.end(id, self.now) {
                self.say(|| format!("member {who} is the first to end lease {id:x}"));
                assert!(
                    self.book.may_be_over(id, self.now),
                    "member {who} ends lease {id:x} before its time"
                );
            }
        }
    }
}
