//! How often the pod of one DaemonSet on one node is replaced after it failed.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15 * 60);

#[derive(Default)]
pub struct Backoff {
    by_place: Mutex<HashMap<(String, String), (Duration, Instant)>>,
}

impl Backoff {
    /// `Err` with the time to wait; `Ok` counts as one more attempt.
    pub fn attempt(&self, set: &str, node: &str) -> Result<(), Duration> {
        let mut by_place = self.by_place.lock();
        let place = (set.to_owned(), node.to_owned());
        let next = match by_place.get(&place) {
            Some((delay, since)) if since.elapsed() < *delay => return Err(*delay - since.elapsed()),
            // It has been well for long.
            Some((_, since)) if since.elapsed() > LONGEST * 2 => FIRST,
            Some((delay, _)) => (*delay * 2).min(LONGEST),
            None => FIRST,
        };
        by_place.insert(place, (next, Instant::now()));
        Ok(())
    }

    pub fn forget(&self, set: &str) {
        self.by_place.lock().retain(|(of, _), _| of != set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_failure_waits() {
        let backoff = Backoff::default();
        assert_eq!(backoff.attempt("ns/ds", "n"), Ok(()));
        assert!(backoff.attempt("ns/ds", "n").is_err_and(|wait| wait <= FIRST));
        assert_eq!(backoff.attempt("ns/ds", "m"), Ok(()));
        backoff.forget("ns/ds");
        assert_eq!(backoff.attempt("ns/ds", "n"), Ok(()));
    }
}
