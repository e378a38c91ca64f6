//! SchedulingGates: a pod with gates does not enter the active queue until the last one is removed.

use std::sync::Arc;

use serde_json::Value;

use crate::framework::events::{Actions, Change, Event, Hint, Kind};
use crate::framework::{Plugin, Point, Rejection};
use crate::pod::PodInfo;

struct SchedulingGates;

pub fn make(_args: &Value) -> Result<Arc<dyn Plugin>, String> {
    Ok(Arc::new(SchedulingGates))
}

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn points(&self) -> &'static [Point] {
        &[Point::PreEnqueue]
    }

    fn events(&self) -> &'static [(Kind, Actions)] {
        &[(Kind::UnscheduledPod, Actions::POD_GATES_ELIMINATED)]
    }

    fn hint(&self, pod: &PodInfo, event: &Event<'_>) -> Hint {
        let itself = matches!(event.change, Change::Pod { new: Some(new), .. } if new.uid == pod.uid);
        itself.into()
    }

    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Rejection> {
        let gates = pod
            .spec()
            .and_then(|s| s.scheduling_gates.as_deref())
            .unwrap_or_default();
        if gates.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = gates.iter().map(|g| g.name.as_str()).collect();
        Err(Rejection {
            message: format!("waiting for scheduling gates: [{}]", names.join(" ")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{info, pod};

    #[test]
    fn a_gated_pod_waits_and_says_for_what() {
        assert_eq!(SchedulingGates.pre_enqueue(&info(pod("p").build())), Ok(()));
        let refused = SchedulingGates.pre_enqueue(&info(pod("p").gate("a").gate("b").build()));
        assert_eq!(
            refused.map_err(|r| r.message),
            Err("waiting for scheduling gates: [a b]".to_owned())
        );
    }
}
