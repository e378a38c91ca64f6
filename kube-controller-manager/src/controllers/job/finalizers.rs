//! The finalizer that keeps a finished pod until it is counted, and which of its removals have not been seen yet.

use crate::meta::{name, namespace, uid};
use crate::pod_control::all;
use client::{Client, Patch};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";

pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|f| f == TRACKING)
}

/// Removals that were asked for and are not in the cache: such a pod is counted already.
#[derive(Default)]
pub struct Removals {
    by_job: Mutex<HashMap<String, HashSet<String>>>,
}

impl Removals {
    pub fn of(&self, job: &str) -> HashSet<String> {
        self.by_job.lock().get(job).cloned().unwrap_or_default()
    }

    pub fn expect(&self, job: &str, pods: &[Arc<Pod>]) {
        self.by_job
            .lock()
            .entry(job.to_owned())
            .or_default()
            .extend(pods.iter().map(|p| uid(&p.metadata).to_owned()));
    }

    pub fn observed(&self, job: &str, pod: &str) {
        let mut by_job = self.by_job.lock();
        let Some(expected) = by_job.get_mut(job) else {
            return;
        };
        expected.remove(pod);
        if expected.is_empty() {
            by_job.remove(job);
        }
    }

    pub fn forget(&self, job: &str) {
        self.by_job.lock().remove(job);
    }
}

pub async fn remove(client: &Client, pod: &Pod) -> Result<(), client::Error> {
    if !is_tracked(pod) {
        return Ok(());
    }
    let patch =
        json!({"metadata": {"uid": uid(&pod.metadata), "$deleteFromPrimitiveList/finalizers": [TRACKING]}});
    client
        .namespaced::<Pod>(namespace(&pod.metadata))
        .patch(name(&pod.metadata), &Patch::Strategic(patch), None)
        .await
        .map(drop)
}

/// The uids of those that have it no more, and the first error.
pub async fn remove_all(
    client: &Client,
    removals: &Removals,
    job: &str,
    pods: &[Arc<Pod>],
) -> (HashSet<String>, Option<client::Error>) {
    removals.expect(job, pods);
    let done = Mutex::new(HashSet::new());
    let (_, error) = all(pods.iter().map(|pod| {
        let done = &done;
        async move {
            let outcome = remove(client, pod).await;
            if outcome.is_err() {
                removals.observed(job, uid(&pod.metadata));
            }
            match outcome {
                Err(error) if !error.is_not_found() => Err(error),
                _ => {
                    done.lock().insert(uid(&pod.metadata).to_owned());
                    Ok(())
                }
            }
        }
    }))
    .await;
    (done.into_inner(), error)
}
