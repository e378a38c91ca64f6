//! The next step of a rolling update: which old pods go, and which nodes get a second pod. No IO.

use super::eligibility::verdict;
use super::manage::ByNode;
use super::{rolling, spec};
use crate::controllers::controller_revision::REVISION_HASH;
use crate::meta::{annotation, is_deleted, label, name};
use crate::pod::is_available;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::sync::Arc;

/// From before revisions: still honoured, because pods may carry it.
pub const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
pub const POD_TEMPLATE_GENERATION: &str = "pod-template-generation";

#[derive(Default)]
pub struct Step {
    pub create: Vec<String>,
    pub delete: Vec<Arc<Pod>>,
}

pub fn is_updated(set: &DaemonSet, pod: &Pod, hash: &str) -> bool {
    let generation = annotation(&set.metadata, TEMPLATE_GENERATION).filter(|g| g.parse::<i64>().is_ok());
    let same_generation = generation.is_some() && label(&pod.metadata, POD_TEMPLATE_GENERATION) == generation;
    same_generation || (!hash.is_empty() && label(&pod.metadata, REVISION_HASH) == Some(hash))
}

/// Percentages round up here, unlike for Deployments.
pub fn scaled(value: Option<&IntOrString>, default: usize, of: usize) -> usize {
    match value {
        Some(IntOrString::Int(number)) => usize::try_from(*number).unwrap_or(0),
        Some(IntOrString::String(text)) => {
            (text.trim_end_matches('%').parse::<usize>().unwrap_or(0) * of).div_ceil(100)
        }
        None => default,
    }
}

/// The one new and the one old pod of a node that are not on their way out.
struct Pair<'a> {
    new: Option<&'a Arc<Pod>>,
    old: Option<&'a Arc<Pod>>,
}

/// `None` where there are more: first the surplus has to go.
fn pair<'a>(set: &DaemonSet, pods: &'a [Arc<Pod>], hash: &str) -> Option<Pair<'a>> {
    let mut pair = Pair { new: None, old: None };
    for pod in pods.iter().filter(|p| !is_deleted(&p.metadata)) {
        let place = if is_updated(set, pod, hash) {
            &mut pair.new
        } else {
            &mut pair.old
        };
        if place.replace(pod).is_some() {
            return None;
        }
    }
    Some(pair)
}

pub fn step(set: &DaemonSet, nodes: &[Arc<Node>], pods: &ByNode, hash: &str) -> Step {
    let runs_on: Vec<_> = nodes
        .iter()
        .filter(|n| verdict(&spec(set).template, n).should_run)
        .collect();
    let mut pods = pods.clone();
    for node in &runs_on {
        pods.entry(name(&node.metadata).to_owned()).or_default();
    }
    let wanted = runs_on.len();
    let rolling = rolling(set);
    let max_surge = scaled(rolling.max_surge.as_ref(), 0, wanted);
    let max_unavailable = scaled(rolling.max_unavailable.as_ref(), 1, wanted);
    match max_surge {
        // Neither would never move.
        0 => replace(
            set,
            &pods,
            hash,
            if max_unavailable == 0 { 1 } else { max_unavailable },
        ),
        _ => Surge {
            set,
            nodes,
            hash,
            wanted,
            max_surge,
        }
        .step(&pods),
    }
}

/// Old pods that are not available go at once, others as far as enough stay available. Missing pods are made elsewhere.
fn replace(set: &DaemonSet, pods: &ByNode, hash: &str, max_unavailable: usize) -> Step {
    let min_ready = spec(set).min_ready_seconds.unwrap_or(0);
    let mut unavailable = 0;
    let (mut delete, mut candidates) = (Vec::new(), Vec::new());
    for here in pods.values() {
        match pair(set, here, hash) {
            Some(Pair {
                new: Some(new),
                old: None,
            }) => unavailable += usize::from(!is_available(new, min_ready)),
            Some(Pair {
                new: None,
                old: Some(old),
            }) if is_available(old, min_ready) => candidates.push(old.clone()),
            Some(Pair {
                new: None,
                old: Some(old),
            }) => {
                delete.push(old.clone());
                unavailable += 1;
            }
            _ => unavailable += 1,
        }
    }
    candidates.truncate(max_unavailable.saturating_sub(unavailable));
    delete.extend(candidates);
    Step {
        create: Vec::new(),
        delete,
    }
}

struct Surge<'a> {
    set: &'a DaemonSet,
    nodes: &'a [Arc<Node>],
    hash: &'a str,
    wanted: usize,
    max_surge: usize,
}

impl Surge<'_> {
    /// A new pod starts beside an old one, which goes when the new one is available. Where no pod should run any more, the old one
    /// stays until enough others are available.
    fn step(&self, pods: &ByNode) -> Step {
        let min_ready = spec(self.set).min_ready_seconds.unwrap_or(0);
        let (mut surging, mut available) = (0, 0);
        let (mut step, mut candidates, mut leaving) = (Step::default(), Vec::new(), Vec::new());
        for (node, here) in pods {
            let Some(Pair { new, old }) = pair(self.set, here, self.hash) else {
                surging += 1;
                continue;
            };
            available += usize::from(old.or(new).is_some_and(|p| is_available(p, min_ready)));
            let Some(old) = old else { continue };
            match (new, is_available(old, min_ready), self.should_run(node)) {
                (Some(new), _, _) if is_available(new, min_ready) => step.delete.push(old.clone()),
                (Some(_), _, _) => surging += 1,
                (None, false, true) => step.create.push(node.clone()),
                (None, false, false) => step.delete.push(old.clone()),
                (None, true, true) => candidates.push(node.clone()),
                (None, true, false) => leaving.push(old.clone()),
            }
        }
        leaving.truncate(available.saturating_sub(self.wanted));
        candidates.truncate(self.max_surge.saturating_sub(surging));
        step.delete.extend(leaving);
        step.create.extend(candidates);
        step
    }

    fn should_run(&self, node: &str) -> bool {
        self.nodes
            .iter()
            .find(|n| name(&n.metadata) == node)
            .is_some_and(|n| verdict(&spec(self.set).template, n).should_run)
    }
}

#[cfg(test)]
mod tests {
    use super::super::manage::by_node;
    use super::*;
    use serde_json::{Value, json};

    fn set(rolling: Value) -> DaemonSet {
        let value = json!({"metadata": {"name": "ds"}, "spec": {"selector": {}, "template": {"spec": {"containers": []}}, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}});
        serde_json::from_value(value).unwrap()
    }

    fn pod(name: &str, node: &str, hash: &str, ready: bool) -> Arc<Pod> {
        let status = if ready { "True" } else { "False" };
        let value = json!({"metadata": {"name": name, "labels": {"controller-revision-hash": hash}}, "spec": {"containers": [], "nodeName": node},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]}});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn nodes(count: usize) -> Vec<Arc<Node>> {
        (1..=count)
            .map(|n| {
                Arc::new(serde_json::from_value(json!({"metadata": {"name": format!("n{n}")}})).unwrap())
            })
            .collect()
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().map(|p| name(&p.metadata)).collect()
    }

    #[test]
    fn one_at_a_time_and_broken_ones_first() {
        let pods = by_node([
            pod("a", "n1", "old", true),
            pod("b", "n2", "old", true),
            pod("c", "n3", "new", true),
        ]);
        assert_eq!(
            names(&step(&set(json!({"maxUnavailable": 1})), &nodes(3), &pods, "new").delete),
            ["a"]
        );
        let pods = by_node([
            pod("a", "n1", "old", true),
            pod("b", "n2", "old", false),
            pod("c", "n3", "new", true),
        ]);
        assert_eq!(
            names(&step(&set(json!({"maxUnavailable": 1})), &nodes(3), &pods, "new").delete),
            ["b"]
        );
        let pods = by_node([pod("a", "n1", "old", true), pod("c", "n3", "new", false)]);
        assert!(
            step(&set(json!({"maxUnavailable": 1})), &nodes(3), &pods, "new")
                .delete
                .is_empty()
        );
        let pods = by_node([
            pod("a", "n1", "old", true),
            pod("b", "n2", "old", true),
            pod("c", "n3", "old", true),
        ]);
        assert_eq!(
            step(&set(json!({"maxUnavailable": "50%"})), &nodes(3), &pods, "new")
                .delete
                .len(),
            2
        );
    }

    #[test]
    fn a_surge_starts_beside_and_replaces_when_available() {
        let surging = set(json!({"maxSurge": 1, "maxUnavailable": 0}));
        let pods = by_node([pod("a", "n1", "old", true), pod("b", "n2", "old", true)]);
        let first = step(&surging, &nodes(2), &pods, "new");
        assert_eq!((first.create, first.delete.len()), (vec!["n1".to_owned()], 0));
        let pods = by_node([
            pod("a", "n1", "old", true),
            pod("a2", "n1", "new", false),
            pod("b", "n2", "old", true),
        ]);
        let second = step(&surging, &nodes(2), &pods, "new");
        assert_eq!((second.create.len(), second.delete.len()), (0, 0));
        let pods = by_node([
            pod("a", "n1", "old", true),
            pod("a2", "n1", "new", true),
            pod("b", "n2", "old", true),
        ]);
        let third = step(&surging, &nodes(2), &pods, "new");
        assert_eq!(
            (third.create, names(&third.delete)),
            (vec!["n2".to_owned()], vec!["a"])
        );
    }
}
