//! Which pods go first when there are too many.

use crate::meta::annotation;
use crate::pod::{is_ready, max_restarts, node_name, phase, ready_since};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// `count` of `pods`: those that cost least to lose, by upstream's order. `related` are the pods of relatives, which tell how
/// crowded a node is.
pub(super) fn choose(pods: &[Arc<Pod>], related: &[Arc<Pod>], count: usize) -> Vec<Arc<Pod>> {
    let mut pods = pods.to_vec();
    if count < pods.len() {
        let mut crowd: HashMap<&str, usize> = HashMap::new();
        for pod in related {
            *crowd.entry(node_name(pod)).or_default() += 1;
        }
        let now = Timestamp::now();
        pods.sort_by(|a, b| first_to_go(a, b, &crowd, now));
    }
    pods.truncate(count);
    pods
}

fn first_to_go(a: &Pod, b: &Pod, crowd: &HashMap<&str, usize>, now: Timestamp) -> Ordering {
    let rank = |pod: &Pod| {
        let crowded = Reverse(crowd.get(node_name(pod)).copied().unwrap_or(0));
        (
            !node_name(pod).is_empty(),
            phase_rank(pod),
            is_ready(pod),
            deletion_cost(pod),
            crowded,
        )
    };
    rank(a)
        .cmp(&rank(b))
        .then_with(|| by_age(ready_since(a), ready_since(b), now))
        .then_with(|| max_restarts(b).cmp(&max_restarts(a)))
        .then_with(|| {
            by_age(
                a.metadata.creation_timestamp.as_ref(),
                b.metadata.creation_timestamp.as_ref(),
                now,
            )
        })
        .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
}

fn phase_rank(pod: &Pod) -> u8 {
    match phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        "Running" => 2,
        _ => 0,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    annotation(&pod.metadata, DELETION_COST)
        .and_then(|cost| cost.parse().ok())
        .unwrap_or(0)
}

/// The younger goes first, but ages that are alike (the same power of two in seconds) are not told apart: otherwise the
/// victims would always be those of the latest scale-up.
fn by_age(a: Option<&Time>, b: Option<&Time>, now: Timestamp) -> Ordering {
    let bucket = |time: &Time| {
        let age = now.as_second() - time.0.as_second();
        if age <= 0 { -1 } else { i64::from(age.ilog2()) }
    };
    match (a, b) {
        (Some(a), Some(b)) => bucket(a).cmp(&bucket(b)),
        // No time yet counts as the youngest.
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, change: serde_json::Value) -> Arc<Pod> {
        let mut value = json!({"metadata": {"name": name, "uid": name, "creationTimestamp": "2024-01-01T00:00:00Z"}, "spec": {"nodeName": "n", "containers": []},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z"}]}});
        for (path, new) in change.as_object().unwrap() {
            *value.pointer_mut(path).unwrap() = new.clone();
        }
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn order(pods: Vec<Arc<Pod>>) -> Vec<String> {
        let crowd = [("n".to_owned(), 1)];
        let crowd = crowd.iter().map(|(n, c)| (n.as_str(), *c)).collect();
        let mut pods = pods;
        pods.sort_by(|a, b| first_to_go(a, b, &crowd, Timestamp::now()));
        pods.iter().map(|p| p.metadata.name.clone().unwrap()).collect()
    }

    #[test]
    fn the_least_useful_pods_go_first() {
        let costly = Arc::new(Pod {
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                annotations: Some([(DELETION_COST.to_owned(), "-5".to_owned())].into()),
                ..pod("cheap", json!({})).metadata.clone()
            },
            ..(*pod("cheap", json!({}))).clone()
        });
        let pods = vec![
            pod("keeper", json!({})),
            costly,
            pod("unready", json!({"/status/conditions/0/status": "False"})),
            pod("pending", json!({"/status/phase": "Pending"})),
            pod("unassigned", json!({"/spec/nodeName": ""})),
        ];
        assert_eq!(
            order(pods),
            ["unassigned", "pending", "unready", "cheap", "keeper"]
        );
    }

    #[test]
    fn nodes_with_more_relatives_lose_first() {
        let (a, b) = (
            pod("a", json!({"/spec/nodeName": "crowded"})),
            pod("b", json!({})),
        );
        let related = vec![a.clone(), a.clone(), b.clone()];
        assert_eq!(
            choose(&[b, a.clone()], &related, 1)[0].metadata.name,
            a.metadata.name
        );
    }
}
