//! The elements and chains that one Service port puts into the kernel.

use std::net::IpAddr;

use super::chains::{Chain, Frontend, LOCAL_INDEX, Scope};
use super::skeleton::REJECT_CHAIN;
use super::{
    AFFINITY_ENDPOINTS, CLUSTER_IPS, ENDPOINTS, EXTERNAL_SERVICES, Endpoint, FIREWALL_IPS, HAIRPIN, Key,
    NO_ENDPOINT_NODE_PORTS, NO_ENDPOINT_SERVICES, NODE_PORT_SERVICES, SERVICE_IPS, SERVICE_NODE_PORTS,
    ServicePort,
};
use crate::claims::FrontendKey;
use crate::nft::batch::{Element, Value};
use crate::nft::{SetSpec, Verdict};

/// Endpoints beyond this are not used: the index of local endpoints begins there. Upstream's slices hold 1,000 each.
const MAX_ENDPOINTS: usize = LOCAL_INDEX as usize;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contribution {
    /// Belong to this Service port alone.
    pub elements: Vec<Element>,
    /// May be asked for by several Service ports: the cluster IP, the pairs of a pod with itself.
    pub shared: Vec<Element>,
    pub chains: Vec<Chain>,
}

/// `owns` says which of the frontends that others may ask for too belong to this port.
pub fn contribution(port: &ServicePort, owns: impl Fn(FrontendKey) -> bool) -> Contribution {
    let ip_key = |ip| FrontendKey::Ip(ip, port.protocol, port.port);
    let mut builder = Builder {
        port,
        out: Contribution::default(),
    };
    // Endpoints are found by the cluster IP: without it there is nothing that could be reached.
    if !owns(ip_key(port.cluster_ip)) {
        return builder.out;
    }
    builder.shared(&CLUSTER_IPS, Key::new().address(port.cluster_ip));
    builder.cluster_ip();
    for ip in port.external_ips().filter(|ip| owns(ip_key(*ip))) {
        builder.external_ip(ip);
    }
    if let Some(node_port) = port
        .node_port
        .filter(|number| owns(FrontendKey::NodePort(port.protocol, *number)))
    {
        builder.node_port(node_port);
    }
    builder.endpoints();
    builder.out
}

struct Builder<'a> {
    port: &'a ServicePort,
    out: Contribution,
}

impl Builder<'_> {
    fn all(&self) -> impl Iterator<Item = &Endpoint> {
        self.port.endpoints.iter().take(MAX_ENDPOINTS)
    }

    fn local(&self) -> impl Iterator<Item = &Endpoint> {
        self.port.local_endpoints.iter().take(MAX_ENDPOINTS)
    }

    fn service_key(&self, ip: IpAddr) -> Key {
        Key::new()
            .address(ip)
            .protocol(self.port.protocol)
            .port(self.port.port)
    }

    fn cluster_ip(&mut self) {
        let (scope, endpoints) = match self.port.internal_traffic_local {
            true => (Scope::Local, self.local().count()),
            false => (Scope::Cluster, self.all().count()),
        };
        let key = self.service_key(self.port.cluster_ip);
        if endpoints == 0 {
            // Endpoints elsewhere only: drop, as there may be one here soon. None at all: reject.
            let verdict = if self.all().next().is_some() {
                Verdict::Drop
            } else {
                reject()
            };
            return self.add(&NO_ENDPOINT_SERVICES, key, Value::Verdict(verdict));
        }
        let chain = self.balance(Frontend::Cluster, scope, endpoints, false);
        self.dispatch(&SERVICE_IPS, key, chain);
    }

    fn external_ip(&mut self, ip: IpAddr) {
        let sources = &self.port.load_balancer_sources;
        if !sources.is_empty() && self.port.load_balancer_ips.contains(&ip) {
            let chain = Chain::Firewall {
                sources: sources.clone(),
            };
            self.dispatch(&FIREWALL_IPS, self.service_key(ip), chain);
        }
        if self.all().next().is_none() {
            return self.add(
                &NO_ENDPOINT_SERVICES,
                self.service_key(ip),
                Value::Verdict(reject()),
            );
        }
        let chain = self.external_chain(Frontend::External);
        self.dispatch(&SERVICE_IPS, self.service_key(ip), chain);
        let translated = self.service_key(self.port.cluster_ip).finish();
        self.add(&EXTERNAL_SERVICES, self.service_key(ip), Value::Data(translated));
    }

    fn node_port(&mut self, node_port: u16) {
        let key = || Key::new().protocol(self.port.protocol).port(node_port);
        if self.all().next().is_none() {
            let key = key();
            return self.add(&NO_ENDPOINT_NODE_PORTS, key, Value::Verdict(reject()));
        }
        let (dispatch_key, service_key) = (key(), key());
        let chain = self.external_chain(Frontend::NodePort);
        self.dispatch(&SERVICE_NODE_PORTS, dispatch_key, chain);
        let translated = self.service_key(self.port.cluster_ip).finish();
        self.add(&NODE_PORT_SERVICES, service_key, Value::Data(translated));
    }

    /// Traffic from outside: to any endpoint behind this node's address, or to local ones with the client's own.
    fn external_chain(&self, frontend: Frontend) -> Chain {
        let cluster = self.all().count();
        if !self.port.external_traffic_local {
            return self.balance(frontend, Scope::Cluster, cluster, true);
        }
        let local = self.local().count() as u32;
        Chain::ExternalLocal {
            frontend,
            local,
            cluster: cluster as u32,
            affinity_seconds: self.port.affinity_seconds,
        }
    }

    fn balance(&self, frontend: Frontend, scope: Scope, endpoints: usize, masquerade: bool) -> Chain {
        let affinity_seconds = self.port.affinity_seconds;
        Chain::Balance {
            frontend,
            scope,
            endpoints: endpoints as u32,
            masquerade,
            affinity_seconds,
        }
    }

    fn endpoints(&mut self) {
        let all: Vec<Endpoint> = self.all().copied().collect();
        let local: Vec<Endpoint> = self.local().copied().collect();
        for (index, endpoint) in all.iter().enumerate() {
            self.endpoint(index as u32, endpoint);
        }
        for (index, endpoint) in local.iter().enumerate() {
            self.endpoint(LOCAL_INDEX + index as u32, endpoint);
        }
        let mut used: Vec<Endpoint> = all.into_iter().chain(local).collect();
        used.sort();
        used.dedup();
        // Only a pod of this node can be sent to itself here.
        for endpoint in used.iter().filter(|endpoint| endpoint.local) {
            self.shared(&HAIRPIN, Key::new().address(endpoint.ip).address(endpoint.ip));
        }
        if self.port.affinity_seconds.is_some() {
            for endpoint in used {
                let key = self
                    .service_key(self.port.cluster_ip)
                    .address(endpoint.ip)
                    .port(endpoint.port);
                self.add(&AFFINITY_ENDPOINTS, key, Value::None);
            }
        }
    }

    fn endpoint(&mut self, index: u32, endpoint: &Endpoint) {
        let target = Key::new().address(endpoint.ip).port(endpoint.port).finish();
        self.add(
            &ENDPOINTS,
            self.service_key(self.port.cluster_ip).index(index),
            Value::Data(target),
        );
    }

    fn dispatch(&mut self, set: &SetSpec, key: Key, chain: Chain) {
        self.add(set, key, Value::Verdict(Verdict::Goto(chain.to_string())));
        self.out.chains.push(chain);
    }

    fn add(&mut self, set: &SetSpec, key: Key, value: Value) {
        self.out.elements.push(Element {
            set: set.name,
            key: key.finish(),
            value,
        });
    }

    fn shared(&mut self, set: &SetSpec, key: Key) {
        self.out.shared.push(Element {
            set: set.name,
            key: key.finish(),
            value: Value::None,
        });
    }
}

fn reject() -> Verdict {
    Verdict::Goto(REJECT_CHAIN.to_owned())
}
