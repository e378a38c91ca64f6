//! What goes wrong, and how badly.

use std::collections::BTreeSet;

use etcd::raft::driver::Event;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use crate::member::TICK_US;
use crate::world::World;

/// Disk operations before the power goes.
const FUSE: u64 = 60;
const DOWN_US: u64 = 1_500_000;
const CUT_US: u64 = 4_000_000;
const PAUSE_US: u64 = 4_000_000;
const SLOW_US: u64 = 1_000_000;
const FULL_US: u64 = 3_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Power is lost at one of the next operations of the disk.
    Fuse,
    PowerLoss,
    /// Of all members at once.
    Blackout,
    /// The process ends, and the machine goes on.
    Kill,
    KillAtOperation,
    Partition,
    OneWay,
    Burst,
    Pause,
    SlowDisk,
    FullDisk,
    /// Its clock goes at another speed from now on.
    Skew,
    /// The leader is asked to make another member the leader.
    MoveLeader,
}

pub const KINDS: [Kind; 13] = [
    Kind::Fuse,
    Kind::PowerLoss,
    Kind::Blackout,
    Kind::Kill,
    Kind::KillAtOperation,
    Kind::Partition,
    Kind::OneWay,
    Kind::Burst,
    Kind::Pause,
    Kind::SlowDisk,
    Kind::FullDisk,
    Kind::Skew,
    Kind::MoveLeader,
];

impl Kind {
    /// The faults of one run; none at all in few. Whether leaders are moved is drawn by itself.
    pub fn some(random: &mut StdRng) -> Vec<Kind> {
        let likely = *[0.0, 0.2, 0.4, 0.7].choose(random).unwrap_or(&0.4);
        let kinds = KINDS.into_iter().filter(|kind| *kind != Kind::MoveLeader);
        kinds.filter(|_| random.random_bool(likely)).collect()
    }
}

/// How a member goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    PowerLoss,
    Kill,
}

impl World {
    pub fn fault(&mut self) {
        self.next_fault = self.now + self.random.random_range(1..=self.plan.fault_interval_us * 2);
        let Some(kind) = self.plan.faults.choose(&mut self.random).copied() else {
            return;
        };
        let who = self.any_member();
        self.say(|| format!("fault {kind:?} of {who}"));
        match kind {
            Kind::Fuse => self.light(who, Down::PowerLoss),
            Kind::KillAtOperation => self.light(who, Down::Kill),
            Kind::PowerLoss => self.down(who, Down::PowerLoss),
            Kind::Kill => self.down(who, Down::Kill),
            Kind::Blackout => (0..self.members.len()).for_each(|who| self.down(who, Down::PowerLoss)),
            Kind::Partition => {
                let side: BTreeSet<usize> = (0..self.members.len())
                    .filter(|_| self.random.random_bool(0.5))
                    .collect();
                let until = self.until(CUT_US);
                self.network.part(&side, self.members.len(), until);
            }
            Kind::OneWay => {
                let other = self.random.random_range(0..self.members.len());
                let until = self.until(CUT_US);
                self.network.cut(who, other, until);
            }
            Kind::Burst => {
                let until = self.until(CUT_US);
                self.network.burst(until);
            }
            Kind::Pause => self.members[who].paused_until = self.until(PAUSE_US),
            Kind::SlowDisk => self.members[who].slow_until = self.until(SLOW_US),
            Kind::FullDisk => {
                let left = self.random.random_range(0..self.plan.wal_segment_bytes * 2);
                let until = self.until(FULL_US);
                let member = &mut self.members[who];
                member.disk.set_capacity(Some(member.disk.used() + left));
                member.full_until = Some(until);
            }
            Kind::Skew => {
                let skew = self.draw_skew();
                self.members[who].wind(self.now);
                self.members[who].tick_us = TICK_US * skew / 100;
            }
            Kind::MoveLeader => {
                let id = self.members[who].ids.member;
                if let Some(leader) = self.leader() {
                    self.tell(leader, Event::TransferLeader(id));
                }
            }
        }
    }

    pub fn until(&mut self, most: u64) -> u64 {
        self.now + self.random.random_range(1..most)
    }

    /// The member's disk will fail at one of its next operations, and the member goes down then.
    fn light(&mut self, who: usize, how: Down) {
        let member = &mut self.members[who];
        member.ends = how;
        member.disk.burn_after(self.random.random_range(0..FUSE));
    }

    /// Everything that the process knew is gone, and of its disk what `how` says.
    pub fn down(&mut self, who: usize, how: Down) {
        let seed = self.random.random();
        if !self.members[who].end(how, seed) {
            return;
        }
        let again = self.until(DOWN_US);
        if self.members[who].restart_at != u64::MAX {
            self.members[who].restart_at = again;
        }
        self.say(|| format!("member {who} is down by {how:?}, until {again}"));
        for client in &mut self.clients {
            client.lost(who, self.now);
        }
        for watcher in self.watchers.iter_mut().chain([&mut self.collector]) {
            watcher.lost(who);
        }
    }
}
