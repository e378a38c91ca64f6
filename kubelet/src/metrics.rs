//! The kubelet's metrics, under upstream's names.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use component_base::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use cri::remote::Observer;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use crate::pod::PodExt;
use crate::probes::attempt::Attempt;

const SECONDS: &[f64] = &[
    0.005,
    0.0125,
    0.03125,
    0.078125,
    0.1953125,
    0.48828125,
    1.220703125,
    3.0517578125,
    7.62939453125,
    19.073486328125,
    47.6837158203125,
];
const DEFAULT: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const POD_START: &[f64] = &[
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0,
    480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];

macro_rules! family {
    ($($name:ident: $kind:ident = $make:expr;)*) => {
        $(pub static $name: LazyLock<$kind> = LazyLock::new(|| $make);)*
        /// Every family is there from the first scrape.
        pub fn register() {
            $(LazyLock::force(&$name);)*
        }
    };
}

family! {
    NODE_NAME: Gauge = gauge("kubelet_node_name", "The node's name. The count is always 1.", &["node"]);
    RUNNING_PODS: Gauge = gauge("kubelet_running_pods", "Number of pods that have a running pod sandbox", &[]);
    RUNNING_CONTAINERS: Gauge = gauge("kubelet_running_containers", "Number of containers currently running", &["container_state"]);
    PLEG_RELIST_DURATION: Histogram = histogram("kubelet_pleg_relist_duration_seconds", "Duration in seconds for relisting pods in PLEG.", &[], DEFAULT);
    PLEG_RELIST_INTERVAL: Histogram = histogram("kubelet_pleg_relist_interval_seconds", "Interval in seconds between relisting in PLEG.", &[], DEFAULT);
    PLEG_LAST_SEEN: Gauge = gauge("kubelet_pleg_last_seen_seconds", "Timestamp in seconds when PLEG was last seen active.", &[]);
    POD_WORKER_DURATION: Histogram = histogram("kubelet_pod_worker_duration_seconds", "Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync", &["operation_type"], DEFAULT);
    POD_START_DURATION: Histogram = histogram("kubelet_pod_start_duration_seconds", "Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run", &[], POD_START);
    POD_STATUS_SYNC_DURATION: Histogram = histogram("kubelet_pod_status_sync_duration_seconds", "Duration in seconds to sync a pod status update.", &[], DEFAULT);
    STARTED_PODS: Counter = counter("kubelet_started_pods_total", "Cumulative number of pods started", &[]);
    STARTED_PODS_ERRORS: Counter = counter("kubelet_started_pods_errors_total", "Cumulative number of errors when starting pods", &[]);
    STARTED_CONTAINERS: Counter = counter("kubelet_started_containers_total", "Cumulative number of containers started", &["container_type"]);
    STARTED_CONTAINERS_ERRORS: Counter = counter("kubelet_started_containers_errors_total", "Cumulative number of errors when starting containers", &["container_type", "code"]);
    RUNTIME_OPERATIONS: Counter = counter("kubelet_runtime_operations_total", "Cumulative number of runtime operations by operation type.", &["operation_type"]);
    RUNTIME_OPERATIONS_ERRORS: Counter = counter("kubelet_runtime_operations_errors_total", "Cumulative number of runtime operation errors by operation type.", &["operation_type"]);
    RUNTIME_OPERATIONS_DURATION: Histogram = histogram("kubelet_runtime_operations_duration_seconds", "Duration in seconds of runtime operations. Broken down by operation type.", &["operation_type"], SECONDS);
    CGROUP_DURATION: Histogram = histogram("kubelet_cgroup_manager_duration_seconds", "Duration in seconds for cgroup manager operations. Broken down by method.", &["operation_type"], DEFAULT);
    VOLUMES: Gauge = gauge("volume_manager_total_volumes", "Number of volumes in Volume Manager", &["plugin_name", "state"]);
    STORAGE_DURATION: Histogram = histogram("storage_operation_duration_seconds", "Storage operation duration", &["volume_plugin", "operation_name", "status", "migrated"], &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0]);
    EVICTIONS: Counter = counter("kubelet_evictions", "Cumulative number of pod evictions by eviction signal", &["eviction_signal"]);
    NODE_CONFIG_ERROR: Gauge = gauge("kubelet_node_config_error", "This metric is true (1) if the node is experiencing a configuration-related error, false (0) otherwise.", &[]);
    CLIENT_CERT_TTL: Gauge = gauge("kubelet_certificate_manager_client_ttl_seconds", "Gauge of the TTL (time-to-live) of the Kubelet's client certificate.", &[]);
    SERVER_CERT_TTL: Gauge = gauge("kubelet_certificate_manager_server_ttl_seconds", "Gauge of the shortest TTL (time-to-live) of the Kubelet's serving certificate.", &[]);
    CLIENT_RENEW_ERRORS: Counter = counter("kubelet_certificate_manager_client_expiration_renew_errors", "Counter of certificate renewal errors.", &[]);
    SERVER_RENEW_ERRORS: Counter = counter("kubelet_server_expiration_renew_errors", "Counter of certificate renewal errors.", &[]);
    PROBES: Counter = counter("prober_probe_total", "Cumulative number of a liveness, readiness or startup probe for a container by result.", &["probe_type", "result", "container", "pod", "namespace", "pod_uid"]);
}

pub fn probe_result(kind: &str, outcome: &Attempt, pod: &Pod, container: &str) {
    let result = match outcome {
        Attempt::Success => "successful",
        Attempt::Failure(_) => "failed",
        Attempt::Errored(_) => "unknown",
    };
    PROBES
        .with(&[
            kind,
            result,
            container,
            pod.name(),
            pod.namespace(),
            pod.uid().as_str(),
        ])
        .inc();
}

/// Counts the runtime's calls and knows which are under way.
#[derive(Default)]
pub struct RuntimeObserver {
    next: AtomicU64,
}

static CALLS: LazyLock<Mutex<HashMap<u64, (&'static str, Instant)>>> = LazyLock::new(Mutex::default);

impl Observer for RuntimeObserver {
    fn begin(&self, call: &'static str) -> u64 {
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        CALLS.lock().insert(token, (call, Instant::now()));
        token
    }

    fn end(&self, token: u64, call: &'static str, took: Duration, error: Option<&cri::Error>) {
        CALLS.lock().remove(&token);
        RUNTIME_OPERATIONS.with(&[call]).inc();
        RUNTIME_OPERATIONS_DURATION
            .with(&[call])
            .observe(took.as_secs_f64());
        if error.is_some() {
            RUNTIME_OPERATIONS_ERRORS.with(&[call]).inc();
        }
    }
}

/// The call that has waited longest, if any is under way.
pub fn longest_runtime_call() -> Option<(&'static str, Duration)> {
    let calls = CALLS.lock();
    let (call, since) = calls.values().min_by_key(|(_, since)| *since)?;
    Some((call, since.elapsed()))
}
