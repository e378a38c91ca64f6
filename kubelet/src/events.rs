//! Events about pods and the node. Without an API server they are only logged.

use client::events::EventRecorder;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};

use crate::pod::PodExt;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Normal,
    Warning,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

#[derive(Clone)]
pub struct Recorder {
    inner: Option<EventRecorder>,
    node: ObjectReference,
}

impl Recorder {
    pub fn new(inner: Option<EventRecorder>, node_name: &str) -> Self {
        let node = ObjectReference {
            kind: Some("Node".into()),
            name: Some(node_name.into()),
            // Upstream's kubelet knows its node by name before it has registered it.
            uid: Some(node_name.into()),
            ..Default::default()
        };
        Self { inner, node }
    }

    pub fn node(&self, severity: Severity, reason: &str, message: &str) {
        self.send(&self.node, severity, reason, message);
    }

    pub fn pod(&self, pod: &Pod, severity: Severity, reason: &str, message: &str) {
        self.send(&reference(pod, None), severity, reason, message);
    }

    pub fn container(&self, pod: &Pod, name: &str, severity: Severity, reason: &str, message: &str) {
        self.send(&reference(pod, Some(name)), severity, reason, message);
    }

    fn send(&self, regarding: &ObjectReference, severity: Severity, reason: &str, message: &str) {
        tracing::debug!(
            object = regarding.name.as_deref().unwrap_or_default(),
            kind = regarding.kind.as_deref().unwrap_or_default(),
            r#type = severity.as_str(),
            reason,
            note = message,
            "Event occurred"
        );
        // A static pod's own uid is unknown to the server, but an event about it is still readable by name.
        if let Some(recorder) = &self.inner {
            recorder.event(regarding, severity.as_str(), reason, message);
        }
    }
}

fn reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: Some(pod.name().into()),
        namespace: Some(pod.namespace().into()),
        uid: Some(pod.uid().to_string()),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: container.map(|name| field_path(pod, name)),
    }
}

fn field_path(pod: &Pod, name: &str) -> String {
    let spec = pod.spec();
    let list = if spec.containers.iter().any(|c| c.name == name) {
        "containers"
    } else if pod.init_containers().iter().any(|c| c.name == name) {
        "initContainers"
    } else {
        "ephemeralContainers"
    };
    format!("spec.{list}{{{name}}}")
}
