//! NodePorts: two pods cannot take the same host port on one node.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use crate::framework::block::{Block, Verdict};
use crate::framework::events::{Actions, Change, Event, Hint, Kind};
use crate::framework::world::World;
use crate::framework::{NodeFilter, Plugin, Point, PreFilter};
use crate::nodes::Nodes;
use crate::pod::{HostPort, PodInfo};

struct NodePorts;

pub fn make(_args: &Value) -> Result<Arc<dyn Plugin>, String> {
    Ok(Arc::new(NodePorts))
}

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::PreFilter, Point::Filter]
    }

    fn events(&self) -> &'static [(Kind, Actions)] {
        &[(Kind::AssignedPod, Actions::DELETE), (Kind::Node, Actions::ADD)]
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        match event.change {
            Change::Pod { old: Some(gone), .. } => conflict(&pod.host_ports, &gone.host_ports).into(),
            _ => Hint::Queue,
        }
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, _world: &mut World) -> PreFilter {
        if pod.host_ports.is_empty() {
            return PreFilter::Skip;
        }
        PreFilter::Filter(Box::new(Wanted(Arc::clone(pod))))
    }
}

fn conflict(wanted: &[HostPort], taken: &[HostPort]) -> bool {
    wanted.iter().any(|w| taken.iter().any(|t| w.conflicts(t)))
}

struct Wanted(Arc<PodInfo>);

impl NodeFilter for Wanted {
    fn reasons(&self) -> &[Cow<'static, str>] {
        &[Cow::Borrowed(
            "node(s) didn't have free ports for the requested pod ports",
        )]
    }

    fn filter(&self, nodes: &Nodes, block: &mut Block<'_>) {
        block.retain(|row| {
            if conflict(&self.0.host_ports, nodes.ports(row)) {
                Verdict::Unschedulable(1)
            } else {
                Verdict::Pass
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Filtering, node, pod};

    #[test]
    fn a_taken_port_refuses_until_its_pod_is_removed() {
        let filtering = Filtering::new("NodePorts")
            .node(node("a"))
            .node(node("b"))
            .pod(pod("web").host_port(80).on_node("a"));
        let run = filtering.run(pod("p").host_port(80).build());
        assert_eq!(run.passing, ["b"]);
        assert_eq!(
            run.refusal("a"),
            "resolvable: node(s) didn't have free ports for the requested pod ports"
        );
        assert_eq!(filtering.run(pod("p").host_port(81).build()).passing, ["a", "b"]);
        assert_eq!(filtering.run(pod("p").build()).passing, ["a", "b"]);
    }
}
