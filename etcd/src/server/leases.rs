//! Renewing leases, and asking what they have left, wherever the leader is. What the leader does is in [`crate::lease::primary`].

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{EtcdServer, ServerError};
use crate::apply::Applied;
use crate::clock::Clock;
use crate::lease::primary::{self, Primary};
use crate::lease::{LeaseError, Lessor, TimeToLive};
use crate::peer::lease::{self, Asked};
use crate::raft::driver::Event;

/// Between two attempts to ask the leader.
const ASK_RETRY: Duration = Duration::from_millis(50);

impl EtcdServer {
    /// Renews a lease wherever the leader is. What is seldom waited for is in boxes, here and in what it calls: every keepalive stream has
    /// room for the whole of this, and mostly waits for its client.
    pub async fn renew(&self, id: i64) -> Result<i64, ServerError> {
        let ask = async {
            loop {
                if self.is_leader() {
                    match primary::renew(self, id).await {
                        Err(ServerError::NotLeader | ServerError::Lease(LeaseError::NotPrimary)) => {}
                        renewed => return renewed,
                    }
                }
                for url in self.leader_urls().await.unwrap_or_default() {
                    match Box::pin(self.renewals.renew(&self.transport, &url, id)).await {
                        Asked::Answered(ttl) => return Ok(ttl),
                        Asked::NotFound => return Err(ServerError::Lease(LeaseError::NotFound)),
                        Asked::Again => {}
                    }
                }
                tokio::time::sleep(ASK_RETRY).await;
            }
        };
        tokio::time::timeout(self.request_timeout(), ask)
            .await
            .unwrap_or_else(|_| Err(self.timed_out()))
    }

    fn timed_out(&self) -> ServerError {
        match self.leader() {
            0 => ServerError::NoLeader,
            _ => ServerError::Timeout,
        }
    }

    /// None when there is no such lease.
    pub fn time_to_live_here(&self, id: i64) -> Result<Option<TimeToLive>, ServerError> {
        let lessor = self.state.lessor.lock();
        match lessor.is_primary() {
            true => Ok(lessor.time_to_live(id, self.clock.now())),
            false => Err(ServerError::Lease(LeaseError::NotPrimary)),
        }
    }

    /// What a lease has left, as the leader knows it. None when there is no such lease.
    pub async fn time_to_live(&self, id: i64, keys: bool) -> Result<Option<TimeToLive>, ServerError> {
        if self.is_leader() {
            self.linearizable().await?;
            // One that has just woken may not know yet how long it was away.
            return match primary::ensure_leadership(self).await {
                true => self.time_to_live_here(id).map_err(|_| ServerError::LeaderChanged),
                false => Err(ServerError::LeaderChanged),
            };
        }
        let ask = async {
            loop {
                for url in self.leader_urls().await.unwrap_or_default() {
                    match lease::time_to_live(self.transport.client(), &url, id, keys).await {
                        Asked::Answered(found) => return Ok(Some(found)),
                        Asked::NotFound => return Ok(None),
                        Asked::Again => {}
                    }
                }
                tokio::time::sleep(ASK_RETRY).await;
                if self.is_leader() {
                    return Err(ServerError::LeaderChanged);
                }
            }
        };
        tokio::time::timeout(self.request_timeout(), ask)
            .await
            .unwrap_or_else(|_| Err(self.timed_out()))
    }

    /// Revokes leases that ended, as long as this member leads.
    pub async fn expire_leases(self: Arc<Self>) {
        primary::expire(self).await;
    }

    /// With the feature `LeaseCheckpoint`.
    pub async fn checkpoint_leases(self: Arc<Self>) {
        primary::checkpoint_regularly(self, primary::CHECKPOINT_INTERVAL).await;
    }
}

impl Primary for EtcdServer {
    fn lessor(&self) -> &Mutex<Lessor> {
        &self.state.lessor
    }

    fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    fn election(&self) -> Duration {
        self.limits.election
    }

    fn next_id(&self) -> u64 {
        EtcdServer::next_id(self)
    }

    fn submit(&self, id: u64, event: Event) -> impl Future<Output = Result<Applied, ServerError>> + Send {
        EtcdServer::submit(self, id, event)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    fn leases_changed(&self) {
        self.leases_changed.notify_one();
    }

    async fn wait_changed(&self, most: Duration) {
        // Either is reason enough to look.
        tokio::time::timeout(most, self.leases_changed.notified())
            .await
            .ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_has_no_room_for_what_is_seldom_waited_for() {
        fn size<T, F>(_: impl Fn(T) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = size(|server: &'static EtcdServer| server.renew(1));
        assert!(bytes < 1500, "{bytes} bytes");
    }
}
