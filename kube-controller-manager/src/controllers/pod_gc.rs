//! Removes pods that nobody else will: finished ones above the threshold, those of nodes that are gone, those that were
//! deleted before they had a node, and terminating ones on nodes that are declared out of service.

use crate::context::Context;
use crate::controllers::Controller;
use crate::driver::{Driver, Failure, Outcome, Reconciler, Requeue, synced};
use crate::informers::NODE;
use crate::meta::{is_deleted, name, namespace, now};
use crate::pod::{is_terminal, node_name, phase};
use client::informer::{Event, Informer, Store};
use client::workqueue::WorkQueue;
use client::{Client, DeleteOptions, Patch, Preconditions, object_key};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// A node that is gone may be on its way back under the same name.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Finished pods are counted at most this often.
const PERIOD: Duration = Duration::from_secs(20);
const TERMINATED: &str = "terminated";
const OF_NODE: &str = "node:";
const OF_POD: &str = "pod:";
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

pub fn build(context: &Context) -> Option<Box<dyn Controller>> {
    let queue = WorkQueue::new("orphaned_pods_nodes");
    let (pods, nodes) = (context.informers.pods.start(), context.informers.nodes.start());
    hear_pods(&context.informers.pods, &queue, nodes.clone());
    hear_nodes(&context.informers.nodes, &queue);
    let needs = vec![synced(&pods), synced(&nodes)];
    let threshold = context.options.terminated_pod_threshold;
    let reconciler = Arc::new(PodGc {
        client: context.client_for("pod-garbage-collector"),
        pods,
        nodes,
        threshold,
    });
    Some(Box::new(Driver {
        name: "pod-garbage-collector-controller",
        queue,
        reconciler,
        workers: 1,
        needs,
    }))
}

fn hear_pods(pods: &Informer<Pod>, queue: &WorkQueue<String>, nodes: Store<Node>) {
    let queue = queue.clone();
    pods.on_event(move |event| {
        let (Event::Added(pod) | Event::Modified(_, pod)) = event else {
            return;
        };
        if is_terminal(pod) {
            queue.add_after(TERMINATED.to_owned(), PERIOD);
        }
        let node = node_name(pod);
        match (node.is_empty(), is_deleted(&pod.metadata)) {
            (true, true) => queue.add(format!("{OF_POD}{}", object_key(&**pod))),
            (true, false) => {}
            (false, deleted) => {
                let known = nodes.get(node);
                if known.is_none() {
                    queue.add_after(format!("{OF_NODE}{node}"), QUARANTINE);
                } else if deleted && known.is_some_and(|n| is_out_of_service(&n)) {
                    queue.add(format!("{OF_POD}{}", object_key(&**pod)));
                }
            }
        }
    });
}

fn hear_nodes(nodes: &Informer<Node>, queue: &WorkQueue<String>) {
    let queue = queue.clone();
    nodes.on_event(move |event| match event {
        Event::Deleted(node) => queue.add_after(format!("{OF_NODE}{}", name(&node.metadata)), QUARANTINE),
        Event::Modified(_, node) if is_out_of_service(node) => {
            queue.add(format!("{OF_NODE}{}", name(&node.metadata)))
        }
        _ => {}
    });
}

fn is_out_of_service(node: &Node) -> bool {
    let tainted = node
        .spec
        .iter()
        .flat_map(|s| s.taints.iter().flatten())
        .any(|t| t.key == OUT_OF_SERVICE);
    let ready = node
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten())
        .any(|c| c.type_ == "Ready" && c.status == "True");
    tainted && !ready
}

struct PodGc {
    client: Client,
    pods: Store<Pod>,
    nodes: Store<Node>,
    threshold: usize,
}

impl Reconciler for PodGc {
    async fn reconcile(&self, key: &str) -> Outcome {
        if let Some(node) = key.strip_prefix(OF_NODE) {
            return self.of_node(node).await;
        }
        if let Some(pod) = key.strip_prefix(OF_POD) {
            return self.of_pod(pod).await;
        }
        self.terminated().await
    }
}

impl PodGc {
    async fn of_node(&self, node: &str) -> Outcome {
        if let Some(known) = self.nodes.get(node) {
            let out = is_out_of_service(&known);
            for pod in self
                .pods
                .by_index(NODE, node)
                .into_iter()
                .filter(|p| out && is_deleted(&p.metadata))
            {
                self.fail_and_delete(&pod, None).await?;
            }
            return Ok(Requeue::Done);
        }
        let pods = self.pods.by_index(NODE, node);
        // The cache may be behind: a pod is not killed on its word.
        if pods.is_empty() || !self.is_gone(node).await? {
            return Ok(Requeue::Done);
        }
        for pod in pods {
            self.fail_and_delete(&pod, Some(("DeletionByPodGC", "PodGC: node no longer exists")))
                .await?;
        }
        Ok(Requeue::Done)
    }

    async fn is_gone(&self, node: &str) -> Result<bool, client::Error> {
        match self.client.all::<Node>().get(node).await {
            Ok(_) => Ok(false),
            Err(error) if error.is_not_found() => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn of_pod(&self, key: &str) -> Outcome {
        let Some(pod) = self.pods.get(key).filter(|p| is_deleted(&p.metadata)) else {
            return Ok(Requeue::Done);
        };
        let node = node_name(&pod);
        if node.is_empty() || self.nodes.get(node).is_some_and(|n| is_out_of_service(&n)) {
            self.fail_and_delete(&pod, None).await?;
        }
        Ok(Requeue::Done)
    }

    async fn terminated(&self) -> Outcome {
        let mut pods: Vec<_> = self.pods.list().into_iter().filter(|p| is_terminal(p)).collect();
        if self.threshold == 0 || pods.len() <= self.threshold {
            return Ok(Requeue::Done);
        }
        let evicted = |pod: &Pod| {
            phase(pod) == "Failed" && pod.status.as_ref().and_then(|s| s.reason.as_deref()) == Some("Evicted")
        };
        pods.sort_by_key(|p| {
            (
                !evicted(p),
                p.metadata.creation_timestamp.as_ref().map(|t| t.0),
                p.metadata.name.clone(),
            )
        });
        pods.truncate(pods.len() - self.threshold);
        tracing::info!(num_pods = pods.len(), "Garbage collecting pods");
        for pod in pods {
            self.fail_and_delete(&pod, None).await?;
        }
        Ok(Requeue::Done)
    }

    /// A pod that nobody reports on any more is marked as failed first, so that its controller replaces it.
    async fn fail_and_delete(&self, pod: &Pod, disruption: Option<(&str, &str)>) -> Result<(), Failure> {
        let api = self.client.namespaced::<Pod>(namespace(&pod.metadata));
        let pod_name = name(&pod.metadata);
        if !is_terminal(pod) {
            let mut status = json!({"phase": "Failed"});
            if let Some((reason, message)) = disruption {
                status["conditions"] = json!([{"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message, "lastTransitionTime": now()}]);
            }
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": status});
            match api
                .patch(pod_name, &Patch::Strategic(patch), Some("status"))
                .await
            {
                Err(error) if error.is_not_found() => return Ok(()),
                outcome => outcome?,
            };
        }
        let preconditions = Preconditions {
            uid: pod.metadata.uid.clone(),
            ..Preconditions::default()
        };
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteOptions::default()
        };
        match api.delete(pod_name, &options).await {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => Ok(outcome?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::ListOptions;
    use client::fake::FakeServer;
    use serde_json::Value;

    async fn pod(server: &FakeServer, value: Value) -> Pod {
        server
            .client()
            .namespaced("ns")
            .create(&serde_json::from_value::<Pod>(value).unwrap())
            .await
            .unwrap()
    }

    async fn left(server: &FakeServer) -> Vec<String> {
        let list = server
            .client()
            .all::<Pod>()
            .list(&ListOptions::default())
            .await
            .unwrap();
        list.items.into_iter().filter_map(|p| p.metadata.name).collect()
    }

    fn indexed(pods: Vec<Pod>) -> Store<Pod> {
        let server = FakeServer::new();
        let informer = Informer::new(server.client().all(), Default::default())
            .index(NODE, |p: &Pod| vec![node_name(p).to_owned()]);
        informer.store().fill(pods);
        informer.store()
    }

    #[tokio::test]
    async fn pods_of_a_node_that_is_gone_fail_and_go() {
        let server = FakeServer::new();
        let orphan = pod(
            &server,
            json!({"metadata": {"name": "o"}, "spec": {"containers": [], "nodeName": "gone"}}),
        )
        .await;
        let gc = PodGc {
            client: server.client(),
            pods: indexed(vec![orphan]),
            nodes: Store::of([]),
            threshold: 1,
        };
        gc.reconcile("node:gone").await.unwrap();
        assert!(left(&server).await.is_empty());
        assert_eq!(
            server.writes()[1..],
            [
                "PATCH /api/v1/namespaces/ns/pods/o/status",
                "DELETE /api/v1/namespaces/ns/pods/o"
            ]
        );
    }

    #[tokio::test]
    async fn a_node_that_only_the_cache_misses_keeps_its_pods() {
        let server = FakeServer::new();
        server
            .client()
            .all()
            .create(&serde_json::from_value::<Node>(json!({"metadata": {"name": "n"}})).unwrap())
            .await
            .unwrap();
        let orphan = pod(
            &server,
            json!({"metadata": {"name": "o"}, "spec": {"containers": [], "nodeName": "n"}}),
        )
        .await;
        let gc = PodGc {
            client: server.client(),
            pods: indexed(vec![orphan]),
            nodes: Store::of([]),
            threshold: 1,
        };
        gc.reconcile("node:n").await.unwrap();
        assert_eq!(left(&server).await, ["o"]);
    }

    #[tokio::test]
    async fn evicted_and_then_oldest_finished_pods_go_first() {
        let server = FakeServer::new();
        let mut pods = Vec::new();
        for (name, second, reason) in [("a", 1, ""), ("b", 2, ""), ("c", 3, "Evicted")] {
            let created = format!("2024-01-01T00:00:0{second}Z");
            pods.push(pod(&server, json!({"metadata": {"name": name, "creationTimestamp": created}, "status": {"phase": "Failed", "reason": reason}})).await);
        }
        let gc = PodGc {
            client: server.client(),
            pods: Store::of(pods),
            nodes: Store::of([]),
            threshold: 1,
        };
        gc.reconcile(TERMINATED).await.unwrap();
        assert_eq!(left(&server).await, ["b"]);
    }
}
