//! Keeping leases alive and ending them: the leader's alone, and only as long as it knows that it leads.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use etcd_api::etcdserverpb::{
    InternalRaftRequest, LeaseCheckpoint, LeaseCheckpointRequest, LeaseRevokeRequest, RequestHeader,
};
use prost::Message as _;
use tracing::warn;

use super::{EtcdServer, REQUEST_TIMEOUT, ServerError};
use crate::apply::ApplyError;
use crate::auth;
use crate::lease::{LeaseError, TimeToLive};
use crate::peer::lease::{self, Asked};
use crate::raft::driver::Event;
use crate::raft::read;

/// etcd revokes at most this many expired leases a second.
const REVOKE_RATE: usize = 1000;
/// An idle lessor is looked at this often at the least.
const EXPIRY_AUDIT: Duration = Duration::from_secs(5);
/// The raft thread is not stuck when its clock went on within so many ticks.
const ACTIVE_TICKS: u32 = 3;
/// Between two attempts to ask the leader.
const ASK_RETRY: Duration = Duration::from_millis(50);
const APPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// etcd's: how often a long lease's remaining time is agreed on, and how many go into one request.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);
const CHECKPOINT_BATCH: usize = 1000;

impl EtcdServer {
    /// Whether this member leads for sure: one whose clock stood still asks the others first.
    async fn ensure_leadership(&self) -> bool {
        if !self.is_leader() {
            return false;
        }
        if self.is_active().await {
            return true;
        }
        // Not even the only member may skip this: raft's thread finds out how long it stood still.
        let asked = Box::pin(self.read_index(|| Some(read::ask_raft(&self.events))));
        asked.await.is_ok() && self.is_leader()
    }

    /// The raft thread has ticked lately: had it been away for longer than an election, it would have noticed.
    async fn is_active(&self) -> bool {
        let since = self.raft.last_tick_ms.load(Ordering::SeqCst);
        let now = crate::clock::uptime_ms(Instant::now());
        now.saturating_sub(since) <= (self.limits.heartbeat * ACTIVE_TICKS).as_millis() as u64
    }

    /// Renews a lease on the leader.
    pub async fn renew_here(&self, id: i64) -> Result<i64, ServerError> {
        let mut confirmed = false;
        loop {
            // A lease that an earlier leader has granted, or a checkpoint that it has made, may not be applied here before.
            if !self.ensure_leadership().await || !self.raft.settled.load(Ordering::SeqCst) {
                return Err(ServerError::NotLeader);
            }
            let has_checkpoint = self.state.lessor.lock().has_checkpoint(id);
            if has_checkpoint {
                // A later leader must not go by what was left before this renewal.
                Box::pin(self.checkpoint(vec![(id, 0)])).await?;
            }
            let renewed = self.state.lessor.lock().renew(id, self.clock.now());
            match renewed {
                // As etcd: it is gone once it was revoked, and not before.
                Err(LeaseError::Ending) => tokio::time::sleep(ASK_RETRY).await,
                // One that has been replaced and does not know it has not heard of what its successor granted.
                Err(LeaseError::NotFound) if !std::mem::replace(&mut confirmed, true) => {
                    let confirmed = Box::pin(self.linearizable());
                    confirmed.await.map_err(|_| ServerError::NotLeader)?;
                }
                renewed => return Ok(renewed?),
            }
        }
    }

    /// Renews leases on the leader, as far as that needs nobody else; what they have then.
    pub async fn renew_many_here(&self, ids: Vec<i64>) -> Result<Vec<(i64, i64)>, ServerError> {
        if !self.ensure_leadership().await || !self.raft.settled.load(Ordering::SeqCst) {
            return Err(ServerError::NotLeader);
        }
        let now = self.clock.now();
        let mut lessor = self.state.lessor.lock();
        let mut renew = |id: i64| match lessor.has_checkpoint(id) {
            true => None,
            false => lessor.renew(id, now).ok().map(|ttl| (id, ttl)),
        };
        Ok(ids.into_iter().filter_map(&mut renew).collect())
    }

    /// Renews a lease wherever the leader is. What is seldom waited for is in boxes, here and in what it calls: every keepalive stream has
    /// room for the whole of this, and mostly waits for its client.
    pub async fn renew(&self, id: i64) -> Result<i64, ServerError> {
        let ask = async {
            loop {
                if self.is_leader() {
                    self.wait_applied(APPLY_TIMEOUT).await?;
                    match self.renew_here(id).await {
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
        tokio::time::timeout(REQUEST_TIMEOUT, ask)
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
            return match self.ensure_leadership().await {
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
        tokio::time::timeout(REQUEST_TIMEOUT, ask)
            .await
            .unwrap_or_else(|_| Err(self.timed_out()))
    }

    /// Revokes leases that ended, as long as this member leads.
    pub async fn expire_leases(self: Arc<Self>) {
        loop {
            // Read before the lessor is: what a later term's leader promises is not known to this look.
            let term = self.raft.term.load(Ordering::SeqCst);
            // A leader that was away has no say in who ended meanwhile. Nor has one that stops between its looks at the clock and at
            // itself: the clock comes first.
            let now = self.clock.now();
            let expired = match self.ensure_leadership().await {
                true => self.state.lessor.lock().expired(now, REVOKE_RATE),
                false => Vec::new(),
            };
            let busy = !expired.is_empty();
            for id in expired {
                tokio::spawn(self.clone().revoke(id, term));
            }
            let wait = if busy {
                Duration::from_secs(1)
            } else {
                self.until_expiry()
            };
            // Either the time has come or an earlier lease was granted.
            tokio::time::timeout(wait, self.leases_changed.notified())
                .await
                .ok();
        }
    }

    fn until_expiry(&self) -> Duration {
        let next = self.state.lessor.lock().next_expiry();
        let wait = next.map_or(EXPIRY_AUDIT, |next| {
            Duration::from_millis(next.since(self.clock.now()) + 1)
        });
        wait.min(EXPIRY_AUDIT)
    }

    /// In this leader's own term or not at all: what a later leader was told by the lease's holder is not known here.
    async fn revoke(self: Arc<Self>, id: i64, term: u64) {
        let request = self.with_id(InternalRaftRequest {
            lease_revoke: Some(LeaseRevokeRequest { id }),
            ..Default::default()
        });
        if let Err(error) = self.submit_leading(request, term).await {
            warn!("lease-id" = %format!("{id:x}"), error = %error, "failed to revoke lease");
            self.state.lessor.lock().not_revoked(id, self.clock.now());
        }
    }

    fn with_id(&self, mut request: InternalRaftRequest) -> InternalRaftRequest {
        request.header = Some(RequestHeader {
            id: self.next_id(),
            username: auth::ROOT.to_owned(),
            ..RequestHeader::default()
        });
        request
    }

    async fn submit_leading(&self, request: InternalRaftRequest, term: u64) -> Result<(), ServerError> {
        let id = request.header.as_ref().map_or(0, |header| header.id);
        let event = Event::ProposeLeading(request.encode_to_vec(), term);
        match self.submit(id, event).await?.result {
            // Root may do everything; before the rules of a snapshot are known there may be no root. A corrupt cluster ends no lease.
            Err(error @ (ApplyError::Auth(_) | ApplyError::Corrupt)) => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn checkpoint(&self, leases: Vec<(i64, i64)>) -> Result<(), ServerError> {
        let checkpoints = leases
            .into_iter()
            .map(|(id, remaining_ttl)| LeaseCheckpoint { id, remaining_ttl });
        let request = self.with_id(InternalRaftRequest {
            lease_checkpoint: Some(LeaseCheckpointRequest {
                checkpoints: checkpoints.collect(),
            }),
            ..Default::default()
        });
        self.submit_leading(request, self.raft.term.load(Ordering::SeqCst))
            .await
    }

    /// With the feature `LeaseCheckpoint`: lets the cluster know from time to time what long leases have left.
    pub async fn checkpoint_leases(self: Arc<Self>) {
        loop {
            tokio::time::sleep(CHECKPOINT_INTERVAL).await;
            let interval = CHECKPOINT_INTERVAL.as_millis() as u64;
            let due = self.state.lessor.lock().to_checkpoint(interval, self.clock.now());
            for batch in due.chunks(CHECKPOINT_BATCH) {
                if let Err(error) = self.checkpoint(batch.to_vec()).await {
                    warn!(error = %error, "failed to checkpoint leases");
                    break;
                }
            }
        }
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
