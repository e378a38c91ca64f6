//! Runs reconcilers: takes keys from a queue, bounds how many are in work, retries with backoff, survives panics.

use crate::controllers::Controller;
use client::workqueue::WorkQueue;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a reconciler wants next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Requeue {
    Done,
    After(Duration),
}

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Api(#[from] client::Error),
    #[error("{0}")]
    Other(String),
    /// Not finished, and nothing is wrong: retried with backoff without an error in the log.
    #[error("{0}")]
    NotYet(String),
}

impl Failure {
    pub fn other(text: impl Into<String>) -> Self {
        Failure::Other(text.into())
    }
}

pub type Outcome = Result<Requeue, Failure>;

/// Brings the world closer to what the object with this key asks for. Knows nothing but the key: why it was woken, how often
/// it failed before and who else works are no concern of it.
pub trait Reconciler: Send + Sync + 'static {
    fn reconcile(&self, key: &str) -> impl Future<Output = Outcome> + Send;
}

/// Waits until the stores that a reconciler reads are complete.
pub type Synced = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

pub fn synced<T: client::Object>(store: &client::informer::Store<T>) -> Synced {
    let store = store.clone();
    Box::new(move || {
        let store = store.clone();
        Box::pin(async move { store.wait_synced().await })
    })
}

pub struct Driver<R> {
    pub name: &'static str,
    pub queue: WorkQueue<String>,
    pub reconciler: Arc<R>,
    pub workers: usize,
    pub needs: Vec<Synced>,
}

impl<R: Reconciler> Controller for Driver<R> {
    fn run(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            for synced in &self.needs {
                synced().await;
            }
            tracing::info!(controller = self.name, "Started controller");
            self.work().await;
        })
    }
}

impl<R: Reconciler> Driver<R> {
    /// Keys in work when this is dropped go back to the queue.
    async fn work(&self) {
        let slots = Arc::new(Semaphore::new(self.workers.max(1)));
        let mut tasks = JoinSet::new();
        loop {
            // The semaphore is never closed.
            let Ok(slot) = slots.clone().acquire_owned().await else {
                return;
            };
            let Some(key) = self.queue.get().await else { return };
            while tasks.try_join_next().is_some() {}
            let (name, queue, reconciler) = (self.name, self.queue.clone(), self.reconciler.clone());
            tasks.spawn(async move {
                process(name, queue, key, &*reconciler).await;
                drop(slot);
            });
        }
    }
}

async fn process<R: Reconciler>(name: &'static str, queue: WorkQueue<String>, key: String, reconciler: &R) {
    let mut work = InWork {
        name,
        queue,
        key,
        settled: false,
    };
    let outcome = reconciler.reconcile(&work.key).await;
    work.settled = true;
    let (queue, key) = (&work.queue, &work.key);
    match outcome {
        Ok(Requeue::Done) => queue.forget(key),
        Ok(Requeue::After(delay)) => {
            queue.forget(key);
            queue.add_after(key.clone(), delay);
        }
        Err(failure) => {
            report(name, key, &failure);
            queue.add_rate_limited(key.clone());
        }
    }
}

/// A lost race is routine: the informer will bring the winner.
fn report(controller: &str, key: &str, failure: &Failure) {
    match failure {
        Failure::NotYet(reason) => tracing::debug!(controller, key, reason, "Not finished, will retry"),
        Failure::Api(error) if error.is_conflict() => {
            tracing::debug!(controller, key, %error, "Conflict, will retry")
        }
        failure => tracing::error!(controller, key, err = %failure, "Sync failed, will retry"),
    }
}

struct InWork {
    name: &'static str,
    queue: WorkQueue<String>,
    key: String,
    settled: bool,
}

impl Drop for InWork {
    fn drop(&mut self) {
        if !self.settled {
            if std::thread::panicking() {
                tracing::error!(controller = self.name, key = %self.key, "Reconciler panicked, will retry");
            }
            self.queue.add_rate_limited(self.key.clone());
        }
        self.queue.done(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Flaky(AtomicUsize);

    impl Reconciler for Flaky {
        async fn reconcile(&self, _key: &str) -> Outcome {
            match self.0.fetch_add(1, Ordering::SeqCst) {
                0 => panic!("a bug"),
                1 => Err(Failure::other("not today")),
                _ => Ok(Requeue::Done),
            }
        }
    }

    #[tokio::test]
    async fn a_key_survives_a_panic_and_an_error_and_is_then_forgotten() {
        let driver = Driver {
            name: "test",
            queue: WorkQueue::new("test"),
            reconciler: Arc::new(Flaky(AtomicUsize::new(0))),
            workers: 2,
            needs: Vec::new(),
        };
        driver.queue.add("k".to_owned());
        let reached = async {
            while driver.reconciler.0.load(Ordering::SeqCst) < 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        tokio::select! {
            () = driver.run() => panic!("a driver runs until it is dropped"),
            () = reached => {}
            () = tokio::time::sleep(Duration::from_secs(5)) => panic!("no third attempt"),
        }
        assert_eq!(driver.queue.num_requeues(&"k".to_owned()), 0);
    }
}
