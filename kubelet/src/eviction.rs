//! Keeps the node alive: when memory or disk falls below its hard threshold, the pressure is reported and the pod that uses most beyond what it
//! asked for is stopped. One pod at a time: the next look tells whether it was enough.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use parking_lot::RwLock;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::kubelet::Kubelet;
use crate::metrics;
use crate::node::conditions::Health;
use crate::node::machine;
use crate::pod::{PodExt, is_terminal_phase};
use crate::pod_workers::StatusOverride;
use crate::resources::{QosClass, Which, pod_amounts, qos_class};
use crate::server::stats::node_working_set;
use crate::sync_loop::Event;

const PERIOD: Duration = Duration::from_secs(10);
/// A pressure that has just gone is believed gone only after this: otherwise a node flaps.
const TRANSITION: Duration = Duration::from_secs(300);
/// A pod is given no time: the node has none.
const GRACE_SECONDS: i64 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    Memory,
    Disk,
}

impl Signal {
    fn resource(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "ephemeral-storage",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory.available",
            Self::Disk => "nodefs.available",
        }
    }
}

pub struct Eviction {
    pub kubelet: Arc<Kubelet>,
    pub thresholds: BTreeMap<String, String>,
    pub health: Arc<RwLock<Health>>,
    pub changed: Arc<Notify>,
    pub tx: mpsc::UnboundedSender<Event>,
}

#[derive(Default)]
struct Held {
    memory: Option<Instant>,
    disk: Option<Instant>,
}

impl Eviction {
    pub async fn run(self) {
        let mut held = Held::default();
        loop {
            tokio::time::sleep(PERIOD).await;
            let short = self.shortages();
            self.report(&short, &mut held);
            if let Some((signal, available, threshold)) = short.first() {
                self.relieve(*signal, *available, *threshold).await;
            }
        }
    }

    /// Signal, available, threshold.
    fn shortages(&self) -> Vec<(Signal, i64, i64)> {
        let mut short = Vec::new();
        let total = machine::memory_total();
        let available = total - node_working_set(&self.kubelet);
        self.check(Signal::Memory, available, total, &mut short);
        if let Ok(s) = rustix::fs::statvfs(&self.kubelet.manager.settings.root_dir) {
            let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(s.f_frsize)).unwrap_or(i64::MAX);
            self.check(Signal::Disk, bytes(s.f_bavail), bytes(s.f_blocks), &mut short);
        }
        short
    }

    fn check(&self, signal: Signal, available: i64, total: i64, short: &mut Vec<(Signal, i64, i64)>) {
        let threshold = self
            .thresholds
            .get(signal.name())
            .and_then(|t| machine::threshold(t, total));
        if let Some(threshold) = threshold.filter(|t| available < *t) {
            short.push((signal, available, threshold));
        }
    }

    fn report(&self, short: &[(Signal, i64, i64)], held: &mut Held) {
        let now = Instant::now();
        let mut is_under = |signal: Signal| {
            let since = if signal == Signal::Memory {
                &mut held.memory
            } else {
                &mut held.disk
            };
            if short.iter().any(|(s, ..)| *s == signal) {
                *since = Some(now);
            }
            since.is_some_and(|at| now.duration_since(at) < TRANSITION)
        };
        let (memory, disk) = (is_under(Signal::Memory), is_under(Signal::Disk));
        let mut health = self.health.write();
        if (health.memory_pressure, health.disk_pressure) != (memory, disk) {
            (health.memory_pressure, health.disk_pressure) = (memory, disk);
            self.changed.notify_one();
        }
    }

    async fn relieve(&self, signal: Signal, available: i64, threshold: i64) {
        let (tx, rx) = oneshot::channel();
        if self.tx.send(Event::Pods(tx)).is_err() {
            return;
        }
        let pods = rx.await.unwrap_or_default();
        let usage = |pod: &Pod| match signal {
            Signal::Memory => self
                .kubelet
                .cgroups
                .hierarchy()
                .working_set(&self.kubelet.cgroups.pod_path(pod))
                .unwrap_or(0),
            Signal::Disk => 0,
        };
        let Some(victim) = choose(&pods, signal.resource(), &usage) else {
            return;
        };
        let name = signal.resource();
        let message = format!(
            "The node was low on resource: {name}. Threshold quantity: {threshold}, available: {available}. "
        );
        tracing::warn!(pod = %victim.key(), signal = signal.name(), available, threshold, "Evicting pod");
        metrics::EVICTIONS.with(&[signal.name()]).inc();
        self.kubelet
            .recorder
            .pod(&victim, crate::events::Severity::Warning, "Evicted", &message);
        let status = StatusOverride {
            reason: "Evicted".into(),
            message,
        };
        // The loop ends only with the process.
        let _ = self.tx.send(Event::Evict {
            uid: victim.uid(),
            status,
            grace: Some(GRACE_SECONDS),
        });
    }
}

/// Who uses more than asked goes first, then the lower priority, then the larger excess. Critical pods never.
fn choose(pods: &[Arc<Pod>], resource: &str, usage: &dyn Fn(&Pod) -> i64) -> Option<Arc<Pod>> {
    let rank = |pod: &Arc<Pod>| {
        let excess = usage(pod)
            - pod_amounts(pod, Which::Requests)
                .get(resource)
                .copied()
                .unwrap_or(0);
        let priority = pod.spec().priority.unwrap_or(0);
        (
            excess <= 0,
            priority,
            qos_class(pod) == QosClass::Guaranteed,
            std::cmp::Reverse(excess),
        )
    };
    let may_go = |p: &&Arc<Pod>| !p.is_critical() && !is_terminal_phase(p.phase()) && !p.is_deleting();
    pods.iter().filter(may_go).min_by_key(|p| rank(p)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, request: &str, priority: i32) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(
                json!({"metadata": {"name": name, "uid": name}, "spec": {"priority": priority,
            "containers": [{"name": "a", "resources": {"requests": {"memory": request}}}]}}),
            )
            .unwrap(),
        )
    }

    #[test]
    fn whoever_uses_most_beyond_its_request_goes_first() {
        let pods = [
            pod("within", "100", 0),
            pod("over", "10", 0),
            pod("far-over", "1", 0),
            pod("over-and-vital", "1", 10),
            pod("critical", "0", 2_000_000_000),
        ];
        let usage = |p: &Pod| if p.name() == "far-over" { 90 } else { 50 };
        assert_eq!(choose(&pods, "memory", &usage).unwrap().name(), "far-over");
        assert_eq!(choose(&pods[..2], "memory", &usage).unwrap().name(), "over");
        assert!(choose(&pods[4..], "memory", &usage).is_none());
    }
}
