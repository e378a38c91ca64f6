//! The scheduling framework: upstream's extension points over columns instead of single nodes.
//!
//! A [`Plugin`] compiles a pod against the [`World`] into a [`NodeFilter`] (PreFilter) that judges whole blocks of
//! rows (Filter), and into a [`NodeScorer`] (PreScore) that scores all feasible rows at once (Score, NormalizeScore).
//! [`block`] carries rows and refusals through the filters, [`diagnosis`] turns refusals into upstream's message,
//! [`events`] says which change may help which refused pod, [`profile`] holds the plugins that one scheduler name runs.

pub mod block;
pub mod diagnosis;
pub mod events;
pub mod profile;
pub mod world;

use std::borrow::Cow;
use std::sync::Arc;

use crate::nodes::{Nodes, Row};
use crate::pod::PodInfo;
use block::Block;
use events::{Actions, Event, Hint, Kind};
use world::World;

/// Scores of one plugin lie between 0 and this, before its weight.
pub const MAX_NODE_SCORE: i64 = 100;

/// The extension points, as the configuration names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Point {
    PreEnqueue,
    QueueSort,
    PreFilter,
    Filter,
    PostFilter,
    PreScore,
    Score,
    Reserve,
    Permit,
    PreBind,
    Bind,
    PostBind,
}

impl Point {
    pub const ALL: [Self; 12] = [
        Self::PreEnqueue,
        Self::QueueSort,
        Self::PreFilter,
        Self::Filter,
        Self::PostFilter,
        Self::PreScore,
        Self::Score,
        Self::Reserve,
        Self::Permit,
        Self::PreBind,
        Self::Bind,
        Self::PostBind,
    ];
}

/// Why a pod cannot go anywhere, or not yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub message: String,
}

/// What a plugin's PreFilter says about a pod.
pub enum PreFilter {
    /// The plugin has nothing to do with this pod.
    Skip,
    /// Ask the filter about rows.
    Filter(Box<dyn NodeFilter>),
    /// Only nodes of these names can do, and the filter must still agree.
    Only(Vec<String>, Box<dyn NodeFilter>),
    /// No node can do, whatever pods are removed.
    Reject(Rejection),
}

/// A plugin. Members are stateless: what a decision needs is compiled for it and dropped after it.
pub trait Plugin: Send + Sync {
    fn name(&self) -> &'static str;

    /// The extension points at which the plugin acts when a profile enables it as a whole.
    fn points(&self) -> &'static [Point];

    /// Changes that may make a pod schedulable that this plugin refused.
    fn events(&self) -> &'static [(Kind, Actions)] {
        &[]
    }

    /// Whether this change, one of [`Plugin::events`], is worth another try for this pod.
    fn hint(&self, _pod: &PodInfo, _event: &Event<'_>) -> Hint {
        Hint::Queue
    }

    /// Whether the pod may enter the active queue at all.
    fn pre_enqueue(&self, _pod: &PodInfo) -> Result<(), Rejection> {
        Ok(())
    }

    fn pre_filter(&self, _pod: &Arc<PodInfo>, _world: &mut World) -> PreFilter {
        PreFilter::Skip
    }

    /// `None` leaves the plugin out of this decision's scores.
    fn pre_score(
        &self,
        _pod: &Arc<PodInfo>,
        _world: &mut World,
        _feasible: &[Row],
    ) -> Option<Box<dyn NodeScorer>> {
        None
    }
}

/// A pod's demands, compiled by one plugin for one decision.
pub trait NodeFilter: Send {
    /// What a refusal may say; a [`block::Verdict`] names them by position.
    fn reasons(&self) -> &[Cow<'static, str>];

    fn filter(&self, nodes: &Nodes, block: &mut Block<'_>);

    /// A copy to play with, if the filter depends on other pods.
    fn fork(&self) -> Option<Box<dyn NodeFilter>> {
        None
    }

    /// As if this pod were on the row too.
    fn add_pod(&mut self, _pod: &PodInfo, _row: Row, _nodes: &Nodes) {}

    /// As if this pod had left the row.
    fn remove_pod(&mut self, _pod: &PodInfo, _row: Row, _nodes: &Nodes) {}
}

/// A pod's preferences, compiled by one plugin for one decision.
pub trait NodeScorer: Send {
    /// `out[i]` becomes the raw score of `rows[i]`.
    fn score(&self, nodes: &Nodes, rows: &[Row], out: &mut [i64]);

    /// Brings raw scores into 0..=[`MAX_NODE_SCORE`].
    fn normalize(&self, _rows: &[Row], _scores: &mut [i64]) {}
}

/// Upstream's usual normalisation: relative to the largest score, optionally upside down.
pub fn default_normalize(reverse: bool, scores: &mut [i64]) {
    let largest = scores.iter().copied().max().unwrap_or(0).max(0);
    for score in scores {
        let scaled = if largest == 0 {
            0
        } else {
            MAX_NODE_SCORE * *score / largest
        };
        *score = if reverse { MAX_NODE_SCORE - scaled } else { scaled };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalisation_is_relative_to_the_largest_score() {
        let run = |reverse, scores: &[i64]| {
            let mut scores = scores.to_vec();
            default_normalize(reverse, &mut scores);
            scores
        };
        assert_eq!(run(false, &[0, 1, 3]), [0, 33, 100]);
        assert_eq!(run(true, &[0, 1, 3]), [100, 67, 0]);
        assert_eq!(run(false, &[0, 0]), [0, 0]);
        assert_eq!(run(true, &[0, 0]), [100, 100]);
    }
}
