//! Series that are counted where something happens.

use std::sync::{Arc, LazyLock};

use component_base::metrics::{
    self, Counter, CounterValue, Gauge, GaugeValue, HistogramValue, exponential_buckets,
};

use super::single;

/// A row: the kind, the name here, etcd's name and help; of a histogram also the first bound and how many there are, each twice the one before.
macro_rules! series {
    ($($kind:ident $name:ident $metric:literal $help:literal $(($first:literal, $count:literal))?;)*) => {
        $(pub static $name: LazyLock<Arc<value!($kind)>> =
            LazyLock::new(|| make!($kind $metric, $help $(, $first, $count)?));)*

        pub(super) fn show() {
            $(LazyLock::force(&$name);)*
            LazyLock::force(&SCRAPES);
        }
    };
}

macro_rules! value {
    (counter) => {
        CounterValue
    };
    (gauge) => {
        GaugeValue
    };
    (histogram) => {
        HistogramValue
    };
}

macro_rules! make {
    (counter $metric:literal, $help:literal) => {
        single($metric, $help)
    };
    (gauge $metric:literal, $help:literal) => {
        metrics::gauge($metric, $help, &[]).with(&[])
    };
    (histogram $metric:literal, $help:literal, $first:literal, $count:literal) => {
        metrics::histogram($metric, $help, &[], &exponential_buckets($first, 2.0, $count)).with(&[])
    };
}

series! {
    counter RANGES "etcd_mvcc_range_total" "Total number of ranges seen by this member.";
    counter PUTS "etcd_mvcc_put_total" "Total number of puts seen by this member.";
    counter DELETES "etcd_mvcc_delete_total" "Total number of deletes seen by this member.";
    counter TXNS "etcd_mvcc_txn_total" "Total number of txns seen by this member.";
    gauge PUT_BYTES "etcd_debugging_mvcc_total_put_size_in_bytes"
        "The total size of put kv pairs seen by this member.";
    histogram HASH "etcd_mvcc_hash_duration_seconds"
        "The latency distribution of storage hash operation." (0.01, 15);
    histogram HASH_BY_REVISION "etcd_mvcc_hash_rev_duration_seconds"
        "The latency distribution of storage hash by revision operation." (0.01, 15);

    counter EVENTS "etcd_debugging_mvcc_events_total" "Total number of events sent by this member.";
    gauge WATCH_STREAMS "etcd_debugging_mvcc_watch_stream_total" "Total number of watch streams.";

    counter COMPACTED "etcd_debugging_mvcc_db_compaction_keys_total" "Total number of db keys compacted.";
    gauge LAST_COMPACTION "etcd_debugging_mvcc_db_compaction_last"
        "The unix time of the last db compaction. Resets to 0 on start.";
    histogram COMPACTION_MS "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds"
        "Bucketed histogram of db compaction total duration." (100.0, 14);
    histogram INDEX_PAUSE_MS "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds"
        "Bucketed histogram of index compaction pause duration." (0.5, 14);

    counter LEASES_GRANTED "etcd_debugging_lease_granted_total" "The total number of granted leases.";
    counter LEASES_REVOKED "etcd_debugging_lease_revoked_total" "The total number of revoked leases.";
    counter LEASES_RENEWED "etcd_debugging_lease_renewed_total"
        "The number of renewed leases seen by the leader.";
    counter LEASES_EXPIRED "etcd_debugging_server_lease_expired_total" "The total number of expired leases.";
    histogram LEASE_TTL "etcd_debugging_lease_ttl_total" "Bucketed histogram of lease TTLs." (1.0, 24);

    histogram WAL_FSYNC "etcd_disk_wal_fsync_duration_seconds"
        "The latency distributions of fsync called by WAL." (0.001, 14);
    histogram WAL_WRITE "etcd_disk_wal_write_duration_seconds"
        "The latency distributions of write called by WAL." (0.001, 14);
    gauge WAL_BYTES "etcd_disk_wal_write_bytes_total" "Total number of bytes written in WAL.";
    histogram BACKEND_COMMIT "etcd_disk_backend_commit_duration_seconds"
        "The latency distributions of commit called by backend." (0.001, 14);
    histogram DEFRAG "etcd_disk_backend_defrag_duration_seconds"
        "The latency distribution of backend defragmentation." (0.1, 13);
    gauge DEFRAGGING "etcd_disk_defrag_inflight"
        "Whether or not defrag is active on the member. 1 means active, 0 means not.";
    histogram BACKEND_SNAPSHOT "etcd_disk_backend_snapshot_duration_seconds"
        "The latency distribution of backend snapshots." (0.01, 17);
    histogram SNAPSHOT_SAVE "etcd_snap_db_save_total_duration_seconds"
        "The total latency distributions of v3 snapshot save" (0.1, 10);

    counter SLOW_APPLY "etcd_server_slow_apply_total"
        "The total number of slow apply requests (likely overloaded from slow disk).";
    counter SLOW_READ_INDEXES "etcd_server_slow_read_indexes_total"
        "The total number of pending read indexes not in sync with leader's or timed out read index requests.";
    counter FAILED_READ_INDEXES "etcd_server_read_indexes_failed_total"
        "The total number of failed read indexes seen.";
    gauge SCRAPING "promhttp_metric_handler_requests_in_flight" "Current number of scrapes being served.";
    gauge INSTALLING "etcd_server_snapshot_apply_in_progress_total"
        "1 if the server is applying the incoming snapshot. 0 if none.";
    counter PROMOTED "etcd_server_learner_promote_successes"
        "The total number of successful learner promotions while this member is leader.";
    counter HEALTH_SUCCESS "etcd_server_health_success" "The total number of successful health checks";
    counter HEALTH_FAILURES "etcd_server_health_failures" "The total number of failed health checks";

    counter RECEIVED_BYTES "etcd_network_client_grpc_received_bytes_total"
        "The total number of bytes received from grpc clients.";
    counter SENT_BYTES "etcd_network_client_grpc_sent_bytes_total"
        "The total number of bytes sent to grpc clients.";
}

pub static PROMOTE_FAILURES: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "etcd_server_learner_promote_failures",
        "The total number of failed learner promotions (likely learner not ready) while this member is leader.",
        &["Reason"],
    )
});
/// There is no other outcome here.
pub static SCRAPES: LazyLock<Arc<CounterValue>> = LazyLock::new(|| {
    let by_code = metrics::counter(
        "promhttp_metric_handler_requests_total",
        "Total number of scrapes by HTTP status code.",
        &["code"],
    );
    by_code.with(&["200"])
});
pub static STREAM_FAILURES: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "etcd_network_server_stream_failures_total",
        "The total number of stream failures from the local server.",
        &["Type", "API"],
    )
});
pub(super) static FEATURES: LazyLock<Gauge> = LazyLock::new(|| {
    metrics::gauge(
        "etcd_server_feature_enabled",
        "Whether or not a feature is enabled. 1 is enabled, 0 is not.",
        &["name", "stage"],
    )
});
