//! NodeUnschedulable: a cordoned node takes only pods that tolerate the unschedulable taint.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::Value;

use crate::framework::block::Block;
use crate::framework::events::{Actions, Change, Event, Hint, Kind};
use crate::framework::world::World;
use crate::framework::{NodeFilter, Plugin, Point, PreFilter};
use crate::nodes::Nodes;
use crate::nodes::taints::tolerates;
use crate::pod::PodInfo;

struct NodeUnschedulable;

pub fn make(_args: &Value) -> Result<Arc<dyn Plugin>, String> {
    Ok(Arc::new(NodeUnschedulable))
}

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::Filter]
    }

    fn events(&self) -> &'static [(Kind, Actions)] {
        const {
            &[
                (Kind::Node, Actions::ADD.or(Actions::NODE_TAINT)),
                (Kind::UnscheduledPod, Actions::POD_TOLERATION),
            ]
        }
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        let cordoned = |n: &Node| n.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
        match event.change {
            Change::Node { old, new: Some(new) } => (old.is_none_or(cordoned) && !cordoned(new)).into(),
            Change::Pod { new: Some(new), .. } => (new.uid == pod.uid && tolerates_cordon(new)).into(),
            _ => Hint::Queue,
        }
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, _world: &mut World) -> PreFilter {
        if tolerates_cordon(pod) {
            PreFilter::Skip
        } else {
            PreFilter::Filter(Box::new(Schedulable))
        }
    }
}

fn tolerates_cordon(pod: &PodInfo) -> bool {
    let cordon = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    pod.tolerations().iter().any(|t| tolerates(t, &cordon))
}

struct Schedulable;

impl NodeFilter for Schedulable {
    fn reasons(&self) -> &[Cow<'static, str>] {
        &[Cow::Borrowed("node(s) were unschedulable")]
    }

    fn filter(&self, nodes: &Nodes, block: &mut Block<'_>) {
        block.require(|row| !nodes.unschedulable[row as usize]);
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Filtering, node, pod, toleration};

    #[test]
    fn a_cordoned_node_is_refused_unless_tolerated() {
        let filtering = Filtering::new("NodeUnschedulable")
            .node(node("a").unschedulable())
            .node(node("b"));
        let plain = filtering.run(pod("p").build());
        assert_eq!(plain.passing, ["b"]);
        assert_eq!(plain.refusal("a"), "unresolvable: node(s) were unschedulable");
        let tolerant = toleration("node.kubernetes.io/unschedulable", "Exists", "", "NoSchedule");
        assert_eq!(
            filtering.run(pod("p").toleration(tolerant).build()).passing,
            ["a", "b"]
        );
    }
}
