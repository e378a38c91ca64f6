//! DynamicResources: holds back pods with resource claims, which this scheduler does not allocate yet. Running them
//! without their devices would be wrong.

use std::sync::Arc;

use serde_json::Value;

use crate::framework::world::World;
use crate::framework::{Plugin, Point, PreFilter, Rejection};
use crate::pod::PodInfo;

struct DynamicResources;

pub fn make(_args: &Value) -> Result<Arc<dyn Plugin>, String> {
    Ok(Arc::new(DynamicResources))
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::PreFilter, Point::Filter]
    }

    fn pre_filter(&self, pod: &Arc<PodInfo>, _world: &mut World) -> PreFilter {
        let claims = pod
            .spec()
            .and_then(|s| s.resource_claims.as_ref())
            .map_or(0, Vec::len);
        if claims == 0 {
            return PreFilter::Skip;
        }
        PreFilter::Reject(Rejection {
            message: "this scheduler does not allocate resource claims".to_owned(),
        })
    }
}
