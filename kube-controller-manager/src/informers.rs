//! One informer for each kind, shared by all controllers and started by the first that asks.
//!
//! Pods are most of a cluster's bytes and no controller reads what its containers run: that is cut before it is stored.
//! Whoever updates a cached object must patch or read it afresh.

use crate::meta::{controlled_by_kind, controller_of};
use client::informer::{Informer, Store};
use client::{Client, ListOptions, Object};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, Endpoints, Namespace, Node, PersistentVolumeClaim, Pod, ReplicationController,
    Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Objects by the uid of their controller.
pub const OWNER: &str = "owner";
/// Pods and other dependents without a controller, by namespace.
pub const ORPHANS: &str = "orphans";
pub const NAMESPACE: &str = "namespace";
/// Pods by the node they are bound to.
pub const NODE: &str = "node";
/// EndpointSlices by `namespace/service`.
pub const SERVICE: &str = "service";

pub struct Informers {
    pub pods: Informer<Pod>,
    pub nodes: Informer<Node>,
    pub node_leases: Informer<Lease>,
    pub namespaces: Informer<Namespace>,
    pub services: Informer<Service>,
    pub endpoints: Informer<Endpoints>,
    pub endpoint_slices: Informer<EndpointSlice>,
    pub service_accounts: Informer<ServiceAccount>,
    pub root_ca_config_maps: Informer<ConfigMap>,
    pub replica_sets: Informer<ReplicaSet>,
    pub replication_controllers: Informer<ReplicationController>,
    pub deployments: Informer<Deployment>,
    pub daemon_sets: Informer<DaemonSet>,
    pub stateful_sets: Informer<StatefulSet>,
    pub persistent_volume_claims: Informer<PersistentVolumeClaim>,
    pub controller_revisions: Informer<ControllerRevision>,
    pub jobs: Informer<Job>,
    pub cron_jobs: Informer<CronJob>,
    pub cluster_roles: Informer<ClusterRole>,
    pub signing_requests: Informer<CertificateSigningRequest>,
}

/// The config map that every namespace gets the cluster's CA in.
pub const ROOT_CA_CONFIG_MAP: &str = "kube-root-ca.crt";

impl Informers {
    pub fn new(client: &Client) -> Self {
        let root_ca = ListOptions::fields(format!("metadata.name={ROOT_CA_CONFIG_MAP}"));
        Informers {
            pods: dependents::<Pod>(client)
                .index(NODE, |pod| node_of(pod).into_iter().collect())
                .index(NAMESPACE, in_namespace)
                .transform(cut_pod),
            nodes: informer(client),
            node_leases: Informer::new(client.namespaced("kube-node-lease"), ListOptions::default()),
            namespaces: informer(client),
            services: informer(client),
            endpoints: informer(client),
            endpoint_slices: informer::<EndpointSlice>(client)
                .index(SERVICE, |slice| service_of(slice).into_iter().collect()),
            service_accounts: informer(client),
            root_ca_config_maps: Informer::new(client.all(), root_ca),
            replica_sets: dependents(client).index(NAMESPACE, in_namespace),
            replication_controllers: informer(client).index(NAMESPACE, in_namespace),
            deployments: informer(client).index(NAMESPACE, in_namespace),
            daemon_sets: informer(client).index(NAMESPACE, in_namespace),
            stateful_sets: informer(client).index(NAMESPACE, in_namespace),
            persistent_volume_claims: informer(client),
            controller_revisions: dependents(client),
            jobs: dependents(client).index(NAMESPACE, in_namespace),
            cron_jobs: informer(client),
            cluster_roles: informer(client),
            signing_requests: informer(client),
        }
    }
}

fn informer<T: Object>(client: &Client) -> Informer<T> {
    Informer::new(client.all(), ListOptions::default())
}

/// A kind whose objects have controllers.
fn dependents<T: Object>(client: &Client) -> Informer<T> {
    informer(client)
        .index(OWNER, |object: &T| owner(object.metadata()).into_iter().collect())
        .index(ORPHANS, |object: &T| {
            orphanage(object.metadata()).into_iter().collect()
        })
}

fn owner(meta: &ObjectMeta) -> Option<String> {
    controller_of(meta).map(|reference| reference.uid.clone())
}

fn orphanage(meta: &ObjectMeta) -> Option<String> {
    if controller_of(meta).is_none() {
        meta.namespace.clone()
    } else {
        None
    }
}

fn in_namespace<T: Object>(object: &T) -> Vec<String> {
    object.metadata().namespace.iter().cloned().collect()
}

fn node_of(pod: &Pod) -> Option<String> {
    pod.spec
        .as_ref()?
        .node_name
        .clone()
        .filter(|name| !name.is_empty())
}

fn service_of(slice: &EndpointSlice) -> Option<String> {
    let name = slice
        .metadata
        .labels
        .as_ref()?
        .get("kubernetes.io/service-name")?;
    Some(format!(
        "{}/{name}",
        slice.metadata.namespace.as_deref().unwrap_or("")
    ))
}

/// What is controlled by `uid`, and what nobody controls in `namespace`: the candidates for adoption.
pub fn claimable<T: Object>(store: &Store<T>, namespace: &str, uid: &str) -> Vec<std::sync::Arc<T>> {
    let mut found = store.by_index(OWNER, uid);
    found.extend(store.by_index(ORPHANS, namespace));
    found
}

/// The annotations of pods that controllers read.
const POD_ANNOTATIONS: &[&str] = &[
    "controller.kubernetes.io/pod-deletion-cost",
    "kubernetes.io/config.mirror",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/job-index-failure-count",
    "batch.kubernetes.io/job-index-ignored-failure-count",
];

fn cut_pod(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    if let Some(annotations) = &mut pod.metadata.annotations {
        annotations.retain(|name, _| POD_ANNOTATIONS.contains(&name.as_str()));
    }
    let Some(spec) = &mut pod.spec else { return };
    // A daemon pod that waits to be bound says only there which node it is for.
    let waits = spec.node_name.is_none() && controlled_by_kind::<DaemonSet>(&pod.metadata).is_some();
    spec.affinity = spec.affinity.take().filter(|_| waits);
    spec.topology_spread_constraints = None;
    spec.containers.iter_mut().for_each(cut_container);
    spec.init_containers.iter_mut().flatten().for_each(cut_container);
    for volume in spec.volumes.iter_mut().flatten() {
        let kept = (
            std::mem::take(&mut volume.name),
            volume.persistent_volume_claim.take(),
        );
        *volume = Default::default();
        (volume.name, volume.persistent_volume_claim) = kept;
    }
}

/// Ports stay, because services name them.
fn cut_container(container: &mut Container) {
    *container = Container {
        name: std::mem::take(&mut container.name),
        ports: container.ports.take(),
        restart_policy: container.restart_policy.take(),
        ..Container::default()
    };
}
