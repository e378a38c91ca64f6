//! Counters that make inter-pod rules cheap: how many pods match a query on each row, and which rows own a term.
//!
//! Without them, a rule about other pods costs a walk over every pod of the cluster for each decision. A query is
//! counted once when it is first asked and then follows pods as they come and go; equal queries of replicas share one
//! counter.

use std::collections::HashMap;
use std::sync::Arc;

use super::Row;
use crate::pod::{AffinityTerm, PodInfo};
use crate::selector::Selector;

/// Queries counted at the same time; the least recently asked makes room.
const MAX_QUERIES: usize = 512;

/// Which pods are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Query {
    /// Pods of one namespace that are not terminating (topology spread).
    Spread { namespace: Arc<str>, selector: Selector },
    /// Pods that every one of these terms matches (inter-pod affinity).
    AllTerms(Box<[AffinityTerm]>),
}

impl Query {
    /// Terms come with their namespace selector already replaced by the names that it selects.
    fn matches(&self, pod: &PodInfo) -> bool {
        match self {
            Self::Spread { namespace, selector } => {
                !pod.is_terminating()
                    && pod.namespace == *namespace
                    && !selector.is_everything()
                    && selector.matches(pod.labels())
            }
            Self::AllTerms(terms) => !terms.is_empty() && terms.iter().all(|t| t.matches(pod, None)),
        }
    }
}

struct Counter {
    by_row: Vec<u32>,
    last_asked: u64,
}

#[derive(Default)]
pub struct PodCounts {
    counters: HashMap<Query, Counter>,
    rows: usize,
    asked: u64,
}

impl PodCounts {
    pub fn grow(&mut self, rows: usize) {
        self.rows = rows;
        self.counters.values_mut().for_each(|c| c.by_row.resize(rows, 0));
    }

    pub fn add_pod(&mut self, row: Row, pod: &PodInfo) {
        self.each_match(pod, |counter| counter.by_row[row as usize] += 1);
    }

    pub fn remove_pod(&mut self, row: Row, pod: &PodInfo) {
        self.each_match(pod, |counter| counter.by_row[row as usize] -= 1);
    }

    fn each_match(&mut self, pod: &PodInfo, change: impl Fn(&mut Counter)) {
        let matching = self.counters.iter_mut().filter(|(query, _)| query.matches(pod));
        matching.for_each(|(_, counter)| change(counter));
    }

    /// Matching pods on each row.
    pub fn of<'a>(
        &mut self,
        query: Query,
        all_pods: impl Iterator<Item = (Row, &'a Arc<PodInfo>)>,
    ) -> &[u32] {
        self.asked += 1;
        if !self.counters.contains_key(&query) {
            self.make_room();
            let mut by_row = vec![0; self.rows];
            let matching = all_pods.filter(|(_, pod)| query.matches(pod));
            matching.for_each(|(row, _)| by_row[row as usize] += 1);
            self.counters.insert(
                query.clone(),
                Counter {
                    by_row,
                    last_asked: self.asked,
                },
            );
        }
        match self.counters.get_mut(&query) {
            Some(counter) => {
                counter.last_asked = self.asked;
                &counter.by_row
            }
            None => &[],
        }
    }

    fn make_room(&mut self) {
        if self.counters.len() < MAX_QUERIES {
            return;
        }
        let oldest = self
            .counters
            .iter()
            .min_by_key(|(_, c)| c.last_asked)
            .map(|(query, _)| query.clone());
        oldest.map(|query| self.counters.remove(&query));
    }
}

/// Why a pod on a row carries a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TermKind {
    Required,
    RequiredAnti,
    Preferred(i32),
    PreferredAnti(i32),
}

/// A term of pods that are already placed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnedTerm {
    pub kind: TermKind,
    pub term: AffinityTerm,
}

/// Distinct terms of placed pods, with the number of pods that carry each on every row.
#[derive(Default)]
pub struct TermOwners(HashMap<OwnedTerm, HashMap<Row, u32>>);

impl TermOwners {
    pub fn add_pod(&mut self, row: Row, pod: &PodInfo) {
        for owned in owned_terms(pod) {
            *self.0.entry(owned).or_default().entry(row).or_default() += 1;
        }
    }

    pub fn remove_pod(&mut self, row: Row, pod: &PodInfo) {
        for owned in owned_terms(pod) {
            let Some(rows) = self.0.get_mut(&owned) else {
                continue;
            };
            if let Some(count) = rows.get_mut(&row) {
                *count -= 1;
                if *count == 0 {
                    rows.remove(&row);
                }
            }
            if rows.is_empty() {
                self.0.remove(&owned);
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&OwnedTerm, &HashMap<Row, u32>)> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn owned_terms(pod: &PodInfo) -> impl Iterator<Item = OwnedTerm> + '_ {
    let terms = &pod.terms;
    let plain = |kind| {
        move |term: &AffinityTerm| OwnedTerm {
            kind,
            term: term.clone(),
        }
    };
    let required = terms.required.iter().map(plain(TermKind::Required));
    let anti = terms.required_anti.iter().map(plain(TermKind::RequiredAnti));
    let preferred = terms.preferred.iter();
    let preferred = preferred.map(|t| OwnedTerm {
        kind: TermKind::Preferred(t.weight),
        term: t.term.clone(),
    });
    let preferred_anti = terms.preferred_anti.iter();
    let preferred_anti = preferred_anti.map(|t| OwnedTerm {
        kind: TermKind::PreferredAnti(t.weight),
        term: t.term.clone(),
    });
    required.chain(anti).chain(preferred).chain(preferred_anti)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::Nodes;
    use crate::testing::{info, labels, node, pod};

    fn web_query() -> Query {
        Query::Spread {
            namespace: "default".into(),
            selector: Selector::from_map(&labels(&[("app", "web")])),
        }
    }

    fn ask(nodes: &mut Nodes, query: Query) -> Vec<u32> {
        nodes.count(query).to_vec()
    }

    #[test]
    fn a_counter_follows_pods_and_new_nodes() {
        let mut nodes = Nodes::default();
        nodes.put_node(Arc::new(node("a").build()));
        nodes.add_pod("a", info(pod("p1").label("app", "web").build()));
        assert_eq!(ask(&mut nodes, web_query()), [1]);
        nodes.put_node(Arc::new(node("b").build()));
        nodes.add_pod("b", info(pod("p2").label("app", "web").build()));
        nodes.add_pod("b", info(pod("p3").label("app", "db").build()));
        assert_eq!(ask(&mut nodes, web_query()), [1, 1]);
        nodes.remove_pod("a", "p1-uid");
        assert_eq!(ask(&mut nodes, web_query()), [0, 1]);
    }

    #[test]
    fn the_number_of_queries_is_bounded() {
        let mut nodes = Nodes::default();
        nodes.put_node(Arc::new(node("a").build()));
        for n in 0..2 * MAX_QUERIES {
            let selector = Selector::from_map(&labels(&[("n", &n.to_string())]));
            ask(
                &mut nodes,
                Query::Spread {
                    namespace: "default".into(),
                    selector,
                },
            );
        }
        assert_eq!(nodes.counts.counters.len(), MAX_QUERIES);
    }

    #[test]
    fn owners_of_a_term_leave_with_their_pods() {
        let mut nodes = Nodes::default();
        nodes.put_node(Arc::new(node("a").build()));
        for name in ["p1", "p2"] {
            nodes.add_pod(
                "a",
                info(pod(name).anti_affinity("zone", &[("app", "web")]).build()),
            );
        }
        let owners: Vec<u32> = nodes
            .owners
            .iter()
            .flat_map(|(_, rows)| rows.values().copied())
            .collect();
        assert_eq!(owners, [2]);
        nodes.remove_pod("a", "p1-uid");
        nodes.remove_pod("a", "p2-uid");
        assert!(nodes.owners.is_empty());
    }
}
