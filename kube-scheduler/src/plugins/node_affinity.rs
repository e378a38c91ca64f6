//! NodeAffinity: `nodeSelector`, required and preferred node affinity.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{NodeAffinity as WireAffinity, PreferredSchedulingTerm};
use serde::Deserialize;
use serde_json::Value;

use crate::framework::block::{Block, Verdict};
use crate::framework::events::{Actions, Change, Event, Hint, Kind};
use crate::framework::world::World;
use crate::framework::{NodeFilter, NodeScorer, Plugin, Point, PreFilter, Rejection, default_normalize};
use crate::nodes::labels::{LabelColumns, RowTest};
use crate::nodes::{Nodes, Row};
use crate::pod::PodInfo;
use crate::selector::{NodeTerm, Operator, RequiredNodeAffinity, Requirement, node_terms};

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Args {
    added_affinity: Option<WireAffinity>,
}

struct NodeAffinity {
    added_required: Option<Box<[NodeTerm]>>,
    added_preferred: Vec<PreferredSchedulingTerm>,
}

pub fn make(args: &Value) -> Result<Arc<dyn Plugin>, String> {
    let args: Args = super::args(args)?;
    let added = args.added_affinity.unwrap_or_default();
    Ok(Arc::new(NodeAffinity {
        added_required: added
            .required_during_scheduling_ignored_during_execution
            .as_ref()
            .map(node_terms),
        added_preferred: added
            .preferred_during_scheduling_ignored_during_execution
            .unwrap_or_default(),
    }))
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::PreFilter, Point::Filter, Point::PreScore, Point::Score]
    }

    fn events(&self) -> &'static [(Kind, Actions)] {
        const { &[(Kind::Node, Actions::ADD.or(Actions::NODE_LABEL))] }
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        let Change::Node { old, new: Some(new) } = event.change else {
            return Hint::Queue;
        };
        let required = RequiredNodeAffinity::of(&pod.object);
        let matches = |node: &k8s_openapi::api::core::v1::Node| {
            let labels = node.metadata.labels.clone().unwrap_or_default();
            let name = node.metadata.name.as_deref().unwrap_or_default();
            let added = self.added_required.as_ref();
            added.is_none_or(|terms| terms.iter().any(|t| t.matches(name, &labels)))
                && required.matches(name, &labels)
        };
        (matches(new) && !old.is_some_and(matches)).into()
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, world: &mut World) -> PreFilter {
        let required = RequiredNodeAffinity::of(&pod.object);
        if required.is_empty() && self.added_required.is_none() {
            return PreFilter::Skip;
        }
        let labels = &mut world.nodes.labels;
        let filter = Box::new(Filter {
            added: self
                .added_required
                .as_ref()
                .map(|terms| AnyTerm::new(terms, labels)),
            required: RequiredRows::new(&required, labels),
        });
        match required.terms.as_deref().and_then(named_nodes) {
            Some(names) if names.is_empty() => PreFilter::Reject(Rejection {
                message: "pod affinity terms conflict".to_owned(),
            }),
            Some(names) => PreFilter::Only(names.into_iter().collect(), filter),
            None => PreFilter::Filter(filter),
        }
    }

    fn pre_score(
        &self,
        pod: &Arc<PodInfo>,
        world: &mut World,
        _feasible: &[Row],
    ) -> Option<Box<dyn NodeScorer>> {
        let affinity = pod
            .spec()
            .and_then(|s| s.affinity.as_ref())
            .and_then(|a| a.node_affinity.as_ref());
        let own = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref());
        if own.is_none() && self.added_preferred.is_empty() {
            return None;
        }
        let all = self.added_preferred.iter().chain(own.unwrap_or_default());
        let compile = |t: &PreferredSchedulingTerm| {
            let term = RowTerm::new(&NodeTerm::new(&t.preference), &mut world.nodes.labels);
            (i64::from(t.weight), term)
        };
        Some(Box::new(Preferred(all.map(compile).collect())))
    }
}

/// The nodes that the terms name by `metadata.name In`. `None` if some term names none.
fn named_nodes(terms: &[NodeTerm]) -> Option<BTreeSet<String>> {
    let mut union = BTreeSet::new();
    for term in terms {
        let by_name = |r: &&Requirement| r.operator == Operator::In && &*r.key == "metadata.name";
        let sets = term.fields.iter().filter(by_name);
        let sets = sets.map(|r| r.values.iter().map(|v| v.to_string()).collect::<BTreeSet<_>>());
        union.extend(sets.reduce(|a, b| &a & &b)?);
    }
    (!terms.is_empty()).then_some(union)
}

/// One node selector term over columns.
struct RowTerm {
    labels: Vec<RowTest>,
    fields: Box<[Requirement]>,
    valid: bool,
}

impl RowTerm {
    fn new(term: &NodeTerm, columns: &mut LabelColumns) -> Self {
        Self {
            labels: term.labels.iter().map(|r| columns.compile(r)).collect(),
            fields: term.fields.clone(),
            valid: term.valid,
        }
    }

    fn passes(&self, nodes: &Nodes, row: Row) -> bool {
        self.valid
            && self.labels.iter().all(|test| test.passes(row))
            && self.fields.iter().all(|r| r.matches(Some(nodes.name(row))))
    }
}

struct AnyTerm(Vec<RowTerm>);

impl AnyTerm {
    fn new(terms: &[NodeTerm], columns: &mut LabelColumns) -> Self {
        Self(terms.iter().map(|t| RowTerm::new(t, columns)).collect())
    }

    fn passes(&self, nodes: &Nodes, row: Row) -> bool {
        self.0.iter().any(|term| term.passes(nodes, row))
    }
}

/// A pod's required node affinity over columns; topology spread asks it too.
pub struct RequiredRows {
    selector: Vec<RowTest>,
    terms: Option<AnyTerm>,
}

impl RequiredRows {
    pub fn new(required: &RequiredNodeAffinity, columns: &mut LabelColumns) -> Self {
        Self {
            selector: required.selector.iter().map(|r| columns.compile(r)).collect(),
            terms: required.terms.as_ref().map(|terms| AnyTerm::new(terms, columns)),
        }
    }

    pub fn passes(&self, nodes: &Nodes, row: Row) -> bool {
        self.selector.iter().all(|test| test.passes(row))
            && self.terms.as_ref().is_none_or(|terms| terms.passes(nodes, row))
    }
}

struct Filter {
    added: Option<AnyTerm>,
    required: RequiredRows,
}

const ENFORCED: u64 = 1;
const OWN: u64 = 1 << 1;

impl NodeFilter for Filter {
    fn reasons(&self) -> &[Cow<'static, str>] {
        &[
            Cow::Borrowed("node(s) didn't match scheduler-enforced node affinity"),
            Cow::Borrowed("node(s) didn't match Pod's node affinity/selector"),
        ]
    }

    fn filter(&self, nodes: &Nodes, block: &mut Block<'_>) {
        block.retain(|row| {
            if self.added.as_ref().is_some_and(|terms| !terms.passes(nodes, row)) {
                Verdict::Unresolvable(ENFORCED)
            } else if !self.required.passes(nodes, row) {
                Verdict::Unresolvable(OWN)
            } else {
                Verdict::Pass
            }
        });
    }
}

struct Preferred(Vec<(i64, RowTerm)>);

impl NodeScorer for Preferred {
    fn score(&self, nodes: &Nodes, rows: &[Row], out: &mut [i64]) {
        for (score, row) in out.iter_mut().zip(rows) {
            let met = self.0.iter().filter(|(_, term)| term.passes(nodes, *row));
            *score = met.map(|(weight, _)| weight).sum();
        }
    }

    fn normalize(&self, _rows: &[Row], scores: &mut [i64]) {
        default_normalize(false, scores);
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Filtering, Scoring, node, pod};

    fn zones() -> Filtering {
        Filtering::new("NodeAffinity")
            .node(node("a").label("zone", "a").label("disk", "ssd"))
            .node(node("b").label("zone", "b").label("disk", "ssd"))
            .node(node("c").label("zone", "c"))
    }

    #[test]
    fn selector_and_required_terms_must_hold() {
        let run = zones().run(pod("p").node_selector(&[("disk", "ssd")]).build());
        assert_eq!(run.passing, ["a", "b"]);
        assert_eq!(
            run.refusal("c"),
            "unresolvable: node(s) didn't match Pod's node affinity/selector"
        );
        let run = zones().run(pod("p").node_affinity_in("zone", &["b", "c"]).build());
        assert_eq!(run.passing, ["b", "c"]);
    }

    #[test]
    fn terms_by_node_name_restrict_the_search() {
        let run = zones().run(pod("p").node_affinity_name(&["b", "gone"]).build());
        assert_eq!(run.passing, ["b"]);
        let run = zones().run(pod("p").node_affinity_names(&[&["a"], &["b"]]).build());
        assert_eq!(run.rejected.as_deref(), Some("pod affinity terms conflict"));
    }

    #[test]
    fn the_configuration_can_add_affinity() {
        let args = serde_json::json!({ "addedAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
                { "matchExpressions": [{ "key": "zone", "operator": "In", "values": ["a"] }] } ] } } });
        let run = zones().args(args).run(pod("p").build());
        assert_eq!(run.passing, ["a"]);
        assert_eq!(
            run.refusal("b"),
            "unresolvable: node(s) didn't match scheduler-enforced node affinity"
        );
    }

    #[test]
    fn preferences_add_up_and_are_scaled_to_the_best() {
        let preferring = pod("p")
            .prefer_node("zone", "a", 5)
            .prefer_node("disk", "ssd", 15)
            .build();
        let scores = Scoring::new("NodeAffinity")
            .node(node("both").label("zone", "a").label("disk", "ssd"))
            .node(node("disk").label("disk", "ssd"))
            .node(node("none"))
            .run(preferring);
        assert_eq!(scores, [("both", 100), ("disk", 75), ("none", 0)]);
    }
}
