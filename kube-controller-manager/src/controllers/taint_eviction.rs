//! Deletes pods that do not tolerate their node's NoExecute taints, at once or when their tolerationSeconds are over.

use crate::context::Context;
use crate::controllers::Controller;
use crate::driver::{Driver, Failure, Outcome, Reconciler, Requeue, synced};
use crate::informers::NODE;
use crate::meta::{is_deleted, name, namespace, now, uid};
use crate::pod::{is_terminal, node_name};
use client::events::{EventRecorder, object_reference};
use client::informer::{Event, Store};
use client::workqueue::WorkQueue;
use client::{Client, DeleteOptions, Patch, Preconditions, object_key};
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const WORKERS: usize = 8;

pub fn build(context: &Context) -> Option<Box<dyn Controller>> {
    let queue = WorkQueue::new("noexec_taint_pod");
    let informers = &context.informers;
    let (nodes, pods) = (informers.nodes.start(), informers.pods.start());
    informers.nodes.on_event({
        let (queue, pods) = (queue.clone(), pods.clone());
        move |event| {
            let node = match event {
                Event::Added(node) if !evicting(node).is_empty() => node,
                Event::Modified(old, new) if evicting(old) != evicting(new) => new,
                _ => return,
            };
            for pod in pods.by_index(NODE, name(&node.metadata)) {
                queue.add(object_key(&*pod));
            }
        }
    });
    informers.pods.on_event({
        let (queue, nodes) = (queue.clone(), nodes.clone());
        // Pods on nodes without such taints, which is nearly all, cost nothing here.
        move |event| match event {
            Event::Added(pod) | Event::Modified(_, pod)
                if nodes
                    .get(node_name(pod))
                    .is_some_and(|n| !evicting(&n).is_empty()) =>
            {
                queue.add(object_key(&**pod))
            }
            Event::Deleted(pod) => queue.add(object_key(&**pod)),
            _ => {}
        }
    });
    let needs = vec![synced(&nodes), synced(&pods)];
    let client = context.client_for("node-controller");
    let reconciler = Arc::new(TaintEviction {
        client,
        recorder: context.recorder("taint-eviction-controller"),
        nodes,
        pods,
        since: Mutex::default(),
    });
    Some(Box::new(Driver {
        name: "taint-eviction-controller",
        queue,
        reconciler,
        workers: WORKERS,
        needs,
    }))
}

fn evicting(node: &Node) -> Vec<Taint> {
    node.spec
        .iter()
        .flat_map(|s| s.taints.iter().flatten())
        .filter(|t| t.effect == "NoExecute")
        .cloned()
        .collect()
}

struct TaintEviction {
    client: Client,
    recorder: EventRecorder,
    nodes: Store<Node>,
    pods: Store<Pod>,
    /// Since when a pod only just tolerates its node, by its uid.
    since: Mutex<HashMap<String, (String, Instant)>>,
}

/// What a pod's tolerations say about a set of taints.
#[derive(Debug, PartialEq)]
enum Verdict {
    Stay,
    StayFor(Duration),
    Go,
}

fn judge(taints: &[Taint], tolerations: &[Toleration]) -> Verdict {
    let mut limit: Option<Duration> = None;
    for taint in taints {
        let Some(toleration) = tolerations.iter().find(|t| tolerates(t, taint)) else {
            return Verdict::Go;
        };
        if let Some(seconds) = toleration.toleration_seconds {
            let allowed = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            limit = Some(limit.map_or(allowed, |known| known.min(allowed)));
        }
    }
    match limit {
        None => Verdict::Stay,
        Some(Duration::ZERO) => Verdict::Go,
        Some(limit) => Verdict::StayFor(limit),
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |field: &Option<String>| field.clone().unwrap_or_default();
    let (effect, key, value) = (
        given(&toleration.effect),
        given(&toleration.key),
        given(&toleration.value),
    );
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => !key.is_empty() && value == taint.value.as_deref().unwrap_or(""),
        Some(_) => false,
    }
}

impl Reconciler for TaintEviction {
    async fn reconcile(&self, key: &str) -> Outcome {
        let Some(pod) = self
            .pods
            .get(key)
            .filter(|p| !is_deleted(&p.metadata) && !is_terminal(p))
        else {
            return Ok(self.stay(key));
        };
        let Some(node) = self.nodes.get(node_name(&pod)) else {
            return Ok(self.stay(key));
        };
        let tolerations = pod
            .spec
            .as_ref()
            .and_then(|s| s.tolerations.as_deref())
            .unwrap_or_default();
        match judge(&evicting(&node), tolerations) {
            Verdict::Stay => Ok(self.stay(key)),
            Verdict::StayFor(limit) => {
                let waited = self.waited(key, &pod);
                if waited < limit {
                    return Ok(Requeue::After(limit - waited));
                }
                self.evict(&pod).await
            }
            Verdict::Go => self.evict(&pod).await,
        }
    }
}

impl TaintEviction {
    fn stay(&self, key: &str) -> Requeue {
        self.since.lock().remove(key);
        Requeue::Done
    }

    fn waited(&self, key: &str, pod: &Pod) -> Duration {
        let mut since = self.since.lock();
        let entry = since
            .entry(key.to_owned())
            .or_insert_with(|| (uid(&pod.metadata).to_owned(), Instant::now()));
        if entry.0 != uid(&pod.metadata) {
            *entry = (uid(&pod.metadata).to_owned(), Instant::now());
        }
        entry.1.elapsed()
    }

    async fn evict(&self, pod: &Pod) -> Outcome {
        let (namespace, pod_name) = (namespace(&pod.metadata), name(&pod.metadata));
        self.recorder.event(
            &object_reference(pod),
            "Normal",
            "TaintManagerEviction",
            &format!("Marking for deletion Pod {namespace}/{pod_name}"),
        );
        match self.mark_and_delete(pod).await {
            Err(Failure::Api(error)) if error.is_not_found() => {}
            outcome => outcome?,
        }
        Ok(self.stay(&object_key(pod)))
    }

    async fn mark_and_delete(&self, pod: &Pod) -> Result<(), Failure> {
        let api = self.client.namespaced::<Pod>(namespace(&pod.metadata));
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": now()});
        let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}});
        api.patch(name(&pod.metadata), &Patch::Strategic(patch), Some("status"))
            .await?;
        let preconditions = Preconditions {
            uid: pod.metadata.uid.clone(),
            ..Preconditions::default()
        };
        api.delete(
            name(&pod.metadata),
            &DeleteOptions {
                preconditions: Some(preconditions),
                ..DeleteOptions::default()
            },
        )
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::fake::FakeServer;

    fn taint() -> Taint {
        Taint {
            key: "node.kubernetes.io/unreachable".into(),
            effect: "NoExecute".into(),
            ..Taint::default()
        }
    }

    fn toleration(value: serde_json::Value) -> Toleration {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn tolerations_decide_whether_and_how_long() {
        let five_minutes = toleration(
            json!({"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}),
        );
        assert_eq!(
            judge(&[taint()], std::slice::from_ref(&five_minutes)),
            Verdict::StayFor(Duration::from_secs(300))
        );
        assert_eq!(
            judge(&[taint()], &[toleration(json!({"operator": "Exists"}))]),
            Verdict::Stay
        );
        assert_eq!(judge(&[taint()], &[]), Verdict::Go);
        assert_eq!(
            judge(
                &[taint()],
                &[toleration(json!({"key": "other", "operator": "Exists"}))]
            ),
            Verdict::Go
        );
        assert_eq!(judge(&[], &[]), Verdict::Stay);
        let negative = Toleration {
            toleration_seconds: Some(-1),
            ..five_minutes
        };
        assert_eq!(judge(&[taint()], &[negative]), Verdict::Go);
    }

    #[tokio::test]
    async fn an_intolerant_pod_is_marked_and_deleted() {
        let server = FakeServer::new();
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "p"}, "spec": {"containers": [], "nodeName": "n"}}),
        )
        .unwrap();
        let pod = server.client().namespaced("ns").create(&pod).await.unwrap();
        let mut node = Node::default();
        node.metadata.name = Some("n".into());
        node.spec.get_or_insert_default().taints = Some(vec![taint()]);
        let recorder = EventRecorder::new(server.client(), "t", "");
        let controller = TaintEviction {
            client: server.client(),
            recorder,
            nodes: Store::of([node]),
            pods: Store::of([pod]),
            since: Mutex::default(),
        };
        controller.reconcile("ns/p").await.unwrap();
        assert!(
            server
                .client()
                .namespaced::<Pod>("ns")
                .get("p")
                .await
                .unwrap_err()
                .is_not_found()
        );
        controller
            .reconcile("ns/p")
            .await
            .expect("a pod that is gone already is no error");
    }
}
