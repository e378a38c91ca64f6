//! Every Secret, ConfigMap and claim that a pod's spec names, in all kinds of containers and volumes.

use apimachinery::value::Value;

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Volume sources with a secret reference, and the path of its name.
const SECRET_SOURCES: [(&str, &str); 9] = [
    ("azureFile", "secretName"),
    ("cephfs", "secretRef.name"),
    ("cinder", "secretRef.name"),
    ("flexVolume", "secretRef.name"),
    ("rbd", "secretRef.name"),
    ("secret", "secretName"),
    ("scaleIO", "secretRef.name"),
    ("iscsi", "secretRef.name"),
    ("storageos", "secretRef.name"),
];

pub fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    CONTAINER_LISTS
        .into_iter()
        .filter_map(move |list| pod.get("spec")?.get(list)?.as_list())
        .flatten()
}

/// Calls `visit` for each container of every list, to change it.
pub fn containers_mut(pod: &mut Value, lists: &[&str], visit: &mut dyn FnMut(&mut Value)) {
    for list in lists {
        let items = pod
            .get_mut("spec")
            .and_then(|spec| spec.get_mut(list))
            .and_then(Value::as_list_mut);
        for container in items.into_iter().flatten() {
            visit(container);
        }
    }
}

pub fn secret_names(pod: &Value, visit: &mut dyn FnMut(&str)) {
    let mut named = |name: &str| {
        if !name.is_empty() {
            visit(name);
        }
    };
    for reference in pod.list_at("spec.imagePullSecrets") {
        named(reference.str_at("name"));
    }
    env_references(pod, "secretRef", "secretKeyRef", &mut named);
    for volume in pod.list_at("spec.volumes") {
        for (source, name) in SECRET_SOURCES {
            if let Some(source) = volume.get(source) {
                named(source.str_at(name));
            }
        }
        named(volume.str_at("csi.nodePublishSecretRef.name"));
        projections(volume, "secret", &mut named);
    }
}

pub fn configmap_names(pod: &Value, visit: &mut dyn FnMut(&str)) {
    let mut named = |name: &str| {
        if !name.is_empty() {
            visit(name);
        }
    };
    env_references(pod, "configMapRef", "configMapKeyRef", &mut named);
    for volume in pod.list_at("spec.volumes") {
        named(volume.str_at("configMap.name"));
        projections(volume, "configMap", &mut named);
    }
}

/// Claims by name, and the ones made for ephemeral volumes (`pod-volume`).
pub fn claim_names(pod: &Value, visit: &mut dyn FnMut(&str)) {
    for volume in pod.list_at("spec.volumes") {
        if let Some(claim) = volume.get("persistentVolumeClaim") {
            visit(claim.str_at("claimName"));
        } else if volume.get("ephemeral").is_some() {
            visit(&format!(
                "{}-{}",
                pod.str_at("metadata.name"),
                volume.str_at("name")
            ));
        }
    }
}

/// The first kind of API object that the pod refers to, if any: mirror pods must not.
pub fn first_api_object(pod: &Value) -> Option<&'static str> {
    if !pod.str_at("spec.serviceAccountName").is_empty() {
        return Some("serviceaccounts");
    }
    let mut found = None;
    secret_names(pod, &mut |_| found = Some("secrets"));
    if found.is_none() {
        configmap_names(pod, &mut |_| found = Some("configmaps"));
    }
    found
        .or_else(|| (!pod.list_at("spec.resourceClaims").is_empty()).then_some("resourceclaims"))
        .or_else(|| pod.list_at("spec.volumes").iter().find_map(api_object_of_volume))
}

fn api_object_of_volume(volume: &Value) -> Option<&'static str> {
    const SELF_CONTAINED: [&str; 5] = ["emptyDir", "hostPath", "downwardAPI", "image", "name"];
    let source = volume.as_object()?.keys().find(|k| *k != "name")?;
    match source {
        s if SELF_CONTAINED.contains(&s) => None,
        "persistentVolumeClaim" | "ephemeral" => Some("persistentvolumeclaims"),
        "csi" => Some("csidrivers (via CSI volumes)"),
        "projected" => {
            volume
                .list_at("projected.sources")
                .iter()
                .find_map(|s| match s.as_object()?.keys().next()? {
                    "serviceAccountToken" => Some("serviceaccounts (via projected volumes)"),
                    "clusterTrustBundle" => Some("clustertrustbundles"),
                    "podCertificate" => Some("podcertificates"),
                    _ => None,
                })
        }
        _ => None,
    }
}

fn env_references(pod: &Value, whole: &str, key: &str, visit: &mut dyn FnMut(&str)) {
    for container in containers(pod) {
        for source in container.list_at("envFrom") {
            visit(source.get(whole).map(|r| r.str_at("name")).unwrap_or_default());
        }
        for env in container.list_at("env") {
            visit(
                env.at("valueFrom")
                    .and_then(|v| v.get(key))
                    .map(|r| r.str_at("name"))
                    .unwrap_or_default(),
            );
        }
    }
}

fn projections(volume: &Value, source: &str, visit: &mut dyn FnMut(&str)) {
    for projection in volume.list_at("projected.sources") {
        visit(
            projection
                .get(source)
                .map(|s| s.str_at("name"))
                .unwrap_or_default(),
        );
    }
}
