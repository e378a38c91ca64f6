//! The flags that describe the cluster, checked.

use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use component_base::flags::{FlagSet, Flags};

use crate::key::Algorithm;
use crate::profiles::Home;

const DEFAULT_CERT_DIR: &str = "/etc/kubernetes/pki";
const DEFAULT_KUBELET_DIR: &str = "/var/lib/kubelet/pki";

pub struct Settings {
    pub cert_dir: PathBuf,
    pub kubeconfig_dir: PathBuf,
    pub kubelet_dir: PathBuf,
    pub node_name: String,
    pub node_addresses: Vec<IpAddr>,
    pub advertise_address: IpAddr,
    pub bind_port: i64,
    pub first_service_address: IpAddr,
    pub dns_domain: String,
    pub extra_names: Vec<String>,
    pub control_plane_endpoint: String,
    pub cluster_name: String,
    pub algorithm: Algorithm,
    pub validity: Duration,
    pub ca_validity: Duration,
}

/// Where things are.
pub fn directories(set: FlagSet) -> FlagSet {
    set.string("cert-dir", DEFAULT_CERT_DIR, "The path where to save and store the certificates.")
        .string("kubeconfig-dir", "", "The path where to save the kubeconfig files (default: the parent of --cert-dir).")
        .string("kubelet-dir", "", "The path of the kubelet's certificates (default /var/lib/kubelet/pki, or kubelet/ below another --cert-dir).")
}

/// Everything that [`Settings::read`] reads.
pub fn flags(set: FlagSet) -> FlagSet {
    directories(set)
        .string("node-name", "", "The name of this node (default: the host's name).")
        .strings("node-ip", "", "Addresses of the node, for the kubelet's serving certificate (default: --apiserver-advertise-address).")
        .string("apiserver-advertise-address", "", "The IP address the API Server will advertise it's listening on (default: the address of the default route).")
        .int("apiserver-bind-port", 6443, "Port for the API Server to bind to.")
        .strings("apiserver-cert-extra-sans", "", "Extra Subject Alternative Names for serving certificates: IP addresses and DNS names.")
        .string("control-plane-endpoint", "", "A stable IP address or DNS name, with or without port, for the control plane.")
        .string("service-cidr", "10.96.0.0/12", "Range of IP addresses for service VIPs.")
        .string("service-dns-domain", "cluster.local", "Domain of services.")
        .string("cluster-name", "kubernetes", "Name of the cluster in kubeconfigs.")
        .string("key-algorithm", "ECDSA-P256", "Algorithm of new keys: ECDSA-P256, ECDSA-P384, RSA-2048, RSA-3072 or RSA-4096.")
        .duration("validity", "8760h0m0s", "How long certificates are valid.")
        .duration("ca-validity", "87600h0m0s", "How long new authorities are valid.")
}

impl Settings {
    pub fn read(flags: &Flags) -> Result<Self> {
        let (cert_dir, kubeconfig_dir, kubelet_dir) = read_directories(flags);
        let advertise_address = match flags.string("apiserver-advertise-address") {
            "" => default_address()?,
            text => address("apiserver-advertise-address", text)?,
        };
        Ok(Settings {
            cert_dir,
            kubeconfig_dir,
            kubelet_dir,
            node_name: node_name(flags)?,
            node_addresses: node_addresses(flags, advertise_address)?,
            advertise_address,
            bind_port: port(flags)?,
            first_service_address: first_address(flags.string("service-cidr"))?,
            dns_domain: flags.string("service-dns-domain").to_owned(),
            extra_names: extra_names(flags)?,
            control_plane_endpoint: flags.string("control-plane-endpoint").to_owned(),
            cluster_name: flags.string("cluster-name").to_owned(),
            algorithm: flags.string("key-algorithm").parse()?,
            validity: positive(flags, "validity")?,
            ca_validity: positive(flags, "ca-validity")?,
        })
    }

    pub fn home(&self, home: Home) -> &Path {
        match home {
            Home::CertDir => &self.cert_dir,
            Home::KubeletDir => &self.kubelet_dir,
        }
    }

    pub fn local_url(&self) -> String {
        format!(
            "https://{}",
            host_port(&self.advertise_address.to_string(), self.bind_port)
        )
    }

    pub fn cluster_url(&self) -> String {
        match split_port(&self.control_plane_endpoint) {
            ("", _) => self.local_url(),
            (host, port) => format!("https://{}", host_port(host, port.unwrap_or(self.bind_port))),
        }
    }

    pub fn control_plane_host(&self) -> Option<&str> {
        Some(split_port(&self.control_plane_endpoint).0).filter(|host| !host.is_empty())
    }
}

pub fn read_directories(flags: &Flags) -> (PathBuf, PathBuf, PathBuf) {
    let cert_dir = PathBuf::from(flags.string("cert-dir"));
    let given = |name: &str| {
        Some(flags.string(name))
            .filter(|text| !text.is_empty())
            .map(PathBuf::from)
    };
    let parent = || cert_dir.parent().unwrap_or(Path::new(".")).to_path_buf();
    let kubelet = || {
        if cert_dir == Path::new(DEFAULT_CERT_DIR) {
            DEFAULT_KUBELET_DIR.into()
        } else {
            cert_dir.join("kubelet")
        }
    };
    let (kubeconfig_dir, kubelet_dir) = (
        given("kubeconfig-dir").unwrap_or_else(parent),
        given("kubelet-dir").unwrap_or_else(kubelet),
    );
    (cert_dir, kubeconfig_dir, kubelet_dir)
}

fn host_port(host: &str, port: i64) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

fn split_port(endpoint: &str) -> (&str, Option<i64>) {
    if let Some(rest) = endpoint.strip_prefix('[')
        && let Some((host, rest)) = rest.split_once(']')
    {
        return (host, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match endpoint.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, port.parse().ok()),
        _ => (endpoint, None),
    }
}

fn node_name(flags: &Flags) -> Result<String> {
    let name = match flags.string("node-name") {
        "" => String::from_utf8_lossy(rustix::system::uname().nodename().to_bytes()).into_owned(),
        text => text.to_owned(),
    };
    let name = name.trim().to_lowercase();
    let valid = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    match name.len() <= 253 && name.split('.').all(valid) {
        true => Ok(name),
        false => bail!("--node-name={name:?} is not a DNS name"),
    }
}

fn node_addresses(flags: &Flags, advertise: IpAddr) -> Result<Vec<IpAddr>> {
    match flags.strings("node-ip") {
        none if none.is_empty() => Ok(vec![advertise]),
        given => given.iter().map(|text| address("node-ip", text)).collect(),
    }
}

fn address(flag: &str, text: &str) -> Result<IpAddr> {
    text.parse()
        .with_context(|| format!("--{flag}={text:?} is not an IP address"))
}

fn port(flags: &Flags) -> Result<i64> {
    match flags.int("apiserver-bind-port") {
        port @ 1..=65535 => Ok(port),
        other => bail!("--apiserver-bind-port={other} must be between 1 and 65535"),
    }
}

fn positive(flags: &Flags, name: &str) -> Result<Duration> {
    match flags.duration(name) {
        zero if zero.is_zero() => bail!("--{name}={} must be more than zero", flags.string(name)),
        duration => Ok(duration),
    }
}

fn extra_names(flags: &Flags) -> Result<Vec<String>> {
    let names = flags.strings("apiserver-cert-extra-sans");
    match names
        .iter()
        .find(|name| name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        Some(bad) => bail!("--apiserver-cert-extra-sans: {bad:?} is neither a DNS name nor an IP address"),
        None => Ok(names),
    }
}

/// The API server's own Service always gets the first address of the range.
fn first_address(cidr: &str) -> Result<IpAddr> {
    let bad = || format!("--service-cidr={cidr:?} is not a range such as 10.96.0.0/12");
    let first = cidr.split(',').next().unwrap_or(cidr);
    let (base, bits) = first.split_once('/').with_context(bad)?;
    let (base, bits): (IpAddr, u32) = (base.parse().with_context(bad)?, bits.parse().with_context(bad)?);
    match base {
        IpAddr::V4(base) if bits <= 30 => Ok(IpAddr::from(
            (u32::from(base) & (u32::MAX << (32 - bits).min(31)) | 1).to_be_bytes(),
        )),
        IpAddr::V6(base) if bits <= 126 => Ok(IpAddr::from(
            (u128::from(base) & (u128::MAX << (128 - bits).min(127)) | 1).to_be_bytes(),
        )),
        _ => bail!(bad()),
    }
}

/// Connecting a datagram socket sends nothing; the kernel chooses the source address of the route.
fn default_address() -> Result<IpAddr> {
    let probe = || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    };
    let address = probe().context("this host has no default route: give --apiserver-advertise-address")?;
    Ok(address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_of_a_range_is_the_api_servers() {
        assert_eq!(first_address("10.96.0.0/12").unwrap().to_string(), "10.96.0.1");
        assert_eq!(
            first_address("10.32.0.0/24,fd00::/108").unwrap().to_string(),
            "10.32.0.1"
        );
        assert_eq!(first_address("fd00:1::/108").unwrap().to_string(), "fd00:1::1");
        assert!(first_address("10.96.0.0").is_err() && first_address("10.96.0.0/33").is_err());
    }

    #[test]
    fn endpoints_may_carry_a_port() {
        assert_eq!(split_port("lb.example.com:8443"), ("lb.example.com", Some(8443)));
        assert_eq!(split_port("[fd00::1]:8443"), ("fd00::1", Some(8443)));
        assert_eq!(split_port("10.0.0.1"), ("10.0.0.1", None));
        assert_eq!(host_port("fd00::1", 6443), "[fd00::1]:6443");
    }
}
