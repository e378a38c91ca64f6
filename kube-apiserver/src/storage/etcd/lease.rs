//! Leases for objects that expire (events): one lease serves many objects for a while, as upstream does, because etcd pays
//! for each lease and not for each attached key.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::{Client, Error};

/// A lease takes new objects for this long; its objects live up to this much longer than asked.
const REUSE: Duration = Duration::from_secs(60);

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
        let mut current = self.current.lock().await;
        if let Some(granted) = current
            .as_mut()
            .filter(|g| g.ttl_s == ttl_s && g.attached < MAX_ATTACHED && g.since.elapsed() < REUSE)
        {
            granted.attached += 1;
            return Ok(granted.id);
        }
        let since = Instant::now();
        let id = etcd.grant(ttl_s + REUSE.as_secs() as i64).await?;
        *current = Some(Granted {
            id,
            ttl_s,
            since,
            attached: 1,
        });
        Ok(id)
    }
}
