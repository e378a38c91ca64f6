//! Leases for objects that expire (events): one lease serves many objects for a while, as upstream does, because etcd pays
//! for each lease and not for each attached key.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::{Client, Error};

/// A lease takes new objects for this long at most, and for no more than a twentieth of its time: objects live up to that
/// much longer than asked, which an API server's place in the endpoints (15 s) must not.
const MAX_REUSE_S: i64 = 60;
const REUSE_FRACTION: i64 = 20;

/// Objects on one lease: revoking it is one etcd transaction.
const MAX_ATTACHED: usize = 1000;

#[derive(Default)]
pub struct LeasePool {
    current: Mutex<Option<Granted>>,
}

struct Granted {
    id: i64,
    ttl_s: i64,
    since: Instant,
    attached: usize,
}

impl LeasePool {
    /// A lease that lasts at least `ttl_s` from now.
    pub async fn lease(&self, etcd: &Client, ttl_s: i64) -> Result<i64, Error> {
        let reuse_s = reuse_s(ttl_s);
        let mut current = self.current.lock().await;
        if let Some(granted) = current
            .as_mut()
            .filter(|g| g.ttl_s == ttl_s && g.attached < MAX_ATTACHED && g.since.elapsed() < seconds(reuse_s))
        {
            granted.attached += 1;
            return Ok(granted.id);
        }
        let since = Instant::now();
        let id = etcd.grant(ttl_s + reuse_s).await?;
        *current = Some(Granted {
            id,
            ttl_s,
            since,
            attached: 1,
        });
        Ok(id)
    }
}

fn reuse_s(ttl_s: i64) -> i64 {
    (ttl_s / REUSE_FRACTION).clamp(0, MAX_REUSE_S)
}

fn seconds(s: i64) -> Duration {
    Duration::from_secs(s.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_lease_is_not_shared_and_a_long_one_for_a_minute() {
        assert_eq!(reuse_s(15), 0);
        assert_eq!(reuse_s(600), 30);
        assert_eq!(reuse_s(3600), 60);
    }
}
