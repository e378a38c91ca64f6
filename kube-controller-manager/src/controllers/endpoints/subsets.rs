//! Addresses grouped by the ports that they serve. No IO.

use crate::controllers::endpoint_slice::{addresses, hostname, ports, publishes_not_ready};
use crate::meta::{is_deleted, name, namespace};
use crate::pod::{is_ready, is_terminal, node_name};
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Upstream's limit for one object: ready addresses are kept first.
const MAX_ADDRESSES: usize = 1000;

#[derive(Default)]
struct Addresses {
    ready: Vec<EndpointAddress>,
    not_ready: Vec<EndpointAddress>,
}

/// The subsets, and whether addresses were left out.
pub(super) fn of(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let is_headless = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None");
    let has_ports = service
        .spec
        .as_ref()
        .and_then(|s| s.ports.as_ref())
        .is_some_and(|p| !p.is_empty());
    let mut groups: BTreeMap<Vec<Port>, Addresses> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| belongs(service, pod)) {
        let Some(address) = address(service, pod) else {
            continue;
        };
        let mut key: Vec<Port> = ports(service, pod).into_iter().map(Port::from).collect();
        key.sort();
        if key.is_empty() && (has_ports || !is_headless) {
            continue;
        }
        let group = groups.entry(key).or_default();
        let ready = publishes_not_ready(service) || is_ready(pod);
        if ready {
            group.ready.push(address)
        } else {
            group.not_ready.push(address)
        }
    }
    let truncated = truncate(&mut groups);
    (groups.into_iter().map(subset).collect(), truncated)
}

/// A port as it sorts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    name: String,
    protocol: String,
    port: i32,
    app_protocol: Option<String>,
}

impl From<k8s_openapi::api::discovery::v1::EndpointPort> for Port {
    fn from(port: k8s_openapi::api::discovery::v1::EndpointPort) -> Self {
        Port {
            name: port.name.unwrap_or_default(),
            protocol: port.protocol.unwrap_or_default(),
            port: port.port.unwrap_or(0),
            app_protocol: port.app_protocol,
        }
    }
}

/// Unlike in slices, a pod that is leaving is not told of, unless unready ones are wanted.
fn belongs(service: &Service, pod: &Pod) -> bool {
    !is_terminal(pod) && (publishes_not_ready(service) || !is_deleted(&pod.metadata))
}

/// Of the service's first family: Endpoints know one.
fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    let spec = service.spec.as_ref();
    let family = spec
        .and_then(|s| s.ip_families.as_ref())
        .and_then(|f| f.first())
        .map(String::as_str);
    let is_v6 = family.map_or_else(
        || {
            spec.and_then(|s| s.cluster_ip.as_deref())
                .is_some_and(|ip| ip.contains(':'))
        },
        |f| f == "IPv6",
    );
    let ip = addresses(pod).find(|ip| ip.contains(':') == is_v6)?;
    Some(EndpointAddress {
        ip: ip.to_owned(),
        hostname: hostname(service, pod),
        node_name: Some(node_name(pod).to_owned()).filter(|n| !n.is_empty()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: Some(namespace(&pod.metadata).to_owned()),
            name: Some(name(&pod.metadata).to_owned()),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
    })
}

fn truncate(groups: &mut BTreeMap<Vec<Port>, Addresses>) -> bool {
    let (mut room, mut truncated) = (MAX_ADDRESSES, false);
    let mut cut = |list: &mut Vec<EndpointAddress>| {
        truncated |= list.len() > room;
        list.truncate(room);
        room -= list.len();
    };
    groups.values_mut().for_each(|group| cut(&mut group.ready));
    groups.values_mut().for_each(|group| cut(&mut group.not_ready));
    truncated
}

fn subset((ports, mut addresses): (Vec<Port>, Addresses)) -> EndpointSubset {
    let by_ip = |list: &mut Vec<EndpointAddress>| list.sort_by(|a, b| a.ip.cmp(&b.ip));
    by_ip(&mut addresses.ready);
    by_ip(&mut addresses.not_ready);
    let unless_empty = |list: Vec<EndpointAddress>| Some(list).filter(|l| !l.is_empty());
    let port = |p: Port| EndpointPort {
        name: Some(p.name).filter(|n| !n.is_empty()),
        port: p.port,
        protocol: Some(p.protocol),
        app_protocol: p.app_protocol,
    };
    EndpointSubset {
        addresses: unless_empty(addresses.ready),
        not_ready_addresses: unless_empty(addresses.not_ready),
        ports: Some(ports.into_iter().map(port).collect::<Vec<_>>()).filter(|p| !p.is_empty()),
    }
}

/// Nothing that a client reads differs.
pub(super) fn same(old: &Endpoints, new: &Endpoints) -> bool {
    let subsets = |e: &Endpoints| e.subsets.clone().unwrap_or_default();
    subsets(old) == subsets(new)
        && old.metadata.labels == new.metadata.labels
        && old.metadata.annotations.clone().unwrap_or_default()
            == new.metadata.annotations.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service() -> Service {
        serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "10.0.0.1", "selector": {"a": "b"}, "ports": [{"port": 80, "targetPort": 8080}]}})).unwrap()
    }

    fn pod(number: usize, ready: bool) -> Arc<Pod> {
        let status = if ready { "True" } else { "False" };
        Arc::new(serde_json::from_value(json!({"metadata": {"name": format!("p{number}")}, "spec": {"containers": []},
            "status": {"podIP": format!("10.1.{}.{}", number / 250, number % 250), "conditions": [{"type": "Ready", "status": status}]}})).unwrap())
    }

    #[test]
    fn ready_and_unready_addresses_share_a_subset() {
        let (subsets, truncated) = of(&service(), &[pod(1, true), pod(2, false)]);
        assert_eq!((subsets.len(), truncated), (1, false));
        assert_eq!(subsets[0].addresses.as_ref().unwrap()[0].ip, "10.1.0.1");
        assert_eq!(subsets[0].not_ready_addresses.as_ref().unwrap()[0].ip, "10.1.0.2");
        assert_eq!(subsets[0].ports.as_ref().unwrap()[0].port, 8080);
    }

    #[test]
    fn more_than_a_thousand_addresses_are_cut_and_the_ready_ones_stay() {
        let pods: Vec<_> = (0..1200).map(|n| pod(n, n >= 500)).collect();
        let (subsets, truncated) = of(&service(), &pods);
        assert!(truncated);
        assert_eq!(
            (
                subsets[0].addresses.as_ref().unwrap().len(),
                subsets[0].not_ready_addresses.as_ref().unwrap().len()
            ),
            (700, 300)
        );
    }

    #[test]
    fn a_service_without_pods_has_no_subset() {
        assert!(of(&service(), &[]).0.is_empty());
    }
}
