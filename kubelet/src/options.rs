//! The command line: upstream's flags; those that a configuration file replaces still work, those that are gone warn.

use component_base::flags::FlagSet;

pub fn flags() -> FlagSet {
    removed(moved_to_file(own(FlagSet::new(
        "kubelet",
        "The kubelet is the primary node agent: it runs the pods that are bound to its node, through a container runtime, and reports on them.",
    ))))
}

/// Flags without a place in the configuration file.
fn own(flags: FlagSet) -> FlagSet {
    flags
        .string("config", "", "The Kubelet will load its initial configuration from this file.")
        .string("config-dir", "", "Path to a directory with drop-in configurations (*.conf), merged over --config in the order of their names.")
        .string("kubeconfig", "", "Path to a kubeconfig file, specifying how to connect to the API server. Omitting it enables standalone mode.")
        .string("bootstrap-kubeconfig", "", "Path to a kubeconfig file that will be used to get client certificate for kubelet, if --kubeconfig does not exist.")
        .string("cert-dir", "/var/lib/kubelet/pki", "The directory where the TLS certs are located.")
        .string("root-dir", "/var/lib/kubelet", "Directory path for managing kubelet files (volume mounts, etc).")
        .string("hostname-override", "", "If non-empty, will use this string as identification instead of the actual hostname.")
        .string("node-ip", "", "IP address (or comma-separated dual-stack IP addresses) of the node.")
        .map("node-labels", "", "Labels to add when registering the node in the cluster.")
        .string("pod-infra-container-image", "registry.k8s.io/pause:3.10.1", "Has no effect: the runtime names the sandbox image.")
        .deprecated("pod-infra-container-image", "will be removed in a future release. Image garbage collector gets sandbox image information from CRI.")
        .string("cloud-provider", "", "Set to 'external' for running with an external cloud provider.")
        .string("runtime-cgroups", "", "Has no effect.")
        .int("image-credential-provider-timeout", 0, "Has no effect.")
        .string("image-credential-provider-config", "", "Has no effect.")
        .string("image-credential-provider-bin-dir", "", "Has no effect.")
        .map("feature-gates", "", "A set of key=value pairs that describe feature gates.")
}

fn moved_to_file(flags: FlagSet) -> FlagSet {
    flags
        .string("pod-manifest-path", "", "Path to the directory containing static pod files to run, or the path to a single static pod file.")
        .string("address", "0.0.0.0", "The IP address for the Kubelet to serve on.")
        .int("port", 10250, "The port for the Kubelet to serve on.")
        .int("read-only-port", 0, "The read-only port for the Kubelet to serve on with no authentication/authorization (set to 0 to disable).")
        .int("healthz-port", 10248, "The port of the localhost healthz endpoint (set to 0 to disable).")
        .string("healthz-bind-address", "127.0.0.1", "The IP address for the healthz server to serve on.")
        .bool("enable-server", true, "Enable the Kubelet's server.")
        .string("tls-cert-file", "", "File containing x509 Certificate used for serving HTTPS.")
        .string("tls-private-key-file", "", "File containing x509 private key matching --tls-cert-file.")
        .strings("tls-cipher-suites", "", "Comma-separated list of cipher suites for the server.")
        .string("tls-min-version", "", "Minimum TLS version supported.")
        .string("client-ca-file", "", "If set, any request presenting a client certificate signed by one of the authorities in the client-ca-file is authenticated.")
        .bool("anonymous-auth", false, "Enables anonymous requests to the Kubelet server.")
        .bool("authentication-token-webhook", true, "Use the TokenReview API to determine authentication for bearer tokens.")
        .string("authorization-mode", "Webhook", "Authorization mode for Kubelet server: AlwaysAllow or Webhook.")
        .bool("rotate-certificates", false, "Auto rotate the kubelet client certificates by requesting new certificates from the kube-apiserver when the certificate expiration approaches.")
        .string("cluster-domain", "", "Domain for this cluster.")
        .strings("cluster-dns", "", "Comma-separated list of DNS server IP address.")
        .string("resolv-conf", "/etc/resolv.conf", "Resolver configuration file used as the basis for the container DNS resolution configuration.")
        .string("cgroup-root", "", "Optional root cgroup to use for pods.")
        .string("cgroup-driver", "", "Driver that the kubelet uses to manipulate cgroups on the host: 'cgroupfs' or 'systemd'. Empty: what the runtime uses.")
        .bool("cgroups-per-qos", true, "Enable creation of QoS cgroup hierarchy.")
        .bool("fail-swap-on", true, "Makes the Kubelet fail to start if swap is enabled on the node.")
        .bool("register-node", true, "Register the node with the API server.")
        .strings("register-with-taints", "", "Register the node with the given list of taints (comma separated <key>=<value>:<effect>).")
        .bool("seccomp-default", false, "Enable the use of RuntimeDefault as the default seccomp profile for all workloads.")
        .bool("serialize-image-pulls", true, "Pull images one at a time.")
        .bool("cpu-cfs-quota", true, "Enable CPU CFS quota enforcement for containers that specify CPU limits.")
        .int("max-pods", 110, "Number of Pods that can run on this Kubelet.")
        .int("pod-max-pids", -1, "Set the maximum number of processes per pod.")
        .string("pod-cidr", "", "The CIDR to use for pod IP addresses, only used in standalone mode.")
        .string("container-runtime-endpoint", "unix:///run/containerd/containerd.sock", "The endpoint of container runtime service.")
        .string("image-service-endpoint", "", "The endpoint of container image service. If not specified, it will be the same with --container-runtime-endpoint.")
        .duration("runtime-request-timeout", "2m0s", "Timeout of all runtime requests except long running requests.")
        .duration("node-status-update-frequency", "10s", "Specifies how often kubelet posts node status to master.")
        .string("container-log-max-size", "10Mi", "Set the maximum size of container log file before it is rotated.")
        .map("kube-reserved", "", "Resources reserved for kubernetes system components.")
        .map("system-reserved", "", "Resources reserved for non-kubernetes components.")
        .map("eviction-hard", "", "A set of eviction thresholds that if met would trigger a pod eviction.")
        .string("provider-id", "", "Unique identifier for identifying the node in a machine database, i.e cloud provider.")
}

fn removed(flags: FlagSet) -> FlagSet {
    const RUNTIME: &str =
        "the only container runtime interface is CRI; name it with --container-runtime-endpoint";
    const NETWORK: &str = "networking is the container runtime's: configure CNI there";
    const GONE: &str = "it has no effect";
    flags
        .removed("container-runtime", true, RUNTIME)
        .removed("docker-endpoint", true, RUNTIME)
        .removed("network-plugin", true, NETWORK)
        .removed("cni-conf-dir", true, NETWORK)
        .removed("cni-bin-dir", true, NETWORK)
        .removed("cni-cache-dir", true, NETWORK)
        .removed("network-plugin-mtu", true, NETWORK)
        .removed("non-masquerade-cidr", true, NETWORK)
        .removed("hairpin-mode", true, NETWORK)
        .removed("image-pull-progress-deadline", true, GONE)
        .removed(
            "cadvisor-port",
            true,
            "metrics are served on the kubelet's own port under /metrics/cadvisor",
        )
        .removed(
            "allow-privileged",
            false,
            "privileged pods are the admission policy's decision",
        )
        .removed("require-kubeconfig", false, "--kubeconfig alone decides")
        .removed("api-servers", true, "use --kubeconfig")
        .removed(
            "experimental-bootstrap-kubeconfig",
            true,
            "use --bootstrap-kubeconfig",
        )
        .removed("keep-terminated-pod-volumes", false, GONE)
        .removed("dynamic-config-dir", true, "use --config")
        .removed("experimental-allocatable-ignore-eviction", false, GONE)
        .removed("eviction-soft", true, GONE)
        .removed("eviction-soft-grace-period", true, GONE)
        .removed("kubelet-cgroups", true, GONE)
        .removed("max-open-files", true, GONE)
        .removed("node-ip-family", true, "use --node-ip")
        .removed(
            "streaming-connection-idle-timeout",
            true,
            "set streamingConnectionIdleTimeout in --config",
        )
        .removed("protect-kernel-defaults", false, GONE)
        .removed("make-iptables-util-chains", false, GONE)
        .removed("event-qps", true, GONE)
        .removed(
            "image-gc-high-threshold",
            true,
            "set imageGCHighThresholdPercent in --config",
        )
        .removed(
            "image-gc-low-threshold",
            true,
            "set imageGCLowThresholdPercent in --config",
        )
        .removed(
            "minimum-image-ttl-duration",
            true,
            "set imageMinimumGCAge in --config",
        )
        .removed("sync-frequency", true, GONE)
        .removed("file-check-frequency", true, "set fileCheckFrequency in --config")
        .removed(
            "enforce-node-allocatable",
            true,
            "set enforceNodeAllocatable in --config",
        )
        .removed("cloud-config", true, GONE)
        .removed("master-service-namespace", true, GONE)
        .removed("containerized", false, GONE)
        .removed("volume-plugin-dir", true, GONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_course_and_kubeadm_command_lines_are_accepted() {
        let lines = [
            "--config=/var/lib/kubelet/kubelet-config.yaml --kubeconfig=/var/lib/kubelet/kubeconfig --v=2",
            "--config /a --container-runtime=remote --container-runtime-endpoint=unix:///run/containerd/containerd.sock --image-pull-progress-deadline=2m --kubeconfig=/b --network-plugin=cni --register-node=true --v=2",
            "--bootstrap-kubeconfig=/a --kubeconfig=/b --config=/c --container-runtime-endpoint=unix:///x --pod-infra-container-image=p --hostname-override=h --register-with-taints=a=b:NoSchedule --node-ip=1.2.3.4",
            "--pod-manifest-path=/a --cluster-dns=10.96.0.10 --cluster-domain=cluster.local --authorization-mode=Webhook --client-ca-file=/a --cadvisor-port=0 --cgroup-driver=systemd --rotate-certificates=true --cert-dir=/c --cni-conf-dir=/d --cni-bin-dir=/e",
        ];
        for line in lines {
            let parsed = flags().parse(line.split(' ').map(std::ffi::OsString::from));
            assert!(parsed.is_ok(), "{line}: {:?}", parsed.err());
        }
        assert!(flags().parse(["--nonsense".into()]).is_err());
    }
}
