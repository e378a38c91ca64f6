//! `rest_client_*`, by upstream's names and buckets.

use component_base::metrics::{Counter, Histogram, counter, histogram};
use http::{Method, StatusCode};
use std::sync::LazyLock;
use std::time::Duration;

static REQUESTS: LazyLock<Counter> = LazyLock::new(|| {
    counter(
        "rest_client_requests_total",
        "[STABLE] Number of HTTP requests, partitioned by status code, method, and host.",
        &["code", "host", "method"],
    )
});

const LATENCY_BUCKETS: &[f64] = &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];

static LATENCY: LazyLock<Histogram> = LazyLock::new(|| {
    histogram(
        "rest_client_request_duration_seconds",
        "[ALPHA] Request latency in seconds. Broken down by verb, and host.",
        &["host", "verb"],
        LATENCY_BUCKETS,
    )
});

pub(crate) fn request(method: &Method, host: &str, status: Option<StatusCode>, took: Duration) {
    let code = status.as_ref().map_or("<error>", StatusCode::as_str);
    REQUESTS.with(&[code, host, method.as_str()]).inc();
    LATENCY.with(&[host, method.as_str()]).observe(took.as_secs_f64());
}
