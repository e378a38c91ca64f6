//! What one pass over a Job knows, and whether the Job is over. No IO.

use super::backoff::{self, Record};
use super::conditions::{self, is_true, newly};
use super::finalizers::is_tracked;
use super::indexes::{Intervals, index_of, indexes};
use super::policy::{self, Consequence};
use crate::meta::{is_deleted, seconds_since, uid};
use crate::pod::{is_active, is_ready, is_terminating, phase};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, PodFailurePolicy};
use k8s_openapi::api::core::v1::Pod;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

const DEFAULT_BACKOFF_LIMIT: i32 = 6;

pub struct Pass {
    pub key: String,
    /// Its status is what the pass writes.
    pub job: Job,
    pub pods: Vec<Arc<Pod>>,
    pub active: Vec<Arc<Pod>>,
    pub ready: i32,
    pub terminating: i32,
    pub succeeded: i32,
    pub failed: i32,
    pub uncounted_succeeded: HashSet<String>,
    pub uncounted_failed: HashSet<String>,
    /// Pods whose finalizer we removed, although the cache shows it.
    pub removed: HashSet<String>,
    pub before: Intervals,
    pub succeeded_indexes: Intervals,
    pub failed_indexes: Option<Intervals>,
    /// The failed pod of an index that has no successor yet.
    pub delayed: HashMap<i32, Arc<Pod>>,
    pub record: Record,
    pub finished: Option<JobCondition>,
}

impl Pass {
    pub fn new(key: &str, job: Job, pods: Vec<Arc<Pod>>, removed: HashSet<String>, record: Record) -> Self {
        let active: Vec<_> = pods.iter().filter(|p| is_active(p)).cloned().collect();
        let uncounted = status_of(&job).uncounted_terminated_pods.unwrap_or_default();
        let mut pass = Pass {
            key: key.to_owned(),
            ready: count(&active, is_ready),
            terminating: count(&pods, is_terminating),
            uncounted_succeeded: uncounted.succeeded.unwrap_or_default().into_iter().collect(),
            uncounted_failed: uncounted.failed.unwrap_or_default().into_iter().collect(),
            job,
            pods,
            active,
            removed,
            succeeded: 0,
            failed: 0,
            before: Intervals::default(),
            succeeded_indexes: Intervals::default(),
            failed_indexes: None,
            delayed: HashMap::new(),
            record,
            finished: None,
        };
        pass.count_finished();
        if is_indexed(&pass.job) {
            pass.count_indexes();
        }
        pass
    }

    fn count_finished(&mut self) {
        let succeeded = self
            .uncounted(|p| phase(p) == "Succeeded" && !self.uncounted_succeeded.contains(uid(&p.metadata)));
        let failed =
            self.uncounted(|p| self.is_failed(p) && !self.uncounted_failed.contains(uid(&p.metadata)));
        let counted = failed
            .iter()
            .filter(|p| self.consequence(p) != Consequence::Ignore)
            .count();
        let status = status_of(&self.job);
        self.succeeded =
            status.succeeded.unwrap_or(0) + (succeeded.len() + self.uncounted_succeeded.len()) as i32;
        self.failed = status.failed.unwrap_or(0) + (counted + self.uncounted_failed.len()) as i32;
        self.record = self.record.after(&succeeded, &failed);
    }

    /// Pods that are not in the status' counters: those still held by the finalizer, with a valid index if there must be one.
    fn uncounted(&self, which: impl Fn(&Pod) -> bool) -> Vec<Arc<Pod>> {
        self.pods
            .iter()
            .filter(|p| self.is_held(p) && self.has_place(p) && which(p))
            .cloned()
            .collect()
    }

    pub fn is_held(&self, pod: &Pod) -> bool {
        is_tracked(pod) && !self.removed.contains(uid(&pod.metadata))
    }

    pub fn has_place(&self, pod: &Pod) -> bool {
        !is_indexed(&self.job) || index_of(pod).is_some_and(|i| i < completions(&self.job))
    }

    /// A pod that is on its way out failed, unless only those that have failed are to be replaced.
    pub fn is_failed(&self, pod: &Pod) -> bool {
        phase(pod) == "Failed"
            || (!only_replaces_failed(&self.job) && is_deleted(&pod.metadata) && phase(pod) != "Succeeded")
    }

    pub fn consequence(&self, pod: &Pod) -> Consequence {
        policy::consequence(failure_policy(&self.job), pod)
    }

    fn count_indexes(&mut self) {
        let completions = completions(&self.job);
        let status = status_of(&self.job);
        let before = Intervals::parse(status.completed_indexes.as_deref().unwrap_or(""), completions);
        let held = |p: &Pod| is_tracked(p) && self.has_place(p);
        let new = self
            .pods
            .iter()
            .filter(|p| phase(p) == "Succeeded" && held(p))
            .map(|p| &**p);
        self.succeeded_indexes = before.with(&indexes(new));
        self.before = before;
        self.succeeded = self.succeeded_indexes.total();
        let held = |p: &Pod| is_tracked(p) && self.has_place(p);
        let Some(limit) = spec(&self.job).backoff_limit_per_index else {
            return;
        };
        let known = Intervals::parse(status.failed_indexes.as_deref().unwrap_or(""), completions);
        let new = self
            .pods
            .iter()
            .filter(|p| held(p) && self.ends_index(p, limit))
            .map(|p| &**p);
        let failed_indexes = known.with(&indexes(new));
        let active = indexes(self.active.iter().map(|p| &**p));
        let waiting = self.uncounted(|p| {
            self.is_failed(p)
                && index_of(p).is_some_and(|i| {
                    !self.succeeded_indexes.has(i) && !failed_indexes.has(i) && !active.contains(&i)
                })
        });
        self.delayed = backoff::last_failed_by_index(waiting.iter());
        self.failed_indexes = Some(failed_indexes);
    }

    fn ends_index(&self, pod: &Pod, limit: i32) -> bool {
        self.is_failed(pod)
            && match self.consequence(pod) {
                Consequence::FailIndex => true,
                Consequence::Ignore => false,
                Consequence::Count | Consequence::FailJob(_) => {
                    backoff::number(pod, backoff::INDEX_FAILURES) >= limit
                }
            }
    }

    /// What was decided before stands; then failures are looked for, then the success policy. Completion is seen after the pods
    /// were managed.
    pub fn decide(&mut self) {
        let known = self.known_end();
        self.finished = known
            .or_else(|| self.failure())
            .or_else(|| self.index_failure())
            .or_else(|| self.policy_success());
    }

    fn known_end(&self) -> Option<JobCondition> {
        let status = status_of(&self.job);
        let find = |type_: &str| {
            status
                .conditions
                .iter()
                .flatten()
                .find(|c| c.type_ == type_ && is_true(c))
        };
        find(conditions::SUCCESS_CRITERIA_MET)
            .cloned()
            .or_else(|| find(conditions::FAILURE_TARGET).map(conditions::failed_for))
    }

    fn failure(&self) -> Option<JobCondition> {
        let by_policy =
            self.pods
                .iter()
                .filter(|p| self.is_failed(p))
                .find_map(|p| match self.consequence(p) {
                    Consequence::FailJob(message) => Some(message),
                    _ => None,
                });
        if let Some(message) = by_policy {
            return Some(newly(conditions::FAILURE_TARGET, "PodFailurePolicy", &message));
        }
        let limit = spec(&self.job).backoff_limit.unwrap_or(DEFAULT_BACKOFF_LIMIT);
        if self.failed > limit || self.restarts_exceed(limit) {
            return Some(newly(
                conditions::FAILURE_TARGET,
                "BackoffLimitExceeded",
                "Job has reached the specified backoff limit",
            ));
        }
        let late = self.seconds_to_deadline().is_some_and(|left| left <= 0);
        late.then(|| {
            newly(
                conditions::FAILURE_TARGET,
                "DeadlineExceeded",
                "Job was active longer than specified deadline",
            )
        })
    }

    /// Pods that restart in place fail without ending.
    fn restarts_exceed(&self, limit: i32) -> bool {
        let policy = spec(&self.job)
            .template
            .spec
            .as_ref()
            .and_then(|s| s.restart_policy.clone());
        if policy.as_deref() != Some("OnFailure") {
            return false;
        }
        let living = self
            .pods
            .iter()
            .filter(|p| matches!(phase(p), "Running" | "Pending"))
            .filter_map(|p| p.status.as_ref());
        let containers = living.flat_map(|s| {
            s.init_container_statuses
                .iter()
                .flatten()
                .chain(s.container_statuses.iter().flatten())
        });
        let restarts: i32 = containers.map(|c| c.restart_count).sum();
        if limit == 0 {
            restarts > 0
        } else {
            restarts >= limit
        }
    }

    pub fn seconds_to_deadline(&self) -> Option<i64> {
        let limit = spec(&self.job)
            .active_deadline_seconds
            .filter(|_| !is_suspended(&self.job))?;
        let started = self.job.status.as_ref()?.start_time.as_ref()?;
        Some(limit - seconds_since(started))
    }

    fn index_failure(&self) -> Option<JobCondition> {
        let failed = self.failed_indexes.as_ref()?.total();
        if spec(&self.job).max_failed_indexes.is_some_and(|max| failed > max) {
            return Some(newly(
                conditions::FAILURE_TARGET,
                "MaxFailedIndexesExceeded",
                "Job has exceeded the specified maximal number of failed indexes",
            ));
        }
        let done = failed > 0 && failed + self.succeeded_indexes.total() >= completions(&self.job);
        done.then(|| {
            newly(
                conditions::FAILURE_TARGET,
                "FailedIndexes",
                "Job has failed indexes",
            )
        })
    }

    fn policy_success(&self) -> Option<JobCondition> {
        if !is_indexed(&self.job) {
            return None;
        }
        let message = policy::success(
            spec(&self.job).success_policy.as_ref(),
            completions(&self.job),
            &self.succeeded_indexes,
        )?;
        Some(newly(conditions::SUCCESS_CRITERIA_MET, "SuccessPolicy", &message))
    }

    /// Without completions, one success is enough when all others have ended.
    pub fn is_complete(&self, active: i32) -> bool {
        let enough = spec(&self.job)
            .completions
            .map_or(self.succeeded > 0, |wanted| self.succeeded >= wanted);
        enough && active == 0
    }
}

pub fn count(pods: &[Arc<Pod>], what: impl Fn(&Pod) -> bool) -> i32 {
    pods.iter().filter(|p| what(p)).count() as i32
}

/// The API requires a spec; the type does not.
pub fn spec(job: &Job) -> Cow<'_, JobSpec> {
    job.spec
        .as_ref()
        .map_or_else(|| Cow::Owned(JobSpec::default()), Cow::Borrowed)
}

pub fn status_of(job: &Job) -> JobStatus {
    job.status.clone().unwrap_or_default()
}

fn failure_policy(job: &Job) -> Option<&PodFailurePolicy> {
    job.spec.as_ref()?.pod_failure_policy.as_ref()
}

pub fn is_indexed(job: &Job) -> bool {
    spec(job).completion_mode.as_deref() == Some("Indexed")
}

/// Of an indexed Job, which must have it.
pub fn completions(job: &Job) -> i32 {
    spec(job).completions.unwrap_or(1)
}

pub fn is_suspended(job: &Job) -> bool {
    spec(job).suspend == Some(true)
}

pub fn only_replaces_failed(job: &Job) -> bool {
    let spec = spec(job);
    spec.pod_failure_policy.is_some() || spec.pod_replacement_policy.as_deref() == Some("Failed")
}
