//! Linearizable reads: one ReadIndex at a time answers all that waited when it was asked.

use tokio::sync::oneshot;

use crate::raft::node::Node;

/// A question to the leader that was not answered within so many ticks is asked again.
const READ_RETRY_TICKS: u32 = 5;

/// Gets the index that must have been applied; dropped, the reader tries again.
type Reader = oneshot::Sender<u64>;

pub struct Reads {
    waiting: Vec<Reader>,
    asked: Option<Asked>,
    /// The number of the last question, its context.
    number: u64,
}

/// A question to the leader and who waits for its answer.
struct Asked {
    context: Vec<u8>,
    readers: Vec<Reader>,
    ticks: u32,
}

impl Default for Reads {
    fn default() -> Self {
        Reads {
            waiting: Vec::new(),
            asked: None,
            // Between members that all begin to count at zero, contexts must differ over restarts.
            number: rand::random::<u64>() >> 1,
        }
    }
}

impl Reads {
    pub fn push(&mut self, reader: Reader) {
        self.waiting.push(reader);
    }

    pub fn ask(&mut self, node: &mut Node) {
        if self.asked.is_some() || self.waiting.is_empty() {
            return;
        }
        if node.leader() == 0 {
            return self.waiting.clear();
        }
        if !node.can_read() {
            return;
        }
        self.waiting.retain(|reader| !reader.is_closed());
        if self.waiting.is_empty() {
            return;
        }
        self.number += 1;
        let context = self.number.to_be_bytes().to_vec();
        node.read_index(context.clone());
        self.asked = Some(Asked {
            context,
            readers: std::mem::take(&mut self.waiting),
            ticks: 0,
        });
    }

    pub fn answer(&mut self, context: &[u8], index: u64) {
        if let Some(asked) = self.asked.take_if(|asked| asked.context == context) {
            for reader in asked.readers {
                // A reader that left needs no answer.
                reader.send(index).ok();
            }
        }
    }

    pub fn tick(&mut self) {
        let overdue = self.asked.take_if(|asked| {
            asked.ticks += 1;
            asked.ticks >= READ_RETRY_TICKS
        });
        self.waiting
            .extend(overdue.into_iter().flat_map(|asked| asked.readers));
    }

    pub fn leader_changed(&mut self) {
        self.asked = None;
    }
}
