//! What the machine is and has.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{NodeAddress, NodeSystemInfo};

use crate::kubelet_config::KubeletConfiguration;
use crate::pod::Labels;
use crate::resources::{self, Amounts, ResourceList};

#[derive(Debug, Clone)]
pub struct Machine {
    pub hostname: String,
    pub node_name: String,
    pub ips: Vec<IpAddr>,
    pub capacity: Amounts,
    pub allocatable: Amounts,
    pub info: NodeSystemInfo,
}

impl Machine {
    pub fn look(
        config: &KubeletConfiguration,
        hostname_override: &str,
        node_ip: &str,
        root_dir: &Path,
    ) -> Result<Self> {
        let hostname = hostname();
        let node_name = match hostname_override.trim() {
            "" => hostname.trim().to_lowercase(),
            name => name.to_lowercase(),
        };
        let problems = apimachinery::validation::dns1123_subdomain(&node_name);
        if !problems.is_empty() {
            bail!(
                "node name {node_name:?}: {}; set another with --hostname-override",
                problems.join("; ")
            );
        }
        let ips = node_ips(node_ip, &node_name)?;
        let capacity = capacity(config, root_dir);
        let allocatable = allocatable(&capacity, config)?;
        Ok(Self {
            hostname,
            node_name,
            ips,
            capacity,
            allocatable,
            info: system_info(),
        })
    }

    pub fn labels(&self, extra: &BTreeMap<String, String>) -> Labels {
        let arch = go_arch();
        let own = [
            ("kubernetes.io/hostname", self.hostname_label()),
            ("kubernetes.io/os", "linux".into()),
            ("kubernetes.io/arch", arch.into()),
            ("beta.kubernetes.io/os", "linux".into()),
            ("beta.kubernetes.io/arch", arch.into()),
        ];
        own.into_iter()
            .map(|(k, v)| (k.to_string(), v))
            .chain(extra.clone())
            .collect()
    }

    fn hostname_label(&self) -> String {
        self.node_name.clone()
    }

    pub fn addresses(&self) -> Vec<NodeAddress> {
        let ip = |ip: &IpAddr| NodeAddress {
            type_: "InternalIP".into(),
            address: ip.to_string(),
        };
        let name = NodeAddress {
            type_: "Hostname".into(),
            address: self.node_name.clone(),
        };
        self.ips.iter().map(ip).chain([name]).collect()
    }

    pub fn host_ips(&self) -> Vec<String> {
        self.ips.iter().map(IpAddr::to_string).collect()
    }

    pub fn memory_capacity(&self) -> i64 {
        self.capacity.get("memory").copied().unwrap_or(0)
    }
}

/// As the API writes amounts.
pub fn quantities(amounts: &Amounts) -> ResourceList {
    let quantity = |name: &str, n: i64| match name {
        "cpu" => resources::milli_quantity(n),
        "memory" | "ephemeral-storage" => resources::kib_quantity(n),
        _ => resources::quantity(n),
    };
    amounts
        .iter()
        .map(|(name, n)| (name.clone(), quantity(name, *n)))
        .collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_string()
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

fn node_ips(wanted: &str, node_name: &str) -> Result<Vec<IpAddr>> {
    let mut ips = Vec::new();
    for text in wanted.split(',').map(str::trim).filter(|t| !t.is_empty()) {
        ips.push(
            text.parse::<IpAddr>()
                .with_context(|| format!("--node-ip: {text:?} is not an IP address"))?,
        );
    }
    if ips.len() > 2 {
        bail!("--node-ip: must contain either a single IP or a dual-stack pair of IPs");
    }
    let unspecified = ips.iter().all(IpAddr::is_unspecified);
    if !ips.is_empty() && !unspecified {
        return Ok(ips);
    }
    if let Ok(ip) = node_name.parse::<IpAddr>() {
        return Ok(vec![ip]);
    }
    Ok(vec![default_route_ip()])
}

/// The address that packets to the world leave from. Connecting a datagram socket sends nothing.
fn default_route_ip() -> IpAddr {
    let probe = |local: &str, remote: &str| -> Option<IpAddr> {
        let socket = UdpSocket::bind(local).ok()?;
        socket.connect(remote).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
    };
    probe("0.0.0.0:0", "192.0.2.1:9")
        .or_else(|| probe("[::]:0", "[2001:db8::1]:9"))
        .unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))
}

pub fn memory_total() -> i64 {
    let text = read("/proc/meminfo");
    meminfo(&text, "MemTotal:")
}

fn meminfo(text: &str, key: &str) -> i64 {
    let line = text.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<i64>().unwrap_or(0) * 1024
}

pub fn swap_total() -> i64 {
    meminfo(&read("/proc/meminfo"), "SwapTotal:")
}

fn cpus() -> i64 {
    let online = read("/proc/cpuinfo")
        .lines()
        .filter(|l| l.starts_with("processor"))
        .count();
    i64::try_from(online.max(1)).unwrap_or(1)
}

fn capacity(config: &KubeletConfiguration, root_dir: &Path) -> Amounts {
    let mut capacity = Amounts::from([
        ("cpu".to_string(), cpus() * 1000),
        ("memory".to_string(), memory_total()),
        ("pods".to_string(), config.max_pods),
    ]);
    if let Ok(stat) = rustix::fs::statvfs(root_dir) {
        let bytes = stat.f_blocks.saturating_mul(stat.f_frsize);
        capacity.insert(
            "ephemeral-storage".into(),
            i64::try_from(bytes).unwrap_or(i64::MAX),
        );
    }
    for (name, bytes) in hugepages() {
        capacity.insert(name, bytes);
    }
    capacity
}

fn hugepages() -> Vec<(String, i64)> {
    let Ok(entries) = std::fs::read_dir("/sys/kernel/mm/hugepages") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(kib) = name
            .strip_prefix("hugepages-")
            .and_then(|n| n.strip_suffix("kB")?.parse::<i64>().ok())
        else {
            continue;
        };
        let count: i64 = read(&entry.path().join("nr_hugepages").display().to_string())
            .parse()
            .unwrap_or(0);
        let size = if kib % (1 << 20) == 0 {
            format!("{}Gi", kib >> 20)
        } else {
            format!("{}Mi", kib >> 10)
        };
        found.push((format!("hugepages-{size}"), count * kib * 1024));
    }
    found
}

/// What is left for pods after the reservations and the hard eviction thresholds.
fn allocatable(capacity: &Amounts, config: &KubeletConfiguration) -> Result<Amounts> {
    let mut left = capacity.clone();
    for (what, map) in [
        ("kubeReserved", &config.kube_reserved),
        ("systemReserved", &config.system_reserved),
    ] {
        for (name, text) in map {
            let quantity = apimachinery::quantity::Quantity::parse(text)
                .map_err(|e| anyhow::anyhow!("{what}.{name}: {text:?}: {e}"))?;
            let amount = if name == "cpu" {
                quantity.milli_value()
            } else {
                quantity.value()
            };
            if let Some(n) = left.get_mut(name) {
                *n = (*n - amount).max(0);
            }
        }
    }
    for (signal, resource) in [
        ("memory.available", "memory"),
        ("nodefs.available", "ephemeral-storage"),
    ] {
        let total = capacity.get(resource).copied().unwrap_or(0);
        let kept = config
            .eviction_hard
            .get(signal)
            .and_then(|t| threshold(t, total))
            .unwrap_or(0);
        if let Some(n) = left.get_mut(resource) {
            *n = (*n - kept).max(0);
        }
    }
    let pages: i64 = capacity
        .iter()
        .filter(|(n, _)| n.starts_with("hugepages-"))
        .map(|(_, n)| n)
        .sum();
    if let Some(n) = left.get_mut("memory") {
        *n = (*n - pages).max(0);
    }
    Ok(left)
}

/// `100Mi` or a share of the whole, `10%`.
pub fn threshold(text: &str, total: i64) -> Option<i64> {
    if let Some(percent) = text.strip_suffix('%') {
        return Some((total as f64 * percent.parse::<f64>().ok()? / 100.0) as i64);
    }
    apimachinery::quantity::Quantity::parse(text)
        .ok()
        .map(|q| q.value())
}

fn system_info() -> NodeSystemInfo {
    let uname = rustix::system::uname();
    let os_release = read("/etc/os-release");
    let os_image = os_release
        .lines()
        .find_map(|l| l.strip_prefix("PRETTY_NAME="))
        .unwrap_or("Linux")
        .trim_matches('"');
    let machine_id = read("/etc/machine-id");
    let uuid = read("/sys/class/dmi/id/product_uuid");
    NodeSystemInfo {
        system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
        machine_id,
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        kernel_version: uname.release().to_string_lossy().into_owned(),
        os_image: os_image.to_string(),
        kubelet_version: component_base::version::GIT_VERSION.into(),
        operating_system: "linux".into(),
        architecture: go_arch().into(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocatable_is_what_reservations_and_thresholds_leave() {
        let config = KubeletConfiguration {
            kube_reserved: BTreeMap::from([("cpu".into(), "200m".into()), ("memory".into(), "100Mi".into())]),
            ..Default::default()
        };
        let capacity = Amounts::from([
            ("cpu".into(), 2000),
            ("memory".into(), 1 << 30),
            ("ephemeral-storage".into(), 1000),
            ("pods".into(), 110),
        ]);
        let left = allocatable(&capacity, &config).unwrap();
        assert_eq!(
            (left["cpu"], left["memory"], left["ephemeral-storage"]),
            (1800, (1 << 30) - (200 << 20), 900)
        );
        let bad = KubeletConfiguration {
            kube_reserved: BTreeMap::from([("cpu".into(), "x".into())]),
            ..Default::default()
        };
        assert!(
            allocatable(&capacity, &bad)
                .unwrap_err()
                .to_string()
                .contains("kubeReserved.cpu")
        );
    }

    #[test]
    fn amounts_are_printed_as_nodes_print_them() {
        let amounts = Amounts::from([
            ("cpu".into(), 2000),
            ("memory".into(), 1 << 30),
            ("pods".into(), 110),
        ]);
        let q = quantities(&amounts);
        assert_eq!(
            (q["cpu"].0.as_str(), q["memory"].0.as_str(), q["pods"].0.as_str()),
            ("2", "1048576Ki", "110")
        );
    }

    #[test]
    fn node_ips_are_checked() {
        assert_eq!(
            node_ips("1.2.3.4", "n").unwrap(),
            ["1.2.3.4".parse::<IpAddr>().unwrap()]
        );
        assert!(node_ips("x", "n").is_err() && node_ips("1.1.1.1,2.2.2.2,3.3.3.3", "n").is_err());
    }
}
