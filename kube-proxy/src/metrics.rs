//! Upstream's metric names and buckets (`pkg/proxy/metrics`).

use std::sync::LazyLock;

use component_base::metrics::{
    Counter, Gauge, Histogram, counter, exponential_buckets, gauge, histogram, linear_buckets,
};

pub static SYNC_DURATION: LazyLock<Histogram> = LazyLock::new(|| {
    histogram(
        "kubeproxy_sync_proxy_rules_duration_seconds",
        "SyncProxyRules latency in seconds",
        &["ip_family"],
        &exponential_buckets(0.001, 2.0, 15),
    )
});
pub static PROGRAMMING_DURATION: LazyLock<Histogram> = LazyLock::new(|| {
    let mut buckets = vec![0.25, 0.5];
    buckets.extend(linear_buckets(1.0, 1.0, 59));
    buckets.extend(linear_buckets(60.0, 5.0, 12));
    buckets.extend(linear_buckets(120.0, 30.0, 7));
    histogram(
        "kubeproxy_network_programming_duration_seconds",
        "In Cluster Network Programming Latency in seconds",
        &["ip_family"],
        &buckets,
    )
});
pub static LAST_SYNC: LazyLock<Gauge> = LazyLock::new(|| {
    gauge(
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
        "The last time proxy rules were successfully synced",
        &["ip_family"],
    )
});
pub static LAST_QUEUED: LazyLock<Gauge> = LazyLock::new(|| {
    gauge(
        "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
        "The last time a sync of proxy rules was queued",
        &["ip_family"],
    )
});
pub static ENDPOINT_CHANGES: LazyLock<Counter> = LazyLock::new(|| {
    counter(
        "kubeproxy_sync_proxy_rules_endpoint_changes_total",
        "Cumulative proxy rules Endpoint changes",
        &["ip_family"],
    )
});
pub static SERVICE_CHANGES: LazyLock<Counter> = LazyLock::new(|| {
    counter(
        "kubeproxy_sync_proxy_rules_service_changes_total",
        "Cumulative proxy rules Service changes",
        &["ip_family"],
    )
});
pub static SYNC_FAILURES: LazyLock<Counter> = LazyLock::new(|| {
    counter(
        "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
        "Cumulative proxy nftables sync failures",
        &["ip_family"],
    )
});
pub static STALE_FLOWS: LazyLock<Counter> = LazyLock::new(|| {
    counter(
        "kubeproxy_conntrack_reconciler_deleted_entries_total",
        "Cumulative conntrack flows deleted by the reconciler",
        &["ip_family"],
    )
});
