//! DefaultBinder: posts the pod's binding. The decision only names pod and node; `run::effects` does the posting.

use std::sync::Arc;

use serde_json::Value;

use crate::framework::{Plugin, Point};

struct DefaultBinder;

pub fn make(_args: &Value) -> Result<Arc<dyn Plugin>, String> {
    Ok(Arc::new(DefaultBinder))
}

impl Plugin for DefaultBinder {
    fn name(&self) -> &'static str {
        "DefaultBinder"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::Bind]
    }
}
