//! Members of one cluster, each a real process: started, killed, stopped, cut off, and asked.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_api::etcdserverpb::kv_client::KvClient;
use etcd_api::etcdserverpb::maintenance_client::MaintenanceClient;
use etcd_api::etcdserverpb::{HashKvRequest, RangeRequest, StatusRequest, StatusResponse};
use free_port::free_port;
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::etcdctl::wait_for;
use crate::full_disk::Tmpfs;
use crate::harness::etcdctl;
use crate::network::{ADDRESSES, Address, Network, enter};
use crate::tls::Pki;

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Node {
    pub name: String,
    pub port: u16,
    /// For clients that speak TLS, where the cluster does.
    pub tls_port: u16,
    pub peer_port: u16,
    pub dir: PathBuf,
    pub binary: PathBuf,
    pub child: Option<Child>,
    /// Where the other members find it.
    host: &'static str,
    namespace: Option<Arc<PathBuf>>,
}

pub struct Cluster {
    pub nodes: Vec<Node>,
    pub folder: TempDir,
    pub pki: Option<Pki>,
    pub flags: Vec<String>,
    /// What the members live on, and where: gone after they are.
    pub disks: Vec<Tmpfs>,
    pub network: Option<Network>,
}

impl Node {
    pub fn new(folder: &TempDir, number: usize) -> Node {
        Node {
            name: format!("m{number}"),
            port: free_port(),
            tls_port: free_port(),
            peer_port: free_port(),
            dir: folder.path().join(format!("m{number}")),
            binary: env!("CARGO_BIN_EXE_etcd").into(),
            child: None,
            host: "127.0.0.1",
            namespace: None,
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.with_extension("log")).unwrap_or_default()
    }

    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Waits until it has ended by itself.
    pub fn ends(&mut self) {
        let child = self.child.as_mut().unwrap();
        wait_for(|| child.try_wait().unwrap().is_some());
        self.child = None;
    }

    pub fn signal(&self, signal: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &id])
                .status()
                .unwrap()
                .success()
        );
    }

    pub fn address(&self) -> Address {
        Address {
            port: self.port,
            namespace: self.namespace.clone(),
        }
    }

    pub async fn channel(&self) -> Channel {
        self.address().channel()
    }

    pub async fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel().await)
    }

    pub async fn status(&self) -> Option<StatusResponse> {
        let mut client = MaintenanceClient::new(self.channel().await);
        let status = tokio::time::timeout(Duration::from_secs(2), client.status(StatusRequest {}));
        Some(status.await.ok()?.ok()?.into_inner())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if std::thread::panicking() {
                let log = node.log();
                let tail: Vec<&str> = log.lines().rev().take(40).collect();
                eprintln!(
                    "--- {}\n{}",
                    node.name,
                    tail.into_iter().rev().collect::<Vec<_>>().join("\n")
                );
            }
            if let Some(mut child) = node.child.take() {
                // It may have ended already.
                child.kill().ok();
                child.wait().ok();
            }
        }
    }
}

impl Cluster {
    pub fn new(count: usize, pki: Option<Pki>, flags: &[&str]) -> Cluster {
        let folder = TempDir::new().unwrap();
        Cluster {
            nodes: (0..count).map(|number| Node::new(&folder, number)).collect(),
            folder,
            pki,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            disks: Vec::new(),
            network: None,
        }
    }

    pub async fn start(count: usize, pki: Option<Pki>, flags: &[&str]) -> Cluster {
        let mut cluster = Cluster::new(count, pki, flags);
        cluster.start_all().await;
        cluster
    }

    /// Three members in namespaces of their own. None where these cannot be made, with the reason printed.
    pub async fn start_in_namespaces(pki: Option<Pki>, flags: &[&str]) -> Option<Cluster> {
        let mut cluster = Cluster::new(ADDRESSES.len(), pki, flags);
        let network = Network::new()?;
        for (place, node) in cluster.nodes.iter_mut().enumerate() {
            node.host = ADDRESSES[place];
            node.namespace = Some(Arc::new(network.namespace(place)));
        }
        cluster.network = Some(network);
        cluster.start_all().await;
        Some(cluster)
    }

    /// Three members, each on a small disk of its own. None where these cannot be mounted, with the reason printed.
    pub async fn start_on_disks(megabytes: usize, pki: Option<Pki>, flags: &[&str]) -> Option<Cluster> {
        let mut cluster = Cluster::new(3, pki, flags);
        for node in &cluster.nodes {
            cluster.disks.push(Tmpfs::mount_at(&node.dir, megabytes)?);
        }
        cluster.start_all().await;
        Some(cluster)
    }

    async fn start_all(&mut self) {
        for place in 0..self.nodes.len() {
            self.spawn(place, "new", &[]);
        }
        self.wait_ready().await;
    }

    pub fn addresses(&self) -> Vec<Address> {
        self.nodes.iter().map(Node::address).collect()
    }

    pub fn scheme(&self) -> &'static str {
        let auto = self.flags.iter().any(|flag| flag == "--peer-auto-tls");
        if auto || self.pki.is_some() {
            "https"
        } else {
            "http"
        }
    }

    pub fn initial_cluster(&self) -> String {
        let member = |node: &Node| {
            format!(
                "{}={}://{}:{}",
                node.name,
                self.scheme(),
                node.host,
                node.peer_port
            )
        };
        self.nodes.iter().map(member).collect::<Vec<_>>().join(",")
    }

    pub fn spawn(&mut self, place: usize, state: &str, extra: &[&str]) {
        let (scheme, initial) = (self.scheme(), self.initial_cluster());
        let node = &self.nodes[place];
        let plain = format!("http://127.0.0.1:{}", node.port);
        let peer = format!("{scheme}://{}:{}", node.host, node.peer_port);
        let (listen, advertise) = match &self.pki {
            None => (plain.clone(), plain),
            Some(_) => {
                let secure = format!("https://127.0.0.1:{}", node.tls_port);
                (format!("{plain},{secure}"), secure)
            }
        };
        let mut command = match &node.namespace {
            None => Command::new(&node.binary),
            Some(namespace) => enter(namespace, &node.binary),
        };
        command
            .arg(format!("--name={}", node.name))
            .arg(format!("--data-dir={}", node.dir.display()))
            .arg(format!("--listen-client-urls={listen}"))
            .arg(format!("--advertise-client-urls={advertise}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster-state={state}"))
            .args(&self.flags)
            .args(extra)
            .stdin(Stdio::null())
            .env_remove("NOTIFY_SOCKET");
        if !self.flags.iter().any(|flag| flag.starts_with("--discovery")) {
            command.arg(format!("--initial-cluster={initial}"));
        }
        if let Some(pki) = &self.pki {
            for (flag, file) in [
                ("cert", "server.crt"),
                ("key", "server.key"),
                ("trusted-ca", "ca.crt"),
            ] {
                command.arg(format!("--peer-{flag}-file={}", pki.path(file).display()));
                if flag != "trusted-ca" {
                    command.arg(format!("--{flag}-file={}", pki.path(file).display()));
                }
            }
            command.arg("--peer-client-cert-auth");
        }
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(node.dir.with_extension("log"))
            .unwrap();
        self.nodes[place].child = Some(command.stderr(log).spawn().unwrap());
    }

    pub async fn wait_ready(&self) {
        for node in &self.nodes {
            self.until(&format!("{} serves", node.name), async || {
                node.child.is_none() || node.status().await.is_some_and(|status| status.leader != 0)
            })
            .await;
        }
    }

    pub async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let start = Instant::now();
        while !condition().await {
            assert!(start.elapsed() < PATIENCE, "never: {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The place of whoever leads, as most of those who answer say.
    pub async fn leader(&self) -> usize {
        self.leader_but(usize::MAX).await
    }

    /// The same without asking one of them.
    pub async fn leader_but(&self, besides: usize) -> usize {
        let start = Instant::now();
        loop {
            for (place, node) in self
                .nodes
                .iter()
                .enumerate()
                .filter(|(place, node)| *place != besides && node.child.is_some())
            {
                if let Some(status) = node.status().await
                    && status.leader == status.header.unwrap().member_id
                {
                    return place;
                }
            }
            assert!(start.elapsed() < PATIENCE, "nobody leads");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn id(&self, place: usize) -> u64 {
        self.nodes[place]
            .status()
            .await
            .unwrap()
            .header
            .unwrap()
            .member_id
    }

    pub async fn term(&self, place: usize) -> u64 {
        let status = self.nodes[place].status().await.unwrap();
        status.header.unwrap().raft_term
    }

    /// What etcdctl prints when it succeeds. None when it is not installed.
    pub fn ctl(&self, place: usize, args: &[&str]) -> Option<String> {
        let endpoint = format!("--endpoints={}", self.nodes[place].endpoint());
        let output = etcdctl(&[&[endpoint.as_str()], args].concat(), "")?;
        assert!(
            output.status.success(),
            "etcdctl {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub fn ctl_fails(&self, place: usize, args: &[&str]) -> String {
        let endpoint = format!("--endpoints={}", self.nodes[place].endpoint());
        let output = etcdctl(&[&[endpoint.as_str()], args].concat(), "").unwrap();
        assert!(!output.status.success(), "etcdctl {args:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// All members have the same keys.
    pub async fn agree(&self) {
        let newest = self.nodes[self.leader().await].status().await.unwrap();
        let revision = newest.header.unwrap().revision;
        let mut hashes = HashMap::new();
        for node in self.nodes.iter().filter(|node| node.child.is_some()) {
            self.until(&format!("{} has revision {revision}", node.name), async || {
                node.status()
                    .await
                    .is_some_and(|status| status.header.unwrap().revision >= revision)
            })
            .await;
            let mut client = MaintenanceClient::new(node.channel().await);
            let hash = client
                .hash_kv(HashKvRequest { revision })
                .await
                .unwrap()
                .into_inner();
            hashes.insert(node.name.clone(), (hash.hash, hash.compact_revision));
        }
        let first = hashes.values().next().unwrap();
        assert!(hashes.values().all(|hash| hash == first), "{hashes:?}");
    }
}

pub fn serializable(key: &str) -> RangeRequest {
    RangeRequest {
        key: key.to_owned().into(),
        serializable: true,
        ..Default::default()
    }
}

/// The value of the only key, when the answer came.
pub async fn read(node: &Node, request: RangeRequest) -> Option<Vec<u8>> {
    let response = node.kv().await.range(request).await.ok()?.into_inner();
    response.kvs.first().map(|kv| kv.value.to_vec())
}
