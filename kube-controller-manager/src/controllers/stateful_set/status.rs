//! How many pods of which revision there are.

use super::history::History;
use super::identity::{replicas, revision};
use super::{StatefulSets, is_rolling, spec};
use crate::driver::{Outcome, Requeue};
use crate::meta::{is_deleted, name, namespace};
use crate::pod::{is_available, is_ready, phase};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;
use std::time::Duration;

fn counted(set: &StatefulSet, pods: &[Arc<Pod>], history: &History) -> StatefulSetStatus {
    let min_ready = spec(set).min_ready_seconds.unwrap_or(0);
    let count = |what: &dyn Fn(&Pod) -> bool| pods.iter().filter(|p| what(p)).count() as i32;
    let of =
        |wanted: &str| count(&|p| !phase(p).is_empty() && !is_deleted(&p.metadata) && revision(p) == wanted);
    let nonzero = |n: i32| (n != 0).then_some(n);
    let (current, update) = (name(&history.current.metadata), name(&history.update.metadata));
    let (all, updated) = (count(&|p| !phase(p).is_empty()), of(update));
    let ready = count(&|p| phase(p) == "Running" && is_ready(p));
    // Then there is nothing left of the revision before.
    let complete = is_rolling(set) && [updated, ready, all].iter().all(|n| *n == replicas(set));
    StatefulSetStatus {
        replicas: all,
        ready_replicas: nonzero(ready),
        available_replicas: Some(count(&|p| phase(p) == "Running" && is_available(p, min_ready))),
        current_replicas: nonzero(if complete { updated } else { of(current) }),
        updated_replicas: nonzero(updated),
        current_revision: Some(if complete { update } else { current }.to_owned()),
        update_revision: Some(update.to_owned()),
        observed_generation: set.metadata.generation,
        collision_count: Some(history.collision_count),
        conditions: set.status.as_ref().and_then(|s| s.conditions.clone()),
    }
}

impl StatefulSets {
    pub(super) async fn write_status(
        &self,
        set: &StatefulSet,
        pods: &[Arc<Pod>],
        history: &History,
    ) -> Outcome {
        let status = counted(set, pods, history);
        let min_ready = spec(set).min_ready_seconds.unwrap_or(0);
        let waits =
            min_ready > 0 && status.ready_replicas.unwrap_or(0) != status.available_replicas.unwrap_or(0);
        if Some(&status) != set.status.as_ref() {
            let changed = StatefulSet {
                status: Some(status),
                ..set.clone()
            };
            match self
                .client
                .namespaced::<StatefulSet>(namespace(&set.metadata))
                .update_status(&changed)
                .await
            {
                // Deleted while we counted: there is nothing to tell any more.
                Err(error) if error.is_not_found() => {}
                outcome => drop(outcome?),
            }
        }
        Ok(if waits {
            Requeue::After(Duration::from_secs(min_ready.unsigned_abs().into()))
        } else {
            Requeue::Done
        })
    }
}
