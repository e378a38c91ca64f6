//! How many nodes a DaemonSet is on, and how well.

use super::eligibility::verdict;
use super::history::History;
use super::manage::ByNode;
use super::rollout::is_updated;
use super::{DaemonSets, spec};
use crate::driver::{Outcome, Requeue};
use crate::meta::{name, namespace};
use crate::pod::{is_available, is_ready};
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::Node;
use std::sync::Arc;
use std::time::Duration;

/// A status is written again this often on a lost race before the key goes back to the queue.
const RETRIES: usize = 1;

/// Counts only: observed generation, collisions and conditions are the caller's.
fn counted(set: &DaemonSet, nodes: &[Arc<Node>], pods: &ByNode, hash: &str) -> DaemonSetStatus {
    let min_ready = spec(set).min_ready_seconds.unwrap_or(0);
    let mut status = DaemonSetStatus::default();
    let (mut available, mut updated) = (0, 0);
    for node in nodes {
        let here = pods.get(name(&node.metadata)).filter(|p| !p.is_empty());
        if !verdict(&spec(set).template, node).should_run {
            status.number_misscheduled += i32::from(here.is_some());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = here.and_then(|p| {
            p.iter()
                .min_by_key(|p| p.metadata.creation_timestamp.as_ref().map(|t| t.0))
        }) else {
            continue;
        };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(is_ready(pod));
        available += i32::from(is_available(pod, min_ready));
        updated += i32::from(is_updated(set, pod, hash));
    }
    let nonzero = |n: i32| (n != 0).then_some(n);
    status.number_available = nonzero(available);
    status.updated_number_scheduled = nonzero(updated);
    status.number_unavailable = nonzero(status.desired_number_scheduled - available);
    status
}

impl DaemonSets {
    pub(super) async fn write_status(
        &self,
        set: &Arc<DaemonSet>,
        nodes: &[Arc<Node>],
        pods: &ByNode,
        history: &History,
        observed: bool,
    ) -> Outcome {
        let old = set.status.clone().unwrap_or_default();
        let mut status = counted(set, nodes, pods, history.hash());
        status.observed_generation = if observed {
            set.metadata.generation
        } else {
            old.observed_generation
        };
        status.collision_count = (history.collision_count > 0)
            .then_some(history.collision_count)
            .or(old.collision_count);
        status.conditions = old.conditions.clone();
        // Ready pods become available by the passing of time alone.
        let min_ready = spec(set).min_ready_seconds.unwrap_or(0);
        let waits = min_ready > 0 && status.number_ready != status.number_available.unwrap_or(0);
        if status != old {
            self.put_status(set, status).await?;
        }
        Ok(if waits {
            Requeue::After(Duration::from_secs(min_ready.unsigned_abs().into()))
        } else {
            Requeue::Done
        })
    }

    async fn put_status(&self, set: &DaemonSet, status: DaemonSetStatus) -> Result<(), client::Error> {
        let api = self.client.namespaced::<DaemonSet>(namespace(&set.metadata));
        let mut changed = DaemonSet {
            status: Some(status),
            ..set.clone()
        };
        for _ in 0..RETRIES {
            match api.update_status(&changed).await {
                Err(error) if error.is_conflict() => {
                    changed.metadata = api.get(name(&set.metadata)).await?.metadata
                }
                // Deleted while we counted: there is nothing to tell any more.
                Err(error) if error.is_not_found() => return Ok(()),
                outcome => return outcome.map(drop),
            }
        }
        api.update_status(&changed).await.map(drop)
    }
}
