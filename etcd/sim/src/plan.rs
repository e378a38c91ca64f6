//! What kind of run a seed is.

use std::time::Duration;

use etcd::raft::node::Retention;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::faults::Kind;

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub members: usize,
    pub clients: usize,
    pub watchers: usize,
    /// Clients with leases.
    pub holders: usize,
    /// How often a leader lets the others know what leases have left, if it does.
    pub checkpoint_interval: Option<Duration>,
    /// `LeaseCheckpointPersist`
    pub persist_checkpoints: bool,
    pub keys: usize,
    pub wal_segment_bytes: u64,
    pub store_segment_bytes: u64,
    pub checkpoint_bytes: u64,
    pub outbox_bytes: usize,
    pub retention: Retention,
    pub pre_vote: bool,
    /// Leaders tell of commits by the way.
    pub lazy: bool,
    /// Operations that end the busy part, answered or not.
    pub operations: u64,
    pub think_us: u64,
    pub delay_us: u64,
    /// Of a thousand messages.
    pub lost: u32,
    pub repeated: u32,
    pub late: u32,
    /// How much faster or slower clocks go, in percent.
    pub skew: u64,
    pub fault_interval_us: u64,
    pub faults: Vec<Kind>,
    pub compaction_interval_us: u64,
    pub change_interval_us: u64,
    pub broken: Option<Broken>,
}

/// What is wrong on purpose, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Disks answer syncs that they have not done.
    Sync,
    /// Clients read what is there without asking the leader.
    ReadIndex,
}

impl Broken {
    pub const ALL: [Broken; 2] = [Broken::Sync, Broken::ReadIndex];

    pub fn name(self) -> &'static str {
        match self {
            Broken::Sync => "sync",
            Broken::ReadIndex => "read-index",
        }
    }
}

/// Later than any run lasts.
pub const NEVER: u64 = u64::MAX / 4;

impl Plan {
    pub fn draw(seed: u64) -> Plan {
        let mut random = StdRng::seed_from_u64(seed);
        let random = &mut random;
        let members = [1, 1, 3, 3, 3, 3, 3, 3, 5].choose(random).copied().unwrap_or(3);
        let lossy = random.random_bool(0.5);
        let mut plan = Plan {
            seed,
            members,
            clients: random.random_range(3..=8),
            watchers: random.random_range(2..=5),
            holders: [0, 0, 4, 8].choose(random).copied().unwrap_or(0),
            checkpoint_interval: [None, Some(1500), Some(200)]
                .choose(random)
                .and_then(|ms| ms.map(Duration::from_millis)),
            persist_checkpoints: random.random_bool(0.5),
            keys: random.random_range(2..=10),
            wal_segment_bytes: 1 << random.random_range(12..17),
            store_segment_bytes: 1 << random.random_range(12..17),
            checkpoint_bytes: 1 << random.random_range(10..15),
            outbox_bytes: 1 << random.random_range(9..16),
            retention: Retention {
                snapshot_count: random.random_range(5..100),
                catchup_entries: random.random_range(1..20),
                ..Retention::default()
            },
            pre_vote: random.random_bool(0.8),
            lazy: false,
            operations: random.random_range(100..400),
            think_us: 1 << random.random_range(11..17),
            delay_us: 1 << random.random_range(6..12),
            lost: if lossy { random.random_range(0..100) } else { 0 },
            repeated: if lossy { random.random_range(0..50) } else { 0 },
            late: random.random_range(0..60),
            skew: [0, random.random_range(0..40)]
                .choose(random)
                .copied()
                .unwrap_or(0),
            fault_interval_us: 1 << random.random_range(15..20),
            faults: Kind::some(random),
            compaction_interval_us: 1 << random.random_range(15..20),
            change_interval_us: match random.random_bool(0.3) {
                true => 1 << random.random_range(17..21),
                false => NEVER,
            },
            broken: None,
        };
        // Leases live for seconds: so must the run, and much of what happens must be over before they are.
        if plan.holders > 0 {
            plan.think_us <<= 4;
            plan.fault_interval_us <<= 2;
        }
        plan.lazy = random.random_bool(0.5);
        plan.retention.tail_bytes = 1 << random.random_range(6..16);
        plan.retention.older_entries = [0, 30, 300, u64::MAX].choose(random).copied().unwrap_or(0);
        if !plan.faults.is_empty() && random.random_bool(0.3) {
            plan.faults.push(Kind::MoveLeader);
        }
        plan
    }
}
