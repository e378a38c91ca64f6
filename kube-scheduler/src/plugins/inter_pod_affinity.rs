//! InterPodAffinity: pods that must, must not, should or should not share a topology domain with other pods.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::topology::Domains;
use crate::framework::block::{Block, Verdict};
use crate::framework::events::{Actions, Change, Event, Hint, Kind};
use crate::framework::world::World;
use crate::framework::{MAX_NODE_SCORE, NodeFilter, NodeScorer, Plugin, Point, PreFilter};
use crate::nodes::counts::{OwnedTerm, Query, TermKind};
use crate::nodes::labels::LabelColumns;
use crate::nodes::{Nodes, Row};
use crate::pod::{AffinityTerm, PodInfo, WeightedTerm};
use crate::selector::Labels;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Args {
    hard_pod_affinity_weight: i32,
    ignore_preferred_terms_of_existing_pods: bool,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            hard_pod_affinity_weight: 1,
            ignore_preferred_terms_of_existing_pods: false,
        }
    }
}

struct InterPodAffinity(Args);

pub fn make(args: &Value) -> Result<Arc<dyn Plugin>, String> {
    let args: Args = super::args(args)?;
    if !(0..=100).contains(&args.hard_pod_affinity_weight) {
        return Err(format!(
            "hardPodAffinityWeight {} is not in valid range [0-100]",
            args.hard_pod_affinity_weight
        ));
    }
    Ok(Arc::new(InterPodAffinity(args)))
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::PreFilter, Point::Filter, Point::PreScore, Point::Score]
    }

    fn events(&self) -> &'static [(Kind, Actions)] {
        const {
            &[
                (
                    Kind::AssignedPod,
                    Actions::ADD.or(Actions::DELETE).or(Actions::POD_LABEL),
                ),
                (Kind::UnscheduledPod, Actions::POD_LABEL),
                (Kind::Node, Actions::ADD.or(Actions::NODE_LABEL)),
            ]
        }
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        match event.change {
            Change::Pod { old, new } => is_helped_by_pod(pod, old, new).into(),
            _ => Hint::Queue,
        }
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, world: &mut World) -> PreFilter {
        let filter = Rules::new(pod, world);
        if filter.is_empty() {
            PreFilter::Skip
        } else {
            PreFilter::Filter(Box::new(filter))
        }
    }

    fn pre_score(
        &self,
        pod: &Arc<PodInfo>,
        world: &mut World,
        _feasible: &[Row],
    ) -> Option<Box<dyn NodeScorer>> {
        let own = !pod.terms.preferred.is_empty() || !pod.terms.preferred_anti.is_empty();
        if !own && (self.0.ignore_preferred_terms_of_existing_pods || world.nodes.owners.is_empty()) {
            return None;
        }
        let mut preferences = Preferences::default();
        preferences.add_own(&pod.terms.preferred, 1, world);
        preferences.add_own(&pod.terms.preferred_anti, -1, world);
        preferences.add_existing(pod, self.0.hard_pod_affinity_weight, world);
        (!preferences.0.is_empty()).then(|| Box::new(preferences) as Box<dyn NodeScorer>)
    }
}

/// A pod that came, went or changed its labels can help one that must, or must not, be with it.
fn is_helped_by_pod(pod: &PodInfo, old: Option<&PodInfo>, new: Option<&PodInfo>) -> bool {
    if new.is_some_and(|new| new.uid == pod.uid) {
        return true;
    }
    // Namespace labels are not at hand here: a term with a namespace selector may match.
    let may_match = |terms: &[AffinityTerm], other: &PodInfo| {
        let named = |t: &AffinityTerm| t.matches(other, None) || t.namespace_selector.may_match_some();
        !terms.is_empty() && terms.iter().all(named)
    };
    match (old, new) {
        (None, Some(new)) => may_match(&pod.terms.required, new),
        (Some(old), None) => {
            may_match(&pod.terms.required_anti, old) || may_match(&old.terms.required_anti, pod)
        }
        _ => true,
    }
}

/// Amounts by topology key and the row's value of it.
#[derive(Clone, Default)]
struct ByKey(Vec<(Arc<str>, Domains)>);

impl ByKey {
    fn domains(&mut self, key: &Arc<str>, columns: &mut LabelColumns) -> &mut Domains {
        let at = self.0.iter().position(|(k, _)| k == key).unwrap_or_else(|| {
            self.0.push((Arc::clone(key), Domains::new(columns.column(key))));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    fn known(&mut self, key: &str) -> Option<&mut Domains> {
        self.0
            .iter_mut()
            .find(|(k, _)| **k == *key)
            .map(|(_, domains)| domains)
    }

    fn get(&self, key: &str, row: Row) -> Option<i64> {
        self.0
            .iter()
            .find(|(k, _)| **k == *key)
            .and_then(|(_, domains)| domains.get(row))
    }

    fn any_positive(&self, row: Row) -> bool {
        self.0
            .iter()
            .any(|(_, domains)| domains.get(row).is_some_and(|amount| amount > 0))
    }

    fn is_all_zero(&self) -> bool {
        !self.0.iter().any(|(_, domains)| domains.any_non_zero())
    }
}

/// The required rules between the pod and those that are placed.
struct Rules {
    pod: Arc<PodInfo>,
    namespace_labels: Option<Labels>,
    /// The pod's own terms, with namespace selectors resolved.
    required: Box<[AffinityTerm]>,
    anti: Box<[AffinityTerm]>,
    /// Pods that match all required terms.
    friends: ByKey,
    /// Pods that match an anti-affinity term of this pod.
    foes: ByKey,
    /// Pods whose anti-affinity terms match this pod.
    haters: ByKey,
}

impl Rules {
    fn new(pod: &Arc<PodInfo>, world: &mut World) -> Self {
        let resolve = |terms: &[AffinityTerm]| terms.iter().map(|t| world.resolve(t)).collect::<Box<[_]>>();
        let mut rules = Self {
            required: resolve(&pod.terms.required),
            anti: resolve(&pod.terms.required_anti),
            namespace_labels: world.namespace_labels(&pod.namespace).cloned(),
            pod: Arc::clone(pod),
            friends: ByKey::default(),
            foes: ByKey::default(),
            haters: ByKey::default(),
        };
        rules.count_friends(&mut world.nodes);
        rules.count_foes(&mut world.nodes);
        rules.count_haters(&mut world.nodes);
        rules
    }

    fn is_empty(&self) -> bool {
        self.required.is_empty() && self.anti.is_empty() && self.haters.is_all_zero()
    }

    fn count_friends(&mut self, nodes: &mut Nodes) {
        if self.required.is_empty() {
            return;
        }
        let counts = nodes.count(Query::AllTerms(self.required.clone())).to_vec();
        for term in &self.required {
            add_rows(
                self.friends.domains(&term.topology_key, &mut nodes.labels),
                &counts,
                1,
            );
        }
    }

    fn count_foes(&mut self, nodes: &mut Nodes) {
        for term in &self.anti {
            let counts = nodes.count(Query::AllTerms(Box::new([term.clone()]))).to_vec();
            add_rows(
                self.foes.domains(&term.topology_key, &mut nodes.labels),
                &counts,
                1,
            );
        }
    }

    fn count_haters(&mut self, nodes: &mut Nodes) {
        let Nodes { owners, labels, .. } = nodes;
        for (owned, rows) in owners
            .iter()
            .filter(|(owned, _)| owned.kind == TermKind::RequiredAnti)
        {
            if owned.term.matches(&self.pod, self.namespace_labels.as_ref()) {
                let domains = self.haters.domains(&owned.term.topology_key, labels);
                rows.iter()
                    .for_each(|(row, pods)| domains.add(*row, (*pods).into()));
            }
        }
    }

    fn change(&mut self, other: &PodInfo, row: Row, by: i64) {
        for term in other.terms.required_anti.iter() {
            if term.matches(&self.pod, self.namespace_labels.as_ref())
                && let Some(domains) = self.haters.known(&term.topology_key)
            {
                domains.add(row, by);
            }
        }
        if matches_all(&self.required, other) {
            let keys = self.required.iter().map(|t| &t.topology_key);
            keys.for_each(|key| self.friends.known(key).into_iter().for_each(|d| d.add(row, by)));
        }
        for term in self.anti.iter().filter(|t| t.matches(other, None)) {
            self.foes
                .known(&term.topology_key)
                .into_iter()
                .for_each(|d| d.add(row, by));
        }
    }

    /// Every required term has a friend in the row's domain; or the pod is the first of its kind and its own friend.
    fn has_friends(&self, row: Row) -> bool {
        let mut all_present = true;
        for term in &self.required {
            match self.friends.get(&term.topology_key, row) {
                Some(pods) => all_present &= pods > 0,
                None => return false,
            }
        }
        all_present || (self.friends.is_all_zero() && matches_all(&self.required, &self.pod))
    }

    fn has_foes(&self, row: Row) -> bool {
        self.foes.any_positive(row)
    }
}

fn matches_all(terms: &[AffinityTerm], pod: &PodInfo) -> bool {
    !terms.is_empty() && terms.iter().all(|t| t.matches(pod, None))
}

fn add_rows(domains: &mut Domains, counts: &[u32], factor: i64) {
    for (row, pods) in (0..).zip(counts).filter(|(_, pods)| **pods > 0) {
        domains.add(row, i64::from(*pods) * factor);
    }
}

const NO_FRIENDS: u64 = 1;
const FOES: u64 = 1 << 1;
const HATERS: u64 = 1 << 2;

impl NodeFilter for Rules {
    fn reasons(&self) -> &[Cow<'static, str>] {
        &[
            Cow::Borrowed("node(s) didn't match pod affinity rules"),
            Cow::Borrowed("node(s) didn't match pod anti-affinity rules"),
            Cow::Borrowed("node(s) didn't satisfy existing pods anti-affinity rules"),
        ]
    }

    fn filter(&self, _nodes: &Nodes, block: &mut Block<'_>) {
        block.retain(|row| {
            if !self.required.is_empty() && !self.has_friends(row) {
                Verdict::Unresolvable(NO_FRIENDS)
            } else if self.has_foes(row) {
                Verdict::Unschedulable(FOES)
            } else if self.haters.any_positive(row) {
                Verdict::Unschedulable(HATERS)
            } else {
                Verdict::Pass
            }
        });
    }

    fn fork(&self) -> Option<Box<dyn NodeFilter>> {
        Some(Box::new(Self {
            pod: Arc::clone(&self.pod),
            namespace_labels: self.namespace_labels.clone(),
            required: self.required.clone(),
            anti: self.anti.clone(),
            friends: self.friends.clone(),
            foes: self.foes.clone(),
            haters: self.haters.clone(),
        }))
    }

    fn add_pod(&mut self, pod: &PodInfo, row: Row, _nodes: &Nodes) {
        self.change(pod, row, 1);
    }

    fn remove_pod(&mut self, pod: &PodInfo, row: Row, _nodes: &Nodes) {
        self.change(pod, row, -1);
    }
}

/// Weights by topology domain: of this pod's wishes, and of what placed pods wish about it.
#[derive(Default)]
struct Preferences(ByKeyScores);

type ByKeyScores = HashMap<Arc<str>, Domains>;

impl Preferences {
    fn domains(&mut self, key: &Arc<str>, labels: &mut LabelColumns) -> &mut Domains {
        self.0
            .entry(Arc::clone(key))
            .or_insert_with(|| Domains::new(labels.column(key)))
    }

    fn add_own(&mut self, terms: &[WeightedTerm], sign: i64, world: &mut World) {
        for weighted in terms {
            let term = world.resolve(&weighted.term);
            let key = Arc::clone(&term.topology_key);
            let counts = world.nodes.count(Query::AllTerms(Box::new([term]))).to_vec();
            let domains = self.domains(&key, &mut world.nodes.labels);
            add_rows(domains, &counts, sign * i64::from(weighted.weight));
        }
    }

    fn add_existing(&mut self, pod: &PodInfo, hard_weight: i32, world: &mut World) {
        let namespace_labels = world.namespaces.get(&pod.namespace);
        let Nodes { owners, labels, .. } = &mut world.nodes;
        for (OwnedTerm { kind, term }, rows) in owners.iter() {
            let weight = match kind {
                TermKind::Required => i64::from(hard_weight),
                TermKind::Preferred(weight) => i64::from(*weight),
                TermKind::PreferredAnti(weight) => -i64::from(*weight),
                TermKind::RequiredAnti => 0,
            };
            if weight != 0 && term.matches(pod, namespace_labels) {
                let domains = self.domains(&term.topology_key, labels);
                rows.iter()
                    .for_each(|(row, pods)| domains.add(*row, weight * i64::from(*pods)));
            }
        }
    }
}

impl NodeScorer for Preferences {
    fn score(&self, _nodes: &Nodes, rows: &[Row], out: &mut [i64]) {
        for (score, row) in out.iter_mut().zip(rows) {
            *score = self.0.values().filter_map(|domains| domains.get(*row)).sum();
        }
    }

    /// The range of scores is stretched over 0..=100, since they may be negative.
    fn normalize(&self, _rows: &[Row], scores: &mut [i64]) {
        let least = scores.iter().copied().min().unwrap_or(0);
        let most = scores.iter().copied().max().unwrap_or(0);
        let range = (most - least) as f64;
        for score in scores {
            let share = if most > least {
                (*score - least) as f64 / range
            } else {
                0.0
            };
            *score = (MAX_NODE_SCORE as f64 * share) as i64;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Filtering, PodBuilder, Scoring, node, pod};

    const WEB: &[(&str, &str)] = &[("app", "web")];

    fn zoned() -> Filtering {
        Filtering::new("InterPodAffinity")
            .node(node("a1").label("zone", "a"))
            .node(node("a2").label("zone", "a"))
            .node(node("b1").label("zone", "b"))
            .node(node("nozone"))
    }

    fn web(name: &str) -> PodBuilder {
        pod(name).label("app", "web")
    }

    #[test]
    fn affinity_wants_a_friend_in_the_same_domain() {
        let filtering = zoned().pod(web("x").on_node("a1"));
        let run = filtering.run(pod("p").affinity("zone", WEB).build());
        assert_eq!(run.passing, ["a1", "a2"]);
        assert_eq!(
            run.refusal("b1"),
            "unresolvable: node(s) didn't match pod affinity rules"
        );
        assert_eq!(
            run.refusal("nozone"),
            "unresolvable: node(s) didn't match pod affinity rules"
        );
    }

    #[test]
    fn the_first_of_a_kind_is_its_own_friend() {
        let run = zoned().run(web("p").affinity("zone", WEB).build());
        assert_eq!(run.passing, ["a1", "a2", "b1"]);
        assert!(
            zoned()
                .run(pod("p").affinity("zone", WEB).build())
                .passing
                .is_empty()
        );
    }

    #[test]
    fn anti_affinity_keeps_away_in_both_directions() {
        let run = zoned()
            .pod(web("x").on_node("a1"))
            .run(pod("p").anti_affinity("zone", WEB).build());
        assert_eq!(run.passing, ["b1", "nozone"]);
        assert_eq!(
            run.refusal("a2"),
            "resolvable: node(s) didn't match pod anti-affinity rules"
        );
        let run = zoned()
            .pod(pod("x").anti_affinity("zone", WEB).on_node("b1"))
            .run(web("p").build());
        assert_eq!(run.passing, ["a1", "a2", "nozone"]);
        assert_eq!(
            run.refusal("b1"),
            "resolvable: node(s) didn't satisfy existing pods anti-affinity rules"
        );
    }

    #[test]
    fn pods_of_other_namespaces_do_not_count() {
        let filtering = zoned().pod(web("x").namespace("other").on_node("a1"));
        assert_eq!(
            filtering
                .run(pod("p").anti_affinity("zone", WEB).build())
                .passing
                .len(),
            4
        );
    }

    #[test]
    fn preferences_of_both_sides_add_up_and_are_stretched() {
        let scores = Scoring::new("InterPodAffinity")
            .node(node("a").label("zone", "a"))
            .node(node("b").label("zone", "b"))
            .node(node("c").label("zone", "c"))
            .pod(web("x").on_node("a"))
            .pod(pod("y").prefer_anti(10, "zone", WEB).on_node("b"))
            .run(web("p").prefer_affinity(30, "zone", WEB).build());
        assert_eq!(scores, [("a", 100), ("b", 0), ("c", 25)]);
    }

    #[test]
    fn a_required_term_of_a_placed_pod_attracts_a_little() {
        let scores = Scoring::new("InterPodAffinity")
            .node(node("a").label("zone", "a"))
            .node(node("b").label("zone", "b"))
            .pod(pod("y").affinity("zone", WEB).on_node("b"))
            .run(web("p").build());
        assert_eq!(scores, [("a", 0), ("b", 100)]);
    }

    #[test]
    fn without_any_terms_nothing_is_scored() {
        let scores = Scoring::new("InterPodAffinity")
            .node(node("a"))
            .pod(web("x").on_node("a"))
            .run(web("p").build());
        assert_eq!(scores, []);
    }
}
