//! TaintToleration: NoSchedule and NoExecute taints keep pods out, PreferNoSchedule taints cost score.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint, Toleration};
use serde_json::Value;

use crate::framework::block::Block;
use crate::framework::events::{Actions, Change, Event, Hint, Kind};
use crate::framework::world::World;
use crate::framework::{NodeFilter, NodeScorer, Plugin, Point, PreFilter, default_normalize};
use crate::nodes::taints::{ByTaints, has_untolerated, tolerates};
use crate::nodes::{Nodes, Row};
use crate::pod::PodInfo;

struct TaintToleration;

pub fn make(_args: &Value) -> Result<Arc<dyn Plugin>, String> {
    Ok(Arc::new(TaintToleration))
}

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::Filter, Point::PreScore, Point::Score]
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
        let keeps_out = |node: &Node| has_untolerated(taints(node), pod.tolerations());
        match event.change {
            Change::Node { old, new: Some(new) } => (old.is_none_or(keeps_out) && !keeps_out(new)).into(),
            Change::Pod { new: Some(new), .. } => (new.uid == pod.uid).into(),
            _ => Hint::Queue,
        }
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, world: &mut World) -> PreFilter {
        let tolerated = |taints: &[Taint]| !has_untolerated(taints, pod.tolerations());
        PreFilter::Filter(Box::new(Tolerated(world.nodes.taints.weigh(true, tolerated))))
    }

    fn pre_score(
        &self,
        pod: &Arc<PodInfo>,
        world: &mut World,
        _feasible: &[Row],
    ) -> Option<Box<dyn NodeScorer>> {
        let about_preference =
            |t: &&Toleration| matches!(t.effect.as_deref().unwrap_or_default(), "" | "PreferNoSchedule");
        let tolerations: Vec<&Toleration> = pod.tolerations().iter().filter(about_preference).collect();
        let intolerable = |taints: &[Taint]| {
            let preferred = taints.iter().filter(|t| t.effect == "PreferNoSchedule");
            preferred
                .filter(|taint| !tolerations.iter().any(|t| tolerates(t, taint)))
                .count() as i64
        };
        Some(Box::new(Intolerable(world.nodes.taints.weigh(0, intolerable))))
    }
}

fn taints(node: &Node) -> &[Taint] {
    node.spec
        .as_ref()
        .and_then(|s| s.taints.as_deref())
        .unwrap_or_default()
}

struct Tolerated(ByTaints<bool>);

impl NodeFilter for Tolerated {
    fn reasons(&self) -> &[Cow<'static, str>] {
        &[Cow::Borrowed("node(s) had untolerated taint(s)")]
    }

    fn filter(&self, nodes: &Nodes, block: &mut Block<'_>) {
        block.require(|row| nodes.taints.look_up(&self.0, row));
    }
}

struct Intolerable(ByTaints<i64>);

impl NodeScorer for Intolerable {
    fn score(&self, nodes: &Nodes, rows: &[Row], out: &mut [i64]) {
        for (score, row) in out.iter_mut().zip(rows) {
            *score = nodes.taints.look_up(&self.0, *row);
        }
    }

    fn normalize(&self, _rows: &[Row], scores: &mut [i64]) {
        default_normalize(true, scores);
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Filtering, Scoring, node, pod, taint, toleration};

    #[test]
    fn untolerated_taints_keep_pods_out() {
        let filtering = Filtering::new("TaintToleration")
            .node(node("plain"))
            .node(node("gpu").taint(taint("gpu", "yes", "NoSchedule")))
            .node(node("soft").taint(taint("x", "", "PreferNoSchedule")))
            .node(
                node("two")
                    .taint(taint("gpu", "yes", "NoSchedule"))
                    .taint(taint("down", "", "NoExecute")),
            );
        let gpu = pod("p")
            .toleration(toleration("gpu", "Equal", "yes", "NoSchedule"))
            .build();
        assert_eq!(filtering.run(pod("p").build()).passing, ["plain", "soft"]);
        let run = filtering.run(gpu);
        assert_eq!(run.passing, ["plain", "gpu", "soft"]);
        assert_eq!(
            run.refusal("two"),
            "unresolvable: node(s) had untolerated taint(s)"
        );
    }

    #[test]
    fn each_intolerable_preference_costs_score() {
        let soft = |key: &str| taint(key, "", "PreferNoSchedule");
        let scores = Scoring::new("TaintToleration")
            .node(node("none"))
            .node(node("one").taint(soft("a")))
            .node(node("two").taint(soft("a")).taint(soft("b")))
            .run(pod("p").build());
        assert_eq!(scores, [("none", 100), ("one", 50), ("two", 0)]);
    }

    #[test]
    fn tolerations_of_other_effects_do_not_help_a_preference() {
        let run = |effect: &str| {
            Scoring::new("TaintToleration")
                .node(node("a"))
                .node(node("b").taint(taint("k", "", "PreferNoSchedule")))
                .run(pod("p").toleration(toleration("k", "Exists", "", effect)).build())
        };
        assert_eq!(run("NoSchedule"), [("a", 100), ("b", 0)]);
        assert_eq!(run(""), [("a", 100), ("b", 100)]);
    }
}
