//! PrioritySort: higher priority first, then the pod that waits longer. The queue's keys are this order.

use std::sync::Arc;

use serde_json::Value;

use crate::framework::{Plugin, Point};

struct PrioritySort;

pub fn make(_args: &Value) -> Result<Arc<dyn Plugin>, String> {
    Ok(Arc::new(PrioritySort))
}

impl Plugin for PrioritySort {
    fn name(&self) -> &'static str {
        "PrioritySort"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::QueueSort]
    }
}
