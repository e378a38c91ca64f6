//! The names that etcd's mixin and everybody's dashboards know.

use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};

use component_base::metrics::{self, Counter};
use component_base::version::ETCD_VERSION;

use crate::server::EtcdServer;

pub static SLOW_APPLY: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "etcd_server_slow_apply_total",
        "The total number of slow apply requests (likely overloaded from slow disk).",
        &[],
    )
});
pub static RECEIVED_BYTES: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "etcd_network_client_grpc_received_bytes_total",
        "The total number of bytes received from grpc clients.",
        &[],
    )
});
pub static SENT_BYTES: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "etcd_network_client_grpc_sent_bytes_total",
        "The total number of bytes sent to grpc clients.",
        &[],
    )
});
pub static BACKEND_COMMIT: LazyLock<metrics::Histogram> = LazyLock::new(|| {
    metrics::histogram(
        "etcd_disk_backend_commit_duration_seconds",
        "The latency distributions of commit called by backend.",
        &[],
        &metrics::exponential_buckets(0.001, 2.0, 14),
    )
});

pub static HEALTH_SUCCESS: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "etcd_server_health_success",
        "The total number of successful health checks",
        &[],
    )
});
pub static HEALTH_FAILURES: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "etcd_server_health_failures",
        "The total number of failed health checks",
        &[],
    )
});

/// Everything whose value is kept elsewhere is asked for at each scrape. What was not counted yet is shown as zero: a
/// rule over a series that is absent stays silent.
pub fn register(server: &Arc<EtcdServer>) {
    let counters = [
        &SLOW_APPLY,
        &RECEIVED_BYTES,
        &SENT_BYTES,
        &HEALTH_SUCCESS,
        &HEALTH_FAILURES,
    ];
    for counter in counters {
        counter.with(&[]);
    }
    BACKEND_COMMIT.with(&[]);
    crate::rpc::serve::count_from_zero();
    let gauge = |name, help, value: fn(&EtcdServer) -> f64| {
        let server = server.clone();
        metrics::gauge_fn(name, help, move || value(&server));
    };
    let counter = |name, help, value: fn(&EtcdServer) -> f64| {
        let server = server.clone();
        metrics::counter_fn(name, help, move || value(&server));
    };
    gauge(
        "etcd_server_has_leader",
        "Whether or not a leader exists. 1 is existence, 0 is not.",
        |server| f64::from(u8::from(server.leader() != 0)),
    );
    gauge(
        "etcd_server_is_leader",
        "Whether or not this member is a leader. 1 if is, 0 otherwise.",
        |server| f64::from(u8::from(server.raft.is_leader.load(Ordering::Relaxed))),
    );
    gauge(
        "etcd_server_is_learner",
        "Whether or not this member is a learner. 1 if is, 0 otherwise.",
        |server| f64::from(u8::from(server.is_learner())),
    );
    counter(
        "etcd_server_leader_changes_seen_total",
        "The number of leader changes seen.",
        |server| number(&server.raft.leader_changes),
    );
    gauge(
        "etcd_server_proposals_committed_total",
        "The total number of consensus proposals committed.",
        |server| number(&server.raft.committed),
    );
    gauge(
        "etcd_server_proposals_applied_total",
        "The total number of consensus proposals applied.",
        |server| number(&server.raft.applied),
    );
    gauge(
        "etcd_server_proposals_pending",
        "The current number of pending proposals to commit.",
        |server| server.state.waits.len() as f64,
    );
    counter(
        "etcd_server_proposals_failed_total",
        "The total number of failed proposals seen.",
        |server| number(&server.raft.proposals_failed),
    );
    counter(
        "etcd_server_heartbeat_send_failures_total",
        "The total number of leader heartbeat send failures (likely overloaded from slow disk).",
        |server| number(&server.raft.heartbeat_failures),
    );
    gauge(
        "etcd_server_quota_backend_bytes",
        "Current backend storage quota size in bytes.",
        |server| server.limits.quota_bytes as f64,
    );
    gauge(
        "etcd_mvcc_db_total_size_in_bytes",
        "Total size of the underlying database physically allocated in bytes.",
        |server| server.store().storage.total_bytes() as f64,
    );
    gauge(
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Total size of the underlying database logically in use in bytes.",
        |server| server.store().storage.live_bytes() as f64,
    );
    gauge(
        "etcd_debugging_mvcc_keys_total",
        "Total number of keys.",
        |server| server.store().keys() as f64,
    );
    gauge(
        "etcd_debugging_mvcc_current_revision",
        "The current revision of store.",
        |server| server.store().current() as f64,
    );
    gauge(
        "etcd_debugging_mvcc_compact_revision",
        "The revision of the last compaction in store.",
        |server| server.store().compacted() as f64,
    );
    gauge(
        "etcd_debugging_mvcc_watcher_total",
        "Total number of watchers.",
        |server| server.hub.watchers() as f64,
    );
    gauge(
        "etcd_debugging_mvcc_slow_watcher_total",
        "How often a watcher did not keep up and had to read history.",
        |server| server.hub.slow_watchers() as f64,
    );
    gauge(
        "etcd_debugging_auth_revision",
        "The current revision of auth store.",
        |server| server.state.auth.revision() as f64,
    );
    gauge("etcd_debugging_lease_total", "Leases that exist.", |server| {
        server.state.lessor.lock().len() as f64
    });
    version(server);
}

fn number(value: &std::sync::atomic::AtomicU64) -> f64 {
    value.load(Ordering::Relaxed) as f64
}

fn version(server: &Arc<EtcdServer>) {
    metrics::gauge(
        "etcd_server_version",
        "Which version is running. 1 for 'server_version' label with current version.",
        &["server_version"],
    )
    .with(&[ETCD_VERSION])
    .set(1.0);
    cluster_version(server);
    metrics::gauge(
        "etcd_server_id",
        "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.",
        &["server_id"],
    )
    .with(&[&format!("{:x}", server.member)])
    .set(1.0);
}

/// Upgrades and downgrades change it while this member serves.
fn cluster_version(server: &Arc<EtcdServer>) {
    const NAME: &str = "etcd_cluster_version";
    let server = server.clone();
    metrics::collector(NAME, move |out| {
        let cluster = server.state.membership.read().version.clone();
        let Some((minor, _)) = cluster.rsplit_once('.') else {
            return;
        };
        let help = "Which version is running. 1 for 'cluster_version' label with current cluster version";
        metrics::write_head(out, NAME, help, "gauge");
        metrics::write_sample(out, NAME, &["cluster_version"], &[minor], 1.0);
    });
}
