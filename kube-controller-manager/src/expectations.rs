//! What a controller has asked for and not yet seen: while something is expected, its cache is known to be behind.

use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// An event that never comes (the object was deleted before anyone saw it) must not stop a controller for good.
const TIMEOUT: Duration = Duration::from_secs(5 * 60);

#[derive(Default)]
pub struct Expectations {
    by_key: Mutex<HashMap<String, Expected>>,
}

struct Expected {
    creations: i64,
    /// By uid: a deletion is seen as a deletion timestamp, as a deletion, or both.
    deletions: HashSet<String>,
    since: Instant,
}

impl Expectations {
    pub fn expect_creations(&self, key: &str, count: usize) {
        self.set(key, count as i64, HashSet::new());
    }

    pub fn expect_deletions(&self, key: &str, uids: impl IntoIterator<Item = String>) {
        self.set(key, 0, uids.into_iter().collect());
    }

    /// Both at once, for controllers that do both in one pass.
    pub fn set(&self, key: &str, creations: i64, deletions: HashSet<String>) {
        let expected = Expected {
            creations,
            deletions,
            since: Instant::now(),
        };
        self.by_key.lock().insert(key.to_owned(), expected);
    }

    pub fn creation_observed(&self, key: &str) {
        if let Some(expected) = self.by_key.lock().get_mut(key) {
            expected.creations -= 1;
        }
    }

    pub fn deletion_observed(&self, key: &str, uid: &str) {
        if let Some(expected) = self.by_key.lock().get_mut(key) {
            expected.deletions.remove(uid);
        }
    }

    pub fn satisfied(&self, key: &str) -> bool {
        let by_key = self.by_key.lock();
        by_key
            .get(key)
            .is_none_or(|e| (e.creations <= 0 && e.deletions.is_empty()) || e.since.elapsed() > TIMEOUT)
    }

    pub fn forget(&self, key: &str) {
        self.by_key.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_seen_twice_counts_once() {
        let expectations = Expectations::default();
        expectations.expect_deletions("k", ["a".to_owned(), "b".to_owned()]);
        expectations.deletion_observed("k", "a");
        expectations.deletion_observed("k", "a");
        assert!(!expectations.satisfied("k"));
        expectations.deletion_observed("k", "b");
        assert!(expectations.satisfied("k"));
    }

    #[test]
    fn creations_are_counted_and_more_than_expected_is_no_debt() {
        let expectations = Expectations::default();
        expectations.expect_creations("k", 1);
        assert!(!expectations.satisfied("k"));
        expectations.creation_observed("k");
        expectations.creation_observed("k");
        assert!(expectations.satisfied("k"));
    }
}
