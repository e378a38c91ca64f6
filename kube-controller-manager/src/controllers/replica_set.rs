//! Keeps as many pods as a ReplicaSet, or a ReplicationController, asks for.
//!
//! The two kinds differ in name only; [`ReplicaOwner`] is what they have in common. Expectations keep a reconciler that runs
//! on a cache behind its own writes from creating twice.

mod deletion;
mod owner;

pub use owner::ReplicaOwner;

use super::pod_events::PodEvents;
use crate::context::Context;
use crate::controllers::Controller;
use crate::driver::{Driver, Failure, Outcome, Reconciler, Requeue, synced};
use crate::expectations::Expectations;
use crate::informers::{NAMESPACE, claimable};
use crate::meta::{is_deleted, name, namespace, now, uid};
use crate::pod::{is_active, is_available, is_ready, is_terminating, seconds_until_available};
use crate::pod_control::{PodControl, all, claim, pod_from_template, slow_start};
use crate::selector;
use client::informer::{Event, Informer, Store};
use client::workqueue::WorkQueue;
use client::{Client, object_key};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use owner::{Counts, FailureCondition};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// No more pods than this are created or deleted in one pass over one owner.
const BURST: usize = 500;
/// A status is written again this often on a lost race before the key goes back to the queue.
const STATUS_RETRIES: usize = 1;

pub fn build(context: &Context) -> Option<Box<dyn Controller>> {
    let workers = context.options.workers.replica_set;
    Some(Box::new(driver::<ReplicaSet>(
        context,
        "replicaset-controller",
        "replicaset-controller",
        "replicaset",
        workers,
        &context.informers.replica_sets,
    )))
}

pub fn build_replication_controller(context: &Context) -> Option<Box<dyn Controller>> {
    let workers = context.options.workers.replication_controller;
    Some(Box::new(driver::<ReplicationController>(
        context,
        "replicationcontroller-controller",
        "replication-controller",
        "replicationmanager",
        workers,
        &context.informers.replication_controllers,
    )))
}

fn driver<T: ReplicaOwner>(
    context: &Context,
    name: &'static str,
    account: &str,
    queue: &str,
    workers: usize,
    owners: &Informer<T>,
) -> Driver<Replicas<T>> {
    let queue = WorkQueue::new(queue);
    let client = context.client_for(account);
    let control = PodControl::new(client.clone(), context.recorder(account));
    let expectations = Arc::new(Expectations::default());
    let (pods, store) = (context.informers.pods.start(), owners.start());
    hear_owners(owners, &queue, &expectations);
    PodEvents {
        owners: store.clone(),
        queue: queue.clone(),
        expectations: expectations.clone(),
        selector: |owner: &T| Some(Cow::Owned(owner.selector())),
    }
    .hear(&context.informers.pods);
    let needs = vec![synced(&pods), synced(&store)];
    Driver {
        name,
        queue,
        reconciler: Arc::new(Replicas {
            client,
            control,
            owners: store,
            pods,
            expectations,
        }),
        workers,
        needs,
    }
}

fn hear_owners<T: ReplicaOwner>(
    informer: &Informer<T>,
    queue: &WorkQueue<String>,
    expectations: &Arc<Expectations>,
) {
    let (queue, expectations) = (queue.clone(), expectations.clone());
    informer.on_event(move |event| match event {
        Event::Added(owner) => queue.add(object_key(&**owner)),
        Event::Modified(old, new) => {
            // Another object under the same name: what was expected of the old one will not come.
            if uid(old.metadata()) != uid(new.metadata()) {
                expectations.forget(&object_key(&**old));
            }
            queue.add(object_key(&**new));
        }
        Event::Deleted(owner) => {
            expectations.forget(&object_key(&**owner));
            queue.add(object_key(&**owner));
        }
        Event::Synced => {}
    });
}

struct Replicas<T> {
    client: Client,
    control: PodControl,
    owners: Store<T>,
    pods: Store<Pod>,
    expectations: Arc<Expectations>,
}

impl<T: ReplicaOwner> Reconciler for Replicas<T> {
    async fn reconcile(&self, key: &str) -> Outcome {
        let Some(owner) = self.owners.get(key) else {
            self.expectations.forget(key);
            return Ok(Requeue::Done);
        };
        let may_manage = self.expectations.satisfied(key) && !is_deleted(owner.metadata());
        let (active, terminating) = self.claimed(&owner).await?;
        let failure = if may_manage {
            self.manage(key, &owner, &active).await
        } else {
            None
        };
        let counts = self.count(&owner, &active, terminating);
        self.write_status(&owner, &counts, failure.as_ref()).await?;
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(self.next_availability(&owner, &active, &counts)),
        }
    }
}

impl<T: ReplicaOwner> Replicas<T> {
    /// The pods that count, and how many are on their way out.
    async fn claimed(&self, owner: &T) -> Result<(Vec<Arc<Pod>>, usize), Failure> {
        let meta = owner.metadata();
        let candidates = claimable(&self.pods, namespace(meta), uid(meta));
        let (active, rest): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|p| is_active(p));
        let selector = owner.selector();
        let claimed = claim(&self.client, owner, active, |pod: &Pod| {
            selector::selects(&selector, &pod.metadata)
        })
        .await?;
        let ours = |pod: &Pod| is_terminating(pod) && crate::meta::is_controlled_by(&pod.metadata, meta);
        Ok((claimed, rest.iter().filter(|p| ours(p)).count()))
    }

    async fn manage(&self, key: &str, owner: &Arc<T>, active: &[Arc<Pod>]) -> Option<client::Error> {
        let wanted = usize::try_from(owner.replicas()).unwrap_or(0);
        match active.len() {
            have if have < wanted => self.create(key, owner, (wanted - have).min(BURST)).await,
            have if have > wanted => self.delete(key, owner, active, (have - wanted).min(BURST)).await,
            _ => None,
        }
    }

    async fn create(&self, key: &str, owner: &Arc<T>, count: usize) -> Option<client::Error> {
        let template = owner.template()?;
        let pod = pod_from_template(&**owner, template);
        self.expectations.expect_creations(key, count);
        let (created, error) = slow_start(count, || async {
            match self.control.create(&**owner, &pod).await {
                // Nothing can be created any more, and nothing will be missed.
                Err(error) if error.is_namespace_terminating() => Ok(()),
                outcome => outcome.map(drop),
            }
        })
        .await;
        for _ in created..count {
            self.expectations.creation_observed(key);
        }
        error
    }

    async fn delete(
        &self,
        key: &str,
        owner: &Arc<T>,
        active: &[Arc<Pod>],
        count: usize,
    ) -> Option<client::Error> {
        let related = self.pods_of_relatives(owner);
        let victims = deletion::choose(active, &related, count);
        self.expectations
            .expect_deletions(key, victims.iter().map(|p| uid(&p.metadata).to_owned()));
        let (_, error) = all(victims.iter().map(|pod| async move {
            let outcome = self.control.delete(&**owner, pod).await;
            if outcome.is_err() {
                self.expectations.deletion_observed(key, uid(&pod.metadata));
            }
            match outcome {
                Err(error) if error.is_not_found() => Ok(()),
                outcome => outcome,
            }
        }))
        .await;
        error
    }

    /// Pods of all owners with the same controller (a Deployment's ReplicaSets): where they crowd a node, ours go first.
    fn pods_of_relatives(&self, owner: &T) -> Vec<Arc<Pod>> {
        let Some(parent) = crate::meta::controller_of(owner.metadata()) else {
            return Vec::new();
        };
        let siblings = self.owners.by_index(NAMESPACE, namespace(owner.metadata()));
        let siblings = siblings
            .iter()
            .filter(|o| crate::meta::controller_of(o.metadata()).is_some_and(|r| r.uid == parent.uid));
        siblings
            .flat_map(|o| self.pods.by_index(crate::informers::OWNER, uid(o.metadata())))
            .filter(|p| is_active(p))
            .collect()
    }

    fn count(&self, owner: &T, active: &[Arc<Pod>], terminating: usize) -> Counts {
        let labels = owner
            .template()
            .and_then(|t| t.metadata.as_ref())
            .and_then(|m| m.labels.clone())
            .unwrap_or_default();
        let count = |what: &dyn Fn(&Pod) -> bool| active.iter().filter(|p| what(p)).count() as i32;
        Counts {
            replicas: active.len() as i32,
            fully_labeled: count(&|p| selector::contains(p.metadata.labels.as_ref(), &labels)),
            ready: count(&is_ready),
            available: count(&|p| is_available(p, owner.min_ready_seconds())),
            terminating: terminating as i32,
        }
    }

    async fn write_status(
        &self,
        owner: &Arc<T>,
        counts: &Counts,
        failure: Option<&client::Error>,
    ) -> Result<(), Failure> {
        let failure = failure.map(|error| FailureCondition {
            reason: if counts.replicas < owner.replicas() {
                "FailedCreate"
            } else {
                "FailedDelete"
            },
            message: error.to_string(),
            since: now(),
        });
        let Some(mut changed) = owner.with_status(counts, failure.as_ref()) else {
            return Ok(());
        };
        let api = self.client.namespaced::<T>(namespace(owner.metadata()));
        let mut left = STATUS_RETRIES;
        loop {
            match api.update_status(&changed).await {
                Err(error) if error.is_conflict() && left > 0 => left -= 1,
                // Deleted while we counted: there is nothing to tell any more.
                Err(error) if error.is_not_found() => return Ok(()),
                outcome => return outcome.map(drop).map_err(Into::into),
            }
            let fresh = api.get(name(owner.metadata())).await?;
            // The generation we acted on is the one of our copy, whatever the fresh one says.
            changed = fresh.with_status_of(&changed);
        }
    }

    /// A ready pod becomes available by the passing of time alone: nobody else wakes us for that.
    fn next_availability(&self, owner: &T, active: &[Arc<Pod>], counts: &Counts) -> Requeue {
        let min_ready = owner.min_ready_seconds();
        if min_ready == 0 || counts.ready == counts.available {
            return Requeue::Done;
        }
        let next = active
            .iter()
            .filter_map(|p| seconds_until_available(p, min_ready))
            .filter(|left| *left > 0)
            .min();
        next.map_or(Requeue::Done, |left| {
            Requeue::After(Duration::from_secs(left as u64))
        })
    }
}

#[cfg(test)]
mod tests;
