//! What a change costs, against the real kernel: `unshare -n cargo bench -p kube-proxy --bench sync`.
//!
//! Prints, for 10,000 Services with one endpoint and for 45,000 with five: the cold start (the table as a whole), one more
//! Service, one changed endpoint, and the resident memory afterwards.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use kube_proxy::nft::{Family, Netlink};
use kube_proxy::proxier::Proxier;
use kube_proxy::ruleset::{Endpoint, Protocol, ServicePort, Settings};

fn main() {
    for (services, endpoints) in [(10_000, 1), (45_000, 5)] {
        if let Err(error) = measure(services, endpoints) {
            eprintln!("{services} services: {error} (run as root, in a network namespace: unshare -n)");
        }
    }
}

fn measure(services: u32, endpoints: u32) -> Result<(), Box<dyn std::error::Error>> {
    let settings = Settings {
        family: Family::Ipv4,
        masquerade_bit: 14,
        masquerade_all: false,
        cluster_cidrs: vec![(IpAddr::V4(Ipv4Addr::new(10, 128, 0, 0)), 9)],
        node_port_cidrs: Vec::new(),
    };
    let mut proxier = Proxier::new(Netlink::open()?, settings);
    for index in 0..services {
        proxier.set_service(
            "bench",
            &format!("service-{index}"),
            vec![(String::new(), port(index, endpoints))],
        );
    }
    let cold = timed(|| proxier.sync())?;
    proxier.set_service(
        "bench",
        "one-more",
        vec![(String::new(), port(services, endpoints))],
    );
    let added = timed(|| proxier.sync())?;
    proxier.set_service(
        "bench",
        "service-0",
        vec![(String::new(), port(0, endpoints + 1))],
    );
    let changed = timed(|| proxier.sync())?;
    println!(
        "{services} services x {endpoints} endpoints: cold {cold:?}, one more service {added:?}, one more endpoint {changed:?}, resident {}",
        resident()?
    );
    proxier.cleanup()?;
    Ok(())
}

fn timed<E>(act: impl FnOnce() -> Result<(), E>) -> Result<Duration, E> {
    let began = Instant::now();
    act()?;
    Ok(began.elapsed())
}

fn port(index: u32, endpoints: u32) -> ServicePort {
    let address = |first: u8, number: u32| IpAddr::V4(Ipv4Addr::from((u32::from(first) << 24) + number));
    let endpoints = (0..endpoints)
        .map(|at| Endpoint {
            ip: address(10, (1 << 23) + index * 8 + at),
            port: 8080,
            local: false,
        })
        .collect();
    ServicePort {
        cluster_ip: address(11, index),
        protocol: Protocol::Tcp,
        port: 80,
        node_port: None,
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        load_balancer_sources: Vec::new(),
        local_endpoints: Vec::new(),
        internal_traffic_local: false,
        external_traffic_local: false,
        affinity_seconds: None,
        endpoints,
    }
}

fn resident() -> Result<String, std::io::Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    Ok(status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .map_or_else(String::new, |line| {
            line.trim_start_matches("VmRSS:").trim().to_owned()
        }))
}
