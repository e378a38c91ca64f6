//! `KubeletConfiguration` (`kubelet.config.k8s.io/v1beta1`): from a file, a directory of drop-ins, and flags, in that order; checked before anything is opened.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use component_base::config::GoDuration;
use component_base::flags::Flags;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const KIND: &str = "KubeletConfiguration";

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeletConfiguration {
    pub enable_server: bool,
    pub static_pod_path: String,
    pub file_check_frequency: GoDuration,
    pub address: String,
    pub port: u16,
    pub read_only_port: u16,
    pub tls_cert_file: String,
    pub tls_private_key_file: String,
    pub tls_cipher_suites: Vec<String>,
    pub tls_min_version: String,
    pub rotate_certificates: bool,
    #[serde(rename = "serverTLSBootstrap")]
    pub server_tls_bootstrap: bool,
    pub authentication: Authentication,
    pub authorization: Authorization,
    pub healthz_port: u16,
    pub healthz_bind_address: String,
    pub cluster_domain: String,
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Vec<String>,
    pub streaming_connection_idle_timeout: GoDuration,
    pub node_status_update_frequency: GoDuration,
    pub node_status_report_frequency: GoDuration,
    pub node_lease_duration_seconds: i32,
    pub image_minimum_gc_age: GoDuration,
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: u8,
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: u8,
    pub cgroup_root: String,
    #[serde(rename = "cgroupsPerQOS")]
    pub cgroups_per_qos: bool,
    pub cgroup_driver: String,
    pub runtime_request_timeout: GoDuration,
    pub max_pods: i64,
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
    pub pod_pids_limit: i64,
    pub resolv_conf: Option<String>,
    #[serde(rename = "cpuCFSQuota")]
    pub cpu_cfs_quota: bool,
    #[serde(rename = "cpuCFSQuotaPeriod")]
    pub cpu_cfs_quota_period: GoDuration,
    pub serialize_image_pulls: bool,
    pub max_parallel_image_pulls: Option<i64>,
    pub eviction_hard: BTreeMap<String, String>,
    pub fail_swap_on: bool,
    pub memory_swap: MemorySwap,
    pub container_log_max_size: String,
    pub container_log_max_files: i64,
    pub system_reserved: BTreeMap<String, String>,
    pub kube_reserved: BTreeMap<String, String>,
    pub enforce_node_allocatable: Vec<String>,
    pub register_with_taints: Vec<Taint>,
    pub register_node: bool,
    pub container_runtime_endpoint: String,
    pub image_service_endpoint: String,
    pub pod_logs_dir: String,
    pub seccomp_default: bool,
    pub single_process_oom_kill: Option<bool>,
    #[serde(rename = "providerID")]
    pub provider_id: String,
    pub feature_gates: BTreeMap<String, bool>,
    pub crash_loop_back_off: CrashLoopBackOff,
    /// What is not known by name; warned of.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CrashLoopBackOff {
    pub max_container_restart_period: Option<GoDuration>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Authentication {
    pub x509: X509,
    pub webhook: Webhook,
    pub anonymous: Anonymous,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct X509 {
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: String,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Webhook {
    pub enabled: bool,
    #[serde(rename = "cacheTTL")]
    pub cache_ttl: GoDuration,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Anonymous {
    pub enabled: bool,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default)]
pub struct Authorization {
    pub mode: String,
    pub webhook: AuthorizationWebhook,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthorizationWebhook {
    #[serde(rename = "cacheAuthorizedTTL")]
    pub cache_authorized_ttl: GoDuration,
    #[serde(rename = "cacheUnauthorizedTTL")]
    pub cache_unauthorized_ttl: GoDuration,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemorySwap {
    pub swap_behavior: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Taint {
    pub key: String,
    pub value: String,
    pub effect: String,
}

fn seconds(n: u64) -> GoDuration {
    GoDuration(Duration::from_secs(n))
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            enabled: true,
            cache_ttl: seconds(120),
        }
    }
}

impl Default for Authorization {
    fn default() -> Self {
        Self {
            mode: "Webhook".into(),
            webhook: AuthorizationWebhook::default(),
        }
    }
}

impl Default for AuthorizationWebhook {
    fn default() -> Self {
        Self {
            cache_authorized_ttl: seconds(300),
            cache_unauthorized_ttl: seconds(30),
        }
    }
}

impl Default for KubeletConfiguration {
    fn default() -> Self {
        Self {
            enable_server: true,
            static_pod_path: String::new(),
            file_check_frequency: seconds(20),
            address: "0.0.0.0".into(),
            port: 10250,
            read_only_port: 0,
            tls_cert_file: String::new(),
            tls_private_key_file: String::new(),
            tls_cipher_suites: Vec::new(),
            tls_min_version: String::new(),
            rotate_certificates: false,
            server_tls_bootstrap: false,
            authentication: Authentication::default(),
            authorization: Authorization::default(),
            healthz_port: 10248,
            healthz_bind_address: "127.0.0.1".into(),
            cluster_domain: String::new(),
            cluster_dns: Vec::new(),
            streaming_connection_idle_timeout: seconds(4 * 3600),
            node_status_update_frequency: seconds(10),
            node_status_report_frequency: seconds(300),
            node_lease_duration_seconds: 40,
            image_minimum_gc_age: seconds(120),
            image_gc_high_threshold_percent: 85,
            image_gc_low_threshold_percent: 80,
            cgroup_root: String::new(),
            cgroups_per_qos: true,
            cgroup_driver: String::new(),
            runtime_request_timeout: seconds(120),
            max_pods: 110,
            pod_cidr: String::new(),
            pod_pids_limit: -1,
            resolv_conf: None,
            cpu_cfs_quota: true,
            cpu_cfs_quota_period: GoDuration(Duration::from_millis(100)),
            serialize_image_pulls: true,
            max_parallel_image_pulls: None,
            eviction_hard: default_eviction(),
            fail_swap_on: true,
            memory_swap: MemorySwap::default(),
            container_log_max_size: "10Mi".into(),
            container_log_max_files: 5,
            system_reserved: BTreeMap::new(),
            kube_reserved: BTreeMap::new(),
            enforce_node_allocatable: vec!["pods".into()],
            register_with_taints: Vec::new(),
            register_node: true,
            container_runtime_endpoint: "unix:///run/containerd/containerd.sock".into(),
            image_service_endpoint: String::new(),
            pod_logs_dir: "/var/log/pods".into(),
            seccomp_default: false,
            single_process_oom_kill: None,
            provider_id: String::new(),
            feature_gates: BTreeMap::new(),
            crash_loop_back_off: CrashLoopBackOff::default(),
            other: BTreeMap::new(),
        }
    }
}

fn default_eviction() -> BTreeMap<String, String> {
    let defaults = [
        ("memory.available", "100Mi"),
        ("nodefs.available", "10%"),
        ("nodefs.inodesFree", "5%"),
        ("imagefs.available", "15%"),
        ("imagefs.inodesFree", "5%"),
    ];
    defaults.map(|(k, v)| (k.to_string(), v.to_string())).into()
}

/// Known to upstream and without effect here: said once, so that nobody believes otherwise.
const WITHOUT_EFFECT: [&str; 40] = [
    "syncFrequency",
    "httpCheckFrequency",
    "staticPodURL",
    "staticPodURLHeader",
    "tlsCurvePreferences",
    "registryPullQPS",
    "registryBurst",
    "eventRecordQPS",
    "eventBurst",
    "enableDebuggingHandlers",
    "enableContentionProfiling",
    "oomScoreAdj",
    "imageMaximumGCAge",
    "volumeStatsAggPeriod",
    "kubeletCgroups",
    "systemCgroups",
    "cpuManagerPolicy",
    "cpuManagerPolicyOptions",
    "cpuManagerReconcilePeriod",
    "memoryManagerPolicy",
    "topologyManagerPolicy",
    "topologyManagerScope",
    "topologyManagerPolicyOptions",
    "qosReserved",
    "hairpinMode",
    "runOnce",
    "nodeStatusMaxImages",
    "maxOpenFiles",
    "contentType",
    "kubeAPIQPS",
    "kubeAPIBurst",
    "evictionSoft",
    "evictionSoftGracePeriod",
    "evictionPressureTransitionPeriod",
    "evictionMaxPodGracePeriod",
    "evictionMinimumReclaim",
    "podsPerCore",
    "enableControllerAttachDetach",
    "protectKernelDefaults",
    "makeIPTablesUtilChains",
];

impl KubeletConfiguration {
    /// The file's paths are relative to the file.
    pub fn load(flags: &Flags) -> Result<Self> {
        let mut value = Value::Object(serde_json::Map::new());
        let file = flags.string("config");
        if !file.is_empty() {
            value = read(Path::new(file)).context("--config")?;
        }
        let drop_ins = flags.string("config-dir");
        if !drop_ins.is_empty() {
            for path in drop_in_files(Path::new(drop_ins))? {
                merge(&mut value, read(&path).context("--config-dir")?);
            }
        }
        // YAML's empty values are Go's zero values: the default holds.
        remove_nulls(&mut value);
        let mut config: Self = serde_json::from_value(value)
            .with_context(|| format!("failed to load kubelet config file {file:?}"))?;
        config.fill_zeroes();
        config.resolve_paths(Path::new(file));
        config.apply_flags(flags)?;
        config.warn_of_other();
        config.validate()?;
        Ok(config)
    }

    /// kubeadm writes every field, unset ones as Go's zero: there zero means the default.
    fn fill_zeroes(&mut self) {
        let defaults = Self::default();
        let pairs = [
            (&mut self.file_check_frequency, defaults.file_check_frequency),
            (
                &mut self.streaming_connection_idle_timeout,
                defaults.streaming_connection_idle_timeout,
            ),
            (
                &mut self.node_status_update_frequency,
                defaults.node_status_update_frequency,
            ),
            (
                &mut self.node_status_report_frequency,
                defaults.node_status_report_frequency,
            ),
            (&mut self.image_minimum_gc_age, defaults.image_minimum_gc_age),
            (
                &mut self.runtime_request_timeout,
                defaults.runtime_request_timeout,
            ),
            (&mut self.cpu_cfs_quota_period, defaults.cpu_cfs_quota_period),
            (
                &mut self.authentication.webhook.cache_ttl,
                defaults.authentication.webhook.cache_ttl,
            ),
            (
                &mut self.authorization.webhook.cache_authorized_ttl,
                defaults.authorization.webhook.cache_authorized_ttl,
            ),
            (
                &mut self.authorization.webhook.cache_unauthorized_ttl,
                defaults.authorization.webhook.cache_unauthorized_ttl,
            ),
        ];
        for (value, default) in pairs {
            if value.0.is_zero() {
                *value = default;
            }
        }
        if self.container_runtime_endpoint.is_empty() {
            self.container_runtime_endpoint = defaults.container_runtime_endpoint;
        }
        if self.pod_logs_dir.is_empty() {
            self.pod_logs_dir = defaults.pod_logs_dir;
        }
    }

    fn resolve_paths(&mut self, file: &Path) {
        let Some(dir) = file.parent().filter(|_| !file.as_os_str().is_empty()) else {
            return;
        };
        let paths = [
            &mut self.static_pod_path,
            &mut self.tls_cert_file,
            &mut self.tls_private_key_file,
            &mut self.authentication.x509.client_ca_file,
        ];
        for path in paths {
            if !path.is_empty() && Path::new(path.as_str()).is_relative() {
                *path = dir.join(path.as_str()).display().to_string();
            }
        }
    }

    /// A flag that was given beats the file.
    fn apply_flags(&mut self, flags: &Flags) -> Result<()> {
        let text = |name: &str, to: &mut String| {
            if flags.is_set(name) {
                *to = flags.string(name).to_string();
            }
        };
        let truth = |name: &str, to: &mut bool| {
            if flags.is_set(name) {
                *to = flags.bool(name);
            }
        };
        text("pod-manifest-path", &mut self.static_pod_path);
        text("address", &mut self.address);
        text("tls-cert-file", &mut self.tls_cert_file);
        text("tls-private-key-file", &mut self.tls_private_key_file);
        text("tls-min-version", &mut self.tls_min_version);
        text("client-ca-file", &mut self.authentication.x509.client_ca_file);
        text("authorization-mode", &mut self.authorization.mode);
        text("cluster-domain", &mut self.cluster_domain);
        text("healthz-bind-address", &mut self.healthz_bind_address);
        text("cgroup-root", &mut self.cgroup_root);
        text("cgroup-driver", &mut self.cgroup_driver);
        text("pod-cidr", &mut self.pod_cidr);
        text("container-runtime-endpoint", &mut self.container_runtime_endpoint);
        text("image-service-endpoint", &mut self.image_service_endpoint);
        text("container-log-max-size", &mut self.container_log_max_size);
        text("provider-id", &mut self.provider_id);
        truth("enable-server", &mut self.enable_server);
        truth("anonymous-auth", &mut self.authentication.anonymous.enabled);
        truth(
            "authentication-token-webhook",
            &mut self.authentication.webhook.enabled,
        );
        truth("rotate-certificates", &mut self.rotate_certificates);
        truth("cgroups-per-qos", &mut self.cgroups_per_qos);
        truth("fail-swap-on", &mut self.fail_swap_on);
        truth("register-node", &mut self.register_node);
        truth("seccomp-default", &mut self.seccomp_default);
        truth("serialize-image-pulls", &mut self.serialize_image_pulls);
        truth("cpu-cfs-quota", &mut self.cpu_cfs_quota);
        if flags.is_set("resolv-conf") {
            self.resolv_conf = Some(flags.string("resolv-conf").to_string());
        }
        if flags.is_set("cluster-dns") {
            self.cluster_dns = flags.strings("cluster-dns");
        }
        if flags.is_set("tls-cipher-suites") {
            self.tls_cipher_suites = flags.strings("tls-cipher-suites");
        }
        if flags.is_set("max-pods") {
            self.max_pods = flags.int("max-pods");
        }
        if flags.is_set("pod-max-pids") {
            self.pod_pids_limit = flags.int("pod-max-pids");
        }
        for (name, to) in [
            ("port", &mut self.port),
            ("read-only-port", &mut self.read_only_port),
            ("healthz-port", &mut self.healthz_port),
        ] {
            if flags.is_set(name) {
                let n = flags.int(name);
                *to = u16::try_from(n).with_context(|| format!("--{name}={n} is not a port"))?;
            }
        }
        if flags.is_set("runtime-request-timeout") {
            self.runtime_request_timeout = GoDuration(flags.duration("runtime-request-timeout"));
        }
        if flags.is_set("node-status-update-frequency") {
            self.node_status_update_frequency = GoDuration(flags.duration("node-status-update-frequency"));
        }
        if flags.is_set("register-with-taints") {
            self.register_with_taints = parse_taints(&flags.strings("register-with-taints"))?;
        }
        for (name, to) in [
            ("kube-reserved", &mut self.kube_reserved),
            ("system-reserved", &mut self.system_reserved),
            ("eviction-hard", &mut self.eviction_hard),
        ] {
            if flags.is_set(name) {
                *to = flags.map(name);
            }
        }
        Ok(())
    }

    fn warn_of_other(&self) {
        for name in self.other.keys().filter(|n| {
            !matches!(
                n.as_str(),
                "apiVersion"
                    | "kind"
                    | "logging"
                    | "shutdownGracePeriod"
                    | "shutdownGracePeriodCriticalPods"
                    | "metadata"
            )
        }) {
            if WITHOUT_EFFECT.contains(&name.as_str()) {
                tracing::info!(field = %name, "KubeletConfiguration field has no effect in this kubelet");
            } else {
                tracing::warn!(field = %name, "unknown field in KubeletConfiguration is ignored");
            }
        }
    }

    fn validate(&self) -> Result<()> {
        let mut problems: Vec<String> = Vec::new();
        let mut check = |ok: bool, text: String| {
            if !ok {
                problems.push(text);
            }
        };
        check(
            self.address.parse::<IpAddr>().is_ok(),
            format!("address (--address) {:?} is not an IP address", self.address),
        );
        check(
            self.healthz_bind_address.parse::<IpAddr>().is_ok(),
            format!(
                "healthzBindAddress {:?} is not an IP address",
                self.healthz_bind_address
            ),
        );
        for ip in &self.cluster_dns {
            check(
                ip.parse::<IpAddr>().is_ok(),
                format!("clusterDNS (--cluster-dns) {ip:?} is not an IP address"),
            );
        }
        check(
            self.max_pods > 0,
            format!("maxPods (--max-pods) {} must be greater than 0", self.max_pods),
        );
        check(
            matches!(self.cgroup_driver.as_str(), "" | "cgroupfs" | "systemd"),
            format!(
                "cgroupDriver (--cgroup-driver) {:?} must be \"cgroupfs\" or \"systemd\"",
                self.cgroup_driver
            ),
        );
        check(
            matches!(self.authorization.mode.as_str(), "AlwaysAllow" | "Webhook"),
            format!(
                "authorization.mode (--authorization-mode) {:?} must be \"AlwaysAllow\" or \"Webhook\"",
                self.authorization.mode
            ),
        );
        check(
            matches!(
                self.memory_swap.swap_behavior.as_str(),
                "" | "NoSwap" | "LimitedSwap"
            ),
            format!(
                "memorySwap.swapBehavior {:?} must be \"NoSwap\" or \"LimitedSwap\"",
                self.memory_swap.swap_behavior
            ),
        );
        check(
            self.image_gc_low_threshold_percent < self.image_gc_high_threshold_percent
                && self.image_gc_high_threshold_percent <= 100,
            format!(
                "imageGCLowThresholdPercent ({}) must be less than imageGCHighThresholdPercent ({}), which must be at most 100",
                self.image_gc_low_threshold_percent, self.image_gc_high_threshold_percent
            ),
        );
        check(
            self.container_log_max_files >= 2,
            format!(
                "containerLogMaxFiles {} must be at least 2",
                self.container_log_max_files
            ),
        );
        check(
            self.log_max_bytes() > 0,
            format!(
                "containerLogMaxSize {:?} is not a size",
                self.container_log_max_size
            ),
        );
        check(
            self.node_lease_duration_seconds > 0,
            "nodeLeaseDurationSeconds must be greater than 0".into(),
        );
        check(
            self.tls_cert_file.is_empty() == self.tls_private_key_file.is_empty(),
            "tlsCertFile and tlsPrivateKeyFile must be given together".into(),
        );
        check(
            Path::new(&self.pod_logs_dir).is_absolute(),
            format!("podLogsDir {:?} must be an absolute path", self.pod_logs_dir),
        );
        check(
            self.port > 0 || !self.enable_server,
            "port must be between 1 and 65535".into(),
        );
        let endpoint = cri::remote::socket_path(&self.container_runtime_endpoint);
        check(
            endpoint.is_ok(),
            endpoint.err().map(|e| e.message).unwrap_or_default(),
        );
        if problems.is_empty() {
            return Ok(());
        }
        bail!(
            "failed to validate kubelet configuration: {}",
            problems.join("; ")
        )
    }

    pub fn log_max_bytes(&self) -> u64 {
        let size = apimachinery::quantity::Quantity::parse(&self.container_log_max_size);
        size.ok().and_then(|q| u64::try_from(q.value()).ok()).unwrap_or(0)
    }

    /// The node's own, unless something else was said; systemd-resolved's file where its stub would be of no use to pods.
    pub fn resolver(&self) -> PathBuf {
        match &self.resolv_conf {
            Some(path) => PathBuf::from(path),
            None => PathBuf::from("/etc/resolv.conf"),
        }
    }
}

fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("failed to load kubelet config file {}", path.display()))?;
    let value = component_base::config::yaml_to_json(&text).with_context(|| path.display().to_string())?;
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (field("apiVersion"), field("kind"));
    if api_version != API_VERSION || kind != KIND {
        bail!(
            "{}: apiVersion {api_version:?}, kind {kind:?}: expected {API_VERSION:?} and {KIND:?}",
            path.display()
        );
    }
    // A mistyped field is reported with its file, before drop-ins blur where it came from.
    let mut probe = value.clone();
    remove_nulls(&mut probe);
    if let Err(error) = serde_json::from_value::<KubeletConfiguration>(probe.clone()) {
        bail!(
            "{}: {}{error}",
            path.display(),
            culprit(&probe).map_or(String::new(), |f| format!("field {f:?}: "))
        );
    }
    Ok(value)
}

/// The first field that cannot be read by itself.
fn culprit(value: &Value) -> Option<String> {
    let fails = |key: &String, value: &Value| {
        serde_json::from_value::<KubeletConfiguration>(serde_json::json!({ key.as_str(): value })).is_err()
    };
    value
        .as_object()?
        .iter()
        .find(|(k, v)| fails(k, v))
        .map(|(k, _)| k.clone())
}

fn drop_in_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("--config-dir {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "conf"))
        .collect();
    files.sort();
    Ok(files)
}

/// Maps are merged, everything else is replaced.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn remove_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, v| !v.is_null());
        map.values_mut().for_each(remove_nulls);
    }
}

/// `key=value:effect`
fn parse_taints(list: &[String]) -> Result<Vec<Taint>> {
    let parse = |text: &String| {
        let (rest, effect) = text
            .rsplit_once(':')
            .with_context(|| format!("--register-with-taints: {text:?} is not key=value:effect"))?;
        let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
        if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
            bail!(
                "--register-with-taints: {effect:?} is not an effect (NoSchedule, PreferNoSchedule, NoExecute)"
            );
        }
        Ok(Taint {
            key: key.into(),
            value: value.into(),
            effect: effect.into(),
        })
    };
    list.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, args: &[&str]) -> Result<KubeletConfiguration> {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("config.yaml");
        std::fs::write(&path, file).unwrap();
        let mut all = vec![format!("--config={}", path.display())];
        all.extend(args.iter().map(|a| a.to_string()));
        let flags = crate::options::flags()
            .parse(all.into_iter().map(std::ffi::OsString::from))
            .unwrap();
        KubeletConfiguration::load(&flags)
    }

    const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

    #[test]
    fn the_hard_way_file_is_read() {
        let text = format!(
            "{HEAD}address: \"0.0.0.0\"\nauthentication:\n  anonymous:\n    enabled: false\n  webhook:\n    enabled: true\n  x509:\n    clientCAFile: \"/var/lib/kubelet/ca.crt\"\nauthorization:\n  mode: Webhook\ncgroupDriver: systemd\ncontainerRuntimeEndpoint: \"unix:///var/run/containerd/containerd.sock\"\nenableServer: true\nfailSwapOn: false\nmaxPods: 16\nmemorySwap:\n  swapBehavior: NoSwap\nport: 10250\nresolvConf: \"/etc/resolv.conf\"\nregisterNode: true\nruntimeRequestTimeout: \"15m\"\ntlsCertFile: \"/var/lib/kubelet/kubelet.crt\"\ntlsPrivateKeyFile: \"/var/lib/kubelet/kubelet.key\"\n"
        );
        let config = load(&text, &[]).unwrap();
        assert_eq!(
            (
                config.max_pods,
                config.fail_swap_on,
                config.runtime_request_timeout.0.as_secs()
            ),
            (16, false, 900)
        );
        assert_eq!(
            config.authentication.x509.client_ca_file,
            "/var/lib/kubelet/ca.crt"
        );
    }

    #[test]
    fn a_flag_beats_the_file() {
        let config = load(
            &format!("{HEAD}maxPods: 16\n"),
            &["--max-pods=7", "--register-with-taints=a=b:NoSchedule"],
        )
        .unwrap();
        assert_eq!(
            (config.max_pods, config.register_with_taints[0].effect.as_str()),
            (7, "NoSchedule")
        );
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| format!("{:#}", load(text, &[]).unwrap_err());
        assert!(error("kind: Pod\napiVersion: v1\n").contains("expected \"kubelet.config.k8s.io/v1beta1\""));
        assert!(
            error(&format!("{HEAD}maxPods: many\n")).contains("config.yaml: field \"maxPods\": invalid type")
        );
        assert!(
            error(&format!("{HEAD}clusterDNS: [dns]\nmaxPods: 0\n"))
                .contains("clusterDNS (--cluster-dns) \"dns\" is not an IP address; maxPods")
        );
        assert!(
            error(&format!("{HEAD}containerRuntimeEndpoint: npipe://x\n")).contains("unix:///path/to/socket")
        );
    }

    #[test]
    fn drop_ins_are_merged_in_order() {
        let mut a = serde_json::json!({"authentication": {"anonymous": {"enabled": true}}, "maxPods": 1});
        merge(
            &mut a,
            serde_json::json!({"authentication": {"webhook": {"enabled": false}}, "maxPods": 2}),
        );
        assert_eq!(
            a,
            serde_json::json!({"authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}}, "maxPods": 2})
        );
    }
}
