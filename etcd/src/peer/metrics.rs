//! `etcd_network_*`, with etcd's names and labels.

use std::sync::LazyLock;

use component_base::metrics::{self, Counter, Gauge, Histogram};

macro_rules! family {
    ($name:ident, $kind:ident, $make:ident, $metric:literal, $help:literal, $labels:expr) => {
        pub static $name: LazyLock<$kind> = LazyLock::new(|| metrics::$make($metric, $help, $labels));
    };
}

family!(
    ACTIVE_PEERS,
    Gauge,
    gauge,
    "etcd_network_active_peers",
    "The current number of active peer connections.",
    &["Local", "Remote"]
);
family!(
    DISCONNECTED_PEERS,
    Counter,
    counter,
    "etcd_network_disconnected_peers_total",
    "The total number of disconnected peers.",
    &["Local", "Remote"]
);
family!(
    SENT_BYTES,
    Counter,
    counter,
    "etcd_network_peer_sent_bytes_total",
    "The total number of bytes sent to peers.",
    &["To"]
);
family!(
    RECEIVED_BYTES,
    Counter,
    counter,
    "etcd_network_peer_received_bytes_total",
    "The total number of bytes received from peers.",
    &["From"]
);
family!(
    SENT_FAILURES,
    Counter,
    counter,
    "etcd_network_peer_sent_failures_total",
    "The total number of send failures from peers.",
    &["To"]
);
family!(
    RECEIVED_FAILURES,
    Counter,
    counter,
    "etcd_network_peer_received_failures_total",
    "The total number of receive failures from peers.",
    &["From"]
);
family!(
    SNAPSHOT_SENT,
    Counter,
    counter,
    "etcd_network_snapshot_send_success",
    "Total number of successful snapshot sends",
    &["To"]
);
family!(
    SNAPSHOT_SENDING,
    Gauge,
    gauge,
    "etcd_network_snapshot_send_inflights_total",
    "Total number of inflight snapshot sends",
    &["To"]
);
family!(
    SNAPSHOT_SEND_FAILURES,
    Counter,
    counter,
    "etcd_network_snapshot_send_failures",
    "Total number of snapshot send failures",
    &["To"]
);
family!(
    SNAPSHOT_RECEIVED,
    Counter,
    counter,
    "etcd_network_snapshot_receive_success",
    "Total number of successful snapshot receives",
    &["From"]
);
family!(
    SNAPSHOT_RECEIVING,
    Gauge,
    gauge,
    "etcd_network_snapshot_receive_inflights_total",
    "Total number of inflight snapshot receives",
    &["From"]
);
family!(
    SNAPSHOT_RECEIVE_FAILURES,
    Counter,
    counter,
    "etcd_network_snapshot_receive_failures",
    "Total number of snapshot receive failures",
    &["From"]
);

pub static SNAPSHOT_SEND_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    metrics::histogram(
        "etcd_network_snapshot_send_total_duration_seconds",
        "Total latency distributions of v3 snapshot sends",
        &["To"],
        &metrics::exponential_buckets(0.1, 2.0, 10),
    )
});
pub static SNAPSHOT_RECEIVE_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    metrics::histogram(
        "etcd_network_snapshot_receive_total_duration_seconds",
        "Total latency distributions of v3 snapshot receives",
        &["From"],
        &metrics::exponential_buckets(0.1, 2.0, 10),
    )
});
pub static ROUND_TRIP_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    metrics::histogram(
        "etcd_network_peer_round_trip_time_seconds",
        "Round-Trip-Time histogram between peers",
        &["To"],
        &metrics::exponential_buckets(0.0001, 2.0, 16),
    )
});
