//! One decision: which nodes can take the pod, and which of them is best.

use std::sync::Arc;

use super::{Random, promised_rows};
use crate::framework::block::{Block, Refusal};
use crate::framework::diagnosis::Diagnosis;
use crate::framework::profile::Profile;
use crate::framework::world::World;
use crate::framework::{NodeFilter, Point, PreFilter};
use crate::nodes::{Nodes, Row};
use crate::pod::PodInfo;
use crate::queue::nominator::Nominator;

/// A cluster with fewer nodes is always searched whole.
const MIN_FEASIBLE_NODES: usize = 100;
const MIN_PERCENTAGE: usize = 5;
/// Rows that go through all filters together: their columns stay in the processor's cache.
const BLOCK_ROWS: usize = 256;

/// Everything that one decision touches.
pub struct Cycle<'a> {
    pub profile: &'a Profile,
    pub world: &'a mut World,
    pub nominator: &'a Nominator,
    pub pod: &'a Arc<PodInfo>,
    pub percentage: i32,
    /// Where the search goes on, so that all nodes get their turn.
    pub next_start: &'a mut usize,
    pub random: &'a mut Random,
}

pub struct Choice {
    pub node: Arc<str>,
    pub evaluated: usize,
    pub feasible: usize,
}

pub enum Failure {
    NoNodes,
    NoFit(Box<NoFit>),
}

/// No node can take the pod, with what preemption needs to know.
pub struct NoFit {
    pub diagnosis: Diagnosis,
    pub refusals: Vec<Refusal>,
    pub filters: Filters,
}

/// The filters of one decision, with the plugin that each belongs to.
pub type Filters = Vec<(&'static str, Box<dyn NodeFilter>)>;

impl Cycle<'_> {
    pub fn run(&mut self) -> Result<Choice, Failure> {
        if self.world.nodes.is_empty() {
            return Err(Failure::NoNodes);
        }
        let prepared = match self.pre_filter() {
            Ok(prepared) => prepared,
            Err(diagnosis) => {
                let no_fit = NoFit {
                    diagnosis,
                    refusals: Vec::new(),
                    filters: Vec::new(),
                };
                return Err(Failure::NoFit(Box::new(no_fit)));
            }
        };
        if let Some(row) = self
            .nominated_row()
            .filter(|row| self.fits_alone(&prepared.filters, *row))
        {
            return Ok(self.choice(row, 1, 1));
        }
        let mut refusals = Vec::new();
        let feasible = self.feasible(&prepared, &mut refusals);
        let evaluated = feasible.len() + refusals.len();
        *self.next_start = (*self.next_start + evaluated) % self.world.nodes.len();
        match feasible.as_slice() {
            [] => Err(Failure::NoFit(Box::new(self.no_fit(prepared, refusals)))),
            [only] => Ok(self.choice(*only, evaluated, 1)),
            several => {
                let best = self.best(several);
                Ok(self.choice(best, evaluated, several.len()))
            }
        }
    }

    fn choice(&self, row: Row, evaluated: usize, feasible: usize) -> Choice {
        Choice {
            node: Arc::clone(self.world.nodes.name(row)),
            evaluated,
            feasible,
        }
    }

    fn nominated_row(&self) -> Option<Row> {
        self.world.nodes.row(self.pod.nominated_node())
    }

    /// Compiles the pod for every filter plugin; a plugin may rule out all nodes, or all but a few.
    fn pre_filter(&mut self) -> Result<Prepared, Diagnosis> {
        let mut prepared = Prepared {
            filters: Vec::new(),
            only: None,
        };
        for enabled in self.profile.at(Point::Filter) {
            let name = enabled.plugin.name();
            match enabled.plugin.pre_filter(self.pod, self.world) {
                PreFilter::Skip => {}
                PreFilter::Filter(filter) => prepared.filters.push((name, filter)),
                PreFilter::Only(names, filter) => {
                    prepared.filters.push((name, filter));
                    prepared.only = Some((name, names));
                }
                PreFilter::Reject(rejection) => {
                    return Err(Diagnosis {
                        total_nodes: self.world.nodes.len(),
                        pre_filter: Some(rejection.message),
                        plugins: [name].into(),
                        ..Diagnosis::default()
                    });
                }
            }
        }
        Ok(prepared)
    }

    /// Rows that pass, up to the number that is worth scoring.
    fn feasible(&mut self, prepared: &Prepared, refusals: &mut Vec<Refusal>) -> Vec<Row> {
        let candidates = self.candidates(prepared);
        let wanted = self.feasible_wanted(candidates.len());
        let promised = promised_rows(self.world, self.nominator, self.pod);
        let mut feasible = Vec::with_capacity(wanted.min(candidates.len()));
        let mut block = Vec::with_capacity(BLOCK_ROWS);
        for rows in candidates.chunks(BLOCK_ROWS) {
            block.clear();
            block.extend(rows.iter().copied().filter(|row| !promised.contains(row)));
            run_filters(&prepared.filters, &self.world.nodes, &mut block, refusals);
            for row in rows.iter().filter(|row| promised.contains(row)) {
                match self.refusal_beside_promised(&prepared.filters, *row) {
                    Some(refusal) => refusals.push(refusal),
                    None => block.push(*row),
                }
            }
            feasible.extend(block.iter().take(wanted - feasible.len()));
            if feasible.len() == wanted {
                break;
            }
        }
        feasible
    }

    /// All rows from where the last search ended, or those that a plugin named.
    fn candidates(&mut self, prepared: &Prepared) -> Vec<Row> {
        if let Some((_, names)) = &prepared.only {
            return names
                .iter()
                .filter_map(|name| self.world.nodes.row(name))
                .collect();
        }
        let order = self.world.nodes.order();
        let (before, after) = order.split_at(*self.next_start % order.len());
        [after, before].concat()
    }

    /// How many feasible nodes end the search.
    fn feasible_wanted(&self, nodes: usize) -> usize {
        if self.profile.at(Point::Score).is_empty() {
            return 1;
        }
        if nodes < MIN_FEASIBLE_NODES {
            return nodes;
        }
        let configured = self
            .profile
            .percentage_of_nodes_to_score
            .unwrap_or(self.percentage);
        let percentage = match usize::try_from(configured).unwrap_or(0) {
            0 => 50_usize.saturating_sub(nodes / 125).max(MIN_PERCENTAGE),
            percentage => percentage,
        };
        (nodes * percentage / 100).max(MIN_FEASIBLE_NODES)
    }

    fn fits_alone(&mut self, filters: &Filters, row: Row) -> bool {
        self.refusal_beside_promised(filters, row).is_none()
    }

    /// Judges a row as if pods of at least our priority that are promised to it were there, and then as it is: both
    /// must pass, for a promised pod may also be what makes affinity hold.
    pub fn refusal_beside_promised(&mut self, filters: &Filters, row: Row) -> Option<Refusal> {
        let promised = self.nominator.on(self.world.nodes.name(row));
        let counts = |p: &&Arc<PodInfo>| p.priority >= self.pod.priority && p.uid != self.pod.uid;
        let promised: Vec<&Arc<PodInfo>> = promised.iter().filter(counts).collect();
        if !promised.is_empty() {
            let mut forked = Forked::new(filters);
            for pod in &promised {
                self.world.nodes.account(row, pod, 1);
                forked.each(|filter| filter.add_pod(pod, row, &self.world.nodes));
            }
            let refusal = forked.refusal(&self.world.nodes, row);
            promised
                .iter()
                .for_each(|pod| self.world.nodes.account(row, pod, -1));
            if refusal.is_some() {
                return refusal;
            }
        }
        let mut refused = Vec::new();
        run_filters(filters, &self.world.nodes, &mut vec![row], &mut refused);
        refused.pop()
    }

    fn no_fit(&self, prepared: Prepared, refusals: Vec<Refusal>) -> NoFit {
        let total = self.world.nodes.len();
        let mut diagnosis = Diagnosis {
            total_nodes: total,
            ..Diagnosis::default()
        };
        count_reasons(&mut diagnosis, &prepared.filters, &refusals);
        if let Some((plugin, _)) = prepared.only {
            diagnosis.plugins.insert(plugin);
            let absent = total - refusals.len();
            if absent > 0 {
                diagnosis.add(&format!("node(s) didn't satisfy plugin(s) [{plugin}]"), absent);
            }
        }
        NoFit {
            diagnosis,
            refusals,
            filters: prepared.filters,
        }
    }

    /// The row with the highest weighted score; among equals, one at random.
    fn best(&mut self, feasible: &[Row]) -> Row {
        let mut totals = vec![0; feasible.len()];
        let mut scores = vec![0; feasible.len()];
        for enabled in self.profile.at(Point::Score) {
            let Some(scorer) = enabled.plugin.pre_score(self.pod, self.world, feasible) else {
                continue;
            };
            scorer.score(&self.world.nodes, feasible, &mut scores);
            scorer.normalize(feasible, &mut scores);
            for (total, score) in totals.iter_mut().zip(&scores) {
                *total += score * enabled.weight;
            }
        }
        let highest = totals.iter().copied().max().unwrap_or(0);
        let ties = totals.iter().filter(|t| **t == highest).count();
        let pick = self.random.below(ties);
        let mut tied = feasible
            .iter()
            .zip(&totals)
            .filter(|(_, total)| **total == highest);
        tied.nth(pick).map_or(feasible[0], |(row, _)| *row)
    }
}

/// The pod as the filters see it.
struct Prepared {
    filters: Filters,
    /// Names of the only nodes that can do, and the plugin that says so.
    only: Option<(&'static str, Vec<String>)>,
}

pub fn run_filters(filters: &Filters, nodes: &Nodes, rows: &mut Vec<Row>, refused: &mut Vec<Refusal>) {
    for (by, (_, filter)) in (0..).zip(filters) {
        if rows.is_empty() {
            return;
        }
        filter.filter(nodes, &mut Block { rows, refused, by });
    }
}

/// Adds each refusal's reasons and plugin to the diagnosis.
pub fn count_reasons(diagnosis: &mut Diagnosis, filters: &Filters, refusals: &[Refusal]) {
    let mut counts: Vec<[usize; 64]> = vec![[0; 64]; filters.len()];
    for refusal in refusals {
        let of_filter = &mut counts[usize::from(refusal.by)];
        let mut bits = refusal.reasons;
        while bits != 0 {
            of_filter[bits.trailing_zeros() as usize] += 1;
            bits &= bits - 1;
        }
    }
    for ((plugin, filter), counts) in filters.iter().zip(&counts) {
        for (reason, count) in filter
            .reasons()
            .iter()
            .zip(counts)
            .filter(|(_, count)| **count > 0)
        {
            diagnosis.add(reason, *count);
            diagnosis.plugins.insert(plugin);
        }
    }
}

/// Filters of which those that depend on other pods are copies, to be played with.
pub struct Forked<'a> {
    filters: &'a Filters,
    copies: Vec<Option<Box<dyn NodeFilter>>>,
}

impl<'a> Forked<'a> {
    pub fn new(filters: &'a Filters) -> Self {
        Self {
            filters,
            copies: filters.iter().map(|(_, f)| f.fork()).collect(),
        }
    }

    pub fn each(&mut self, mut change: impl FnMut(&mut dyn NodeFilter)) {
        for copy in self.copies.iter_mut().flatten() {
            change(copy.as_mut());
        }
    }

    pub fn refusal(&self, nodes: &Nodes, row: Row) -> Option<Refusal> {
        let (mut rows, mut refused) = (vec![row], Vec::new());
        for (by, ((_, original), copy)) in (0..).zip(self.filters.iter().zip(&self.copies)) {
            let filter = copy.as_ref().unwrap_or(original);
            filter.filter(
                nodes,
                &mut Block {
                    rows: &mut rows,
                    refused: &mut refused,
                    by,
                },
            );
            if rows.is_empty() {
                break;
            }
        }
        refused.pop()
    }
}
