//! PodTopologySpread: keeps the replicas of a workload even over zones, nodes or any other label.
//!
//! DoNotSchedule constraints refuse nodes, ScheduleAnyway constraints cost score. Pods that state none are spread
//! softly over nodes and zones by the selectors of their services and controller.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Toleration, TopologySpreadConstraint};
use serde::Deserialize;
use serde_json::Value;

use super::node_affinity::RequiredRows;
use super::topology::Domains;
use crate::framework::block::{Block, Verdict};
use crate::framework::events::{Actions, Change, Event, Hint, Kind};
use crate::framework::world::World;
use crate::framework::{MAX_NODE_SCORE, NodeFilter, NodeScorer, Plugin, Point, PreFilter};
use crate::nodes::counts::Query;
use crate::nodes::labels::ABSENT;
use crate::nodes::taints::has_untolerated;
use crate::nodes::{Nodes, Row};
use crate::pod::PodInfo;
use crate::selector::{Labels, Operator, RequiredNodeAffinity, Requirement, Selector};

const HOSTNAME: &str = "kubernetes.io/hostname";
const HARD: &str = "DoNotSchedule";
const SOFT: &str = "ScheduleAnyway";

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Args {
    default_constraints: Vec<TopologySpreadConstraint>,
    defaulting_type: String,
}

struct Spread {
    defaults: Vec<TopologySpreadConstraint>,
    /// The defaults are upstream's own: a node without a zone label is still spread over by name.
    system_defaults: bool,
}

pub fn make(args: &Value) -> Result<Arc<dyn Plugin>, String> {
    let args: Args = super::args(args)?;
    match &*args.defaulting_type {
        "" | "System" if !args.default_constraints.is_empty() => {
            Err("defaultConstraints: when .defaultingType is System, it must be empty".to_owned())
        }
        "" | "System" => Ok(Arc::new(Spread {
            defaults: system_defaults(),
            system_defaults: true,
        })),
        "List" => Ok(Arc::new(Spread {
            defaults: args.default_constraints,
            system_defaults: false,
        })),
        other => Err(format!(
            "defaultingType {other:?} is not supported; use System or List"
        )),
    }
}

fn system_defaults() -> Vec<TopologySpreadConstraint> {
    let soft = |key: &str, max_skew| TopologySpreadConstraint {
        max_skew,
        topology_key: key.to_owned(),
        when_unsatisfiable: SOFT.to_owned(),
        ..TopologySpreadConstraint::default()
    };
    vec![soft(HOSTNAME, 3), soft("topology.kubernetes.io/zone", 5)]
}

/// A constraint with its selector compiled.
struct Constraint {
    max_skew: i64,
    key: String,
    selector: Selector,
    min_domains: i64,
    honor_affinity: bool,
    honor_taints: bool,
}

impl Constraint {
    fn new(wire: &TopologySpreadConstraint, pod: &PodInfo) -> Self {
        let honors = |policy: &Option<String>, default: &str| policy.as_deref().unwrap_or(default) == "Honor";
        Self {
            max_skew: wire.max_skew.into(),
            key: wire.topology_key.clone(),
            selector: with_label_keys(wire, pod),
            min_domains: wire.min_domains.unwrap_or(1).into(),
            honor_affinity: honors(&wire.node_affinity_policy, "Honor"),
            honor_taints: honors(&wire.node_taints_policy, "Ignore"),
        }
    }
}

/// The selector, narrowed to pods that share the incoming pod's values of `matchLabelKeys`.
fn with_label_keys(wire: &TopologySpreadConstraint, pod: &PodInfo) -> Selector {
    let keys = wire.match_label_keys.iter().flatten();
    let own = keys.filter_map(|key| {
        let value = pod.labels().get(key)?;
        Some(Requirement {
            key: key.as_str().into(),
            operator: Operator::In,
            values: Box::new([value.as_str().into()]),
        })
    });
    Selector::All(own.collect()).and(&Selector::new(wire.label_selector.as_ref()))
}

impl Spread {
    fn constraints(&self, pod: &PodInfo, world: &World, action: &str) -> Vec<Constraint> {
        let own = pod
            .spec()
            .and_then(|s| s.topology_spread_constraints.as_deref())
            .unwrap_or_default();
        let of = |list: &[TopologySpreadConstraint]| -> Vec<Constraint> {
            let wanted = list.iter().filter(|c| c.when_unsatisfiable == action);
            wanted.map(|c| Constraint::new(c, pod)).collect()
        };
        if !own.is_empty() {
            return of(own);
        }
        let mut defaults = of(&self.defaults);
        if defaults.is_empty() {
            return defaults;
        }
        let Some(selector) = world.workloads.default_selector(pod) else {
            return Vec::new();
        };
        defaults.iter_mut().for_each(|c| c.selector = selector.clone());
        defaults
    }

    fn requires_all_keys(&self, pod: &PodInfo) -> bool {
        let own = pod.spec().and_then(|s| s.topology_spread_constraints.as_ref());
        own.is_some_and(|list| !list.is_empty()) || !self.system_defaults
    }
}

impl Plugin for Spread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::PreFilter, Point::Filter, Point::PreScore, Point::Score]
    }

    fn events(&self) -> &'static [(Kind, Actions)] {
        const POD: Actions = Actions::ADD.or(Actions::DELETE).or(Actions::POD_LABEL);
        const NODE: Actions = Actions::ADD
            .or(Actions::DELETE)
            .or(Actions::NODE_LABEL)
            .or(Actions::NODE_TAINT);
        const {
            &[
                (Kind::AssignedPod, POD),
                (
                    Kind::UnscheduledPod,
                    Actions::POD_LABEL.or(Actions::POD_TOLERATION),
                ),
                (Kind::Node, NODE),
            ]
        }
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        match event.change {
            Change::Pod { old, new } => {
                let same = |p: &PodInfo| p.namespace == pod.namespace;
                (old.is_none_or(same) && new.is_none_or(same)).into()
            }
            Change::Node { old, new } => {
                let has_keys = |labels: Option<&Labels>| {
                    own_keys(pod).all(|k| labels.is_some_and(|l| l.contains_key(k)))
                };
                let had = old.is_some_and(|n| has_keys(n.metadata.labels.as_ref()));
                let has = new.is_some_and(|n| has_keys(n.metadata.labels.as_ref()));
                (had || has).into()
            }
            Change::Other => Hint::Queue,
        }
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, world: &mut World) -> PreFilter {
        let constraints = self.constraints(pod, world, HARD);
        if constraints.is_empty() {
            return PreFilter::Skip;
        }
        PreFilter::Filter(Box::new(HardSpread::new(pod, constraints, world)))
    }

    fn pre_score(
        &self,
        pod: &Arc<PodInfo>,
        world: &mut World,
        feasible: &[Row],
    ) -> Option<Box<dyn NodeScorer>> {
        let constraints = self.constraints(pod, world, SOFT);
        if constraints.is_empty() {
            return None;
        }
        let all_keys = self.requires_all_keys(pod);
        Some(Box::new(SoftSpread::new(
            pod,
            &constraints,
            world,
            feasible,
            all_keys,
        )))
    }
}

fn own_keys(pod: &PodInfo) -> impl Iterator<Item = &String> {
    pod.spec()
        .into_iter()
        .flat_map(|s| s.topology_spread_constraints.iter().flatten())
        .map(|c| &c.topology_key)
}

/// Which rows count for a constraint, by its node inclusion policies.
struct Inclusion {
    affinity: RequiredRows,
    tolerations: Vec<Toleration>,
}

impl Inclusion {
    fn new(pod: &PodInfo, nodes: &mut Nodes) -> Self {
        let required = RequiredNodeAffinity::of(&pod.object);
        Self {
            affinity: RequiredRows::new(&required, &mut nodes.labels),
            tolerations: pod.tolerations().to_vec(),
        }
    }

    fn admits(&self, constraint: &Constraint, nodes: &Nodes, row: Row) -> bool {
        (!constraint.honor_affinity || self.affinity.passes(nodes, row))
            && (!constraint.honor_taints || !has_untolerated(nodes.taints.of(row), &self.tolerations))
    }
}

/// One hard constraint with the pods in each domain.
#[derive(Clone)]
struct HardDomains {
    constraint: Arc<Constraint>,
    matching: Domains,
    /// Domains that some included node has: 1 or 0 nodes and more.
    nodes: Domains,
    /// The pod itself would count.
    own_match: i64,
    /// The fewest pods in any domain, or zero if there are too few domains.
    fewest: i64,
}

impl HardDomains {
    fn settle(&mut self) {
        let (mut domains, mut fewest) = (0, i64::from(i32::MAX));
        for id in 1..self.matching.column.values() {
            if self.nodes.amount(id) > 0 {
                domains += 1;
                fewest = fewest.min(self.matching.amount(id));
            }
        }
        self.fewest = if domains < self.constraint.min_domains {
            0
        } else {
            fewest
        };
    }
}

struct HardSpread {
    pod: Arc<PodInfo>,
    inclusion: Arc<Inclusion>,
    domains: Vec<HardDomains>,
}

impl HardSpread {
    fn new(pod: &Arc<PodInfo>, constraints: Vec<Constraint>, world: &mut World) -> Self {
        let nodes = &mut world.nodes;
        let inclusion = Inclusion::new(pod, nodes);
        let rows = nodes.order().to_vec();
        let columns: Vec<_> = constraints.iter().map(|c| nodes.labels.column(&c.key)).collect();
        let has_all_keys = |row: Row| columns.iter().all(|c| c.get(row) != ABSENT);
        let eligible: Vec<Row> = rows.into_iter().filter(|row| has_all_keys(*row)).collect();
        let mut domains = Vec::with_capacity(constraints.len());
        for (constraint, column) in constraints.into_iter().zip(&columns) {
            let mut one = HardDomains {
                own_match: constraint.selector.matches(pod.labels()).into(),
                matching: Domains::new(Arc::clone(column)),
                nodes: Domains::new(Arc::clone(column)),
                constraint: Arc::new(constraint),
                fewest: 0,
            };
            let query = Query::Spread {
                namespace: Arc::clone(&pod.namespace),
                selector: one.constraint.selector.clone(),
            };
            let counts = nodes.count(query).to_vec();
            for row in eligible
                .iter()
                .filter(|row| inclusion.admits(&one.constraint, nodes, **row))
            {
                one.matching.add(*row, counts[*row as usize].into());
                one.nodes.add(*row, 1);
            }
            one.settle();
            domains.push(one);
        }
        Self {
            pod: Arc::clone(pod),
            inclusion: Arc::new(inclusion),
            domains,
        }
    }

    fn change(&mut self, other: &PodInfo, row: Row, nodes: &Nodes, by: i64) {
        let keys_present = self.domains.iter().all(|d| d.matching.has_domain(row));
        if other.namespace != self.pod.namespace || !keys_present {
            return;
        }
        for domain in &mut self.domains {
            let counts = domain.constraint.selector.matches(other.labels());
            if counts && self.inclusion.admits(&domain.constraint, nodes, row) {
                domain.matching.add(row, by);
                domain.settle();
            }
        }
    }
}

const SKEWED: u64 = 1;
const NO_LABEL: u64 = 1 << 1;

impl NodeFilter for HardSpread {
    fn reasons(&self) -> &[Cow<'static, str>] {
        &[
            Cow::Borrowed("node(s) didn't match pod topology spread constraints"),
            Cow::Borrowed("node(s) didn't match pod topology spread constraints (missing required label)"),
        ]
    }

    fn filter(&self, _nodes: &Nodes, block: &mut Block<'_>) {
        block.retain(|row| {
            for domain in &self.domains {
                let Some(matching) = domain.matching.get(row) else {
                    return Verdict::Unresolvable(NO_LABEL);
                };
                if matching + domain.own_match - domain.fewest > domain.constraint.max_skew {
                    return Verdict::Unschedulable(SKEWED);
                }
            }
            Verdict::Pass
        });
    }

    fn fork(&self) -> Option<Box<dyn NodeFilter>> {
        Some(Box::new(Self {
            pod: Arc::clone(&self.pod),
            inclusion: Arc::clone(&self.inclusion),
            domains: self.domains.clone(),
        }))
    }

    fn add_pod(&mut self, pod: &PodInfo, row: Row, nodes: &Nodes) {
        self.change(pod, row, nodes, 1);
    }

    fn remove_pod(&mut self, pod: &PodInfo, row: Row, nodes: &Nodes) {
        self.change(pod, row, nodes, -1);
    }
}

/// One soft constraint: the pods that count against a row.
struct SoftDomains {
    matching: Domains,
    /// For hostname, each node is its own domain and its own pods count.
    by_row: Option<Vec<u32>>,
    weight: f64,
    max_skew: i64,
}

struct SoftSpread {
    domains: Vec<SoftDomains>,
    /// Rows that lack a key are not scored.
    all_keys: bool,
}

impl SoftSpread {
    fn new(
        pod: &PodInfo,
        constraints: &[Constraint],
        world: &mut World,
        feasible: &[Row],
        all_keys: bool,
    ) -> Self {
        let nodes = &mut world.nodes;
        let inclusion = Inclusion::new(pod, nodes);
        let columns: Vec<_> = constraints.iter().map(|c| nodes.labels.column(&c.key)).collect();
        let has_all_keys = |row: &Row| columns.iter().all(|c| c.get(*row) != ABSENT);
        let scored: Vec<Row> = feasible
            .iter()
            .copied()
            .filter(|r| !all_keys || has_all_keys(r))
            .collect();
        let everywhere: Vec<Row> = nodes
            .order()
            .iter()
            .copied()
            .filter(|r| !all_keys || has_all_keys(r))
            .collect();
        let mut domains = Vec::with_capacity(constraints.len());
        for (constraint, column) in constraints.iter().zip(&columns) {
            let query = Query::Spread {
                namespace: Arc::clone(&pod.namespace),
                selector: constraint.selector.clone(),
            };
            let counts = nodes.count(query).to_vec();
            let mut one = SoftDomains {
                matching: Domains::new(Arc::clone(column)),
                by_row: None,
                weight: 0.0,
                max_skew: constraint.max_skew,
            };
            let size = if constraint.key == HOSTNAME {
                one.by_row = Some(counts);
                scored.len()
            } else {
                let admitted = everywhere
                    .iter()
                    .filter(|row| inclusion.admits(constraint, nodes, **row));
                admitted.for_each(|row| one.matching.add(*row, counts[*row as usize].into()));
                distinct_domains(&one.matching, &scored)
            };
            one.weight = ((size + 2) as f64).ln();
            domains.push(one);
        }
        Self { domains, all_keys }
    }

    fn is_ignored(&self, row: Row) -> bool {
        self.all_keys && self.domains.iter().any(|d| !d.matching.has_domain(row))
    }
}

/// Different values of the label among the rows; rows without it are one more.
fn distinct_domains(domains: &Domains, rows: &[Row]) -> usize {
    let mut seen = vec![false; domains.column.values()];
    rows.iter()
        .for_each(|row| seen[domains.column.get(*row) as usize] = true);
    seen.into_iter().filter(|s| *s).count()
}

impl NodeScorer for SoftSpread {
    fn score(&self, _nodes: &Nodes, rows: &[Row], out: &mut [i64]) {
        for (score, row) in out.iter_mut().zip(rows) {
            if self.is_ignored(*row) {
                *score = 0;
                continue;
            }
            let mut sum = 0.0;
            for domain in &self.domains {
                let Some(in_domain) = domain.matching.get(*row) else {
                    continue;
                };
                let pods = domain
                    .by_row
                    .as_ref()
                    .map_or(in_domain, |counts| counts[*row as usize].into());
                sum += pods as f64 * domain.weight + (domain.max_skew - 1) as f64;
            }
            *score = sum.round() as i64;
        }
    }

    fn normalize(&self, rows: &[Row], scores: &mut [i64]) {
        let scored = || {
            rows.iter()
                .zip(0..)
                .filter(|(row, _)| !self.is_ignored(**row))
                .map(|(_, at): (_, usize)| at)
        };
        let least = scored().map(|at| scores[at]).min().unwrap_or(0);
        let most = scored().map(|at| scores[at]).max().unwrap_or(0);
        for (row, score) in rows.iter().zip(scores) {
            *score = match most {
                _ if self.is_ignored(*row) => 0,
                0 => MAX_NODE_SCORE,
                most => MAX_NODE_SCORE * (most + least - *score) / most,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Filtering, PodBuilder, Scoring, labels, node, pod};

    fn zoned(filtering: Filtering) -> Filtering {
        [("a1", "a"), ("a2", "a"), ("b1", "b")]
            .iter()
            .fold(filtering, |f, (name, zone)| {
                f.node(
                    node(name)
                        .label("zone", zone)
                        .label("kubernetes.io/hostname", name),
                )
            })
    }

    fn web(name: &str) -> PodBuilder {
        pod(name).label("app", "web")
    }

    #[test]
    fn a_node_that_would_skew_its_domain_is_refused() {
        let filtering = zoned(Filtering::new("PodTopologySpread"))
            .node(node("nozone"))
            .pod(web("x").on_node("a1"))
            .pod(web("y").namespace("other").on_node("b1"))
            .pod(pod("z").label("app", "db").on_node("b1"));
        let run = filtering.run(web("p").spread("zone", 1, "DoNotSchedule").build());
        assert_eq!(run.passing, ["b1"]);
        assert_eq!(
            run.refusal("a2"),
            "resolvable: node(s) didn't match pod topology spread constraints"
        );
        assert_eq!(
            run.refusal("nozone"),
            "unresolvable: node(s) didn't match pod topology spread constraints (missing required label)"
        );
        assert_eq!(
            filtering
                .run(web("p").spread("zone", 2, "DoNotSchedule").build())
                .passing
                .len(),
            3
        );
    }

    #[test]
    fn too_few_domains_count_as_an_empty_one() {
        let filtering = zoned(Filtering::new("PodTopologySpread"))
            .pod(web("x").on_node("a1"))
            .pod(web("y").on_node("b1"));
        let wanted = |domains| {
            web("p")
                .spread("zone", 1, "DoNotSchedule")
                .min_domains(domains)
                .build()
        };
        assert_eq!(filtering.run(wanted(2)).passing.len(), 3);
        assert_eq!(filtering.run(wanted(3)).passing.len(), 0);
    }

    #[test]
    fn nodes_that_the_pod_cannot_use_are_no_domain() {
        let filtering = zoned(Filtering::new("PodTopologySpread"))
            .node(node("c1").label("zone", "c"))
            .pod(web("x").on_node("a1"))
            .pod(web("y").on_node("b1"));
        let plain = filtering.run(web("p").spread("zone", 1, "DoNotSchedule").build());
        assert_eq!(plain.passing, ["c1"]);
        let bound = web("p")
            .spread("zone", 1, "DoNotSchedule")
            .node_affinity_in("zone", &["a", "b"])
            .build();
        assert_eq!(filtering.run(bound).passing, ["a1", "a2", "b1", "c1"]);
    }

    #[test]
    fn soft_constraints_prefer_emptier_domains() {
        let scores = Scoring::new("PodTopologySpread")
            .node(node("a1").label("zone", "a"))
            .node(node("a2").label("zone", "a"))
            .node(node("b1").label("zone", "b"))
            .node(node("nozone"))
            .pod(web("x").on_node("a1"))
            .pod(web("y").on_node("a1"))
            .pod(web("z").on_node("b1"))
            .run(web("p").spread("zone", 1, "ScheduleAnyway").build());
        // ln(4) x 2 = 2.77 -> 3 and ln(4) = 1.39 -> 1; then 100 x (3 + 1 - s) / 3.
        assert_eq!(scores, [("a1", 33), ("a2", 33), ("b1", 100), ("nozone", 0)]);
    }

    #[test]
    fn pods_of_a_service_are_spread_over_nodes_by_default() {
        let mut scoring = Scoring::new("PodTopologySpread")
            .node(node("a").label("kubernetes.io/hostname", "a"))
            .node(node("b").label("kubernetes.io/hostname", "b"))
            .pod(web("x").on_node("a"));
        assert_eq!(scoring.score(web("p").build()), []);
        let services = scoring
            .world
            .workloads
            .services
            .entry("default".into())
            .or_default();
        services.insert("web".into(), labels(&[("app", "web")]));
        // One pod x ln(4) + 2 = 3.39 -> 3 against 2; nodes without a zone still count by name.
        assert_eq!(scoring.run(web("p").build()), [("a", 66), ("b", 100)]);
    }
}
