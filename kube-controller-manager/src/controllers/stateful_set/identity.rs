//! The names, labels and claims that make a pod member number n of a StatefulSet. No IO.

use super::spec;
use crate::controllers::controller_revision::REVISION_HASH;
use crate::meta::{label, name, namespace};
use crate::pod_control::pod_from_template;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use std::collections::BTreeMap;

pub const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
pub const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

pub fn start(set: &StatefulSet) -> i32 {
    spec(set).ordinals.as_ref().and_then(|o| o.start).unwrap_or(0)
}

pub fn replicas(set: &StatefulSet) -> i32 {
    spec(set).replicas.unwrap_or(1).max(0)
}

/// The ordinals that should have a pod.
pub fn range(set: &StatefulSet) -> std::ops::Range<i32> {
    start(set)..start(set).saturating_add(replicas(set))
}

/// `None` for a name that is not `parent-<number>`.
pub fn split(pod_name: &str) -> Option<(&str, i32)> {
    let (parent, ordinal) = pod_name.rsplit_once('-')?;
    let digits = !ordinal.is_empty() && ordinal.bytes().all(|b| b.is_ascii_digit());
    Some((parent, ordinal.parse().ok().filter(|_| digits)?))
}

pub fn ordinal(pod: &Pod) -> Option<i32> {
    split(name(&pod.metadata)).map(|(_, ordinal)| ordinal)
}

pub fn is_member(set: &StatefulSet, pod: &Pod) -> bool {
    split(name(&pod.metadata)).is_some_and(|(parent, _)| parent == name(&set.metadata))
}

/// What every member's labels say about it.
pub fn labels(pod_name: &str, ordinal: i32) -> [(&'static str, String); 2] {
    [(POD_NAME, pod_name.to_owned()), (POD_INDEX, ordinal.to_string())]
}

pub fn has_identity(pod: &Pod) -> bool {
    label(&pod.metadata, POD_NAME) == Some(name(&pod.metadata))
}

pub fn revision(pod: &Pod) -> &str {
    label(&pod.metadata, REVISION_HASH).unwrap_or("")
}

pub fn new_pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let mut pod = pod_from_template(set, template);
    let pod_name = format!("{}-{ordinal}", name(&set.metadata));
    let labels_of_pod = pod.metadata.labels.get_or_insert_default();
    labels_of_pod.extend(labels(&pod_name, ordinal).map(|(key, value)| (key.to_owned(), value)));
    labels_of_pod.insert(REVISION_HASH.to_owned(), revision.to_owned());
    pod.metadata.generate_name = None;
    pod.metadata.namespace = set.metadata.namespace.clone();
    if let Some(pod_spec) = &mut pod.spec {
        pod_spec.hostname = Some(pod_name.clone());
        pod_spec.subdomain = spec(set).service_name.clone();
        let own = pod_spec.volumes.take().unwrap_or_default();
        let claimed: Vec<_> = templates(set).map(|t| volume(t, set, ordinal)).collect();
        let kept = own
            .into_iter()
            .filter(|v| claimed.iter().all(|c| c.name != v.name));
        let all: Vec<_> = claimed.iter().cloned().chain(kept).collect();
        pod_spec.volumes = (!all.is_empty()).then_some(all);
    }
    pod.metadata.name = Some(pod_name);
    pod
}

fn templates(set: &StatefulSet) -> impl Iterator<Item = &PersistentVolumeClaim> {
    set.spec
        .iter()
        .flat_map(|s| s.volume_claim_templates.iter().flatten())
}

fn volume(template: &PersistentVolumeClaim, set: &StatefulSet, ordinal: i32) -> Volume {
    let source = PersistentVolumeClaimVolumeSource {
        claim_name: claim_name(template, set, ordinal),
        read_only: None,
    };
    Volume {
        name: name(&template.metadata).to_owned(),
        persistent_volume_claim: Some(source),
        ..Volume::default()
    }
}

fn claim_name(template: &PersistentVolumeClaim, set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", name(&template.metadata), name(&set.metadata))
}

/// The claims of one member.
pub fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let made = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        claim.metadata.name = Some(claim_name(template, set, ordinal));
        claim.metadata.namespace = Some(namespace(&set.metadata).to_owned());
        let labels: &mut BTreeMap<_, _> = claim.metadata.labels.get_or_insert_default();
        labels.extend(spec(set).selector.match_labels.clone().unwrap_or_default());
        claim.status = None;
        claim
    };
    templates(set).map(made).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_tell_parent_and_ordinal() {
        assert_eq!(split("web-12"), Some(("web", 12)));
        assert_eq!(split("my-web-0"), Some(("my-web", 0)));
        assert_eq!(split("web-x"), None);
        assert_eq!(split("web-+1"), None);
        assert_eq!(split("web"), None);
    }

    #[test]
    fn a_member_has_its_name_index_host_and_claims() {
        let set: StatefulSet = serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": {"serviceName": "svc", "selector": {"matchLabels": {"app": "w"}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
            "template": {"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [], "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]}}}}))
        .unwrap();
        let pod = new_pod(&set, &spec(&set).template, "web-abc", 3);
        let labels = pod.metadata.labels.as_ref().unwrap();
        assert_eq!(
            (
                pod.metadata.name.as_deref(),
                labels[POD_NAME].as_str(),
                labels[POD_INDEX].as_str(),
                labels[REVISION_HASH].as_str()
            ),
            (Some("web-3"), "web-3", "3", "web-abc")
        );
        let pod_spec = pod.spec.as_ref().unwrap();
        assert_eq!(
            (pod_spec.hostname.as_deref(), pod_spec.subdomain.as_deref()),
            (Some("web-3"), Some("svc"))
        );
        let volumes = pod_spec.volumes.as_ref().unwrap();
        assert_eq!(
            volumes.iter().map(|v| v.name.as_str()).collect::<Vec<_>>(),
            ["data", "tmp"]
        );
        assert_eq!(
            volumes[0].persistent_volume_claim.as_ref().unwrap().claim_name,
            "data-web-3"
        );
        assert_eq!(claims(&set, 3)[0].metadata.labels.as_ref().unwrap()["app"], "w");
    }
}
