//! The plugins that one scheduler name runs, by extension point and in order.

use std::collections::HashMap;
use std::sync::Arc;

use super::events::{Actions, Kind};
use super::{Plugin, Point};

/// A plugin at an extension point.
#[derive(Clone)]
pub struct Enabled {
    pub plugin: Arc<dyn Plugin>,
    /// Counts at Score only.
    pub weight: i64,
}

pub struct Profile {
    pub scheduler_name: String,
    /// `None` takes the configuration's global value.
    pub percentage_of_nodes_to_score: Option<i32>,
    pub preemption: Preemption,
    points: HashMap<Point, Vec<Enabled>>,
}

/// DefaultPreemption's arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preemption {
    pub min_candidate_nodes_percentage: i64,
    pub min_candidate_nodes_absolute: i64,
}

impl Default for Preemption {
    fn default() -> Self {
        Self {
            min_candidate_nodes_percentage: 10,
            min_candidate_nodes_absolute: 100,
        }
    }
}

impl Profile {
    pub fn new(scheduler_name: &str, points: HashMap<Point, Vec<Enabled>>) -> Self {
        Self {
            scheduler_name: scheduler_name.to_owned(),
            percentage_of_nodes_to_score: None,
            preemption: Preemption::default(),
            points,
        }
    }

    pub fn at(&self, point: Point) -> &[Enabled] {
        self.points.get(&point).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn runs(&self, point: Point, plugin: &str) -> bool {
        self.at(point).iter().any(|e| e.plugin.name() == plugin)
    }

    /// Plugins that want to hear of such a change.
    pub fn interested(&self, kind: Kind, action: Actions) -> impl Iterator<Item = &Arc<dyn Plugin>> {
        let mut seen = Vec::new();
        let all = [Point::PreEnqueue, Point::PreFilter, Point::Filter]
            .into_iter()
            .flat_map(|p| self.at(p));
        let once = all.map(|e| &e.plugin).filter(move |plugin| {
            let new = !seen.contains(&plugin.name());
            seen.push(plugin.name());
            new
        });
        once.filter(move |plugin| plugin.events().iter().any(|(k, a)| *k == kind && a.meets(action)))
    }
}
