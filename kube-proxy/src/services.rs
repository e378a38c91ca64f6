//! From API objects to Service ports: which Services are proxied, which endpoints may be used.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort as ApiServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointSlice};

use crate::nft::Family;
use crate::options::parse_cidr;
use crate::ruleset::{Endpoint, Protocol, ServicePort};

pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Somebody else proxies a Service with this label.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
const DEFAULT_AFFINITY_SECONDS: i32 = 10_800;

/// The ports of a Service in one family, by port name. Empty for Services that are not proxied.
pub fn service_ports<'a>(
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
    node_name: &str,
    family: Family,
) -> Vec<(String, ServicePort)> {
    let Some(spec) = service.spec.as_ref().filter(|spec| is_proxied(service, spec)) else {
        return Vec::new();
    };
    let Some(cluster_ip) = cluster_ip(spec, family) else {
        return Vec::new();
    };
    let external_ips: Vec<IpAddr> = of_family(spec.external_ips.iter().flatten(), family).collect();
    let slices = slices.filter(|slice| slice.address_type == address_type(family));
    spec.ports
        .iter()
        .flatten()
        .filter_map(|port| {
            let protocol = Protocol::parse(port.protocol.as_deref().unwrap_or(""))?;
            let candidates = Candidates::of(slices.clone(), port, protocol, node_name);
            let internal_traffic_local = spec.internal_traffic_policy.as_deref() == Some("Local");
            let external_traffic_local = spec.external_traffic_policy.as_deref() == Some("Local");
            let keeps_local = internal_traffic_local || external_traffic_local;
            let value = ServicePort {
                cluster_ip,
                protocol,
                port: port_number(port.port)?,
                node_port: port.node_port.and_then(port_number),
                external_ips: external_ips.clone(),
                load_balancer_ips: load_balancer_ips(service, family),
                load_balancer_sources: load_balancer_sources(spec, family),
                internal_traffic_local,
                external_traffic_local,
                affinity_seconds: affinity_seconds(spec),
                endpoints: candidates.usable(|_| true),
                local_endpoints: if keeps_local {
                    candidates.usable(|endpoint| endpoint.local)
                } else {
                    Vec::new()
                },
            };
            Some((port.name.clone().unwrap_or_else(String::new), value))
        })
        .collect()
}

fn is_proxied(service: &Service, spec: &ServiceSpec) -> bool {
    let foreign = service
        .metadata
        .labels
        .as_ref()
        .is_some_and(|labels| labels.contains_key(PROXY_NAME_LABEL));
    !foreign && spec.type_.as_deref() != Some("ExternalName")
}

/// Headless Services have the cluster IP "None", which is no address.
fn cluster_ip(spec: &ServiceSpec, family: Family) -> Option<IpAddr> {
    let ips = spec.cluster_ips.iter().flatten().chain(spec.cluster_ip.iter());
    of_family(ips, family).next()
}

fn load_balancer_ips(service: &Service, family: Family) -> Vec<IpAddr> {
    let ingress = service
        .status
        .iter()
        .filter_map(|status| status.load_balancer.as_ref())
        .flat_map(|lb| lb.ingress.iter().flatten());
    let ips = ingress
        .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|ingress| ingress.ip.as_ref());
    of_family(ips, family).collect()
}

/// Ranges that do not parse allow nobody, so they are left out only beside others that do.
fn load_balancer_sources(spec: &ServiceSpec, family: Family) -> Vec<(IpAddr, u8)> {
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    ranges
        .filter_map(|range| parse_cidr("loadBalancerSourceRanges", range).ok())
        .filter(|(ip, _)| Family::of(*ip) == family)
        .collect()
}

fn of_family<'a>(ips: impl Iterator<Item = &'a String>, family: Family) -> impl Iterator<Item = IpAddr> {
    ips.filter_map(|ip| ip.parse().ok())
        .filter(move |ip| Family::of(*ip) == family)
}

fn affinity_seconds(spec: &ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let configured = spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip.as_ref())
        .and_then(|ip| ip.timeout_seconds);
    u32::try_from(configured.unwrap_or(DEFAULT_AFFINITY_SECONDS))
        .ok()
        .filter(|seconds| *seconds > 0)
}

/// The endpoints that serve a port, by whether they are ready or serve while they terminate.
struct Candidates {
    ready: BTreeSet<Endpoint>,
    terminating: BTreeSet<Endpoint>,
}

impl Candidates {
    fn of<'a>(
        slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
        port: &ApiServicePort,
        protocol: Protocol,
        node_name: &str,
    ) -> Self {
        let collect = |usable: fn(&ApiEndpoint) -> bool| {
            slices
                .clone()
                .flat_map(|slice| endpoints_of(slice, port, protocol, node_name, usable))
                .collect()
        };
        Self {
            ready: collect(is_ready),
            terminating: collect(serves_while_terminating),
        }
    }

    /// Ready ones; where there is none, those that still serve while they terminate.
    fn usable(&self, wanted: impl Fn(&Endpoint) -> bool) -> Vec<Endpoint> {
        let ready: Vec<Endpoint> = self
            .ready
            .iter()
            .filter(|endpoint| wanted(endpoint))
            .copied()
            .collect();
        if !ready.is_empty() {
            return ready;
        }
        self.terminating
            .iter()
            .filter(|endpoint| wanted(endpoint))
            .copied()
            .collect()
    }
}

fn endpoints_of(
    slice: &EndpointSlice,
    port: &ApiServicePort,
    protocol: Protocol,
    node_name: &str,
    usable: fn(&ApiEndpoint) -> bool,
) -> Vec<Endpoint> {
    let wanted = port.name.as_deref().unwrap_or("");
    let numbers = slice.ports.iter().flatten().filter(|candidate| {
        candidate.name.as_deref().unwrap_or("") == wanted
            && Protocol::parse(candidate.protocol.as_deref().unwrap_or("")) == Some(protocol)
    });
    numbers
        .filter_map(|candidate| port_number(candidate.port?))
        .flat_map(|number| {
            slice
                .endpoints
                .iter()
                .flatten()
                .filter(|endpoint| usable(endpoint))
                .filter_map(move |endpoint| {
                    let ip = endpoint.addresses.first()?.parse().ok()?;
                    Some(Endpoint {
                        ip,
                        port: number,
                        local: endpoint.node_name.as_deref() == Some(node_name),
                    })
                })
        })
        .collect()
}

fn is_ready(endpoint: &ApiEndpoint) -> bool {
    endpoint
        .conditions
        .as_ref()
        .and_then(|conditions| conditions.ready)
        .unwrap_or(true)
}

fn serves_while_terminating(endpoint: &ApiEndpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    let terminating = conditions
        .and_then(|conditions| conditions.terminating)
        .unwrap_or(false);
    terminating
        && conditions
            .and_then(|conditions| conditions.serving)
            .unwrap_or(false)
}

fn address_type(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    }
}

fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(spec: serde_json::Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec}))
            .unwrap()
    }

    fn slice(endpoints: serde_json::Value) -> EndpointSlice {
        serde_json::from_value(
            json!({"addressType": "IPv4", "metadata": {}, "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}),
        )
        .unwrap()
    }

    fn http() -> serde_json::Value {
        json!({"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80, "nodePort": 30080, "targetPort": 8080}]})
    }

    fn only(service: &Service, slices: &[EndpointSlice]) -> ServicePort {
        let ports = service_ports(service, slices.iter(), "node-1", Family::Ipv4);
        assert_eq!(ports.len(), 1);
        ports[0].1.clone()
    }

    #[test]
    fn ready_endpoints_are_used_and_unready_ones_are_not() {
        let slices = [slice(json!([
            {"addresses": ["10.0.0.2"], "conditions": {"ready": true}, "nodeName": "node-1"},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.0.0.1"], "conditions": {}},
        ]))];
        let port = only(&service(http()), &slices);
        let ips: Vec<String> = port
            .endpoints
            .iter()
            .map(|endpoint| endpoint.ip.to_string())
            .collect();
        assert_eq!(ips, ["10.0.0.1", "10.0.0.2"]);
        assert!(port.endpoints[1].local && !port.endpoints[0].local);
        assert_eq!(port.node_port, Some(30080));
    }

    #[test]
    fn terminating_endpoints_serve_when_nothing_else_does() {
        let slices = [slice(json!([
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.0.0.4"], "conditions": {"ready": false, "serving": false, "terminating": true}},
        ]))];
        assert_eq!(only(&service(http()), &slices).endpoints.len(), 1);
    }

    #[test]
    fn headless_external_name_and_foreign_services_are_not_proxied() {
        for spec in [
            json!({"clusterIP": "None", "ports": [{"port": 80}]}),
            json!({"type": "ExternalName", "externalName": "x"}),
        ] {
            assert!(service_ports(&service(spec), [].iter(), "node-1", Family::Ipv4).is_empty());
        }
        let mut foreign = service(http());
        foreign.metadata.labels = Some([(PROXY_NAME_LABEL.to_owned(), "other".to_owned())].into());
        assert!(service_ports(&foreign, [].iter(), "node-1", Family::Ipv4).is_empty());
    }

    #[test]
    fn session_affinity_has_upstreams_default_timeout() {
        let mut spec = http();
        spec["sessionAffinity"] = json!("ClientIP");
        assert_eq!(only(&service(spec), &[]).affinity_seconds, Some(10_800));
    }
}
