//! Makes the Node and keeps its status: at once when something changed, every five minutes when nothing did.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Api, Client, Patch};
use component_base::drain::Drain;
use cri::Runtime;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeDaemonEndpoints, NodeSpec, NodeStatus, Taint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::RwLock;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use super::conditions::{self, Health};
use super::machine::{Machine, quantities};
use crate::pod::{Labels, now};

const MAX_IMAGES: usize = 50;
/// Of one image.
const MAX_NAMES: usize = 5;
const REGISTER_RETRY: Duration = Duration::from_millis(200);
const MAX_REGISTER_RETRY: Duration = Duration::from_secs(7);

pub struct NodeReporter {
    pub client: Client,
    pub machine: Machine,
    pub runtime: Arc<dyn Runtime>,
    pub runtime_version: String,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    pub provider_id: String,
    pub kubelet_port: u16,
    pub register: bool,
    pub update_every: Duration,
    pub report_every: Duration,
    pub health: Arc<RwLock<Health>>,
    /// Something about the node's health changed.
    pub changed: Arc<Notify>,
    pub registered: Box<dyn Fn(&Node) + Send + Sync>,
}

impl NodeReporter {
    pub async fn run(self, drain: Drain) {
        let api: Api<Node> = self.client.all();
        let mut node = tokio::select! {
            node = self.register(&api) => node,
            () = drain.signaled() => return,
        };
        (self.registered)(&node);
        let mut reported = Instant::now() - self.report_every;
        loop {
            if let Err(error) = self.report(&api, &mut node, &mut reported).await {
                tracing::error!(%error, "Unable to update node status");
                if let Ok(fresh) = api.get(&self.machine.node_name).await {
                    node = fresh;
                } else if error.is_not_found() {
                    node = self.register(&api).await;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.update_every) => {}
                () = self.changed.notified() => {}
                () = drain.signaled() => return,
            }
        }
    }

    async fn register(&self, api: &Api<Node>) -> Node {
        let mut wait = REGISTER_RETRY;
        loop {
            match self.try_register(api).await {
                Ok(node) => {
                    tracing::info!(node = %self.machine.node_name, "Successfully registered node");
                    return node;
                }
                Err(error) => {
                    tracing::error!(node = %self.machine.node_name, %error, "Unable to register node with API server")
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(MAX_REGISTER_RETRY);
        }
    }

    async fn try_register(&self, api: &Api<Node>) -> Result<Node, client::Error> {
        if !self.register {
            return api.get(&self.machine.node_name).await;
        }
        match api.create(&self.initial()).await {
            Err(e) if e.is_already_exists() => {}
            made => return made,
        }
        let existing = api.get(&self.machine.node_name).await?;
        tracing::info!(node = %self.machine.node_name, "Node was previously registered");
        let stale: Labels = self
            .labels
            .iter()
            .filter(|(k, v)| existing.metadata.labels.as_ref().and_then(|l| l.get(*k)) != Some(*v))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        if stale.is_empty() {
            return Ok(existing);
        }
        let patch = Patch::Merge(json!({"metadata": {"labels": stale}}));
        api.patch(&self.machine.node_name, &patch, None).await
    }

    fn initial(&self) -> Node {
        let annotations = BTreeMap::from([(
            "volumes.kubernetes.io/controller-managed-attach-detach".to_string(),
            "true".to_string(),
        )]);
        Node {
            metadata: ObjectMeta {
                name: Some(self.machine.node_name.clone()),
                labels: Some(self.labels.clone()),
                annotations: Some(annotations),
                ..Default::default()
            },
            spec: Some(NodeSpec {
                taints: (!self.taints.is_empty()).then(|| self.taints.clone()),
                provider_id: (!self.provider_id.is_empty()).then(|| self.provider_id.clone()),
                ..Default::default()
            }),
            status: Some(self.status(&[], Vec::new())),
        }
    }

    fn status(
        &self,
        old: &[k8s_openapi::api::core::v1::NodeCondition],
        images: Vec<ContainerImage>,
    ) -> NodeStatus {
        let mut info = self.machine.info.clone();
        info.container_runtime_version.clone_from(&self.runtime_version);
        let port = DaemonEndpoint {
            port: i32::from(self.kubelet_port),
        };
        NodeStatus {
            addresses: Some(self.machine.addresses()),
            capacity: Some(quantities(&self.machine.capacity)),
            allocatable: Some(quantities(&self.machine.allocatable)),
            conditions: Some(conditions::generate(&self.health.read(), old, &now())),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(port),
            }),
            images: (!images.is_empty()).then_some(images),
            node_info: Some(info),
            ..Default::default()
        }
    }

    async fn report(
        &self,
        api: &Api<Node>,
        node: &mut Node,
        reported: &mut Instant,
    ) -> Result<(), client::Error> {
        let images = self.runtime.list_images().await.map(images).unwrap_or_default();
        let old = node.status.clone().unwrap_or_default();
        let wanted = self.status(old.conditions.as_deref().unwrap_or_default(), images);
        let heartbeat = reported.elapsed() >= self.report_every;
        let Some(patch) = patch(&old, &wanted, heartbeat) else {
            return Ok(());
        };
        *node = api
            .patch(&self.machine.node_name, &Patch::Strategic(patch), Some("status"))
            .await?;
        *reported = Instant::now();
        Ok(())
    }
}

/// The largest, as upstream.
fn images(list: Vec<cri::v1::Image>) -> Vec<ContainerImage> {
    let mut all: Vec<ContainerImage> = list
        .into_iter()
        .map(|i| {
            let names: Vec<String> = i
                .repo_digests
                .into_iter()
                .chain(i.repo_tags)
                .take(MAX_NAMES)
                .collect();
            ContainerImage {
                names: Some(names),
                size_bytes: i64::try_from(i.size).ok(),
            }
        })
        .collect();
    all.sort_by_key(|i| std::cmp::Reverse(i.size_bytes));
    all.truncate(MAX_IMAGES);
    all
}

fn object(status: &NodeStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn without_heartbeat(mut conditions: Value) -> Value {
    for condition in conditions.as_array_mut().into_iter().flatten() {
        if let Some(map) = condition.as_object_mut() {
            map.remove("lastHeartbeatTime");
        }
    }
    conditions
}

/// Only what the kubelet owns and what differs. `None`: nothing to say, and it is not time to say so.
fn patch(old: &NodeStatus, new: &NodeStatus, heartbeat: bool) -> Option<Value> {
    let (old, new) = (object(old), object(new));
    let mut status = Map::new();
    for (key, value) in new {
        let before = old.get(&key).cloned().unwrap_or_default();
        let same = match key.as_str() {
            "conditions" => {
                let own = before.as_array().into_iter().flatten().filter(|c| {
                    value
                        .as_array()
                        .is_some_and(|n| n.iter().any(|w| w.get("type") == c.get("type")))
                });
                let mut own: Vec<Value> = own.cloned().collect();
                own.sort_by_key(|c| c["type"].to_string());
                let mut wanted = value.as_array().cloned().unwrap_or_default();
                wanted.sort_by_key(|c| c["type"].to_string());
                !heartbeat && without_heartbeat(Value::Array(own)) == without_heartbeat(Value::Array(wanted))
            }
            _ => before == value,
        };
        if same {
            continue;
        }
        let value = if key == "addresses" {
            let mut items = vec![json!({"$patch": "replace"})];
            items.extend(value.as_array().cloned().unwrap_or_default());
            Value::Array(items)
        } else {
            value
        };
        status.insert(key, value);
    }
    (!status.is_empty()).then(|| json!({"status": status}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(ready: &str, heartbeat: &str) -> NodeStatus {
        serde_json::from_value(json!({"addresses": [{"type": "Hostname", "address": "n"}],
            "conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat}]}))
        .unwrap()
    }

    #[test]
    fn a_heartbeat_alone_is_no_news() {
        let (old, new) = (
            status("True", "2026-01-01T00:00:00Z"),
            status("True", "2026-01-01T00:01:00Z"),
        );
        assert!(patch(&old, &new, false).is_none());
        assert!(patch(&old, &new, true).is_some());
        let sent = patch(&old, &status("False", "2026-01-01T00:01:00Z"), false).unwrap();
        assert_eq!(
            sent["status"].as_object().unwrap().keys().collect::<Vec<_>>(),
            ["conditions"]
        );
    }

    #[test]
    fn others_conditions_do_not_make_a_difference() {
        let mut old = status("True", "2026-01-01T00:00:00Z");
        let other = serde_json::from_value(json!({"type": "NetworkUnavailable", "status": "False"})).unwrap();
        old.conditions.as_mut().unwrap().insert(0, other);
        assert!(patch(&old, &status("True", "2026-01-01T00:01:00Z"), false).is_none());
    }
}
