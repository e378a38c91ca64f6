//! Keeps one pod of a DaemonSet on each node that it belongs on.
//!
//! One pass: the revision of the template ([`history`]), then what is missing and what is too much ([`manage`], which asks
//! [`eligibility`]), then the next step of an update ([`rollout`]), then status. Pods are bound by the scheduler, which a node
//! affinity by name leaves no choice.

mod backoff;
mod eligibility;
mod history;
mod manage;
mod rollout;
mod status;

use crate::context::Context;
use crate::controllers::Controller;
use crate::controllers::controller_revision::{self, REVISION_HASH};
use crate::controllers::pod_events::PodEvents;
use crate::driver::{Driver, Failure, Outcome, Reconciler, Requeue, synced};
use crate::expectations::Expectations;
use crate::informers::claimable;
use crate::meta::{annotation, is_deleted, name, namespace, uid};
use crate::pod::{node_name, phase};
use crate::pod_control::{PodControl, all, claim, pod_from_template, slow_start};
use crate::selector;
use backoff::Backoff;
use client::events::{EventRecorder, object_reference};
use client::informer::{Event, Informer, Store};
use client::workqueue::WorkQueue;
use client::{Client, object_key};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use manage::ByNode;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// No more pods than this are created or deleted in one pass over one DaemonSet.
const BURST: usize = 250;

pub fn build(context: &Context) -> Option<Box<dyn Controller>> {
    Some(Box::new(driver(context)))
}

fn driver(context: &Context) -> Driver<DaemonSets> {
    let queue = WorkQueue::new("daemonset");
    let informers = &context.informers;
    let (sets, pods, nodes, revisions) = (
        informers.daemon_sets.start(),
        informers.pods.start(),
        informers.nodes.start(),
        informers.controller_revisions.start(),
    );
    let expectations = Arc::new(Expectations::default());
    hear_sets(&informers.daemon_sets, &queue, &expectations);
    hear_nodes(&informers.nodes, &queue, &sets);
    controller_revision::hear(&informers.controller_revisions, &queue, &sets);
    PodEvents {
        owners: sets.clone(),
        queue: queue.clone(),
        expectations: expectations.clone(),
        selector: |set: &DaemonSet| set.spec.as_ref().map(|s| Cow::Borrowed(&s.selector)),
    }
    .hear(&informers.pods);
    let needs = vec![synced(&sets), synced(&pods), synced(&nodes), synced(&revisions)];
    let (client, recorder) = (
        context.client_for("daemon-set-controller"),
        context.recorder("daemonset-controller"),
    );
    let control = PodControl::new(client.clone(), recorder.clone());
    let reconciler = Arc::new(DaemonSets {
        client,
        recorder,
        control,
        sets,
        pods,
        nodes,
        revisions,
        expectations,
        backoff: Backoff::default(),
    });
    Driver {
        name: "daemonset-controller",
        queue,
        reconciler,
        workers: context.options.workers.daemon_set,
        needs,
    }
}

fn hear_sets(sets: &Informer<DaemonSet>, queue: &WorkQueue<String>, expectations: &Arc<Expectations>) {
    let (queue, expectations) = (queue.clone(), expectations.clone());
    sets.on_event(move |event| {
        if let Event::Modified(old, new) = &event
            && uid(&old.metadata) != uid(&new.metadata)
        {
            expectations.forget(&object_key(&***old));
        }
        match event {
            Event::Added(set) | Event::Modified(_, set) | Event::Deleted(set) => {
                queue.add(object_key(&**set))
            }
            Event::Synced => {}
        }
    });
}

/// A heartbeat changes no verdict.
fn hear_nodes(nodes: &Informer<Node>, queue: &WorkQueue<String>, sets: &Store<DaemonSet>) {
    let (queue, sets) = (queue.clone(), sets.clone());
    let taints = |node: &Node| {
        node.spec
            .as_ref()
            .and_then(|s| s.taints.clone())
            .unwrap_or_default()
    };
    nodes.on_event(move |event| {
        let matters = match event {
            Event::Added(_) | Event::Deleted(_) => true,
            Event::Modified(old, new) => {
                old.metadata.labels != new.metadata.labels || taints(old) != taints(new)
            }
            Event::Synced => false,
        };
        if matters {
            sets.list().iter().for_each(|set| queue.add(object_key(&**set)));
        }
    });
}

struct DaemonSets {
    client: Client,
    recorder: EventRecorder,
    control: PodControl,
    sets: Store<DaemonSet>,
    pods: Store<Pod>,
    nodes: Store<Node>,
    revisions: Store<ControllerRevision>,
    expectations: Arc<Expectations>,
    backoff: Backoff,
}

impl Reconciler for DaemonSets {
    async fn reconcile(&self, key: &str) -> Outcome {
        let Some(set) = self.sets.get(key) else {
            self.expectations.forget(key);
            self.backoff.forget(key);
            return Ok(Requeue::Done);
        };
        if selector::is_empty(&spec(&set).selector) {
            self.tell(
                &set,
                "Warning",
                "SelectingAll",
                "This daemon set is selecting all pods. A non-empty selector is required.",
            );
            return Ok(Requeue::Done);
        }
        if is_deleted(&set.metadata) {
            return Ok(Requeue::Done);
        }
        self.pass(key, &set).await
    }
}

impl DaemonSets {
    async fn pass(&self, key: &str, set: &Arc<DaemonSet>) -> Outcome {
        let history = self.history(set).await?;
        let (hash, nodes) = (history.hash(), self.nodes.list());
        if !self.expectations.satisfied(key) {
            let pods = self.pods_by_node(set).await?;
            return self.write_status(set, &nodes, &pods, &history, false).await;
        }
        let pods = self.pods_by_node(set).await?;
        let managed = self.manage(key, set, &nodes, &pods, hash).await;
        if managed.is_ok() && self.expectations.satisfied(key) && is_rolling(set) {
            let step = rollout::step(set, &nodes, &pods, hash);
            self.carry_out(key, set, step.create, step.delete, hash).await?;
        }
        self.truncate_history(set, &history, &pods).await?;
        let next = self.write_status(set, &nodes, &pods, &history, true).await?;
        Ok(sooner(next, managed?))
    }

    async fn pods_by_node(&self, set: &DaemonSet) -> Result<ByNode, Failure> {
        let candidates = claimable(&self.pods, namespace(&set.metadata), uid(&set.metadata));
        let wanted = &spec(set).selector;
        let claimed = claim(&self.client, set, candidates, |pod: &Pod| {
            selector::selects(wanted, &pod.metadata)
        })
        .await?;
        Ok(manage::by_node(claimed))
    }

    /// When the next failed pod may be replaced.
    async fn manage(
        &self,
        key: &str,
        set: &Arc<DaemonSet>,
        nodes: &[Arc<Node>],
        pods: &ByNode,
        hash: &str,
    ) -> Outcome {
        let plan = manage::plan(set, nodes, pods, hash);
        let (mut delete, mut next) = (plan.delete, Requeue::Done);
        for pod in plan.finished {
            match self.may_replace(key, set, &pod) {
                Ok(()) => delete.push(pod),
                Err(wait) => next = sooner(next, Requeue::After(wait)),
            }
        }
        self.carry_out(key, set, plan.create, delete, hash).await?;
        Ok(next)
    }

    fn may_replace(&self, key: &str, set: &DaemonSet, pod: &Pod) -> Result<(), Duration> {
        let (pod_name, node) = (name(&pod.metadata), node_name(pod));
        let place = format!("{}/{pod_name} on node {node}", namespace(&pod.metadata));
        if phase(pod) == "Succeeded" {
            self.tell(
                set,
                "Normal",
                "SucceededDaemonPod",
                &format!("Found succeeded daemon pod {place}, will try to delete it"),
            );
            return Ok(());
        }
        self.backoff.attempt(key, node)?;
        self.tell(
            set,
            "Warning",
            "FailedDaemonPod",
            &format!("Found failed daemon pod {place}, will try to kill it"),
        );
        Ok(())
    }

    async fn carry_out(
        &self,
        key: &str,
        set: &Arc<DaemonSet>,
        mut create: Vec<String>,
        mut delete: Vec<Arc<Pod>>,
        hash: &str,
    ) -> Result<(), Failure> {
        create.truncate(BURST);
        delete.truncate(BURST);
        if create.is_empty() && delete.is_empty() {
            return Ok(());
        }
        self.expectations.set(
            key,
            create.len() as i64,
            delete.iter().map(|p| uid(&p.metadata).to_owned()).collect(),
        );
        let created = self.create(key, set, &create, hash).await;
        let deleted = self.delete(key, set, &delete).await;
        created.or(deleted).map_or(Ok(()), |error| Err(error.into()))
    }

    async fn create(
        &self,
        key: &str,
        set: &Arc<DaemonSet>,
        nodes: &[String],
        hash: &str,
    ) -> Option<client::Error> {
        let template = pod_of(set, hash);
        let next = AtomicUsize::new(0);
        let (created, error) = slow_start(nodes.len(), || {
            let mut pod = template.clone();
            let node = nodes.get(next.fetch_add(1, Ordering::Relaxed));
            async move {
                if let (Some(spec), Some(node)) = (&mut pod.spec, node) {
                    spec.affinity = Some(eligibility::pinned(spec.affinity.take(), node));
                }
                match self.control.create(&**set, &pod).await {
                    // Nothing can be created any more, and nothing will be missed.
                    Err(error) if error.is_namespace_terminating() => Ok(()),
                    outcome => outcome.map(drop),
                }
            }
        })
        .await;
        for _ in created..nodes.len() {
            self.expectations.creation_observed(key);
        }
        error
    }

    async fn delete(&self, key: &str, set: &Arc<DaemonSet>, pods: &[Arc<Pod>]) -> Option<client::Error> {
        let (_, error) = all(pods.iter().map(|pod| async move {
            let outcome = self.control.delete(&**set, pod).await;
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

    fn tell(&self, set: &DaemonSet, type_: &str, reason: &str, message: &str) {
        self.recorder
            .event(&object_reference(set), type_, reason, message);
    }
}

/// A pod of the current template, for any node.
fn pod_of(set: &DaemonSet, hash: &str) -> Pod {
    let spec = spec(set);
    let mut pod = pod_from_template(set, &spec.template);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(REVISION_HASH.to_owned(), hash.to_owned());
    if let Some(generation) =
        annotation(&set.metadata, rollout::TEMPLATE_GENERATION).filter(|g| g.parse::<i64>().is_ok())
    {
        labels.insert(rollout::POD_TEMPLATE_GENERATION.to_owned(), generation.to_owned());
    }
    if let Some(pod_spec) = &mut pod.spec {
        pod_spec.tolerations = Some(eligibility::tolerations(pod_spec));
    }
    pod
}

fn sooner(a: Requeue, b: Requeue) -> Requeue {
    match (a, b) {
        (Requeue::After(a), Requeue::After(b)) => Requeue::After(a.min(b)),
        (Requeue::Done, other) | (other, Requeue::Done) => other,
    }
}

/// The API requires a spec; the type does not.
fn spec(set: &DaemonSet) -> Cow<'_, DaemonSetSpec> {
    set.spec
        .as_ref()
        .map_or_else(|| Cow::Owned(DaemonSetSpec::default()), Cow::Borrowed)
}

fn is_rolling(set: &DaemonSet) -> bool {
    let strategy = set
        .spec
        .as_ref()
        .and_then(|s| s.update_strategy.as_ref())
        .and_then(|s| s.type_.as_deref());
    strategy != Some("OnDelete")
}

fn rolling(set: &DaemonSet) -> RollingUpdateDaemonSet {
    set.spec
        .as_ref()
        .and_then(|s| s.update_strategy.as_ref())
        .and_then(|s| s.rolling_update.clone())
        .unwrap_or_default()
}

fn surges(set: &DaemonSet) -> bool {
    is_rolling(set) && rollout::scaled(rolling(set).max_surge.as_ref(), 0, 100) > 0
}

#[cfg(test)]
mod tests;
