//! /healthz and /livez on 10256: 200 while what changed has been committed in good time (as upstream, from the start).
//!
//! /healthz also fails when this node is being deleted, so that load balancers drain it; /livez does not.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use component_base::http::{Body, json};
use hyper::{Response, StatusCode};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;

/// A change that is not in the kernel after this long makes the proxy unhealthy (twice upstream's sync period).
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone, Default)]
pub struct ProxyHealth(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The oldest change that is not in the kernel.
    pending_since: Option<SystemTime>,
    synced_at: Option<SystemTime>,
    node_is_leaving: bool,
}

impl ProxyHealth {
    pub fn queued(&self) {
        self.0.lock().pending_since.get_or_insert_with(SystemTime::now);
    }

    pub fn updated(&self) {
        let mut state = self.0.lock();
        state.pending_since = None;
        state.synced_at = Some(SystemTime::now());
    }

    pub fn set_node_is_leaving(&self, leaving: bool) {
        self.0.lock().node_is_leaving = leaving;
    }

    pub fn is_live(&self) -> bool {
        self.0.lock().is_live(SystemTime::now())
    }

    /// Answers for /healthz and /livez.
    pub fn respond(&self, path: &str) -> Option<Response<Body>> {
        let state = self.0.lock();
        let now = SystemTime::now();
        let healthy = match path {
            "/livez" => state.is_live(now),
            "/healthz" => state.is_live(now) && !state.node_is_leaving,
            _ => return None,
        };
        let last_updated = if healthy { Some(now) } else { state.synced_at };
        let body = json!({
            "lastUpdated": last_updated.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), format_time),
            "currentTime": format_time(now),
            "nodeEligible": !state.node_is_leaving,
        });
        Some(json(
            if healthy {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            },
            &body,
        ))
    }
}

impl State {
    fn is_live(&self, now: SystemTime) -> bool {
        let late = self
            .pending_since
            .and_then(|since| now.duration_since(since).ok())
            .is_some_and(|age| age > TIMEOUT);
        !late
    }
}

fn format_time(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| String::new(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn healthy_from_the_start_but_not_ready_for_load_balancers_when_the_node_leaves() {
        let health = ProxyHealth::default();
        let code = |path| health.respond(path).unwrap().status().as_u16();
        assert_eq!((code("/healthz"), code("/livez")), (200, 200));
        health.set_node_is_leaving(true);
        assert_eq!((code("/healthz"), code("/livez")), (503, 200));
    }

    #[test]
    fn a_change_that_waits_too_long_is_unhealthy() {
        let state = State {
            pending_since: Some(SystemTime::UNIX_EPOCH),
            synced_at: Some(SystemTime::UNIX_EPOCH),
            node_is_leaving: false,
        };
        assert!(state.is_live(SystemTime::UNIX_EPOCH + TIMEOUT));
        assert!(!state.is_live(SystemTime::UNIX_EPOCH + TIMEOUT + Duration::from_secs(1)));
    }
}
