//! `etcd_server_client_requests_total`: requests by the version that clients say they have. And the streams of clients that failed.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use component_base::metrics::{self, Counter, CounterValue};
use http::header::{HeaderMap, HeaderValue};
use parking_lot::Mutex;

use super::STREAM_FAILURES;
use crate::rpc::status::{Code, Status};

const VERSION: &str = "client-api-version";
/// Clients may say what they like: versions beyond so many are unknown ones.
const MAX_VERSIONS: usize = 32;
const MAX_VERSION_BYTES: usize = 32;
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
    let version = version.to_str().ok().filter(|version| is_counted(version));
    REQUESTS.with(&[kind, version.unwrap_or("unknown")])
}

fn is_counted(version: &str) -> bool {
    static COUNTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut counted = COUNTED.lock();
    if counted.len() < MAX_VERSIONS && version.len() <= MAX_VERSION_BYTES {
        counted.insert(version.to_owned());
    }
    counted.contains(version)
}

/// A request of a stream could not be read. A client that goes is no failure.
pub fn stream_failed(api: &str, status: &Status) {
    if status.code != Code::Cancelled {
        STREAM_FAILURES.with(&["receive", api]).inc();
    }
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;

    use super::*;

    fn count_version(version: &str, is_stream: bool) {
        let version = HeaderValue::from_str(version).unwrap();
        let headers = [(HeaderName::from_static(VERSION), version)];
        count(&HeaderMap::from_iter(headers), is_stream);
    }

    #[test]
    fn versions_are_counted_each_for_itself_and_not_without_end() {
        for (version, is_stream) in [("3.5", false), ("3.6", false), ("3.5", false), ("3.5", true)] {
            count_version(version, is_stream);
        }
        count(&HeaderMap::new(), false);
        let counted = |kind, version| REQUESTS.with(&[kind, version]).get();
        assert_eq!(counted("unary", "3.5"), 2.0);
        assert_eq!(counted("unary", "3.6"), 1.0);
        assert_eq!(counted("stream", "3.5"), 1.0);
        assert_eq!(counted("unary", "unknown"), 1.0);
        count_version(&"9".repeat(MAX_VERSION_BYTES + 1), false);
        (0..MAX_VERSIONS).for_each(|number| count_version(&format!("9.{number}"), false));
        // Of 32 new ones three have no room beside those of before.
        assert_eq!(counted("unary", "9.0"), 1.0);
        assert_eq!(counted("unary", "unknown"), 5.0);
    }
}
