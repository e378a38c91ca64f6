//! What stands in the way of a namespace's end, in upstream's conditions and words.

use crate::meta::now;
use client::{Error, PartialObjectMetadata, ResourceType};
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};
use std::collections::BTreeMap;

/// Type, and the reason and message when all is well.
const TYPES: [(&str, &str, &str); 5] = [
    (
        "NamespaceDeletionDiscoveryFailure",
        "ResourcesDiscovered",
        "All resources successfully discovered",
    ),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    (
        "NamespaceContentRemaining",
        "ContentRemoved",
        "All content successfully removed",
    ),
    (
        "NamespaceFinalizersRemaining",
        "ContentHasNoFinalizers",
        "All content-preserving finalizers finished",
    ),
];

#[derive(Default)]
pub(super) struct Remains {
    pub estimate: i64,
    discovery: Vec<String>,
    errors: Vec<String>,
    /// `resource.group` to the number of objects.
    content: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
}

impl Remains {
    pub fn new(failed: &[(String, Error)]) -> Self {
        Remains {
            discovery: failed
                .iter()
                .map(|(group, error)| format!("{group}: {error}"))
                .collect(),
            ..Remains::default()
        }
    }

    pub fn is_empty(&self) -> bool {
        self.content.is_empty() && self.errors.is_empty()
    }

    pub fn failed(&mut self, resource: &ResourceType, error: &Error) {
        self.errors
            .push(format!("{}.{}: {error}", resource.resource, resource.group));
    }

    pub fn left(&mut self, resource: &ResourceType, objects: &[PartialObjectMetadata], estimate: i64) {
        if objects.is_empty() {
            return;
        }
        self.estimate = self.estimate.max(estimate);
        self.content
            .insert(format!("{}.{}", resource.resource, resource.group), objects.len());
        for finalizer in objects
            .iter()
            .flat_map(|o| o.metadata.finalizers.iter().flatten())
        {
            *self.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }

    pub fn first_problem(&self) -> Option<String> {
        self.discovery
            .first()
            .map(|d| format!("discovery failed: {d}"))
            .or_else(|| self.errors.first().cloned())
    }

    /// Reason and message of a condition that is true.
    fn problem(&self, type_: &str) -> Option<(&'static str, String)> {
        let listed = |counts: &BTreeMap<String, usize>| {
            counts
                .iter()
                .map(|(what, n)| format!("{what} {}", instances(*n)))
                .collect::<Vec<_>>()
                .join(", ")
        };
        match type_ {
            "NamespaceDeletionDiscoveryFailure" if !self.discovery.is_empty() => {
                let list = self.discovery.join(", ");
                let count = self.discovery.len();
                Some((
                    "DiscoveryFailed",
                    format!(
                        "Discovery failed for some groups, {count} failing: unable to retrieve the complete list of server APIs: {list}"
                    ),
                ))
            }
            "NamespaceDeletionContentFailure" if !self.errors.is_empty() => Some((
                "ContentDeletionFailed",
                format!(
                    "Failed to delete all resource types, {} remaining: {}",
                    self.errors.len(),
                    self.errors.join(", ")
                ),
            )),
            "NamespaceContentRemaining" if !self.content.is_empty() => Some((
                "SomeResourcesRemain",
                format!("Some resources are remaining: {}", listed(&self.content)),
            )),
            "NamespaceFinalizersRemaining" if !self.finalizers.is_empty() => {
                let list: Vec<_> = self
                    .finalizers
                    .iter()
                    .map(|(f, n)| format!("{f} in {n} resource instances"))
                    .collect();
                Some((
                    "SomeFinalizersRemain",
                    format!(
                        "Some content in the namespace has finalizers remaining: {}",
                        list.join(", ")
                    ),
                ))
            }
            _ => None,
        }
    }
}

fn instances(count: usize) -> String {
    format!("has {count} resource instances")
}

/// The status to write, or `None` when it says all this already.
pub(super) fn updated(namespace: &Namespace, remains: &Remains) -> Option<NamespaceStatus> {
    let mut status = namespace.status.clone().unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    let mut changed = false;
    for (type_, ok_reason, ok_message) in TYPES {
        let (value, reason, message) = match remains.problem(type_) {
            Some((reason, message)) => ("True", reason, message),
            None => ("False", ok_reason, ok_message.to_owned()),
        };
        changed |= set(conditions, type_, value, reason, message);
    }
    changed.then_some(status)
}

fn set(
    conditions: &mut Vec<NamespaceCondition>,
    type_: &str,
    status: &str,
    reason: &str,
    message: String,
) -> bool {
    let condition = NamespaceCondition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_transition_time: Some(now()),
    };
    match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(known)
            if known.status == condition.status
                && known.reason == condition.reason
                && known.message == condition.message =>
        {
            false
        }
        Some(known) => {
            *known = condition;
            true
        }
        None => {
            conditions.push(condition);
            true
        }
    }
}
