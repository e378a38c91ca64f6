//! The ReplicaSets of a Deployment: which one is new, its revision, and how a new one is made.

use super::hash::pod_template_hash;
use super::sizes::{max_surge, new_size, total};
use super::status::{Condition, has_deadline, set_condition};
use super::{Deployments, Pass, replicas_of, set_name, set_replicas, spec};
use crate::driver::Failure;
use crate::meta::{annotation, controller_reference, is_controlled_by, name, namespace};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
pub const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that are not its ReplicaSets'.
const NOT_COPIED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];
/// The history annotation drops its oldest entries beyond this.
const MAX_HISTORY_CHARS: usize = 2000;

/// The oldest set of the current template is the new one: should there be several, all controllers agree on it.
pub(super) fn split(deployment: Deployment, mut sets: Vec<ReplicaSet>) -> Pass {
    sets.sort_by_key(|s| {
        (
            s.metadata.creation_timestamp.as_ref().map(|t| t.0),
            s.metadata.name.clone(),
        )
    });
    let template = spec(&deployment).template.clone();
    let at = sets.iter().position(|set| {
        set.spec
            .as_ref()
            .and_then(|s| s.template.as_ref())
            .is_some_and(|t| is_same(t, &template))
    });
    let new = at.map(|at| sets.remove(at));
    Pass {
        deployment,
        new,
        old: sets,
    }
}

/// Equal but for the hash label, which we added.
fn is_same(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let without_hash = |template: &PodTemplateSpec| {
        let mut meta = template.metadata.clone().unwrap_or_default();
        if let Some(labels) = &mut meta.labels {
            labels.remove(POD_TEMPLATE_HASH);
        }
        meta.labels = meta.labels.filter(|l| !l.is_empty());
        meta.creation_timestamp = None;
        meta
    };
    a.spec == b.spec && without_hash(a) == without_hash(b)
}

pub(super) fn revision(set: &ReplicaSet) -> i64 {
    annotation(&set.metadata, REVISION)
        .and_then(|r| r.parse().ok())
        .unwrap_or(0)
}

impl Deployments {
    /// Makes revision, annotations and minReadySeconds of the new set right; makes the set itself when `create` says so.
    pub(super) async fn sync_new_set(&self, pass: &mut Pass, create: bool) -> Result<(), Failure> {
        let next = pass.old.iter().map(revision).max().unwrap_or(0) + 1;
        match pass.new.take() {
            Some(set) => {
                let set = self.refresh_set(&pass.deployment, set, next).await?;
                self.note_found_set(pass, &set).await?;
                pass.new = Some(set);
            }
            None if create => pass.new = Some(self.create_set(pass, next).await?),
            None => {}
        }
        Ok(())
    }

    async fn refresh_set(
        &self,
        deployment: &Deployment,
        mut set: ReplicaSet,
        revision: i64,
    ) -> Result<ReplicaSet, Failure> {
        let mut changed = annotate(deployment, &mut set, revision);
        let min_ready = spec(deployment).min_ready_seconds;
        if let Some(set_spec) = set
            .spec
            .as_mut()
            .filter(|s| s.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0))
        {
            set_spec.min_ready_seconds = min_ready;
            changed = true;
        }
        if !changed {
            return Ok(set);
        }
        Ok(self
            .client
            .namespaced(namespace(&set.metadata))
            .update(&set)
            .await?)
    }

    async fn note_found_set(&self, pass: &mut Pass, set: &ReplicaSet) -> Result<(), Failure> {
        let mut changed = set_revision(
            &mut pass.deployment,
            annotation(&set.metadata, REVISION).unwrap_or("0"),
        );
        let known = pass
            .deployment
            .status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten())
            .any(|c| c.type_ == "Progressing");
        if has_deadline(&pass.deployment) && !known {
            let condition = Condition::new(
                "Progressing",
                "True",
                "FoundNewReplicaSet",
                format!("Found new replica set \"{}\"", set_name(set)),
            );
            changed |= set_condition(pass.deployment.status.get_or_insert_default(), condition);
        }
        if changed {
            self.put_status(&mut pass.deployment).await?;
        }
        Ok(())
    }

    async fn create_set(&self, pass: &mut Pass, revision: i64) -> Result<ReplicaSet, Failure> {
        let wanted = new_set(&pass.deployment, &pass.old, revision);
        let api = self
            .client
            .namespaced::<ReplicaSet>(namespace(&pass.deployment.metadata));
        let (set, is_ours_already) = match api.create(&wanted).await {
            Ok(set) => (set, false),
            Err(error) if error.is_already_exists() => {
                (self.resolve_collision(pass, &wanted, error).await?, true)
            }
            Err(error) if error.is_namespace_terminating() => return Err(error.into()),
            Err(error) => return Err(self.note_refusal(pass, &wanted, error).await),
        };
        let size = set_replicas(&set);
        if !is_ours_already && size > 0 {
            self.tell(
                &pass.deployment,
                "Normal",
                "ScalingReplicaSet",
                &format!("Scaled up replica set {} from 0 to {size}", set_name(&set)),
            );
        }
        let mut changed = set_revision(&mut pass.deployment, &revision.to_string());
        if !is_ours_already && has_deadline(&pass.deployment) {
            let condition = Condition::new(
                "Progressing",
                "True",
                "NewReplicaSetCreated",
                format!("Created new replica set \"{}\"", set_name(&set)),
            );
            changed |= set_condition(pass.deployment.status.get_or_insert_default(), condition);
        }
        if changed {
            self.put_status(&mut pass.deployment).await?;
        }
        Ok(set)
    }

    /// A set of that name exists: it is ours and our cache is behind, or its hash collides with ours and the next is another.
    async fn resolve_collision(
        &self,
        pass: &mut Pass,
        wanted: &ReplicaSet,
        error: client::Error,
    ) -> Result<ReplicaSet, Failure> {
        let existing: ReplicaSet = self
            .client
            .namespaced(namespace(&wanted.metadata))
            .get(set_name(wanted))
            .await?;
        let template = existing.spec.as_ref().and_then(|s| s.template.as_ref());
        if is_controlled_by(&existing.metadata, &pass.deployment.metadata)
            && template.is_some_and(|t| is_same(t, &spec(&pass.deployment).template))
        {
            return Ok(existing);
        }
        let status = pass.deployment.status.get_or_insert_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        self.put_status(&mut pass.deployment).await?;
        Err(error.into())
    }

    async fn note_refusal(&self, pass: &mut Pass, wanted: &ReplicaSet, error: client::Error) -> Failure {
        let message = format!(
            "Failed to create new replica set \"{}\": {error}",
            set_name(wanted)
        );
        self.tell(&pass.deployment, "Warning", "ReplicaSetCreateError", &message);
        if has_deadline(&pass.deployment) {
            let condition = Condition::new("Progressing", "False", "ReplicaSetCreateError", message);
            if set_condition(pass.deployment.status.get_or_insert_default(), condition)
                && let Err(failure) = self.put_status(&mut pass.deployment).await
            {
                tracing::debug!(%failure, "Cannot note that a replica set was refused");
            }
        }
        error.into()
    }
}

fn new_set(deployment: &Deployment, old: &[ReplicaSet], revision: i64) -> ReplicaSet {
    let spec = spec(deployment);
    let hash = pod_template_hash(
        &spec.template,
        deployment.status.as_ref().and_then(|s| s.collision_count),
    );
    let mut template = spec.template.clone();
    let labels = template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default();
    labels.insert(POD_TEMPLATE_HASH.into(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector
        .match_labels
        .get_or_insert_default()
        .insert(POD_TEMPLATE_HASH.into(), hash.clone());
    let mut set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", name(&deployment.metadata))),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(new_size(deployment, total(old), 0)),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    };
    annotate(deployment, &mut set, revision);
    annotate_sizes(deployment, &mut set);
    set
}

/// True when something changed.
fn annotate(deployment: &Deployment, set: &mut ReplicaSet, revision: i64) -> bool {
    let annotations = set.metadata.annotations.get_or_insert_default();
    let mut changed = false;
    for (key, value) in deployment
        .metadata
        .annotations
        .iter()
        .flatten()
        .filter(|(key, _)| !NOT_COPIED.contains(&key.as_str()))
    {
        changed |= annotations.insert(key.clone(), value.clone()).as_ref() != Some(value);
    }
    let before = annotations.get(REVISION).cloned();
    if before.as_deref().and_then(|r| r.parse().ok()).unwrap_or(0) < revision {
        annotations.insert(REVISION.into(), revision.to_string());
        changed = true;
        // A set that becomes the newest again remembers which revisions it was.
        if let Some(before) = before {
            let history = annotations.entry(REVISION_HISTORY.into()).or_default();
            *history = extended(history, &before);
        }
    }
    if annotations.is_empty() {
        set.metadata.annotations = None;
    }
    changed
}

fn extended(history: &str, revision: &str) -> String {
    let mut entries: Vec<_> = history.split(',').filter(|e| !e.is_empty()).collect();
    entries.push(revision);
    while entries.iter().map(|e| e.len() + 1).sum::<usize>() > MAX_HISTORY_CHARS && entries.len() > 1 {
        entries.remove(0);
    }
    entries.join(",")
}

pub(super) fn annotate_sizes(deployment: &Deployment, set: &mut ReplicaSet) -> bool {
    let desired = replicas_of(deployment);
    let max = desired + max_surge(deployment);
    let annotations = set.metadata.annotations.get_or_insert_default();
    let mut changed = false;
    for (key, value) in [
        (DESIRED_REPLICAS, desired.to_string()),
        (MAX_REPLICAS, max.to_string()),
    ] {
        changed |= annotations.insert(key.into(), value.clone()) != Some(value);
    }
    changed
}

fn set_revision(deployment: &mut Deployment, revision: &str) -> bool {
    let annotations = deployment.metadata.annotations.get_or_insert_default();
    annotations
        .insert(REVISION.into(), revision.to_owned())
        .as_deref()
        != Some(revision)
}
