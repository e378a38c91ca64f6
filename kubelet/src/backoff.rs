//! Back-off by key: each failure doubles the wait, a long enough success forgets it. Takes the time from its caller.

use std::collections::HashMap;
use std::time::Duration;

/// Nanoseconds of Unix time: the runtime's clock, in which a container's end is told.
pub type Nanos = i64;

#[derive(Debug, Clone, Copy)]
struct Entry {
    wait: Duration,
    updated: Nanos,
}

pub struct Backoff {
    initial: Duration,
    max: Duration,
    entries: HashMap<String, Entry>,
}

fn nanos(duration: Duration) -> Nanos {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

pub fn unix_nanos() -> Nanos {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    nanos(since)
}

impl Backoff {
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self {
            initial,
            max,
            entries: HashMap::new(),
        }
    }

    /// How long from `event` (when it failed) nothing may be tried, if that is still ahead of `now`.
    pub fn wait_since(&self, key: &str, event: Nanos, now: Nanos) -> Option<Duration> {
        let entry = self.entries.get(key)?;
        let waiting = !self.expired(entry, event) && now.saturating_sub(event) < nanos(entry.wait);
        waiting.then_some(entry.wait)
    }

    /// As [`Self::wait_since`], from the time of the last failure.
    pub fn wait(&self, key: &str, now: Nanos) -> Option<Duration> {
        let updated = self.entries.get(key)?.updated;
        self.wait_since(key, updated, now)
    }

    /// When the wait of `key` that began at its last failure is over.
    pub fn until(&self, key: &str) -> Option<Nanos> {
        self.entries
            .get(key)
            .map(|e| e.updated.saturating_add(nanos(e.wait)))
    }

    /// Another try at `now`; `event` is when the last one failed.
    pub fn next(&mut self, key: &str, event: Nanos, now: Nanos) {
        let wait = match self.entries.get(key) {
            Some(entry) if !self.expired(entry, event) => (entry.wait * 2).min(self.max),
            _ => self.initial,
        };
        self.entries.insert(key.to_string(), Entry { wait, updated: now });
    }

    pub fn collect(&mut self, now: Nanos) {
        let keep = nanos(self.max * 2);
        self.entries.retain(|_, e| now.saturating_sub(e.updated) <= keep);
    }

    fn expired(&self, entry: &Entry, event: Nanos) -> bool {
        event.saturating_sub(entry.updated) > nanos(self.max * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Nanos = 1_000_000_000;

    fn ten_to_300() -> Backoff {
        Backoff::new(Duration::from_secs(10), Duration::from_secs(300))
    }

    #[test]
    fn waits_double_from_10_to_300_seconds() {
        let mut b = ten_to_300();
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..8 {
            b.next("k", now, now);
            let wait = b.wait_since("k", now, now).unwrap();
            waits.push(wait.as_secs());
            now += nanos(wait);
            assert!(
                b.wait_since("k", now - nanos(wait), now).is_none(),
                "over when it is over"
            );
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn ten_minutes_of_running_forget_it() {
        let mut b = ten_to_300();
        b.next("k", 0, 0);
        b.next("k", 10 * S, 10 * S);
        assert_eq!(b.wait_since("k", 20 * S, 20 * S).unwrap().as_secs(), 20);
        let later = 20 * S + 601 * S;
        assert!(b.wait_since("k", later, later).is_none());
        b.next("k", later, later);
        assert_eq!(b.wait_since("k", later, later).unwrap().as_secs(), 10);
    }
}
