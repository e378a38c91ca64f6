//! The real kernel, in a network namespace of this test's own: a client, a node and two endpoints on veth pairs.
//!
//! A thread enters the namespace by `setns`, so the sockets that it opens afterwards are the namespace's. Needs root and
//! the `ip`, `nc` and `conntrack` programs; says so and passes where they are missing.

use std::process::{Command, Output};

use super::{ip, port, settings};
use crate::conntrack::{self, Expected};
use crate::nft::{Family, Netlink};
use crate::proxier::Proxier;
use crate::ruleset::{Endpoint, Protocol, ServicePort, Settings};

struct Namespace(String);

impl Namespace {
    fn new(name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: network namespaces need root");
            return None;
        }
        let namespace = Self(format!("kp-{name}-{}", std::process::id()));
        if !Command::new("ip")
            .args(["netns", "add", &namespace.0])
            .status()
            .is_ok_and(|status| status.success())
        {
            println!("skipped: `ip netns add` does not work here");
            return None;
        }
        namespace.run("ip link set lo up");
        Some(namespace)
    }

    fn command(&self, line: &str) -> Output {
        let words = line.split_whitespace();
        Command::new("ip")
            .args(["netns", "exec", &self.0])
            .args(words)
            .output()
            .unwrap()
    }

    fn run(&self, line: &str) -> String {
        let output = self.command(line);
        assert!(
            output.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `act` on a thread inside the namespace.
    fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.0);
        std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    let file = std::fs::File::open(path).unwrap();
                    rustix::thread::move_into_link_name_space(
                        std::os::fd::AsFd::as_fd(&file),
                        Some(rustix::thread::LinkNameSpaceType::Network),
                    )
                    .unwrap();
                    act()
                })
                .join()
                .unwrap()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What is left of it goes with the machine; a failed clean-up must not hide the test's own failure.
        Command::new("ip")
            .args(["netns", "delete", &self.0])
            .status()
            .ok();
    }
}

fn proxier(settings: Settings) -> Proxier<Netlink> {
    Proxier::new(Netlink::open().unwrap(), settings)
}

/// Serves one byte stream on each endpoint: its own address.
fn listen(addresses: &[&str]) {
    for address in addresses {
        let listener = std::net::TcpListener::bind((*address, 8080)).unwrap();
        let address = (*address).to_owned();
        std::thread::spawn(move || {
            while let Ok((mut stream, peer)) = listener.accept() {
                std::io::Write::write_all(&mut stream, format!("{address} {}", peer.ip()).as_bytes())
                    .unwrap();
            }
        });
    }
}

fn ask(destination: (&str, u16)) -> std::io::Result<String> {
    let address = std::net::SocketAddr::new(ip(destination.0), destination.1);
    let mut stream = std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_secs(2))?;
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer)?;
    Ok(answer)
}

#[test]
fn the_kernel_takes_the_rules_and_balances_a_cluster_ip() {
    let Some(namespace) = Namespace::new("lb") else {
        return;
    };
    for address in ["10.244.0.7/32", "10.244.0.8/32", "192.0.2.1/24"] {
        namespace.run(&format!("ip address add {address} dev lo"));
    }
    namespace.run("ip route add default dev lo");
    namespace.inside(|| {
        listen(&["10.244.0.7", "10.244.0.8"]);
        let mut proxier = proxier(settings());
        proxier.set_service(
            "default",
            "web",
            vec![("".into(), port(&[("10.244.0.7", true), ("10.244.0.8", true)]))],
        );
        proxier.sync().unwrap();
        for destination in [("10.96.0.9", 80), ("192.0.2.1", 30080), ("203.0.113.7", 80)] {
            let answers: std::collections::BTreeSet<String> = (0..40)
                .map(|_| ask(destination).unwrap().split(' ').next().unwrap().to_owned())
                .collect();
            assert_eq!(answers.len(), 2, "{destination:?}: {answers:?}");
        }
        let refused = ask(("10.96.0.9", 81)).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        proxier.set_service("default", "web", vec![("".into(), port(&[]))]);
        proxier.sync().unwrap();
        assert_eq!(
            ask(("10.96.0.9", 80)).unwrap_err().kind(),
            std::io::ErrorKind::ConnectionRefused
        );
        proxier.cleanup().unwrap();
    });
}

#[test]
fn the_kernel_keeps_a_client_with_its_endpoint() {
    let Some(namespace) = Namespace::new("affinity") else {
        return;
    };
    for address in ["10.244.0.7/32", "10.244.0.8/32"] {
        namespace.run(&format!("ip address add {address} dev lo"));
    }
    namespace.run("ip route add default dev lo");
    namespace.inside(|| {
        listen(&["10.244.0.7", "10.244.0.8"]);
        let mut proxier = proxier(settings());
        let sticky = ServicePort {
            affinity_seconds: Some(60),
            ..port(&[("10.244.0.7", true), ("10.244.0.8", true)])
        };
        proxier.set_service("default", "web", vec![("".into(), sticky)]);
        proxier.sync().unwrap();
        let answers: std::collections::BTreeSet<String> =
            (0..20).map(|_| ask(("10.96.0.9", 80)).unwrap()).collect();
        assert_eq!(answers.len(), 1, "{answers:?}");
    });
}

#[test]
fn a_foreign_hand_in_the_table_is_repaired() {
    let Some(namespace) = Namespace::new("repair") else {
        return;
    };
    namespace.run("ip address add 10.244.0.7/32 dev lo");
    namespace.run("ip route add default dev lo");
    let spoil = || namespace.run("nft delete table ip kube-proxy");
    namespace.inside(|| {
        listen(&["10.244.0.7"]);
        let mut proxier = proxier(settings());
        proxier.set_service("default", "web", vec![("".into(), port(&[]))]);
        proxier.sync().unwrap();
        spoil();
        proxier.set_service("default", "web", vec![("".into(), port(&[("10.244.0.7", true)]))]);
        proxier.sync().unwrap();
        assert!(ask(("10.96.0.9", 80)).unwrap().starts_with("10.244.0.7"));
    });
}

#[test]
fn ipv6_rules_are_taken_too() {
    let Some(namespace) = Namespace::new("v6") else {
        return;
    };
    namespace.run("ip -6 address add fd00:10::7/128 dev lo");
    namespace.run("ip -6 route add default dev lo");
    namespace.inside(|| {
        listen(&["fd00:10::7"]);
        let v6 = Settings {
            family: Family::Ipv6,
            cluster_cidrs: vec![(ip("fd00:10::"), 64)],
            ..settings()
        };
        let mut proxier = proxier(v6);
        let service = ServicePort {
            cluster_ip: ip("fd00:96::9"),
            external_ips: Vec::new(),
            affinity_seconds: Some(60),
            load_balancer_ips: vec![ip("fd00:1b::9")],
            load_balancer_sources: vec![(ip("fd00:77::"), 64)],
            endpoints: vec![Endpoint {
                ip: ip("fd00:10::7"),
                port: 8080,
                local: true,
            }],
            ..port(&[])
        };
        proxier.set_service("default", "web", vec![("".into(), service)]);
        proxier.sync().unwrap();
        for _ in 0..3 {
            assert!(ask(("fd00:96::9", 80)).unwrap().starts_with("fd00:10::7"));
        }
    });
}

#[test]
fn udp_flows_to_a_removed_endpoint_are_forgotten() {
    let Some(namespace) = Namespace::new("udp") else {
        return;
    };
    for address in ["10.244.0.7/32", "10.244.0.8/32", "192.0.2.1/24"] {
        namespace.run(&format!("ip address add {address} dev lo"));
    }
    namespace.run("ip route add default dev lo");
    namespace.inside(|| {
        let endpoint = |address: &str| {
            let socket = std::net::UdpSocket::bind((address, 8080)).unwrap();
            socket
                .set_read_timeout(Some(std::time::Duration::from_secs(2)))
                .unwrap();
            socket
        };
        let (first, second) = (endpoint("10.244.0.7"), endpoint("10.244.0.8"));
        let service = |address| ServicePort {
            protocol: Protocol::Udp,
            ..port(&[(address, true)])
        };
        let mut proxier = proxier(settings());
        proxier.set_service("default", "dns", vec![("".into(), service("10.244.0.7"))]);
        proxier.sync().unwrap();
        let client = std::net::UdpSocket::bind("192.0.2.1:5353").unwrap();
        let mut buffer = [0u8; 16];
        client.send_to(b"one", "10.96.0.9:80").unwrap();
        first.recv(&mut buffer).unwrap();
        proxier.set_service("default", "dns", vec![("".into(), service("10.244.0.8"))]);
        proxier.sync().unwrap();
        let mut expected = Expected::default();
        expected.add(&service("10.244.0.8"), &service("10.244.0.8"));
        assert_eq!(conntrack::reconcile(&expected, Family::Ipv4).unwrap(), 1);
        client.send_to(b"two", "10.96.0.9:80").unwrap();
        let (len, _) = second.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"two");
    });
}
