//! When a member may answer a linearizable read by itself.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::driver::{Event, Status};
use super::inbox::Inbox;
use crate::metrics;
use crate::server::ServerError;

/// Between two attempts to read while there is no leader.
const READ_RETRY: Duration = Duration::from_millis(20);

/// A member whose raft can be asked, and where one can wait: on tokio in the server, in virtual time in the simulation.
pub trait Replica: Send + Sync {
    fn status(&self) -> &Status;
    fn events(&self) -> &Inbox<Event>;
    /// How long a client's question may wait.
    fn request_timeout(&self) -> Duration;
    /// Until everything up to this index is applied.
    fn applied(&self, index: u64) -> impl Future<Output = Result<(), ServerError>> + Send;
    fn pause(&self, time: Duration) -> impl Future<Output = ()> + Send;
    /// None when it takes longer.
    fn within<T: Send>(
        &self,
        limit: Duration,
        future: impl Future<Output = T> + Send,
    ) -> impl Future<Output = Option<T>> + Send;
}

/// None when what is published here is linearizable now: the only voter has published whatever it acknowledged, and nobody else can acknowledge.
/// Otherwise the question to the leader, which is answered with the index that must have been applied first, and dropped when it has to be asked
/// again.
pub fn ask(status: &Status, events: &Inbox<Event>) -> Option<oneshot::Receiver<u64>> {
    if status.alone.load(Ordering::SeqCst) {
        return None;
    }
    Some(ask_raft(events))
}

/// The question even where [`ask`] needs none: raft's thread has looked at the clock by the time it answers.
pub fn ask_raft(events: &Inbox<Event>) -> oneshot::Receiver<u64> {
    let (sender, receiver) = oneshot::channel();
    events.push(Event::ReadIndex(sender));
    receiver
}

/// Returns once everything that was acknowledged before the call is visible here.
pub async fn linearizable(replica: &impl Replica) -> Result<(), ServerError> {
    read_index(replica, || ask(replica.status(), replica.events())).await
}

/// Returns once the question is answered, and what the answer says is applied here.
pub async fn read_index(
    replica: &impl Replica,
    ask: impl Fn() -> Option<oneshot::Receiver<u64>> + Send + Sync,
) -> Result<(), ServerError> {
    let answered = replica
        .within(replica.request_timeout(), answered(replica, ask))
        .await;
    answered.unwrap_or_else(|| {
        metrics::SLOW_READ_INDEXES.inc();
        Err(ServerError::Timeout)
    })
}

async fn answered(
    replica: &impl Replica,
    ask: impl Fn() -> Option<oneshot::Receiver<u64>> + Send + Sync,
) -> Result<(), ServerError> {
    let mut failed = false;
    loop {
        let Some(receiver) = ask() else {
            return Ok(());
        };
        if let Ok(index) = receiver.await {
            return replica.applied(index).await;
        }
        if !std::mem::replace(&mut failed, true) {
            metrics::FAILED_READ_INDEXES.inc();
        }
        replica.pause(READ_RETRY).await;
    }
}

/// Waits until everything that is committed now was applied.
pub async fn wait_applied(replica: &impl Replica, within: Duration) -> Result<(), ServerError> {
    let committed = replica.status().committed.load(Ordering::SeqCst);
    if replica.status().applied.load(Ordering::SeqCst) >= committed {
        return Ok(());
    }
    let applied = replica.within(within, replica.applied(committed)).await;
    applied.unwrap_or(Err(ServerError::AppliedTimeout))
}
