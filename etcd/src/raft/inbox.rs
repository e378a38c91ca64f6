//! A queue that is drained at once: what arrived while its owner was busy becomes its next batch.

use std::sync::OnceLock;
use std::time::Duration;

use component_base::allocator;
use parking_lot::{Condvar, Mutex, MutexGuard};

/// Whoever waits longer keeps no memory meanwhile that it does not use.
const BRIEF: Duration = Duration::from_millis(200);

/// Wakes an owner that does not sleep here.
type Bell = Box<dyn Fn() + Send + Sync>;

pub struct Inbox<T> {
    queue: Mutex<Queue<T>>,
    filled: Condvar,
    bell: OnceLock<Bell>,
}

struct Queue<T> {
    items: Vec<T>,
    /// Whoever fills it sees to what is in it: its owner need not wake.
    attended: bool,
    closed: bool,
    /// Its owner sleeps elsewhere, and wants to be rung for.
    elsewhere: bool,
    /// Its owner is to look around, whatever is in it.
    rung: bool,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Inbox {
            queue: Mutex::new(Queue {
                items: Vec::new(),
                attended: false,
                closed: false,
                elsewhere: false,
                rung: false,
            }),
            filled: Condvar::new(),
            bell: OnceLock::new(),
        }
    }
}

impl<T> Inbox<T> {
    pub fn push(&self, item: T) {
        let mut queue = self.queue.lock();
        queue.items.push(item);
        // Only the first item finds the owner asleep.
        if queue.items.len() == 1 && !queue.attended {
            self.wake(&mut queue);
        }
    }

    fn wake(&self, queue: &mut Queue<T>) {
        if std::mem::take(&mut queue.elsewhere)
            && let Some(bell) = self.bell.get()
        {
            return bell();
        }
        self.filled.notify_all();
    }

    /// Wakes the owner though there may be nothing in it.
    pub fn ring(&self) {
        let mut queue = self.queue.lock();
        queue.rung = true;
        self.wake(&mut queue);
    }

    /// What wakes the owner where it sleeps elsewhere; the first one stays.
    pub fn set_bell(&self, bell: Bell) {
        self.bell.get_or_init(|| bell);
    }

    /// The owner is about to sleep elsewhere, until the bell rings. False when it need not.
    pub fn doze(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.elsewhere = queue.items.is_empty() && !std::mem::take(&mut queue.rung);
        queue.elsewhere
    }

    pub fn rise(&self) {
        let mut queue = self.queue.lock();
        queue.elsewhere = false;
        queue.rung = false;
    }

    pub fn len(&self) -> usize {
        self.queue.lock().items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything that waits, swapped against the empty `batch`; blocks while there is nothing, at most `timeout`.
    pub fn drain(&self, batch: &mut Vec<T>, timeout: Option<Duration>) {
        self.wait(timeout);
        self.take(batch);
    }

    /// Until there is something that nobody attends to, or the inbox was closed.
    pub fn wait(&self, timeout: Option<Duration>) {
        let mut queue = self.queue.lock();
        if std::mem::take(&mut queue.rung) || !queue.items.is_empty() {
            return;
        }
        match timeout {
            Some(timeout) => {
                self.filled.wait_for(&mut queue, timeout);
            }
            None => {
                let nothing = |queue: &mut Queue<T>| queue.items.is_empty() && !queue.closed;
                if self.filled.wait_while_for(&mut queue, nothing, BRIEF).timed_out() {
                    MutexGuard::unlocked(&mut queue, allocator::collect);
                    self.filled.wait_while(&mut queue, nothing);
                }
            }
        }
    }

    /// What waits, without waiting for it.
    pub fn take(&self, batch: &mut Vec<T>) {
        std::mem::swap(&mut self.queue.lock().items, batch);
    }

    /// From now on the caller takes what it pushes, until it leaves. Not where something waits already: that is the owner's.
    pub fn attend(&self) {
        let mut queue = self.queue.lock();
        queue.attended = queue.items.is_empty();
    }

    pub fn is_attended(&self) -> bool {
        self.queue.lock().attended
    }

    /// Whether whoever attends has something to do.
    pub fn is_wanted(&self) -> bool {
        let queue = self.queue.lock();
        queue.attended && !queue.items.is_empty()
    }

    /// What is left is the owner's.
    pub fn leave(&self) {
        let mut queue = self.queue.lock();
        if std::mem::take(&mut queue.attended) && !queue.items.is_empty() {
            self.filled.notify_all();
        }
    }

    /// The owner is to end.
    pub fn close(&self) {
        self.queue.lock().closed = true;
        self.filled.notify_all();
    }

    pub fn is_closed(&self) -> bool {
        self.queue.lock().closed
    }
}
