//! A queue that is drained at once: what arrived while its owner was busy becomes its next batch.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

pub struct Inbox<T> {
    items: Mutex<Vec<T>>,
    filled: Condvar,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Inbox {
            items: Mutex::new(Vec::new()),
            filled: Condvar::new(),
        }
    }
}

impl<T> Inbox<T> {
    pub fn push(&self, item: T) {
        let mut items = self.items.lock();
        items.push(item);
        // Only the first item finds the owner asleep.
        if items.len() == 1 {
            self.filled.notify_one();
        }
    }

    pub fn len(&self) -> usize {
        self.items.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything that waits, swapped against the empty `batch`; blocks while there is nothing, at most `timeout`.
    pub fn drain(&self, batch: &mut Vec<T>, timeout: Option<Duration>) {
        let mut items = self.items.lock();
        if items.is_empty() {
            match timeout {
                Some(timeout) => {
                    self.filled.wait_for(&mut items, timeout);
                }
                None => self.filled.wait_while(&mut items, |items| items.is_empty()),
            }
        }
        std::mem::swap(&mut *items, batch);
    }
}
