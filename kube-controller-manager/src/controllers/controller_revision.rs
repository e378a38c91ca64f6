//! ControllerRevisions: the templates that a DaemonSet or a StatefulSet has had, numbered.
//!
//! A revision holds the template as a patch, `{"spec":{"template":{…,"$patch":"replace"}}}`, as upstream writes it and `kubectl
//! rollout undo` reads it. Revisions are compared by the template in them, so that those of upstream's controllers count too.

use super::deployment::hash::pod_template_hash;
use super::pod_events::owner;
use crate::driver::Failure;
use crate::informers::claimable;
use crate::meta::{controller_reference, is_controlled_by, name, namespace, uid};
use crate::pod_control::claim;
use crate::selector;
use client::informer::{Event, Informer, Store};
use client::workqueue::WorkQueue;
use client::{Client, Object, Patch, object_key};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;

/// On pods of both kinds, and on the revisions of DaemonSets.
pub const REVISION_HASH: &str = "controller-revision-hash";
/// Longer names of owners are cut in the names of their revisions.
const MAX_OWNER_CHARS: usize = 223;
const DEFAULT_LIMIT: i32 = 10;
/// Names that are taken by something else are rare: more than this in a row is an error.
const MAX_COLLISIONS: i32 = 100;

/// What a revision is made of.
pub struct Wanted<'a, T> {
    pub owner: &'a T,
    pub template: &'a PodTemplateSpec,
    /// The label that takes the hash.
    pub hash_label: &'static str,
    pub revision: i64,
    pub collision_count: i32,
}

/// A revision that comes, changes or goes wakes its owner.
pub fn hear<T: Object>(
    revisions: &Informer<ControllerRevision>,
    queue: &WorkQueue<String>,
    owners: &Store<T>,
) {
    let (queue, owners) = (queue.clone(), owners.clone());
    revisions.on_event(move |event| {
        let (Event::Added(revision) | Event::Modified(_, revision) | Event::Deleted(revision)) = event else {
            return;
        };
        if let Some(owner) = owner(&owners, &**revision) {
            queue.add(object_key(&*owner));
        }
    });
}

/// The revisions of `owner`, oldest first.
pub async fn claimed<T: Object>(
    client: &Client,
    owner: &T,
    store: &Store<ControllerRevision>,
    wanted: &LabelSelector,
) -> Result<Vec<ControllerRevision>, Failure> {
    let candidates = claimable(store, namespace(owner.metadata()), uid(owner.metadata()));
    let claimed = claim(client, owner, candidates, |revision: &ControllerRevision| {
        selector::selects(wanted, &revision.metadata)
    })
    .await?;
    let mut revisions: Vec<_> = claimed.into_iter().map(Arc::unwrap_or_clone).collect();
    sort(&mut revisions);
    Ok(revisions)
}

fn sort(revisions: &mut [ControllerRevision]) {
    revisions.sort_by(|a, b| {
        let age = |r: &ControllerRevision| r.metadata.creation_timestamp.as_ref().map(|t| t.0);
        a.revision
            .cmp(&b.revision)
            .then_with(|| age(a).cmp(&age(b)))
            .then_with(|| a.metadata.name.cmp(&b.metadata.name))
    });
}

pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let template = revision.data.as_ref()?.0.get("spec")?.get("template")?;
    serde_json::from_value(template.clone()).ok().map(normal)
}

pub fn is_of(revision: &ControllerRevision, template: &PodTemplateSpec) -> bool {
    template_of(revision).is_some_and(|t| t == normal(template.clone()))
}

/// Go writes a creation timestamp of null into templates, and empty maps as nothing.
fn normal(mut template: PodTemplateSpec) -> PodTemplateSpec {
    let meta = template.metadata.get_or_insert_default();
    meta.creation_timestamp = None;
    meta.labels = meta.labels.take().filter(|l| !l.is_empty());
    meta.annotations = meta.annotations.take().filter(|a| !a.is_empty());
    template
}

fn data_of(template: &PodTemplateSpec) -> Result<Value, Failure> {
    let mut template = serde_json::to_value(template).map_err(|e| Failure::other(e.to_string()))?;
    template["$patch"] = json!("replace");
    Ok(json!({"spec": {"template": template}}))
}

/// Creates the revision, or finds it under the name that it would get; a name that another template holds is passed over.
/// The second result is the collision count that led to the name.
pub async fn snapshot<T: Object>(
    client: &Client,
    wanted: &Wanted<'_, T>,
) -> Result<(ControllerRevision, i32), Failure> {
    let meta = wanted.owner.metadata();
    let api = client.namespaced::<ControllerRevision>(namespace(meta));
    let last = wanted.collision_count.saturating_add(MAX_COLLISIONS);
    for collisions in wanted.collision_count..last {
        let revision = made(wanted, collisions)?;
        match api.create(&revision).await {
            Err(error) if error.is_already_exists() => {
                let existing = api.get(name(&revision.metadata)).await?;
                if is_of(&existing, wanted.template) && is_controlled_by(&existing.metadata, meta) {
                    return Ok((existing, collisions));
                }
            }
            created => return Ok((created?, collisions)),
        }
    }
    Err(Failure::other(format!(
        "no free name for a revision of {}/{}",
        namespace(meta),
        name(meta)
    )))
}

fn made<T: Object>(wanted: &Wanted<'_, T>, collisions: i32) -> Result<ControllerRevision, Failure> {
    let meta = wanted.owner.metadata();
    let hash = pod_template_hash(wanted.template, (collisions > 0).then_some(collisions));
    let mut labels = wanted
        .template
        .metadata
        .as_ref()
        .and_then(|m| m.labels.clone())
        .unwrap_or_default();
    labels.insert(wanted.hash_label.to_owned(), hash.clone());
    let prefix: String = name(meta).chars().take(MAX_OWNER_CHARS).collect();
    Ok(ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{prefix}-{hash}")),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            annotations: meta.annotations.clone(),
            owner_references: Some(vec![controller_reference(wanted.owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data_of(wanted.template)?)),
        revision: wanted.revision,
    })
}

/// A template that comes back gets the newest number.
pub async fn renumber(
    client: &Client,
    known: &ControllerRevision,
    revision: i64,
) -> Result<ControllerRevision, Failure> {
    let patch = json!({"revision": revision, "metadata": {"uid": uid(&known.metadata)}});
    Ok(client
        .namespaced(namespace(&known.metadata))
        .patch(name(&known.metadata), &Patch::Merge(patch), None)
        .await?)
}

/// Deletes the oldest of `history` beyond `limit`; those in `live` are kept and not counted.
pub async fn truncate(
    client: &Client,
    history: &[ControllerRevision],
    live: &HashSet<String>,
    limit: Option<i32>,
) -> Result<(), Failure> {
    let limit = usize::try_from(limit.unwrap_or(DEFAULT_LIMIT)).unwrap_or(0);
    let dead: Vec<_> = history
        .iter()
        .filter(|r| !live.contains(name(&r.metadata)))
        .collect();
    for revision in &dead[..dead.len().saturating_sub(limit)] {
        delete(client, revision).await?;
    }
    Ok(())
}

pub async fn delete(client: &Client, revision: &ControllerRevision) -> Result<(), Failure> {
    let api = client.namespaced::<ControllerRevision>(namespace(&revision.metadata));
    match api.delete(name(&revision.metadata), &Default::default()).await {
        Err(error) if error.is_not_found() => Ok(()),
        outcome => Ok(outcome?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::fake::FakeServer;
    use k8s_openapi::api::apps::v1::DaemonSet;

    fn template(image: &str) -> PodTemplateSpec {
        serde_json::from_value(json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": image}]}})).unwrap()
    }

    #[test]
    fn a_revision_written_by_go_is_recognised() {
        let data = json!({"spec": {"template": {"$patch": "replace", "metadata": {"creationTimestamp": null, "labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "a"}]}}}});
        let revision = ControllerRevision {
            data: Some(RawExtension(data)),
            ..ControllerRevision::default()
        };
        assert!(is_of(&revision, &template("a")));
        assert!(!is_of(&revision, &template("b")));
    }

    #[tokio::test]
    async fn a_taken_name_is_passed_over_and_an_own_one_is_found_again() {
        let server = FakeServer::new();
        let owner: DaemonSet =
            serde_json::from_value(json!({"metadata": {"name": "ds", "namespace": "ns", "uid": "u"}}))
                .unwrap();
        let (a, b) = (template("a"), template("b"));
        let wanted = |template, collision_count| Wanted {
            owner: &owner,
            template,
            hash_label: REVISION_HASH,
            revision: 1,
            collision_count,
        };
        let (first, count) = snapshot(&server.client(), &wanted(&a, 0)).await.unwrap();
        assert_eq!(count, 0);
        let again = snapshot(&server.client(), &wanted(&a, 0)).await.unwrap();
        assert_eq!(again.0.metadata.uid, first.metadata.uid);
        let mut thief = made(&wanted(&b, 0), 0).unwrap();
        thief.data = first.data.clone();
        server.client().namespaced("ns").create(&thief).await.unwrap();
        let (second, count) = snapshot(&server.client(), &wanted(&b, 0)).await.unwrap();
        assert_eq!(count, 1);
        assert!(is_of(&second, &b) && second.metadata.name != thief.metadata.name);
    }
}
