//! Puts the parts together. Everything that can be wrong with the flags, the file or the machine is said here, before a port is open.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use client::Client;
use client::events::EventRecorder;
use component_base::drain::Drain;
use component_base::flags::Flags;
use component_base::health::Health;
use component_base::tls::ClientTls;
use cri::{RemoteRuntime, Runtime, RuntimeTimeouts};
use k8s_openapi::api::core::v1::{Node, Taint};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc};

use crate::backoff::Backoff;
use crate::bootstrap::{self, Bootstrap};
use crate::cgroups::{self, Cgroups, Driver};
use crate::events::{Recorder, Severity};
use crate::eviction::Eviction;
use crate::images_gc::{GcPolicy, ImageGc};
use crate::kubelet::Kubelet;
use crate::kubelet_config::KubeletConfiguration;
use crate::logs::rotation::RotationPolicy;
use crate::metrics::{self, RuntimeObserver};
use crate::mirror::Mirrors;
use crate::network::dns::DnsSettings;
use crate::node::conditions::Health as NodeHealth;
use crate::node::lease::LeaseController;
use crate::node::machine::{self, Machine};
use crate::node::register::NodeReporter;
use crate::objects::{Objects, Standalone, WatchedObjects};
use crate::pleg::Pleg;
use crate::probes::Probes;
use crate::probes::attempt::Prober;
use crate::runtime::config::RuntimeSettings;
use crate::runtime::images::ImagePuller;
use crate::runtime::lifecycle::HookRunner;
use crate::runtime::manager::{Parts, RuntimeManager};
use crate::server;
use crate::sources::api;
use crate::sources::files::FileSource;
use crate::status::reporter::StatusReporter;
use crate::sync_loop::{Event, Setup, Source, SyncLoop};
use crate::volumes::Volumes;

/// The runtime must answer by then or the kubelet says what to do and ends.
const RUNTIME_PATIENCE: Duration = Duration::from_millis(800);
const INITIAL_CRASH_BACKOFF: Duration = Duration::from_secs(10);
const MAX_CRASH_BACKOFF: Duration = Duration::from_secs(300);
const USER_AGENT: &str = "kubelet";

pub async fn run(flags: Flags, drain: Drain) -> Result<()> {
    metrics::register();
    let config = KubeletConfiguration::load(&flags)?;
    check_swap(&config)?;
    let root_dir = PathBuf::from(flags.string("root-dir"));
    make_dirs(&root_dir, &config)?;
    let machine = Machine::look(
        &config,
        flags.string("hostname-override"),
        flags.string("node-ip"),
        &root_dir,
    )?;
    let runtime: Arc<dyn Runtime> = Arc::new(connect(&config)?);
    let found = find_runtime(runtime.as_ref(), &config).await?;
    bootstrap(&flags, &machine.node_name).await?;
    let client = client(&flags)?;
    start(
        Pieces {
            flags,
            config,
            root_dir,
            machine,
            runtime,
            found,
            client,
        },
        drain,
    )
    .await
}

fn check_swap(config: &KubeletConfiguration) -> Result<()> {
    let swap = machine::swap_total();
    if config.fail_swap_on && swap > 0 {
        bail!(
            "running with swap on is not supported, please disable swap or set --fail-swap-on flag to false (swap in use: {} MiB; `swapoff -a` disables it)",
            swap >> 20
        );
    }
    Ok(())
}

fn make_dirs(root_dir: &Path, config: &KubeletConfiguration) -> Result<()> {
    let make = |path: &Path, mode: u32| {
        std::fs::create_dir_all(path)
            .with_context(|| format!("could not create directory {}", path.display()))?;
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, permissions).with_context(|| path.display().to_string())
    };
    make(root_dir, 0o750).context("--root-dir")?;
    make(&root_dir.join("pods"), 0o750)?;
    make(Path::new(&config.pod_logs_dir), 0o755).context("podLogsDir")?;
    make(Path::new("/var/log/containers"), 0o755)
}

fn connect(config: &KubeletConfiguration) -> Result<RemoteRuntime> {
    let timeouts = RuntimeTimeouts {
        request: config.runtime_request_timeout.0,
        ..RuntimeTimeouts::default()
    };
    let images = Some(config.image_service_endpoint.as_str());
    RemoteRuntime::connect(
        &config.container_runtime_endpoint,
        images,
        timeouts,
        Arc::<RuntimeObserver>::default(),
    )
    .map_err(|e| anyhow::anyhow!("{}", e.message))
}

/// What the runtime says of itself.
pub struct FoundRuntime {
    pub name: String,
    pub version: String,
    pub driver: Driver,
}

async fn find_runtime(runtime: &dyn Runtime, config: &KubeletConfiguration) -> Result<FoundRuntime> {
    let endpoint = &config.container_runtime_endpoint;
    let answer = tokio::time::timeout(RUNTIME_PATIENCE, runtime.version()).await;
    let version = match answer {
        Ok(Ok(version)) => version,
        Ok(Err(e)) if e.is_unimplemented() => bail!(
            "the service at {endpoint} does not serve the CRI v1 API ({}). containerd: remove \"cri\" from disabled_plugins in /etc/containerd/config.toml and restart it; the kubelet needs containerd 1.6 or CRI-O 1.20 or newer",
            e.message
        ),
        Ok(Err(e)) => bail!(
            "no container runtime answers at {endpoint}: {}. Start it (`systemctl start containerd`) or name another socket with --container-runtime-endpoint",
            e.message
        ),
        Err(_) => bail!(
            "the container runtime at {endpoint} did not answer within {} ms: it is there but hangs; look at its log (`journalctl -u containerd`)",
            RUNTIME_PATIENCE.as_millis()
        ),
    };
    let wanted = match config.cgroup_driver.as_str() {
        "systemd" => Some(Driver::Systemd),
        "cgroupfs" => Some(Driver::Cgroupfs),
        _ => None,
    };
    let said = cgroup_driver_of(runtime).await;
    if let (Some(wanted), Some(said)) = (wanted, said)
        && wanted != said
    {
        bail!(
            "cgroupDriver is {:?} (--cgroup-driver or the configuration file) but the container runtime uses {:?}: remove the setting to follow the runtime, or set SystemdCgroup = {} in /etc/containerd/config.toml",
            wanted.as_str(),
            said.as_str(),
            wanted == Driver::Systemd
        );
    }
    Ok(FoundRuntime {
        version: format!("{}://{}", version.runtime_name, version.runtime_version),
        name: version.runtime_name,
        driver: said.or(wanted).unwrap_or(Driver::Cgroupfs),
    })
}

/// Asked where the runtime can be asked; read from containerd's own account of its configuration where not.
async fn cgroup_driver_of(runtime: &dyn Runtime) -> Option<Driver> {
    if let Ok(answer) = runtime.runtime_config().await {
        let driver = answer.linux.map(|l| l.cgroup_driver())?;
        return Some(if driver == cri::v1::CgroupDriver::Systemd {
            Driver::Systemd
        } else {
            Driver::Cgroupfs
        });
    }
    let status = runtime.status(true).await.ok()?;
    let config: serde_json::Value = serde_json::from_str(status.info.get("config")?).ok()?;
    let containerd = config.get("containerd")?;
    let name = containerd
        .get("defaultRuntimeName")
        .and_then(|n| n.as_str())
        .unwrap_or("runc");
    let options = containerd.get("runtimes")?.get(name)?.get("options");
    let systemd = options
        .and_then(|o| o.get("SystemdCgroup"))
        .and_then(serde_json::Value::as_bool)
        .unwrap_or(false);
    Some(if systemd {
        Driver::Systemd
    } else {
        Driver::Cgroupfs
    })
}

async fn bootstrap(flags: &Flags, node_name: &str) -> Result<()> {
    let file = flags.string("bootstrap-kubeconfig");
    let kubeconfig = flags.string("kubeconfig");
    if file.is_empty() || Path::new(kubeconfig).exists() {
        return Ok(());
    }
    if kubeconfig.is_empty() {
        bail!("--bootstrap-kubeconfig needs --kubeconfig: that is where the new credentials are written");
    }
    let (bootstrap_kubeconfig, kubeconfig) = (Path::new(file), Path::new(kubeconfig));
    let cert_dir = Path::new(flags.string("cert-dir"));
    Bootstrap {
        bootstrap_kubeconfig,
        kubeconfig,
        cert_dir,
        node_name,
    }
    .run()
    .await
}

fn client(flags: &Flags) -> Result<Option<Client>> {
    let path = flags.string("kubeconfig");
    if path.is_empty() {
        tracing::warn!("Standalone mode, no API client");
        return Ok(None);
    }
    let rest = client::kubeconfig::load(Path::new(path)).map_err(|e| anyhow::anyhow!("--kubeconfig: {e}"))?;
    let client = Client::new(rest, USER_AGENT).map_err(|e| anyhow::anyhow!("--kubeconfig {path}: {e}"))?;
    Ok(Some(client))
}

/// What a kubelet is made of, once everything was found to be in order.
pub struct Pieces {
    pub flags: Flags,
    pub config: KubeletConfiguration,
    pub root_dir: PathBuf,
    pub machine: Machine,
    pub runtime: Arc<dyn Runtime>,
    pub found: FoundRuntime,
    pub client: Option<Client>,
}

type NodeCell = Arc<RwLock<Option<Arc<Node>>>>;

pub async fn start(pieces: Pieces, drain: Drain) -> Result<()> {
    let Pieces {
        flags,
        config,
        root_dir,
        machine,
        runtime,
        found,
        client,
    } = pieces;
    let node_name = machine.node_name.clone();
    tracing::info!(version = component_base::version::GIT_VERSION, node = %node_name, runtime = %found.version, cgroup_driver = found.driver.as_str(), "Kubelet version");
    metrics::NODE_NAME.with(&[&node_name]).set(1.0);
    let (tx, rx) = mpsc::unbounded_channel();
    let kubelet = Arc::new(
        build(
            &config,
            &root_dir,
            &machine,
            &runtime,
            &found,
            client.clone(),
            &tx,
        )
        .await?,
    );
    let node: NodeCell = Arc::default();
    // What runs already is known before anyone is asked what should run.
    if let Err(error) = kubelet.pleg.relist().await {
        tracing::error!(%error, "The first look at the runtime failed");
    }
    tokio::spawn(kubelet.pleg.clone().run());
    tokio::spawn(kubelet.statuses.clone().run());
    let node_health: Arc<RwLock<NodeHealth>> = Arc::default();
    let node_changed = Arc::new(Notify::new());
    let watch = RuntimeWatch {
        kubelet: kubelet.clone(),
        runtime: runtime.clone(),
        health: node_health.clone(),
        changed: node_changed.clone(),
    };
    watch.look().await;
    tokio::spawn(watch.run());
    let labels = machine.labels(&flags.map("node-labels"));
    let mut sources = Vec::new();
    if !config.static_pod_path.is_empty() {
        sources.push(Source::Files);
    }
    if client.is_some() {
        sources.push(Source::Api);
    }
    let rotation = RotationPolicy {
        max_bytes: config.log_max_bytes(),
        max_files: usize::try_from(config.container_log_max_files).unwrap_or(5),
    };
    let setup = Setup {
        kubelet: kubelet.clone(),
        sources,
        node: node.clone(),
        labels: labels.clone(),
        rotation,
    };
    let sync_loop = SyncLoop::new(setup, tx.clone());
    if !config.static_pod_path.is_empty() {
        let source = FileSource {
            path: config.static_pod_path.clone().into(),
            node_name: node_name.clone(),
            audit: config.file_check_frequency.0,
            tx: tx.clone(),
        };
        tokio::spawn(source.run());
    }
    let _held = client.as_ref().map(|client| {
        let parts = NodeParts {
            flags: &flags,
            config: &config,
            machine: &machine,
            kubelet: &kubelet,
            found: &found,
            client,
            health: &node_health,
            changed: &node_changed,
            node: &node,
        };
        start_api(&parts, node_reporter(&parts, labels), &tx, &drain)
    });
    if client.is_none() && !config.pod_cidr.is_empty() {
        update_pod_cidr(&runtime, &config.pod_cidr).await;
    }
    if let Some(client) = client.clone().filter(|_| config.rotate_certificates) {
        let cert_dir = PathBuf::from(flags.string("cert-dir"));
        tokio::spawn(bootstrap::rotate(
            client,
            cert_dir,
            node_name.clone(),
            drain.clone(),
        ));
    }
    start_keepers(&config, &kubelet, &node_health, &node_changed, &tx);
    let health = health(&kubelet);
    server::start(&server::Setup {
        config: &config,
        flags: &flags,
        kubelet: &kubelet,
        client: client.as_ref(),
        health: &health,
        tx: &tx,
        node_name: &node_name,
        drain: &drain,
    })?;
    kubelet
        .recorder
        .node(Severity::Normal, "Starting", "Starting kubelet.");
    component_base::sd_notify::guard(&health);
    component_base::sd_notify::ready();
    component_base::sd_notify::status(&format!("Runs the pods of node {node_name}"));
    tracing::info!("Started kubelet");
    sync_loop.run(rx, drain).await;
    Ok(())
}

/// What keeps disk and memory free.
fn start_keepers(
    config: &KubeletConfiguration,
    kubelet: &Arc<Kubelet>,
    health: &Arc<RwLock<NodeHealth>>,
    changed: &Arc<Notify>,
    tx: &mpsc::UnboundedSender<Event>,
) {
    let policy = GcPolicy {
        high_percent: config.image_gc_high_threshold_percent,
        low_percent: config.image_gc_low_threshold_percent,
        min_age: config.image_minimum_gc_age.0,
    };
    let images = ImageGc {
        runtime: kubelet.manager.runtime.clone(),
        cache: kubelet.pleg.cache.clone(),
        recorder: kubelet.recorder.clone(),
        policy,
    };
    tokio::spawn(images.run());
    let eviction = Eviction {
        kubelet: kubelet.clone(),
        thresholds: config.eviction_hard.clone(),
        health: health.clone(),
        changed: changed.clone(),
        tx: tx.clone(),
    };
    tokio::spawn(eviction.run());
}

fn health(kubelet: &Arc<Kubelet>) -> Health {
    let health = Health::new();
    health.add("ping", || Ok(()));
    let kubelet = kubelet.clone();
    health.add("syncloop", move || kubelet.pleg.healthy());
    health
}

async fn set_up_cgroups(
    config: &KubeletConfiguration,
    driver: Driver,
    machine: &Machine,
) -> std::io::Result<Cgroups> {
    let pids = Some(config.pod_pids_limit);
    let cgroups = Cgroups::of_kernel(driver, config.cgroups_per_qos, pids).await?;
    let missing = cgroups.hierarchy().missing();
    if !missing.is_empty() {
        tracing::warn!(
            controllers = missing.join(","),
            "The kernel offers no such cgroup controllers: pods' limits on them do not hold. Boot with systemd.unified_cgroup_hierarchy=1 and look at /sys/fs/cgroup/cgroup.controllers"
        );
    }
    cgroups.set_up(&machine.allocatable).await?;
    Ok(cgroups)
}

async fn build(
    config: &KubeletConfiguration,
    root_dir: &Path,
    machine: &Machine,
    runtime: &Arc<dyn Runtime>,
    found: &FoundRuntime,
    client: Option<Client>,
    tx: &mpsc::UnboundedSender<Event>,
) -> Result<Kubelet> {
    let recorder = Recorder::new(
        client
            .clone()
            .map(|c| EventRecorder::new(c, USER_AGENT, &machine.node_name)),
        &machine.node_name,
    );
    let objects = objects(client.clone(), tx);
    let pleg = Pleg::new(runtime.clone(), runtime_events(tx));
    if let Some(ip) = machine.host_ips().first() {
        // Set once, here.
        let _ = pleg.cache.host_ip.set(ip.clone());
    }
    let tls = insecure_tls()?;
    let probe_tx = tx.clone();
    let changed = Box::new(move |uid, _| drop(probe_tx.send(Event::Probe(uid))));
    let prober = Prober::new(runtime.clone(), Some(tls.clone()));
    let probes = Arc::new(Probes::new(pleg.cache.clone(), prober, recorder.clone(), changed));
    let cgroups = set_up_cgroups(config, found.driver, machine).await.context(
        "could not set up the cgroups of pods (kubepods); run as root, or set cgroupsPerQOS to false",
    )?;
    let volumes = Arc::new(Volumes::new(root_dir, objects.clone()));
    let manager = RuntimeManager::new(Parts {
        runtime: runtime.clone(),
        name: found.name.clone(),
        settings: settings(config, root_dir, machine, &cgroups),
        images: ImagePuller::new(
            runtime.clone(),
            recorder.clone(),
            config.serialize_image_pulls && config.max_parallel_image_pulls.is_none(),
            config
                .max_parallel_image_pulls
                .and_then(|n| usize::try_from(n).ok()),
        ),
        hooks: HookRunner::new(runtime.clone(), Some(tls)),
        probes: probes.clone(),
        objects: objects.clone(),
        recorder: recorder.clone(),
        backoff: crash_backoff(config),
    });
    Ok(Kubelet {
        manager,
        pleg,
        statuses: StatusReporter::new(client.clone()),
        volumes,
        probes,
        cgroups,
        objects,
        recorder,
        mirrors: Mirrors::default(),
        client,
        host_ips: machine.host_ips(),
        allocatable: machine.allocatable.clone(),
        network_error: Arc::default(),
        reasons: Mutex::default(),
    })
}

fn crash_backoff(config: &KubeletConfiguration) -> Backoff {
    let max = config
        .crash_loop_back_off
        .max_container_restart_period
        .map_or(MAX_CRASH_BACKOFF, |d| d.0);
    Backoff::new(INITIAL_CRASH_BACKOFF.min(max), max)
}

fn insecure_tls() -> Result<Arc<rustls::ClientConfig>> {
    let tls = ClientTls {
        insecure: true,
        alpn: vec![b"http/1.1".to_vec()],
        ..ClientTls::default()
    };
    Ok(tls.load()?.current())
}

fn objects(client: Option<Client>, tx: &mpsc::UnboundedSender<Event>) -> Arc<dyn Objects> {
    let Some(client) = client else {
        return Arc::new(Standalone);
    };
    let tx = tx.clone();
    // The loop ends only with the process.
    Arc::new(WatchedObjects::new(
        client,
        Arc::new(move |uid| drop(tx.send(Event::Objects(uid)))),
    ))
}

/// The generator speaks of uids, the loop hears events.
fn runtime_events(tx: &mpsc::UnboundedSender<Event>) -> mpsc::UnboundedSender<crate::pod::PodUid> {
    let (uids, mut heard) = mpsc::unbounded_channel();
    let tx = tx.clone();
    tokio::spawn(async move {
        while let Some(uid) = heard.recv().await {
            if tx.send(Event::Runtime(uid)).is_err() {
                return;
            }
        }
    });
    uids
}

fn settings(
    config: &KubeletConfiguration,
    root_dir: &Path,
    machine: &Machine,
    cgroups: &Cgroups,
) -> RuntimeSettings {
    let v2 = cgroups.hierarchy().version() == cgroups::Version::V2;
    RuntimeSettings {
        root_dir: root_dir.into(),
        pod_logs_dir: config.pod_logs_dir.clone().into(),
        seccomp_default: config.seccomp_default,
        cpu_cfs_quota: config.cpu_cfs_quota,
        cpu_cfs_quota_period_us: i64::try_from(config.cpu_cfs_quota_period.0.as_micros()).unwrap_or(100_000),
        memory_capacity: machine.memory_capacity(),
        dns: DnsSettings {
            cluster_dns: config.cluster_dns.clone(),
            cluster_domain: config.cluster_domain.clone(),
            resolv_conf: config.resolver(),
        },
        group_oom_kill: v2 && config.single_process_oom_kill == Some(false),
        has_swap: machine::swap_total() > 0,
    }
}

/// What the node's side of the kubelet is made of.
struct NodeParts<'a> {
    flags: &'a Flags,
    config: &'a KubeletConfiguration,
    machine: &'a Machine,
    kubelet: &'a Arc<Kubelet>,
    found: &'a FoundRuntime,
    client: &'a Client,
    health: &'a Arc<RwLock<NodeHealth>>,
    changed: &'a Arc<Notify>,
    node: &'a NodeCell,
}

fn node_reporter(parts: &NodeParts<'_>, labels: crate::pod::Labels) -> NodeReporter {
    let NodeParts {
        flags,
        config,
        machine,
        kubelet,
        found,
        client,
        health,
        changed,
        node,
    } = *parts;
    let (registered_kubelet, cell) = (kubelet.clone(), node.clone());
    let mut taints: Vec<Taint> = config
        .register_with_taints
        .iter()
        .map(|t| Taint {
            key: t.key.clone(),
            value: Some(t.value.clone()).filter(|v| !v.is_empty()),
            effect: t.effect.clone(),
            ..Default::default()
        })
        .collect();
    if flags.string("cloud-provider") == "external" {
        let key = "node.cloudprovider.kubernetes.io/uninitialized".to_string();
        taints.push(Taint {
            key,
            value: Some("true".into()),
            effect: "NoSchedule".into(),
            ..Default::default()
        });
    }
    NodeReporter {
        client: client.clone(),
        machine: machine.clone(),
        runtime: kubelet.manager.runtime.clone(),
        runtime_version: found.version.clone(),
        labels,
        taints,
        provider_id: config.provider_id.clone(),
        kubelet_port: config.port,
        register: config.register_node,
        update_every: config.node_status_update_frequency.0,
        report_every: config.node_status_report_frequency.0,
        health: health.clone(),
        changed: changed.clone(),
        registered: Box::new(move |node| {
            registered_kubelet.mirrors.set_node(node);
            *cell.write() = Some(Arc::new(node.clone()));
        }),
    }
}

/// Held for as long as the kubelet runs.
struct Held {
    _pods: client::informer::Informer<k8s_openapi::api::core::v1::Pod>,
    _node: client::informer::Informer<Node>,
}

fn start_api(
    parts: &NodeParts<'_>,
    reporter: NodeReporter,
    tx: &mpsc::UnboundedSender<Event>,
    drain: &Drain,
) -> Held {
    let NodeParts {
        config,
        kubelet,
        client,
        node,
        ..
    } = *parts;
    let node_name = reporter.machine.node_name.clone();
    let cell = node.clone();
    let lease = LeaseController {
        client: client.clone(),
        node_name: node_name.clone(),
        duration_seconds: config.node_lease_duration_seconds,
        node_uid: Box::new(move || cell.read().as_ref()?.metadata.uid.clone()),
    };
    tokio::spawn(reporter.run(drain.clone()));
    tokio::spawn(lease.run(drain.clone()));
    let own = client::ListOptions::fields(format!("metadata.name={node_name}"));
    let informer = client::informer::Informer::new(client.all::<Node>(), own);
    let (cell, kubelet) = (node.clone(), kubelet.clone());
    let cidr: Mutex<String> = Mutex::default();
    informer.on_event(move |change| {
        use client::informer::Event as Change;
        let (Change::Added(node) | Change::Modified(_, node)) = change else {
            return;
        };
        kubelet.mirrors.set_node(node);
        *cell.write() = Some(node.clone());
        let wanted = node
            .spec
            .as_ref()
            .and_then(|s| s.pod_cidr.clone())
            .unwrap_or_default();
        let all = node
            .spec
            .as_ref()
            .and_then(|s| s.pod_cidrs.clone())
            .unwrap_or_default()
            .join(",");
        let wanted = if all.is_empty() { wanted } else { all };
        if !wanted.is_empty() && std::mem::replace(&mut *cidr.lock(), wanted.clone()) != wanted {
            let runtime = kubelet.manager.runtime.clone();
            tokio::spawn(async move { update_pod_cidr(&runtime, &wanted).await });
        }
    });
    informer.start();
    Held {
        _pods: api::start(client, &node_name, tx.clone()),
        _node: informer,
    }
}

async fn update_pod_cidr(runtime: &Arc<dyn Runtime>, cidr: &str) {
    match runtime.update_runtime_config(cidr).await {
        Ok(()) => tracing::info!(cidr, "Updated Pod CIDR of the container runtime"),
        Err(error) => tracing::error!(cidr, %error, "Failed to tell the container runtime its Pod CIDR"),
    }
}

/// The runtime does not announce its own state: it is asked.
struct RuntimeWatch {
    kubelet: Arc<Kubelet>,
    runtime: Arc<dyn Runtime>,
    health: Arc<RwLock<NodeHealth>>,
    changed: Arc<Notify>,
}

const RUNTIME_CHECK: Duration = Duration::from_secs(5);
/// While it is not well: pods and the node wait for it.
const RUNTIME_RECHECK: Duration = Duration::from_secs(1);

impl RuntimeWatch {
    async fn run(self) {
        loop {
            let well = self.health.read().errors.is_empty();
            tokio::time::sleep(if well { RUNTIME_CHECK } else { RUNTIME_RECHECK }).await;
            self.look().await;
        }
    }

    async fn look(&self) {
        let (mut errors, mut network) = (Vec::new(), None);
        match self.runtime.status(false).await {
            Err(e) => errors.push(format!("container runtime is down: {e}")),
            Ok(answer) => {
                for c in answer
                    .status
                    .iter()
                    .flat_map(|s| &s.conditions)
                    .filter(|c| !c.status)
                {
                    let text = format!("{}=false reason:{} message:{}", c.r#type, c.reason, c.message);
                    if c.r#type == "NetworkReady" {
                        errors.push(format!("container runtime network not ready: {text}"));
                        network = Some(format!("container runtime network not ready: {text}"));
                    } else {
                        errors.push(format!("container runtime not ready: {text}"));
                    }
                }
            }
        }
        errors.extend(self.kubelet.pleg.healthy().err());
        *self.kubelet.network_error.write() = network;
        let mut health = self.health.write();
        if health.errors != errors {
            tracing::info!(
                ready = errors.is_empty(),
                errors = errors.join("; "),
                "Node readiness changed"
            );
            health.errors = errors;
            self.changed.notify_one();
        }
    }
}
