//! How far a rollout is, in upstream's conditions, reasons and words.

use super::replica_sets::revision;
use super::sizes::{available, max_unavailable, total};
use super::{Deployments, Pass, replicas_of, set_name, spec};
use crate::driver::{Failure, Outcome, Requeue};
use crate::meta::{name, now, seconds_since};
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet, ReplicaSetStatus,
};
use std::time::Duration;

const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const PAUSED: &str = "DeploymentPaused";

pub(super) struct Condition {
    type_: &'static str,
    status: String,
    reason: String,
    message: String,
}

impl Condition {
    pub fn new(type_: &'static str, status: &str, reason: &str, message: String) -> Self {
        Condition {
            type_,
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
        }
    }
}

fn condition<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == type_)
}

fn remove_condition(status: &mut DeploymentStatus, type_: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|c| c.type_ != type_);
    }
}

/// True when it changed. The same status and reason again is no news, whatever the message.
pub(super) fn set_condition(status: &mut DeploymentStatus, new: Condition) -> bool {
    let known = condition(status, new.type_);
    if known.is_some_and(|k| k.status == new.status && k.reason.as_deref() == Some(&new.reason)) {
        return false;
    }
    let since = known
        .filter(|k| k.status == new.status)
        .and_then(|k| k.last_transition_time.clone())
        .unwrap_or_else(now);
    remove_condition(status, new.type_);
    status
        .conditions
        .get_or_insert_default()
        .push(DeploymentCondition {
            type_: new.type_.into(),
            status: new.status,
            reason: Some(new.reason),
            message: Some(new.message),
            last_transition_time: Some(since),
            last_update_time: Some(now()),
        });
    true
}

fn deadline(deployment: &Deployment) -> Option<i64> {
    spec(deployment)
        .progress_deadline_seconds
        .filter(|d| *d != i32::MAX)
        .map(i64::from)
}

pub(super) fn has_deadline(deployment: &Deployment) -> bool {
    deadline(deployment).is_some()
}

pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = replicas_of(deployment);
    let is = |count: Option<i32>| count.unwrap_or(0) == wanted;
    is(status.updated_replicas)
        && is(status.replicas)
        && is(status.available_replicas)
        && status.observed_generation >= deployment.metadata.generation
}

fn progresses(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |count: Option<i32>| count.unwrap_or(0);
    n(new.updated_replicas) > n(old.updated_replicas)
        || n(new.replicas) - n(new.updated_replicas) < n(old.replicas) - n(old.updated_replicas)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

fn is_timed_out(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let (Some(deadline), Some(known)) = (deadline(deployment), condition(status, PROGRESSING)) else {
        return false;
    };
    match known.reason.as_deref() {
        Some(NEW_SET_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => known
            .last_update_time
            .as_ref()
            .is_some_and(|t| seconds_since(t) > deadline),
    }
}

/// Counts and availability; what else the status holds stays.
fn counted(pass: &Pass) -> DeploymentStatus {
    let deployment = &pass.deployment;
    let old = deployment.status.clone().unwrap_or_default();
    let sum = |of: &dyn Fn(&ReplicaSetStatus) -> i32| {
        pass.all().filter_map(|s| s.status.as_ref()).map(of).sum::<i32>()
    };
    let available: i32 = pass.all().map(available).sum();
    let terminating: Option<i32> = pass
        .all()
        .map(|s| s.status.as_ref().and_then(|s| s.terminating_replicas))
        .sum();
    let unless_zero = |count: i32| Some(count).filter(|c| *c != 0);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: unless_zero(sum(&|s| s.replicas)),
        updated_replicas: unless_zero(
            pass.new
                .as_ref()
                .and_then(|s| s.status.as_ref())
                .map_or(0, |s| s.replicas),
        ),
        ready_replicas: unless_zero(sum(&|s| s.ready_replicas.unwrap_or(0))),
        available_replicas: unless_zero(available),
        unavailable_replicas: unless_zero((total(pass.all()) - available).max(0)),
        terminating_replicas: terminating,
        collision_count: old.collision_count,
        conditions: old.conditions,
    };
    let enough = available >= replicas_of(deployment) - max_unavailable(deployment);
    let verdict = match enough {
        true => Condition::new(
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.".into(),
        ),
        false => Condition::new(
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.".into(),
        ),
    };
    set_condition(&mut status, verdict);
    status
}

impl Deployments {
    pub(super) async fn write_status_only(&self, mut pass: Pass) -> Outcome {
        let status = counted(&pass);
        if pass.deployment.status.as_ref() != Some(&status) {
            pass.deployment.status = Some(status);
            self.put_status(&mut pass.deployment).await?;
        }
        Ok(Requeue::Done)
    }

    pub(super) async fn write_rollout_status(&self, mut pass: Pass) -> Outcome {
        let mut status = counted(&pass);
        note_progress(&pass, &mut status);
        note_failures(&pass, &mut status);
        if pass.deployment.status.as_ref() == Some(&status) {
            return Ok(until_deadline(&pass.deployment, &status));
        }
        pass.deployment.status = Some(status);
        self.put_status(&mut pass.deployment).await?;
        Ok(pass
            .deployment
            .status
            .as_ref()
            .map_or(Requeue::Done, |status| until_deadline(&pass.deployment, status)))
    }

    /// A pause stops the clock of the deadline, and resuming starts it anew.
    pub(super) async fn note_pause(&self, pass: &mut Pass) -> Result<(), Failure> {
        let deployment = &mut pass.deployment;
        if !has_deadline(deployment) {
            return Ok(());
        }
        let paused = spec(deployment).paused == Some(true);
        let reason = deployment
            .status
            .as_ref()
            .and_then(|s| condition(s, PROGRESSING))
            .and_then(|c| c.reason.clone());
        if reason.as_deref() == Some(TIMED_OUT) {
            return Ok(());
        }
        let known = reason.as_deref() == Some(PAUSED);
        let condition = match (paused, known) {
            (true, false) => Condition::new(PROGRESSING, "Unknown", PAUSED, "Deployment is paused".into()),
            (false, true) => Condition::new(
                PROGRESSING,
                "Unknown",
                "DeploymentResumed",
                "Deployment is resumed".into(),
            ),
            _ => return Ok(()),
        };
        set_condition(deployment.status.get_or_insert_default(), condition);
        self.put_status(deployment).await
    }
}

fn note_progress(pass: &Pass, status: &mut DeploymentStatus) {
    let deployment = &pass.deployment;
    if !has_deadline(deployment) {
        return remove_condition(status, PROGRESSING);
    }
    let known = condition(status, PROGRESSING).cloned();
    let settled = status.replicas == status.updated_replicas
        && known
            .as_ref()
            .is_some_and(|k| k.reason.as_deref() == Some(NEW_SET_AVAILABLE));
    if settled {
        return;
    }
    let subject = pass.new.as_ref().map_or_else(
        || format!("Deployment \"{}\"", name(&deployment.metadata)),
        |new| format!("ReplicaSet \"{}\"", set_name(new)),
    );
    let old = deployment.status.clone().unwrap_or_default();
    if is_complete(deployment, status) {
        set_condition(
            status,
            Condition::new(
                PROGRESSING,
                "True",
                NEW_SET_AVAILABLE,
                format!("{subject} has successfully progressed."),
            ),
        );
    } else if progresses(&old, status) {
        // Progress restarts the clock of the deadline, so this condition is renewed even if it says the same.
        let since = known
            .filter(|k| k.status == "True")
            .and_then(|k| k.last_transition_time);
        remove_condition(status, PROGRESSING);
        set_condition(
            status,
            Condition::new(
                PROGRESSING,
                "True",
                "ReplicaSetUpdated",
                format!("{subject} is progressing."),
            ),
        );
        if let (Some(since), Some(renewed)) = (
            since,
            status
                .conditions
                .iter_mut()
                .flatten()
                .find(|c| c.type_ == PROGRESSING),
        ) {
            renewed.last_transition_time = Some(since);
        }
    } else if is_timed_out(deployment, status) {
        set_condition(
            status,
            Condition::new(
                PROGRESSING,
                "False",
                TIMED_OUT,
                format!("{subject} has timed out progressing."),
            ),
        );
    }
}

/// What keeps a set from making its pods is shown on the Deployment: the new set's trouble first.
fn note_failures(pass: &Pass, status: &mut DeploymentStatus) {
    let failure = |set: &ReplicaSet| {
        set.status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten())
            .find(|c| c.type_ == REPLICA_FAILURE)
            .cloned()
    };
    let mut old: Vec<_> = pass.old.iter().collect();
    old.sort_by_key(|s| std::cmp::Reverse(revision(s)));
    match pass
        .new
        .as_ref()
        .and_then(failure)
        .or_else(|| old.into_iter().find_map(failure))
    {
        Some(found) => {
            set_condition(
                status,
                Condition::new(
                    REPLICA_FAILURE,
                    &found.status,
                    found.reason.as_deref().unwrap_or(""),
                    found.message.unwrap_or_default(),
                ),
            );
        }
        None => remove_condition(status, REPLICA_FAILURE),
    }
}

/// A rollout that stands still wakes nobody: only the clock tells that its deadline is over.
fn until_deadline(deployment: &Deployment, status: &DeploymentStatus) -> Requeue {
    let (Some(deadline), Some(known)) = (deadline(deployment), condition(status, PROGRESSING)) else {
        return Requeue::Done;
    };
    if is_complete(deployment, status) || known.reason.as_deref() == Some(TIMED_OUT) {
        return Requeue::Done;
    }
    let elapsed = known.last_update_time.as_ref().map_or(0, seconds_since);
    Requeue::After(Duration::from_secs((deadline - elapsed).max(0) as u64 + 1))
}
