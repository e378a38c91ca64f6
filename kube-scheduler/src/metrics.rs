//! Metrics with upstream's names.

use std::sync::LazyLock;

use component_base::metrics::{Counter, Gauge, Histogram, counter, exponential_buckets, gauge, histogram};

pub const SCHEDULED: &str = "scheduled";
pub const UNSCHEDULABLE: &str = "unschedulable";
pub const ERROR: &str = "error";

pub static SCHEDULE_ATTEMPTS: LazyLock<Counter> = LazyLock::new(|| {
    counter(
        "scheduler_schedule_attempts_total",
        "[STABLE] Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, while 'error' means an internal scheduler problem.",
        &["profile", "result"],
    )
});

pub static ATTEMPT_DURATION: LazyLock<Histogram> = LazyLock::new(|| {
    histogram(
        "scheduler_scheduling_attempt_duration_seconds",
        "[STABLE] Scheduling attempt latency in seconds (scheduling algorithm + binding)",
        &["profile", "result"],
        &exponential_buckets(0.001, 2.0, 15),
    )
});

pub static ALGORITHM_DURATION: LazyLock<Histogram> = LazyLock::new(|| {
    histogram(
        "scheduler_scheduling_algorithm_duration_seconds",
        "[ALPHA] Scheduling algorithm latency in seconds",
        &[],
        // Finer than upstream's, which begin at 1 ms: a decision here takes microseconds.
        &exponential_buckets(0.000_01, 2.0, 21),
    )
});

pub static SLI_DURATION: LazyLock<Histogram> = LazyLock::new(|| {
    histogram(
        "scheduler_pod_scheduling_sli_duration_seconds",
        "[BETA] E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might involve multiple scheduling attempts.",
        &["attempts"],
        &exponential_buckets(0.01, 2.0, 20),
    )
});

pub static SCHEDULING_ATTEMPTS: LazyLock<Histogram> = LazyLock::new(|| {
    histogram(
        "scheduler_pod_scheduling_attempts",
        "[STABLE] Number of attempts to successfully schedule a pod.",
        &[],
        &exponential_buckets(1.0, 2.0, 5),
    )
});

pub static PREEMPTION_ATTEMPTS: LazyLock<Counter> = LazyLock::new(|| {
    counter(
        "scheduler_preemption_attempts_total",
        "[STABLE] Total preemption attempts in the cluster till now",
        &[],
    )
});

pub static PREEMPTION_VICTIMS: LazyLock<Histogram> = LazyLock::new(|| {
    histogram(
        "scheduler_preemption_victims",
        "[STABLE] Number of selected preemption victims",
        &[],
        &exponential_buckets(1.0, 2.0, 7),
    )
});

pub static PENDING_PODS: LazyLock<Gauge> = LazyLock::new(|| {
    gauge(
        "scheduler_pending_pods",
        "[STABLE] Number of pending pods, by the queue type. 'active' means number of pods in activeQ; 'backoff' means number of pods in backoffQ; 'unschedulable' means number of pods in unschedulablePods that the scheduler attempted to schedule and failed; 'gated' is the number of unschedulable pods that the scheduler never attempted to schedule because they are gated.",
        &["queue"],
    )
});

pub static UNSCHEDULABLE_PODS: LazyLock<Gauge> = LazyLock::new(|| {
    gauge(
        "scheduler_unschedulable_pods",
        "[ALPHA] The number of unschedulable pods broken down by plugin name. A pod will increment the gauge for all plugins that caused it to not schedule and so this metric have meaning only when broken down by plugin.",
        &["plugin", "profile"],
    )
});

pub static QUEUE_INCOMING_PODS: LazyLock<Counter> = LazyLock::new(|| {
    counter(
        "scheduler_queue_incoming_pods_total",
        "[STABLE] Number of pods added to scheduling queues by event and queue type.",
        &["queue", "event"],
    )
});

pub static CACHE_SIZE: LazyLock<Gauge> = LazyLock::new(|| {
    gauge(
        "scheduler_cache_size",
        "[ALPHA] Number of nodes, pods, and assumed (bound) pods in the scheduler cache.",
        &["type"],
    )
});

pub static GOROUTINES: LazyLock<Gauge> = LazyLock::new(|| {
    gauge(
        "scheduler_goroutines",
        "[ALPHA] Number of running goroutines split by the work they do such as binding.",
        &["operation"],
    )
});

/// The label of [`SLI_DURATION`]: attempts up to 14, then one bucket.
pub fn attempts_label(attempts: u32) -> String {
    if attempts >= 15 {
        "15+".to_owned()
    } else {
        attempts.to_string()
    }
}
