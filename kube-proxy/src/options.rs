//! Flags and KubeProxyConfiguration, merged as upstream does: with `--config`, the file decides and the flags that
//! describe the same thing are ignored.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use component_base::config::GoDuration;
use component_base::flags::{FlagSet, Flags};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

const KINDS: &[(&str, &str)] = &[("kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration")];
const MAX_MASQUERADE_BIT: i64 = 31;

pub fn flags() -> FlagSet {
    network_flags(FlagSet::new(
        "kube-proxy",
        "Routes the traffic of Services on this node by nftables.",
    ))
    .string("config", "", "The path to the configuration file.")
    .string(
        "kubeconfig",
        "",
        "Path to kubeconfig file with authorization information.",
    )
    .string(
        "master",
        "",
        "The address of the Kubernetes API server (overrides any value in kubeconfig).",
    )
    .string(
        "hostname-override",
        "",
        "Name of this node. Default: the host name.",
    )
    .string(
        "healthz-bind-address",
        "0.0.0.0:10256",
        "IP:port of the health check server; empty disables it.",
    )
    .string(
        "metrics-bind-address",
        "127.0.0.1:10249",
        "IP:port of the metrics server; empty disables it.",
    )
    .bool(
        "bind-address-hard-fail",
        false,
        "Treat a failure to bind to a port as fatal.",
    )
    .bool(
        "profiling",
        false,
        "Serve /debug/pprof (accepted; there is no such handler here).",
    )
    .bool("cleanup", false, "Remove the nftables table and exit.")
    .bool(
        "init-only",
        false,
        "Do what needs full privileges and exit (nothing does).",
    )
    .string(
        "write-config-to",
        "",
        "Write the effective configuration to this file and exit.",
    )
    .map("feature-gates", "", "Accepted; the engine has no gates.")
    .string(
        "kube-api-content-type",
        "application/vnd.kubernetes.protobuf",
        "Accepted; requests are JSON.",
    )
    .int("kube-api-burst", 10, "Accepted; there is no client-side limit.")
    .float("kube-api-qps", 5.0, "Accepted; there is no client-side limit.")
    .int("oom-score-adj", -999, "The oom_score_adj of this process.")
    .duration("config-sync-period", "15m0s", "Accepted; changes come by watch.")
    .string(
        "show-hidden-metrics-for-version",
        "",
        "Accepted; no metrics are hidden.",
    )
    .removed("resource-container", true, "it was removed upstream")
    .removed("udp-timeout", true, "it was removed upstream")
    .removed("cleanup-ipvs", true, "use --cleanup")
    .removed("proxy-port-range", true, "it was removed upstream")
    .removed("masquerade-bit", true, "use --iptables-masquerade-bit")
}

fn network_flags(flags: FlagSet) -> FlagSet {
    flags
        .string(
            "proxy-mode",
            "",
            "'iptables', 'ipvs' or 'nftables'; all are served by nftables.",
        )
        .string(
            "cluster-cidr",
            "",
            "The CIDRs of the pods, comma-separated for dual stack.",
        )
        .bool("masquerade-all", false, "SNAT all traffic sent to cluster IPs.")
        .int(
            "iptables-masquerade-bit",
            14,
            "The bit of the packet mark that asks for SNAT, 0 to 31.",
        )
        .strings(
            "nodeport-addresses",
            "",
            "CIDRs of local addresses on which node ports answer. Default: all but loopback.",
        )
        .string(
            "bind-address",
            "0.0.0.0",
            "Overrides the node's primary IP (accepted; not needed).",
        )
        .string("detect-local-mode", "", "Only ClusterCIDR is served.")
        .string(
            "pod-bridge-interface",
            "",
            "For --detect-local-mode=BridgeInterface (not served).",
        )
        .string(
            "pod-interface-name-prefix",
            "",
            "For --detect-local-mode=InterfaceNamePrefix (not served).",
        )
        .bool(
            "iptables-localhost-nodeports",
            true,
            "Accepted; node ports never answer on loopback with nftables.",
        )
        .duration(
            "iptables-sync-period",
            "30s",
            "Accepted; what was committed is known.",
        )
        .duration(
            "iptables-min-sync-period",
            "1s",
            "Accepted; a change is committed at once.",
        )
        .duration("ipvs-sync-period", "30s", "Accepted.")
        .duration("ipvs-min-sync-period", "1s", "Accepted.")
        .string("ipvs-scheduler", "", "Accepted; endpoints are chosen at random.")
        .strings("ipvs-exclude-cidrs", "", "Accepted.")
        .bool("ipvs-strict-arp", false, "Accepted.")
        .duration("ipvs-tcp-timeout", "0s", "Accepted.")
        .duration("ipvs-tcpfin-timeout", "0s", "Accepted.")
        .duration("ipvs-udp-timeout", "0s", "Accepted.")
        .int(
            "conntrack-max-per-core",
            32768,
            "Conntrack entries for each core; 0 leaves the limit as it is.",
        )
        .int(
            "conntrack-min",
            131_072,
            "The least number of conntrack entries, whatever the cores.",
        )
        .duration(
            "conntrack-tcp-timeout-established",
            "24h0m0s",
            "Idle timeout of established TCP; 0 leaves it as it is.",
        )
        .duration(
            "conntrack-tcp-timeout-close-wait",
            "1h0m0s",
            "Timeout of TCP in CLOSE_WAIT.",
        )
        .bool("conntrack-tcp-be-liberal", false, "Be liberal about TCP windows.")
        .duration(
            "conntrack-udp-timeout",
            "0s",
            "Idle timeout of UDP; 0 leaves it as it is.",
        )
        .duration(
            "conntrack-udp-timeout-stream",
            "0s",
            "Idle timeout of UDP streams; 0 leaves it as it is.",
        )
}

/// The file, with upstream's names. Only what the engine reads has a type; the rest is kept as it was written.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Configuration {
    pub bind_address: String,
    pub bind_address_hard_fail: bool,
    pub client_connection: ClientConnection,
    #[serde(rename = "clusterCIDR")]
    pub cluster_cidr: String,
    pub config_sync_period: Option<GoDuration>,
    pub conntrack: Conntrack,
    pub detect_local: serde_json::Value,
    pub detect_local_mode: String,
    pub enable_profiling: bool,
    pub feature_gates: BTreeMap<String, bool>,
    pub healthz_bind_address: Option<String>,
    pub hostname_override: String,
    pub iptables: RuleOptions,
    pub ipvs: serde_json::Value,
    pub logging: serde_json::Value,
    pub metrics_bind_address: Option<String>,
    pub mode: String,
    pub nftables: RuleOptions,
    pub node_port_addresses: Option<Vec<String>>,
    #[serde(rename = "oomScoreAdj")]
    pub oom_score_adj: Option<i32>,
    pub port_range: String,
    pub show_hidden_metrics_for_version: String,
    #[serde(rename = "udpIdleTimeout")]
    pub udp_idle_timeout: Option<GoDuration>,
    pub winkernel: serde_json::Value,
    pub windows_run_as_service: bool,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ClientConnection {
    pub accept_content_types: String,
    pub burst: i32,
    pub content_type: String,
    pub kubeconfig: String,
    pub qps: f64,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RuleOptions {
    pub localhost_node_ports: Option<bool>,
    pub masquerade_all: bool,
    pub masquerade_bit: Option<i64>,
    pub min_sync_period: Option<GoDuration>,
    pub sync_period: Option<GoDuration>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Conntrack {
    pub max_per_core: Option<i64>,
    pub min: Option<i64>,
    pub tcp_be_liberal: bool,
    pub tcp_close_wait_timeout: Option<GoDuration>,
    pub tcp_established_timeout: Option<GoDuration>,
    pub udp_stream_timeout: Option<GoDuration>,
    pub udp_timeout: Option<GoDuration>,
}

/// What kube-proxy runs with.
#[derive(Clone, Debug)]
pub struct Options {
    pub kubeconfig: Option<PathBuf>,
    pub master: Option<String>,
    pub node_name: String,
    pub healthz_bind_address: String,
    pub metrics_bind_address: String,
    pub bind_address_hard_fail: bool,
    pub mode: String,
    pub masquerade_all: bool,
    pub masquerade_bit: u32,
    pub cluster_cidrs: Vec<(IpAddr, u8)>,
    pub node_port_cidrs: Vec<(IpAddr, u8)>,
    pub conntrack: ConntrackLimits,
    pub oom_score_adj: i32,
    pub configuration: Configuration,
}

#[derive(Clone, Debug)]
pub struct ConntrackLimits {
    pub max_per_core: i64,
    pub min: i64,
    pub tcp_be_liberal: bool,
    pub tcp_established: Duration,
    pub tcp_close_wait: Duration,
    pub udp: Duration,
    pub udp_stream: Duration,
}

impl Options {
    /// Everything is checked here, before a port is opened or a rule is written.
    pub fn load(flags: &Flags) -> Result<Self> {
        let configuration = match flags.string("config") {
            "" => Self::from_flags(flags),
            path => component_base::config::load(path.as_ref(), KINDS)?,
        };
        Self::complete(flags, configuration)
    }

    fn from_flags(flags: &Flags) -> Configuration {
        let duration = |name| Some(GoDuration(flags.duration(name)));
        let rules = RuleOptions {
            masquerade_all: flags.bool("masquerade-all"),
            masquerade_bit: Some(flags.int("iptables-masquerade-bit")),
            ..RuleOptions::default()
        };
        Configuration {
            bind_address_hard_fail: flags.bool("bind-address-hard-fail"),
            client_connection: ClientConnection {
                kubeconfig: flags.string("kubeconfig").to_owned(),
                ..ClientConnection::default()
            },
            cluster_cidr: flags.string("cluster-cidr").to_owned(),
            conntrack: Conntrack {
                max_per_core: Some(flags.int("conntrack-max-per-core")),
                min: Some(flags.int("conntrack-min")),
                tcp_be_liberal: flags.bool("conntrack-tcp-be-liberal"),
                tcp_close_wait_timeout: duration("conntrack-tcp-timeout-close-wait"),
                tcp_established_timeout: duration("conntrack-tcp-timeout-established"),
                udp_stream_timeout: duration("conntrack-udp-timeout-stream"),
                udp_timeout: duration("conntrack-udp-timeout"),
            },
            detect_local_mode: flags.string("detect-local-mode").to_owned(),
            healthz_bind_address: Some(flags.string("healthz-bind-address").to_owned()),
            iptables: rules.clone(),
            metrics_bind_address: Some(flags.string("metrics-bind-address").to_owned()),
            mode: flags.string("proxy-mode").to_owned(),
            nftables: rules,
            node_port_addresses: Some(flags.strings("nodeport-addresses")),
            oom_score_adj: i32::try_from(flags.int("oom-score-adj")).ok(),
            ..Configuration::default()
        }
    }

    fn complete(flags: &Flags, configuration: Configuration) -> Result<Self> {
        let mode = match configuration.mode.as_str() {
            mode @ ("" | "iptables" | "ipvs" | "nftables") => mode,
            other => bail!(
                "mode: unsupported value {other:?}: supported values are \"iptables\", \"ipvs\", \"nftables\""
            ),
        };
        let rules = if mode == "nftables" {
            &configuration.nftables
        } else {
            &configuration.iptables
        };
        let bit = rules.masquerade_bit.unwrap_or(14);
        if !(0..=MAX_MASQUERADE_BIT).contains(&bit) {
            bail!("masqueradeBit: {bit} must be within the range [0, {MAX_MASQUERADE_BIT}]");
        }
        check_local_mode(&configuration.detect_local_mode);
        let text = |value: &str| {
            if value.is_empty() {
                None
            } else {
                Some(value.to_owned())
            }
        };
        Ok(Self {
            kubeconfig: text(&configuration.client_connection.kubeconfig).map(PathBuf::from),
            master: text(flags.string("master")),
            node_name: node_name(flags, &configuration)?,
            healthz_bind_address: address(
                "healthzBindAddress",
                &configuration.healthz_bind_address,
                "0.0.0.0:10256",
                10256,
            )?,
            metrics_bind_address: address(
                "metricsBindAddress",
                &configuration.metrics_bind_address,
                "127.0.0.1:10249",
                10249,
            )?,
            bind_address_hard_fail: configuration.bind_address_hard_fail,
            mode: mode.to_owned(),
            masquerade_all: rules.masquerade_all,
            masquerade_bit: bit as u32,
            cluster_cidrs: configuration
                .cluster_cidr
                .split(',')
                .filter(|cidr| !cidr.is_empty())
                .map(|cidr| parse_cidr("clusterCIDR", cidr))
                .collect::<Result<_>>()?,
            node_port_cidrs: node_port_cidrs(&configuration)?,
            conntrack: conntrack_limits(&configuration.conntrack),
            oom_score_adj: configuration.oom_score_adj.unwrap_or(-999),
            configuration,
        })
    }
}

fn node_name(flags: &Flags, configuration: &Configuration) -> Result<String> {
    let overrides = [
        flags.string("hostname-override"),
        configuration.hostname_override.as_str(),
    ];
    let name = match overrides.into_iter().find(|name| !name.is_empty()) {
        Some(name) => name.to_owned(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let name = name.trim().to_lowercase();
    if name.is_empty() {
        bail!("this host has no name: set --hostname-override");
    }
    Ok(name)
}

/// An address without a port gets the default one; an empty one in the file means the default, as upstream.
fn address(field: &str, value: &Option<String>, default: &str, port: u16) -> Result<String> {
    let text = match value.as_deref() {
        None => default,
        Some(text) => text,
    };
    if text.is_empty() {
        return Ok(String::new());
    }
    let full = if text.parse::<IpAddr>().is_ok() {
        std::net::SocketAddr::new(text.parse()?, port).to_string()
    } else {
        text.to_owned()
    };
    full.parse::<std::net::SocketAddr>()
        .with_context(|| format!("{field}: {text:?} is not IP:port"))?;
    Ok(full)
}

fn node_port_cidrs(configuration: &Configuration) -> Result<Vec<(IpAddr, u8)>> {
    let cidrs = configuration.node_port_addresses.iter().flatten();
    // "primary" means the node's own addresses; every local address but loopback includes them.
    cidrs
        .filter(|cidr| *cidr != "primary")
        .map(|cidr| parse_cidr("nodePortAddresses", cidr))
        .collect()
}

pub fn parse_cidr(field: &str, text: &str) -> Result<(IpAddr, u8)> {
    let parsed = text.trim().split_once('/').and_then(|(ip, bits)| {
        let ip: IpAddr = ip.parse().ok()?;
        let bits: u8 = bits.parse().ok()?;
        (bits <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, bits))
    });
    parsed.with_context(|| format!("{field}: {text:?} is not a CIDR such as 10.244.0.0/16"))
}

fn check_local_mode(mode: &str) {
    if !matches!(mode, "" | "ClusterCIDR") {
        warn!(
            detectLocalMode = mode,
            "Only ClusterCIDR is served: without clusterCIDR, nothing is masqueraded on the way to cluster IPs"
        );
    }
}

fn conntrack_limits(conntrack: &Conntrack) -> ConntrackLimits {
    let duration = |value: &Option<GoDuration>, default: u64| {
        value
            .as_ref()
            .map_or(Duration::from_secs(default), |value| value.0)
    };
    ConntrackLimits {
        max_per_core: conntrack.max_per_core.unwrap_or(32768),
        min: conntrack.min.unwrap_or(131_072),
        tcp_be_liberal: conntrack.tcp_be_liberal,
        tcp_established: duration(&conntrack.tcp_established_timeout, 86_400),
        tcp_close_wait: duration(&conntrack.tcp_close_wait_timeout, 3_600),
        udp: duration(&conntrack.udp_timeout, 0),
        udp_stream: duration(&conntrack.udp_stream_timeout, 0),
    }
}

/// Says once how a mode other than nftables is served.
pub fn announce_mode(mode: &str) {
    match mode {
        "nftables" => info!("Using nftables Proxier"),
        "" => info!("Using nftables Proxier (no mode was chosen)"),
        other => info!(
            mode = other,
            "Using nftables Proxier: it serves this mode too, and makes no iptables or ipvs rules"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(arguments: &[&str]) -> Result<Options> {
        Options::load(&flags().parse(arguments.iter().map(Into::into)).unwrap())
    }

    #[test]
    fn the_tutorials_config_file_is_read() {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&path, "kind: KubeProxyConfiguration\napiVersion: kubeproxy.config.k8s.io/v1alpha1\nclientConnection:\n  kubeconfig: \"/var/lib/kube-proxy/kubeconfig\"\nmode: \"iptables\"\nclusterCIDR: \"10.200.0.0/16\"\n").unwrap();
        let options = load(&[
            "--config",
            path.path().to_str().unwrap(),
            "--hostname-override=Node-0",
        ])
        .unwrap();
        assert_eq!(
            options.kubeconfig.unwrap().to_str(),
            Some("/var/lib/kube-proxy/kubeconfig")
        );
        assert_eq!(options.cluster_cidrs, [("10.200.0.0".parse().unwrap(), 16)]);
        assert_eq!(
            (options.node_name.as_str(), options.healthz_bind_address.as_str()),
            ("node-0", "0.0.0.0:10256")
        );
    }

    #[test]
    fn bad_values_name_the_field() {
        let error = |arguments: &[&str]| load(arguments).unwrap_err().to_string();
        assert!(
            error(&["--cluster-cidr=10.0.0.0/33"]).starts_with("clusterCIDR: \"10.0.0.0/33\" is not a CIDR")
        );
        assert!(error(&["--proxy-mode=userspace"]).contains("unsupported value \"userspace\""));
        assert!(error(&["--iptables-masquerade-bit=32"]).contains("[0, 31]"));
        assert!(error(&["--metrics-bind-address=nowhere"]).contains("metricsBindAddress"));
    }

    #[test]
    fn a_misspelt_field_is_an_error() {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&path, "kind: KubeProxyConfiguration\napiVersion: kubeproxy.config.k8s.io/v1alpha1\nclusterCidr: \"10.200.0.0/16\"\n").unwrap();
        let error = format!(
            "{:#}",
            load(&["--config", path.path().to_str().unwrap()]).unwrap_err()
        );
        assert!(
            error.contains("clusterCidr") && error.contains("line 3"),
            "{error}"
        );
    }
}
