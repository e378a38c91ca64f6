//! Default preemption: the node where evicting the least important pods lets the pod in.

use std::cmp::Reverse;
use std::sync::Arc;

use super::decide::{Cycle, Forked, NoFit, count_reasons};
use crate::framework::block::Refusal;
use crate::framework::diagnosis::Diagnosis;
use crate::framework::world::{Budget, World};
use crate::nodes::Row;
use crate::pod::PodInfo;

/// Pods to evict so that another fits.
#[derive(Clone, Debug)]
pub struct Preemption {
    pub node: Arc<str>,
    /// Most important first; those that are going anyway included.
    pub victims: Vec<Arc<PodInfo>>,
    /// Pods of lower priority that were promised this node and must look elsewhere.
    pub demoted: Vec<Arc<PodInfo>>,
}

/// What the search found.
#[derive(Default)]
pub struct Search {
    /// For the pod's condition; empty on success.
    pub message: String,
    /// As [`super::Refused::nominated`].
    pub nominated: Option<String>,
    pub preemption: Option<Preemption>,
}

struct Candidate {
    row: Row,
    victims: Vec<Arc<PodInfo>>,
    broken_budgets: usize,
}

const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";

pub fn search(cycle: &mut Cycle<'_>, no_fit: &NoFit) -> Search {
    if let Some(reason) = ineligible(cycle, no_fit) {
        return Search {
            message: format!("preemption: {reason}"),
            ..Search::default()
        };
    }
    let resolvable: Vec<Row> = no_fit
        .refusals
        .iter()
        .filter(|r| r.resolvable)
        .map(|r| r.row)
        .collect();
    let mut diagnosis = Diagnosis {
        total_nodes: cycle.world.nodes.len(),
        ..Diagnosis::default()
    };
    let candidates = candidates(cycle, no_fit, &resolvable, &mut diagnosis);
    let Some(best) = pick(candidates) else {
        let told: usize = diagnosis.reasons.values().sum();
        let untold = diagnosis.total_nodes.saturating_sub(told.min(resolvable.len()));
        if untold > 0 {
            diagnosis.add(NOT_HELPFUL, untold);
        }
        let message = format!("preemption: {}", diagnosis.message());
        return Search {
            message,
            nominated: Some(String::new()),
            preemption: None,
        };
    };
    let node = Arc::clone(cycle.world.nodes.name(best.row));
    let lower = |p: &&Arc<PodInfo>| p.priority < cycle.pod.priority;
    let demoted = cycle.nominator.on(&node).iter().filter(lower).cloned().collect();
    let preemption = Preemption {
        node: Arc::clone(&node),
        victims: best.victims,
        demoted,
    };
    Search {
        message: String::new(),
        nominated: Some(node.to_string()),
        preemption: Some(preemption),
    }
}

/// Why this pod may not evict others now.
fn ineligible(cycle: &Cycle<'_>, no_fit: &NoFit) -> Option<&'static str> {
    let policy = cycle.pod.spec().and_then(|s| s.preemption_policy.as_deref());
    if policy == Some("Never") {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let row = cycle.world.nodes.row(cycle.pod.nominated_node())?;
    if no_fit.refusals.iter().any(|r| r.row == row && !r.resolvable) {
        return None;
    }
    let going = |p: &Arc<PodInfo>| p.priority < cycle.pod.priority && is_preempted(p);
    let waits = cycle.world.nodes.pods_on(row).iter().any(going);
    waits.then_some("not eligible due to a terminating pod on the nominated node.")
}

/// Terminating because a scheduler evicted it.
fn is_preempted(pod: &PodInfo) -> bool {
    let mut conditions = pod
        .status()
        .into_iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let disrupted = conditions.find(|c| c.type_ == "DisruptionTarget");
    pod.is_terminating()
        && disrupted
            .is_some_and(|c| c.status == "True" && c.reason.as_deref() == Some("PreemptionByScheduler"))
}

/// Tries rows from a random one on, until there are enough candidates and one that breaks no budget.
fn candidates(
    cycle: &mut Cycle<'_>,
    no_fit: &NoFit,
    rows: &[Row],
    diagnosis: &mut Diagnosis,
) -> Vec<Candidate> {
    let enough = wanted_candidates(cycle, rows.len());
    let offset = cycle.random.below(rows.len());
    let (mut found, mut harmless, mut refusals) = (Vec::new(), false, Vec::new());
    for at in 0..rows.len() {
        let row = rows[(offset + at) % rows.len()];
        match try_row(cycle, no_fit, row) {
            Ok(candidate) => {
                harmless |= candidate.broken_budgets == 0;
                found.push(candidate);
                if harmless && found.len() >= enough {
                    break;
                }
            }
            Err(Some(refusal)) => refusals.push(refusal),
            Err(None) => diagnosis.add(NO_VICTIMS, 1),
        }
    }
    count_reasons(diagnosis, &no_fit.filters, &refusals);
    found
}

fn wanted_candidates(cycle: &Cycle<'_>, rows: usize) -> usize {
    let args = cycle.profile.preemption;
    let rows = rows as i64;
    let share = rows * args.min_candidate_nodes_percentage / 100;
    share.max(args.min_candidate_nodes_absolute).min(rows).max(0) as usize
}

/// The fewest, least important victims on the row. `Err(None)` if there is nobody to evict, or the refusal that stays
/// when all lesser pods are gone.
fn try_row(cycle: &mut Cycle<'_>, no_fit: &NoFit, row: Row) -> Result<Candidate, Option<Refusal>> {
    let lesser = |p: &&Arc<PodInfo>| p.priority < cycle.pod.priority;
    let mut potential: Vec<Arc<PodInfo>> = cycle
        .world
        .nodes
        .pods_on(row)
        .iter()
        .filter(lesser)
        .cloned()
        .collect();
    if potential.is_empty() {
        return Err(None);
    }
    let mut trial = Trial {
        cycle,
        no_fit,
        forked: Forked::new(&no_fit.filters),
        row,
        removed: Vec::new(),
    };
    potential.iter().for_each(|p| trial.remove(p));
    if let Some(refusal) = trial.refusal() {
        trial.restore();
        return Err(Some(refusal));
    }
    potential.sort_by_key(|p| importance(p));
    let (violating, harmless) = by_budget(trial.cycle.world, potential);
    let mut broken_budgets = 0;
    for (pod, violates) in violating
        .into_iter()
        .map(|p| (p, true))
        .chain(harmless.into_iter().map(|p| (p, false)))
    {
        trial.put_back(&pod);
        if trial.refusal().is_some() {
            trial.remove(&pod);
            broken_budgets += usize::from(violates);
        }
    }
    let mut victims = trial.restore();
    victims.sort_by_key(|p| importance(p));
    Ok(Candidate {
        row,
        victims,
        broken_budgets,
    })
}

/// Sorts the most important first: higher priority, then the longer run.
fn importance(pod: &PodInfo) -> (Reverse<i32>, bool, Option<String>) {
    let started = pod.start_time().map(|t| t.0.to_string());
    // A pod that has not started yet is the youngest. RFC 3339 in UTC sorts as time does.
    (Reverse(pod.priority), started.is_none(), started)
}

/// A row with some of its pods taken away, for as long as this lives; [`Trial::restore`] ends it.
struct Trial<'c, 'a> {
    cycle: &'c mut Cycle<'a>,
    no_fit: &'c NoFit,
    forked: Forked<'c>,
    row: Row,
    removed: Vec<Arc<PodInfo>>,
}

impl Trial<'_, '_> {
    fn remove(&mut self, pod: &Arc<PodInfo>) {
        self.cycle.world.nodes.account(self.row, pod, -1);
        self.forked
            .each(|filter| filter.remove_pod(pod, self.row, &self.cycle.world.nodes));
        self.removed.push(Arc::clone(pod));
    }

    fn put_back(&mut self, pod: &Arc<PodInfo>) {
        self.cycle.world.nodes.account(self.row, pod, 1);
        self.forked
            .each(|filter| filter.add_pod(pod, self.row, &self.cycle.world.nodes));
        self.removed.retain(|p| p.uid != pod.uid);
    }

    fn refusal(&mut self) -> Option<Refusal> {
        let refusal = self.forked.refusal(&self.cycle.world.nodes, self.row);
        // Filters that do not depend on other pods see promised pods through the columns.
        refusal.or_else(|| self.refusal_with_promised())
    }

    fn refusal_with_promised(&mut self) -> Option<Refusal> {
        let name = Arc::clone(self.cycle.world.nodes.name(self.row));
        let counts = |p: &&Arc<PodInfo>| p.priority >= self.cycle.pod.priority && p.uid != self.cycle.pod.uid;
        let promised: Vec<Arc<PodInfo>> = self
            .cycle
            .nominator
            .on(&name)
            .iter()
            .filter(counts)
            .cloned()
            .collect();
        if promised.is_empty() {
            return None;
        }
        let mut forked = Forked::new(&self.no_fit.filters);
        let nodes = &mut self.cycle.world.nodes;
        forked.each(|f| self.removed.iter().for_each(|p| f.remove_pod(p, self.row, nodes)));
        for pod in &promised {
            nodes.account(self.row, pod, 1);
            forked.each(|filter| filter.add_pod(pod, self.row, nodes));
        }
        let refusal = forked.refusal(nodes, self.row);
        promised.iter().for_each(|pod| nodes.account(self.row, pod, -1));
        refusal
    }

    /// Puts everything back and tells what was missing.
    fn restore(self) -> Vec<Arc<PodInfo>> {
        self.removed
            .iter()
            .for_each(|pod| self.cycle.world.nodes.account(self.row, pod, 1));
        self.removed
    }
}

/// Pods whose eviction would break a disruption budget, and the others; both keep their order.
fn by_budget(world: &World, pods: Vec<Arc<PodInfo>>) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let budgets: Vec<&Budget> = world.budgets.values().collect();
    let mut left: Vec<i32> = budgets.iter().map(|b| b.disruptions_allowed).collect();
    pods.into_iter().partition(|pod| {
        let mut violated = false;
        for (budget, left) in budgets.iter().zip(&mut left) {
            let applies = budget.namespace == pod.namespace
                && !budget.selector.is_everything()
                && budget.selector.matches(pod.labels())
                && !budget.disrupted.iter().any(|name| *name == *pod.name);
            if applies {
                *left -= 1;
                violated |= *left < 0;
            }
        }
        violated
    })
}

/// Fewest broken budgets, then the least important victims, then the fewest, then those that started last.
fn pick(candidates: Vec<Candidate>) -> Option<Candidate> {
    candidates.into_iter().min_by_key(|c| {
        let highest = c.victims.first().map_or(i32::MIN, |p| p.priority);
        let shifted = |p: &Arc<PodInfo>| i64::from(p.priority) + i64::from(i32::MAX) + 1;
        let sum: i64 = c.victims.iter().map(shifted).sum();
        let most_important = c.victims.iter().take_while(|p| p.priority == highest);
        let earliest = most_important
            .filter_map(|p| p.start_time().map(|t| t.0.to_string()))
            .min();
        (c.broken_budgets, highest, sum, c.victims.len(), Reverse(earliest))
    })
}
