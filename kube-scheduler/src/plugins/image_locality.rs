//! ImageLocality: prefers nodes that already have the pod's images.

use std::sync::Arc;

use serde_json::Value;

use crate::framework::world::World;
use crate::framework::{MAX_NODE_SCORE, NodeScorer, Plugin, Point};
use crate::nodes::{Nodes, Row};
use crate::pod::PodInfo;

const MB: i64 = 1024 * 1024;
/// Images smaller than this together make no difference.
const MIN_THRESHOLD: i64 = 23 * MB;
/// A container's image counts up to this size.
const MAX_CONTAINER_THRESHOLD: i64 = 1000 * MB;

struct ImageLocality;

pub fn make(_args: &Value) -> Result<Arc<dyn Plugin>, String> {
    Ok(Arc::new(ImageLocality))
}

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::Score]
    }

    fn pre_score(
        &self,
        pod: &Arc<PodInfo>,
        world: &mut World,
        feasible: &[Row],
    ) -> Option<Box<dyn NodeScorer>> {
        let spec = pod.spec()?;
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let volumes = spec.volumes.iter().flatten().filter_map(|v| v.image.as_ref());
        let names = containers.clone().filter_map(|c| c.image.as_deref());
        let names = names.chain(volumes.filter_map(|v| v.reference.as_deref()));
        let mut sums = vec![0; world.nodes.capacity()];
        let total = world.nodes.len();
        for image in names.filter_map(|name| world.nodes.images.get(name)) {
            image
                .rows()
                .iter()
                .for_each(|row| sums[*row as usize] += image.scaled_size(total));
        }
        // Below the threshold every node scores 0.
        feasible
            .iter()
            .any(|row| sums[*row as usize] > MIN_THRESHOLD)
            .then(|| {
                let containers = containers.count() as i64;
                Box::new(Locality { sums, containers }) as Box<dyn NodeScorer>
            })
    }
}

struct Locality {
    /// By row.
    sums: Vec<i64>,
    containers: i64,
}

impl NodeScorer for Locality {
    fn score(&self, _nodes: &Nodes, rows: &[Row], out: &mut [i64]) {
        let max_threshold = MAX_CONTAINER_THRESHOLD * self.containers;
        for (score, row) in out.iter_mut().zip(rows) {
            let sum = self.sums[*row as usize].clamp(MIN_THRESHOLD, max_threshold);
            *score = MAX_NODE_SCORE * (sum - MIN_THRESHOLD) / (max_threshold - MIN_THRESHOLD);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::MB;
    use crate::testing::{Scoring, node, pod};

    #[test]
    fn large_local_images_attract_by_size_and_spread() {
        let scores = Scoring::new("ImageLocality")
            .node(node("both").image("web:1", 1000 * MB).image("db:1", 250 * MB))
            .node(node("web").image("web:1", 1000 * MB))
            .node(node("none"))
            .node(node("other").image("x:1", 5000 * MB))
            .run(pod("p").image("web:1").image("db:1").build());
        // web: 1000 MB on half of the nodes, db: 250 MB on a quarter, over two containers.
        assert_eq!(scores, [("both", 27), ("web", 24), ("none", 0), ("other", 0)]);
    }
}
