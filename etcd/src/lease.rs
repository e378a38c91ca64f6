//! Leases: which exist, what is attached to them, and when they expire. Reads no clock and touches no disk.
//!
//! Grant, revoke, attach and detach happen in the apply thread, in the same order on every member. Renewal and expiry are the
//! leader's alone: a new leader gives every lease its whole time again and an election's time on top, so that none ends early. With
//! checkpoints a lease's remaining time is agreed on from time to time, and a new leader gives only that.

pub mod primary;

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::clock::Millis;
use crate::metrics;
use crate::mvcc::Store;
use crate::mvcc::key::KeyRange;
use crate::mvcc::txn::Leases;

/// etcd's upper bound, about 285 years.
pub const MAX_TTL_SECONDS: i64 = 9_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    #[error("etcdserver: requested lease not found")]
    NotFound,
    /// Its time is over on this leader's clock, and its end is not agreed on: another leader may know of a renewal.
    #[error("etcdserver: requested lease is ending")]
    Ending,
    #[error("etcdserver: lease already exists")]
    Exists,
    #[error("etcdserver: too large lease TTL")]
    TtlTooLarge,
    /// Only the leader knows how long a lease still has.
    #[error("not a primary lessor")]
    NotPrimary,
}

#[derive(Debug)]
struct Lease {
    ttl_seconds: i64,
    /// Of the last checkpoint; 0 when there was none since it was granted or renewed.
    remaining_seconds: i64,
    /// A checkpoint was proposed by this leader, and may be applied later than a renewal is answered.
    checkpointing: bool,
    /// None on a member that does not lead.
    expiry: Option<Millis>,
    /// Proposed for revocation and not yet revoked.
    revoking: bool,
}

impl Lease {
    /// As far as the cluster has agreed on it.
    fn seconds_left(&self) -> i64 {
        match self.remaining_seconds {
            ..=0 => self.ttl_seconds,
            remaining => remaining,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct TimeToLive {
    pub remaining_seconds: i64,
    pub granted_seconds: i64,
    pub keys: Vec<Bytes>,
}

#[derive(Default)]
pub struct Lessor {
    leases: HashMap<i64, Lease>,
    /// The keys of those leases that have some.
    attached: HashMap<i64, BTreeSet<Bytes>>,
    /// Earliest first; an item whose time is not its lease's any more is stale.
    queue: BinaryHeap<Reverse<(Millis, i64)>>,
    min_ttl_seconds: i64,
    leading: bool,
    /// From when on this leader gives every lease its time.
    counts_from: Millis,
    /// When this member has led for sure.
    confirmed: Option<Millis>,
}

impl Lessor {
    pub fn new(min_ttl_seconds: i64) -> Self {
        Lessor {
            min_ttl_seconds,
            ..Lessor::default()
        }
    }

    pub fn restore(&mut self, id: i64, ttl_seconds: i64, remaining_seconds: i64) {
        self.leases.insert(
            id,
            Lease {
                ttl_seconds,
                remaining_seconds,
                checkpointing: false,
                expiry: None,
                revoking: false,
            },
        );
    }

    pub fn check_grant(&self, id: i64, ttl_seconds: i64) -> Result<(), LeaseError> {
        if ttl_seconds > MAX_TTL_SECONDS {
            return Err(LeaseError::TtlTooLarge);
        }
        if id == 0 {
            return Err(LeaseError::NotFound);
        }
        if self.leases.contains_key(&id) {
            Err(LeaseError::Exists)
        } else {
            Ok(())
        }
    }

    /// Returns the time to live that the lease really has.
    pub fn grant(&mut self, id: i64, ttl_seconds: i64, now: Millis) -> Result<i64, LeaseError> {
        self.check_grant(id, ttl_seconds)?;
        let ttl_seconds = ttl_seconds.max(self.min_ttl_seconds);
        metrics::LEASES_GRANTED.inc();
        metrics::LEASE_TTL.observe(ttl_seconds as f64);
        self.restore(id, ttl_seconds, 0);
        if self.leading {
            self.refresh(id, ttl_seconds, now);
        }
        Ok(ttl_seconds)
    }

    /// The keys that go with the lease, in order.
    pub fn revoke(&mut self, id: i64) -> Result<Vec<Bytes>, LeaseError> {
        self.leases.remove(&id).ok_or(LeaseError::NotFound)?;
        metrics::LEASES_REVOKED.inc();
        let keys = self.attached.remove(&id);
        Ok(keys.into_iter().flatten().collect())
    }

    pub fn keys_of(&self, id: i64) -> Result<Vec<Bytes>, LeaseError> {
        match self.exists(id) {
            true => Ok(self.attached_keys(id)),
            false => Err(LeaseError::NotFound),
        }
    }

    fn attached_keys(&self, id: i64) -> Vec<Bytes> {
        let keys = self.attached.get(&id);
        keys.into_iter().flatten().cloned().collect()
    }

    /// Returns the granted seconds. A lease that has expired is not renewed any more; whether it is gone is known once its revocation was applied.
    pub fn renew(&mut self, id: i64, now: Millis) -> Result<i64, LeaseError> {
        if !self.leading {
            return Err(LeaseError::NotPrimary);
        }
        let lease = self.leases.get(&id).ok_or(LeaseError::NotFound)?;
        if lease.revoking || lease.expiry.is_some_and(|expiry| expiry <= now) {
            return Err(LeaseError::Ending);
        }
        let ttl_seconds = lease.ttl_seconds;
        metrics::LEASES_RENEWED.inc();
        self.refresh(id, ttl_seconds, now);
        Ok(ttl_seconds)
    }

    /// Whether a checkpoint would give it less than its whole time: it must be taken back before a renewal is answered.
    pub fn has_checkpoint(&self, id: i64) -> bool {
        self.leases
            .get(&id)
            .is_some_and(|lease| lease.remaining_seconds > 0 || lease.checkpointing)
    }

    /// The cluster has agreed on how long a lease still has; 0 takes that back.
    pub fn checkpoint(&mut self, id: i64, remaining_seconds: i64) -> Option<i64> {
        let lease = self.leases.get_mut(&id)?;
        lease.remaining_seconds = remaining_seconds;
        // What an earlier leader has agreed on may be applied after this one began to count.
        let least = self.counts_from.plus(lease.seconds_left() as u64 * 1000);
        lease.expiry = lease.expiry.map(|expiry| expiry.max(least));
        lease.checkpointing &= remaining_seconds > 0;
        Some(lease.ttl_seconds)
    }

    /// Leases that live for longer than `interval` still.
    pub fn due_for_checkpoint(&self, interval: u64, now: Millis) -> Vec<i64> {
        let lives_on = |lease: &Lease| lease.expiry.is_some_and(|expiry| expiry.since(now) > interval);
        let due = self.leases.iter().filter(|(_, lease)| lives_on(lease));
        let mut ids: Vec<i64> = due.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// What these leases have left, as far as they are there; to be proposed before the lessor is used again.
    pub fn begin_checkpoint(&mut self, ids: &[i64], now: Millis) -> Vec<(i64, i64)> {
        let begin = |id: &i64| {
            let lease = self.leases.get_mut(id)?;
            // A second too much rather than a moment too little; none, which would take a checkpoint back, is none at all.
            let left = (lease.expiry?.since(now).div_ceil(1000) as i64).min(lease.ttl_seconds);
            lease.checkpointing |= left > 0;
            (left > 0).then_some((*id, left))
        };
        ids.iter().filter_map(begin).collect()
    }

    /// The leader's clock stood still: what passed meanwhile does not count.
    pub fn extend(&mut self, ms: u64) {
        for lease in self.leases.values_mut() {
            lease.expiry = lease.expiry.map(|expiry| expiry.plus(ms));
        }
    }

    fn refresh(&mut self, id: i64, seconds: i64, now: Millis) {
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        let expiry = now.plus(seconds.max(0) as u64 * 1000);
        let queued = lease.expiry.replace(expiry).is_some();
        // A renewed lease keeps its one place in the queue; the place is corrected when it comes up.
        if !queued {
            self.queue.push(Reverse((expiry, id)));
        }
    }

    /// With the keys that hold its leases.
    pub fn attached_to(mut self, store: &Store) -> Lessor {
        if self.is_empty() {
            return self;
        }
        store.walk(&KeyRange::all(), i64::MAX, |key, version| {
            if version.lease != 0 {
                self.attach(version.lease, &Bytes::copy_from_slice(key));
            }
            ControlFlow::Continue(())
        });
        self
    }

    /// This member has led at that time, or later.
    pub fn confirm(&mut self, at: Millis) {
        if self.leading {
            self.confirmed = self.confirmed.max(Some(at));
        }
    }

    /// Whether it has led at some time within so many milliseconds.
    pub fn is_sure(&self, now: Millis, within_ms: u64) -> bool {
        self.confirmed.is_some_and(|at| now.since(at) < within_ms)
    }

    pub fn is_primary(&self) -> bool {
        self.leading
    }

    pub fn time_to_live(&self, id: i64, now: Millis) -> Option<TimeToLive> {
        let lease = self.leases.get(&id)?;
        let left_ms = lease
            .expiry
            .map_or(lease.ttl_seconds as u64 * 1000, |expiry| expiry.since(now));
        let keys = self.attached_keys(id);
        Some(TimeToLive {
            remaining_seconds: (left_ms / 1000) as i64,
            granted_seconds: lease.ttl_seconds,
            keys,
        })
    }

    pub fn ids(&self) -> Vec<i64> {
        let mut ids: Vec<(Option<Millis>, i64)> = self
            .leases
            .iter()
            .map(|(id, lease)| (lease.expiry, *id))
            .collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    pub fn len(&self) -> usize {
        self.leases.len()
    }

    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// Begins to lead: every lease has its whole time before it, or what was agreed on, and `extend_ms` more: as long may the leader before
    /// have answered renewals without knowing that it was none any more.
    pub fn promote(&mut self, now: Millis, extend_ms: u64) {
        if std::mem::replace(&mut self.leading, true) {
            return;
        }
        let all: Vec<(i64, i64)> = self
            .leases
            .iter()
            .map(|(id, lease)| (*id, lease.seconds_left()))
            .collect();
        self.counts_from = now.plus(extend_ms);
        for (id, seconds) in all {
            self.refresh(id, seconds, self.counts_from);
        }
    }

    pub fn demote(&mut self) {
        (self.leading, self.confirmed) = (false, None);
        self.queue.clear();
        for lease in self.leases.values_mut() {
            lease.expiry = None;
            lease.revoking = false;
            lease.checkpointing = false;
        }
    }

    /// Leases that ended, at most `max`; each is returned once until [`Lessor::not_revoked`].
    pub fn expired(&mut self, now: Millis, max: usize) -> Vec<i64> {
        let mut out = Vec::new();
        while let Some(Reverse((at, id))) = self.queue.peek().copied() {
            if at > now || out.len() == max {
                break;
            }
            self.queue.pop();
            let Some(lease) = self.leases.get_mut(&id) else {
                continue;
            };
            match lease.expiry {
                Some(expiry) if expiry > now => self.queue.push(Reverse((expiry, id))),
                Some(_) => {
                    lease.revoking = true;
                    out.push(id);
                }
                None => {}
            }
        }
        out
    }

    /// A revocation could not be proposed: it is tried again.
    pub fn not_revoked(&mut self, id: i64, now: Millis) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.revoking = false;
            self.queue.push(Reverse((now, id)));
        }
    }

    /// When to look for expired leases next.
    pub fn next_expiry(&self) -> Option<Millis> {
        self.queue.peek().map(|Reverse((at, _))| *at)
    }
}

impl Leases for Lessor {
    fn exists(&self, lease: i64) -> bool {
        self.leases.contains_key(&lease)
    }

    fn attach(&mut self, lease: i64, key: &Bytes) {
        if self.exists(lease) {
            // A slice of a request would keep all of the request.
            let key = Bytes::copy_from_slice(key);
            self.attached.entry(lease).or_default().insert(key);
        }
    }

    fn detach(&mut self, lease: i64, key: &[u8]) {
        if let Entry::Occupied(mut keys) = self.attached.entry(lease) {
            keys.get_mut().remove(key);
            if keys.get().is_empty() {
                keys.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leading() -> Lessor {
        let mut lessor = Lessor::new(2);
        lessor.promote(Millis(0), 0);
        lessor
    }

    #[test]
    fn a_lease_expires_after_its_time_and_not_before() {
        let mut lessor = leading();
        assert_eq!(lessor.grant(1, 5, Millis(0)), Ok(5));
        assert!(lessor.expired(Millis(4999), 10).is_empty());
        assert_eq!(lessor.renew(1, Millis(4000)), Ok(5));
        assert!(lessor.expired(Millis(8999), 10).is_empty());
        assert_eq!(lessor.expired(Millis(9000), 10), [1]);
        assert!(lessor.expired(Millis(9999), 10).is_empty(), "proposed once");
        assert_eq!(lessor.renew(1, Millis(9999)), Err(LeaseError::Ending));
        lessor.not_revoked(1, Millis(10_000));
        assert_eq!(lessor.expired(Millis(10_000), 10), [1]);
    }

    #[test]
    fn a_new_leader_gives_the_whole_time_again() {
        let mut lessor = leading();
        lessor.grant(1, 10, Millis(0)).unwrap();
        lessor.demote();
        assert!(lessor.expired(Millis(60_000), 10).is_empty());
        assert_eq!(lessor.renew(1, Millis(60_000)), Err(LeaseError::NotPrimary));
        lessor.promote(Millis(60_000), 1000);
        assert!(lessor.expired(Millis(70_999), 10).is_empty());
        assert_eq!(lessor.expired(Millis(71_000), 10), [1]);
    }

    #[test]
    fn a_checkpoint_is_what_a_new_leader_gives_until_it_is_taken_back() {
        let mut lessor = leading();
        lessor.grant(1, 100, Millis(0)).unwrap();
        assert_eq!(lessor.due_for_checkpoint(60_000, Millis(30_000)), [1]);
        assert!(lessor.due_for_checkpoint(60_000, Millis(50_000)).is_empty());
        assert_eq!(lessor.begin_checkpoint(&[1, 2], Millis(30_000)), [(1, 70)]);
        assert_eq!(
            lessor.begin_checkpoint(&[1], Millis(30_001)),
            [(1, 70)],
            "never less than there is"
        );
        assert!(lessor.begin_checkpoint(&[1], Millis(100_000)).is_empty());
        lessor.checkpoint(1, 70);
        lessor.demote();
        lessor.promote(Millis(40_000), 0);
        assert_eq!(lessor.expired(Millis(110_000), 10), [1]);
        lessor.not_revoked(1, Millis(110_000));
        assert!(lessor.has_checkpoint(1));
        lessor.checkpoint(1, 0);
        assert!(!lessor.has_checkpoint(1));
        lessor.grant(2, 100, Millis(110_000)).unwrap();
        assert_eq!(lessor.begin_checkpoint(&[2], Millis(120_000)), [(2, 90)]);
        assert!(lessor.has_checkpoint(2), "it may be applied after a renewal");
    }

    #[test]
    fn a_leader_is_sure_for_a_while_and_as_long_as_it_leads() {
        let mut lessor = leading();
        assert!(!lessor.is_sure(Millis(0), 1000));
        lessor.confirm(Millis(500));
        lessor.confirm(Millis(400));
        assert!(lessor.is_sure(Millis(1499), 1000));
        assert!(!lessor.is_sure(Millis(1500), 1000));
        lessor.demote();
        lessor.confirm(Millis(1000));
        assert!(!lessor.is_sure(Millis(1000), 1000));
    }

    #[test]
    fn a_checkpoint_that_is_taken_back_after_the_promotion_is_taken_back() {
        let mut lessor = Lessor::new(2);
        lessor.grant(1, 100, Millis(0)).unwrap();
        lessor.checkpoint(1, 10);
        lessor.promote(Millis(0), 1000);
        lessor.checkpoint(1, 0);
        assert!(lessor.expired(Millis(100_999), 10).is_empty());
        assert_eq!(lessor.expired(Millis(101_000), 10), [1]);
    }

    #[test]
    fn time_that_the_leader_did_not_have_does_not_count() {
        let mut lessor = leading();
        lessor.grant(1, 10, Millis(0)).unwrap();
        lessor.extend(60_000);
        assert!(lessor.expired(Millis(69_999), 10).is_empty());
        assert_eq!(lessor.expired(Millis(70_000), 10), [1]);
    }

    #[test]
    fn grants_are_refused_as_etcd_refuses_them() {
        let mut lessor = leading();
        assert_eq!(lessor.grant(1, 1, Millis(0)), Ok(2), "raised to the minimum");
        assert_eq!(lessor.grant(1, 5, Millis(0)), Err(LeaseError::Exists));
        assert_eq!(
            lessor.grant(2, MAX_TTL_SECONDS + 1, Millis(0)),
            Err(LeaseError::TtlTooLarge)
        );
        assert_eq!(lessor.revoke(9), Err(LeaseError::NotFound));
    }

    #[test]
    fn keys_move_between_leases() {
        let mut lessor = leading();
        lessor.grant(1, 5, Millis(0)).unwrap();
        lessor.attach(1, &Bytes::from_static(b"b"));
        lessor.attach(1, &Bytes::from_static(b"a"));
        lessor.detach(1, b"b");
        assert_eq!(
            lessor.time_to_live(1, Millis(1500)).unwrap(),
            TimeToLive {
                remaining_seconds: 3,
                granted_seconds: 5,
                keys: vec!["a".into()]
            }
        );
        assert_eq!(lessor.revoke(1).unwrap(), [Bytes::from_static(b"a")]);
    }
}
