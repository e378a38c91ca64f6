//! Messages on their way.

use std::collections::{BTreeMap, BTreeSet};

use etcd::peer::wire;
use prost::Message as _;
use raft::eraftpb::{Message, MessageType};
use rand::Rng as _;
use rand::rngs::StdRng;

use crate::plan::Plan;

/// How long the late ones of the messages take at most.
const LATE_US: u64 = 400_000;
const BURST_LOST: u32 = 300;

pub struct Envelope {
    pub from: usize,
    pub to: usize,
    pub bytes: Vec<u8>,
    /// A store that travels with its message.
    pub database: Option<Vec<u8>>,
}

#[derive(Default)]
pub struct Network {
    /// By the time of arrival, and in the order of sending.
    travelling: BTreeMap<(u64, u64), Envelope>,
    sent: u64,
    /// From whom to whom nothing goes, and until when.
    cut: BTreeMap<(usize, usize), u64>,
    burst_until: u64,
}

impl Network {
    pub fn next(&self) -> Option<u64> {
        self.travelling.keys().next().map(|(at, _)| *at)
    }

    pub fn arrive(&mut self) -> Option<Envelope> {
        self.travelling.pop_first().map(|(_, envelope)| envelope)
    }

    pub fn is_cut(&self, from: usize, to: usize, now: u64) -> bool {
        self.cut.get(&(from, to)).is_some_and(|until| *until > now)
    }

    pub fn cut(&mut self, from: usize, to: usize, until: u64) {
        self.cut.insert((from, to), until);
    }

    /// Nothing goes between the two sides.
    pub fn part(&mut self, side: &BTreeSet<usize>, members: usize, until: u64) {
        for one in 0..members {
            for other in (0..members).filter(|other| side.contains(&one) != side.contains(other)) {
                self.cut(one, other, until);
            }
        }
    }

    pub fn burst(&mut self, until: u64) {
        self.burst_until = until;
    }

    pub fn heal(&mut self) {
        self.cut.clear();
        self.burst_until = 0;
    }

    /// False when it was lost.
    pub fn send(
        &mut self,
        from: usize,
        to: usize,
        message: Message,
        database: Option<Vec<u8>>,
        now: u64,
        plan: &Plan,
        random: &mut StdRng,
    ) -> bool {
        let lost = plan.lost + if self.burst_until > now { BURST_LOST } else { 0 };
        if random.random_ratio(lost, 1000) {
            return false;
        }
        // What is proposed twice happens twice; a connection carries it once.
        let is_proposal = message.msg_type == MessageType::MsgPropose as i32;
        let bytes = wire::to_raftpb(message).encode_to_vec();
        let times =
            1 + u64::from(!is_proposal && database.is_none() && random.random_ratio(plan.repeated, 1000));
        for _ in 0..times {
            let late = random.random_ratio(plan.late, 1000);
            let extra = if late { random.random_range(0..LATE_US) } else { 0 };
            let at = now + random.random_range(plan.delay_us / 2..=plan.delay_us * 2) + extra;
            let envelope = Envelope {
                from,
                to,
                bytes: bytes.clone(),
                database: database.clone(),
            };
            self.put(at, envelope);
        }
        true
    }

    pub fn put(&mut self, at: u64, envelope: Envelope) {
        self.sent += 1;
        self.travelling.insert((at, self.sent), envelope);
    }
}
