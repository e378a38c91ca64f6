//! One pod on each node that should have one: what is missing and what is too much. No IO.

use super::eligibility::{target_node, verdict};
use super::{spec, surges};
use crate::controllers::controller_revision::REVISION_HASH;
use crate::meta::{is_deleted, label, name};
use crate::pod::{is_available, is_ready, is_terminal, node_name};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// The pods of one DaemonSet by the node they are on or meant for.
pub type ByNode = BTreeMap<String, Vec<Arc<Pod>>>;

#[derive(Default)]
pub struct Plan {
    /// Names of nodes.
    pub create: Vec<String>,
    pub delete: Vec<Arc<Pod>>,
    /// To be deleted so that they are replaced; those that failed, not too often.
    pub finished: Vec<Arc<Pod>>,
}

/// A pod that is finished and deleted will not hold up its successor.
pub fn by_node(pods: impl IntoIterator<Item = Arc<Pod>>) -> ByNode {
    let mut found = ByNode::new();
    for pod in pods {
        let gone = is_deleted(&pod.metadata) && is_terminal(&pod);
        if let Some(node) = target_node(&pod).filter(|_| !gone) {
            found.entry(node.to_owned()).or_default().push(pod);
        }
    }
    found
}

pub fn plan(set: &DaemonSet, nodes: &[Arc<Node>], pods: &ByNode, hash: &str) -> Plan {
    let mut plan = Plan::default();
    for node in nodes {
        let here = pods.get(name(&node.metadata));
        let verdict = verdict(&spec(set).template, node);
        match here {
            None if verdict.should_run => plan.create.push(name(&node.metadata).to_owned()),
            None => {}
            Some(here) if verdict.may_stay => keep_one(set, here, hash, &mut plan),
            Some(here) => plan
                .delete
                .extend(here.iter().filter(|p| !is_deleted(&p.metadata)).cloned()),
        }
    }
    let known: HashSet<_> = nodes.iter().map(|n| name(&n.metadata)).collect();
    let homeless = pods
        .iter()
        .filter(|(node, _)| !known.contains(node.as_str()))
        .flat_map(|(_, pods)| pods);
    plan.delete
        .extend(homeless.filter(|p| node_name(p).is_empty()).cloned());
    plan
}

fn keep_one(set: &DaemonSet, here: &[Arc<Pod>], hash: &str, plan: &mut Plan) {
    let alive = here.iter().filter(|p| !is_deleted(&p.metadata));
    let (finished, mut running): (Vec<_>, Vec<_>) = alive.cloned().partition(|p| is_terminal(p));
    plan.finished.extend(finished);
    if running.len() <= 1 {
        return;
    }
    // Bound ones first, then the oldest.
    running.sort_by_key(|p| {
        (
            node_name(p).is_empty(),
            p.metadata.creation_timestamp.as_ref().map(|t| t.0),
            p.metadata.name.clone(),
        )
    });
    match surges(set) {
        false => plan.delete.extend(running.drain(1..)),
        true => plan.delete.extend(surplus(set, running, hash)),
    }
}

/// Of a surge the oldest new and the oldest old pod stay, the old one until the new one is available.
fn surplus(set: &DaemonSet, running: Vec<Arc<Pod>>, hash: &str) -> Vec<Arc<Pod>> {
    let (mut new, mut old) = (None, None);
    let mut surplus = Vec::new();
    for pod in running {
        let place = if label(&pod.metadata, REVISION_HASH) == Some(hash) {
            &mut new
        } else {
            &mut old
        };
        match place {
            None => *place = Some(pod),
            Some(_) => surplus.push(pod),
        }
    }
    if let (Some(new), Some(old)) = (new, old)
        && (!is_ready(&old) || is_available(&new, spec(set).min_ready_seconds.unwrap_or(0)))
    {
        surplus.push(old);
    }
    surplus
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, node: &str, phase: &str) -> Arc<Pod> {
        let value = json!({"metadata": {"name": name}, "spec": {"containers": [], "nodeName": node}, "status": {"phase": phase}});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn node(name: &str) -> Arc<Node> {
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name}})).unwrap())
    }

    fn set() -> DaemonSet {
        serde_json::from_value(json!({"metadata": {"name": "ds"}, "spec": {"selector": {}, "template": {"spec": {"containers": []}}}})).unwrap()
    }

    #[test]
    fn empty_nodes_get_a_pod_and_a_second_one_goes() {
        let pods = by_node([
            pod("a", "n1", "Running"),
            pod("b", "n1", "Running"),
            pod("c", "n2", "Failed"),
        ]);
        let plan = plan(&set(), &[node("n1"), node("n2"), node("n3")], &pods, "h");
        assert_eq!(plan.create, ["n3"]);
        assert_eq!(
            plan.delete.iter().map(|p| name(&p.metadata)).collect::<Vec<_>>(),
            ["b"]
        );
        assert_eq!(
            plan.finished
                .iter()
                .map(|p| name(&p.metadata))
                .collect::<Vec<_>>(),
            ["c"]
        );
    }
}
