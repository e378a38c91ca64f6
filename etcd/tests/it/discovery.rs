//! Members that find each other in another etcd, and by DNS.

use std::io::Write as _;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::harness::{ETCDCTL, Etcd, prefix, put};
use crate::members::Cluster;

const REGISTRY: &str = "/_etcd/registry/the-token";

#[tokio::test]
async fn members_meet_in_another_etcd() {
    let meeting = Etcd::start();
    let mut kv = meeting.kv().await;
    let size = format!("{REGISTRY}/_config/size");
    let flags = [
        format!(
            "--discovery-endpoints=127.0.0.1:1,http://127.0.0.1:{}",
            meeting.port
        ),
        "--discovery-token=the-token".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    // Nobody has said how many there will be.
    let mut cluster = Cluster::new(4, None, &flags);
    cluster.spawn(0, "new", &[]);
    cluster.nodes[0].ends();
    let log = cluster.nodes[0].log();
    assert!(log.contains("size key not found") && log.contains(&size), "{log}");
    kv.put(put(size, "3")).await.unwrap();
    for place in 0..3 {
        cluster.spawn(place, "new", &[]);
    }
    cluster.wait_ready().await;
    cluster.agree().await;
    let members = kv.range(prefix(&format!("{REGISTRY}/members/"))).await.unwrap();
    let members = members.into_inner().kvs;
    assert_eq!(members.len(), 3);
    let written = String::from_utf8_lossy(&members[0].value).into_owned();
    assert!(written.contains("=http://127.0.0.1:"), "{written}");
    // A fourth comes too late, and one that has its data asks nobody.
    cluster.spawn(3, "new", &[]);
    cluster.nodes[3].ends();
    assert!(
        cluster.nodes[3].log().contains("discovery: cluster is full"),
        "{}",
        cluster.nodes[3].log()
    );
    drop(meeting);
    cluster.nodes[1].kill();
    cluster.spawn(1, "new", &[]);
    cluster.wait_ready().await;
}

/// A name server for cluster.test, where a process that believes in it finds it. Its thread ends with the test's process.
struct NameServer {
    resolv_conf: PathBuf,
}

const ADDRESS: &str = "127.0.0.153";

impl NameServer {
    /// None where port 53 is not ours, with the reason printed.
    fn start(folder: &Path, server_ports: Vec<u16>, client_ports: Vec<u16>) -> Option<NameServer> {
        let socket = match UdpSocket::bind((ADDRESS, 53)) {
            Ok(socket) => socket,
            Err(error) => {
                eprintln!("skipped: {ADDRESS}:53: {error} (run as root)");
                return None;
            }
        };
        std::thread::spawn(move || {
            let mut packet = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut packet) {
                let answer = answer(&packet[..length], &server_ports, &client_ports);
                // Who asked may have left.
                socket.send_to(&answer, from).ok();
            }
        });
        let resolv_conf = folder.join("resolv.conf");
        std::fs::write(&resolv_conf, format!("nameserver {ADDRESS}\n")).unwrap();
        Some(NameServer { resolv_conf })
    }

    /// A program that runs another one in a world with this name server.
    fn believing(&self, program: &Path) -> PathBuf {
        let name = program.file_name().unwrap().to_string_lossy();
        let script = self.resolv_conf.with_file_name(format!("believing-{name}"));
        let mut file = std::fs::File::create(&script).unwrap();
        let inner = format!(
            "mount --bind {} /etc/resolv.conf && exec {} \"$@\"",
            self.resolv_conf.display(),
            program.display()
        );
        writeln!(file, "#!/bin/sh\nexec unshare --mount sh -c '{inner}' sh \"$@\"").unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        script
    }
}

fn name_of(packet: &[u8]) -> (String, usize) {
    let (mut at, mut labels) = (12, Vec::new());
    while packet[at] != 0 {
        let length = usize::from(packet[at]);
        labels.push(String::from_utf8_lossy(&packet[at + 1..at + 1 + length]).to_lowercase());
        at += 1 + length;
    }
    (labels.join("."), at + 5)
}

fn answer(packet: &[u8], server_ports: &[u16], client_ports: &[u16]) -> Vec<u8> {
    let (name, end) = name_of(packet);
    let kind = packet[end - 3];
    let mut out = packet[..end].to_vec();
    out[2] |= 0x80;
    out[10..12].fill(0);
    let ports = match name.as_str() {
        "_etcd-server._tcp.cluster.test" => server_ports,
        "_etcd-client._tcp.cluster.test" => client_ports,
        _ => &[],
    };
    let mut records: Vec<Vec<u8>> = Vec::new();
    if kind == 33 {
        records.extend(ports.iter().enumerate().map(|(number, port)| {
            let mut data = vec![0, 1, 0, 1];
            data.extend_from_slice(&port.to_be_bytes());
            for label in [&*format!("m{number}"), "cluster", "test"] {
                data.push(label.len() as u8);
                data.extend_from_slice(label.as_bytes());
            }
            data.push(0);
            data
        }));
    }
    let is_host = name.starts_with('m') && name.ends_with(".cluster.test");
    if kind == 1 && is_host {
        records.push(vec![127, 0, 0, 1]);
    }
    if records.is_empty() && !is_host {
        out[3] = (out[3] & 0xf0) | 3;
    }
    out[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
    for data in records {
        out.extend_from_slice(&[0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60]);
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        out.extend_from_slice(&data);
    }
    out
}

#[tokio::test]
async fn members_and_clients_find_each_other_by_dns() {
    let folder = TempDir::new().unwrap();
    let mut cluster = Cluster::new(3, None, &["--discovery-srv=cluster.test"]);
    let ports = cluster.nodes.iter().map(|node| node.peer_port).collect();
    let client_ports = cluster.nodes.iter().map(|node| node.port).collect();
    let Some(names) = NameServer::start(folder.path(), ports, client_ports) else {
        return;
    };
    // A member that no record names says so.
    let believing = names.believing(Path::new(env!("CARGO_BIN_EXE_etcd")));
    let stranger = Command::new(&believing)
        .arg(format!("--data-dir={}", folder.path().join("x").display()))
        .args(["--name=x", "--discovery-srv=cluster.test"])
        .args([
            "--listen-client-urls=http://127.0.0.1:0",
            "--advertise-client-urls=http://127.0.0.1:1",
        ])
        .args([
            "--listen-peer-urls=http://127.0.0.1:0",
            "--initial-advertise-peer-urls=http://127.0.0.1:1",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&stranger.stderr).into_owned();
    assert!(
        !stranger.status.success() && said.contains("cannot find local etcd member"),
        "{said}"
    );
    for place in 0..3 {
        cluster.nodes[place].binary = believing.clone();
        cluster.spawn(place, "new", &[]);
    }
    cluster.wait_ready().await;
    cluster.agree().await;
    let log = cluster.nodes[0].log();
    assert!(
        log.contains("got bootstrap from DNS for etcd-server") && log.contains("m2.cluster.test"),
        "{log}"
    );
    if !Path::new(ETCDCTL).exists() {
        return;
    }
    let listed = Command::new(names.believing(Path::new(ETCDCTL)))
        .env("ETCDCTL_API", "3")
        .args([
            "--discovery-srv=cluster.test",
            "--insecure-discovery",
            "member",
            "list",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert_eq!(
        text.lines().count(),
        3,
        "{text}{}",
        String::from_utf8_lossy(&listed.stderr)
    );
    assert!(text.contains("http://m1.cluster.test:"), "{text}");
}
