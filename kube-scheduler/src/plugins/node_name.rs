//! NodeName: a pod that names its node goes there or nowhere.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use crate::framework::block::Block;
use crate::framework::events::{Actions, Kind};
use crate::framework::world::World;
use crate::framework::{NodeFilter, Plugin, Point, PreFilter};
use crate::nodes::Nodes;
use crate::pod::PodInfo;

struct NodeName;

pub fn make(_args: &Value) -> Result<Arc<dyn Plugin>, String> {
    Ok(Arc::new(NodeName))
}

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::Filter]
    }

    fn events(&self) -> &'static [(Kind, Actions)] {
        &[(Kind::Node, Actions::ADD)]
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, _world: &mut World) -> PreFilter {
        if pod.node_name().is_empty() {
            return PreFilter::Skip;
        }
        PreFilter::Filter(Box::new(Wanted(pod.node_name().to_owned())))
    }
}

struct Wanted(String);

impl NodeFilter for Wanted {
    fn reasons(&self) -> &[Cow<'static, str>] {
        &[Cow::Borrowed("node(s) didn't match the requested node name")]
    }

    fn filter(&self, nodes: &Nodes, block: &mut Block<'_>) {
        block.require(|row| **nodes.name(row) == *self.0);
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Filtering, node, pod};

    #[test]
    fn only_the_named_node_passes() {
        let filtering = Filtering::new("NodeName").node(node("a")).node(node("b"));
        let named = filtering.run(pod("p").on_node("b").build());
        assert_eq!(named.passing, ["b"]);
        assert_eq!(
            named.refusal("a"),
            "unresolvable: node(s) didn't match the requested node name"
        );
        assert_eq!(filtering.run(pod("p").build()).passing, ["a", "b"]);
    }
}
