//! How long after a failure the next pod is started: 10 s, doubled with each failure since the last success, at most 10 minutes.

use super::indexes::index_of;
use crate::meta::annotation;
use crate::pod::ready_condition;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(600);
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
pub const INDEX_IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Record {
    failures: i32,
    last: Option<Timestamp>,
}

impl Record {
    /// With the pods that finished since; a success wipes the failures before it.
    pub fn after(self, succeeded: &[Arc<Pod>], failed: &[Arc<Pod>]) -> Record {
        let last_success = succeeded.iter().map(|p| finished_at(p)).max();
        let counted: Vec<_> = failed
            .iter()
            .map(|p| finished_at(p))
            .filter(|at| last_success.is_none_or(|s| *at > s))
            .collect();
        let before = if last_success.is_some() {
            Record::default()
        } else {
            self
        };
        Record {
            failures: before.failures + counted.len() as i32,
            last: counted.into_iter().max().or(before.last),
        }
    }

    pub fn remaining(&self, now: Timestamp) -> Duration {
        self.last
            .map_or(Duration::ZERO, |last| remaining(self.failures, last, now))
    }
}

fn remaining(failures: i32, last: Timestamp, now: Timestamp) -> Duration {
    if failures <= 0 {
        return Duration::ZERO;
    }
    let doublings = u32::try_from(failures - 1).unwrap_or(0).min(16);
    let wait = (FIRST * 2u32.pow(doublings)).min(LONGEST);
    let elapsed = now.duration_since(last).max(SignedDuration::ZERO).unsigned_abs();
    wait.saturating_sub(elapsed)
}

/// Before the successor of `failed` with the same index may start.
pub fn remaining_of_index(failed: &Pod, now: Timestamp) -> Duration {
    remaining(failures_of_index(failed) + 1, finished_at(failed), now)
}

/// All failures of its index before this pod, counted or not.
pub fn failures_of_index(pod: &Pod) -> i32 {
    number(pod, INDEX_FAILURES) + number(pod, INDEX_IGNORED_FAILURES)
}

pub fn number(pod: &Pod, name: &str) -> i32 {
    annotation(&pod.metadata, name)
        .and_then(|v| v.parse().ok())
        .filter(|n| *n >= 0)
        .unwrap_or(0)
}

/// When the last container ended; else when the pod stopped being ready; else when it was told to go; else its creation.
pub fn finished_at(pod: &Pod) -> Timestamp {
    let status = pod.status.as_ref();
    let containers = status
        .and_then(|s| s.container_statuses.as_deref())
        .unwrap_or_default();
    let not_ready = || {
        ready_condition(pod)
            .filter(|c| c.status == "False")
            .and_then(|c| c.last_transition_time.as_ref())
            .map(|t| t.0)
    };
    let deleted = || {
        let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
        pod.metadata
            .deletion_timestamp
            .as_ref()
            .and_then(|t| t.0.checked_sub(grace).ok())
    };
    let created = || pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    last_end(containers)
        .or_else(not_ready)
        .or_else(deleted)
        .or_else(created)
        .unwrap_or_default()
}

fn last_end(containers: &[ContainerStatus]) -> Option<Timestamp> {
    let ends: Option<Vec<_>> = containers
        .iter()
        .map(|c| {
            c.state
                .as_ref()?
                .terminated
                .as_ref()?
                .finished_at
                .as_ref()
                .map(|t| t.0)
        })
        .collect();
    ends?.into_iter().max()
}

#[derive(Default)]
pub struct Records {
    by_job: Mutex<HashMap<String, Record>>,
}

impl Records {
    pub fn of(&self, job: &str) -> Record {
        self.by_job.lock().get(job).copied().unwrap_or_default()
    }

    pub fn set(&self, job: &str, record: Record) {
        self.by_job.lock().insert(job.to_owned(), record);
    }

    pub fn forget(&self, job: &str) {
        self.by_job.lock().remove(job);
    }
}

/// The failed pods whose successors must know how often their index failed: they stay until those exist.
pub fn last_failed_by_index<'a>(failed: impl Iterator<Item = &'a Arc<Pod>>) -> HashMap<i32, Arc<Pod>> {
    let mut last: HashMap<i32, Arc<Pod>> = HashMap::new();
    for pod in failed {
        let Some(index) = index_of(pod) else { continue };
        let age = |p: &Pod| (failures_of_index(p), finished_at(p));
        match last.get(&index) {
            Some(known) if age(known) > age(pod) => {}
            _ => drop(last.insert(index, pod.clone())),
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ended(second: u8) -> Arc<Pod> {
        let value = json!({"status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 1, "finishedAt": format!("2024-01-01T00:00:{second:02}Z")}}}]}});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn waiting_doubles_and_a_success_ends_it() {
        let at = |second: u8| {
            format!("2024-01-01T00:00:{second:02}Z")
                .parse::<Timestamp>()
                .unwrap()
        };
        let once = Record::default().after(&[], &[ended(0)]);
        assert_eq!(once.remaining(at(4)), Duration::from_secs(6));
        let thrice = once.after(&[], &[ended(10), ended(20)]);
        assert_eq!(thrice.remaining(at(20)), Duration::from_secs(40));
        assert_eq!(thrice.after(&[ended(30)], &[]).remaining(at(30)), Duration::ZERO);
        assert_eq!(
            thrice
                .after(&[ended(30)], &[ended(25), ended(31)])
                .remaining(at(31)),
            Duration::from_secs(10)
        );
    }
}
