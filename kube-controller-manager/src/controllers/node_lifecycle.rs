//! Notices nodes that fell silent, marks them and their pods, and taints nodes by their conditions.
//!
//! Sign of life is a renewed Lease or a new heartbeat in the node's status; both arrive by watch and only note the time. Each
//! node's key sleeps until its grace period would be over, so a healthy cluster costs no writes, no polls and one timer a node.
//! What a taint does to running pods is [`super::taint_eviction`]'s; how fast nodes may be tainted for eviction is [`zones`]'s.

mod health;
mod taints;
mod zones;

use crate::context::Context;
use crate::controllers::Controller;
use crate::driver::{Driver, Failure, Outcome, Reconciler, Requeue, synced};
use crate::informers::NODE;
use crate::meta::{label, name, namespace};
use crate::options::NodeLifecycle;
use crate::pod::{is_ready, is_terminal};
use client::events::{EventRecorder, object_reference};
use client::informer::{Event, Informer, Store};
use client::workqueue::WorkQueue;
use client::{Client, ListOptions, Patch};
use health::{Health, ready_status};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use zones::{Permit, Zones};

const WORKERS: usize = 8;
/// A watch may bring the node's next sign of life a moment after its time is up.
const SLACK: Duration = Duration::from_millis(500);

pub fn build(context: &Context) -> Option<Box<dyn Controller>> {
    let queue = WorkQueue::new("node_lifecycle_controller");
    let informers = &context.informers;
    let (nodes, leases, pods) = (
        informers.nodes.start(),
        informers.node_leases.start(),
        informers.pods.start(),
    );
    let (health, zones) = (
        Arc::new(Health::default()),
        Arc::new(Zones::new(context.options.node_lifecycle.clone())),
    );
    hear_nodes(&informers.nodes, &queue, &health, &zones);
    hear_leases(&informers.node_leases, &queue, &health);
    let needs = vec![synced(&nodes), synced(&leases), synced(&pods)];
    let controller = Lifecycle {
        reader: context.client.clone(),
        client: context.client_for("node-controller"),
        recorder: context.recorder("node-controller"),
        options: context.options.node_lifecycle.clone(),
        nodes,
        pods,
        health,
        zones,
    };
    Some(Box::new(Driver {
        name: "node-lifecycle-controller",
        queue,
        reconciler: Arc::new(controller),
        workers: WORKERS,
        needs,
    }))
}

fn hear_nodes(
    informer: &Informer<Node>,
    queue: &WorkQueue<String>,
    health: &Arc<Health>,
    zones: &Arc<Zones>,
) {
    let (queue, health, zones) = (queue.clone(), health.clone(), zones.clone());
    informer.on_event(move |event| match event {
        Event::Added(node) => {
            health.saw_node(None, node);
            zones.saw(node);
            queue.add(name(&node.metadata).to_owned());
        }
        Event::Modified(old, node) => {
            health.saw_node(Some(old), node);
            zones.saw(node);
            if taints::relevant(old) != taints::relevant(node) {
                queue.add(name(&node.metadata).to_owned());
            }
        }
        Event::Deleted(node) => {
            health.forget(name(&node.metadata));
            zones.forget(node);
            queue.add(name(&node.metadata).to_owned());
        }
        Event::Synced => {}
    });
}

/// A renewal is noted and wakes nobody, unless it comes from a node that was given up.
fn hear_leases(informer: &Informer<Lease>, queue: &WorkQueue<String>, health: &Arc<Health>) {
    let (queue, health) = (queue.clone(), health.clone());
    informer.on_event(move |event| {
        let (Event::Added(lease) | Event::Modified(_, lease)) = event else {
            return;
        };
        if health.saw_lease(lease) {
            queue.add(name(&lease.metadata).to_owned());
        }
    });
}

struct Lifecycle {
    /// The node controller's role knows no leases; ours may list everything.
    reader: Client,
    client: Client,
    recorder: EventRecorder,
    options: NodeLifecycle,
    nodes: Store<Node>,
    pods: Store<Pod>,
    health: Arc<Health>,
    zones: Arc<Zones>,
}

impl Reconciler for Lifecycle {
    async fn reconcile(&self, key: &str) -> Outcome {
        let Some(node) = self.nodes.get(key) else {
            return Ok(Requeue::Done);
        };
        if self.health.is_new(key) {
            self.tell(
                &node,
                "RegisteredNode",
                &format!("Node {key} event: Registered Node {key} in Controller"),
            );
        }
        let grace = if ready_status(&node).is_some() {
            self.options.monitor_grace
        } else {
            self.options.startup_grace
        };
        let silence = self.health.silence(key);
        let node = match silence > grace {
            true => self.give_up(&node).await?,
            false => (*node).clone(),
        };
        self.reflect_on_pods(&node).await?;
        let node = self.fix_labels(node).await?;
        let wait = self.taint(&node).await?;
        let until_silent = grace.saturating_sub(silence) + SLACK;
        Ok(match (wait, silence > grace) {
            (Some(wait), _) => Requeue::After(wait.min(until_silent.max(SLACK))),
            // Only a sign of life changes anything now, and that wakes us.
            (None, true) => Requeue::Done,
            (None, false) => Requeue::After(until_silent),
        })
    }
}

impl Lifecycle {
    fn tell(&self, node: &Node, reason: &str, message: &str) {
        // Upstream's node events carry the name in place of the uid, and describe finds them by it.
        let reference = ObjectReference {
            uid: node.metadata.name.clone(),
            resource_version: None,
            ..object_reference(node)
        };
        self.recorder.event(&reference, "Normal", reason, message);
    }

    /// Marks as Unknown a node whose silence is over the limit, after asking the server once more: our watch may be the one that
    /// is silent.
    async fn give_up(&self, node: &Node) -> Result<Node, Failure> {
        let key = name(&node.metadata);
        if self.is_alive_after_all(key).await? {
            return Ok(node.clone());
        }
        let Some(marked) = health::marked_unknown(node) else {
            return Ok(node.clone());
        };
        tracing::info!(
            node = key,
            "Node has not been updated, marking its conditions Unknown"
        );
        Ok(self.client.all().update_status(&marked).await?)
    }

    async fn is_alive_after_all(&self, key: &str) -> Result<bool, Failure> {
        let leases = self
            .reader
            .namespaced::<Lease>("kube-node-lease")
            .list(&ListOptions::fields(format!("metadata.name={key}")))
            .await?;
        for lease in &leases.items {
            self.health.saw_lease(lease);
        }
        Ok(self.health.silence(key) < SLACK)
    }

    /// When a node stops being ready, its pods do: nobody is there to say so but us.
    async fn reflect_on_pods(&self, node: &Node) -> Result<(), Failure> {
        let (key, ready) = (name(&node.metadata), ready_status(node));
        if ready.is_none() || ready == Some("True") {
            self.health.set_pods_marked(key, false);
            return Ok(());
        }
        if self.health.pods_marked(key) {
            return Ok(());
        }
        self.tell(
            node,
            "NodeNotReady",
            &format!("Node {key} status is now: NodeNotReady"),
        );
        for pod in self
            .pods
            .by_index(NODE, key)
            .into_iter()
            .filter(|p| is_ready(p) && !is_terminal(p))
        {
            self.mark_not_ready(&pod).await?;
        }
        self.health.set_pods_marked(key, true);
        Ok(())
    }

    async fn mark_not_ready(&self, pod: &Pod) -> Result<(), Failure> {
        let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": crate::meta::now()});
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
        let api = self.client.namespaced::<Pod>(namespace(&pod.metadata));
        match api
            .patch(name(&pod.metadata), &Patch::Strategic(patch), Some("status"))
            .await
        {
            Err(error) if error.is_not_found() => return Ok(()),
            outcome => drop(outcome?),
        }
        self.recorder.event(
            &object_reference(pod),
            "Warning",
            "NodeNotReady",
            "Node is not ready",
        );
        Ok(())
    }

    /// The beta labels follow the stable ones.
    async fn fix_labels(&self, node: Node) -> Result<Node, Failure> {
        const PAIRS: [(&str, &str); 2] = [
            ("kubernetes.io/os", "beta.kubernetes.io/os"),
            ("kubernetes.io/arch", "beta.kubernetes.io/arch"),
        ];
        let wrong = PAIRS.iter().filter_map(|(stable, beta)| {
            let value = label(&node.metadata, stable)?;
            (label(&node.metadata, beta) != Some(value)).then(|| ((*beta).to_owned(), json!(value)))
        });
        let labels: serde_json::Map<_, _> = wrong.collect();
        if labels.is_empty() {
            return Ok(node);
        }
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        Ok(self
            .client
            .all::<Node>()
            .patch(name(&node.metadata), &patch, None)
            .await?)
    }

    /// One write for all taints. A time when a wanted taint is not allowed yet.
    async fn taint(&self, node: &Node) -> Result<Option<Duration>, Failure> {
        let mut wait = None;
        let missing = taints::lacks_no_execute(node);
        let permit = if missing || taints::has_no_execute(node) {
            self.zones.permit(node, missing)
        } else {
            Permit::Now
        };
        let evict = match permit {
            Permit::Now => taints::Evict::AsReady,
            Permit::Later(delay) => {
                wait = Some(delay);
                taints::Evict::Keep
            }
            Permit::Never(delay) => {
                wait = Some(delay);
                taints::Evict::No
            }
        };
        let Some(wanted) = taints::wanted(node, evict) else {
            return Ok(wait);
        };
        let patch = Patch::Merge(
            json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": wanted}}),
        );
        self.client
            .all::<Node>()
            .patch(name(&node.metadata), &patch, None)
            .await?;
        Ok(wait)
    }
}

#[cfg(test)]
mod tests;
