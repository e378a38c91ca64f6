//! The conditions of a Job. The interim ones are written before finalizers go, the final ones when all is counted.

use crate::meta::now;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};

pub const COMPLETE: &str = "Complete";
pub const FAILED: &str = "Failed";
pub const SUSPENDED: &str = "Suspended";
pub const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
pub const FAILURE_TARGET: &str = "FailureTarget";

pub fn newly(type_: &str, reason: &str, message: &str) -> JobCondition {
    with_status(type_, "True", reason, message)
}

fn with_status(type_: &str, status: &str, reason: &str, message: &str) -> JobCondition {
    JobCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(now()),
        last_transition_time: Some(now()),
    }
}

pub fn failed_for(target: &JobCondition) -> JobCondition {
    newly(
        FAILED,
        target.reason.as_deref().unwrap_or(""),
        target.message.as_deref().unwrap_or(""),
    )
}

pub fn complete_for(criteria: &JobCondition) -> JobCondition {
    newly(
        COMPLETE,
        criteria.reason.as_deref().unwrap_or(""),
        criteria.message.as_deref().unwrap_or(""),
    )
}

pub fn is_true(condition: &JobCondition) -> bool {
    condition.status == "True"
}

pub fn finished(job: &Job) -> Option<&JobCondition> {
    let conditions = job.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions
        .into_iter()
        .find(|c| matches!(c.type_.as_str(), COMPLETE | FAILED) && is_true(c))
}

pub fn has(status: &JobStatus, type_: &str) -> bool {
    status
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == type_ && is_true(c))
}

/// True when the list changed. From nothing to false is no change.
pub fn ensure(status: &mut JobStatus, wanted: JobCondition) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|c| c.type_ == wanted.type_) {
        Some(known)
            if (&known.status, &known.reason, &known.message)
                == (&wanted.status, &wanted.reason, &wanted.message) =>
        {
            false
        }
        Some(known) => {
            *known = wanted;
            true
        }
        None if wanted.status == "False" => {
            status.conditions = status.conditions.take().filter(|c| !c.is_empty());
            false
        }
        None => {
            conditions.push(wanted);
            true
        }
    }
}

pub fn suspended(yes: bool) -> JobCondition {
    match yes {
        true => with_status(SUSPENDED, "True", "JobSuspended", "Job suspended"),
        false => with_status(SUSPENDED, "False", "JobResumed", "Job resumed"),
    }
}
