//! Creating and deleting pods on behalf of a controller, and claiming those that match its selector.

use crate::driver::Failure;
use crate::meta::{controller_of, controller_reference, is_controlled_by, is_deleted, name, namespace, uid};
use client::events::{EventRecorder, object_reference};
use client::{Client, Object, Patch};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::json;
use std::future::Future;
use std::sync::Arc;

#[derive(Clone)]
pub struct PodControl {
    client: Client,
    recorder: EventRecorder,
}

impl PodControl {
    pub fn new(client: Client, recorder: EventRecorder) -> Self {
        PodControl { client, recorder }
    }

    /// Creates `pod` in the owner's namespace, and tells so on the owner.
    pub async fn create<T: Object>(&self, owner: &T, pod: &Pod) -> Result<Pod, client::Error> {
        let created = self
            .client
            .namespaced::<Pod>(namespace(owner.metadata()))
            .create(pod)
            .await;
        match &created {
            Ok(pod) => self.tell(
                owner,
                "Normal",
                "SuccessfulCreate",
                &format!("Created pod: {}", name(&pod.metadata)),
            ),
            // Nobody can act on it, and the namespace would refuse the event too.
            Err(error) if error.is_namespace_terminating() => {}
            Err(error) => self.tell(
                owner,
                "Warning",
                "FailedCreate",
                &format!("Error creating: {error}"),
            ),
        }
        created
    }

    pub async fn delete<T: Object>(&self, owner: &T, pod: &Pod) -> Result<(), client::Error> {
        let name = name(&pod.metadata);
        let deleted = self
            .client
            .namespaced::<Pod>(namespace(&pod.metadata))
            .delete(name, &Default::default())
            .await;
        match &deleted {
            Ok(()) => self.tell(
                owner,
                "Normal",
                "SuccessfulDelete",
                &format!("Deleted pod: {name}"),
            ),
            Err(error) if error.is_not_found() => {}
            Err(error) => self.tell(
                owner,
                "Warning",
                "FailedDelete",
                &format!("Error deleting: {error}"),
            ),
        }
        deleted
    }

    fn tell<T: Object>(&self, owner: &T, type_: &str, reason: &str, message: &str) {
        self.recorder
            .event(&object_reference(owner), type_, reason, message);
    }
}

/// A pod of `template`, named after its owner by the server.
pub fn pod_from_template<T: Object>(owner: &T, template: &PodTemplateSpec) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(name_prefix(name(owner.metadata()))),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Upstream leaves the dash out when the name would not be valid with it.
fn name_prefix(owner: &str) -> String {
    const MAX_NAME: usize = 253;
    if owner.len() < MAX_NAME {
        format!("{owner}-")
    } else {
        owner.to_owned()
    }
}

/// Pods are created in batches of 1, 2, 4, … so that a refusal that would meet all of them is met by few.
/// How many were created, and the first error.
pub async fn slow_start<F, Fut>(count: usize, mut create: F) -> (usize, Option<client::Error>)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<(), client::Error>>,
{
    let (mut left, mut successes, mut batch) = (count, 0, 1);
    while left > 0 {
        let size = batch.min(left);
        let (good, error) = all((0..size).map(|_| create())).await;
        successes += good;
        if error.is_some() {
            return (successes, error);
        }
        left -= size;
        batch *= 2;
    }
    (successes, None)
}

/// Runs all at once; how many succeeded, and the first error.
pub async fn all<Fut: Future<Output = Result<(), client::Error>>>(
    work: impl IntoIterator<Item = Fut>,
) -> (usize, Option<client::Error>) {
    let outcomes = futures_util::future::join_all(work).await;
    let total = outcomes.len();
    let mut errors: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    let good = total - errors.len();
    let first = (!errors.is_empty()).then(|| errors.remove(0));
    (good, first)
}

/// Decides which of `candidates` belong to `owner`: keeps its own that match, adopts orphans that match, releases its own that
/// do not match any more. Before the first adoption the owner is read afresh, because a stale one could claim after its deletion.
pub async fn claim<T: Object, C: Object>(
    client: &Client,
    owner: &T,
    candidates: Vec<Arc<C>>,
    matches: impl Fn(&C) -> bool,
) -> Result<Vec<Arc<C>>, Failure> {
    let mut claimed = Vec::with_capacity(candidates.len());
    let mut may_adopt = None;
    for candidate in candidates {
        let meta = candidate.metadata();
        if is_controlled_by(meta, owner.metadata()) {
            match matches(&candidate) {
                true => claimed.push(candidate),
                false if is_deleted(owner.metadata()) => {}
                false => release(client, owner, &*candidate).await?,
            }
            continue;
        }
        let adoptable = controller_of(meta).is_none()
            && !is_deleted(owner.metadata())
            && !is_deleted(meta)
            && matches(&candidate);
        if !adoptable {
            continue;
        }
        if may_adopt.is_none() {
            may_adopt = Some(check_owner(client, owner).await?);
        }
        if adopt(client, owner, &*candidate).await? {
            claimed.push(candidate);
        }
    }
    Ok(claimed)
}

async fn check_owner<T: Object>(client: &Client, owner: &T) -> Result<(), Failure> {
    let meta = owner.metadata();
    let fresh: T = client.namespaced(namespace(meta)).get(name(meta)).await?;
    if uid(fresh.metadata()) != uid(meta) {
        return Err(Failure::other(format!(
            "original {} {}/{} is gone: got uid {}, wanted {}",
            T::KIND,
            namespace(meta),
            name(meta),
            uid(fresh.metadata()),
            uid(meta)
        )));
    }
    if is_deleted(fresh.metadata()) {
        return Err(Failure::other(format!(
            "{}/{} has just been deleted",
            namespace(meta),
            name(meta)
        )));
    }
    Ok(())
}

/// The uid in the patch makes it fail on an object of the same name that came since.
async fn adopt<T: Object, C: Object>(client: &Client, owner: &T, orphan: &C) -> Result<bool, Failure> {
    let reference: OwnerReference = controller_reference(owner);
    let patch = json!({"metadata": {"ownerReferences": [reference], "uid": uid(orphan.metadata())}});
    patch_unless_gone(client, orphan, patch).await
}

async fn release<T: Object, C: Object>(client: &Client, owner: &T, dependent: &C) -> Result<(), Failure> {
    let reference = json!({"$patch": "delete", "uid": uid(owner.metadata())});
    let patch = json!({"metadata": {"ownerReferences": [reference], "uid": uid(dependent.metadata())}});
    patch_unless_gone(client, dependent, patch).await.map(drop)
}

/// False when the object went away or was replaced meanwhile, which settles the matter.
async fn patch_unless_gone<C: Object>(
    client: &Client,
    object: &C,
    patch: serde_json::Value,
) -> Result<bool, Failure> {
    let meta = object.metadata();
    let api = client.namespaced::<C>(namespace(meta));
    match api.patch(name(meta), &Patch::Strategic(patch), None).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() || error.is_invalid() => Ok(false),
        Err(error) => Err(error.into()),
    }
}
