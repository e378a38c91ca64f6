//! The revisions of a DaemonSet: the one of its template, and those before.

use super::manage::ByNode;
use super::{DaemonSets, spec};
use crate::controllers::controller_revision::{self, REVISION_HASH, Wanted};
use crate::driver::Failure;
use crate::meta::{label, name, namespace};
use client::Patch;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use serde_json::json;
use std::collections::HashSet;

pub(super) struct History {
    pub current: ControllerRevision,
    /// Oldest first.
    pub old: Vec<ControllerRevision>,
    pub collision_count: i32,
}

impl History {
    pub fn hash(&self) -> &str {
        hash_of(&self.current)
    }
}

/// Revisions from before the label are known by their names.
fn hash_of(revision: &ControllerRevision) -> &str {
    label(&revision.metadata, REVISION_HASH).unwrap_or_else(|| name(&revision.metadata))
}

impl DaemonSets {
    pub(super) async fn history(&self, set: &DaemonSet) -> Result<History, Failure> {
        let spec = spec(set);
        let known = controller_revision::claimed(&self.client, set, &self.revisions, &spec.selector).await?;
        let (mut same, old): (Vec<_>, Vec<_>) = known
            .into_iter()
            .partition(|r| controller_revision::is_of(r, &spec.template));
        let next = old.last().map_or(0, |r| r.revision) + 1;
        let collision_count = set.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
        let Some(current) = same.pop() else {
            let wanted = Wanted {
                owner: set,
                template: &spec.template,
                hash_label: REVISION_HASH,
                revision: next,
                collision_count,
            };
            let (current, collision_count) = controller_revision::snapshot(&self.client, &wanted).await?;
            return Ok(History {
                current,
                old,
                collision_count,
            });
        };
        for duplicate in &same {
            self.merge(set, duplicate, &current).await?;
        }
        let current = match current.revision < next {
            true => controller_revision::renumber(&self.client, &current, next).await?,
            false => current,
        };
        Ok(History {
            current,
            old,
            collision_count,
        })
    }

    /// Pods of a revision that says the same are pods of the one that stays.
    async fn merge(
        &self,
        set: &DaemonSet,
        duplicate: &ControllerRevision,
        kept: &ControllerRevision,
    ) -> Result<(), Failure> {
        let pods = self.pods_by_node(set).await?;
        for pod in pods
            .values()
            .flatten()
            .filter(|p| label(&p.metadata, REVISION_HASH) == Some(hash_of(duplicate)))
        {
            let patch =
                json!({"metadata": {"labels": {REVISION_HASH: hash_of(kept)}, "uid": pod.metadata.uid}});
            let api = self
                .client
                .namespaced::<k8s_openapi::api::core::v1::Pod>(namespace(&pod.metadata));
            api.patch(name(&pod.metadata), &Patch::Merge(patch), None).await?;
        }
        controller_revision::delete(&self.client, duplicate).await
    }

    pub(super) async fn truncate_history(
        &self,
        set: &DaemonSet,
        history: &History,
        pods: &ByNode,
    ) -> Result<(), Failure> {
        let hashes: HashSet<_> = pods
            .values()
            .flatten()
            .filter_map(|p| label(&p.metadata, REVISION_HASH))
            .collect();
        let live = history
            .old
            .iter()
            .filter(|r| hashes.contains(hash_of(r)))
            .map(|r| name(&r.metadata).to_owned())
            .collect();
        controller_revision::truncate(
            &self.client,
            &history.old,
            &live,
            spec(set).revision_history_limit,
        )
        .await
    }
}
