//! Moves a Deployment's ReplicaSets towards its template, its size and its strategy.
//!
//! One pass: claim the ReplicaSets, find the one of the current template ([`replica_sets`]), do the next step of scaling or
//! rollout ([`rollout`], [`sizes`] holds the arithmetic), then tell how far it is ([`status`]). Each pass does one step and lets
//! the change of a ReplicaSet wake the next.

pub mod hash;
mod replica_sets;
mod rollout;
mod sizes;
mod status;

use crate::context::Context;
use crate::controllers::Controller;
use crate::driver::{Driver, Failure, Outcome, Reconciler, Requeue, synced};
use crate::informers::{NAMESPACE, OWNER, claimable};
use crate::meta::{controlled_by_kind, controller_of, is_deleted, key_in, name, namespace, uid};
use crate::pod_control::claim;
use crate::selector;
use client::events::{EventRecorder, object_reference};
use client::informer::{Event, Informer, Store};
use client::workqueue::WorkQueue;
use client::{Client, object_key};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;

pub fn build(context: &Context) -> Option<Box<dyn Controller>> {
    let queue = WorkQueue::new("deployment");
    let informers = &context.informers;
    let (deployments, sets, pods) = (
        informers.deployments.start(),
        informers.replica_sets.start(),
        informers.pods.start(),
    );
    let heard = Heard {
        deployments: deployments.clone(),
        sets: sets.clone(),
        pods: pods.clone(),
        queue: queue.clone(),
    };
    heard.clone().deployments(&informers.deployments);
    heard.clone().replica_sets(&informers.replica_sets);
    heard.pods(&informers.pods);
    let needs = vec![synced(&deployments), synced(&sets), synced(&pods)];
    let controller = Deployments {
        client: context.client_for("deployment-controller"),
        recorder: context.recorder("deployment-controller"),
        deployments,
        sets,
        pods,
    };
    Some(Box::new(Driver {
        name: "deployment-controller",
        queue,
        reconciler: Arc::new(controller),
        workers: context.options.workers.deployment,
        needs,
    }))
}

#[derive(Clone)]
struct Heard {
    deployments: Store<Deployment>,
    sets: Store<ReplicaSet>,
    pods: Store<Pod>,
    queue: WorkQueue<String>,
}

impl Heard {
    fn deployments(self, informer: &Informer<Deployment>) {
        informer.on_event(move |event| match event {
            Event::Added(d) | Event::Modified(_, d) | Event::Deleted(d) => self.queue.add(object_key(&**d)),
            Event::Synced => {}
        });
    }

    fn replica_sets(self, informer: &Informer<ReplicaSet>) {
        informer.on_event(move |event| match event {
            Event::Added(set) | Event::Deleted(set) => self.wake(set),
            Event::Modified(old, new) => {
                if controller_of(&old.metadata) != controller_of(&new.metadata) {
                    self.wake_owner(old);
                }
                self.wake(new);
            }
            Event::Synced => {}
        });
    }

    /// Recreate waits for the last old pod.
    fn pods(self, informer: &Informer<Pod>) {
        informer.on_event(move |event| {
            let Event::Deleted(pod) = event else { return };
            let Some(deployment) = self.recreated(pod) else {
                return;
            };
            let left = self
                .sets
                .by_index(OWNER, uid(&deployment.metadata))
                .iter()
                .any(|set| !self.pods.by_index(OWNER, uid(&set.metadata)).is_empty());
            if !left {
                self.queue.add(object_key(&*deployment));
            }
        });
    }

    fn recreated(&self, pod: &Pod) -> Option<Arc<Deployment>> {
        let reference = controlled_by_kind::<ReplicaSet>(&pod.metadata)?;
        let set = self
            .sets
            .get(&key_in(namespace(&pod.metadata), &reference.name))?;
        self.owner(&set).filter(|d| !is_rolling(d))
    }

    fn owner(&self, set: &ReplicaSet) -> Option<Arc<Deployment>> {
        let reference = controlled_by_kind::<Deployment>(&set.metadata)?;
        let owner = self
            .deployments
            .get(&key_in(namespace(&set.metadata), &reference.name))?;
        (uid(&owner.metadata) == reference.uid).then_some(owner)
    }

    fn wake_owner(&self, set: &ReplicaSet) {
        if let Some(owner) = self.owner(set) {
            self.queue.add(object_key(&*owner));
        }
    }

    fn wake(&self, set: &ReplicaSet) {
        if controller_of(&set.metadata).is_some() {
            return self.wake_owner(set);
        }
        for deployment in self.deployments.by_index(NAMESPACE, namespace(&set.metadata)) {
            let selector = &spec(&deployment).selector;
            if !selector::is_empty(selector) && selector::selects(selector, &set.metadata) {
                self.queue.add(object_key(&*deployment));
            }
        }
    }
}

struct Deployments {
    client: Client,
    recorder: EventRecorder,
    deployments: Store<Deployment>,
    sets: Store<ReplicaSet>,
    pods: Store<Pod>,
}

/// What one pass works on. Writes replace the copies, so that the next step sees them.
struct Pass {
    deployment: Deployment,
    /// Of the current template, if there is one.
    new: Option<ReplicaSet>,
    old: Vec<ReplicaSet>,
}

impl Pass {
    fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.new)
    }

    fn wanted(&self) -> i32 {
        replicas_of(&self.deployment)
    }
}

impl Reconciler for Deployments {
    async fn reconcile(&self, key: &str) -> Outcome {
        let Some(deployment) = self.deployments.get(key) else {
            return Ok(Requeue::Done);
        };
        let deployment = (*deployment).clone();
        if selector::is_empty(&spec(&deployment).selector) {
            self.tell(
                &deployment,
                "Warning",
                "SelectingAll",
                "This deployment is selecting all pods. A non-empty selector is required.",
            );
            return self.observe_only(deployment).await;
        }
        let sets = self.claimed(&deployment).await?;
        self.pass(deployment, sets).await
    }
}

impl Deployments {
    async fn pass(&self, deployment: Deployment, sets: Vec<ReplicaSet>) -> Outcome {
        let mut pass = replica_sets::split(deployment, sets);
        if is_deleted(&pass.deployment.metadata) {
            return self.write_status_only(pass).await;
        }
        self.note_pause(&mut pass).await?;
        if spec(&pass.deployment).paused == Some(true) {
            return self.resize(pass).await;
        }
        if sizes::is_scaling_event(&pass) {
            return self.resize(pass).await;
        }
        match is_rolling(&pass.deployment) {
            true => self.roll(pass).await,
            false => self.recreate(pass).await,
        }
    }

    async fn claimed(&self, deployment: &Deployment) -> Result<Vec<ReplicaSet>, Failure> {
        let candidates = claimable(
            &self.sets,
            namespace(&deployment.metadata),
            uid(&deployment.metadata),
        );
        let selector = &spec(deployment).selector;
        let claimed = claim(&self.client, deployment, candidates, |set: &ReplicaSet| {
            selector::selects(selector, &set.metadata)
        })
        .await?;
        Ok(claimed.into_iter().map(|set| (*set).clone()).collect())
    }

    async fn observe_only(&self, mut deployment: Deployment) -> Outcome {
        let generation = deployment.metadata.generation;
        let status = deployment.status.get_or_insert_default();
        if status.observed_generation < generation {
            status.observed_generation = generation;
            self.client
                .namespaced(namespace(&deployment.metadata))
                .update_status(&deployment)
                .await?;
        }
        Ok(Requeue::Done)
    }

    fn tell(&self, deployment: &Deployment, type_: &str, reason: &str, message: &str) {
        self.recorder
            .event(&object_reference(deployment), type_, reason, message);
    }

    /// Writes status and, as upstream, the annotations that go with it.
    async fn put_status(&self, deployment: &mut Deployment) -> Result<(), Failure> {
        *deployment = self
            .client
            .namespaced(namespace(&deployment.metadata))
            .update_status(deployment)
            .await?;
        Ok(())
    }
}

/// The API requires a spec; the type does not.
fn spec(deployment: &Deployment) -> std::borrow::Cow<'_, DeploymentSpec> {
    match &deployment.spec {
        Some(spec) => std::borrow::Cow::Borrowed(spec),
        None => std::borrow::Cow::Owned(DeploymentSpec::default()),
    }
}

fn replicas_of(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

fn is_rolling(deployment: &Deployment) -> bool {
    let strategy = deployment
        .spec
        .as_ref()
        .and_then(|s| s.strategy.as_ref())
        .and_then(|s| s.type_.as_deref());
    strategy != Some("Recreate")
}

fn set_replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

fn set_name(set: &ReplicaSet) -> &str {
    name(&set.metadata)
}

#[cfg(test)]
mod tests;
