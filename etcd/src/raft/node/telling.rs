//! How a leader tells the others what it has committed.

use std::collections::HashMap;

use raft::eraftpb::{Message, MessageType};

use super::Node;

/// Who has been told how far this leader has committed. It travels with every append and heartbeat, so a message for it alone can often be spared.
#[derive(Default)]
pub(super) struct Telling {
    term: u64,
    told: HashMap<u64, u64>,
    /// Up to where members wait for it: they have forwarded proposals.
    pub(super) waiting: HashMap<u64, u64>,
}

impl Node {
    fn untold(&self) -> impl Iterator<Item = u64> {
        let (telling, committed) = (&self.telling, self.committed());
        let is_untold = move |id: &u64| telling.told.get(id).is_none_or(|told| *told < committed);
        let others = self.raw.raft.prs().iter().map(|(id, _)| *id);
        others.filter(move |id| self.is_leader() && *id != self.id && is_untold(id))
    }

    pub fn has_untold(&self) -> bool {
        self.untold().next().is_some()
    }

    /// Tells the others how far this leader has committed, whom no other message has told; with `lazy`, only those who wait for it. Whether any
    /// was to be told.
    pub fn tell_commits(&mut self, lazy: bool) -> bool {
        let (committed, before) = (self.committed(), &self.telling.told);
        let waits = |id: &u64| {
            let from = self.telling.waiting.get(id);
            from.is_some_and(|index| before.get(id).is_none_or(|told| told < index))
        };
        let ids: Vec<u64> = self.untold().filter(|id| !lazy || waits(id)).collect();
        for id in &ids {
            // One that cannot be sent anything now is told by what it is sent next.
            self.raw.raft.send_append(*id);
            self.telling.told.insert(*id, committed);
        }
        !ids.is_empty()
    }

    /// What messages say by the way.
    pub(super) fn note_told(&mut self, messages: &[Message]) {
        let term = self.term();
        if self.telling.term != term {
            self.telling = Telling {
                term,
                ..Telling::default()
            };
        }
        for message in messages {
            match MessageType::try_from(message.msg_type) {
                Ok(MessageType::MsgAppend | MessageType::MsgHeartbeat) => {
                    let told = self.telling.told.entry(message.to).or_default();
                    *told = message.commit.max(*told);
                }
                // Who reads must have applied what it is told of here.
                Ok(MessageType::MsgReadIndexResp) => {
                    let waiting = self.telling.waiting.entry(message.to).or_default();
                    *waiting = message.index.max(*waiting);
                }
                _ => {}
            }
        }
    }
}
