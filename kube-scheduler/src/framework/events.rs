//! Changes in the cluster, as reasons to try a refused pod again.

use k8s_openapi::api::core::v1::{Node, Pod, Taint};

use crate::pod::PodInfo;
use crate::resources;
use crate::selector::Labels;

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A pod that has (or had) a node.
    AssignedPod,
    /// A pod that waits for one.
    UnscheduledPod,
    Node,
    Namespace,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    Service,
    Workload,
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Self::AssignedPod => "AssignedPod",
            Self::UnscheduledPod => "UnscheduledPod",
            Self::Node => "Node",
            Self::Namespace => "Namespace",
            Self::PersistentVolume => "PersistentVolume",
            Self::PersistentVolumeClaim => "PersistentVolumeClaim",
            Self::StorageClass => "StorageClass",
            Self::Service => "Service",
            Self::Workload => "Workload",
        }
    }
}

/// A set of ways in which something changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Actions(u16);

impl Actions {
    pub const ADD: Self = Self(1);
    pub const DELETE: Self = Self(1 << 1);
    pub const UPDATE: Self = Self(1 << 2);
    pub const NODE_ALLOCATABLE: Self = Self(1 << 3);
    pub const NODE_LABEL: Self = Self(1 << 4);
    pub const NODE_TAINT: Self = Self(1 << 5);
    pub const NODE_CONDITION: Self = Self(1 << 6);
    pub const POD_LABEL: Self = Self(1 << 8);
    pub const POD_SCALE_DOWN: Self = Self(1 << 9);
    pub const POD_GATES_ELIMINATED: Self = Self(1 << 10);
    pub const POD_TOLERATION: Self = Self(1 << 11);

    const NAMES: [(Self, &'static str); 11] = [
        (Self::ADD, "Add"),
        (Self::DELETE, "Delete"),
        (Self::UPDATE, "Update"),
        (Self::NODE_ALLOCATABLE, "UpdateNodeAllocatable"),
        (Self::NODE_LABEL, "UpdateNodeLabel"),
        (Self::NODE_TAINT, "UpdateNodeTaint"),
        (Self::NODE_CONDITION, "UpdateNodeCondition"),
        (Self::POD_LABEL, "UpdatePodLabel"),
        (Self::POD_SCALE_DOWN, "UpdatePodScaleDown"),
        (Self::POD_GATES_ELIMINATED, "UpdatePodSchedulingGatesEliminated"),
        (Self::POD_TOLERATION, "UpdatePodToleration"),
    ];

    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Each single action of the set.
    pub fn each(self) -> impl Iterator<Item = Self> {
        Self::NAMES
            .into_iter()
            .map(|(action, _)| action)
            .filter(move |action| self.meets(*action))
    }

    fn label(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(action, _)| *action == self)
            .map_or("Update", |(_, name)| name)
    }
}

/// The object before and after.
#[derive(Clone, Copy)]
pub enum Change<'a> {
    Pod {
        old: Option<&'a PodInfo>,
        new: Option<&'a PodInfo>,
    },
    Node {
        old: Option<&'a Node>,
        new: Option<&'a Node>,
    },
    Other,
}

/// One change of one kind of object.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    pub kind: Kind,
    /// A single action.
    pub action: Actions,
    pub change: Change<'a>,
}

impl Event<'_> {
    /// As metrics and logs name it.
    pub fn label(&self) -> String {
        format!("{}{}", self.kind.label(), self.action.label())
    }
}

/// Whether a change is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    Skip,
    Queue,
}

impl From<bool> for Hint {
    fn from(queue: bool) -> Self {
        if queue { Self::Queue } else { Self::Skip }
    }
}

/// Which scheduling properties of a node differ.
pub fn node_actions(old: &Node, new: &Node) -> Actions {
    let mut actions = Actions(0);
    let mut note = |differs: bool, action: Actions| {
        if differs {
            actions = actions.or(action);
        }
    };
    let unschedulable = |n: &Node| n.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
    note(unschedulable(old) && !unschedulable(new), Actions::NODE_TAINT);
    note(taints(old) != taints(new), Actions::NODE_TAINT);
    note(old.metadata.labels != new.metadata.labels, Actions::NODE_LABEL);
    let allocatable = |n: &'_ Node| n.status.as_ref().and_then(|s| s.allocatable.clone());
    note(allocatable(old) != allocatable(new), Actions::NODE_ALLOCATABLE);
    note(conditions(old) != conditions(new), Actions::NODE_CONDITION);
    actions
}

fn taints(node: &Node) -> &[Taint] {
    node.spec
        .as_ref()
        .and_then(|s| s.taints.as_deref())
        .unwrap_or_default()
}

fn conditions(node: &Node) -> Vec<(&str, &str)> {
    let all = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    all.map(|c| (c.type_.as_str(), c.status.as_str())).collect()
}

/// Which scheduling properties of a pod differ.
pub fn pod_actions(old: &Pod, new: &Pod) -> Actions {
    let mut actions = Actions(0);
    let mut note = |differs: bool, action: Actions| {
        if differs {
            actions = actions.or(action);
        }
    };
    note(pod_labels(old) != pod_labels(new), Actions::POD_LABEL);
    note(is_scaled_down(old, new), Actions::POD_SCALE_DOWN);
    let gates = |p: &Pod| {
        p.spec
            .as_ref()
            .and_then(|s| s.scheduling_gates.as_ref())
            .map_or(0, Vec::len)
    };
    note(gates(old) > 0 && gates(new) == 0, Actions::POD_GATES_ELIMINATED);
    let tolerations = |p: &Pod| {
        p.spec
            .as_ref()
            .and_then(|s| s.tolerations.as_ref())
            .map_or(0, Vec::len)
    };
    note(tolerations(old) != tolerations(new), Actions::POD_TOLERATION);
    if actions == Actions(0) {
        Actions::UPDATE
    } else {
        actions
    }
}

fn pod_labels(pod: &Pod) -> Option<&Labels> {
    pod.metadata.labels.as_ref().filter(|l| !l.is_empty())
}

fn is_scaled_down(old: &Pod, new: &Pod) -> bool {
    let (old, new) = (resources::pod_requests(old), resources::pod_requests(new));
    old.milli_cpu > new.milli_cpu
        || old.memory > new.memory
        || old.ephemeral_storage > new.ephemeral_storage
        || old.scalars.iter().any(|(name, value)| *value > new.get(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node, pod, taint};

    #[test]
    fn a_heartbeat_is_no_change_and_a_lifted_cordon_is_a_taint_change() {
        let plain = node("n").build();
        assert_eq!(node_actions(&plain, &plain), Actions(0));
        let cordoned = node("n").unschedulable().build();
        assert_eq!(node_actions(&cordoned, &plain), Actions::NODE_TAINT);
        assert_eq!(node_actions(&plain, &cordoned), Actions(0));
        let tainted = node("n")
            .taint(taint("a", "", "NoSchedule"))
            .label("x", "y")
            .build();
        assert_eq!(
            node_actions(&tainted, &plain),
            Actions::NODE_TAINT.or(Actions::NODE_LABEL)
        );
    }

    #[test]
    fn pod_updates_are_told_apart() {
        let base = pod("p").container("2", "1Gi").build();
        assert_eq!(pod_actions(&base, &base), Actions::UPDATE);
        assert_eq!(
            pod_actions(&base, &pod("p").container("1", "1Gi").build()),
            Actions::POD_SCALE_DOWN
        );
        let gated = pod("p").container("2", "1Gi").gate("g").build();
        assert_eq!(pod_actions(&gated, &base), Actions::POD_GATES_ELIMINATED);
    }

    #[test]
    fn events_are_labelled_as_upstream_labels_them() {
        let event = |kind, action| {
            Event {
                kind,
                action,
                change: Change::Other,
            }
            .label()
        };
        assert_eq!(event(Kind::AssignedPod, Actions::DELETE), "AssignedPodDelete");
        assert_eq!(event(Kind::Node, Actions::NODE_TAINT), "NodeUpdateNodeTaint");
    }
}
