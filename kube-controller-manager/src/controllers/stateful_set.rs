//! Keeps the numbered pods of a StatefulSet, each with its name and its claims, one after the other.
//!
//! One pass: find the revisions ([`history`]), bring the pods a step nearer ([`rollout`]), each made as [`identity`] says with its
//! [`claims`], then status. Names are fixed, so that a cache that is behind meets AlreadyExists and does no harm; deletions
//! name the uid for the same reason.

mod claims;
mod history;
mod identity;
mod rollout;
mod status;

use crate::context::Context;
use crate::controllers::Controller;
use crate::controllers::controller_revision;
use crate::controllers::pod_events::PodEvents;
use crate::driver::{Driver, Failure, Outcome, Reconciler, Requeue, synced};
use crate::expectations::Expectations;
use crate::informers::claimable;
use crate::meta::{is_deleted, namespace, uid};
use crate::pod_control::claim;
use crate::selector;
use client::events::{EventRecorder, object_reference};
use client::informer::{Event, Informer, Store};
use client::workqueue::WorkQueue;
use client::{Client, object_key};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use rollout::Members;
use std::borrow::Cow;
use std::sync::Arc;

pub fn build(context: &Context) -> Option<Box<dyn Controller>> {
    Some(Box::new(driver(context)))
}

fn driver(context: &Context) -> Driver<StatefulSets> {
    let queue = WorkQueue::new("statefulset");
    let informers = &context.informers;
    let (sets, pods) = (informers.stateful_sets.start(), informers.pods.start());
    let (claims, revisions) = (
        informers.persistent_volume_claims.start(),
        informers.controller_revisions.start(),
    );
    hear_sets(&informers.stateful_sets, &queue);
    controller_revision::hear(&informers.controller_revisions, &queue, &sets);
    // Nothing is expected here: see the head of this file.
    let expectations = Arc::new(Expectations::default());
    PodEvents {
        owners: sets.clone(),
        queue: queue.clone(),
        expectations,
        selector: |set: &StatefulSet| set.spec.as_ref().map(|s| Cow::Borrowed(&s.selector)),
    }
    .hear(&informers.pods);
    let needs = vec![synced(&sets), synced(&pods), synced(&claims), synced(&revisions)];
    let (client, recorder) = (
        context.client_for("statefulset-controller"),
        context.recorder("statefulset-controller"),
    );
    let reconciler = Arc::new(StatefulSets {
        client,
        recorder,
        sets,
        pods,
        claims,
        revisions,
    });
    Driver {
        name: "statefulset-controller",
        queue,
        reconciler,
        workers: context.options.workers.stateful_set,
        needs,
    }
}

fn hear_sets(sets: &Informer<StatefulSet>, queue: &WorkQueue<String>) {
    let queue = queue.clone();
    sets.on_event(move |event| match event {
        Event::Added(set) | Event::Modified(_, set) | Event::Deleted(set) => queue.add(object_key(&**set)),
        Event::Synced => {}
    });
}

/// A pass that could not see its own revision yet is repeated.
struct StatefulSets {
    client: Client,
    recorder: EventRecorder,
    sets: Store<StatefulSet>,
    pods: Store<Pod>,
    claims: Store<PersistentVolumeClaim>,
    revisions: Store<ControllerRevision>,
}

impl Reconciler for StatefulSets {
    async fn reconcile(&self, key: &str) -> Outcome {
        let Some(set) = self.sets.get(key) else {
            return Ok(Requeue::Done);
        };
        let pods = self.claimed(&set).await?;
        let history = self.history(&set).await?;
        let rolled = match is_deleted(&set.metadata) {
            true => Ok(()),
            false => self.roll(&set, &Members::of(&set, &pods), &history).await,
        };
        // What could be counted is told even when a step failed.
        let next = self.write_status(&set, &pods, &history).await;
        rolled?;
        self.truncate_history(&set, &history, &pods).await?;
        next
    }
}

impl StatefulSets {
    async fn claimed(&self, set: &StatefulSet) -> Result<Vec<Arc<Pod>>, Failure> {
        let candidates = claimable(&self.pods, namespace(&set.metadata), uid(&set.metadata));
        let wanted = &spec(set).selector;
        claim(&self.client, set, candidates, |pod: &Pod| {
            selector::selects(wanted, &pod.metadata) && identity::is_member(set, pod)
        })
        .await
    }

    fn tell(&self, set: &StatefulSet, type_: &str, reason: &str, message: &str) {
        self.recorder
            .event(&object_reference(set), type_, reason, message);
    }
}

/// The API requires a spec; the type does not.
fn spec(set: &StatefulSet) -> Cow<'_, StatefulSetSpec> {
    set.spec
        .as_ref()
        .map_or_else(|| Cow::Owned(StatefulSetSpec::default()), Cow::Borrowed)
}

fn is_rolling(set: &StatefulSet) -> bool {
    let strategy = set
        .spec
        .as_ref()
        .and_then(|s| s.update_strategy.as_ref())
        .and_then(|s| s.type_.as_deref());
    strategy != Some("OnDelete")
}

#[cfg(test)]
mod tests;
