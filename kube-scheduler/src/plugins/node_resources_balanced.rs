//! NodeResourcesBalancedAllocation: prefers nodes whose resources the pod would use more evenly than now.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::resource_scorer::{self, Formula, ResourceScorer, ResourceSpec, Use};
use crate::framework::world::World;
use crate::framework::{MAX_NODE_SCORE, NodeScorer, Plugin, Point};
use crate::nodes::Row;
use crate::pod::PodInfo;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Args {
    resources: Vec<ResourceSpec>,
}

struct Balanced {
    resources: Vec<ResourceSpec>,
    formula: Arc<Formula>,
}

pub fn make(args: &Value) -> Result<Arc<dyn Plugin>, String> {
    let args: Args = super::args(args)?;
    let resources = resource_scorer::or_default(args.resources)?;
    Ok(Arc::new(Balanced {
        resources,
        formula: Arc::new(Box::new(improvement)),
    }))
}

impl Plugin for Balanced {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::PreScore, Point::Score]
    }

    fn pre_score(
        &self,
        pod: &Arc<PodInfo>,
        _world: &mut World,
        _feasible: &[Row],
    ) -> Option<Box<dyn NodeScorer>> {
        let request = resource_scorer::request(pod, &self.resources, false);
        // A pod that asks for nothing leaves every balance as it is; scoring it would draw all such pods to one node.
        if request.iter().all(|(_, amount)| *amount == 0) {
            return None;
        }
        Some(Box::new(ResourceScorer {
            formula: Arc::clone(&self.formula),
            request,
            non_zero: false,
        }))
    }
}

/// Around 75 if the balance stays, towards 100 if the pod improves it, towards 50 if it spoils it.
fn improvement(uses: &[Use]) -> i64 {
    let with = balance(uses, |u| u.requested);
    let without = balance(uses, |u| u.allocated);
    MAX_NODE_SCORE / 2 + (MAX_NODE_SCORE / 2 + with - without) / 2
}

/// 100 less the standard deviation of the used fractions, in percent.
fn balance(uses: &[Use], used: impl Fn(&Use) -> i64) -> i64 {
    let fractions = || {
        let present = uses.iter().filter(|u| u.allocatable != 0);
        present.map(|u| (used(u) as f64 / u.allocatable as f64).min(1.0))
    };
    let count = fractions().count();
    let deviation = match count {
        0 | 1 => 0.0,
        2 => {
            let mut both = fractions();
            let (a, b) = (both.next().unwrap_or(0.0), both.next().unwrap_or(0.0));
            ((a - b) / 2.0).abs()
        }
        _ => {
            let mean = fractions().sum::<f64>() / count as f64;
            let sum = fractions().fold(0.0, |sum, f| sum + (f - mean) * (f - mean));
            (sum / count as f64).sqrt()
        }
    };
    ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64
}

#[cfg(test)]
mod tests {
    use crate::testing::{Scoring, node, pod};

    #[test]
    fn evening_out_scores_above_75_and_tilting_below() {
        let scores = Scoring::new("NodeResourcesBalancedAllocation")
            .node(node("empty").capacity("4", "4Gi", 10))
            .node(node("cpu-heavy").capacity("4", "4Gi", 10))
            .node(node("memory-heavy").capacity("4", "4Gi", 10))
            .pod(pod("c").container("2", "0").on_node("cpu-heavy"))
            .pod(pod("m").container("0", "2Gi").on_node("memory-heavy"))
            .run(pod("p").container("1", "0").build());
        // Deviations: 0 -> 0.125, 0.25 -> 0.375, 0.25 -> 0.125.
        assert_eq!(scores, [("empty", 68), ("cpu-heavy", 68), ("memory-heavy", 81)]);
    }

    #[test]
    fn a_pod_without_requests_is_not_scored() {
        let scores = Scoring::new("NodeResourcesBalancedAllocation")
            .node(node("a"))
            .run(pod("p").build());
        assert_eq!(scores, []);
    }

    #[test]
    fn three_resources_use_the_full_deviation() {
        let args = serde_json::json!({ "resources": [
            { "name": "cpu" }, { "name": "memory" }, { "name": "x.io/gpu" }] });
        let scores = Scoring::new("NodeResourcesBalancedAllocation")
            .args(args)
            .node(node("n").capacity("10", "10Gi", 10).scalar("x.io/gpu", "10"))
            .run(
                pod("p")
                    .container_with(&[("cpu", "9"), ("memory", "3Gi"), ("x.io/gpu", "6")])
                    .build(),
            );
        // Fractions 0.9, 0.3, 0.6: deviation sqrt(0.06) = 0.2449, balance 75 after 100 before.
        assert_eq!(scores, [("n", 62)]);
    }
}
