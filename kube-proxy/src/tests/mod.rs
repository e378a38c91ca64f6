//! The ruleset traced without a kernel, and (as root) the real thing in a network namespace.

mod kernel;
mod trace;

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use crate::nft::Family;
use crate::nft::kernel::Fake;
use crate::proxier::Proxier;
use crate::ruleset::{Endpoint, Protocol, ServicePort, Settings};
use trace::{Fate, Packet, World};

type FakeKernel = Arc<Mutex<Fake>>;

fn settings() -> Settings {
    Settings {
        family: Family::Ipv4,
        masquerade_bit: 14,
        masquerade_all: false,
        cluster_cidrs: vec![(ip("10.244.0.0"), 16)],
        node_port_cidrs: Vec::new(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn port(endpoints: &[(&str, bool)]) -> ServicePort {
    let endpoints: Vec<Endpoint> = endpoints
        .iter()
        .map(|(address, local)| Endpoint {
            ip: ip(address),
            port: 8080,
            local: *local,
        })
        .collect();
    ServicePort {
        cluster_ip: ip("10.96.0.9"),
        protocol: Protocol::Tcp,
        port: 80,
        node_port: Some(30080),
        external_ips: vec![ip("203.0.113.7")],
        load_balancer_ips: Vec::new(),
        load_balancer_sources: Vec::new(),
        internal_traffic_local: false,
        external_traffic_local: false,
        affinity_seconds: None,
        local_endpoints: endpoints
            .iter()
            .filter(|endpoint| endpoint.local)
            .copied()
            .collect(),
        endpoints,
    }
}

struct Cluster {
    proxier: Proxier<FakeKernel>,
    fake: FakeKernel,
}

impl Cluster {
    fn new() -> Self {
        let fake = FakeKernel::default();
        Self {
            proxier: Proxier::new(fake.clone(), settings()),
            fake,
        }
    }

    fn with(port: ServicePort) -> Self {
        let mut cluster = Self::new();
        cluster.set("web", Some(port));
        cluster
    }

    fn set(&mut self, name: &str, port: Option<ServicePort>) {
        self.proxier.set_service(
            "default",
            name,
            port.into_iter().map(|port| ("http".to_owned(), port)).collect(),
        );
        self.proxier.sync().unwrap();
    }

    fn world(&self) -> World {
        World::replay(&self.fake.lock().unwrap().batches)
    }

    fn last_batch_len(&self) -> usize {
        self.fake.lock().unwrap().batches.last().unwrap().operations.len()
    }
}

fn from_pod(destination: &str, port: u16) -> Packet {
    Packet {
        source: ip("10.244.0.5"),
        destination: ip(destination),
        port,
        protocol: 6,
        local_addresses: vec![ip("192.0.2.1")],
        random: 0,
    }
}

fn from_outside(destination: &str, port: u16) -> Packet {
    Packet {
        source: ip("198.51.100.1"),
        ..from_pod(destination, port)
    }
}

fn sent_to(fate: &Fate) -> (String, bool) {
    match fate {
        Fate::Sent {
            address,
            port,
            masqueraded,
        } => (format!("{address}:{port}"), *masqueraded),
        other => panic!("not sent to an endpoint but {other:?}"),
    }
}

#[test]
fn a_pod_reaches_each_endpoint_with_its_own_address() {
    let mut world = Cluster::with(port(&[("10.244.0.7", true), ("10.244.1.8", false)])).world();
    for (random, expected) in [
        (0, "10.244.0.7:8080"),
        (1, "10.244.1.8:8080"),
        (2, "10.244.0.7:8080"),
    ] {
        let fate = world.send(&Packet {
            random,
            ..from_pod("10.96.0.9", 80)
        });
        assert_eq!(sent_to(&fate), (expected.to_owned(), false));
    }
}

#[test]
fn traffic_from_outside_the_pods_is_masqueraded() {
    let mut world = Cluster::with(port(&[("10.244.1.8", false)])).world();
    for (destination, number) in [("10.96.0.9", 80), ("203.0.113.7", 80), ("192.0.2.1", 30080)] {
        assert_eq!(
            sent_to(&world.send(&from_outside(destination, number))),
            ("10.244.1.8:8080".to_owned(), true),
            "{destination}"
        );
    }
}

#[test]
fn a_pod_that_is_sent_to_itself_is_masqueraded() {
    let mut world = Cluster::with(port(&[("10.244.0.5", true)])).world();
    assert_eq!(
        sent_to(&world.send(&from_pod("10.96.0.9", 80))),
        ("10.244.0.5:8080".to_owned(), true)
    );
}

#[test]
fn without_endpoints_every_frontend_rejects() {
    let mut world = Cluster::with(port(&[])).world();
    for (destination, number) in [("10.96.0.9", 80), ("203.0.113.7", 80), ("192.0.2.1", 30080)] {
        assert_eq!(
            world.send(&from_outside(destination, number)),
            Fate::Rejected { tcp_reset: true },
            "{destination}"
        );
    }
}

#[test]
fn an_unknown_port_of_a_cluster_ip_rejects_and_other_traffic_passes() {
    let mut world = Cluster::with(port(&[("10.244.0.7", true)])).world();
    assert_eq!(
        world.send(&from_pod("10.96.0.9", 81)),
        Fate::Rejected { tcp_reset: true }
    );
    assert_eq!(world.send(&from_pod("8.8.8.8", 80)), Fate::Passed);
    assert_eq!(world.send(&from_outside("192.0.2.1", 22)), Fate::Passed);
}

#[test]
fn node_ports_do_not_answer_on_loopback() {
    let mut world = Cluster::with(port(&[("10.244.0.7", true)])).world();
    let packet = Packet {
        local_addresses: vec![ip("127.0.0.1")],
        ..from_outside("127.0.0.1", 30080)
    };
    assert_eq!(world.send(&packet), Fate::Passed);
}

#[test]
fn external_traffic_local_keeps_the_clients_address_or_drops() {
    let local = |endpoints: &[(&str, bool)]| ServicePort {
        external_traffic_local: true,
        ..port(endpoints)
    };
    let mut world = Cluster::with(local(&[("10.244.0.7", true), ("10.244.1.8", false)])).world();
    for random in 0..4 {
        let fate = world.send(&Packet {
            random,
            ..from_outside("192.0.2.1", 30080)
        });
        assert_eq!(sent_to(&fate), ("10.244.0.7:8080".to_owned(), false));
    }
    let mut world = Cluster::with(local(&[("10.244.1.8", false)])).world();
    assert_eq!(world.send(&from_outside("203.0.113.7", 80)), Fate::Dropped);
    // A pod uses the external address as if it were the cluster IP, and so does this node.
    assert_eq!(
        sent_to(&world.send(&from_pod("203.0.113.7", 80))).0,
        "10.244.1.8:8080"
    );
    let from_here = Packet {
        source: ip("192.0.2.1"),
        ..from_outside("203.0.113.7", 80)
    };
    assert_eq!(
        sent_to(&world.send(&from_here)),
        ("10.244.1.8:8080".to_owned(), true)
    );
}

#[test]
fn internal_traffic_local_uses_local_endpoints_only() {
    let local = |endpoints: &[(&str, bool)]| ServicePort {
        internal_traffic_local: true,
        ..port(endpoints)
    };
    let mut world = Cluster::with(local(&[("10.244.0.7", true), ("10.244.1.8", false)])).world();
    for random in 0..3 {
        assert_eq!(
            sent_to(&world.send(&Packet {
                random,
                ..from_pod("10.96.0.9", 80)
            }))
            .0,
            "10.244.0.7:8080"
        );
    }
    let mut world = Cluster::with(local(&[("10.244.1.8", false)])).world();
    assert_eq!(world.send(&from_pod("10.96.0.9", 80)), Fate::Dropped);
}

#[test]
fn session_affinity_remembers_until_the_endpoint_goes() {
    let sticky = |endpoints: &[(&str, bool)]| ServicePort {
        affinity_seconds: Some(60),
        ..port(endpoints)
    };
    let mut cluster = Cluster::with(sticky(&[("10.244.0.7", true), ("10.244.1.8", false)]));
    let mut world = cluster.world();
    let first = sent_to(&world.send(&Packet {
        random: 1,
        ..from_pod("10.96.0.9", 80)
    }))
    .0;
    let second = sent_to(&world.send(&Packet {
        random: 0,
        ..from_pod("10.96.0.9", 80)
    }))
    .0;
    assert_eq!((first.as_str(), &second), ("10.244.1.8:8080", &first));
    // The node port of the same Service sends the same client to the same endpoint.
    assert_eq!(
        sent_to(&world.send(&Packet {
            random: 0,
            ..from_pod("192.0.2.1", 30080)
        }))
        .0,
        first
    );
    cluster.set("web", Some(sticky(&[("10.244.0.7", true)])));
    world.apply(cluster.fake.lock().unwrap().batches.last().unwrap());
    assert_eq!(
        sent_to(&world.send(&Packet {
            random: 0,
            ..from_pod("10.96.0.9", 80)
        }))
        .0,
        "10.244.0.7:8080"
    );
}

#[test]
fn any_sequence_of_changes_ends_where_a_fresh_start_does() {
    let mut random = 0x9e37_79b9_u32;
    let mut next = move |below: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 16) % below
    };
    let mut cluster = Cluster::new();
    let mut desired: std::collections::BTreeMap<String, ServicePort> = Default::default();
    for _ in 0..300 {
        let number = next(6);
        let name = format!("svc-{number}");
        let value = (next(4) != 0).then(|| {
            let endpoints: Vec<(String, bool)> = (0..next(5))
                .map(|at| (format!("10.244.{}.{}", next(2), at + next(3)), next(2) == 0))
                .collect();
            let mut value = port(
                &endpoints
                    .iter()
                    .map(|(ip, local)| (ip.as_str(), *local))
                    .collect::<Vec<_>>(),
            );
            value.endpoints.sort();
            value.endpoints.dedup_by_key(|endpoint| endpoint.ip);
            value.local_endpoints = value
                .endpoints
                .iter()
                .filter(|endpoint| endpoint.local)
                .copied()
                .collect();
            value.cluster_ip = ip(&format!("10.96.0.{number}"));
            value.node_port = (next(2) == 0).then_some(30000 + number as u16);
            value.external_traffic_local = next(3) == 0;
            value.affinity_seconds = (next(4) == 0).then_some(60);
            // External IPs collide on purpose, with each other and with cluster IPs.
            value.external_ips = match next(4) {
                0 => vec![ip("203.0.113.7")],
                1 => vec![ip(&format!("10.96.0.{}", next(6)))],
                _ => Vec::new(),
            };
            value.load_balancer_ips = if next(4) == 0 {
                vec![ip("203.0.113.9")]
            } else {
                Vec::new()
            };
            value.load_balancer_sources = if next(2) == 0 {
                vec![(ip("198.51.100.0"), 24)]
            } else {
                Vec::new()
            };
            value
        });
        cluster.set(&name, value.clone());
        match value {
            Some(value) => drop(desired.insert(name, value)),
            None => drop(desired.remove(&name)),
        }
        let mut fresh = Cluster::new();
        for (name, value) in &desired {
            fresh
                .proxier
                .set_service("default", name, vec![("http".to_owned(), value.clone())]);
        }
        fresh.proxier.sync().unwrap();
        assert_eq!(cluster.world().elements(), fresh.world().elements());
    }
}

#[test]
fn source_ranges_close_a_load_balancer_to_others() {
    let restricted = ServicePort {
        load_balancer_ips: vec![ip("203.0.113.8")],
        load_balancer_sources: vec![(ip("198.51.100.0"), 24)],
        ..port(&[("10.244.0.7", true)])
    };
    let mut world = Cluster::with(restricted).world();
    assert_eq!(
        sent_to(&world.send(&from_outside("203.0.113.8", 80))).0,
        "10.244.0.7:8080"
    );
    let other = Packet {
        source: ip("192.0.2.77"),
        ..from_outside("203.0.113.8", 80)
    };
    assert_eq!(world.send(&other), Fate::Dropped);
    // The ranges are the load balancer's: the node port and external IPs stay open.
    let external = Packet {
        source: ip("192.0.2.77"),
        ..from_outside("203.0.113.7", 80)
    };
    assert_eq!(sent_to(&world.send(&external)).0, "10.244.0.7:8080");
}

#[test]
fn an_external_ip_that_is_a_cluster_ip_does_not_take_it_over() {
    let mut cluster = Cluster::with(port(&[("10.244.0.7", true)]));
    let mut thief = port(&[("10.244.0.66", true)]);
    (thief.cluster_ip, thief.node_port, thief.external_ips) = (ip("10.96.0.66"), None, vec![ip("10.96.0.9")]);
    cluster.set("a-thief", Some(thief));
    assert_eq!(
        sent_to(&cluster.world().send(&from_pod("10.96.0.9", 80))).0,
        "10.244.0.7:8080"
    );
}

#[test]
fn one_more_service_costs_a_handful_of_operations() {
    let mut cluster = Cluster::with(port(&[("10.244.0.7", true)]));
    let mut other = port(&[("10.244.0.9", true)]);
    (other.cluster_ip, other.node_port, other.external_ips) = (ip("10.96.0.10"), None, Vec::new());
    cluster.set("other", Some(other));
    assert!(cluster.last_batch_len() <= 5, "{}", cluster.last_batch_len());
}

#[test]
fn an_unchanged_service_commits_nothing() {
    let mut cluster = Cluster::with(port(&[("10.244.0.7", true)]));
    let before = cluster.fake.lock().unwrap().batches.len();
    cluster.set("web", Some(port(&[("10.244.0.7", true)])));
    assert_eq!(cluster.fake.lock().unwrap().batches.len(), before);
}

#[test]
fn after_a_refusal_the_whole_table_is_replaced() {
    let mut cluster = Cluster::with(port(&[("10.244.0.7", true)]));
    cluster.fake.lock().unwrap().refuse = 1;
    cluster.set("web", Some(port(&[("10.244.0.8", true)])));
    assert_eq!(
        sent_to(&cluster.world().send(&from_pod("10.96.0.9", 80))).0,
        "10.244.0.8:8080"
    );
}
