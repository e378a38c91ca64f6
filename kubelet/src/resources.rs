//! Requests and limits: reading quantities, summing a pod, quality-of-service class, and the cgroup figures made from them.

use std::collections::BTreeMap;

use apimachinery::quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod::{PodExt, is_restartable_init};

pub type ResourceList = BTreeMap<String, Quantity>;

pub const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const SHARES_PER_CPU: i64 = 1024;
/// `cpuCFSQuotaPeriod` in microseconds.
pub const QUOTA_PERIOD_US: i64 = 100_000;
const MIN_QUOTA_US: i64 = 1000;

const CRITICAL_OOM_SCORE: i64 = -997;
const BEST_EFFORT_OOM_SCORE: i64 = 1000;

/// Whole units, rounded up.
pub fn value(quantity: &Quantity) -> i64 {
    quantity::Quantity::parse(&quantity.0)
        .map(|q| q.value())
        .unwrap_or(0)
}

/// Thousandths, rounded up.
pub fn milli(quantity: &Quantity) -> i64 {
    quantity::Quantity::parse(&quantity.0)
        .map(|q| q.milli_value())
        .unwrap_or(0)
}

fn amount(name: &str, quantity: &Quantity) -> i64 {
    if name == "cpu" {
        milli(quantity)
    } else {
        value(quantity)
    }
}

pub fn request(container: &Container, name: &str) -> Option<i64> {
    container
        .resources
        .as_ref()?
        .requests
        .as_ref()?
        .get(name)
        .map(|q| amount(name, q))
}

pub fn limit(container: &Container, name: &str) -> Option<i64> {
    container
        .resources
        .as_ref()?
        .limits
        .as_ref()?
        .get(name)
        .map(|q| amount(name, q))
}

/// CPU in thousandths, everything else in units.
pub type Amounts = BTreeMap<String, i64>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Requests,
    Limits,
}

fn of(requirements: Option<&ResourceRequirements>, which: Which) -> Option<&ResourceList> {
    let requirements = requirements?;
    match which {
        Which::Requests => requirements.requests.as_ref(),
        Which::Limits => requirements.limits.as_ref(),
    }
}

fn amounts(requirements: Option<&ResourceRequirements>, which: Which) -> Amounts {
    of(requirements, which)
        .into_iter()
        .flatten()
        .map(|(k, q)| (k.clone(), amount(k, q)))
        .collect()
}

fn add(into: &mut Amounts, more: &Amounts) {
    for (name, n) in more {
        *into.entry(name.clone()).or_default() += n;
    }
}

fn max(into: &mut Amounts, other: &Amounts) {
    for (name, n) in other {
        let entry = into.entry(name.clone()).or_default();
        *entry = (*entry).max(*n);
    }
}

/// What a pod needs: its main containers and sidecars together, or the hungriest moment of initialization, plus overhead.
pub fn pod_amounts(pod: &Pod, which: Which) -> Amounts {
    let spec = pod.spec();
    let mut total = Amounts::new();
    for container in &spec.containers {
        add(&mut total, &amounts(container.resources.as_ref(), which));
    }
    let mut sidecars = Amounts::new();
    let mut peak = Amounts::new();
    for container in pod.init_containers() {
        let own = amounts(container.resources.as_ref(), which);
        if is_restartable_init(container) {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            max(&mut peak, &sidecars);
        } else {
            let mut moment = sidecars.clone();
            add(&mut moment, &own);
            max(&mut peak, &moment);
        }
    }
    max(&mut total, &peak);
    total.extend(amounts(spec.resources.as_ref(), which));
    for (name, quantity) in spec.overhead.iter().flatten() {
        if which == Which::Requests || total.contains_key(name) {
            *total.entry(name.clone()).or_default() += amount(name, quantity);
        }
    }
    total
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QosClass {
    BestEffort,
    Burstable,
    Guaranteed,
}

impl QosClass {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BestEffort => "BestEffort",
            Self::Burstable => "Burstable",
            Self::Guaranteed => "Guaranteed",
        }
    }
}

/// Once the API server has recorded a class it does not change; before that it follows from cpu and memory alone.
pub fn qos_class(pod: &Pod) -> QosClass {
    match pod.status.as_ref().and_then(|s| s.qos_class.as_deref()) {
        Some("Guaranteed") => QosClass::Guaranteed,
        Some("Burstable") => QosClass::Burstable,
        Some("BestEffort") => QosClass::BestEffort,
        _ => compute_qos_class(pod),
    }
}

const QOS_RESOURCES: [&str; 2] = ["cpu", "memory"];

fn compute_qos_class(pod: &Pod) -> QosClass {
    if let Some(own) = pod.spec().resources.as_ref() {
        return class_of(&[Some(own)]);
    }
    let containers = pod.spec().containers.iter().chain(pod.init_containers());
    class_of(&containers.map(|c| c.resources.as_ref()).collect::<Vec<_>>())
}

fn class_of(all: &[Option<&ResourceRequirements>]) -> QosClass {
    let positive = |r: Option<&ResourceRequirements>, which, name| {
        of(r, which)
            .and_then(|l| l.get(name))
            .map(milli)
            .filter(|n| *n > 0)
    };
    let mut any = false;
    let mut guaranteed = true;
    for requirements in all {
        for name in QOS_RESOURCES {
            let limit = positive(*requirements, Which::Limits, name);
            let request = positive(*requirements, Which::Requests, name);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|r| Some(r) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

pub fn cpu_shares(milli_cpu: i64) -> i64 {
    if milli_cpu == 0 {
        return MIN_SHARES;
    }
    (milli_cpu * SHARES_PER_CPU / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// Zero is "no limit".
pub fn cpu_quota(milli_cpu: i64, period_us: i64) -> i64 {
    if milli_cpu == 0 {
        return 0;
    }
    (milli_cpu * period_us / 1000).max(MIN_QUOTA_US)
}

/// The kernel kills the highest score first: best-effort, then what uses more than it asked for.
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    if pod.is_critical() {
        return CRITICAL_OOM_SCORE;
    }
    match qos_class(pod) {
        QosClass::Guaranteed => return CRITICAL_OOM_SCORE,
        QosClass::BestEffort => return BEST_EFFORT_OOM_SCORE,
        QosClass::Burstable => {}
    }
    let request = request(container, "memory")
        .or_else(|| limit(container, "memory"))
        .unwrap_or(0);
    let score = 1000 - (1000 * request) / memory_capacity.max(1);
    let is_sidecar = pod
        .init_containers()
        .iter()
        .any(|c| c.name == container.name && is_restartable_init(c));
    let score = if is_sidecar {
        let lowest = pod.spec().containers.iter().map(|c| {
            let request = self::request(c, "memory").unwrap_or(0);
            1000 - (1000 * request) / memory_capacity.max(1)
        });
        lowest.min().map_or(score, |m| m.min(score))
    } else {
        score
    };
    // Guaranteed pods lie below 3; one above best effort would make a burstable pod equal to it.
    if score < 1000 + CRITICAL_OOM_SCORE {
        return 1000 + CRITICAL_OOM_SCORE;
    }
    if score == BEST_EFFORT_OOM_SCORE {
        score - 1
    } else {
        score
    }
}

/// Whole-number quantity.
pub fn quantity(n: i64) -> Quantity {
    Quantity(n.to_string())
}

pub fn milli_quantity(n: i64) -> Quantity {
    if n % 1000 == 0 {
        Quantity((n / 1000).to_string())
    } else {
        Quantity(format!("{n}m"))
    }
}

/// Bytes in `Ki`, the form in which nodes report memory.
pub fn kib_quantity(bytes: i64) -> Quantity {
    if bytes % 1024 == 0 {
        Quantity(format!("{}Ki", bytes / 1024))
    } else {
        quantity(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(containers: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": containers}}))
            .unwrap()
    }

    #[test]
    fn classes_follow_requests_and_limits_of_cpu_and_memory() {
        assert_eq!(qos_class(&pod(json!([{"name": "a"}]))), QosClass::BestEffort);
        let burstable = json!([{"name": "a", "resources": {"requests": {"cpu": "100m"}}}]);
        assert_eq!(qos_class(&pod(burstable)), QosClass::Burstable);
        let both = json!({"cpu": "1", "memory": "1Gi"});
        let guaranteed = json!([{"name": "a", "resources": {"requests": both, "limits": both}}]);
        assert_eq!(qos_class(&pod(guaranteed)), QosClass::Guaranteed);
        let limits_only = json!([{"name": "a", "resources": {"limits": both}}]);
        assert_eq!(qos_class(&pod(limits_only)), QosClass::Guaranteed);
        let other = json!([{"name": "a", "resources": {"requests": {"ephemeral-storage": "1Gi"}}}]);
        assert_eq!(qos_class(&pod(other)), QosClass::BestEffort);
    }

    #[test]
    fn shares_and_quota_have_the_kernels_floors() {
        assert_eq!(cpu_shares(0), 2);
        assert_eq!(cpu_shares(1), 2);
        assert_eq!(cpu_shares(250), 256);
        assert_eq!(cpu_quota(0, QUOTA_PERIOD_US), 0);
        assert_eq!(cpu_quota(5, QUOTA_PERIOD_US), 1000);
        assert_eq!(cpu_quota(500, QUOTA_PERIOD_US), 50_000);
    }

    #[test]
    fn a_burstable_score_lies_between_guaranteed_and_best_effort() {
        let p = pod(json!([{"name": "a", "resources": {"requests": {"memory": "1000"}}}]));
        assert_eq!(oom_score_adj(&p, &p.spec().containers[0], 10_000), 900);
        assert_eq!(oom_score_adj(&p, &p.spec().containers[0], 1_000), 3);
        assert_eq!(oom_score_adj(&p, &p.spec().containers[0], 100_000_000), 999);
    }

    #[test]
    fn a_pod_needs_the_larger_of_running_and_initializing() {
        let p: Pod = serde_json::from_value(json!({"spec": {
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "2"}}},
                               {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}}],
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1", "memory": "1Mi"}}}]}}))
        .unwrap();
        let amounts = pod_amounts(&p, Which::Requests);
        assert_eq!((amounts["cpu"], amounts["memory"]), (2000, 1 << 20));
    }
}
