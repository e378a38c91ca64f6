//! A node in a world of its own: containerd with our images, kubelet, kube-proxy.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::binaries;
use crate::cluster::{CLUSTER_CIDR, Cluster, Daemon, NODE_NAME, START_LIMIT};
use crate::command::{self, Output};
use crate::wait::eventually;

pub const IMAGES: [&str; 3] = ["pause", "demo-web", "busybox"];

/// Starts the node's processes and waits until the node is Ready.
pub fn start(cluster: &mut Cluster) -> Result<()> {
    write_configs(cluster)?;
    cluster.start_daemon(Daemon::Containerd)?;
    cluster.await_ready(Daemon::Containerd)?;
    for image in IMAGES {
        let archive = binaries::image(image)?.display().to_string();
        ctr(cluster, &["images", "import", &archive])?.ok()?;
    }
    cluster.start_daemon(Daemon::Kubelet)?;
    cluster.start_daemon(Daemon::Proxy)?;
    await_node_ready(cluster)
}

pub fn await_node_ready(cluster: &mut Cluster) -> Result<()> {
    eventually("the node is Ready", START_LIMIT, || {
        for daemon in [Daemon::Kubelet, Daemon::Proxy] {
            cluster.process(daemon)?.check()?;
        }
        let node = cluster.get(&["node", NODE_NAME])?;
        let conditions = node["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let ready = conditions
            .iter()
            .any(|c| c["type"] == "Ready" && c["status"] == "True");
        Ok((ready, format!("conditions {}", node["status"]["conditions"])))
    })
}

pub fn socket(cluster: &Cluster) -> PathBuf {
    cluster.path().join("containerd/containerd.sock")
}

/// containerd's own client, in Kubernetes' namespace.
pub fn ctr(cluster: &Cluster, args: &[&str]) -> Result<Output> {
    let socket = socket(cluster).display().to_string();
    let mut words = vec![
        "ctr",
        "--address",
        &socket,
        "--namespace",
        "k8s.io",
        "--timeout",
        "30s",
    ];
    words.extend_from_slice(args);
    command::run(cluster.world(), &words, &[], None)
}

/// IDs of the containers that run now, sandboxes included.
pub fn running_tasks(cluster: &Cluster) -> Result<Vec<String>> {
    let listed = ctr(cluster, &["tasks", "list"])?.ok()?;
    let running = listed.lines().filter(|line| line.contains("RUNNING"));
    let mut ids: Vec<String> = running
        .filter_map(|l| l.split_whitespace().next().map(str::to_owned))
        .collect();
    ids.sort();
    Ok(ids)
}

pub fn flags(cluster: &Cluster, daemon: Daemon) -> Vec<String> {
    let path = |file: &str| cluster.path().join(file).display().to_string();
    match daemon {
        Daemon::Containerd => vec![format!("--config={}", path("containerd/config.toml"))],
        Daemon::Kubelet => vec![
            format!("--config={}", path("kubelet.yaml")),
            format!("--kubeconfig={}", cluster.kubeconfig("kubelet")),
            format!("--hostname-override={NODE_NAME}"),
            format!("--node-ip={}", cluster.world().address()),
            "--v=2".to_owned(),
        ],
        Daemon::Proxy => vec![
            format!("--config={}", path("kube-proxy.yaml")),
            format!("--hostname-override={NODE_NAME}"),
            "--v=2".to_owned(),
        ],
        _ => Vec::new(),
    }
}

fn write_configs(cluster: &Cluster) -> Result<()> {
    let root = cluster.path();
    for dir in ["containerd", "cni", "manifests"] {
        std::fs::create_dir_all(root.join(dir))?;
    }
    let files = [
        ("containerd/config.toml", containerd_config(cluster)?),
        ("cni/10-e2e.conflist", cni_config()),
        ("kubelet.yaml", kubelet_config(cluster)),
        ("kube-proxy.yaml", proxy_config(cluster)),
    ];
    for (file, text) in files {
        std::fs::write(root.join(file), text).with_context(|| file.to_owned())?;
    }
    Ok(())
}

fn containerd_config(cluster: &Cluster) -> Result<String> {
    let cni = ["/usr/lib/cni", "/opt/cni/bin"]
        .into_iter()
        .find(|dir| std::path::Path::new(dir).join("bridge").exists());
    let Some(cni) = cni else {
        bail!("no CNI plugins; install them (apt-get install containernetworking-plugins)");
    };
    let (root, socket) = (cluster.path().display(), socket(cluster));
    Ok(format!(
        r#"version = 2
root = "{root}/containerd/root"
state = "{root}/containerd/state"
[grpc]
  address = "{}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/ferrokube/pause:0.1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{root}/cni"
"#,
        socket.display()
    ))
}

/// The node controller gives the first node the first range.
fn cni_config() -> String {
    let subnet = CLUSTER_CIDR.replace(".0.0/16", ".0.0/24");
    format!(
        r#"{{ "cniVersion": "0.4.0", "name": "e2e", "plugins": [
  {{ "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipMasq": true,
    "ipam": {{ "type": "host-local", "ranges": [[{{ "subnet": "{subnet}" }}]], "routes": [{{ "dst": "0.0.0.0/0" }}] }} }},
  {{ "type": "portmap", "capabilities": {{ "portMappings": true }} }} ] }}
"#
    )
}

fn kubelet_config(cluster: &Cluster) -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous:
    enabled: false
  webhook:
    enabled: true
  x509:
    clientCAFile: {ca}
authorization:
  mode: Webhook
cgroupRoot: /{cgroup}
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://{socket}
failSwapOn: false
staticPodPath: {manifests}
tlsCertFile: {cert}
tlsPrivateKeyFile: {key}
",
        ca = cluster.pki("ca.crt"),
        // Other kubelets on this machine look after their own cgroups.
        cgroup = cluster.path().file_name().unwrap_or_default().display(),
        socket = socket(cluster).display(),
        manifests = cluster.path().join("manifests").display(),
        cert = cluster.pki("kubelet/kubelet.crt"),
        key = cluster.pki("kubelet/kubelet.key"),
    )
}

fn proxy_config(cluster: &Cluster) -> String {
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection:
  kubeconfig: {}
clusterCIDR: {CLUSTER_CIDR}
metricsBindAddress: 127.0.0.1:10249
mode: nftables
",
        cluster.kubeconfig("kube-proxy")
    )
}

/// How long a pod may take from creation to Running, image present.
pub const POD_LIMIT: Duration = Duration::from_secs(60);
