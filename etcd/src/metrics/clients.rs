//! `etcd_server_client_requests_total`: requests by the version that clients say they have. And the streams of clients that failed.

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};

use component_base::metrics::{self, Counter, CounterValue};
use http::header::{HeaderMap, HeaderValue};

use super::STREAM_FAILURES;
use crate::rpc::status::{Code, Status};

const VERSION: &str = "client-api-version";
static UNKNOWN: HeaderValue = HeaderValue::from_static("unknown");

static REQUESTS: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "etcd_server_client_requests_total",
        "The total number of client requests per client version.",
        &["type", "client_api_version"],
    )
});

type Last = (HeaderValue, Arc<CounterValue>);

thread_local! {
    /// The version that was counted last, of unary requests and of streams: clients are mostly of one kind.
    static LAST: RefCell<[Option<Last>; 2]> = const { RefCell::new([None, None]) };
}

pub fn count(headers: &HeaderMap, is_stream: bool) {
    let version = headers.get(VERSION).unwrap_or(&UNKNOWN);
    LAST.with_borrow_mut(|last| {
        let last = &mut last[usize::from(is_stream)];
        match last {
            Some((known, series)) if known == version => series.inc(),
            _ => {
                let series = series(version, is_stream);
                series.inc();
                // What is kept must not keep a request's buffer alive.
                *last = HeaderValue::from_bytes(version.as_bytes())
                    .ok()
                    .map(|version| (version, series));
            }
        }
    });
}

fn series(version: &HeaderValue, is_stream: bool) -> Arc<CounterValue> {
    let kind = if is_stream { "stream" } else { "unary" };
    REQUESTS.with(&[kind, version.to_str().unwrap_or("unknown")])
}

/// A request of a stream could not be read. A client that goes is no failure.
pub fn stream_failed(api: &str, status: &Status) {
    if status.code != Code::Cancelled {
        STREAM_FAILURES.with(&["receive", api]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_and_kind_is_counted_for_itself() {
        let headers = |version: &'static str| {
            HeaderMap::from_iter([(
                http::header::HeaderName::from_static(VERSION),
                HeaderValue::from_static(version),
            )])
        };
        for (version, is_stream) in [("3.5", false), ("3.6", false), ("3.5", false), ("3.5", true)] {
            count(&headers(version), is_stream);
        }
        count(&HeaderMap::new(), false);
        let counted = |kind, version| REQUESTS.with(&[kind, version]).get();
        assert_eq!(counted("unary", "3.5"), 2.0);
        assert_eq!(counted("unary", "3.6"), 1.0);
        assert_eq!(counted("stream", "3.5"), 1.0);
        assert_eq!(counted("unary", "unknown"), 1.0);
    }
}
