//! Names, labels and annotations of sandboxes and containers. They are the kubelet's only memory across a restart, and crictl, log
//! shippers and another kubelet read them too: every key is upstream's.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::pod::{PodExt, PodUid};

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

pub const HASH: &str = "io.kubernetes.container.hash";
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const PRE_STOP_HANDLER: &str = "io.kubernetes.container.preStopHandler";
pub const PORTS: &str = "io.kubernetes.container.ports";
pub const DELETION_GRACE: &str = "io.kubernetes.pod.deletionGracePeriod";
pub const TERMINATION_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

pub type Map = HashMap<String, String>;

pub fn sandbox_labels(pod: &Pod) -> Map {
    let own = pod
        .metadata
        .labels
        .iter()
        .flatten()
        .map(|(k, v)| (k.clone(), v.clone()));
    own.chain(identity(pod)).collect()
}

pub fn sandbox_annotations(pod: &Pod) -> Map {
    pod.metadata
        .annotations
        .iter()
        .flatten()
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

fn identity(pod: &Pod) -> [(String, String); 3] {
    [
        (POD_NAME.into(), pod.name().into()),
        (POD_NAMESPACE.into(), pod.namespace().into()),
        (POD_UID.into(), pod.uid().as_str().into()),
    ]
}

pub fn container_labels(pod: &Pod, container: &Container) -> Map {
    let mut labels: Map = identity(pod).into_iter().collect();
    labels.insert(CONTAINER_NAME.into(), container.name.clone());
    labels
}

pub fn container_annotations(pod: &Pod, container: &Container, restart_count: u32) -> Map {
    let mut map = Map::new();
    let mut put = |key: &str, value: String| map.insert(key.to_string(), value);
    put(HASH, format!("{:x}", container_hash(container)));
    put(RESTART_COUNT, restart_count.to_string());
    put(
        TERMINATION_MESSAGE_PATH,
        container.termination_message_path.clone().unwrap_or_default(),
    );
    put(
        TERMINATION_MESSAGE_POLICY,
        container.termination_message_policy.clone().unwrap_or_default(),
    );
    if let Some(seconds) = pod.metadata.deletion_grace_period_seconds {
        put(DELETION_GRACE, seconds.to_string());
    }
    if let Some(seconds) = pod.spec().termination_grace_period_seconds {
        put(TERMINATION_GRACE, seconds.to_string());
    }
    let pre_stop = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
    if let Some(json) = pre_stop.and_then(|hook| serde_json::to_string(hook).ok()) {
        put(PRE_STOP_HANDLER, json);
    }
    let ports = container.ports.as_ref().filter(|p| !p.is_empty());
    if let Some(json) = ports.and_then(|p| serde_json::to_string(p).ok()) {
        put(PORTS, json);
    }
    map
}

pub struct PodIdentity {
    pub uid: PodUid,
    pub name: String,
    pub namespace: String,
}

/// `None` for what some other client of the runtime made.
pub fn pod_identity(labels: &Map) -> Option<PodIdentity> {
    Some(PodIdentity {
        uid: PodUid::new(labels.get(POD_UID)?),
        name: labels.get(POD_NAME)?.clone(),
        namespace: labels.get(POD_NAMESPACE)?.clone(),
    })
}

pub fn hash_annotation(annotations: &Map) -> u64 {
    annotations
        .get(HASH)
        .and_then(|h| u64::from_str_radix(h, 16).ok())
        .unwrap_or(0)
}

pub fn restart_count_annotation(annotations: &Map) -> u32 {
    annotations
        .get(RESTART_COUNT)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

/// Upstream's hash: FNV-1a over the printed bytes of the JSON of name and image. A container made by either kubelet
/// is so recognised by the other and not restarted.
pub fn container_hash(container: &Container) -> u64 {
    let image = container.image.as_deref().unwrap_or_default();
    let json = format!(
        "{{\"image\":{},\"name\":{}}}",
        json_string(image),
        json_string(&container.name)
    );
    let mut hash = Fnv32a::new();
    hash.write(b"([]uint8)[");
    let mut digits = String::new();
    for (i, byte) in json.bytes().enumerate() {
        if i > 0 {
            digits.push(' ');
        }
        digits.push_str(&byte.to_string());
    }
    hash.write(digits.as_bytes());
    hash.write(b"]");
    u64::from(hash.0)
}

/// Go escapes the three characters of HTML as well.
fn json_string(text: &str) -> String {
    let plain = serde_json::Value::from(text).to_string();
    plain
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

struct Fnv32a(u32);

impl Fnv32a {
    fn new() -> Self {
        Self(0x811c_9dc5)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, image: &str) -> Container {
        Container {
            name: name.into(),
            image: Some(image.into()),
            ..Default::default()
        }
    }

    #[test]
    fn the_hash_is_the_go_kubelets() {
        assert_eq!(
            container_hash(&container("test_container", "foo/image:v1")),
            0x8e45_cbd0
        );
        assert_eq!(container_hash(&container("foo", "bar")), 0x11a6_d6d6);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "x"}}, "spec": {"containers": []}
        }))
        .unwrap();
        let c = container("a", "i");
        let labels = container_labels(&pod, &c);
        let identity = pod_identity(&labels).unwrap();
        assert_eq!(
            (
                identity.uid.as_str(),
                identity.name.as_str(),
                identity.namespace.as_str()
            ),
            ("u", "p", "n")
        );
        let annotations = container_annotations(&pod, &c, 7);
        assert_eq!(restart_count_annotation(&annotations), 7);
        assert_eq!(hash_annotation(&annotations), container_hash(&c));
        assert_eq!(sandbox_labels(&pod)["app"], "x");
    }
}
