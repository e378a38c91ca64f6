//! Facts about resources that need no code: what upstream's strategies answer with a constant.

use apimachinery::schema::{Shape as FieldShape, TypeId};

use crate::storage::header::FieldPath;
use crate::storage::object::Selectable;

pub struct Traits {
    /// PUT of a name that does not exist creates it.
    pub create_on_update: bool,
    /// PUT and PATCH without metadata.resourceVersion are allowed.
    pub unconditional_update: bool,
    /// DELETE answers with the object instead of a Status.
    pub returns_deleted: bool,
    /// Dependents of a deleted object are orphaned unless the request says otherwise.
    pub orphans_by_default: bool,
    /// metadata.generation counts changes of what is not metadata or status.
    pub generation: bool,
}

const CREATE_ON_UPDATE: &[(&str, &str)] = &[
    ("node.k8s.io", "runtimeclasses"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("rbac.authorization.k8s.io", "roles"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("coordination.k8s.io", "leases"),
    ("coordination.k8s.io", "leasecandidates"),
    ("", "limitranges"),
    ("", "events"),
    ("", "services"),
    ("", "endpoints"),
];

const CONDITIONAL_UPDATE: &[(&str, &str)] = &[
    ("certificates.k8s.io", "podcertificaterequests"),
    ("certificates.k8s.io", "clustertrustbundles"),
    ("node.k8s.io", "runtimeclasses"),
    ("storagemigration.k8s.io", "storageversionmigrations"),
    ("policy", "poddisruptionbudgets"),
    ("resource.k8s.io", "resourcepoolstatusrequests"),
    ("internal.apiserver.k8s.io", "storageversions"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csistoragecapacities"),
    ("storage.k8s.io", "volumeattachments"),
    ("storage.k8s.io", "csinodes"),
    ("coordination.k8s.io", "leases"),
    ("coordination.k8s.io", "leasecandidates"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings"),
    (
        "admissionregistration.k8s.io",
        "validatingadmissionpolicybindings",
    ),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("apiregistration.k8s.io", "apiservices"),
];

const RETURNS_DELETED: &[(&str, &str)] = &[
    ("", "pods"),
    ("", "services"),
    ("", "namespaces"),
    ("", "serviceaccounts"),
    ("", "persistentvolumes"),
    ("", "persistentvolumeclaims"),
    ("", "podtemplates"),
    ("", "resourcequotas"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "volumeattributesclasses"),
    ("resource.k8s.io", "resourceclaimtemplates"),
    ("resource.k8s.io", "resourceslices"),
    ("resource.k8s.io", "resourceclaims"),
    ("resource.k8s.io", "deviceclasses"),
    ("resource.k8s.io", "devicetaintrules"),
    ("resource.k8s.io", "resourcepoolstatusrequests"),
];

const ORPHANS_BY_DEFAULT: &[(&str, &str)] = &[("", "replicationcontrollers"), ("batch", "jobs")];

const GENERATION: &[(&str, &str)] = &[
    ("", "pods"),
    ("", "podtemplates"),
    ("", "replicationcontrollers"),
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("apps", "statefulsets"),
    ("apps", "daemonsets"),
    ("batch", "jobs"),
    ("batch", "cronjobs"),
    ("scheduling.k8s.io", "priorityclasses"),
    ("networking.k8s.io", "ingresses"),
    ("networking.k8s.io", "ingressclasses"),
    ("networking.k8s.io", "networkpolicies"),
    ("discovery.k8s.io", "endpointslices"),
    ("policy", "poddisruptionbudgets"),
    ("resource.k8s.io", "resourceslices"),
    ("resource.k8s.io", "deviceclasses"),
    ("resource.k8s.io", "devicetaintrules"),
    ("flowcontrol.apiserver.k8s.io", "flowschemas"),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings"),
    (
        "admissionregistration.k8s.io",
        "validatingadmissionpolicybindings",
    ),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
];

impl Traits {
    pub fn of(group: &str, resource: &str) -> Traits {
        let listed = |list: &[(&str, &str)]| list.contains(&(group, resource));
        Traits {
            create_on_update: listed(CREATE_ON_UPDATE),
            unconditional_update: !listed(CONDITIONAL_UPDATE),
            returns_deleted: listed(RETURNS_DELETED),
            orphans_by_default: listed(ORPHANS_BY_DEFAULT),
            generation: listed(GENERATION),
        }
    }
}

/// (group, resource, label, paths, value when absent).
type SelectableRow = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static str,
);

const SELECTABLE: &[SelectableRow] = &[
    ("", "pods", "spec.nodeName", &["spec.nodeName"], ""),
    ("", "pods", "spec.restartPolicy", &["spec.restartPolicy"], ""),
    ("", "pods", "spec.schedulerName", &["spec.schedulerName"], ""),
    (
        "",
        "pods",
        "spec.serviceAccountName",
        &["spec.serviceAccountName"],
        "",
    ),
    ("", "pods", "spec.hostNetwork", &["spec.hostNetwork"], "false"),
    ("", "pods", "status.phase", &["status.phase"], ""),
    ("", "pods", "status.podIP", &["status.podIP"], ""),
    (
        "",
        "pods",
        "status.nominatedNodeName",
        &["status.nominatedNodeName"],
        "",
    ),
    (
        "",
        "nodes",
        "spec.unschedulable",
        &["spec.unschedulable"],
        "false",
    ),
    ("", "namespaces", "status.phase", &["status.phase"], ""),
    (
        "",
        "replicationcontrollers",
        "status.replicas",
        &["status.replicas"],
        "0",
    ),
    ("", "secrets", "type", &["type"], ""),
    ("", "services", "spec.clusterIP", &["spec.clusterIP"], ""),
    ("", "services", "spec.type", &["spec.type"], ""),
    ("", "events", "involvedObject.kind", &["involvedObject.kind"], ""),
    (
        "",
        "events",
        "involvedObject.namespace",
        &["involvedObject.namespace"],
        "",
    ),
    ("", "events", "involvedObject.name", &["involvedObject.name"], ""),
    ("", "events", "involvedObject.uid", &["involvedObject.uid"], ""),
    (
        "",
        "events",
        "involvedObject.apiVersion",
        &["involvedObject.apiVersion"],
        "",
    ),
    (
        "",
        "events",
        "involvedObject.resourceVersion",
        &["involvedObject.resourceVersion"],
        "",
    ),
    (
        "",
        "events",
        "involvedObject.fieldPath",
        &["involvedObject.fieldPath"],
        "",
    ),
    ("", "events", "reason", &["reason"], ""),
    ("", "events", "reportingComponent", &["reportingComponent"], ""),
    (
        "",
        "events",
        "source",
        &["source.component", "reportingComponent"],
        "",
    ),
    ("", "events", "type", &["type"], ""),
    (
        "apps",
        "replicasets",
        "status.replicas",
        &["status.replicas"],
        "0",
    ),
    ("batch", "jobs", "status.successful", &["status.succeeded"], "0"),
    (
        "certificates.k8s.io",
        "certificatesigningrequests",
        "spec.signerName",
        &["spec.signerName"],
        "",
    ),
    (
        "resource.k8s.io",
        "resourceslices",
        "spec.nodeName",
        &["spec.nodeName"],
        "",
    ),
    (
        "resource.k8s.io",
        "resourceslices",
        "spec.driver",
        &["spec.driver"],
        "",
    ),
];

/// Selectable fields of a resource, resolved against the stored version's type.
pub fn selectable(group: &str, resource: &str, ty: TypeId) -> Vec<Selectable> {
    let rows = SELECTABLE
        .iter()
        .filter(|row| row.0 == group && row.1 == resource);
    rows.map(|(_, _, label, paths, absent)| Selectable {
        label,
        paths: paths.iter().filter_map(|path| resolve(ty, path)).collect(),
        absent,
    })
    .collect()
}

fn resolve(ty: TypeId, json: &'static str) -> Option<FieldPath> {
    let (mut ty, mut tags, mut is_bool) = (Some(ty), Vec::new(), false);
    for name in json.split('.') {
        let field = ty?.get().field(name)?;
        tags.push(field.tag);
        is_bool = field.shape == FieldShape::Bool;
        ty = match field.shape {
            FieldShape::Struct(inner) => Some(inner),
            _ => None,
        };
    }
    Some(FieldPath { tags, json, is_bool })
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::schema::{Gvk, registry};

    #[test]
    fn selectable_paths_exist_in_the_schema() {
        for (group, resource, _, paths, _) in SELECTABLE {
            let found = apimachinery::schema::resources()
                .iter()
                .find(|r| r.group == *group && r.resource == *resource)
                .unwrap();
            let ty = registry()
                .kind(Gvk::new(found.storage.group, found.storage.version, found.kind))
                .unwrap();
            for path in *paths {
                assert!(resolve(ty, path).is_some(), "{resource} {path}");
            }
        }
    }

    #[test]
    fn tags_of_a_pods_node_name() {
        let ty = registry().kind(Gvk::new("", "v1", "Pod")).unwrap();
        assert_eq!(resolve(ty, "spec.nodeName").unwrap().tags, [2, 10]);
    }
}
