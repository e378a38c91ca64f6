//! `--max-requests-inflight` and `--max-mutating-requests-inflight`: over the limit the answer is 429, not a queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use component_base::metrics;

#[derive(Clone)]
pub struct InFlight {
    read_only: Arc<Limit>,
    mutating: Arc<Limit>,
}

struct Limit {
    /// 0 = no limit.
    max: usize,
    now: AtomicUsize,
}

/// One request's place; free again when dropped.
pub struct Place(Arc<Limit>);

impl InFlight {
    pub fn new(max_read_only: usize, max_mutating: usize) -> Self {
        let limit = |max| {
            Arc::new(Limit {
                max,
                now: AtomicUsize::new(0),
            })
        };
        InFlight {
            read_only: limit(max_read_only),
            mutating: limit(max_mutating),
        }
    }

    /// Shows both counts as `apiserver_current_inflight_requests`.
    pub fn export(&self) {
        let (read_only, mutating) = (self.read_only.clone(), self.mutating.clone());
        metrics::collector("apiserver_current_inflight_requests", move |out| {
            const NAME: &str = "apiserver_current_inflight_requests";
            metrics::write_head(
                out,
                NAME,
                "[STABLE] Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
                "gauge",
            );
            for (kind, limit) in [("mutating", &mutating), ("readOnly", &read_only)] {
                metrics::write_sample(
                    out,
                    NAME,
                    &["request_kind"],
                    &[kind],
                    limit.now.load(Ordering::Relaxed) as f64,
                );
            }
        });
    }

    pub fn enter(&self, read_only: bool) -> Option<Place> {
        let limit = if read_only {
            &self.read_only
        } else {
            &self.mutating
        };
        let before = limit.now.fetch_add(1, Ordering::Relaxed);
        let place = Place(limit.clone());
        (limit.max == 0 || before < limit.max).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_request_ends() {
        let limits = InFlight::new(2, 1);
        let first = limits.enter(true);
        let second = limits.enter(true);
        assert!(second.is_some() && limits.enter(true).is_none());
        assert!(limits.enter(false).is_some(), "writes have their own limit");
        drop(first);
        assert!(limits.enter(true).is_some());
    }

    #[test]
    fn zero_means_no_limit() {
        let limits = InFlight::new(0, 0);
        let held: Vec<_> = (0..1000).map(|_| limits.enter(false)).collect();
        assert!(held.iter().all(Option::is_some));
    }
}
