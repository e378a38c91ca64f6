//! Chains that choose an endpoint. Which one a frontend needs depends on numbers, not on the Service: two Services
//! with three endpoints share `lb-cluster-3`.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use super::skeleton::{MARK_CHAIN, RTN_LOCAL, Settings, cidr_match};
use super::{AFFINITY, AFFINITY_ENDPOINTS, ENDPOINTS, EXTERNAL_SERVICES, NODE_PORT_SERVICES};
use crate::nft::expr::Reg;
use crate::nft::{Compare, Expr, Family, Field, Verdict};

/// Indices of local endpoints begin here in the `endpoints` map, those of all endpoints at 0.
pub const LOCAL_INDEX: u32 = 1 << 16;

/// By what address the packet came in, and so how the Service port is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Frontend {
    Cluster,
    External,
    NodePort,
}

/// Which endpoints a chain chooses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    Cluster,
    Local,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Chain {
    /// One of `endpoints` endpoints at random.
    Balance {
        frontend: Frontend,
        scope: Scope,
        endpoints: u32,
        masquerade: bool,
        affinity_seconds: Option<u32>,
    },
    /// externalTrafficPolicy: Local. Pods and this node itself are sent to any endpoint, as if they had used the
    /// cluster IP; everybody else to a local one or nowhere.
    ExternalLocal {
        frontend: Frontend,
        local: u32,
        cluster: u32,
        affinity_seconds: Option<u32>,
    },
    /// loadBalancerSourceRanges: drops what comes from elsewhere.
    Firewall { sources: Vec<(IpAddr, u8)> },
}

impl Chain {
    /// Chains that must be there before this one's rules can name them.
    pub fn needs(&self) -> Vec<Chain> {
        let Chain::ExternalLocal {
            frontend,
            local,
            cluster,
            affinity_seconds,
        } = *self
        else {
            return Vec::new();
        };
        let balance = |scope, endpoints, masquerade| Chain::Balance {
            frontend,
            scope,
            endpoints,
            masquerade,
            affinity_seconds,
        };
        let mut needs = vec![
            balance(Scope::Cluster, cluster, false),
            balance(Scope::Cluster, cluster, true),
        ];
        if local > 0 {
            needs.push(balance(Scope::Local, local, false));
        }
        needs
    }

    pub fn rules(&self, settings: &Settings) -> Vec<Vec<Expr>> {
        match self {
            Chain::Balance {
                frontend,
                scope,
                endpoints,
                masquerade,
                affinity_seconds,
            } => {
                let choice = Choice {
                    frontend: *frontend,
                    scope: *scope,
                    endpoints: *endpoints,
                    family: settings.family,
                };
                let mut rules = if *masquerade {
                    vec![vec![jump(MARK_CHAIN)]]
                } else {
                    Vec::new()
                };
                match affinity_seconds {
                    None => rules.push(choice.fresh()),
                    // The last of them where the map of clients is full.
                    Some(seconds) => rules.extend([
                        choice.remembered(*seconds),
                        choice.fresh_and_remember(*seconds),
                        choice.fresh(),
                    ]),
                }
                // An endpoint vanished between the random number and the look-up: the client sends again.
                rules.push(vec![Expr::Verdict(Verdict::Drop)]);
                rules
            }
            Chain::ExternalLocal { .. } => self.external_local_rules(settings),
            Chain::Firewall { sources } => firewall_rules(sources),
        }
    }

    fn external_local_rules(&self, settings: &Settings) -> Vec<Vec<Expr>> {
        let needs = self.needs();
        let from_here = vec![
            Expr::SourceAddressType(Reg(0)),
            Expr::Compare {
                op: Compare::Equal,
                reg: Reg(0),
                data: RTN_LOCAL.to_ne_bytes().to_vec(),
            },
            goto(&needs[1]),
        ];
        let mut rules: Vec<Vec<Expr>> = settings
            .pod_source_matches()
            .into_iter()
            .map(|mut from_pods| {
                from_pods.push(goto(&needs[0]));
                from_pods
            })
            .collect();
        rules.push(from_here);
        rules.push(vec![needs.get(2).map_or(Expr::Verdict(Verdict::Drop), goto)]);
        rules
    }
}

fn firewall_rules(sources: &[(IpAddr, u8)]) -> Vec<Vec<Expr>> {
    let allow = |source: &(IpAddr, u8)| {
        let mut rule = cidr_match(Expr::SourceAddress(Reg(0)), *source, Compare::Equal);
        rule.push(Expr::Verdict(Verdict::Return));
        rule
    };
    sources
        .iter()
        .map(allow)
        .chain([vec![Expr::Verdict(Verdict::Drop)]])
        .collect()
}

fn goto(chain: &Chain) -> Expr {
    Expr::Verdict(Verdict::Goto(chain.to_string()))
}

fn jump(chain: &str) -> Expr {
    Expr::Verdict(Verdict::Jump(chain.to_owned()))
}

/// The name in the kernel.
impl fmt::Display for Chain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let affinity = match self {
            Chain::Balance {
                frontend,
                scope,
                endpoints,
                masquerade,
                affinity_seconds,
            } => {
                write!(out, "lb-{frontend}-{endpoints}")?;
                out.write_str(if *scope == Scope::Local { "-local" } else { "" })?;
                out.write_str(if *masquerade { "-masq" } else { "" })?;
                affinity_seconds
            }
            Chain::ExternalLocal {
                frontend,
                local,
                cluster,
                affinity_seconds,
            } => {
                write!(out, "local-{frontend}-{local}-of-{cluster}")?;
                affinity_seconds
            }
            Chain::Firewall { sources } => {
                // Names are limited; the hash need only be the same while this process lives.
                let mut hasher = std::hash::DefaultHasher::new();
                sources.hash(&mut hasher);
                return write!(out, "firewall-{:016x}", hasher.finish());
            }
        };
        affinity.map_or(Ok(()), |seconds| write!(out, "-affinity-{seconds}"))
    }
}

impl fmt::Display for Frontend {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Cluster => "cluster",
            Self::External => "external",
            Self::NodePort => "nodeport",
        })
    }
}

/// Lays the registers out so that every key is a run of neighbours:
/// client | Service address | protocol | port | index, later endpoint address and port over the index.
struct Choice {
    frontend: Frontend,
    scope: Scope,
    endpoints: u32,
    family: Family,
}

impl Choice {
    fn client(&self) -> Reg {
        Reg(0)
    }

    fn service(&self) -> Reg {
        self.client().after(Field::Address, self.family)
    }

    fn endpoint(&self) -> Reg {
        self.service()
            .after(Field::Address, self.family)
            .after(Field::Protocol, self.family)
            .after(Field::Port, self.family)
    }

    /// Loads the key of the Service port: as it stands in the packet for a cluster IP, translated for the others.
    fn load_service(&self) -> Vec<Expr> {
        let address = self.service();
        let protocol = address.after(Field::Address, self.family);
        let port = protocol.after(Field::Protocol, self.family);
        match self.frontend {
            Frontend::NodePort => vec![
                Expr::L4Protocol(protocol),
                Expr::DestinationPort(port),
                Expr::Lookup {
                    set: NODE_PORT_SERVICES.name,
                    key: protocol,
                    into: Some(address),
                },
            ],
            Frontend::Cluster | Frontend::External => {
                let mut load = vec![
                    Expr::DestinationAddress(address),
                    Expr::L4Protocol(protocol),
                    Expr::DestinationPort(port),
                ];
                if self.frontend == Frontend::External {
                    load.push(Expr::Lookup {
                        set: EXTERNAL_SERVICES.name,
                        key: address,
                        into: Some(address),
                    });
                }
                load
            }
        }
    }

    fn choose(&self) -> Vec<Expr> {
        let offset = if self.scope == Scope::Local {
            LOCAL_INDEX
        } else {
            0
        };
        vec![
            Expr::Random {
                into: self.endpoint(),
                modulus: self.endpoints,
                offset,
            },
            Expr::Lookup {
                set: ENDPOINTS.name,
                key: self.service(),
                into: Some(self.endpoint()),
            },
        ]
    }

    fn go(&self) -> Expr {
        Expr::DestinationNat {
            address: self.endpoint(),
            port: self.endpoint().after(Field::Address, self.family),
        }
    }

    fn remember(&self, seconds: u32) -> Expr {
        let timeout_ms = u64::from(seconds) * 1000;
        Expr::Update {
            set: AFFINITY.name,
            key: self.client(),
            value: self.endpoint(),
            timeout_ms,
        }
    }

    fn fresh(&self) -> Vec<Expr> {
        [self.load_service(), self.choose(), vec![self.go()]].concat()
    }

    fn remembered(&self, seconds: u32) -> Vec<Expr> {
        let mut rule = vec![Expr::SourceAddress(self.client())];
        rule.extend(self.load_service());
        rule.push(Expr::Lookup {
            set: AFFINITY.name,
            key: self.client(),
            into: Some(self.endpoint()),
        });
        rule.push(Expr::Lookup {
            set: AFFINITY_ENDPOINTS.name,
            key: self.service(),
            into: None,
        });
        rule.extend([self.remember(seconds), self.go()]);
        rule
    }

    fn fresh_and_remember(&self, seconds: u32) -> Vec<Expr> {
        let mut rule = vec![Expr::SourceAddress(self.client())];
        rule.extend(self.load_service());
        rule.extend(self.choose());
        // An update keeps the old value of an element that is there: forget it first.
        rule.push(Expr::Forget {
            set: AFFINITY.name,
            key: self.client(),
            value: self.endpoint(),
        });
        rule.extend([self.remember(seconds), self.go()]);
        rule
    }
}
