//! Starts and removes the pods of a Job.

use super::Jobs;
use super::backoff;
use super::finalizers::{self, TRACKING};
use super::indexes::{COMPLETION_INDEX, index_of, indexes};
use super::pass::{Pass, completions, count, is_indexed, is_suspended, only_replaces_failed, spec};
use super::policy::Consequence;
use crate::meta::{name, uid};
use crate::pod::{is_ready, is_terminating, max_restarts, node_name, phase, ready_since};
use crate::pod_control::{all, pod_from_template, slow_start};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use k8s_openapi::jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// No more pods than this are created or deleted in one pass over one Job.
const BURST: usize = 500;
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// The server adds five characters to a prefix.
const MAX_PREFIX: usize = 58;

/// What managing the pods came to.
#[derive(Default)]
pub struct Managed {
    pub active: i32,
    pub error: Option<client::Error>,
    /// Before this, a pod that failed is not replaced.
    pub wait: Option<Duration>,
}

impl Jobs {
    pub(super) async fn manage(&self, pass: &mut Pass) -> Managed {
        let active = pass.active.len();
        if is_suspended(&pass.job) {
            let victims = surplus(pass, active);
            return self.remove(pass, victims).await;
        }
        let wanted = wanted_active(pass);
        let mut victims = surplus(pass, active.saturating_sub(wanted));
        victims.truncate(BURST);
        // Never both in one pass: what is too much goes first.
        if !victims.is_empty() {
            return self.remove(pass, victims).await;
        }
        let held_back = if only_replaces_failed(&pass.job) {
            usize::try_from(pass.terminating).unwrap_or(0)
        } else {
            0
        };
        let missing = wanted.saturating_sub(held_back + active).min(BURST);
        match missing {
            0 => Managed {
                active: active as i32,
                ..Managed::default()
            },
            _ => self.add(pass, missing).await,
        }
    }

    async fn add(&self, pass: &Pass, missing: usize) -> Managed {
        let active = pass.active.len() as i32;
        let per_index = spec(&pass.job).backoff_limit_per_index.is_some();
        let wait = if per_index {
            Duration::ZERO
        } else {
            pass.record.remaining(Timestamp::now())
        };
        if !wait.is_zero() {
            return Managed {
                active,
                wait: Some(wait),
                ..Managed::default()
            };
        }
        let wanted: Vec<_> = match is_indexed(&pass.job) {
            true => pending_indexes(pass, missing).into_iter().map(Some).collect(),
            false => vec![None; missing],
        };
        let (now, later): (Vec<_>, Vec<_>) = wanted
            .into_iter()
            .partition(|index| index_wait(pass, *index).is_zero());
        let next = later.iter().map(|index| index_wait(pass, *index)).min();
        if now.is_empty() {
            return Managed {
                active,
                wait: next,
                ..Managed::default()
            };
        }
        let (created, error) = self.create(pass, &now).await;
        Managed {
            active: active + created as i32,
            error,
            wait: next,
        }
    }

    async fn create(&self, pass: &Pass, wanted: &[Option<i32>]) -> (usize, Option<client::Error>) {
        let (job, next) = (&pass.job, AtomicUsize::new(0));
        self.expectations.expect_creations(&pass.key, wanted.len());
        let (created, error) = slow_start(wanted.len(), || {
            let index = wanted
                .get(next.fetch_add(1, Ordering::Relaxed))
                .copied()
                .flatten();
            let pod = pod_of(job, index, index.map(|i| failures(pass, i)));
            async move {
                match self.control.create(job, &pod).await {
                    // Nothing can be created any more, and nothing will be missed.
                    Err(error) if error.is_namespace_terminating() => Ok(()),
                    outcome => outcome.map(drop),
                }
            }
        })
        .await;
        for _ in created..wanted.len() {
            self.expectations.creation_observed(&pass.key);
        }
        (created, error)
    }

    /// These do not count as failed: their finalizer goes first.
    async fn remove(&self, pass: &mut Pass, victims: Vec<Arc<Pod>>) -> Managed {
        let (job, key) = (&pass.job, &pass.key);
        self.expectations
            .expect_deletions(key, victims.iter().map(|p| uid(&p.metadata).to_owned()));
        let (removed, error) = all(victims.iter().map(|pod| async move {
            let outcome = async {
                finalizers::remove(&self.client, pod).await?;
                self.control.delete(job, pod).await
            }
            .await;
            if outcome.is_err() {
                self.expectations.deletion_observed(key, uid(&pod.metadata));
            }
            match outcome {
                Err(error) if error.is_not_found() => Ok(()),
                outcome => outcome,
            }
        }))
        .await;
        pass.terminating += removed as i32;
        pass.ready -= count(&victims, is_ready);
        Managed {
            active: (pass.active.len() - removed) as i32,
            error,
            wait: None,
        }
    }

    /// At the end of a Job. Their finalizers stay until they are counted.
    pub(super) async fn delete_active(&self, pass: &mut Pass) -> Managed {
        let job = &pass.job;
        let (deleted, error) = all(pass.active.iter().map(|pod| async move {
            match self.control.delete(job, pod).await {
                Err(error) if error.is_not_found() => Ok(()),
                outcome => outcome,
            }
        }))
        .await;
        pass.terminating += deleted as i32;
        pass.ready -= count(&pass.active, is_ready);
        Managed {
            active: (pass.active.len() - deleted) as i32,
            error,
            wait: None,
        }
    }
}

fn wanted_active(pass: &Pass) -> usize {
    let parallelism = spec(&pass.job).parallelism.unwrap_or(1);
    let wanted = match spec(&pass.job).completions {
        Some(completions) => parallelism.min(completions - pass.succeeded),
        // After the first success whatever runs may finish.
        None if pass.succeeded > 0 => pass.active.len() as i32,
        None => parallelism,
    };
    usize::try_from(wanted).unwrap_or(0)
}

/// Pods without a good index and all but one of each index; then the least advanced, until there are `at_least`.
fn surplus(pass: &Pass, at_least: usize) -> Vec<Arc<Pod>> {
    let mut left = pass.active.clone();
    left.sort_by_key(|p| advancement(p));
    let mut victims = Vec::new();
    if is_indexed(&pass.job) {
        let mut last_of: BTreeMap<i32, usize> = BTreeMap::new();
        for (at, pod) in left.iter().enumerate() {
            if let Some(index) = index_of(pod).filter(|i| *i < completions(&pass.job)) {
                last_of.insert(index, at);
            }
        }
        let keeps: std::collections::HashSet<_> = last_of.into_values().collect();
        let (good, bad): (Vec<_>, Vec<_>) = left
            .into_iter()
            .enumerate()
            .partition(|(at, _)| keeps.contains(at));
        victims.extend(bad.into_iter().map(|(_, pod)| pod));
        left = good.into_iter().map(|(_, pod)| pod).collect();
    }
    let more = at_least.saturating_sub(victims.len()).min(left.len());
    victims.extend(left.drain(..more));
    victims
}

/// Unbound before bound, pending before running, not ready before ready, newly ready first, often restarted first, young first.
fn advancement(
    pod: &Pod,
) -> (
    bool,
    u8,
    bool,
    Reverse<Option<Timestamp>>,
    Reverse<i32>,
    Reverse<Option<Timestamp>>,
) {
    let rank = match phase(pod) {
        "Pending" => 0,
        "Running" => 2,
        _ => 1,
    };
    let created = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    (
        !node_name(pod).is_empty(),
        rank,
        is_ready(pod),
        Reverse(ready_since(pod).map(|t| t.0)),
        Reverse(max_restarts(pod)),
        Reverse(created),
    )
}

fn pending_indexes(pass: &Pass, count: usize) -> Vec<i32> {
    let mut taken = pass
        .succeeded_indexes
        .with(&indexes(pass.active.iter().map(|p| &**p)));
    if only_replaces_failed(&pass.job) {
        taken = taken.with(&indexes(
            pass.pods.iter().filter(|p| is_terminating(p)).map(|p| &**p),
        ));
    }
    if let Some(failed) = &pass.failed_indexes {
        taken = taken.merged(failed);
    }
    taken.first_missing(count, completions(&pass.job))
}

fn index_wait(pass: &Pass, index: Option<i32>) -> Duration {
    let failed = index.and_then(|i| pass.delayed.get(&i));
    failed.map_or(Duration::ZERO, |pod| {
        backoff::remaining_of_index(pod, Timestamp::now())
    })
}

/// Counted and ignored failures of an index so far; `None` where they are not counted by index.
fn failures(pass: &Pass, index: i32) -> Option<(i32, i32)> {
    spec(&pass.job).backoff_limit_per_index?;
    let Some(before) = pass.delayed.get(&index) else {
        return Some((0, 0));
    };
    let (counted, ignored) = (
        backoff::number(before, backoff::INDEX_FAILURES),
        backoff::number(before, backoff::INDEX_IGNORED_FAILURES),
    );
    match pass.consequence(before) {
        Consequence::Ignore => Some((counted, ignored + 1)),
        _ => Some((counted + 1, ignored)),
    }
}

fn pod_of(job: &Job, index: Option<i32>, failures: Option<Option<(i32, i32)>>) -> Pod {
    let mut pod = pod_from_template(job, &spec(job).template);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == TRACKING) {
        finalizers.push(TRACKING.to_owned());
    }
    if let Some(index) = index {
        give_index(job, &mut pod, index);
    }
    if let Some((counted, ignored)) = failures.flatten() {
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(backoff::INDEX_FAILURES.into(), counted.to_string());
        if ignored > 0 {
            annotations.insert(backoff::INDEX_IGNORED_FAILURES.into(), ignored.to_string());
        }
    }
    pod
}

fn give_index(job: &Job, pod: &mut Pod, index: i32) {
    let job_name = name(&job.metadata);
    pod.metadata
        .annotations
        .get_or_insert_default()
        .insert(COMPLETION_INDEX.into(), index.to_string());
    pod.metadata
        .labels
        .get_or_insert_default()
        .insert(COMPLETION_INDEX.into(), index.to_string());
    let suffix = format!("-{index}-");
    let prefix: String = job_name
        .chars()
        .take(MAX_PREFIX.saturating_sub(suffix.len()))
        .collect();
    pod.metadata.generate_name = Some(prefix + &suffix);
    if let Some(pod_spec) = &mut pod.spec {
        pod_spec.hostname = Some(format!("{job_name}-{index}"));
        pod_spec
            .init_containers
            .iter_mut()
            .flatten()
            .chain(&mut pod_spec.containers)
            .for_each(tell_index);
    }
}

fn tell_index(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|v| v.name == INDEX_VARIABLE) {
        return;
    }
    let field = ObjectFieldSelector {
        field_path: format!("metadata.labels['{COMPLETION_INDEX}']"),
        ..ObjectFieldSelector::default()
    };
    let source = EnvVarSource {
        field_ref: Some(field),
        ..EnvVarSource::default()
    };
    variables.push(EnvVar {
        name: INDEX_VARIABLE.into(),
        value_from: Some(source),
        ..EnvVar::default()
    });
}
