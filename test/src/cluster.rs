//! A cluster: certificates, etcd, the API server and what a test asks for beside them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::command::{self, Output};
use crate::process::Process;
use crate::wait::until;
use crate::world::{World, why_not_own};
use crate::{binaries, node};

/// Debug builds on a busy two-core machine are slow; nothing waits this long when all is well.
pub const START_LIMIT: Duration = Duration::from_secs(60);
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
pub const CLUSTER_CIDR: &str = "10.244.0.0/16";
pub const NODE_NAME: &str = "node-1";

/// The processes of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Daemon {
    Etcd,
    /// With [`Builder::three_members`].
    Etcd2,
    Etcd3,
    ApiServer,
    ControllerManager,
    Scheduler,
    Containerd,
    Kubelet,
    Proxy,
}

impl Daemon {
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Etcd2 => "etcd-2",
            Self::Etcd3 => "etcd-3",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::Proxy => "kube-proxy",
        }
    }

    /// A member's place among [`MEMBERS`].
    fn place(self) -> usize {
        MEMBERS.iter().position(|member| *member == self).unwrap_or(0)
    }

    fn program(self) -> &'static str {
        match self {
            Self::Etcd2 | Self::Etcd3 => Self::Etcd.name(),
            other => other.name(),
        }
    }
}

/// The members of etcd, in the order of their ports.
pub const MEMBERS: [Daemon; 3] = [Daemon::Etcd, Daemon::Etcd2, Daemon::Etcd3];

/// What a test needs of a cluster. etcd and the API server are always there.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    name: String,
    three_members: bool,
    controller_manager: bool,
    scheduler: bool,
    node: bool,
    extra: Vec<(Daemon, String)>,
}

impl Builder {
    /// Two more of etcd.
    pub fn three_members(mut self) -> Self {
        self.three_members = true;
        self
    }

    pub fn controller_manager(mut self) -> Self {
        self.controller_manager = true;
        self
    }

    pub fn scheduler(mut self) -> Self {
        self.scheduler = true;
        self
    }

    /// containerd, kubelet and kube-proxy, in namespaces of their own; see [`Builder::skip_reason`].
    pub fn node(mut self) -> Self {
        self.node = true;
        self.scheduler().controller_manager()
    }

    /// One more flag for a daemon.
    pub fn flag(mut self, daemon: Daemon, flag: &str) -> Self {
        self.extra.push((daemon, flag.to_owned()));
        self
    }

    /// Why this cluster cannot run here.
    pub fn skip_reason(&self) -> Option<String> {
        if !self.node {
            return None;
        }
        why_not_own().or_else(|| binaries::image("pause").err().map(|e| format!("{e:#}")))
    }

    pub fn start(self) -> Result<Cluster> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("ferrokube-{}-", self.name))
            .tempdir()?;
        let mut cluster = Cluster::new(folder, self)?;
        cluster.start_all()?;
        Ok(cluster)
    }
}

pub struct Cluster {
    wanted: Builder,
    /// `None` once the evidence is given up by [`Cluster::finish`].
    folder: Option<TempDir>,
    path: PathBuf,
    /// Before the world, so that processes end before their namespaces do.
    processes: BTreeMap<Daemon, Process>,
    world: World,
    ports: Ports,
}

struct Ports {
    /// Of as many members as there are.
    etcd: Vec<EtcdPorts>,
    apiserver: u16,
    controller_manager: u16,
    scheduler: u16,
}

struct EtcdPorts {
    client: u16,
    peer: u16,
    metrics: u16,
}

impl Cluster {
    /// `name` appears in the folder's name.
    pub fn builder(name: &str) -> Builder {
        Builder {
            name: name.to_owned(),
            ..Builder::default()
        }
    }

    fn new(folder: TempDir, wanted: Builder) -> Result<Self> {
        let path = folder.path().to_owned();
        std::fs::create_dir(path.join("logs"))?;
        let world = if wanted.node {
            World::own(&path)?
        } else {
            World::Host
        };
        let members = if wanted.three_members { MEMBERS.len() } else { 1 };
        let member = |place: usize| {
            let first = 2379 + 10 * place as u16;
            anyhow::Ok(EtcdPorts {
                client: world.port(first)?,
                peer: world.port(first + 1)?,
                metrics: world.port(first + 2)?,
            })
        };
        let ports = Ports {
            etcd: (0..members).map(member).collect::<Result<_>>()?,
            apiserver: world.port(6443)?,
            controller_manager: world.port(10257)?,
            scheduler: world.port(10259)?,
        };
        Ok(Self {
            wanted,
            folder: Some(folder),
            path,
            processes: BTreeMap::new(),
            world,
            ports,
        })
    }

    /// The test has passed: every daemon must still be there, and the evidence goes. Without this call it is kept.
    pub fn finish(mut self) -> Result<()> {
        for process in self.processes.values_mut() {
            process.check()?;
        }
        self.processes.clear();
        if std::env::var_os("FERROKUBE_KEEP").is_none() {
            self.folder = None;
        }
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    /// A file of the PKI, such as `etcd/ca.crt`.
    pub fn pki(&self, file: &str) -> String {
        self.path.join("pki").join(file).display().to_string()
    }

    /// A kubeconfig by its name, such as `admin`.
    pub fn kubeconfig(&self, name: &str) -> String {
        self.path.join(format!("{name}.conf")).display().to_string()
    }

    pub fn url(&self) -> String {
        format!("https://{}:{}", self.world.address(), self.ports.apiserver)
    }

    pub fn process(&mut self, daemon: Daemon) -> Result<&mut Process> {
        self.processes
            .get_mut(&daemon)
            .with_context(|| format!("{} is not part of this cluster", daemon.name()))
    }

    fn start_all(&mut self) -> Result<()> {
        self.make_pki()?;
        for member in self.members() {
            self.start_daemon(*member)?;
        }
        self.start_daemon(Daemon::ApiServer)?;
        for member in self.members() {
            self.await_ready(*member)?;
        }
        self.await_ready(Daemon::ApiServer)?;
        self.bind_admins()?;
        let wanted = [
            (self.wanted.controller_manager, Daemon::ControllerManager),
            (self.wanted.scheduler, Daemon::Scheduler),
        ];
        for (_, daemon) in wanted.iter().filter(|(wanted, _)| *wanted) {
            self.start_daemon(*daemon)?;
        }
        if self.wanted.node {
            node::start(self)?;
        }
        for (_, daemon) in wanted.into_iter().filter(|(wanted, _)| *wanted) {
            self.await_ready(daemon)?;
        }
        Ok(())
    }

    /// As kubeadm: the group of admin.conf gets its rights from an object, super-admin.conf has them built in.
    fn bind_admins(&self) -> Result<()> {
        let group = "--group=kubeadm:cluster-admins";
        let create = [
            "create",
            "clusterrolebinding",
            "kubeadm:cluster-admins",
            "--clusterrole=cluster-admin",
            group,
        ];
        self.kubectl_as("super-admin", &create, None)?.ok()?;
        until("the administrators' rights", START_LIMIT, || {
            self.kubectl(&["get", "--raw", "/readyz"])?.ok()
        })?;
        Ok(())
    }

    fn make_pki(&self) -> Result<()> {
        let pki = binaries::find("pki")?.display().to_string();
        let (cert_dir, root) = (self.pki(""), self.path.display().to_string());
        let address = self.world.address();
        let args = [
            "init".to_owned(),
            format!("--cert-dir={cert_dir}"),
            format!("--kubeconfig-dir={root}"),
            format!("--kubelet-dir={cert_dir}/kubelet"),
            format!("--apiserver-advertise-address={address}"),
            format!("--apiserver-bind-port={}", self.ports.apiserver),
            "--apiserver-cert-extra-sans=127.0.0.1,localhost".to_owned(),
            format!("--node-name={NODE_NAME}"),
            format!("--node-ip={address}"),
            format!("--service-cidr={SERVICE_CIDR}"),
        ];
        let words: Vec<&str> = [pki.as_str()]
            .into_iter()
            .chain(args.iter().map(String::as_str))
            .collect();
        command::run(&World::Host, &words, &[], None)?.ok()?;
        Ok(())
    }

    /// Starts a daemon with its flags, without waiting for it.
    pub fn start_daemon(&mut self, daemon: Daemon) -> Result<()> {
        let mut command = vec![self.program(daemon)?];
        command.extend(self.flags(daemon));
        command.extend(
            self.wanted
                .extra
                .iter()
                .filter(|(d, _)| *d == daemon)
                .map(|(_, flag)| flag.clone()),
        );
        let process = Process::start(&self.world, &self.logs(), daemon.name(), command)?;
        self.processes.insert(daemon, process);
        Ok(())
    }

    fn program(&self, daemon: Daemon) -> Result<String> {
        let path = match daemon {
            Daemon::Containerd => binaries::on_path("containerd").context("containerd is not installed")?,
            ours => binaries::find(ours.program())?,
        };
        Ok(path.display().to_string())
    }

    /// SIGKILL; [`Cluster::restart`] brings it back with its data.
    pub fn kill(&mut self, daemon: Daemon) -> Result<()> {
        self.process(daemon)?.kill()
    }

    /// SIGTERM and a clean exit.
    pub fn stop(&mut self, daemon: Daemon) -> Result<()> {
        let status = self.process(daemon)?.stop()?;
        if !status.success() {
            bail!("{} ended with {status} after SIGTERM", daemon.name());
        }
        Ok(())
    }

    /// Starts a daemon that was killed or stopped, and waits until it is ready.
    pub fn restart(&mut self, daemon: Daemon) -> Result<()> {
        let process = self.processes.get_mut(&daemon).context("never started")?;
        process.restart(&self.world)?;
        self.await_ready(daemon)
    }

    /// Waits for the daemon's own word that it is ready.
    pub fn await_ready(&mut self, daemon: Daemon) -> Result<()> {
        let what = format!("{} ready", daemon.name());
        // A process that ended will not become ready: that error ends the wait at once.
        until(&what, START_LIMIT, || match self.process(daemon)?.check() {
            Ok(()) => self.ask_ready(daemon).map(Ok),
            Err(ended) => Ok(Err(ended)),
        })?
    }

    fn ask_ready(&self, daemon: Daemon) -> Result<()> {
        match daemon {
            Daemon::Etcd | Daemon::Etcd2 | Daemon::Etcd3 => self.curl_health(daemon.place())?,
            Daemon::ApiServer => self
                .kubectl_as("super-admin", &["get", "--raw", "/readyz"], None)?
                .ok()?,
            Daemon::ControllerManager => self.curl_healthz(self.ports.controller_manager)?,
            Daemon::Scheduler => self.curl_healthz(self.ports.scheduler)?,
            Daemon::Containerd => node::ctr(self, &["version"])?.ok()?,
            Daemon::Kubelet => self.curl("http://127.0.0.1:10248/healthz")?,
            Daemon::Proxy => self.curl("http://127.0.0.1:10256/livez")?,
        };
        Ok(())
    }

    fn curl_health(&self, member: usize) -> Result<String> {
        let port = self.ports.etcd[member].metrics;
        self.curl(&format!("http://127.0.0.1:{port}/health"))
    }

    fn curl_healthz(&self, port: u16) -> Result<String> {
        self.curl(&format!("https://127.0.0.1:{port}/healthz"))
    }

    /// The body of a page that must answer with success, asked from where the cluster runs.
    pub fn curl(&self, url: &str) -> Result<String> {
        command::run(&self.world, &["curl", "-sSfk", "--max-time", "5", url], &[], None)?.ok()
    }

    fn flags(&self, daemon: Daemon) -> Vec<String> {
        match daemon {
            Daemon::Etcd | Daemon::Etcd2 | Daemon::Etcd3 => self.etcd_flags(daemon.place()),
            Daemon::ApiServer => self.apiserver_flags(),
            Daemon::ControllerManager => self.controller_manager_flags(),
            Daemon::Scheduler => self.scheduler_flags(),
            Daemon::Containerd | Daemon::Kubelet | Daemon::Proxy => node::flags(self, daemon),
        }
    }

    fn members(&self) -> &'static [Daemon] {
        &MEMBERS[..self.ports.etcd.len()]
    }

    fn etcd_url(&self, member: usize) -> String {
        format!("https://127.0.0.1:{}", self.ports.etcd[member].client)
    }

    fn etcd_urls(&self) -> String {
        let urls: Vec<_> = (0..self.ports.etcd.len()).map(|n| self.etcd_url(n)).collect();
        urls.join(",")
    }

    fn etcd_peer_url(&self, member: usize) -> String {
        format!(
            "https://{}:{}",
            self.world.address(),
            self.ports.etcd[member].peer
        )
    }

    fn etcd_flags(&self, member: usize) -> Vec<String> {
        let (client, peer) = (self.etcd_url(member), self.etcd_peer_url(member));
        let name = |member: usize| match member {
            0 => NODE_NAME.to_owned(),
            _ => MEMBERS[member].name().to_owned(),
        };
        let initial: Vec<_> = (0..self.ports.etcd.len())
            .map(|n| format!("{}={}", name(n), self.etcd_peer_url(n)))
            .collect();
        vec![
            format!("--name={}", name(member)),
            format!("--data-dir={}", self.path.join(MEMBERS[member].name()).display()),
            format!("--advertise-client-urls={client}"),
            format!("--listen-client-urls={client}"),
            format!(
                "--listen-metrics-urls=http://127.0.0.1:{}",
                self.ports.etcd[member].metrics
            ),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={}", initial.join(",")),
            format!("--cert-file={}", self.pki("etcd/server.crt")),
            format!("--key-file={}", self.pki("etcd/server.key")),
            "--client-cert-auth=true".to_owned(),
            format!("--trusted-ca-file={}", self.pki("etcd/ca.crt")),
            format!("--peer-cert-file={}", self.pki("etcd/peer.crt")),
            format!("--peer-key-file={}", self.pki("etcd/peer.key")),
            "--peer-client-cert-auth=true".to_owned(),
            format!("--peer-trusted-ca-file={}", self.pki("etcd/ca.crt")),
            "--watch-progress-notify-interval=5s".to_owned(),
        ]
    }

    /// kubeadm's, less the bind address on the host.
    fn apiserver_flags(&self) -> Vec<String> {
        let file = |flag: &str, file: &str| format!("--{flag}={}", self.pki(file));
        vec![
            format!("--advertise-address={}", self.world.address()),
            "--allow-privileged=true".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            format!(
                "--bind-address={}",
                if self.world.is_own() {
                    "0.0.0.0"
                } else {
                    "127.0.0.1"
                }
            ),
            file("client-ca-file", "ca.crt"),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--enable-bootstrap-token-auth=true".to_owned(),
            file("etcd-cafile", "etcd/ca.crt"),
            file("etcd-certfile", "apiserver-etcd-client.crt"),
            file("etcd-keyfile", "apiserver-etcd-client.key"),
            format!("--etcd-servers={}", self.etcd_urls()),
            file("kubelet-client-certificate", "apiserver-kubelet-client.crt"),
            file("kubelet-client-key", "apiserver-kubelet-client.key"),
            "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname".to_owned(),
            format!("--secure-port={}", self.ports.apiserver),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            file("service-account-key-file", "sa.pub"),
            file("service-account-signing-key-file", "sa.key"),
            format!("--service-cluster-ip-range={SERVICE_CIDR}"),
            file("tls-cert-file", "apiserver.crt"),
            file("tls-private-key-file", "apiserver.key"),
            "--v=2".to_owned(),
        ]
    }

    fn controller_manager_flags(&self) -> Vec<String> {
        let kubeconfig = self.kubeconfig("controller-manager");
        vec![
            "--allocate-node-cidrs=true".to_owned(),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", self.ports.controller_manager),
            format!("--client-ca-file={}", self.pki("ca.crt")),
            format!("--cluster-cidr={CLUSTER_CIDR}"),
            "--cluster-name=kubernetes".to_owned(),
            format!("--cluster-signing-cert-file={}", self.pki("ca.crt")),
            format!("--cluster-signing-key-file={}", self.pki("ca.key")),
            format!("--kubeconfig={kubeconfig}"),
            "--leader-elect=true".to_owned(),
            format!("--root-ca-file={}", self.pki("ca.crt")),
            format!("--service-account-private-key-file={}", self.pki("sa.key")),
            format!("--service-cluster-ip-range={SERVICE_CIDR}"),
            "--use-service-account-credentials=true".to_owned(),
            "--v=2".to_owned(),
        ]
    }

    fn scheduler_flags(&self) -> Vec<String> {
        let kubeconfig = self.kubeconfig("scheduler");
        vec![
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", self.ports.scheduler),
            format!("--kubeconfig={kubeconfig}"),
            "--leader-elect=true".to_owned(),
            "--v=2".to_owned(),
        ]
    }

    /// kubectl as cluster administrator.
    pub fn kubectl(&self, args: &[&str]) -> Result<Output> {
        self.kubectl_with(args, None)
    }

    /// `kubectl <args> -f -` with this manifest, which is YAML even if it begins with a brace.
    pub fn kubectl_with(&self, args: &[&str], manifest: Option<&str>) -> Result<Output> {
        self.kubectl_as("admin", args, manifest)
    }

    fn kubectl_as(&self, who: &str, args: &[&str], manifest: Option<&str>) -> Result<Output> {
        let home = self.path.display().to_string();
        let mut words = vec!["kubectl"];
        words.extend_from_slice(args);
        if manifest.is_some() {
            words.extend(["-f", "-"]);
        }
        let yaml = manifest.map(|m| format!("---\n{m}"));
        self.run_as(who, &words, &[("HOME", &home)], yaml.as_deref())
    }

    /// A program of the administrator's, where the cluster runs. `HOME` must be of its own: kubectl caches discovery
    /// there by host and port, and ports are used again.
    pub fn run(&self, words: &[&str], env: &[(&str, &str)], stdin: Option<&str>) -> Result<Output> {
        self.run_as("admin", words, env, stdin)
    }

    fn run_as(&self, who: &str, words: &[&str], env: &[(&str, &str)], stdin: Option<&str>) -> Result<Output> {
        let kubeconfig = self.kubeconfig(who);
        let mut all = vec![("KUBECONFIG", kubeconfig.as_str())];
        all.extend_from_slice(env);
        command::run(&self.world, words, &all, stdin)
    }

    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.kubectl_with(&["apply"], Some(manifest))?.ok()
    }

    /// The object as JSON, by `kind/name` or kind and name.
    pub fn get(&self, args: &[&str]) -> Result<Value> {
        let mut words = vec!["get"];
        words.extend_from_slice(args);
        words.extend(["-o", "json"]);
        self.kubectl(&words)?.json()
    }

    /// Debian's etcdctl.
    pub fn etcdctl(&self, args: &[&str]) -> Result<Output> {
        let endpoint = format!("--endpoints={}", self.etcd_urls());
        let ca = format!("--cacert={}", self.pki("etcd/ca.crt"));
        let cert = format!("--cert={}", self.pki("etcd/healthcheck-client.crt"));
        let key = format!("--key={}", self.pki("etcd/healthcheck-client.key"));
        let mut words = vec!["etcdctl", &endpoint, &ca, &cert, &key];
        words.extend_from_slice(args);
        command::run(&self.world, &words, &[("ETCDCTL_API", "3")], None)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(folder) = self.folder.take() {
            eprintln!("evidence kept in {}", folder.keep().display());
        }
    }
}
