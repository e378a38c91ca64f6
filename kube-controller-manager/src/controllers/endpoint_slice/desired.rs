//! Which endpoints a service has, grouped by address family and ports. No IO.

use crate::meta::{is_deleted, label, name, namespace};
use crate::pod::{is_ready, is_terminal, node_name};
use client::informer::Store;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn address_type(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    fn has(self, address: &str) -> bool {
        address
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_ipv4() == (self == Family::V4))
    }
}

/// Endpoints that share a family and a list of ports, and so may share a slice.
pub struct Group {
    pub family: Family,
    pub ports: Vec<EndpointPort>,
    pub endpoints: Vec<Endpoint>,
}

pub struct Desired {
    /// At least one for each family of the service.
    pub groups: Vec<Group>,
    /// Pods left out because their node is not known.
    pub skipped: usize,
}

pub fn endpoints(service: &Service, pods: &[Arc<Pod>], nodes: &Store<Node>) -> Desired {
    let mut desired = Desired {
        groups: Vec::new(),
        skipped: 0,
    };
    for (position, family) in families(service).into_iter().enumerate() {
        let mut by_ports: BTreeMap<String, Group> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| may_serve(pod)) {
            let addresses: Vec<_> = addresses(pod)
                .filter(|a| family.has(a))
                .map(str::to_owned)
                .collect();
            if addresses.is_empty() {
                continue;
            }
            let node = nodes.get(node_name(pod));
            if node.is_none() && !node_name(pod).is_empty() && !publishes_not_ready(service) {
                desired.skipped += usize::from(position == 0);
                continue;
            }
            let ports = ports(service, pod);
            let group = by_ports.entry(ports_key(&ports)).or_insert_with(|| Group {
                family,
                ports,
                endpoints: Vec::new(),
            });
            group
                .endpoints
                .push(endpoint(service, pod, node.as_deref(), addresses));
        }
        if by_ports.is_empty() {
            by_ports.insert(
                String::new(),
                Group {
                    family,
                    ports: Vec::new(),
                    endpoints: Vec::new(),
                },
            );
        }
        desired.groups.extend(by_ports.into_values());
    }
    desired
}

fn families(service: &Service) -> Vec<Family> {
    let spec = service.spec.as_ref();
    let named: Vec<_> = spec
        .iter()
        .flat_map(|s| s.ip_families.iter().flatten())
        .map(|f| if f == "IPv6" { Family::V6 } else { Family::V4 })
        .collect();
    if !named.is_empty() {
        return named;
    }
    let is_v6 = spec
        .and_then(|s| s.cluster_ip.as_deref())
        .is_some_and(|ip| ip.contains(':'));
    vec![if is_v6 { Family::V6 } else { Family::V4 }]
}

pub fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses) == Some(true)
}

/// Terminating pods stay in, marked as such: what drains may still be served.
fn may_serve(pod: &Pod) -> bool {
    !is_terminal(pod) && addresses(pod).next().is_some()
}

pub fn addresses(pod: &Pod) -> impl Iterator<Item = &str> {
    let status = pod.status.as_ref();
    let many = status
        .and_then(|s| s.pod_ips.as_ref())
        .filter(|ips| !ips.is_empty());
    let one = status
        .and_then(|s| s.pod_ip.as_deref())
        .filter(|ip| many.is_none() && !ip.is_empty());
    many.into_iter().flatten().map(|ip| ip.ip.as_str()).chain(one)
}

/// What the pod's containers listen on for each port of the service; a port name that this pod does not have is left out.
pub fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let wanted = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    wanted
        .filter_map(|port| Some(endpoint_port(port, target_port(port, pod)?)))
        .collect()
}

fn endpoint_port(port: &ServicePort, number: i32) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(number),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
        app_protocol: port.app_protocol.clone(),
    }
}

fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        Some(IntOrString::String(wanted)) if !wanted.is_empty() => {
            let spec = pod.spec.as_ref()?;
            // A sidecar is an init container that stays.
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let named = spec
                .containers
                .iter()
                .chain(sidecars)
                .flat_map(|c| c.ports.iter().flatten());
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let mut matching = named.filter(|p| {
                p.name.as_deref() == Some(wanted) && p.protocol.as_deref().unwrap_or("TCP") == protocol
            });
            matching.next().map(|p| p.container_port)
        }
        Some(IntOrString::Int(number)) if *number != 0 => Some(*number),
        _ => Some(port.port),
    }
}

/// The same ports in another order are other ports: clients see the order.
pub fn ports_key(ports: &[EndpointPort]) -> String {
    let key = |p: &EndpointPort| {
        format!(
            "{:?}/{:?}/{:?}/{:?}",
            p.name.as_deref().unwrap_or(""),
            p.port,
            p.protocol,
            p.app_protocol
        )
    };
    ports.iter().map(key).collect::<Vec<_>>().join(",")
}

fn endpoint(service: &Service, pod: &Pod, node: Option<&Node>, addresses: Vec<String>) -> Endpoint {
    let (serving, terminating) = (is_ready(pod), is_deleted(&pod.metadata));
    let ready = publishes_not_ready(service) || (serving && !terminating);
    Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        node_name: Some(node_name(pod).to_owned()).filter(|n| !n.is_empty()),
        zone: node
            .and_then(|n| label(&n.metadata, "topology.kubernetes.io/zone"))
            .map(str::to_owned),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: Some(namespace(&pod.metadata).to_owned()),
            name: Some(name(&pod.metadata).to_owned()),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

/// A pod that names this service as its subdomain is found in DNS by its hostname.
pub fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let ours = spec.subdomain.as_deref() == service.metadata.name.as_deref();
    spec.hostname.clone().filter(|h| ours && !h.is_empty())
}

/// An update of a pod that no service would tell of.
pub fn tells_the_same(old: &Pod, new: &Pod) -> bool {
    let told = |pod: &Pod| {
        let addresses: Vec<_> = addresses(pod).map(str::to_owned).collect();
        (
            addresses,
            is_ready(pod),
            is_terminal(pod),
            is_deleted(&pod.metadata),
            node_name(pod).to_owned(),
            pod.metadata.labels.clone(),
            pod.metadata.uid.clone(),
        )
    };
    let ports_and_host = |pod: &Pod| {
        let ports: Vec<_> = pod
            .spec
            .iter()
            .flat_map(|s| s.containers.iter().map(|c| c.ports.clone()))
            .collect();
        (
            ports,
            pod.spec
                .as_ref()
                .map(|s| (s.hostname.clone(), s.subdomain.clone())),
        )
    };
    told(old) == told(new) && ports_and_host(old) == ports_and_host(new)
}
