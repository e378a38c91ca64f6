//! When a failed call may be sent again: upstream's retry interceptor.

use std::time::Duration;

use tonic::{Code, Status};

/// Upstream's `defaultUnaryMaxRetries`.
pub const MAX_ATTEMPTS: usize = 100;
/// Upstream's `defaultBackoffWaitBetween`, after each round over a quorum of the endpoints.
const BACKOFF: Duration = Duration::from_millis(25);
const NOT_SUPPORTED_FOR_LEARNER: &str = "etcdserver: rpc not supported for learner";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Repeating it changes nothing.
    Repeatable,
    /// Only when it certainly was not taken.
    NonRepeatable,
}

pub fn backoff(attempt: usize, endpoints: usize) -> Duration {
    let quorum = endpoints / 2 + 1;
    if attempt > 0 && attempt.is_multiple_of(quorum) {
        BACKOFF
    } else {
        Duration::ZERO
    }
}

pub fn is_context(status: &Status) -> bool {
    matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled)
}

pub fn is_safe(policy: Policy, status: &Status, endpoints: usize) -> bool {
    if endpoints > 1 && status.message() == NOT_SUPPORTED_FOR_LEARNER {
        return true;
    }
    match policy {
        Policy::Repeatable => status.code() == Code::Unavailable,
        // It may have been done. What was never taken is sent again before it comes here.
        Policy::NonRepeatable => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_safe_is_repeated() {
        let unavailable = Status::unavailable("etcdserver: leader changed");
        assert!(is_safe(Policy::Repeatable, &unavailable, 1));
        assert!(!is_safe(Policy::NonRepeatable, &unavailable, 1));
        assert!(!is_safe(Policy::Repeatable, &Status::not_found("x"), 3));
        let learner = Status::failed_precondition(NOT_SUPPORTED_FOR_LEARNER);
        assert!(is_safe(Policy::NonRepeatable, &learner, 2) && !is_safe(Policy::NonRepeatable, &learner, 1));
    }

    #[test]
    fn it_waits_once_a_quorum_was_asked() {
        let waits = |endpoints| {
            (0..5)
                .map(|n| backoff(n, endpoints).is_zero())
                .collect::<Vec<_>>()
        };
        assert_eq!(waits(1), [true, false, false, false, false]);
        assert_eq!(waits(3), [true, true, false, true, false]);
    }
}
