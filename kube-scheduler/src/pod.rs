//! A pod as the scheduler reads it: everything that a plugin asks for, computed once.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Affinity, Container, ContainerStatus, Pod, PodAffinityTerm, PodSpec, PodStatus, Toleration,
    WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::resources::{self, Resources};
use crate::selector::{Labels, Selector};

/// A port that a pod takes on its node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    pub ip: Box<str>,
    pub protocol: Box<str>,
    pub port: i32,
}

const ANY_ADDRESS: &str = "0.0.0.0";

impl HostPort {
    /// Same port and protocol, and the addresses meet.
    pub fn conflicts(&self, other: &Self) -> bool {
        let addresses_meet = self.ip == other.ip || &*self.ip == ANY_ADDRESS || &*other.ip == ANY_ADDRESS;
        self.port == other.port && self.protocol == other.protocol && addresses_meet
    }
}

/// One inter-pod term: pods in these namespaces with these labels, counted by this node label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AffinityTerm {
    pub namespaces: BTreeSet<Arc<str>>,
    pub namespace_selector: Selector,
    pub selector: Selector,
    pub topology_key: Arc<str>,
}

impl AffinityTerm {
    fn new(own_namespace: &Arc<str>, term: &PodAffinityTerm) -> Self {
        let mut namespaces: BTreeSet<Arc<str>> = term
            .namespaces
            .iter()
            .flatten()
            .map(|n| Arc::from(n.as_str()))
            .collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(Arc::clone(own_namespace));
        }
        Self {
            namespaces,
            namespace_selector: Selector::new(term.namespace_selector.as_ref()),
            selector: Selector::new(term.label_selector.as_ref()),
            topology_key: Arc::from(term.topology_key.as_str()),
        }
    }

    /// `namespace_labels` are those of the pod's namespace.
    pub fn matches(&self, pod: &PodInfo, namespace_labels: Option<&Labels>) -> bool {
        let named = self.namespaces.contains(&pod.namespace);
        let selected = || {
            self.namespace_selector
                .matches(namespace_labels.unwrap_or(&Labels::new()))
        };
        (named || selected()) && self.selector.matches(pod.labels())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WeightedTerm {
    pub weight: i32,
    pub term: AffinityTerm,
}

/// The inter-pod terms of one pod. Most pods have none and share one empty value.
#[derive(Debug, Default)]
pub struct PodTerms {
    pub required: Box<[AffinityTerm]>,
    pub required_anti: Box<[AffinityTerm]>,
    pub preferred: Box<[WeightedTerm]>,
    pub preferred_anti: Box<[WeightedTerm]>,
}

impl PodTerms {
    fn new(namespace: &Arc<str>, affinity: &Affinity) -> Self {
        let term = |t: &PodAffinityTerm| AffinityTerm::new(namespace, t);
        let weighted = |t: &WeightedPodAffinityTerm| WeightedTerm {
            weight: t.weight,
            term: AffinityTerm::new(namespace, &t.pod_affinity_term),
        };
        let mut terms = Self::default();
        if let Some(pod) = &affinity.pod_affinity {
            let required = pod
                .required_during_scheduling_ignored_during_execution
                .iter()
                .flatten();
            terms.required = required.map(term).collect();
            let preferred = pod
                .preferred_during_scheduling_ignored_during_execution
                .iter()
                .flatten();
            terms.preferred = preferred.map(weighted).collect();
        }
        if let Some(anti) = &affinity.pod_anti_affinity {
            let required = anti
                .required_during_scheduling_ignored_during_execution
                .iter()
                .flatten();
            terms.required_anti = required.map(term).collect();
            let preferred = anti
                .preferred_during_scheduling_ignored_during_execution
                .iter()
                .flatten();
            terms.preferred_anti = preferred.map(weighted).collect();
        }
        terms
    }

    pub fn is_empty(&self) -> bool {
        self.required.is_empty()
            && self.required_anti.is_empty()
            && self.preferred.is_empty()
            && self.preferred_anti.is_empty()
    }
}

#[derive(Debug)]
pub struct PodInfo {
    pub uid: Arc<str>,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub priority: i32,
    pub requests: Resources,
    pub non_zero_cpu: i64,
    pub non_zero_memory: i64,
    pub host_ports: Box<[HostPort]>,
    pub terms: PodTerms,
    /// Equal for pods that every plugin treats alike.
    pub signature: u64,
    pub object: Arc<Pod>,
}

impl PodInfo {
    pub fn new(object: Arc<Pod>) -> Self {
        let meta = &object.metadata;
        let namespace: Arc<str> = meta.namespace.as_deref().unwrap_or_default().into();
        let name: Arc<str> = meta.name.as_deref().unwrap_or_default().into();
        let spec = object.spec.as_ref();
        let affinity = spec.and_then(|s| s.affinity.as_ref());
        let (non_zero_cpu, non_zero_memory) = resources::pod_non_zero_requests(&object);
        Self {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            terms: affinity.map(|a| PodTerms::new(&namespace, a)).unwrap_or_default(),
            namespace,
            name,
            priority: spec.and_then(|s| s.priority).unwrap_or_default(),
            requests: resources::pod_requests(&object),
            non_zero_cpu,
            non_zero_memory,
            host_ports: spec.map(host_ports).unwrap_or_default(),
            // Only pods that still look for a node are compared.
            signature: if is_assigned(&object) {
                0
            } else {
                signature(&object)
            },
            object,
        }
    }

    /// `namespace/name`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    pub fn labels(&self) -> &Labels {
        static NONE: Labels = Labels::new();
        self.object.metadata.labels.as_ref().unwrap_or(&NONE)
    }

    pub fn spec(&self) -> Option<&PodSpec> {
        self.object.spec.as_ref()
    }

    pub fn status(&self) -> Option<&PodStatus> {
        self.object.status.as_ref()
    }

    pub fn tolerations(&self) -> &[Toleration] {
        self.spec()
            .and_then(|s| s.tolerations.as_deref())
            .unwrap_or_default()
    }

    pub fn node_name(&self) -> &str {
        self.spec()
            .and_then(|s| s.node_name.as_deref())
            .unwrap_or_default()
    }

    pub fn scheduler_name(&self) -> &str {
        self.spec()
            .and_then(|s| s.scheduler_name.as_deref())
            .unwrap_or("default-scheduler")
    }

    pub fn nominated_node(&self) -> &str {
        self.status()
            .and_then(|s| s.nominated_node_name.as_deref())
            .unwrap_or_default()
    }

    pub fn is_terminating(&self) -> bool {
        self.object.metadata.deletion_timestamp.is_some()
    }

    pub fn start_time(&self) -> Option<&Time> {
        self.status().and_then(|s| s.start_time.as_ref())
    }
}

/// Succeeded and Failed pods hold nothing on their node.
pub fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

pub fn is_assigned(pod: &Pod) -> bool {
    pod.spec
        .as_ref()
        .and_then(|s| s.node_name.as_deref())
        .is_some_and(|n| !n.is_empty())
}

/// Drops what no plugin reads, before the pod is kept: most of a pod's bytes are environment, probes and mounts.
/// It also makes replicas comparable, whose token volumes have random names.
pub fn slim(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    pod.metadata.annotations = None;
    pod.metadata.finalizers = None;
    if let Some(spec) = &mut pod.spec {
        slim_spec(spec);
    }
    if let Some(status) = &mut pod.status {
        slim_status(status);
    }
}

fn slim_spec(spec: &mut PodSpec) {
    if let Some(volumes) = &mut spec.volumes {
        volumes.retain(|v| v.persistent_volume_claim.is_some() || v.ephemeral.is_some() || v.image.is_some());
    }
    spec.ephemeral_containers = None;
    spec.security_context = None;
    spec.dns_config = None;
    spec.host_aliases = None;
    spec.image_pull_secrets = None;
    for container in spec
        .containers
        .iter_mut()
        .chain(spec.init_containers.iter_mut().flatten())
    {
        *container = Container {
            name: std::mem::take(&mut container.name),
            image: container.image.take(),
            ports: container.ports.take(),
            resources: container.resources.take(),
            restart_policy: container.restart_policy.take(),
            ..Container::default()
        };
    }
}

fn slim_status(status: &mut PodStatus) {
    status.ephemeral_container_statuses = None;
    status.pod_ips = None;
    for list in [
        &mut status.container_statuses,
        &mut status.init_container_statuses,
    ] {
        for container in list.iter_mut().flatten() {
            *container = ContainerStatus {
                name: std::mem::take(&mut container.name),
                resources: container.resources.take(),
                allocated_resources: container.allocated_resources.take(),
                ..ContainerStatus::default()
            };
        }
    }
}

fn host_ports(spec: &PodSpec) -> Box<[HostPort]> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| c.ports.iter().flatten());
    let taken = ports.filter_map(|p| {
        let port = p.host_port.filter(|port| *port > 0)?;
        let or = |value: &Option<String>, default: &str| -> Box<str> {
            value
                .as_deref()
                .filter(|v| !v.is_empty())
                .unwrap_or(default)
                .into()
        };
        Some(HostPort {
            ip: or(&p.host_ip, ANY_ADDRESS),
            protocol: or(&p.protocol, "TCP"),
            port,
        })
    });
    taken.collect()
}

/// A hash over namespace, labels, spec, owner and nomination: what filters and scores read.
fn signature(pod: &Pod) -> u64 {
    let mut hasher = DefaultHasher::new();
    pod.metadata.namespace.hash(&mut hasher);
    pod.metadata.labels.hash(&mut hasher);
    pod.status
        .as_ref()
        .and_then(|s| s.nominated_node_name.as_ref())
        .hash(&mut hasher);
    let owners = pod.metadata.owner_references.iter().flatten();
    owners.for_each(|o| o.uid.hash(&mut hasher));
    // Debug prints every field of the spec in a fixed order, which is all that a hash needs.
    HashWriter(&mut hasher).write_debug(&pod.spec);
    hasher.finish()
}

struct HashWriter<'a>(&'a mut DefaultHasher);

impl HashWriter<'_> {
    fn write_debug(&mut self, value: &impl std::fmt::Debug) {
        // Writing into a hasher cannot fail.
        let _ = std::fmt::write(self, format_args!("{value:?}"));
    }
}

impl std::fmt::Write for HashWriter<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn port(ip: &str, protocol: &str, port: i32) -> HostPort {
        HostPort {
            ip: ip.into(),
            protocol: protocol.into(),
            port,
        }
    }

    #[test]
    fn host_ports_conflict_when_their_addresses_meet() {
        let tcp = port("127.0.0.1", "TCP", 80);
        assert!(tcp.conflicts(&port("0.0.0.0", "TCP", 80)));
        assert!(port("0.0.0.0", "TCP", 80).conflicts(&tcp));
        assert!(!tcp.conflicts(&port("127.0.0.2", "TCP", 80)));
        assert!(!tcp.conflicts(&port("127.0.0.1", "UDP", 80)));
        assert!(!tcp.conflicts(&port("127.0.0.1", "TCP", 81)));
    }

    #[test]
    fn a_term_without_namespaces_means_the_pods_own() {
        let info = PodInfo::new(Arc::new(
            pod("a")
                .namespace("x")
                .label("app", "web")
                .anti_affinity("zone", &[("app", "web")])
                .build(),
        ));
        let term = &info.terms.required_anti[0];
        let same = PodInfo::new(Arc::new(pod("b").namespace("x").label("app", "web").build()));
        let other = PodInfo::new(Arc::new(pod("b").namespace("y").label("app", "web").build()));
        assert!(term.matches(&same, None));
        assert!(!term.matches(&other, None));
    }

    #[test]
    fn replicas_share_a_signature_and_different_pods_do_not() {
        let of = |p: Pod| PodInfo::new(Arc::new(p)).signature;
        assert_eq!(
            of(pod("a").container("1", "1Gi").build()),
            of(pod("b").container("1", "1Gi").build())
        );
        assert_ne!(
            of(pod("a").container("1", "1Gi").build()),
            of(pod("a").container("2", "1Gi").build())
        );
        assert_ne!(
            of(pod("a").label("x", "1").build()),
            of(pod("a").label("x", "2").build())
        );
    }
}
