//! The API's picture of a static pod: made, replaced when its file changed, removed when its file is gone. The kubelet never obeys it.

use std::collections::BTreeMap;

use client::{Api, Client, DeleteOptions, Preconditions};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use parking_lot::Mutex;

use crate::pod::{CONFIG_HASH, CONFIG_MIRROR, PodExt};
use crate::status::reporter::StatusReporter;

#[derive(Default)]
pub struct Mirrors {
    node: Mutex<Option<(String, String)>>,
}

impl Mirrors {
    /// Mirrors are owned by their node, by its uid.
    pub fn set_node(&self, node: &Node) {
        if let (Some(name), Some(uid)) = (&node.metadata.name, &node.metadata.uid) {
            *self.node.lock() = Some((name.clone(), uid.clone()));
        }
    }

    pub async fn reconcile(&self, client: &Client, pod: &Pod, statuses: &StatusReporter) {
        if !pod.is_static() {
            return;
        }
        let api: Api<Pod> = client.namespaced(pod.namespace());
        if let Some(mirror) = statuses.server_pod(&pod.key()) {
            if is_mirror_of(&mirror, pod) && !mirror.is_deleting() {
                return;
            }
            self.delete(client, &mirror).await;
        }
        let Some((node, uid)) = self.node.lock().clone() else {
            return;
        };
        match api.create(&mirror_of(pod, &node, &uid)).await {
            Ok(made) => {
                tracing::info!(pod = %pod.key(), "Created mirror pod for static pod");
                statuses.server_has(&pod.key(), Some(std::sync::Arc::new(made)));
            }
            Err(e) if e.is_already_exists() => {}
            Err(error) => tracing::error!(pod = %pod.key(), %error, "Failed creating a mirror pod"),
        }
    }

    pub async fn delete(&self, client: &Client, mirror: &Pod) {
        let api: Api<Pod> = client.namespaced(mirror.namespace());
        let preconditions = Preconditions {
            uid: mirror.metadata.uid.clone(),
            ..Default::default()
        };
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..Default::default()
        };
        match api.delete(mirror.name(), &options).await {
            Ok(()) => tracing::info!(pod = %mirror.key(), "Deleted mirror pod"),
            Err(e) if e.is_not_found() || e.is_conflict() => {}
            Err(error) => tracing::error!(pod = %mirror.key(), %error, "Failed deleting a mirror pod"),
        }
    }
}

pub fn is_mirror_of(mirror: &Pod, pod: &Pod) -> bool {
    mirror.is_mirror() && mirror.annotation(CONFIG_MIRROR) == pod.annotation(CONFIG_HASH)
}

fn mirror_of(pod: &Pod, node: &str, node_uid: &str) -> Pod {
    let mut mirror = pod.clone();
    mirror.status = None;
    mirror.metadata.uid = None;
    let hash = pod.annotation(CONFIG_HASH).unwrap_or_default().to_string();
    mirror
        .metadata
        .annotations
        .get_or_insert_with(BTreeMap::new)
        .insert(CONFIG_MIRROR.into(), hash);
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.into(),
        uid: node_uid.into(),
        controller: Some(true),
        ..Default::default()
    }]);
    mirror
}
