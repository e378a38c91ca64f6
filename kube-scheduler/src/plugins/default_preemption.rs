//! DefaultPreemption: when a pod fits nowhere, looks for a node where it would without pods of lower priority.
//!
//! Trying a node needs the whole profile's filters, so the search itself is in `scheduler::preempt`; this plugin
//! switches it on.

use std::sync::Arc;

use serde_json::Value;

use crate::framework::{Plugin, Point};

struct DefaultPreemption;

pub fn make(_args: &Value) -> Result<Arc<dyn Plugin>, String> {
    Ok(Arc::new(DefaultPreemption))
}

impl Plugin for DefaultPreemption {
    fn name(&self) -> &'static str {
        "DefaultPreemption"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::PostFilter]
    }
}
