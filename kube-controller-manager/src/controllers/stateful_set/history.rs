//! The revision that a StatefulSet is at, and the one it goes to.

use super::identity::revision;
use super::{StatefulSets, spec};
use crate::controllers::controller_revision::{self, Wanted};
use crate::driver::Failure;
use crate::meta::name;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;

/// On revisions only: pods carry the revision's name.
const HASH: &str = "controller.kubernetes.io/hash";

pub(super) struct History {
    pub current: ControllerRevision,
    pub update: ControllerRevision,
    pub collision_count: i32,
    /// Oldest first.
    known: Vec<ControllerRevision>,
}

impl StatefulSets {
    pub(super) async fn history(&self, set: &StatefulSet) -> Result<History, Failure> {
        let spec = spec(set);
        let known = controller_revision::claimed(&self.client, set, &self.revisions, &spec.selector).await?;
        let next = known.last().map_or(1, |r| r.revision + 1);
        let mut collision_count = set.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
        let same = known
            .iter()
            .rev()
            .find(|r| controller_revision::is_of(r, &spec.template));
        let update = match same {
            Some(same) if Some(name(&same.metadata)) == known.last().map(|r| name(&r.metadata)) => {
                same.clone()
            }
            // A roll back.
            Some(same) => controller_revision::renumber(&self.client, same, next).await?,
            None => {
                let wanted = Wanted {
                    owner: set,
                    template: &spec.template,
                    hash_label: HASH,
                    revision: next,
                    collision_count,
                };
                let (made, collisions) = controller_revision::snapshot(&self.client, &wanted).await?;
                collision_count = collisions;
                made
            }
        };
        let at = set.status.as_ref().and_then(|s| s.current_revision.as_deref());
        let current = known
            .iter()
            .find(|r| Some(name(&r.metadata)) == at)
            .cloned()
            .unwrap_or_else(|| update.clone());
        Ok(History {
            current,
            update,
            collision_count,
            known,
        })
    }

    pub(super) async fn truncate_history(
        &self,
        set: &StatefulSet,
        history: &History,
        pods: &[Arc<Pod>],
    ) -> Result<(), Failure> {
        let in_use = pods
            .iter()
            .map(|p| revision(p))
            .chain([name(&history.current.metadata), name(&history.update.metadata)]);
        let live = in_use.map(str::to_owned).collect();
        controller_revision::truncate(
            &self.client,
            &history.known,
            &live,
            spec(set).revision_history_limit,
        )
        .await
    }
}
