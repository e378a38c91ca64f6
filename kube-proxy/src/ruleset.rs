//! What a Service port asks of the kernel, as data.
//!
//! The ruleset is maps, not a chain for each Service. A packet to a frontend (cluster IP, external IP, node port)
//! takes one look-up in a verdict map, which sends it to the chain for *that number of endpoints*; the chain
//! makes a key of the Service port and a random index, and one look-up in `endpoints` gives the address to go to:
//!
//! ```text
//! services:    ip daddr . proto . dport  vmap @service-ips          -> goto lb-cluster-3
//!              proto . dport             vmap @service-nodeports    -> goto lb-nodeport-3-masq
//! lb-cluster-3: dnat to (ip daddr . proto . dport . random mod 3)   map @endpoints
//! ```
//!
//! Frontends other than the cluster IP are translated to it first (`external-services`, `nodeport-services`), so
//! that an endpoint stands in the kernel once for each Service port, however many frontends lead there.
//! [`skeleton`] holds what is always there; [`chains`] the chains that come with the first Service that needs them;
//! [`contribution`] the elements of one Service port.

mod chains;
mod contribution;
mod skeleton;

pub use chains::Chain;
pub use contribution::{Contribution, contribution};
pub use skeleton::{Settings, TABLE, skeleton};

use std::net::IpAddr;

use crate::nft::{Field, SetSpec, Values};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// As the API spells it; an empty protocol is TCP.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    pub ip: IpAddr,
    pub port: u16,
    /// On this node.
    pub local: bool,
}

/// One port of one Service in one address family, with the endpoints that may serve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub cluster_ip: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
    /// spec.externalIPs.
    pub external_ips: Vec<IpAddr>,
    pub load_balancer_ips: Vec<IpAddr>,
    /// Who may use the load balancer's addresses; empty: everybody.
    pub load_balancer_sources: Vec<(IpAddr, u8)>,
    pub internal_traffic_local: bool,
    pub external_traffic_local: bool,
    /// sessionAffinity: ClientIP, in seconds.
    pub affinity_seconds: Option<u32>,
    /// Sorted, without duplicates; usable now.
    pub endpoints: Vec<Endpoint>,
    /// Those on this node that may be used where traffic stays local; filled only for such policies.
    pub local_endpoints: Vec<Endpoint>,
}

impl ServicePort {
    /// All addresses but the cluster IP, each once.
    pub fn external_ips(&self) -> impl Iterator<Item = IpAddr> {
        let ips: std::collections::BTreeSet<IpAddr> = self
            .external_ips
            .iter()
            .chain(&self.load_balancer_ips)
            .copied()
            .collect();
        let cluster_ip = self.cluster_ip;
        ips.into_iter()
            .filter(move |ip| *ip != cluster_ip && ip.is_ipv4() == cluster_ip.is_ipv4())
    }
}

pub const CLUSTER_IPS: SetSpec = set("cluster-ips", &[Field::Address], Values::None);
pub const SERVICE_IPS: SetSpec = set("service-ips", SERVICE_KEY, Values::Verdict);
pub const SERVICE_NODE_PORTS: SetSpec = set("service-nodeports", NODE_PORT_KEY, Values::Verdict);
pub const EXTERNAL_SERVICES: SetSpec = set("external-services", SERVICE_KEY, Values::Data(SERVICE_KEY));
pub const NODE_PORT_SERVICES: SetSpec = set("nodeport-services", NODE_PORT_KEY, Values::Data(SERVICE_KEY));
pub const ENDPOINTS: SetSpec = set(
    "endpoints",
    &[Field::Address, Field::Protocol, Field::Port, Field::Index],
    Values::Data(&[Field::Address, Field::Port]),
);
/// Load balancer addresses that not everybody may use.
pub const FIREWALL_IPS: SetSpec = set("firewall-ips", SERVICE_KEY, Values::Verdict);
pub const NO_ENDPOINT_SERVICES: SetSpec = set("no-endpoint-services", SERVICE_KEY, Values::Verdict);
pub const NO_ENDPOINT_NODE_PORTS: SetSpec = set("no-endpoint-nodeports", NODE_PORT_KEY, Values::Verdict);
pub const HAIRPIN: SetSpec = set(
    "hairpin-connections",
    &[Field::Address, Field::Address],
    Values::None,
);
/// Client and Service port to the endpoint that it was sent to; filled by the kernel.
pub const AFFINITY: SetSpec = SetSpec {
    name: "affinity",
    key: &[Field::Address, Field::Address, Field::Protocol, Field::Port],
    values: Values::Data(&[Field::Address, Field::Port]),
    dynamic: true,
};
/// The endpoints that a remembered client may still be sent to.
pub const AFFINITY_ENDPOINTS: SetSpec = set(
    "affinity-endpoints",
    &[
        Field::Address,
        Field::Protocol,
        Field::Port,
        Field::Address,
        Field::Port,
    ],
    Values::None,
);

pub const ALL_SETS: &[SetSpec] = &[
    CLUSTER_IPS,
    SERVICE_IPS,
    SERVICE_NODE_PORTS,
    EXTERNAL_SERVICES,
    NODE_PORT_SERVICES,
    ENDPOINTS,
    FIREWALL_IPS,
    NO_ENDPOINT_SERVICES,
    NO_ENDPOINT_NODE_PORTS,
    HAIRPIN,
    AFFINITY,
    AFFINITY_ENDPOINTS,
];

const SERVICE_KEY: &[Field] = &[Field::Address, Field::Protocol, Field::Port];
const NODE_PORT_KEY: &[Field] = &[Field::Protocol, Field::Port];

const fn set(name: &'static str, key: &'static [Field], values: Values) -> SetSpec {
    SetSpec {
        name,
        key,
        values,
        dynamic: false,
    }
}

/// Builds concatenated keys: every field padded to 32 bits, ports in network order.
#[derive(Default)]
pub struct Key(Vec<u8>);

impl Key {
    pub fn new() -> Self {
        Self(Vec::with_capacity(24))
    }

    pub fn address(mut self, ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => self.0.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => self.0.extend_from_slice(&ip.octets()),
        }
        self
    }

    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.0.extend_from_slice(&[protocol.number(), 0, 0, 0]);
        self
    }

    pub fn port(mut self, port: u16) -> Self {
        self.0.extend_from_slice(&port.to_be_bytes());
        self.0.extend_from_slice(&[0, 0]);
        self
    }

    /// Compared with a register that the kernel filled itself: host order.
    pub fn index(mut self, index: u32) -> Self {
        self.0.extend_from_slice(&index.to_ne_bytes());
        self
    }

    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}
