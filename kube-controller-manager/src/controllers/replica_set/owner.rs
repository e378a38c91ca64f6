//! What a ReplicaSet and a ReplicationController have in common.

use crate::selector;
use client::Object;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};

const REPLICA_FAILURE: &str = "ReplicaFailure";

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    pub replicas: i32,
    pub fully_labeled: i32,
    pub ready: i32,
    pub available: i32,
    pub terminating: i32,
}

pub struct FailureCondition {
    pub reason: &'static str,
    pub message: String,
    pub since: Time,
}

pub trait ReplicaOwner: Object {
    fn selector(&self) -> LabelSelector;
    fn replicas(&self) -> i32;
    fn min_ready_seconds(&self) -> i32;
    fn template(&self) -> Option<&PodTemplateSpec>;
    /// A copy with this status, or `None` when it has it already.
    fn with_status(&self, counts: &Counts, failure: Option<&FailureCondition>) -> Option<Self>;
    /// This object with the status of `other`.
    fn with_status_of(self, other: &Self) -> Self;
}

impl ReplicaOwner for ReplicaSet {
    fn selector(&self) -> LabelSelector {
        self.spec.as_ref().map(|s| s.selector.clone()).unwrap_or_default()
    }

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn with_status(&self, counts: &Counts, failure: Option<&FailureCondition>) -> Option<Self> {
        let old = self.status.clone().unwrap_or_default();
        let mut conditions = old.conditions.clone().unwrap_or_default();
        let known = conditions.iter().any(|c| c.type_ == REPLICA_FAILURE);
        match failure {
            // The first failure stands until it is over: its text changes too often to be written each time.
            Some(failure) if !known => conditions.push(ReplicaSetCondition {
                type_: REPLICA_FAILURE.into(),
                status: "True".into(),
                reason: Some(failure.reason.into()),
                message: Some(failure.message.clone()),
                last_transition_time: Some(failure.since.clone()),
            }),
            Some(_) => {}
            None => conditions.retain(|c| c.type_ != REPLICA_FAILURE),
        }
        let status = ReplicaSetStatus {
            replicas: counts.replicas,
            fully_labeled_replicas: some_unless_zero(counts.fully_labeled),
            ready_replicas: some_unless_zero(counts.ready),
            available_replicas: some_unless_zero(counts.available),
            terminating_replicas: Some(counts.terminating),
            observed_generation: self.metadata.generation,
            conditions: Some(conditions).filter(|c| !c.is_empty()),
        };
        (status != old).then(|| ReplicaSet {
            status: Some(status),
            ..self.clone()
        })
    }

    fn with_status_of(self, other: &Self) -> Self {
        ReplicaSet {
            status: other.status.clone(),
            ..self
        }
    }
}

impl ReplicaOwner for ReplicationController {
    fn selector(&self) -> LabelSelector {
        selector::of_map(self.spec.as_ref().and_then(|s| s.selector.as_ref()))
    }

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn with_status(&self, counts: &Counts, failure: Option<&FailureCondition>) -> Option<Self> {
        let old = self.status.clone().unwrap_or_default();
        let mut conditions = old.conditions.clone().unwrap_or_default();
        let known = conditions.iter().any(|c| c.type_ == REPLICA_FAILURE);
        match failure {
            Some(failure) if !known => conditions.push(ReplicationControllerCondition {
                type_: REPLICA_FAILURE.into(),
                status: "True".into(),
                reason: Some(failure.reason.into()),
                message: Some(failure.message.clone()),
                last_transition_time: Some(failure.since.clone()),
            }),
            Some(_) => {}
            None => conditions.retain(|c| c.type_ != REPLICA_FAILURE),
        }
        let status = ReplicationControllerStatus {
            replicas: counts.replicas,
            fully_labeled_replicas: some_unless_zero(counts.fully_labeled),
            ready_replicas: some_unless_zero(counts.ready),
            available_replicas: some_unless_zero(counts.available),
            observed_generation: self.metadata.generation,
            conditions: Some(conditions).filter(|c| !c.is_empty()),
        };
        (status != old).then(|| ReplicationController {
            status: Some(status),
            ..self.clone()
        })
    }

    fn with_status_of(self, other: &Self) -> Self {
        ReplicationController {
            status: other.status.clone(),
            ..self
        }
    }
}

/// The server leaves zeros out, and a copy from it must compare equal.
fn some_unless_zero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}
