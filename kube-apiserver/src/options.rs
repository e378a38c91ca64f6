//! The command line: upstream's flags, their defaults, and what is refused before any port opens.
//!
//! `FLAGS` are served. `ACCEPTED` parse as upstream's and change nothing yet: setting one is told once at start.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use component_base::flags::{FlagSet, Flags};

mod accepted;
pub mod cidr;

use cidr::Cidr;

/// How a flag's text is read.
enum Kind {
    Text,
    Flag,
    Int,
    Duration,
    List,
    Map,
}
use Kind::{Duration as Span, Flag, Int, List, Map, Text};

type Row = (&'static str, Kind, &'static str, &'static str);

const FLAGS: &[Row] = &[
    // Serving.
    (
        "advertise-address",
        Text,
        "",
        "The IP address on which to advertise the apiserver to members of the cluster. If empty, the --bind-address is used, or the host's default interface where that is unspecified.",
    ),
    (
        "bind-address",
        Text,
        "0.0.0.0",
        "The IP address on which to listen for the --secure-port port.",
    ),
    (
        "secure-port",
        Int,
        "6443",
        "The port on which to serve HTTPS with authentication and authorization.",
    ),
    (
        "cert-dir",
        Text,
        "/var/run/kubernetes",
        "The directory where generated TLS certificates are written when no --tls-cert-file is given.",
    ),
    (
        "tls-cert-file",
        Text,
        "",
        "File with the x509 certificate for HTTPS, followed by any intermediates.",
    ),
    (
        "tls-private-key-file",
        Text,
        "",
        "File with the private key matching --tls-cert-file.",
    ),
    (
        "tls-min-version",
        Text,
        "",
        "Minimum TLS version supported: VersionTLS12 or VersionTLS13.",
    ),
    (
        "tls-cipher-suites",
        List,
        "",
        "Comma-separated list of cipher suites by their Go names.",
    ),
    (
        "external-hostname",
        Text,
        "",
        "The hostname to use in externalized URLs for this server.",
    ),
    (
        "http2-max-streams-per-connection",
        Int,
        "0",
        "Streams a client may have open on one HTTP/2 connection; 0 means 250.",
    ),
    (
        "strict-transport-security-directives",
        List,
        "",
        "Directives for the Strict-Transport-Security header.",
    ),
    (
        "request-timeout",
        Span,
        "1m0s",
        "How long a request that is no watch may take before it is timed out.",
    ),
    (
        "min-request-timeout",
        Int,
        "1800",
        "Seconds that a watch without timeoutSeconds lasts at least.",
    ),
    (
        "shutdown-delay-duration",
        Span,
        "0s",
        "How long to keep serving, unready, after the signal to stop.",
    ),
    (
        "max-requests-inflight",
        Int,
        "400",
        "Non-mutating requests in flight before more are refused; 0 for no limit.",
    ),
    (
        "max-mutating-requests-inflight",
        Int,
        "200",
        "Mutating requests in flight before more are refused; 0 for no limit.",
    ),
    // etcd.
    (
        "etcd-servers",
        List,
        "",
        "etcd servers to connect with (scheme://ip:port), comma separated.",
    ),
    (
        "etcd-prefix",
        Text,
        "/registry",
        "The prefix of all resource paths in etcd.",
    ),
    ("etcd-cafile", Text, "", "CA file for etcd's certificates."),
    ("etcd-certfile", Text, "", "Client certificate for etcd."),
    ("etcd-keyfile", Text, "", "Client key for etcd."),
    (
        "etcd-compaction-interval",
        Span,
        "5m0s",
        "How often etcd's history is compacted; 0 disables it.",
    ),
    (
        "etcd-healthcheck-timeout",
        Span,
        "2s",
        "Timeout of the check of etcd's health.",
    ),
    (
        "etcd-readycheck-timeout",
        Span,
        "2s",
        "Timeout of the check of etcd's readiness.",
    ),
    ("event-ttl", Span, "1h0m0s", "How long events are kept."),
    ("storage-backend", Text, "", "The storage backend: etcd3."),
    (
        "storage-media-type",
        Text,
        "application/vnd.kubernetes.protobuf",
        "The media type of objects in storage.",
    ),
    (
        "encryption-provider-config",
        Text,
        "",
        "File with the configuration of encryption at rest.",
    ),
    (
        "encryption-provider-config-automatic-reload",
        Flag,
        "false",
        "Reload that file when it changes.",
    ),
    // Authentication.
    (
        "anonymous-auth",
        Flag,
        "true",
        "Requests without credentials are those of system:anonymous.",
    ),
    (
        "client-ca-file",
        Text,
        "",
        "CA file for client certificates: their CommonName is the user, their organizations the groups.",
    ),
    ("token-auth-file", Text, "", "File with static bearer tokens."),
    (
        "enable-bootstrap-token-auth",
        Flag,
        "false",
        "Tokens from bootstrap.kubernetes.io/token secrets in kube-system are accepted.",
    ),
    (
        "api-audiences",
        List,
        "",
        "Audiences of the API: what service account tokens must be made for. Defaults to the issuer.",
    ),
    (
        "service-account-issuer",
        List,
        "",
        "Identifier of the service account token issuer; the first one issues, all are accepted.",
    ),
    (
        "service-account-key-file",
        List,
        "",
        "Files with PEM public or private keys, or certificates, that verify service account tokens.",
    ),
    (
        "service-account-signing-key-file",
        Text,
        "",
        "File with the key that signs service account tokens.",
    ),
    (
        "service-account-jwks-uri",
        Text,
        "",
        "Overrides the URI of the JSON web key set in the discovery document.",
    ),
    (
        "service-account-lookup",
        Flag,
        "true",
        "Service account tokens are checked against the objects they are bound to.",
    ),
    (
        "service-account-max-token-expiration",
        Span,
        "0s",
        "The longest validity of a token; 0 for no limit.",
    ),
    (
        "service-account-extend-token-expiration",
        Flag,
        "true",
        "Tokens of pods are extended for clients that do not reload them.",
    ),
    (
        "requestheader-client-ca-file",
        Text,
        "",
        "CA file for the front proxy's client certificates.",
    ),
    (
        "requestheader-allowed-names",
        List,
        "",
        "CommonNames of front proxies; empty allows any name that the CA signed.",
    ),
    (
        "requestheader-username-headers",
        List,
        "",
        "Headers that name the user.",
    ),
    (
        "requestheader-uid-headers",
        List,
        "",
        "Headers that give the user's UID.",
    ),
    (
        "requestheader-group-headers",
        List,
        "",
        "Headers that name the groups.",
    ),
    (
        "requestheader-extra-headers-prefix",
        List,
        "",
        "Prefixes of headers with extra facts on the user.",
    ),
    // Authorization and admission.
    (
        "authorization-mode",
        List,
        "",
        "Authorizers in order: AlwaysAllow, AlwaysDeny, Node, RBAC. Defaults to AlwaysAllow.",
    ),
    (
        "enable-admission-plugins",
        List,
        "",
        "Admission plugins besides the default ones.",
    ),
    (
        "disable-admission-plugins",
        List,
        "",
        "Default admission plugins that are off.",
    ),
    (
        "admission-control-config-file",
        Text,
        "",
        "File with the configuration of admission plugins.",
    ),
    (
        "allow-privileged",
        Flag,
        "false",
        "Privileged containers may be created.",
    ),
    // Audit.
    ("audit-policy-file", Text, "", "File with the audit policy."),
    (
        "audit-log-path",
        Text,
        "",
        "Where the audit log is written; - is standard output.",
    ),
    (
        "audit-log-format",
        Text,
        "json",
        "Format of the audit log: json or legacy.",
    ),
    (
        "audit-log-maxage",
        Int,
        "0",
        "Days that old audit logs are kept; 0 for ever.",
    ),
    (
        "audit-log-maxbackup",
        Int,
        "0",
        "Old audit logs that are kept; 0 for all.",
    ),
    (
        "audit-log-maxsize",
        Int,
        "0",
        "Megabytes of an audit log before it is rotated; 0 means 100.",
    ),
    (
        "audit-log-compress",
        Flag,
        "false",
        "Rotated audit logs are compressed.",
    ),
    // Resources.
    (
        "runtime-config",
        Map,
        "",
        "API versions on or off: api/all=true, api/beta=true, apps/v1=false, ...",
    ),
    (
        "service-cluster-ip-range",
        Text,
        "",
        "CIDR, or two of different families, of cluster addresses. Defaults to 10.0.0.0/24.",
    ),
    (
        "service-node-port-range",
        Text,
        "30000-32767",
        "Port range of services with node ports, both ends included.",
    ),
    (
        "kubernetes-service-node-port",
        Int,
        "0",
        "If not 0, the kubernetes service is of type NodePort with this port.",
    ),
    (
        "apiserver-count",
        Int,
        "1",
        "Number of API servers of the cluster.",
    ),
    (
        "endpoint-reconciler-type",
        Text,
        "lease",
        "How the kubernetes service's endpoints are kept: lease or none.",
    ),
    // Towards kubelets and extension servers.
    (
        "kubelet-certificate-authority",
        Text,
        "",
        "CA file for kubelets' serving certificates.",
    ),
    (
        "kubelet-client-certificate",
        Text,
        "",
        "Client certificate for kubelets.",
    ),
    ("kubelet-client-key", Text, "", "Client key for kubelets."),
    (
        "kubelet-preferred-address-types",
        List,
        "Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP",
        "Address types to try for kubelets.",
    ),
    ("kubelet-timeout", Span, "5s", "Timeout of kubelet calls."),
    (
        "proxy-client-cert-file",
        Text,
        "",
        "Client certificate for extension servers and webhooks.",
    ),
    (
        "proxy-client-key-file",
        Text,
        "",
        "Client key for extension servers and webhooks.",
    ),
];

pub fn flag_set() -> FlagSet {
    let about = "The Kubernetes API server validates and configures data for the api objects which include pods, services, replicationcontrollers, and others.";
    let mut set = FlagSet::new("kube-apiserver", about);
    for (name, kind, default, help) in FLAGS.iter().chain(accepted::ACCEPTED) {
        set = declare(set, name, kind, default, help);
    }
    for (name, advice) in accepted::DEPRECATED {
        set = set.deprecated(name, advice);
    }
    for (name, takes_value, advice) in accepted::REMOVED {
        set = set.removed(name, *takes_value, advice);
    }
    set
}

fn declare(
    set: FlagSet,
    name: &'static str,
    kind: &Kind,
    default: &'static str,
    help: &'static str,
) -> FlagSet {
    match kind {
        Text => set.string(name, default, help),
        Flag => set.bool(name, default == "true", help),
        Int => set.int(name, default.parse().unwrap_or(0), help),
        Span => set.duration(name, default, help),
        List => set.strings(name, default, help),
        Map => set.map(name, default, help),
    }
}

/// What the rest of the server reads, checked. Authentication, authorization, admission and audit read their flags from `flags`.
pub struct Options {
    pub flags: Flags,
    pub bind_address: IpAddr,
    pub secure_port: u16,
    pub advertise_address: IpAddr,
    pub etcd_servers: Vec<String>,
    pub service_ranges: Vec<Cidr>,
    /// First and last port, inclusive.
    pub node_ports: (u16, u16),
    pub min_watch: Duration,
    pub event_ttl_s: i64,
}

impl Options {
    /// Everything that can be known to be wrong from the command line alone; all mistakes are told at once.
    pub fn new(flags: Flags) -> Result<Options> {
        let mut errors = Vec::new();
        check(&flags, &mut errors);
        let bind_address = flags
            .string("bind-address")
            .parse()
            .unwrap_or(IpAddr::from([0, 0, 0, 0]));
        let service_ranges = ranges(&flags).unwrap_or_else(|e| {
            errors.push(e.to_string());
            Vec::new()
        });
        let node_ports = port_range(flags.string("service-node-port-range")).unwrap_or_else(|e| {
            errors.push(e.to_string());
            (0, 0)
        });
        match errors.as_slice() {
            [] => {}
            [one] => bail!("{one}"),
            many => bail!("[{}]", many.join(", ")),
        }
        let advertise_address = advertise(&flags, bind_address)?;
        accepted::warn(&flags);
        Ok(Options {
            bind_address,
            secure_port: flags.int("secure-port") as u16,
            advertise_address,
            etcd_servers: flags.strings("etcd-servers"),
            service_ranges,
            node_ports,
            min_watch: Duration::from_secs(flags.int("min-request-timeout") as u64),
            event_ttl_s: flags.duration("event-ttl").as_secs() as i64,
            flags,
        })
    }

    /// A flag that names a file, if given.
    pub fn file(&self, name: &str) -> Option<&str> {
        Some(self.flags.string(name)).filter(|path| !path.is_empty())
    }
}

fn check(flags: &Flags, errors: &mut Vec<String>) {
    let mut refuse = |wrong: bool, text: String| {
        if wrong {
            errors.push(text);
        }
    };
    refuse(
        flags.strings("etcd-servers").is_empty(),
        "--etcd-servers must be specified".into(),
    );
    let backend = flags.string("storage-backend");
    refuse(
        !matches!(backend, "" | "etcd3"),
        "--storage-backend invalid, allowed values: etcd3. If not specified, it will default to 'etcd3'"
            .into(),
    );
    let media = flags.string("storage-media-type");
    refuse(
        !matches!(media, "application/json" | "application/vnd.kubernetes.protobuf"),
        format!(
            "--storage-media-type {media:?} invalid, allowed values: application/json, application/vnd.kubernetes.protobuf"
        ),
    );
    refuse(
        flags.bool("encryption-provider-config-automatic-reload")
            && flags.string("encryption-provider-config").is_empty(),
        "--encryption-provider-config-automatic-reload must be set with --encryption-provider-config".into(),
    );
    let port = flags.int("secure-port");
    refuse(
        !(1..=65535).contains(&port),
        format!(
            "--secure-port {port} must be between 1 and 65535, inclusive. It cannot be turned off with 0"
        ),
    );
    let bind = flags.string("bind-address");
    refuse(
        bind.parse::<IpAddr>().is_err(),
        format!("invalid argument {bind:?} for \"--bind-address\" flag: failed to parse IP: {bind:?}"),
    );
    let node_port = flags.int("kubernetes-service-node-port");
    refuse(
        !(0..=65535).contains(&node_port),
        format!(
            "--kubernetes-service-node-port {node_port} must be between 0 and 65535, inclusive. If 0, the Kubernetes master service will be of type ClusterIP"
        ),
    );
    let count = flags.int("apiserver-count");
    refuse(
        count <= 0,
        format!("--apiserver-count should be a positive number, but value '{count}' provided"),
    );
    refuse(
        flags.int("max-requests-inflight") < 0,
        "--max-requests-inflight can not be negative value".into(),
    );
    refuse(
        flags.int("max-mutating-requests-inflight") < 0,
        "--max-mutating-requests-inflight can not be negative value".into(),
    );
    refuse(
        flags.int("min-request-timeout") < 0,
        "--min-request-timeout can not be negative value".into(),
    );
    let (cert, key) = (
        flags.string("tls-cert-file"),
        flags.string("tls-private-key-file"),
    );
    refuse(
        cert.is_empty() != key.is_empty(),
        "--tls-cert-file and --tls-private-key-file must be given together".into(),
    );
    let (cert, key) = (flags.string("etcd-certfile"), flags.string("etcd-keyfile"));
    refuse(
        cert.is_empty() != key.is_empty(),
        "--etcd-certfile and --etcd-keyfile must be given together".into(),
    );
    let reconciler = flags.string("endpoint-reconciler-type");
    refuse(
        !matches!(reconciler, "lease" | "none" | "master-count"),
        format!("--endpoint-reconciler-type: unknown reconciler {reconciler:?}; use lease or none"),
    );
}

/// Upstream's default where the flag is absent.
const DEFAULT_SERVICE_RANGE: &str = "10.0.0.0/24";

/// Largest service range by host bits; upstream's bound on what its allocator covers.
const MAX_SERVICE_BITS: u32 = 20;

fn ranges(flags: &Flags) -> Result<Vec<Cidr>> {
    let text = flags.string("service-cluster-ip-range");
    let text = if text.is_empty() {
        DEFAULT_SERVICE_RANGE
    } else {
        text
    };
    let parse = |part: &str| {
        part.trim()
            .parse::<Cidr>()
            .with_context(|| "--service-cluster-ip-range is not a valid CIDR")
    };
    let ranges = text.split(',').map(parse).collect::<Result<Vec<_>>>()?;
    for range in &ranges {
        let (bits, host) = (range.width(), range.host_bits());
        if host > MAX_SERVICE_BITS && bits == 32 {
            bail!(
                "specified --service-cluster-ip-range is too large; for {bits}-bit addresses, the mask must be >= {}",
                bits - MAX_SERVICE_BITS
            );
        }
    }
    match ranges.as_slice() {
        [_] => Ok(ranges),
        [a, b] if a.is_ipv4() != b.is_ipv4() => Ok(ranges),
        [_, _] => bail!(
            "--service-cluster-ip-range and --secondary-service-cluster-ip-range must be of different IP family"
        ),
        _ => bail!("--service-cluster-ip-range must not contain more than two entries"),
    }
}

fn port_range(text: &str) -> Result<(u16, u16)> {
    let bad = || {
        format!(
            "invalid argument {text:?} for \"--service-node-port-range\" flag: want first-last or base+size"
        )
    };
    let (first, last) = match (text.split_once('-'), text.split_once('+')) {
        (Some((first, last)), _) => (first.parse().with_context(bad)?, last.parse().with_context(bad)?),
        (None, Some((first, size))) => {
            let first: u16 = first.parse().with_context(bad)?;
            (first, first.saturating_add(size.parse().with_context(bad)?))
        }
        (None, None) => {
            let only: u16 = text.parse().with_context(bad)?;
            (only, only)
        }
    };
    if first > last || first == 0 {
        bail!("{}", bad());
    }
    Ok((first, last))
}

/// The address other members reach this server at.
fn advertise(flags: &Flags, bind: IpAddr) -> Result<IpAddr> {
    let given = flags.string("advertise-address");
    if !given.is_empty() {
        return given.parse().with_context(|| {
            format!(
                "invalid argument {given:?} for \"--advertise-address\" flag: failed to parse IP: {given:?}"
            )
        });
    }
    if !bind.is_unspecified() && !bind.is_loopback() {
        return Ok(bind);
    }
    Ok(default_route_address().unwrap_or(IpAddr::from([127, 0, 0, 1])))
}

/// The source address that the kernel would take for the outside; nothing is sent.
fn default_route_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &[&str]) -> Result<Options> {
        let flags = flag_set()
            .parse(args.iter().map(std::ffi::OsString::from))
            .map_err(|e| anyhow::anyhow!("{e}"))?;
        Options::new(flags)
    }

    #[test]
    fn mistakes_are_told_together_with_upstreams_words() {
        let error = options(&["--secure-port=0"]).err().unwrap().to_string();
        assert!(error.contains("--etcd-servers must be specified"), "{error}");
        assert!(
            error.contains(
                "--secure-port 0 must be between 1 and 65535, inclusive. It cannot be turned off with 0"
            ),
            "{error}"
        );
    }

    #[test]
    fn the_hard_way_and_the_course_start() {
        let hard_way = [
            "--allow-privileged=true",
            "--apiserver-count=1",
            "--audit-log-maxage=30",
            "--audit-log-path=/tmp/audit.log",
            "--authorization-mode=Node,RBAC",
            "--bind-address=0.0.0.0",
            "--enable-admission-plugins=NamespaceLifecycle,NodeRestriction",
            "--etcd-servers=http://127.0.0.1:2379",
            "--event-ttl=1h",
            "--runtime-config=api/all=true",
            "--service-cluster-ip-range=10.32.0.0/24",
            "--service-node-port-range=30000-32767",
            "--v=2",
            "--enable-swagger-ui=true",
            "--kubelet-https=true",
            "--experimental-encryption-provider-config=/x",
        ];
        let options = options(&hard_way).unwrap();
        assert_eq!(options.node_ports, (30000, 32767));
        assert_eq!(options.event_ttl_s, 3600);
        assert_eq!(options.service_ranges[0].to_string(), "10.32.0.0/24");
    }

    #[test]
    fn ranges_must_be_one_or_two_families() {
        assert!(
            options(&[
                "--etcd-servers=http://a",
                "--service-cluster-ip-range=10.0.0.0/16,fd00::/112"
            ])
            .is_ok()
        );
        assert!(
            options(&[
                "--etcd-servers=http://a",
                "--service-cluster-ip-range=10.0.0.0/16,10.1.0.0/16"
            ])
            .is_err()
        );
        assert!(options(&["--etcd-servers=http://a", "--service-cluster-ip-range=10.0.0.0/8"]).is_err());
        assert_eq!(port_range("30000+10").unwrap(), (30000, 30010));
        assert!(port_range("9-5").is_err());
    }
}
