//! Upstream's flags, and what they come to.

use anyhow::{Context, Result, bail};
use client::leaderelection::LeaderElection;
use component_base::flags::{FlagSet, Flags};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

pub const COMPONENT: &str = "kube-controller-manager";

pub fn flags() -> FlagSet {
    let flags = FlagSet::new(
        COMPONENT,
        "The Kubernetes controller manager embeds the core control loops shipped with Kubernetes.",
    );
    removed(unused(tuning(signing(network(election(serving(identity(
        flags,
    ))))))))
}

fn identity(flags: FlagSet) -> FlagSet {
    flags
        .string("kubeconfig", "", "Path to kubeconfig file with authorization and master location information (the master location can be overridden by the master flag).")
        .string("master", "", "The address of the Kubernetes API server (overrides any value in kubeconfig).")
        .string("authentication-kubeconfig", "", "kubeconfig file pointing at the 'core' kubernetes server with enough rights to create tokenreviews.authentication.k8s.io.")
        .string("authorization-kubeconfig", "", "kubeconfig file pointing at the 'core' kubernetes server with enough rights to create subjectaccessreviews.authorization.k8s.io.")
        .bool("use-service-account-credentials", false, "If true, use individual service account credentials for each controller.")
        .float("kube-api-qps", 20.0, "QPS to use while talking with kubernetes apiserver. Accepted; requests are not throttled here.")
        .int("kube-api-burst", 30, "Burst to use while talking with kubernetes apiserver. Accepted; requests are not throttled here.")
        .string("kube-api-content-type", "application/vnd.kubernetes.protobuf", "Content type of requests sent to apiserver. Accepted; JSON is sent.")
}

fn serving(flags: FlagSet) -> FlagSet {
    flags
        .string("bind-address", "0.0.0.0", "The IP address on which to listen for the --secure-port port.")
        .int("secure-port", 10257, "The port on which to serve HTTPS with authentication and authorization. If 0, don't serve HTTPS at all.")
        .string("cert-dir", "", "The directory where the TLS certs are located. If --tls-cert-file and --tls-private-key-file are provided, this flag will be ignored.")
        .string("tls-cert-file", "", "File containing the default x509 Certificate for HTTPS.")
        .string("tls-private-key-file", "", "File containing the default x509 private key matching --tls-cert-file.")
        .strings("tls-cipher-suites", "", "Comma-separated list of cipher suites for the server.")
        .string("tls-min-version", "", "Minimum TLS version supported: VersionTLS10, VersionTLS11, VersionTLS12, VersionTLS13.")
        .strings("tls-sni-cert-key", "", "A pair of x509 certificate and private key file paths, optionally suffixed with a list of domain patterns.")
        .string("client-ca-file", "", "If set, any request presenting a client certificate signed by one of the authorities in the client-ca-file is authenticated with an identity corresponding to the CommonName of the client certificate.")
        .string("requestheader-client-ca-file", "", "Root certificate bundle to use to verify client certificates on incoming requests before trusting usernames in headers.")
        .strings("requestheader-allowed-names", "", "List of client certificate common names to allow to provide usernames in headers.")
        .strings("requestheader-username-headers", "x-remote-user", "List of request headers to inspect for usernames.")
        .strings("requestheader-uid-headers", "", "List of request headers to inspect for UIDs.")
        .strings("requestheader-group-headers", "x-remote-group", "List of request headers to inspect for groups.")
        .strings("requestheader-extra-headers-prefix", "x-remote-extra-", "List of request header prefixes to inspect.")
        .bool("authentication-skip-lookup", false, "If false, the authentication-kubeconfig will be used to lookup missing authentication configuration from the cluster.")
        .bool("authentication-tolerate-lookup-failure", false, "If true, failures to look up missing authentication configuration from the cluster are not considered fatal.")
        .duration("authentication-token-webhook-cache-ttl", "10s", "The duration to cache responses from the webhook token authenticator.")
        .strings("authorization-always-allow-paths", "/healthz,/readyz,/livez", "A list of HTTP paths to skip during authorization.")
        .duration("authorization-webhook-cache-authorized-ttl", "10s", "The duration to cache 'authorized' responses from the webhook authorizer.")
        .duration("authorization-webhook-cache-unauthorized-ttl", "10s", "The duration to cache 'unauthorized' responses from the webhook authorizer.")
        .int("http2-max-streams-per-connection", 0, "The limit that the server gives to clients for the maximum number of streams in an HTTP/2 connection.")
        .bool("permit-address-sharing", false, "If true, SO_REUSEADDR will be used when binding the port.")
        .bool("permit-port-sharing", false, "If true, SO_REUSEPORT will be used when binding the port.")
        .bool("profiling", true, "Enable profiling via web interface host:port/debug/pprof/.")
        .bool("contention-profiling", false, "Enable block profiling, if profiling is enabled.")
}

fn election(flags: FlagSet) -> FlagSet {
    flags
        .bool("leader-elect", true, "Start a leader election client and gain leadership before executing the main loop.")
        .duration("leader-elect-lease-duration", "15s", "The duration that non-leader candidates will wait after observing a leadership renewal until attempting to acquire leadership.")
        .duration("leader-elect-renew-deadline", "10s", "The interval between attempts by the acting master to renew a leadership slot before it stops leading.")
        .duration("leader-elect-retry-period", "2s", "The duration the clients should wait between attempting acquisition and renewal of a leadership.")
        .string("leader-elect-resource-lock", "leases", "The type of resource object that is used for locking during leader election.")
        .string("leader-elect-resource-name", COMPONENT, "The name of resource object that is used for locking during leader election.")
        .string("leader-elect-resource-namespace", "kube-system", "The namespace of resource object that is used for locking during leader election.")
        .bool("exit-on-leadership-loss", false, "Exit when the lease is lost, as upstream does, instead of stepping down in the process.")
        .bool("enable-leader-migration", false, "Whether to enable controller leader migration.")
        .string("leader-migration-config", "", "Path to the config file for controller leader migration.")
}

fn network(flags: FlagSet) -> FlagSet {
    flags
        .bool("allocate-node-cidrs", false, "Should CIDRs for Pods be allocated and set on the cloud provider. Requires --cluster-cidr.")
        .string("cidr-allocator-type", "RangeAllocator", "Type of CIDR allocator to use.")
        .strings("cluster-cidr", "", "CIDR Range for Pods in cluster. Only used when --allocate-node-cidrs=true; if false, this option will be ignored.")
        .string("service-cluster-ip-range", "", "CIDR Range for Services in cluster.")
        .int("node-cidr-mask-size", 0, "Mask size for node cidr in cluster. Default is 24 for IPv4 and 64 for IPv6.")
        .int("node-cidr-mask-size-ipv4", 0, "Mask size for IPv4 node cidr in dual-stack cluster. Default is 24.")
        .int("node-cidr-mask-size-ipv6", 0, "Mask size for IPv6 node cidr in dual-stack cluster. Default is 64.")
        .string("cluster-name", "kubernetes", "The instance prefix for the cluster.")
        .string("cloud-provider", "", "The provider for cloud services. Empty string for no provider.")
        .string("cloud-config", "", "The path to the cloud provider configuration file.")
        .bool("configure-cloud-routes", true, "Should CIDRs allocated by allocate-node-cidrs be configured on the cloud provider.")
}

fn signing(flags: FlagSet) -> FlagSet {
    flags
        .string("root-ca-file", "", "If set, this root certificate authority will be included in service account's token secret. This must be a valid PEM-encoded CA bundle.")
        .string("service-account-private-key-file", "", "Filename containing a PEM-encoded private RSA or ECDSA key used to sign service account tokens.")
        .string("cluster-signing-cert-file", "", "Filename containing a PEM-encoded X509 CA certificate used to issue cluster-scoped certificates.")
        .string("cluster-signing-key-file", "", "Filename containing a PEM-encoded RSA or ECDSA private key used to sign cluster-scoped certificates.")
        .duration("cluster-signing-duration", "8760h0m0s", "The max length of duration signed certificates will be given.")
        .string("cluster-signing-kube-apiserver-client-cert-file", "", "CA certificate used to issue certificates for the kubernetes.io/kube-apiserver-client signer.")
        .string("cluster-signing-kube-apiserver-client-key-file", "", "CA key used to sign certificates for the kubernetes.io/kube-apiserver-client signer.")
        .string("cluster-signing-kubelet-client-cert-file", "", "CA certificate used to issue certificates for the kubernetes.io/kube-apiserver-client-kubelet signer.")
        .string("cluster-signing-kubelet-client-key-file", "", "CA key used to sign certificates for the kubernetes.io/kube-apiserver-client-kubelet signer.")
        .string("cluster-signing-kubelet-serving-cert-file", "", "CA certificate used to issue certificates for the kubernetes.io/kubelet-serving signer.")
        .string("cluster-signing-kubelet-serving-key-file", "", "CA key used to sign certificates for the kubernetes.io/kubelet-serving signer.")
        .string("cluster-signing-legacy-unknown-cert-file", "", "CA certificate used to issue certificates for the kubernetes.io/legacy-unknown signer.")
        .string("cluster-signing-legacy-unknown-key-file", "", "CA key used to sign certificates for the kubernetes.io/legacy-unknown signer.")
}

fn tuning(flags: FlagSet) -> FlagSet {
    flags
        .strings("controllers", "*", "A list of controllers to enable. '*' enables all on-by-default controllers, 'foo' enables the controller named 'foo', '-foo' disables the controller named 'foo'.")
        .duration("node-monitor-grace-period", "50s", "Amount of time which we allow running Node to be unresponsive before marking it unhealthy.")
        .duration("node-startup-grace-period", "1m0s", "Amount of time which we allow starting Node to be unresponsive before marking it unhealthy.")
        .duration("node-monitor-period", "5s", "The period for syncing NodeStatus.")
        .float("node-eviction-rate", 0.1, "Number of nodes per second on which pods are deleted in case of node failure when a zone is healthy.")
        .float("secondary-node-eviction-rate", 0.01, "Number of nodes per second on which pods are deleted in case of node failure when a zone is unhealthy.")
        .int("large-cluster-size-threshold", 50, "Number of nodes from which node lifecycle controller treats the cluster as large for the eviction logic purposes.")
        .float("unhealthy-zone-threshold", 0.55, "Fraction of Nodes in a zone which needs to be not Ready (minimum 3) for zone to be treated as unhealthy.")
        .int("terminated-pod-gc-threshold", 12500, "Number of terminated pods that can exist before the terminated pod garbage collector starts deleting terminated pods.")
        .bool("enable-garbage-collector", true, "Enables the generic garbage collector.")
        .int("max-endpoints-per-slice", 100, "The maximum number of endpoints that will be added to an EndpointSlice.")
        .int("concurrent-deployment-syncs", 5, "The number of deployment objects that are allowed to sync concurrently.")
        .int("concurrent-replicaset-syncs", 5, "The number of replica sets that are allowed to sync concurrently.")
        .int("concurrent-rc-syncs", 5, "The number of replication controllers that are allowed to sync concurrently.")
        .int("concurrent-daemonset-syncs", 2, "The number of daemonset objects that are allowed to sync concurrently.")
        .int("concurrent-statefulset-syncs", 5, "The number of statefulset objects that are allowed to sync concurrently.")
        .int("concurrent-job-syncs", 5, "The number of job objects that are allowed to sync concurrently.")
        .int("concurrent-endpoint-syncs", 5, "The number of endpoint syncing operations that will be done concurrently.")
        .int("concurrent-service-endpoint-syncs", 5, "The number of service endpoint syncing operations that will be done concurrently.")
        .int("concurrent-namespace-syncs", 10, "The number of namespace objects that are allowed to sync concurrently.")
        .int("concurrent-gc-syncs", 20, "The number of garbage collector workers that are allowed to sync concurrently.")
        .int("concurrent-serviceaccount-token-syncs", 5, "The number of service account token objects that are allowed to sync concurrently.")
        .int("concurrent-ttl-after-finished-syncs", 5, "The number of ttl-after-finished-controller workers that are allowed to sync concurrently.")
}

/// Belong to controllers that are not here, or to loops that need no period here: accepted with upstream's defaults.
fn unused(flags: FlagSet) -> FlagSet {
    flags
        .map("feature-gates", "", "A set of key=value pairs that describe feature gates for alpha/experimental features.")
        .map("emulated-version", "", "The versions different components emulate their capabilities (APIs, features, ...) of.")
        .duration("min-resync-period", "12h0m0s", "The resync period in reflectors. Accepted; nothing is resynced.")
        .duration("controller-start-interval", "0s", "Interval between starting controller managers.")
        .duration("namespace-sync-period", "5m0s", "The period for syncing namespace life-cycle updates.")
        .duration("node-sync-period", "0s", "This flag is currently no-op.")
        .duration("route-reconciliation-period", "10s", "The period for reconciling routes created for Nodes by cloud provider.")
        .duration("resource-quota-sync-period", "5m0s", "The period for syncing quota usage status in the system.")
        .duration("pvclaimbinder-sync-period", "15s", "The period for syncing persistent volumes and persistent volume claims.")
        .duration("attach-detach-reconcile-sync-period", "1m0s", "The reconciler sync wait time between volume attach detach.")
        .bool("disable-attach-detach-reconcile-sync", false, "Disable volume attach detach reconciler sync.")
        .bool("disable-force-detach-on-timeout", false, "Prevent force detaching volumes based on maximum unmount time and node status.")
        .duration("endpoint-updates-batch-period", "0s", "The length of endpoint updates batching period.")
        .duration("endpointslice-updates-batch-period", "0s", "The length of endpoint slice updates batching period.")
        .duration("mirroring-endpointslice-updates-batch-period", "0s", "The length of EndpointSlice updates batching period for EndpointSliceMirroring controller.")
        .int("mirroring-concurrent-service-endpoint-syncs", 5, "The number of service endpoint syncing operations of the EndpointSliceMirroring controller.")
        .int("mirroring-max-endpoints-per-subset", 1000, "The maximum number of endpoints that will be added to an EndpointSlice by the EndpointSliceMirroring controller.")
        .int("concurrent-cron-job-syncs", 5, "The number of cron job objects that are allowed to sync concurrently.")
        .int("concurrent-ephemeralvolume-syncs", 5, "The number of ephemeral volume syncing operations that will be done concurrently.")
        .int("concurrent-horizontal-pod-autoscaler-syncs", 5, "The number of horizontal pod autoscaler objects that are allowed to sync concurrently.")
        .int("concurrent-resource-quota-syncs", 5, "The number of resource quotas that are allowed to sync concurrently.")
        .int("concurrent-service-syncs", 1, "The number of services that are allowed to sync concurrently.")
        .int("concurrent-validating-admission-policy-status-syncs", 5, "The number of ValidatingAdmissionPolicyStatusController workers that are allowed to sync concurrently.")
        .duration("horizontal-pod-autoscaler-sync-period", "15s", "The period for syncing the number of pods in horizontal pod autoscaler.")
        .duration("horizontal-pod-autoscaler-downscale-stabilization", "5m0s", "The period for which autoscaler will look backwards and not scale down below any recommendation it made during that period.")
        .duration("horizontal-pod-autoscaler-cpu-initialization-period", "5m0s", "The period after pod start when CPU samples might be skipped.")
        .duration("horizontal-pod-autoscaler-initial-readiness-delay", "30s", "The period after pod start during which readiness changes will be treated as initial readiness.")
        .float("horizontal-pod-autoscaler-tolerance", 0.1, "The minimum change (from 1.0) in the desired-to-actual metrics ratio for the horizontal pod autoscaler to consider scaling.")
        .duration("legacy-service-account-token-clean-up-period", "8760h0m0s", "The period of time since the last usage of an legacy service account token before it can be deleted.")
        .string("external-cloud-volume-plugin", "", "The plugin to use when cloud provider is set to external.")
        .string("flex-volume-plugin-dir", "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/", "Full path of the directory in which the flex volume plugin should search for additional third party volume plugins.")
        .bool("enable-dynamic-provisioning", true, "Enable dynamic provisioning for environments that support it.")
        .bool("enable-hostpath-provisioner", false, "Enable HostPath PV provisioning when running without a cloud provider.")
        .string("pv-recycler-pod-template-filepath-hostpath", "", "The file path to a pod definition used as a template for HostPath persistent volume recycling.")
        .string("pv-recycler-pod-template-filepath-nfs", "", "The file path to a pod definition used as a template for NFS persistent volume recycling.")
        .int("pv-recycler-increment-timeout-nfs", 30, "the increment of time added per Gi to ActiveDeadlineSeconds for an NFS scrubber pod.")
        .int("pv-recycler-minimum-timeout-hostpath", 60, "The minimum ActiveDeadlineSeconds to use for a HostPath Recycler pod.")
        .int("pv-recycler-minimum-timeout-nfs", 300, "The minimum ActiveDeadlineSeconds to use for an NFS Recycler pod.")
        .int("pv-recycler-timeout-increment-hostpath", 30, "the increment of time added per Gi to ActiveDeadlineSeconds for a HostPath scrubber pod.")
        .string("show-hidden-metrics-for-version", "", "The previous version for which you want to show hidden metrics.")
        .strings("disabled-metrics", "", "This flag provides an escape hatch for misbehaving metrics.")
        .map("allow-metric-labels", "", "The map from metric-label to value allow-list of this label.")
        .string("allow-metric-labels-manifest", "", "The path to the manifest file that contains the allow-list mapping.")
}

fn removed(flags: FlagSet) -> FlagSet {
    flags
        .removed("address", true, "use --bind-address")
        .removed("port", true, "use --secure-port")
        .removed(
            "pod-eviction-timeout",
            true,
            "taint-based eviction uses tolerationSeconds",
        )
        .removed("enable-taint-manager", true, "taint-based eviction is always on")
        .removed(
            "experimental-cluster-signing-duration",
            true,
            "use --cluster-signing-duration",
        )
        .removed(
            "deployment-controller-sync-period",
            true,
            "deployments are not resynced",
        )
        .removed("register-retry-count", true, "it has no effect")
        .removed("deleting-pods-qps", true, "use --node-eviction-rate")
        .removed("deleting-pods-burst", true, "use --node-eviction-rate")
        .removed(
            "insecure-experimental-approve-all-kubelet-csrs-for-group",
            true,
            "bind the clusterrole system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        )
        .removed("service-sync-period", true, "it has no effect")
        .removed(
            "horizontal-pod-autoscaler-use-rest-clients",
            true,
            "it is always on",
        )
        .removed(
            "horizontal-pod-autoscaler-upscale-delay",
            true,
            "it has no effect",
        )
        .removed(
            "horizontal-pod-autoscaler-downscale-delay",
            true,
            "use --horizontal-pod-autoscaler-downscale-stabilization",
        )
        .removed("volume-host-cidr-denylist", true, "it has no effect")
        .removed("volume-host-allow-local-loopback", true, "it has no effect")
}

/// A certificate and key for signing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SigningPair {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

#[derive(Clone, Debug, Default)]
pub struct Signing {
    pub kubelet_client: Option<SigningPair>,
    pub kubelet_serving: Option<SigningPair>,
    pub apiserver_client: Option<SigningPair>,
    pub legacy_unknown: Option<SigningPair>,
    pub duration: Duration,
}

#[derive(Clone, Debug, Default)]
pub struct NodeLifecycle {
    pub monitor_period: Duration,
    pub monitor_grace: Duration,
    pub startup_grace: Duration,
    pub eviction_rate: f64,
    pub secondary_eviction_rate: f64,
    pub large_cluster: usize,
    pub unhealthy_zone: f64,
}

/// A range and the size of the pieces that nodes get.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeCidrs {
    pub cluster: Vec<Cidr>,
    pub service: Vec<Cidr>,
    pub mask_v4: u8,
    pub mask_v6: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub address: IpAddr,
    pub prefix: u8,
}

impl Cidr {
    pub fn parse(text: &str) -> Option<Cidr> {
        let (address, prefix) = text.trim().split_once('/')?;
        let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
        let bits = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= bits).then_some(Cidr { address, prefix })
    }
}

#[derive(Clone, Debug, Default)]
pub struct Workers {
    pub deployment: usize,
    pub replica_set: usize,
    pub replication_controller: usize,
    pub daemon_set: usize,
    pub stateful_set: usize,
    pub job: usize,
    pub endpoint: usize,
    pub endpoint_slice: usize,
    pub namespace: usize,
    pub garbage_collector: usize,
    pub ttl_after_finished: usize,
}

#[derive(Clone, Debug, Default)]
pub struct Options {
    pub kubeconfig: Option<PathBuf>,
    pub master: Option<String>,
    /// Each controller acts as its own service account, with no more rights than it needs.
    pub own_identities: bool,
    pub leader_election: Option<LeaderElection>,
    pub controllers: Vec<String>,
    pub workers: Workers,
    pub node_lifecycle: NodeLifecycle,
    pub node_cidrs: Option<NodeCidrs>,
    pub signing: Signing,
    pub root_ca: Option<String>,
    pub terminated_pod_threshold: usize,
    pub garbage_collector: bool,
    pub max_endpoints_per_slice: usize,
}

impl Options {
    pub fn from_flags(flags: &Flags) -> Result<Self> {
        // Nothing is signed with it here, since tokens are the API server's; a wrong path is still an error.
        readable(flags, "service-account-private-key-file")?;
        Ok(Options {
            kubeconfig: path(flags, "kubeconfig"),
            master: Some(flags.string("master").to_owned()).filter(|m| !m.is_empty()),
            own_identities: flags.bool("use-service-account-credentials"),
            leader_election: leader_election(flags)?,
            controllers: flags.strings("controllers"),
            workers: workers(flags),
            node_lifecycle: node_lifecycle(flags),
            node_cidrs: node_cidrs(flags)?,
            signing: signing_pairs(flags)?,
            root_ca: root_ca(flags)?,
            terminated_pod_threshold: usize::try_from(flags.int("terminated-pod-gc-threshold")).unwrap_or(0),
            garbage_collector: flags.bool("enable-garbage-collector"),
            max_endpoints_per_slice: in_range(flags, "max-endpoints-per-slice", 1, 1000)?,
        })
    }

    #[cfg(test)]
    pub fn for_tests() -> Self {
        let flags = flags().parse(std::iter::empty()).expect("the defaults parse");
        Self::from_flags(&flags).expect("the defaults are valid")
    }
}

fn path(flags: &Flags, name: &str) -> Option<PathBuf> {
    Some(PathBuf::from(flags.string(name))).filter(|p| !p.as_os_str().is_empty())
}

/// A file that must be there now, so that a wrong path is an error at the start and not a silent loss later.
fn readable(flags: &Flags, name: &str) -> Result<Option<PathBuf>> {
    let Some(path) = path(flags, name) else {
        return Ok(None);
    };
    std::fs::File::open(&path).with_context(|| format!("--{name}: {}", path.display()))?;
    Ok(Some(path))
}

fn in_range(flags: &Flags, name: &str, low: i64, high: i64) -> Result<usize> {
    let value = flags.int(name);
    if value < low || value > high {
        bail!("--{name} must be between {low} and {high}, not {value}");
    }
    Ok(usize::try_from(value)?)
}

fn leader_election(flags: &Flags) -> Result<Option<LeaderElection>> {
    if !flags.bool("leader-elect") {
        return Ok(None);
    }
    if flags.string("leader-elect-resource-lock") != "leases" {
        bail!(
            "--leader-elect-resource-lock: only leases are supported, not {:?}",
            flags.string("leader-elect-resource-lock")
        );
    }
    let (namespace, name) = (
        flags.string("leader-elect-resource-namespace"),
        flags.string("leader-elect-resource-name"),
    );
    let mut election = LeaderElection::new(namespace, name, client::leaderelection::identity());
    election.lease_duration = flags.duration("leader-elect-lease-duration");
    election.renew_deadline = flags.duration("leader-elect-renew-deadline");
    election.retry_period = flags.duration("leader-elect-retry-period");
    election.exit_on_loss = flags.bool("exit-on-leadership-loss");
    election.validate().map_err(anyhow::Error::msg)?;
    Ok(Some(election))
}

fn workers(flags: &Flags) -> Workers {
    let count = |name: &str| usize::try_from(flags.int(name)).unwrap_or(1).max(1);
    Workers {
        deployment: count("concurrent-deployment-syncs"),
        replica_set: count("concurrent-replicaset-syncs"),
        replication_controller: count("concurrent-rc-syncs"),
        daemon_set: count("concurrent-daemonset-syncs"),
        stateful_set: count("concurrent-statefulset-syncs"),
        job: count("concurrent-job-syncs"),
        endpoint: count("concurrent-endpoint-syncs"),
        endpoint_slice: count("concurrent-service-endpoint-syncs"),
        namespace: count("concurrent-namespace-syncs"),
        garbage_collector: count("concurrent-gc-syncs"),
        ttl_after_finished: count("concurrent-ttl-after-finished-syncs"),
    }
}

fn node_lifecycle(flags: &Flags) -> NodeLifecycle {
    NodeLifecycle {
        monitor_period: flags.duration("node-monitor-period"),
        monitor_grace: flags.duration("node-monitor-grace-period"),
        startup_grace: flags.duration("node-startup-grace-period"),
        eviction_rate: flags.float("node-eviction-rate"),
        secondary_eviction_rate: flags.float("secondary-node-eviction-rate"),
        large_cluster: usize::try_from(flags.int("large-cluster-size-threshold")).unwrap_or(50),
        unhealthy_zone: flags.float("unhealthy-zone-threshold"),
    }
}

fn node_cidrs(flags: &Flags) -> Result<Option<NodeCidrs>> {
    if !flags.bool("allocate-node-cidrs") {
        return Ok(None);
    }
    if !matches!(flags.string("cidr-allocator-type"), "RangeAllocator") {
        tracing::warn!(
            r#type = flags.string("cidr-allocator-type"),
            "Unknown --cidr-allocator-type, using RangeAllocator"
        );
    }
    let parse = |name: &str, text: &str| {
        Cidr::parse(text).with_context(|| format!("--{name}: {text:?} is not a CIDR"))
    };
    let cluster: Vec<_> = flags
        .strings("cluster-cidr")
        .iter()
        .map(|c| parse("cluster-cidr", c))
        .collect::<Result<_>>()?;
    if cluster.is_empty() {
        bail!("--cluster-cidr must be set when --allocate-node-cidrs is");
    }
    let service = flags
        .string("service-cluster-ip-range")
        .split(',')
        .filter(|c| !c.is_empty())
        .map(|c| parse("service-cluster-ip-range", c))
        .collect::<Result<_>>()?;
    let cidrs = NodeCidrs {
        mask_v4: mask(flags, "node-cidr-mask-size-ipv4", 24, 32)?,
        mask_v6: mask(flags, "node-cidr-mask-size-ipv6", 64, 128)?,
        cluster,
        service,
    };
    for range in &cidrs.cluster {
        let mask = if range.address.is_ipv4() {
            cidrs.mask_v4
        } else {
            cidrs.mask_v6
        };
        // Upstream's limit: more than 2^16 pieces are not kept track of.
        if mask < range.prefix || mask - range.prefix > 16 {
            bail!(
                "--node-cidr-mask-size: /{mask} does not fit --cluster-cidr /{}: it must be between /{} and /{}",
                range.prefix,
                range.prefix,
                range.prefix.saturating_add(16)
            );
        }
    }
    Ok(Some(cidrs))
}

fn mask(flags: &Flags, family: &str, default: u8, bits: u8) -> Result<u8> {
    let name = if flags.is_set(family) {
        family
    } else {
        "node-cidr-mask-size"
    };
    match u8::try_from(flags.int(name)) {
        Ok(0) => Ok(default),
        Ok(mask) if mask <= bits => Ok(mask),
        _ => bail!("--{name}: {} is not a mask size", flags.int(name)),
    }
}

/// A signer's own pair beats the common one; a half pair is an error.
fn signing_pairs(flags: &Flags) -> Result<Signing> {
    let pair = |prefix: &str| -> Result<Option<SigningPair>> {
        let (cert, key) = (format!("{prefix}-cert-file"), format!("{prefix}-key-file"));
        match (readable(flags, &cert)?, readable(flags, &key)?) {
            (Some(cert_file), Some(key_file)) => Ok(Some(SigningPair { cert_file, key_file })),
            (None, None) => Ok(None),
            (Some(_), None) => bail!("--{cert} is set and --{key} is not"),
            (None, Some(_)) => bail!("--{key} is set and --{cert} is not"),
        }
    };
    let common = pair("cluster-signing")?;
    let own = |signer: &str| {
        Ok::<_, anyhow::Error>(pair(&format!("cluster-signing-{signer}"))?.or_else(|| common.clone()))
    };
    Ok(Signing {
        kubelet_client: own("kubelet-client")?,
        kubelet_serving: own("kubelet-serving")?,
        apiserver_client: own("kube-apiserver-client")?,
        legacy_unknown: own("legacy-unknown")?,
        duration: flags.duration("cluster-signing-duration"),
    })
}

fn root_ca(flags: &Flags) -> Result<Option<String>> {
    let Some(path) = path(flags, "root-ca-file") else {
        return Ok(None);
    };
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("--root-ca-file: {}", path.display()))?;
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        bail!("--root-ca-file: {} holds no PEM certificate", path.display());
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options> {
        Options::from_flags(
            &flags()
                .parse(arguments.iter().map(std::ffi::OsString::from))
                .map_err(|e| anyhow::anyhow!("{e}"))?,
        )
    }

    #[test]
    fn the_flags_of_kubeadm_and_the_course_are_taken() {
        let options = parse(&[
            "--allocate-node-cidrs=true",
            "--bind-address=127.0.0.1",
            "--cluster-cidr=10.244.0.0/16",
            "--cluster-name=kubernetes",
            "--controllers=*,bootstrapsigner,tokencleaner",
            "--leader-elect=true",
            "--service-cluster-ip-range=10.96.0.0/12",
            "--use-service-account-credentials=true",
            "--node-cidr-mask-size=24",
            "--address=0.0.0.0",
            "--v=2",
        ])
        .unwrap();
        assert_eq!(options.node_cidrs.unwrap().mask_v4, 24);
        assert_eq!(options.controllers, ["*", "bootstrapsigner", "tokencleaner"]);
    }

    #[test]
    fn wrong_values_name_the_flag() {
        let text = |arguments: &[&str]| parse(arguments).unwrap_err().to_string();
        assert!(text(&["--allocate-node-cidrs"]).contains("--cluster-cidr"));
        assert!(text(&["--allocate-node-cidrs", "--cluster-cidr=10.0.0/8"]).contains("--cluster-cidr"));
        assert!(
            text(&[
                "--allocate-node-cidrs",
                "--cluster-cidr=10.0.0.0/24",
                "--node-cidr-mask-size=16"
            ])
            .contains("--node-cidr-mask-size")
        );
        assert!(text(&["--root-ca-file=/nonexistent"]).contains("--root-ca-file: /nonexistent"));
        assert!(text(&["--leader-elect-lease-duration=5s"]).contains("--leader-elect-lease-duration"));
        assert!(
            text(&["--cluster-signing-key-file=/proc/self/cmdline"]).contains("--cluster-signing-cert-file")
        );
    }
}
