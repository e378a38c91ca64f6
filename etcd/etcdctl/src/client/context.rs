//! How long a command may take.

use std::time::Duration;

use tokio::time::Instant;

use super::Error;

/// Go's context with a deadline, or without one.
#[derive(Clone, Debug)]
pub struct Context {
    deadline: Option<Instant>,
}

impl Context {
    pub fn background() -> Self {
        Context { deadline: None }
    }

    /// A zero timeout has passed already, as in Go.
    pub fn timeout(after: Duration) -> Self {
        Context {
            deadline: Instant::now().checked_add(after),
        }
    }

    /// A zero timeout is none.
    pub fn within(after: Duration) -> Self {
        if after.is_zero() {
            Context::background()
        } else {
            Context::timeout(after)
        }
    }

    pub fn expired(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// None when the deadline came first.
    pub async fn limit<F: Future>(&self, future: F) -> Option<F::Output> {
        match self.deadline {
            None => Some(future.await),
            Some(deadline) => tokio::time::timeout_at(deadline, future).await.ok(),
        }
    }

    pub async fn sleep(&self, duration: Duration) -> Result<(), Error> {
        if duration.is_zero() {
            return Ok(());
        }
        let slept = self.limit(tokio::time::sleep(duration)).await;
        slept.ok_or(Error::DeadlineExceeded)
    }
}
