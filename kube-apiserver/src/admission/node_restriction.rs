//! NodeRestriction: what the node authorizer lets through by verb is checked here by content.

use std::collections::BTreeSet;
use std::sync::Arc;

use apimachinery::meta::Meta;
use apimachinery::status::{self, GroupResource};
use apimachinery::value::Value;

use super::certificates::parse_request;
use super::objects::Objects;
use super::pod_references::first_api_object;
use super::{Operation, Plugin, Refusal, Seams, Verdict, forbidden};
use crate::authorization::node::node_identity;
use crate::authorization::node::populate::{MIRROR_ANNOTATION, is_mirror};
use crate::authorization::{Attributes as Question, Authorizers};
use crate::registry::admission::Attributes;
use crate::storage::object::CachedObject;

const LEASE_NAMESPACE: &str = "kube-node-lease";
const RESTRICTED_NAMESPACE: &str = "node-restriction.kubernetes.io";

/// Labels below kubernetes.io and k8s.io that a kubelet may set on itself.
const KUBELET_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
const KUBELET_LABEL_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

pub struct NodeRestriction {
    objects: Arc<dyn Objects>,
    authorizers: Arc<Authorizers>,
}

/// One request of one node.
struct Of<'a> {
    node: &'a str,
    a: &'a Attributes,
    plugin: &'a NodeRestriction,
}

impl NodeRestriction {
    pub fn new(seams: &Seams) -> Self {
        NodeRestriction {
            objects: seams.objects.clone(),
            authorizers: seams.authorizers.clone(),
        }
    }
}

impl Plugin for NodeRestriction {
    fn operations(&self) -> &'static [Operation] {
        &[Operation::Create, Operation::Update, Operation::Delete]
    }

    fn admit(&self, a: &mut Attributes) -> Verdict {
        let Some(node) = node_identity(&a.user) else {
            return Ok(());
        };
        if node.is_empty() {
            return Err(forbidden(
                a,
                format!("could not determine node from user {:?}", a.user.name),
            ));
        }
        Of {
            node,
            a,
            plugin: self,
        }
        .check()
    }
}

impl Of<'_> {
    fn check(&self) -> Verdict {
        match (
            self.a.resource_group.as_str(),
            self.a.resource.as_str(),
            self.a.subresource.as_str(),
        ) {
            ("", "pods", "") => self.pod(),
            ("", "pods", "status") => self.pod_status(),
            ("", "pods", "eviction") => self.eviction(),
            ("", "pods", other) => self.refuse(format!(
                "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
            )),
            ("", "nodes", _) => self.own_node(),
            ("", "persistentvolumeclaims", "status") => self.claim_status(),
            ("", "persistentvolumeclaims", _) => self.refuse("may only update PVC status"),
            ("", "serviceaccounts", "token") if self.a.operation == Operation::Create => self.token(),
            ("coordination.k8s.io", "leases", _) => self.lease(),
            ("storage.k8s.io", "csinodes", _) => self.csi_node(),
            ("resource.k8s.io", "resourceslices", _) => self.resource_slice(),
            ("certificates.k8s.io", "certificatesigningrequests", "")
                if self.a.operation == Operation::Create =>
            {
                self.signing_request()
            }
            _ => Ok(()),
        }
    }

    fn refuse(&self, why: impl std::fmt::Display) -> Verdict {
        Err(forbidden(self.a, why))
    }

    fn require(&self, condition: bool, why: impl FnOnce() -> String) -> Verdict {
        if condition { Ok(()) } else { self.refuse(why()) }
    }

    fn object(&self) -> &Value {
        static NOTHING: Value = Value::Null;
        self.a.object.as_ref().unwrap_or(&NOTHING)
    }

    fn old(&self) -> Value {
        self.a.old.as_ref().map(|o| o.value()).unwrap_or_default()
    }

    /// The stored pod; one that is not there is a 404.
    fn existing_pod(&self, name: &str) -> Result<Arc<CachedObject>, Refusal> {
        let found = self.plugin.objects.get("", "pods", &self.a.namespace, name);
        found.ok_or_else(|| status::not_found(GroupResource::new("", "pods"), name).into())
    }

    fn pod(&self) -> Verdict {
        let node = self.node;
        match self.a.operation {
            Operation::Create => self.mirror_pod(),
            Operation::Delete => {
                let pod = self.existing_pod(&self.a.name)?;
                self.require(pod.value().str_at("spec.nodeName") == node, || {
                    format!("node {node:?} can only delete pods with spec.nodeName set to itself")
                })
            }
            other => self.refuse(format!(
                "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
                other.as_str()
            )),
        }
    }

    /// A kubelet shows its static pods here: they must be recognizable, its own, and refer to nothing of the API.
    fn mirror_pod(&self) -> Verdict {
        let (node, pod) = (self.node, self.object());
        self.require(is_mirror(pod), || format!("pod does not have {MIRROR_ANNOTATION:?} annotation, node {node:?} can only create mirror pods"))?;
        self.require(pod.str_at("spec.nodeName") == node, || {
            format!("node {node:?} can only create pods with spec.nodeName set to itself")
        })?;
        match pod.owner_references() {
            [owner] => self.mirror_owner(owner)?,
            [] => {
                return self.refuse(format!(
                    "node {node:?} can only create pods with an owner reference set to itself"
                ));
            }
            _ => {
                return self.refuse(format!(
                    "node {node:?} can only create pods with a single owner reference set to itself"
                ));
            }
        }
        match first_api_object(pod) {
            Some(kind) => self.refuse(format!("node {node:?} can not create pods that reference {kind}")),
            None => Ok(()),
        }
    }

    fn mirror_owner(&self, owner: &Value) -> Verdict {
        let node = self.node;
        let itself = owner.str_at("apiVersion") == "v1"
            && owner.str_at("kind") == "Node"
            && owner.str_at("name") == node;
        self.require(itself, || {
            format!("node {node:?} can only create pods with an owner reference set to itself")
        })?;
        self.require(owner.bool_at("controller"), || {
            format!("node {node:?} can only create pods with a controller owner reference set to itself")
        })?;
        self.require(!owner.bool_at("blockOwnerDeletion"), || {
            format!("node {node:?} must not set blockOwnerDeletion on an owner reference")
        })?;
        let Some(stored) = self.plugin.objects.get("", "nodes", "", node) else {
            return Err(status::not_found(GroupResource::new("", "nodes"), node).into());
        };
        self.require(*stored.uid == *owner.str_at("uid"), || {
            format!(
                "node {node} UID mismatch: expected {} got {}",
                owner.str_at("uid"),
                stored.uid
            )
        })
    }

    fn pod_status(&self) -> Verdict {
        if self.a.operation != Operation::Update {
            return self.refuse(format!("unexpected operation {:?}", self.a.operation.as_str()));
        }
        let (node, old, new) = (self.node, self.old(), self.object());
        let same =
            |path: &str| old.at(path).filter(|v| !v.is_zero()) == new.at(path).filter(|v| !v.is_zero());
        self.require(old.str_at("spec.nodeName") == node, || {
            format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself")
        })?;
        self.require(same("metadata.labels"), || {
            format!("node {node:?} cannot update labels through pod status")
        })?;
        self.require(same("status.resourceClaimStatuses"), || {
            format!("node {node:?} cannot update resource claim statues")
        })?;
        self.require(same("status.extendedResourceClaimStatus"), || {
            format!("node {node:?} cannot update extended resource claim status")
        })
    }

    fn eviction(&self) -> Verdict {
        let pod = self.existing_pod(if self.a.name.is_empty() {
            self.object().name()
        } else {
            &self.a.name
        })?;
        let own = pod.value().str_at("spec.nodeName") == self.node;
        self.require(own, || {
            format!(
                "node {} can only evict pods with spec.nodeName set to itself",
                self.node
            )
        })
    }

    fn own_node(&self) -> Verdict {
        let (node, a) = (self.node, self.a);
        self.require(a.name == node, || {
            format!("node {node:?} is not allowed to modify node {:?}", a.name)
        })?;
        let new = self.object();
        match a.operation {
            Operation::Create => {
                let labels = forbidden_labels(new, &Value::Null);
                self.require(labels.is_empty(), || {
                    format!("node {node:?} is not allowed to set the following labels: {labels}")
                })
            }
            Operation::Update => self.node_update(new, &self.old()),
            _ => Ok(()),
        }
    }

    fn node_update(&self, new: &Value, old: &Value) -> Verdict {
        let node = self.node;
        let same =
            |path: &str| old.at(path).filter(|v| !v.is_zero()) == new.at(path).filter(|v| !v.is_zero());
        self.require(
            new.at("spec.configSource").is_none() || same("spec.configSource"),
            || format!("node {node:?} is not allowed to update configSource to a new non-nil configSource"),
        )?;
        self.require(same("spec.taints"), || {
            format!("node {node:?} is not allowed to modify taints")
        })?;
        self.require(same("metadata.ownerReferences"), || {
            format!("node {node:?} is not allowed to modify ownerReferences")
        })?;
        let labels = forbidden_labels(new, old);
        self.require(labels.is_empty(), || {
            format!("is not allowed to modify labels: {labels}")
        })
    }

    fn claim_status(&self) -> Verdict {
        const OWN: [&str; 4] = [
            "status.capacity",
            "status.conditions",
            "status.allocatedResources",
            "status.allocatedResourceStatuses",
        ];
        let strip = |mut claim: Value| {
            for path in OWN
                .into_iter()
                .chain(["metadata.resourceVersion", "metadata.managedFields"])
            {
                claim.remove_at(path);
            }
            claim
        };
        let same = strip(self.old()) == strip(self.object().clone());
        self.require(same, || {
            format!(
                "node {:?} is not allowed to update fields other than status.quantity and status.conditions",
                self.node
            )
        })
    }

    fn token(&self) -> Verdict {
        let request = self.object();
        let reference = request.at("spec.boundObjectRef").cloned().unwrap_or_default();
        let bound = reference.str_at("apiVersion") == "v1"
            && reference.str_at("kind") == "Pod"
            && !reference.str_at("name").is_empty();
        self.require(bound, || "node requested token not bound to a pod".to_owned())?;
        let uid = reference.str_at("uid");
        self.require(!uid.is_empty(), || {
            "node requested token with a pod binding without a uid".to_owned()
        })?;
        let pod = self.existing_pod(reference.str_at("name"))?;
        self.require(*pod.uid == *uid, || {
            format!("the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated")
        })?;
        let pod = pod.value();
        self.require(pod.str_at("spec.nodeName") == self.node, || {
            "node requested token bound to a pod scheduled on a different node".to_owned()
        })?;
        self.audience(request.list_at("spec.audiences"), &pod)
    }

    /// A node may ask for the audiences that its pod's volumes name, and for those it is allowed to by RBAC.
    fn audience(&self, audiences: &[Value], pod: &Value) -> Verdict {
        let audience = match audiences {
            [] => "",
            [one] => one.as_str().unwrap_or_default(),
            _ => return self.refuse("node may only request 0 or 1 audiences"),
        };
        if self.pod_names_audience(pod, audience) {
            return Ok(());
        }
        let user = &self.a.user;
        let question = Question::of_resource(
            user,
            "request-serviceaccounts-token-audience",
            "",
            audience,
            &self.a.namespace,
            &self.a.name,
        );
        let allowed = self.plugin.authorizers.authorize(&question).allowed();
        self.require(allowed, || format!("audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience", user.name))
    }

    fn pod_names_audience(&self, pod: &Value, audience: &str) -> bool {
        pod.list_at("spec.volumes").iter().any(|volume| {
            let projected = volume
                .list_at("projected.sources")
                .iter()
                .filter_map(|s| s.get("serviceAccountToken"));
            projected.into_iter().any(|t| t.str_at("audience") == audience)
                || self.driver_names_audience(pod, volume, audience)
        })
    }

    fn driver_names_audience(&self, pod: &Value, volume: &Value, audience: &str) -> bool {
        let objects = &self.plugin.objects;
        let inline = volume.str_at("csi.driver").to_owned();
        let claim = match (volume.get("persistentVolumeClaim"), volume.get("ephemeral")) {
            (Some(claim), _) => claim.str_at("claimName").to_owned(),
            (None, Some(_)) => format!("{}-{}", pod.name(), volume.str_at("name")),
            _ => String::new(),
        };
        let bound = || {
            let claim = objects
                .get("", "persistentvolumeclaims", pod.namespace(), &claim)?
                .value();
            let volume = objects
                .get("", "persistentvolumes", "", claim.str_at("spec.volumeName"))?
                .value();
            Some(volume.str_at("spec.csi.driver").to_owned())
        };
        let driver = if inline.is_empty() && !claim.is_empty() {
            bound().unwrap_or_default()
        } else {
            inline
        };
        let found = objects
            .get("storage.k8s.io", "csidrivers", "", &driver)
            .filter(|_| !driver.is_empty());
        found.is_some_and(|d| {
            d.value()
                .list_at("spec.tokenRequests")
                .iter()
                .any(|t| t.str_at("audience") == audience)
        })
    }

    fn lease(&self) -> Verdict {
        self.require(self.a.namespace == LEASE_NAMESPACE, || {
            format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace")
        })?;
        self.require(self.names_itself(), || {
            "can only access node lease with the same name as the requesting node".to_owned()
        })
    }

    fn csi_node(&self) -> Verdict {
        self.require(self.names_itself(), || {
            "can only access CSINode with the same name as the requesting node".to_owned()
        })
    }

    fn names_itself(&self) -> bool {
        let name = if self.a.operation == Operation::Create {
            self.object().name()
        } else {
            &self.a.name
        };
        name == self.node
    }

    fn resource_slice(&self) -> Verdict {
        let (verb, slice) = match self.a.operation {
            Operation::Create => ("create", self.object().clone()),
            Operation::Delete => ("delete", self.old()),
            _ => return Ok(()),
        };
        self.require(slice.str_at("spec.nodeName") == self.node, || {
            format!("can only {verb} ResourceSlice with the same NodeName as the requesting node")
        })
    }

    fn signing_request(&self) -> Verdict {
        let request = self.object();
        if !matches!(
            request.str_at("spec.signerName"),
            "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet"
        ) {
            return Ok(());
        }
        let subject = match parse_request(request) {
            Ok(subject) => subject,
            Err(why) => return self.refuse(format!("unable to parse csr: {why}")),
        };
        let wanted = format!("system:node:{}", self.node);
        self.require(subject.common_name == wanted, || {
            format!("can only create a node CSR with CN={wanted}")
        })
    }
}

/// Labels that differ and that a kubelet has no business with, sorted and joined.
fn forbidden_labels(new: &Value, old: &Value) -> String {
    let keys = |v: &Value| -> BTreeSet<String> {
        v.labels()
            .into_iter()
            .flat_map(|l| l.keys())
            .map(str::to_owned)
            .collect()
    };
    let all: BTreeSet<String> = keys(new).union(&keys(old)).cloned().collect();
    let bad: Vec<String> = all
        .into_iter()
        .filter(|key| new.label(key) != old.label(key) && is_forbidden_label(key))
        .collect();
    bad.join(", ")
}

fn is_forbidden_label(key: &str) -> bool {
    let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
    let within = |domain: &str| {
        namespace == domain
            || namespace
                .strip_suffix(domain)
                .is_some_and(|rest| rest.ends_with('.'))
    };
    if within(RESTRICTED_NAMESPACE) {
        return true;
    }
    let kubelets = KUBELET_LABELS.contains(&key) || KUBELET_LABEL_NAMESPACES.into_iter().any(within);
    (within("kubernetes.io") || within("k8s.io")) && !kubelets
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Cluster, attributes, cached, message, seams};
    use super::*;
    use crate::user::UserInfo;
    use serde_json::json;

    fn plugin() -> NodeRestriction {
        let cluster = Cluster::default()
            .with("v1", "Node", json!({"metadata": {"name": "n1", "uid": "u1"}}))
            .with("v1", "Pod", json!({"metadata": {"namespace": "ns", "name": "mine", "uid": "p1"}, "spec": {"nodeName": "n1", "containers": [], "volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "vault"}}]}}]}}))
            .with("v1", "Pod", json!({"metadata": {"namespace": "ns", "name": "theirs", "uid": "p2"}, "spec": {"nodeName": "n2", "containers": []}}));
        NodeRestriction::new(&seams(cluster))
    }

    fn as_node(mut a: Attributes) -> Attributes {
        a.user = Arc::new(UserInfo::new("system:node:n1", &["system:nodes"]));
        a
    }

    fn ask(a: Attributes) -> Verdict {
        plugin().admit(&mut as_node(a))
    }

    fn mirror(change: impl Fn(&mut serde_json::Value)) -> Attributes {
        let mut pod = json!({
            "metadata": {"annotations": {MIRROR_ANNOTATION: "x"}, "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u1", "controller": true}]},
            "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
        });
        change(&mut pod);
        attributes(Operation::Create, "", "pods", "ns", "m", Some(pod))
    }

    fn update(
        resource: &str,
        kind: &str,
        sub: &str,
        name: &str,
        old: serde_json::Value,
        new: serde_json::Value,
    ) -> Attributes {
        let mut stored = old;
        stored["apiVersion"] = "v1".into();
        stored["kind"] = kind.into();
        stored["metadata"]["name"] = name.into();
        let mut a = attributes(Operation::Update, "", resource, "", name, Some(new));
        a.old = Some(cached(&stored));
        a.subresource = sub.into();
        a
    }

    #[test]
    fn mirror_pods_must_be_the_nodes_own_and_refer_to_nothing() {
        assert!(ask(mirror(|_| {})).is_ok());
        let refused = |change: &dyn Fn(&mut serde_json::Value)| message(ask(mirror(change)));
        assert!(
            refused(&|p| p["metadata"]["annotations"] = json!({})).contains("can only create mirror pods")
        );
        assert!(refused(&|p| p["spec"]["nodeName"] = "n2".into()).contains("spec.nodeName set to itself"));
        assert!(
            refused(&|p| p["metadata"]["ownerReferences"][0]["uid"] = "no".into()).contains("UID mismatch")
        );
        assert!(
            refused(&|p| p["metadata"]["ownerReferences"] = json!([]))
                .contains("an owner reference set to itself")
        );
        assert!(
            refused(&|p| p["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] = true.into())
                .contains("blockOwnerDeletion")
        );
        assert!(
            refused(&|p| p["spec"]["volumes"] = json!([{"name": "s", "secret": {"secretName": "x"}}]))
                .ends_with("reference secrets")
        );
        // CVE-2025-4563
        assert!(
            refused(&|p| p["spec"]["resourceClaims"] = json!([{"name": "gpu", "resourceClaimName": "x"}]))
                .ends_with("reference resourceclaims")
        );
    }

    #[test]
    fn a_node_changes_its_own_node_within_bounds() {
        let change =
            |old: serde_json::Value, new: serde_json::Value| ask(update("nodes", "Node", "", "n1", old, new));
        let labels = |l: serde_json::Value| json!({"metadata": {"labels": l}});
        assert!(
            change(
                labels(json!({})),
                labels(json!({"kubernetes.io/os": "linux", "mine": "x", "node.kubernetes.io/y": "z"}))
            )
            .is_ok()
        );
        assert!(
            message(change(
                labels(json!({})),
                labels(json!({"node-role.kubernetes.io/master": ""}))
            ))
            .contains("is not allowed to modify labels: node-role.kubernetes.io/master")
        );
        assert!(
            change(
                labels(json!({})),
                labels(json!({"x.node-restriction.kubernetes.io/a": "b"}))
            )
            .is_err()
        );
        assert!(
            message(change(
                json!({}),
                json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}})
            ))
            .contains("modify taints")
        );
        let other = attributes(Operation::Create, "", "nodes", "", "n2", Some(json!({})));
        assert_eq!(
            message(ask(other)),
            r#"nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2""#
        );
    }

    #[test]
    fn a_node_cannot_give_itself_an_owner() {
        // CVE-2025-5187
        let owned = json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "y"}]}});
        assert!(
            message(ask(update("nodes", "Node", "", "n1", json!({}), owned)))
                .contains("is not allowed to modify ownerReferences")
        );
    }

    #[test]
    fn a_node_touches_its_own_pods_only() {
        let delete = |name: &str| ask(attributes(Operation::Delete, "", "pods", "ns", name, None));
        assert!(delete("mine").is_ok());
        assert!(message(delete("theirs")).contains("can only delete pods"));
        let status = |node: &str| {
            ask(update(
                "pods",
                "Pod",
                "status",
                "p",
                json!({"spec": {"nodeName": node, "containers": []}}),
                json!({"spec": {"nodeName": node, "containers": []}}),
            ))
        };
        assert!(status("n1").is_ok());
        assert!(status("n2").is_err());
        let relabel = update(
            "pods",
            "Pod",
            "status",
            "p",
            json!({"spec": {"nodeName": "n1", "containers": []}}),
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"nodeName": "n1"}}),
        );
        assert!(message(ask(relabel)).contains("cannot update labels"));
    }

    #[test]
    fn tokens_are_for_own_pods_and_named_audiences() {
        let token = |pod: &str, uid: &str, audiences: serde_json::Value| {
            let spec = json!({"spec": {"audiences": audiences, "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}}});
            let mut a = attributes(Operation::Create, "", "serviceaccounts", "ns", "sa", Some(spec));
            a.subresource = "token".into();
            ask(a)
        };
        assert!(token("mine", "p1", json!(["vault"])).is_ok());
        assert!(
            message(token("mine", "p1", json!(["other"])))
                .contains(r#"audience "other" not found in pod spec volume"#)
        );
        assert!(message(token("mine", "p0", json!(["vault"]))).contains("does not match the UID in record"));
        assert!(message(token("theirs", "p2", json!(["vault"]))).contains("scheduled on a different node"));
        assert!(token("mine", "p1", json!(["a", "b"])).is_err());
    }

    #[test]
    fn leases_are_the_nodes_own() {
        let lease = |namespace: &str, name: &str| {
            ask(attributes(
                Operation::Create,
                "coordination.k8s.io",
                "leases",
                namespace,
                name,
                Some(json!({})),
            ))
        };
        assert!(lease(LEASE_NAMESPACE, "n1").is_ok());
        assert!(lease(LEASE_NAMESPACE, "n2").is_err());
        assert!(lease("ns", "n1").is_err());
    }

    #[test]
    fn people_are_not_restricted() {
        let mut a = attributes(Operation::Create, "", "nodes", "", "n2", Some(json!({})));
        assert!(plugin().admit(&mut a).is_ok());
    }
}
