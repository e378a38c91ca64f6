//! While a store that arrived takes the place of this one: what must wait for it.

use etcd_api::raftpb;
use raft::eraftpb::ConfState;

use crate::raft::conf_change;
use crate::raft::node::Persist;

pub struct Installing {
    /// The newest snapshot's.
    pub index: u64,
    /// Not to be written before.
    pub persists: Vec<Persist>,
    /// The configurations before, each with the snapshot that it came with: the store may still be on its way there.
    earlier: Vec<(u64, ConfState)>,
}

impl Installing {
    pub fn new() -> Self {
        Installing {
            index: 0,
            persists: Vec::new(),
            earlier: Vec::new(),
        }
    }

    /// Raft took in a snapshot; `before` is the configuration that its own replaces.
    pub fn snapshot(&mut self, index: u64, before: ConfState) {
        self.earlier.push((self.index, before));
        self.index = index;
    }

    /// What a change that comes before the snapshot made of the configuration of its time.
    pub fn change(&mut self, index: u64, change: &raftpb::ConfChange) -> ConfState {
        let mut known = self.earlier.iter_mut().rev();
        let Some((_, state)) = known.find(|(from, _)| *from < index) else {
            return ConfState::default();
        };
        conf_change::change(state, change);
        state.clone()
    }
}
