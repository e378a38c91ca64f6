//! Reads out of stored objects what they grant a node.

use apimachinery::value::Value;

use super::graph::{Grants, Kind, Vertex};
use crate::admission::pod_references::{claim_names, configmap_names, secret_names};

pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// A mirror pod grants nothing but itself: its node wrote it.
pub fn of_pod(pod: &Value) -> Grants {
    let namespace = pod.str_at("metadata.namespace");
    let mut grants = Grants {
        node: pod.str_at("spec.nodeName").to_owned(),
        reaches: Vec::new(),
    };
    if grants.node.is_empty() || is_mirror(pod) {
        return grants;
    }
    let mut add = |kind, name: &str| {
        let vertex = Vertex::new(kind, namespace, name);
        if !name.is_empty() && !grants.reaches.contains(&vertex) {
            grants.reaches.push(vertex);
        }
    };
    add(Kind::ServiceAccount, pod.str_at("spec.serviceAccountName"));
    secret_names(pod, &mut |name| add(Kind::Secret, name));
    configmap_names(pod, &mut |name| add(Kind::ConfigMap, name));
    claim_names(pod, &mut |name| add(Kind::Claim, name));
    for claim in pod.list_at("status.resourceClaimStatuses") {
        add(Kind::ResourceClaim, claim.str_at("resourceClaimName"));
    }
    for claim in pod.list_at("spec.resourceClaims") {
        add(Kind::ResourceClaim, claim.str_at("resourceClaimName"));
    }
    add(
        Kind::ResourceClaim,
        pod.str_at("status.extendedResourceClaimStatus.resourceClaimName"),
    );
    grants
}

pub fn is_mirror(pod: &Value) -> bool {
    pod.at("metadata.annotations")
        .is_some_and(|a| a.get(MIRROR_ANNOTATION).is_some())
}

/// The claim that a volume is bound to, and the secrets that its plugin reads on the node.
pub fn of_volume(volume: &Value) -> (Option<Vertex>, Vec<Vertex>) {
    let Some(claim) = volume.at("spec.claimRef").filter(|c| !c.is_null()) else {
        return (None, Vec::new());
    };
    let namespace = claim.str_at("namespace");
    (
        Some(Vertex::new(Kind::Claim, namespace, claim.str_at("name"))),
        volume_secrets(volume, namespace),
    )
}

/// (reference field, name key, namespace key or the claim's namespace)
const VOLUME_SECRETS: [(&str, &str, &str); 9] = [
    ("azureFile", "secretName", "secretNamespace"),
    ("cephfs.secretRef", "name", "namespace"),
    ("cinder.secretRef", "name", "namespace"),
    ("flexVolume.secretRef", "name", "namespace"),
    ("rbd.secretRef", "name", "namespace"),
    ("scaleIO.secretRef", "name", "namespace"),
    ("iscsi.secretRef", "name", "namespace"),
    ("storageos.secretRef", "name", "namespace"),
    ("csi.nodePublishSecretRef", "name", "namespace"),
];

fn volume_secrets(volume: &Value, claim_namespace: &str) -> Vec<Vertex> {
    let Some(spec) = volume.get("spec") else {
        return Vec::new();
    };
    let mut out: Vec<Vertex> = Vec::new();
    let staged = [
        ("csi.nodeStageSecretRef", "name", "namespace"),
        ("csi.nodeExpandSecretRef", "name", "namespace"),
    ];
    for (field, name, namespace) in VOLUME_SECRETS.into_iter().chain(staged) {
        let Some(reference) = spec.at(field) else { continue };
        let (name, namespace) = (reference.str_at(name), reference.str_at(namespace));
        if !name.is_empty() {
            out.push(Vertex::new(
                Kind::Secret,
                if namespace.is_empty() {
                    claim_namespace
                } else {
                    namespace
                },
                name,
            ));
        }
    }
    out
}

/// Attachments, resource slices and certificate requests name their node in the spec.
pub fn of_node_object(object: &Value) -> Grants {
    Grants {
        node: object.str_at("spec.nodeName").to_owned(),
        reaches: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(v: serde_json::Value) -> Value {
        serde_json::from_value(v).expect("value")
    }

    fn pod(annotations: serde_json::Value) -> Value {
        value(json!({
            "metadata": {"name": "p", "namespace": "ns", "annotations": annotations},
            "spec": {
                "nodeName": "n1", "serviceAccountName": "sa",
                "imagePullSecrets": [{"name": "pull"}],
                "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "cm"}}], "env": [{"name": "x", "valueFrom": {"secretKeyRef": {"name": "key"}}}]}],
                "volumes": [
                    {"name": "a", "secret": {"secretName": "vol"}},
                    {"name": "b", "persistentVolumeClaim": {"claimName": "claim"}},
                    {"name": "e", "ephemeral": {}},
                ],
            },
        }))
    }

    #[test]
    fn a_pod_grants_every_object_it_names() {
        let grants = of_pod(&pod(json!({})));
        let has = |kind, name: &str| grants.reaches.contains(&Vertex::new(kind, "ns", name));
        for secret in ["pull", "key", "vol"] {
            assert!(has(Kind::Secret, secret), "{secret}");
        }
        assert!(
            has(Kind::ConfigMap, "cm")
                && has(Kind::Claim, "claim")
                && has(Kind::Claim, "p-e")
                && has(Kind::ServiceAccount, "sa")
        );
        assert_eq!(grants.node, "n1");
    }

    #[test]
    fn a_mirror_pod_grants_only_itself() {
        assert!(of_pod(&pod(json!({MIRROR_ANNOTATION: "x"}))).reaches.is_empty());
    }

    #[test]
    fn a_bound_volume_names_its_claim_and_secrets() {
        let volume = value(
            json!({"spec": {"claimRef": {"namespace": "ns", "name": "c"}, "csi": {"nodePublishSecretRef": {"name": "s", "namespace": "sys"}}}}),
        );
        let (claim, secrets) = of_volume(&volume);
        assert_eq!(claim, Some(Vertex::new(Kind::Claim, "ns", "c")));
        assert_eq!(secrets, [Vertex::new(Kind::Secret, "sys", "s")]);
        assert_eq!(of_volume(&value(json!({"spec": {}}))).0, None);
    }
}
