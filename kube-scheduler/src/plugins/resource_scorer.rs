//! What NodeResourcesFit and NodeResourcesBalancedAllocation share: a pod's request against each node's use.

use std::sync::Arc;

use serde::Deserialize;

use crate::framework::NodeScorer;
use crate::nodes::{Nodes, Row};
use crate::pod::PodInfo;
use crate::resources::is_scalar_name;

/// A resource that counts in a score.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceSpec {
    pub name: String,
    #[serde(default)]
    pub weight: i64,
}

/// CPU and memory alike, unless the configuration says otherwise; a weight of zero means one.
pub fn or_default(resources: Vec<ResourceSpec>) -> Result<Vec<ResourceSpec>, String> {
    let both = || {
        ["cpu", "memory"]
            .map(|name| ResourceSpec {
                name: name.to_owned(),
                weight: 1,
            })
            .to_vec()
    };
    let mut resources = if resources.is_empty() { both() } else { resources };
    for resource in &mut resources {
        if resource.weight == 0 {
            resource.weight = 1;
        }
        if !(1..=100).contains(&resource.weight) {
            let (name, weight) = (&resource.name, resource.weight);
            return Err(format!(
                "resources: weight {weight} of {name} is not in valid range 1-100"
            ));
        }
    }
    Ok(resources)
}

/// One resource of one node, with and without the pod.
#[derive(Clone, Copy)]
pub struct Use {
    pub requested: i64,
    pub allocated: i64,
    /// Zero leaves the resource out.
    pub allocatable: i64,
    pub weight: i64,
}

/// From the uses of all resources to a score.
pub type Formula = Box<dyn Fn(&[Use]) -> i64 + Send + Sync>;

/// The pod's request for each resource, and which view of the nodes it is compared with.
pub struct ResourceScorer {
    pub formula: Arc<Formula>,
    pub request: Vec<(ResourceSpec, i64)>,
    /// Count containers without requests with the defaults.
    pub non_zero: bool,
}

/// The pod's request for each of the resources.
pub fn request(pod: &PodInfo, resources: &[ResourceSpec], non_zero: bool) -> Vec<(ResourceSpec, i64)> {
    let amount = |name: &str| match name {
        "cpu" if non_zero => pod.non_zero_cpu,
        "memory" if non_zero => pod.non_zero_memory,
        _ => pod.requests.get(name),
    };
    resources.iter().map(|r| (r.clone(), amount(&r.name))).collect()
}

impl NodeScorer for ResourceScorer {
    fn score(&self, nodes: &Nodes, rows: &[Row], out: &mut [i64]) {
        let compare = |(spec, wanted): &(ResourceSpec, i64)| self.column(nodes, spec, *wanted);
        let columns: Vec<_> = self.request.iter().filter_map(compare).collect();
        let mut uses = Vec::with_capacity(columns.len());
        for (score, row) in out.iter_mut().zip(rows) {
            let at = *row as usize;
            uses.clear();
            uses.extend(columns.iter().map(|c| Use {
                requested: c.used[at] + c.wanted,
                allocated: c.used[at],
                allocatable: c.allocatable[at],
                weight: c.weight,
            }));
            *score = (self.formula)(&uses);
        }
    }
}

impl ResourceScorer {
    /// `None` for an extended resource that the pod does not ask for: it is left out of the score.
    fn column<'n>(&self, nodes: &'n Nodes, spec: &ResourceSpec, wanted: i64) -> Option<Compared<'n>> {
        if wanted == 0 && is_scalar_name(&spec.name) {
            return None;
        }
        let column = nodes.column(&spec.name)?;
        let used = match &*spec.name {
            "cpu" if self.non_zero => &nodes.non_zero_cpu,
            "memory" if self.non_zero => &nodes.non_zero_memory,
            _ => &column.requested,
        };
        Some(Compared {
            used,
            allocatable: &column.allocatable,
            wanted,
            weight: spec.weight,
        })
    }
}

struct Compared<'n> {
    used: &'n [i64],
    allocatable: &'n [i64],
    wanted: i64,
    weight: i64,
}
