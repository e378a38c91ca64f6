//! A network in memory for tests in one thread: messages go as far as the test lets them, over etcd's own encoding.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prost::Message as _;
use raft::eraftpb::Message;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::transport::Network;
use super::wire;
use crate::membership::Member;

#[derive(Default)]
struct Wires {
    /// To whom, and the bytes.
    flying: VecDeque<(u64, Vec<u8>)>,
    cut: BTreeSet<u64>,
}

/// Shared by all members of a test's cluster.
#[derive(Clone, Default)]
pub struct FakeNetwork(Arc<Mutex<Wires>>);

impl Network for FakeNetwork {
    fn send(&self, messages: Vec<Message>) {
        let mut wires = self.0.lock();
        for message in messages {
            if wires.cut.contains(&message.to) || wires.cut.contains(&message.from) {
                continue;
            }
            let to = message.to;
            let bytes = wire::to_raftpb(message).encode_to_vec();
            wires.flying.push_back((to, bytes));
        }
    }

    fn set_members(&self, _: &[Member]) {}

    fn add_members(&self, _: &[Member]) {}

    fn active_for(&self, id: u64) -> Option<Duration> {
        (!self.0.lock().cut.contains(&id)).then_some(Duration::MAX)
    }
}

impl FakeNetwork {
    /// From now on nothing goes to or comes from this member.
    pub fn cut(&self, id: u64) {
        let mut wires = self.0.lock();
        wires.cut.insert(id);
        wires.flying.retain(|(to, _)| *to != id);
    }

    pub fn mend(&self, id: u64) {
        self.0.lock().cut.remove(&id);
    }

    /// What arrives next, in an order that the seed chooses; some of it is lost.
    pub fn deliver(&self, chance: &mut Chance) -> Option<(u64, Message)> {
        let mut wires = self.0.lock();
        loop {
            let length = wires.flying.len();
            let place = chance.below(length)?;
            let (to, bytes) = wires.flying.remove(place)?;
            if chance.loses() {
                continue;
            }
            let message = wire::decode(&bytes[..]).ok()?;
            return Some((to, message));
        }
    }
}

/// What happens, by a seed.
pub struct Chance {
    random: StdRng,
    loss_percent: u32,
}

impl Chance {
    pub fn new(seed: u64, loss_percent: u32) -> Chance {
        Chance {
            random: StdRng::seed_from_u64(seed),
            loss_percent,
        }
    }

    pub fn below(&mut self, bound: usize) -> Option<usize> {
        (bound > 0).then(|| self.random.random_range(0..bound))
    }

    fn loses(&mut self) -> bool {
        self.random.random_range(0..100) < self.loss_percent
    }
}
