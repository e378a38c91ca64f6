//! The part of the table that no Service changes: sets, hooks, masquerading, rejecting.

use std::net::IpAddr;

use super::{
    ALL_SETS, CLUSTER_IPS, FIREWALL_IPS, HAIRPIN, NO_ENDPOINT_NODE_PORTS, NO_ENDPOINT_SERVICES, SERVICE_IPS,
    SERVICE_NODE_PORTS,
};
use crate::nft::expr::Reg;
use crate::nft::{
    Batch, Compare, Expr, FORWARD, Family, Field, Hook, INPUT, OUTPUT, Operation, POSTROUTING, PREROUTING,
    Verdict,
};

/// As upstream's nftables mode.
pub const TABLE: &str = "kube-proxy";
pub const MARK_CHAIN: &str = "mark-for-masquerade";
pub const REJECT_CHAIN: &str = "reject-chain";
pub const RTN_LOCAL: u32 = 2;

/// NF_IP_PRI_NAT_DST, NF_IP_PRI_NAT_SRC, NF_IP_PRI_FILTER; no-endpoint checks stand before other filters as upstream's do.
const DSTNAT: i32 = -100;
/// Before the address is rewritten.
const BEFORE_DSTNAT: i32 = DSTNAT - 10;
const SRCNAT: i32 = 100;
const FILTER: i32 = -10;
const TCP: u8 = 6;
/// ct state new; ct status dnat.
const STATE_NEW: u32 = 1 << 3;
const STATUS_DNAT: u32 = 1 << 5;

/// What the whole table depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub family: Family,
    pub masquerade_bit: u32,
    /// Masquerade everything that goes to a cluster IP.
    pub masquerade_all: bool,
    /// Where pods' addresses lie; empty: unknown, nothing is masqueraded on the way to cluster IPs.
    pub cluster_cidrs: Vec<(IpAddr, u8)>,
    /// Where node ports answer; empty: on every local address but loopback.
    pub node_port_cidrs: Vec<(IpAddr, u8)>,
}

impl Settings {
    /// For each CIDR of the pods, the expressions that go on only for a source inside it.
    pub fn pod_source_matches(&self) -> Vec<Vec<Expr>> {
        self.cluster_cidrs
            .iter()
            .map(|cidr| cidr_match(Expr::SourceAddress(Reg(0)), *cidr, Compare::Equal))
            .collect()
    }

    fn mark(&self) -> u32 {
        1 << self.masquerade_bit
    }

    fn set_mark(&self) -> Vec<Expr> {
        let mark = self.mark();
        vec![
            Expr::Mark(Reg(0)),
            Expr::Bitwise {
                reg: Reg(0),
                mask: (!mark).to_ne_bytes().to_vec(),
                xor: mark.to_ne_bytes().to_vec(),
            },
            Expr::SetMark(Reg(0)),
        ]
    }

    fn clear_mark(&self) -> Vec<Expr> {
        let mask = (!self.mark()).to_ne_bytes().to_vec();
        vec![
            Expr::Mark(Reg(0)),
            Expr::Bitwise {
                reg: Reg(0),
                mask,
                xor: vec![0; 4],
            },
            Expr::SetMark(Reg(0)),
        ]
    }
}

/// Replaces whatever an earlier kube-proxy left in the table by the skeleton.
pub fn skeleton(settings: &Settings) -> Batch {
    let mut batch = Batch::new(settings.family, TABLE);
    batch.push(Operation::ReplaceTable);
    for set in ALL_SETS {
        batch.push(Operation::AddSet(set.clone()));
    }
    let chains = chains(settings);
    for (name, hook, _) in &chains {
        batch.push(Operation::AddChain {
            name: (*name).to_owned(),
            hook: *hook,
        });
    }
    for (name, _, rules) in chains {
        for rule in rules {
            batch.push(Operation::AddRule {
                chain: name.to_owned(),
                rule,
            });
        }
    }
    batch
}

type NamedChain = (&'static str, Option<Hook>, Vec<Vec<Expr>>);

fn chains(settings: &Settings) -> Vec<NamedChain> {
    let to_services = || vec![vec![jump("services")]];
    let no_endpoints = || vec![when_new(jump("service-endpoints-check"))];
    let firewall = || vec![when_new(jump("firewall-check"))];
    vec![
        (
            "filter-prerouting-pre-dnat",
            hook("filter", PREROUTING, BEFORE_DSTNAT),
            firewall(),
        ),
        (
            "filter-output-pre-dnat",
            hook("filter", OUTPUT, BEFORE_DSTNAT),
            firewall(),
        ),
        ("nat-prerouting", hook("nat", PREROUTING, DSTNAT), to_services()),
        ("nat-output", hook("nat", OUTPUT, DSTNAT), to_services()),
        (
            "nat-postrouting",
            hook("nat", POSTROUTING, SRCNAT),
            vec![vec![jump("masquerading")]],
        ),
        (
            "filter-input",
            hook("filter", INPUT, FILTER),
            vec![
                when_new(jump("nodeport-endpoints-check")),
                when_new(jump("service-endpoints-check")),
            ],
        ),
        ("filter-forward", hook("filter", FORWARD, FILTER), no_endpoints()),
        ("filter-output", hook("filter", OUTPUT, FILTER), no_endpoints()),
        ("services", None, services(settings)),
        ("masquerading", None, masquerading(settings)),
        (MARK_CHAIN, None, vec![settings.set_mark()]),
        (
            "service-endpoints-check",
            None,
            service_endpoints_check(settings.family),
        ),
        (
            "nodeport-endpoints-check",
            None,
            node_port_rules(settings, NO_ENDPOINT_NODE_PORTS.name),
        ),
        (
            "firewall-check",
            None,
            vec![service_dispatch(FIREWALL_IPS.name, settings.family)],
        ),
        (REJECT_CHAIN, None, reject()),
    ]
}

fn hook(kind: &'static str, number: u32, priority: i32) -> Option<Hook> {
    Some(Hook {
        kind,
        number,
        priority,
    })
}

fn jump(chain: &str) -> Expr {
    Expr::Verdict(Verdict::Jump(chain.to_owned()))
}

fn services(settings: &Settings) -> Vec<Vec<Expr>> {
    let mut rules = mark_from_outside(settings);
    rules.push(service_dispatch(SERVICE_IPS.name, settings.family));
    rules.extend(node_port_rules(settings, SERVICE_NODE_PORTS.name));
    rules
}

/// Node ports answer on the addresses that were asked for, or on all of this node's but loopback.
fn node_port_rules(settings: &Settings, set: &'static str) -> Vec<Vec<Expr>> {
    if settings.node_port_cidrs.is_empty() {
        let loopback: (IpAddr, u8) = match settings.family {
            Family::Ipv4 => ([127, 0, 0, 0].into(), 8),
            Family::Ipv6 => (IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), 128),
        };
        return vec![node_port_rule(loopback, Compare::NotEqual, set)];
    }
    settings
        .node_port_cidrs
        .iter()
        .map(|cidr| node_port_rule(*cidr, Compare::Equal, set))
        .collect()
}

/// Packets to a cluster IP from outside the pods' addresses come back to this node only if it is their source.
fn mark_from_outside(settings: &Settings) -> Vec<Vec<Expr>> {
    let to_cluster_ip = || {
        vec![
            Expr::DestinationAddress(Reg(0)),
            Expr::Lookup {
                set: CLUSTER_IPS.name,
                key: Reg(0),
                into: None,
            },
        ]
    };
    if settings.masquerade_all {
        return vec![[to_cluster_ip(), vec![jump(MARK_CHAIN)]].concat()];
    }
    if settings.cluster_cidrs.is_empty() {
        return Vec::new();
    }
    let outside = settings
        .cluster_cidrs
        .iter()
        .flat_map(|cidr| cidr_match(Expr::SourceAddress(Reg(0)), *cidr, Compare::NotEqual));
    vec![
        to_cluster_ip()
            .into_iter()
            .chain(outside)
            .chain([jump(MARK_CHAIN)])
            .collect(),
    ]
}

fn service_dispatch(set: &'static str, family: Family) -> Vec<Expr> {
    let protocol = Reg(0).after(Field::Address, family);
    let port = protocol.after(Field::Protocol, family);
    vec![
        Expr::DestinationAddress(Reg(0)),
        Expr::L4Protocol(protocol),
        Expr::DestinationPort(port),
        Expr::VerdictMap { set, key: Reg(0) },
    ]
}

fn node_port_dispatch(set: &'static str) -> Vec<Expr> {
    vec![
        Expr::L4Protocol(Reg(0)),
        Expr::DestinationPort(Reg(1)),
        Expr::VerdictMap { set, key: Reg(0) },
    ]
}

fn node_port_rule(cidr: (IpAddr, u8), op: Compare, set: &'static str) -> Vec<Expr> {
    let mut rule = vec![
        Expr::DestinationAddressType(Reg(0)),
        Expr::Compare {
            op: Compare::Equal,
            reg: Reg(0),
            data: RTN_LOCAL.to_ne_bytes().to_vec(),
        },
    ];
    rule.extend(cidr_match(Expr::DestinationAddress(Reg(0)), cidr, op));
    rule.extend(node_port_dispatch(set));
    rule
}

fn masquerading(settings: &Settings) -> Vec<Vec<Expr>> {
    let mark = settings.mark().to_ne_bytes().to_vec();
    let hairpin = vec![
        Expr::ConntrackStatus(Reg(0)),
        Expr::Bitwise {
            reg: Reg(0),
            mask: STATUS_DNAT.to_ne_bytes().to_vec(),
            xor: vec![0; 4],
        },
        Expr::Compare {
            op: Compare::NotEqual,
            reg: Reg(0),
            data: vec![0; 4],
        },
        Expr::SourceAddress(Reg(0)),
        Expr::DestinationAddress(Reg(0).after(Field::Address, settings.family)),
        Expr::Lookup {
            set: HAIRPIN.name,
            key: Reg(0),
            into: None,
        },
        Expr::Masquerade,
    ];
    let unmarked = vec![
        Expr::Mark(Reg(0)),
        Expr::Bitwise {
            reg: Reg(0),
            mask: mark.clone(),
            xor: vec![0; 4],
        },
        Expr::Compare {
            op: Compare::Equal,
            reg: Reg(0),
            data: vec![0; 4],
        },
        Expr::Verdict(Verdict::Return),
    ];
    vec![
        hairpin,
        unmarked,
        [settings.clear_mark(), vec![Expr::Masquerade]].concat(),
    ]
}

/// What was not sent to an endpoint: no endpoints, or no such port of a cluster IP.
fn service_endpoints_check(family: Family) -> Vec<Vec<Expr>> {
    let unknown_port = vec![
        Expr::DestinationAddress(Reg(0)),
        Expr::Lookup {
            set: CLUSTER_IPS.name,
            key: Reg(0),
            into: None,
        },
        Expr::Verdict(Verdict::Goto(REJECT_CHAIN.to_owned())),
    ];
    vec![service_dispatch(NO_ENDPOINT_SERVICES.name, family), unknown_port]
}

fn reject() -> Vec<Vec<Expr>> {
    let tcp = vec![
        Expr::L4Protocol(Reg(0)),
        Expr::Compare {
            op: Compare::Equal,
            reg: Reg(0),
            data: vec![TCP],
        },
        Expr::Reject { tcp: true },
    ];
    vec![tcp, vec![Expr::Reject { tcp: false }]]
}

fn when_new(then: Expr) -> Vec<Expr> {
    vec![
        Expr::ConntrackState(Reg(0)),
        Expr::Bitwise {
            reg: Reg(0),
            mask: STATE_NEW.to_ne_bytes().to_vec(),
            xor: vec![0; 4],
        },
        Expr::Compare {
            op: Compare::NotEqual,
            reg: Reg(0),
            data: vec![0; 4],
        },
        then,
    ]
}

pub(super) fn cidr_match(load: Expr, (ip, bits): (IpAddr, u8), op: Compare) -> Vec<Expr> {
    let (network, mask) = masked(ip, bits);
    let xor = vec![0; mask.len()];
    vec![
        load,
        Expr::Bitwise {
            reg: Reg(0),
            mask,
            xor,
        },
        Expr::Compare {
            op,
            reg: Reg(0),
            data: network,
        },
    ]
}

fn masked(ip: IpAddr, bits: u8) -> (Vec<u8>, Vec<u8>) {
    let octets = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mask: Vec<u8> = (0..octets.len())
        .map(|at| {
            0xffu8
                .checked_shl(8 - u32::from(bits).saturating_sub(at as u32 * 8).min(8))
                .unwrap_or(0)
        })
        .collect();
    (
        octets
            .iter()
            .zip(&mask)
            .map(|(octet, mask)| octet & mask)
            .collect(),
        mask,
    )
}
