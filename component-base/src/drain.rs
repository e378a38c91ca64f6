//! Shutdown as a value: a signal that everything can await, and holds that delay the end while work is in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// How long `run` waits for holds after the drain began; systemd kills at 90 s, kubelet at 30 s by default.
pub const GRACE: Duration = Duration::from_secs(25);

/// Cloned into every task that must know of a shutdown.
#[derive(Clone)]
pub struct Drain {
    shared: Arc<Shared>,
}

struct Shared {
    signal: watch::Sender<bool>,
    holds: AtomicUsize,
    released: Notify,
}

/// While one lives, the process does not exit (within [`GRACE`]).
pub struct Hold {
    shared: Arc<Shared>,
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    pub fn new() -> Self {
        Drain {
            shared: Arc::new(Shared {
                signal: watch::Sender::new(false),
                holds: AtomicUsize::new(0),
                released: Notify::new(),
            }),
        }
    }

    /// Begins the drain. Further calls change nothing.
    pub fn start(&self) {
        self.shared.signal.send_replace(true);
    }

    /// Resolves once the drain began; at once when it already has.
    pub async fn signaled(&self) {
        let mut signal = self.shared.signal.subscribe();
        // The sender lives in `self.shared`, which this future borrows: it cannot be closed here.
        signal.wait_for(|draining| *draining).await.ok();
    }

    pub fn is_draining(&self) -> bool {
        *self.shared.signal.borrow()
    }

    pub fn hold(&self) -> Hold {
        self.shared.holds.fetch_add(1, Ordering::SeqCst);
        Hold {
            shared: self.shared.clone(),
        }
    }

    pub fn holds(&self) -> usize {
        self.shared.holds.load(Ordering::SeqCst)
    }

    /// Waits until every hold was dropped, at most `grace`. False when some are left.
    pub async fn wait(&self, grace: Duration) -> bool {
        tokio::time::timeout(grace, self.all_released()).await.is_ok()
    }

    async fn all_released(&self) {
        loop {
            let released = self.shared.released.notified();
            if self.holds() == 0 {
                return;
            }
            released.await;
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.shared.holds.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.shared.released.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_reaches_those_who_wait_and_those_who_come_late() {
        let drain = Drain::new();
        let waiter = tokio::spawn({
            let drain = drain.clone();
            async move { drain.signaled().await }
        });
        assert!(!drain.is_draining());
        drain.start();
        waiter.await.unwrap();
        drain.signaled().await;
        assert!(drain.is_draining());
    }

    #[tokio::test]
    async fn waiting_ends_with_the_last_hold_or_with_the_grace() {
        let drain = Drain::new();
        let (first, second) = (drain.hold(), drain.hold());
        drop(first);
        assert!(!drain.wait(Duration::from_millis(10)).await);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(second);
        });
        assert!(drain.wait(Duration::from_secs(5)).await);
    }
}
