//! The taints that follow from a node's conditions. No IO.

use super::health::ready_status;
use crate::meta::now;
use k8s_openapi::api::core::v1::{Node, Taint};

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Condition, its value, and the taint that it brings.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    (
        "NetworkUnavailable",
        "True",
        "node.kubernetes.io/network-unavailable",
    ),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// What to do about taints that evict.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Evict {
    /// As readiness asks.
    AsReady,
    /// Leave them as they are, but change unreachable to not-ready and back.
    Keep,
    /// None: when all nodes are silent, it is we who are cut off.
    No,
}

fn taints(node: &Node) -> &[Taint] {
    node.spec
        .as_ref()
        .and_then(|s| s.taints.as_deref())
        .unwrap_or_default()
}

fn is_evicting(taint: &Taint) -> bool {
    taint.effect == "NoExecute" && (taint.key == NOT_READY || taint.key == UNREACHABLE)
}

pub(super) fn has_no_execute(node: &Node) -> bool {
    taints(node).iter().any(is_evicting)
}

/// Not ready, and nothing evicts its pods yet.
pub(super) fn lacks_no_execute(node: &Node) -> bool {
    evicting_key(node).is_some() && !has_no_execute(node)
}

fn evicting_key(node: &Node) -> Option<&'static str> {
    match ready_status(node) {
        Some("False") => Some(NOT_READY),
        Some("Unknown") => Some(UNREACHABLE),
        _ => None,
    }
}

fn is_ours(taint: &Taint) -> bool {
    let by_condition =
        taint.effect == "NoSchedule" && BY_CONDITION.iter().any(|(_, _, key)| *key == taint.key);
    by_condition || (taint.effect == "NoSchedule" && taint.key == UNSCHEDULABLE) || is_evicting(taint)
}

/// All taints the node should have, or `None` when it has them.
pub(super) fn wanted(node: &Node, evict: Evict) -> Option<Vec<Taint>> {
    let current = taints(node);
    let mut wanted: Vec<_> = current.iter().filter(|t| !is_ours(t)).cloned().collect();
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let from_conditions = conditions
        .filter_map(|c| {
            BY_CONDITION
                .iter()
                .find(|(type_, status, _)| *type_ == c.type_ && *status == c.status)
        })
        .map(|(_, _, key)| *key);
    let unschedulable = node
        .spec
        .as_ref()
        .is_some_and(|s| s.unschedulable == Some(true))
        .then_some(UNSCHEDULABLE);
    for key in from_conditions.chain(unschedulable) {
        wanted.push(existing_or_new(current, key, "NoSchedule"));
    }
    let evicts = match evict {
        Evict::AsReady => true,
        Evict::Keep => has_no_execute(node),
        Evict::No => false,
    };
    if let Some(key) = evicting_key(node).filter(|_| evicts) {
        wanted.push(existing_or_new(current, key, "NoExecute"));
    }
    let same = wanted.len() == current.len() && wanted.iter().all(|t| current.contains(t));
    (!same).then_some(wanted)
}

fn existing_or_new(current: &[Taint], key: &str, effect: &str) -> Taint {
    let existing = current
        .iter()
        .find(|t| t.key == key && t.effect == effect)
        .cloned();
    existing.unwrap_or_else(|| Taint {
        key: key.into(),
        effect: effect.into(),
        value: None,
        time_added: Some(now()),
    })
}

/// What of a node is worth waking for.
pub(super) fn relevant(node: &Node) -> impl PartialEq {
    let conditions: Vec<_> = node
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten())
        .map(|c| (c.type_.clone(), c.status.clone()))
        .collect();
    let spec = node.spec.as_ref().map(|s| (s.taints.clone(), s.unschedulable));
    (
        conditions,
        spec,
        node.metadata.labels.clone(),
        node.metadata.uid.clone(),
    )
}
