//! NodeResourcesFit: what the pod asks for must be free, and how full the node is makes its score.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::resource_scorer::{self, Formula, ResourceScorer, ResourceSpec, Use};
use crate::framework::block::{Block, Verdict};
use crate::framework::events::{Actions, Change, Event, Hint, Kind};
use crate::framework::world::World;
use crate::framework::{MAX_NODE_SCORE, NodeFilter, NodeScorer, Plugin, Point, PreFilter};
use crate::nodes::{Nodes, Row};
use crate::pod::PodInfo;
use crate::resources::{Resources, allowed_pods, is_extended_name};

/// Scores in a RequestedToCapacityRatio shape go up to this.
const MAX_CUSTOM_SCORE: i64 = 10;
/// A refusal names its reasons by bit; a pod with more extended resources than this shares the last one.
const MAX_REASONS: usize = 63;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Args {
    ignored_resources: Vec<String>,
    ignored_resource_groups: Vec<String>,
    scoring_strategy: Strategy,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Strategy {
    #[serde(rename = "type")]
    kind: String,
    resources: Vec<ResourceSpec>,
    requested_to_capacity_ratio: Option<Ratio>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Ratio {
    shape: Vec<ShapePoint>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ShapePoint {
    utilization: i64,
    score: i64,
}

struct Fit {
    ignored: Vec<String>,
    ignored_groups: Vec<String>,
    resources: Vec<ResourceSpec>,
    formula: Arc<Formula>,
}

pub fn make(args: &Value) -> Result<Arc<dyn Plugin>, String> {
    let args: Args = super::args(args)?;
    let strategy = args.scoring_strategy;
    let formula: Formula = match &*strategy.kind {
        "" | "LeastAllocated" => Box::new(|uses| weighted_mean(uses, least_allocated)),
        "MostAllocated" => Box::new(|uses| weighted_mean(uses, most_allocated)),
        "RequestedToCapacityRatio" => {
            let shape = strategy.requested_to_capacity_ratio.unwrap_or_default().shape;
            check_shape(&shape)?;
            Box::new(move |uses| by_shape(uses, &shape))
        }
        other => {
            return Err(format!(
                "scoringStrategy.type {other:?} is not supported; use LeastAllocated, MostAllocated or RequestedToCapacityRatio"
            ));
        }
    };
    Ok(Arc::new(Fit {
        ignored: args.ignored_resources,
        ignored_groups: args.ignored_resource_groups,
        resources: resource_scorer::or_default(strategy.resources)?,
        formula: Arc::new(formula),
    }))
}

fn check_shape(shape: &[ShapePoint]) -> Result<(), String> {
    if shape.is_empty() {
        return Err("requestedToCapacityRatio.shape: at least one point must be specified".to_owned());
    }
    for point in shape {
        if !(0..=100).contains(&point.utilization) || !(0..=MAX_CUSTOM_SCORE).contains(&point.score) {
            return Err(
                "requestedToCapacityRatio.shape: utilization goes from 0 to 100 and score from 0 to 10"
                    .to_owned(),
            );
        }
    }
    if shape
        .windows(2)
        .any(|pair| pair[0].utilization >= pair[1].utilization)
    {
        return Err(
            "requestedToCapacityRatio.shape: utilization values must be sorted in increasing order"
                .to_owned(),
        );
    }
    Ok(())
}

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::PreFilter, Point::Filter, Point::PreScore, Point::Score]
    }

    fn events(&self) -> &'static [(Kind, Actions)] {
        const {
            &[
                (Kind::AssignedPod, Actions::DELETE.or(Actions::POD_SCALE_DOWN)),
                (Kind::UnscheduledPod, Actions::POD_SCALE_DOWN),
                (Kind::Node, Actions::ADD.or(Actions::NODE_ALLOCATABLE)),
            ]
        }
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        match event.change {
            Change::Pod {
                old: Some(old),
                new: Some(new),
            } => {
                let itself = new.uid == pod.uid;
                (itself || (!new.node_name().is_empty() && frees_wanted(&pod.requests, old, new))).into()
            }
            Change::Node { old, new: Some(new) } => {
                let (had, has) = (old.map(capacity).unwrap_or_default(), capacity(new));
                (fits_empty(pod, &has) && (old.is_none() || grew_for(pod, &had, &has))).into()
            }
            _ => Hint::Queue,
        }
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, _world: &mut World) -> PreFilter {
        PreFilter::Filter(Box::new(self.demand(pod)))
    }

    fn pre_score(
        &self,
        pod: &Arc<PodInfo>,
        _world: &mut World,
        _feasible: &[Row],
    ) -> Option<Box<dyn NodeScorer>> {
        let request = resource_scorer::request(pod, &self.resources, true);
        Some(Box::new(ResourceScorer {
            formula: Arc::clone(&self.formula),
            request,
            non_zero: true,
        }))
    }
}

impl Fit {
    fn demand(&self, pod: &PodInfo) -> Demand {
        let wanted = pod
            .requests
            .scalars
            .iter()
            .filter(|(name, value)| *value > 0 && !self.ignores(name));
        let scalars: Vec<(Arc<str>, i64)> = wanted.cloned().collect();
        let fixed = [
            "Too many pods",
            "Insufficient cpu",
            "Insufficient memory",
            "Insufficient ephemeral-storage",
        ];
        let named = scalars
            .iter()
            .map(|(name, _)| Cow::Owned(format!("Insufficient {name}")));
        Demand {
            reasons: fixed.map(Cow::Borrowed).into_iter().chain(named).collect(),
            milli_cpu: pod.requests.milli_cpu,
            memory: pod.requests.memory,
            ephemeral_storage: pod.requests.ephemeral_storage,
            scalars,
        }
    }

    fn ignores(&self, name: &str) -> bool {
        let group = name.split('/').next().unwrap_or_default();
        is_extended_name(name)
            && (self.ignored.iter().any(|i| i == name) || self.ignored_groups.iter().any(|g| g == group))
    }
}

type Node = k8s_openapi::api::core::v1::Node;

/// What a node has, and how many pods it takes.
fn capacity(node: &Node) -> (Resources, i64) {
    let list = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
    list.map(|l| (Resources::from_list(l), allowed_pods(l)))
        .unwrap_or_default()
}

fn fits_empty(pod: &PodInfo, (has, pods): &(Resources, i64)) -> bool {
    let wanted = &pod.requests;
    *pods > 0
        && wanted.milli_cpu <= has.milli_cpu
        && wanted.memory <= has.memory
        && wanted.ephemeral_storage <= has.ephemeral_storage
        && wanted.scalars.iter().all(|(name, value)| *value <= has.get(name))
}

fn grew_for(pod: &PodInfo, (had, had_pods): &(Resources, i64), (has, has_pods): &(Resources, i64)) -> bool {
    let wanted = &pod.requests;
    has_pods > had_pods
        || (wanted.milli_cpu > 0 && has.milli_cpu > had.milli_cpu)
        || (wanted.memory > 0 && has.memory > had.memory)
        || (wanted.ephemeral_storage > 0 && has.ephemeral_storage > had.ephemeral_storage)
        || wanted
            .scalars
            .iter()
            .any(|(name, value)| *value > 0 && has.get(name) > had.get(name))
}

fn frees_wanted(wanted: &Resources, old: &PodInfo, new: &PodInfo) -> bool {
    let (had, has) = (&old.requests, &new.requests);
    (wanted.milli_cpu > 0 && had.milli_cpu > has.milli_cpu)
        || (wanted.memory > 0 && had.memory > has.memory)
        || (wanted.ephemeral_storage > 0 && had.ephemeral_storage > has.ephemeral_storage)
        || wanted
            .scalars
            .iter()
            .any(|(name, value)| *value > 0 && had.get(name) > has.get(name))
}

/// A pod's request against free columns.
struct Demand {
    reasons: Vec<Cow<'static, str>>,
    milli_cpu: i64,
    memory: i64,
    ephemeral_storage: i64,
    scalars: Vec<(Arc<str>, i64)>,
}

impl NodeFilter for Demand {
    fn reasons(&self) -> &[Cow<'static, str>] {
        &self.reasons
    }

    fn filter(&self, nodes: &Nodes, block: &mut Block<'_>) {
        let fixed = [
            (&nodes.pods, 1),
            (&nodes.milli_cpu, self.milli_cpu),
            (&nodes.memory, self.memory),
            (&nodes.ephemeral_storage, self.ephemeral_storage),
        ];
        // A resource that no node ever had has no column: every node lacks it.
        let scalars: Vec<_> = self
            .scalars
            .iter()
            .map(|(name, wanted)| (nodes.scalar(name), *wanted))
            .collect();
        block.retain(|row| {
            let (mut short, mut resolvable) = (0, true);
            for (at, (column, wanted)) in fixed.iter().enumerate() {
                if *wanted > 0 && *wanted > column.free(row) {
                    short |= 1 << at;
                    // Too many pods is resolvable by removing one, whatever the limit.
                    resolvable &= at == 0 || *wanted <= column.allocatable[row as usize];
                }
            }
            for (at, (column, wanted)) in scalars.iter().enumerate() {
                let (free, all) = column.map_or((0, 0), |c| (c.free(row), c.allocatable[row as usize]));
                if *wanted > free {
                    short |= 1 << (fixed.len() + at).min(MAX_REASONS);
                    resolvable &= *wanted <= all;
                }
            }
            match (short, resolvable) {
                (0, _) => Verdict::Pass,
                (short, true) => Verdict::Unschedulable(short),
                (short, false) => Verdict::Unresolvable(short),
            }
        });
    }
}

fn weighted_mean(uses: &[Use], score: fn(i64, i64) -> i64) -> i64 {
    let (mut sum, mut weights) = (0, 0);
    for u in uses.iter().filter(|u| u.allocatable != 0) {
        sum += score(u.requested, u.allocatable) * u.weight;
        weights += u.weight;
    }
    if weights == 0 { 0 } else { sum / weights }
}

fn least_allocated(requested: i64, capacity: i64) -> i64 {
    if requested > capacity {
        0
    } else {
        (capacity - requested) * MAX_NODE_SCORE / capacity
    }
}

fn most_allocated(requested: i64, capacity: i64) -> i64 {
    requested.min(capacity) * MAX_NODE_SCORE / capacity
}

fn by_shape(uses: &[Use], shape: &[ShapePoint]) -> i64 {
    let (mut sum, mut weights) = (0, 0);
    for u in uses.iter().filter(|u| u.allocatable != 0) {
        let over = u.requested > u.allocatable;
        let utilization = if over {
            100
        } else {
            u.requested * 100 / u.allocatable
        };
        let score = broken_linear(shape, utilization);
        if score > 0 {
            sum += score * u.weight;
            weights += u.weight;
        }
    }
    if weights == 0 {
        0
    } else {
        (sum as f64 / weights as f64).round() as i64
    }
}

/// The shape's value at a utilization: straight lines between its points, level outside them.
fn broken_linear(shape: &[ShapePoint], at: i64) -> i64 {
    let score = |p: &ShapePoint| p.score * (MAX_NODE_SCORE / MAX_CUSTOM_SCORE);
    match shape.iter().position(|p| at <= p.utilization) {
        Some(0) => score(&shape[0]),
        Some(right) => {
            let (a, b) = (&shape[right - 1], &shape[right]);
            score(a) + (score(b) - score(a)) * (at - a.utilization) / (b.utilization - a.utilization)
        }
        None => shape.last().map_or(0, score),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Filtering, Scoring, node, pod};
    use serde_json::json;

    fn filtering() -> Filtering {
        Filtering::new("NodeResourcesFit")
            .node(node("small").capacity("2", "2Gi", 10))
            .node(node("busy").capacity("8", "8Gi", 10))
            .node(node("full").capacity("8", "8Gi", 1))
            .node(node("gpu").capacity("8", "8Gi", 10).scalar("x.io/gpu", "2"))
            .pod(pod("b").container("7", "1Gi").on_node("busy"))
            .pod(pod("f").container("0", "0").on_node("full"))
    }

    #[test]
    fn every_shortage_is_named_and_only_a_too_small_node_is_unresolvable() {
        let run = filtering().run(pod("p").container("3", "3Gi").build());
        assert_eq!(run.passing, ["gpu"]);
        assert_eq!(
            run.refusal("small"),
            "unresolvable: Insufficient cpu, Insufficient memory"
        );
        assert_eq!(run.refusal("busy"), "resolvable: Insufficient cpu");
        assert_eq!(run.refusal("full"), "resolvable: Too many pods");
    }

    #[test]
    fn extended_resources_are_counted_unless_ignored() {
        let wants = |n: &str| pod("p").container_with(&[("x.io/gpu", n)]).build();
        let run = filtering().run(wants("2"));
        assert_eq!(run.passing, ["gpu"]);
        assert_eq!(run.refusal("busy"), "unresolvable: Insufficient x.io/gpu");
        let ignoring = filtering().args(json!({ "ignoredResourceGroups": ["x.io"] }));
        assert_eq!(ignoring.run(wants("9")).passing, ["small", "busy", "gpu"]);
    }

    #[test]
    fn a_pod_that_asks_for_nothing_needs_only_a_place() {
        assert_eq!(
            filtering().run(pod("p").build()).passing,
            ["small", "busy", "gpu"]
        );
    }

    #[test]
    fn an_exact_fit_fits() {
        let filtering = Filtering::new("NodeResourcesFit").node(node("n").capacity("2", "2Gi", 1));
        assert_eq!(
            filtering.run(pod("p").container("2", "2Gi").build()).passing,
            ["n"]
        );
    }

    fn half_used() -> Scoring {
        Scoring::new("NodeResourcesFit")
            .node(node("empty").capacity("4", "10Gi", 10))
            .node(node("half").capacity("4", "10Gi", 10))
            .pod(pod("x").container("2", "5Gi").on_node("half"))
    }

    #[test]
    fn least_allocated_prefers_the_emptier_node() {
        let scores = half_used().run(pod("p").container("1", "1Gi").build());
        // (75 + 90) / 2 and (25 + 40) / 2, in integers.
        assert_eq!(scores, [("empty", 82), ("half", 32)]);
    }

    #[test]
    fn containers_without_requests_count_with_the_defaults() {
        let scores = Scoring::new("NodeResourcesFit")
            .node(node("n").capacity("1", "1000Mi", 10))
            .run(pod("p").container_with(&[]).build());
        // 100m of 1000m and 200Mi of 1000Mi.
        assert_eq!(scores, [("n", 85)]);
    }

    #[test]
    fn most_allocated_and_weights_turn_it_around() {
        let args = json!({ "scoringStrategy": { "type": "MostAllocated", "resources": [
            { "name": "cpu", "weight": 3 }, { "name": "memory", "weight": 1 }] } });
        let scores = half_used().args(args).run(pod("p").container("1", "1Gi").build());
        assert_eq!(scores, [("empty", 21), ("half", 71)]);
    }

    #[test]
    fn a_ratio_shape_is_followed_between_its_points() {
        let args = json!({ "scoringStrategy": { "type": "RequestedToCapacityRatio",
            "resources": [{ "name": "cpu" }],
            "requestedToCapacityRatio": { "shape": [
                { "utilization": 0, "score": 0 }, { "utilization": 50, "score": 10 },
                { "utilization": 100, "score": 4 }] } } });
        let scores = half_used().args(args).run(pod("p").container("1", "1Gi").build());
        assert_eq!(scores, [("empty", 50), ("half", 70)]);
    }

    #[test]
    fn wrong_arguments_are_refused() {
        let refused = |args| crate::plugins::find("NodeResourcesFit").map(|row| (row.make)(&args).is_err());
        assert_eq!(
            refused(json!({ "scoringStrategy": { "type": "Random" } })),
            Some(true)
        );
        assert_eq!(
            refused(json!({ "scoringStrategy": { "type": "RequestedToCapacityRatio" } })),
            Some(true)
        );
        assert_eq!(refused(json!({ "unknown": 1 })), Some(true));
        assert_eq!(refused(json!({})), Some(false));
    }
}
