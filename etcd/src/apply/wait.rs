//! Who waits for which entry.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Applied;

/// Who waits for which request id.
#[derive(Default)]
pub struct Waits {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Applied>>>,
}

impl Waits {
    pub fn register(&self, id: u64) -> oneshot::Receiver<Applied> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().insert(id, sender);
        receiver
    }

    pub fn forget(&self, id: u64) {
        self.waiting.lock().remove(&id);
    }

    /// A store that was installed may hold what they wait for, and says nothing about it.
    pub(super) fn abandon(&self) {
        self.waiting.lock().clear();
    }

    pub fn len(&self) -> usize {
        self.waiting.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn complete(&self, done: &mut Vec<(u64, Applied)>) {
        let mut waiting = self.waiting.lock();
        for (id, applied) in done.drain(..) {
            if let Some(sender) = waiting.remove(&id) {
                // Who left meanwhile does not need the answer.
                sender.send(applied).ok();
            }
        }
    }
}
