//! Which strategy a resource has. One line for each kind that needs its own.

use std::sync::Arc;

use super::core::services::ServiceStrategy;
use super::core::services::allocator::{Addresses, NodePorts};
use super::core::{
    configmaps, events, namespaces, nodes, persistentvolumes, pods, replicationcontrollers, secrets,
};
use super::strategy::{DefaultStrategy, NameRule, Strategy};
use super::{apps, batch, certificates, rbac};

/// What strategies share with the rest of the server.
#[derive(Clone)]
pub struct Shared {
    /// `--allow-privileged`.
    pub allow_privileged: bool,
    pub addresses: Arc<Addresses>,
    pub ports: Arc<NodePorts>,
}

pub fn of(group: &str, resource: &str, shared: &Shared) -> Box<dyn Strategy> {
    let allow_privileged = shared.allow_privileged;
    match (group, resource) {
        ("", "pods") => Box::new(pods::PodStrategy { allow_privileged }),
        ("", "services") => Box::new(ServiceStrategy {
            addresses: shared.addresses.clone(),
            ports: shared.ports.clone(),
        }),
        ("", "namespaces") => Box::new(namespaces::NamespaceStrategy),
        ("", "nodes") => Box::new(nodes::NodeStrategy),
        ("", "configmaps") => Box::new(configmaps::ConfigMapStrategy),
        ("", "secrets") => Box::new(secrets::SecretStrategy),
        ("", "events") => Box::new(events::EventStrategy),
        ("", "persistentvolumes") => Box::new(persistentvolumes::VolumeStrategy),
        ("", "persistentvolumeclaims") => Box::new(persistentvolumes::ClaimStrategy),
        ("", "replicationcontrollers") => {
            Box::new(replicationcontrollers::ReplicationControllerStrategy { allow_privileged })
        }
        ("apps", "statefulsets") => Box::new(apps::WorkloadStrategy {
            allow_privileged,
            stateful: true,
        }),
        ("apps", "deployments" | "replicasets" | "daemonsets") => Box::new(apps::WorkloadStrategy {
            allow_privileged,
            stateful: false,
        }),
        ("batch", "jobs") => Box::new(batch::JobStrategy { allow_privileged }),
        ("batch", "cronjobs") => Box::new(batch::CronJobStrategy { allow_privileged }),
        ("certificates.k8s.io", "certificatesigningrequests") => Box::new(certificates::CsrStrategy),
        ("rbac.authorization.k8s.io", "roles") => Box::new(rbac::RoleStrategy { namespaced: true }),
        ("rbac.authorization.k8s.io", "clusterroles") => Box::new(rbac::RoleStrategy { namespaced: false }),
        ("rbac.authorization.k8s.io", _) => Box::new(rbac::BindingStrategy),
        _ => Box::new(DefaultStrategy {
            names: NameRule::Subdomain,
        }),
    }
}
