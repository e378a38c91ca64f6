//! Keeps the RBAC index and the node graph in step with the stores.

use std::sync::Arc;

use apimachinery::value::Value;

use super::escalation::rules_of;
use super::node::graph::{Graph, Kind, Vertex};
use super::node::populate;
use super::rbac::{Binding, Metadata, Rbac, Role, RoleRef, Subject};
use crate::registry::Registry;
use crate::storage::header::Fields;
use crate::storage::object::CachedObject;
use crate::storage::watch_cache::{EventKind, WatchEvent};

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// Observers get what is stored first, then every change, before any reader sees it.
pub fn subscribe(registry: &Registry, rbac: &Rbac, graph: &Graph) {
    for resource in ["roles", "clusterroles"] {
        let rbac = rbac.clone();
        observe(registry, RBAC_GROUP, resource, move |event| {
            role_event(&rbac, event)
        });
    }
    for resource in ["rolebindings", "clusterrolebindings"] {
        let rbac = rbac.clone();
        observe(registry, RBAC_GROUP, resource, move |event| {
            binding_event(&rbac, event)
        });
    }
    let pods = graph.clone();
    observe(registry, "", "pods", move |event| pod_event(&pods, event));
    let volumes = graph.clone();
    observe(registry, "", "persistentvolumes", move |event| {
        volume_event(&volumes, event)
    });
    for (group, resource, kind) in [
        ("storage.k8s.io", "volumeattachments", Kind::Attachment),
        ("resource.k8s.io", "resourceslices", Kind::ResourceSlice),
        (
            "certificates.k8s.io",
            "podcertificaterequests",
            Kind::PodCertificateRequest,
        ),
    ] {
        let graph = graph.clone();
        observe(registry, group, resource, move |event| {
            node_object_event(&graph, kind, event)
        });
    }
}

/// Resources that this server does not serve have nothing to observe.
fn observe(
    registry: &Registry,
    group: &str,
    resource: &str,
    observer: impl Fn(&WatchEvent) + Send + Sync + 'static,
) {
    if let Some(store) = registry.store(group, resource) {
        store.observe(observer);
    }
}

fn deleted(event: &WatchEvent) -> bool {
    event.kind == EventKind::Deleted
}

fn metadata(object: &CachedObject) -> Metadata {
    Metadata {
        name: object.name.to_string(),
        namespace: object.namespace.to_string(),
    }
}

fn role_event(rbac: &Rbac, event: &WatchEvent) {
    let object = &event.object;
    if deleted(event) {
        return rbac.remove_role(&object.namespace, &object.name);
    }
    rbac.set_role(Role {
        metadata: metadata(object),
        rules: rules_of(&object.value()),
    });
}

fn binding_event(rbac: &Rbac, event: &WatchEvent) {
    let object = &event.object;
    if deleted(event) {
        return rbac.remove_binding(&object.namespace, &object.name);
    }
    let value = object.value();
    rbac.set_binding(Binding {
        metadata: metadata(object),
        subjects: value.list_at("subjects").iter().map(subject).collect(),
        role_ref: role_ref(&value),
    });
}

fn subject(value: &Value) -> Subject {
    Subject {
        kind: value.str_at("kind").to_owned(),
        name: value.str_at("name").to_owned(),
        namespace: value.str_at("namespace").to_owned(),
    }
}

fn role_ref(value: &Value) -> RoleRef {
    RoleRef {
        kind: value.str_at("roleRef.kind").to_owned(),
        name: value.str_at("roleRef.name").to_owned(),
    }
}

/// Most pod events are status updates of a pod that is known: they are skipped without decoding it.
fn pod_event(graph: &Graph, event: &WatchEvent) {
    let pod = &event.object;
    let vertex = Vertex::new(Kind::Pod, &pod.namespace, &pod.name);
    if deleted(event) {
        return graph.remove(&vertex);
    }
    if pod.field("spec.nodeName").is_some_and(str::is_empty)
        || event
            .previous
            .as_ref()
            .is_some_and(|old| grants_the_same(old, pod))
    {
        return;
    }
    graph.set(vertex, populate::of_pod(&pod.value()));
}

/// The same pod with the same spec bytes, and no claim that its status names.
fn grants_the_same(old: &Arc<CachedObject>, new: &Arc<CachedObject>) -> bool {
    const SPEC: u32 = 2;
    let parts = old.protobuf().zip(new.protobuf());
    old.uid == new.uid
        && parts.is_some_and(|(old, new)| part(old, SPEC) == part(new, SPEC) && !names_claims(new))
}

/// Status fields `resourceClaimStatuses` and `extendedResourceClaimStatus`.
fn names_claims(pod: &[u8]) -> bool {
    const STATUS: u32 = 3;
    part(pod, STATUS).is_some_and(|status| part(status, 15).is_some() || part(status, 18).is_some())
}

fn part(message: &[u8], tag: u32) -> Option<&[u8]> {
    Fields(message)
        .filter_map(Result::ok)
        .find(|field| field.tag == tag)?
        .bytes()
        .ok()
}

fn volume_event(graph: &Graph, event: &WatchEvent) {
    if deleted(event) {
        return graph.remove_volume(&event.object.name);
    }
    let (claim, secrets) = populate::of_volume(&event.object.value());
    graph.set_volume(&event.object.name, claim, secrets);
}

fn node_object_event(graph: &Graph, kind: Kind, event: &WatchEvent) {
    let object = &event.object;
    let vertex = Vertex::new(kind, &object.namespace, &object.name);
    if deleted(event) {
        return graph.remove(&vertex);
    }
    graph.set(vertex, populate::of_node_object(&object.value()));
}
