//! The command line: upstream's flags, and what they make of the configuration.

use std::path::Path;

use anyhow::{Context, Result, bail};
use client::{RestConfig, kubeconfig};
use component_base::config::GoDuration;
use component_base::flags::{FlagSet, Flags};

use crate::config::{self, Configuration};

const ABOUT: &str = "The Kubernetes scheduler assigns Pods to Nodes: it determines which Nodes are valid placements for each Pod, ranks them, and binds the Pod to the best.";

pub fn flags() -> FlagSet {
    let set = FlagSet::new("kube-scheduler", ABOUT)
        .string("config", "", "The path to the configuration file.")
        .string(
            "master",
            "",
            "The address of the Kubernetes API server (overrides any value in kubeconfig)",
        )
        .string(
            "write-config-to",
            "",
            "If set, write the configuration values to this file and exit.",
        )
        .map(
            "feature-gates",
            "",
            "A set of key=value pairs that describe feature gates; accepted, none changes anything yet.",
        )
        .string(
            "emulated-version",
            "",
            "The versions different components emulate; accepted.",
        )
        .strings(
            "show-hidden-metrics-for-version",
            "",
            "The previous version for which you want to show hidden metrics; accepted.",
        )
        .strings("disabled-metrics", "", "Metrics to disable; accepted.");
    removed(deprecated(leader_election(serving(set))))
}

fn serving(set: FlagSet) -> FlagSet {
    set.string("bind-address", "0.0.0.0", "The IP address on which to listen for the --secure-port port.")
        .int("secure-port", 10259, "The port on which to serve HTTPS with authentication and authorization. If 0, don't serve HTTPS at all.")
        .string("cert-dir", "", "The directory where a self-signed certificate is kept if --tls-cert-file is not given.")
        .string("tls-cert-file", "", "File containing the x509 certificate for HTTPS. If not given, a self-signed one is made.")
        .string("tls-private-key-file", "", "File containing the x509 private key matching --tls-cert-file.")
        .strings("tls-cipher-suites", "", "Comma-separated list of cipher suites for the server.")
        .string("tls-min-version", "", "Minimum TLS version supported. Possible values: VersionTLS12, VersionTLS13")
        .strings("tls-sni-cert-key", "", "Pairs of certificate and key files for server names; accepted, the first certificate serves all.")
        .bool("permit-port-sharing", false, "If true, SO_REUSEPORT will be used when binding the port; accepted.")
        .bool("permit-address-sharing", false, "If true, SO_REUSEADDR will be used when binding the port; accepted.")
        .bool("disable-http2-serving", false, "If true, HTTP2 serving will be disabled; accepted.")
        .int("http2-max-streams-per-connection", 0, "The limit that the server gives to clients for the maximum number of streams in an HTTP/2 connection. Zero means to use the default.")
        .string("client-ca-file", "", "Any request presenting a client certificate signed by one of these authorities is authenticated with the identity of its CommonName.")
        .string("authentication-kubeconfig", "", "kubeconfig file for tokenreviews.authentication.k8s.io. If empty, the scheduler's own is used.")
        .bool("authentication-skip-lookup", false, "If false, the authentication-kubeconfig will be used to look up missing authentication configuration from the cluster; accepted.")
        .duration("authentication-token-webhook-cache-ttl", "10s", "The duration to cache responses from the webhook token authenticator.")
        .bool("authentication-tolerate-lookup-failure", true, "If true, failures to look up missing authentication configuration are not fatal; accepted.")
        .string("authorization-kubeconfig", "", "kubeconfig file for subjectaccessreviews.authorization.k8s.io. If empty, the scheduler's own is used.")
        .strings("authorization-always-allow-paths", "/healthz,/readyz,/livez", "A list of HTTP paths to skip during authorization.")
        .duration("authorization-webhook-cache-authorized-ttl", "10s", "The duration to cache 'authorized' responses.")
        .duration("authorization-webhook-cache-unauthorized-ttl", "10s", "The duration to cache 'unauthorized' responses.")
        .strings("requestheader-allowed-names", "", "Client certificate common names that may give user names in headers; accepted.")
        .string("requestheader-client-ca-file", "", "Root certificates of front proxies; accepted.")
        .strings("requestheader-extra-headers-prefix", "x-remote-extra-", "Header prefixes of a front proxy; accepted.")
        .strings("requestheader-group-headers", "x-remote-group", "Group headers of a front proxy; accepted.")
        .strings("requestheader-username-headers", "x-remote-user", "User headers of a front proxy; accepted.")
        .strings("requestheader-uid-headers", "", "UID headers of a front proxy; accepted.")
}

fn leader_election(set: FlagSet) -> FlagSet {
    set.bool("leader-elect", true, "Start a leader election client and gain leadership before executing the main loop.")
        .duration("leader-elect-lease-duration", "15s", "The duration that non-leader candidates will wait after observing a leadership renewal until attempting to acquire leadership.")
        .duration("leader-elect-renew-deadline", "10s", "The interval between attempts by the acting master to renew a leadership slot before it stops leading.")
        .duration("leader-elect-retry-period", "2s", "The duration the clients should wait between attempting acquisition and renewal of a leadership.")
        .string("leader-elect-resource-lock", "leases", "The type of resource object that is used for locking during leader election. Supported option is 'leases'.")
        .string("leader-elect-resource-name", "kube-scheduler", "The name of resource object that is used for locking during leader election.")
        .string("leader-elect-resource-namespace", "kube-system", "The namespace of resource object that is used for locking during leader election.")
}

fn deprecated(set: FlagSet) -> FlagSet {
    const CONFIG: &str = "use --config";
    set.string("kubeconfig", "", "path to kubeconfig file with authorization and master location information. This parameter is ignored if a config file is specified in --config.")
        .string("kube-api-content-type", "application/vnd.kubernetes.protobuf", "content type of requests sent to apiserver; accepted, JSON is used.")
        .float("kube-api-qps", 50.0, "QPS to use while talking with kubernetes apiserver; accepted, requests in flight are bounded instead.")
        .int("kube-api-burst", 100, "burst to use while talking with kubernetes apiserver; accepted.")
        .bool("profiling", true, "enable profiling via web interface host:port/debug/pprof/; accepted.")
        .bool("contention-profiling", true, "enable block profiling, if profiling is enabled; accepted.")
        .duration("pod-max-in-unschedulable-pods-duration", "5m0s", "the maximum time a pod can stay in unschedulablePods.")
        .deprecated("kube-api-content-type", CONFIG)
        .deprecated("kube-api-qps", CONFIG)
        .deprecated("kube-api-burst", CONFIG)
        .deprecated("pod-max-in-unschedulable-pods-duration", "it will go away with the reason for it")
}

fn removed(set: FlagSet) -> FlagSet {
    const CONFIG: &str = "use --config with a profile";
    const SECURE: &str = "insecure serving was removed; use --bind-address and --secure-port";
    [
        ("address", SECURE),
        ("port", SECURE),
        ("scheduler-name", CONFIG),
        ("policy-config-file", CONFIG),
        ("policy-configmap", CONFIG),
        ("policy-configmap-namespace", CONFIG),
        ("algorithm-provider", CONFIG),
        ("hard-pod-affinity-symmetric-weight", CONFIG),
        ("failure-domains", "topology keys are part of pods"),
        ("lock-object-name", "use --leader-elect-resource-name"),
        ("lock-object-namespace", "use --leader-elect-resource-namespace"),
    ]
    .into_iter()
    .fold(set, |set, (name, advice)| set.removed(name, true, advice))
    .removed("use-legacy-policy-config", false, CONFIG)
}

/// The configuration file with the flags over it, checked.
pub fn configuration(flags: &Flags) -> Result<Configuration> {
    let mut configuration = match flags.string("config") {
        "" => Configuration::default(),
        path => config::load(Path::new(path))?,
    };
    if flags.string("config").is_empty() {
        configuration.client_connection.kubeconfig = flags.string("kubeconfig").to_owned();
        configuration.enable_profiling = flags.bool("profiling");
    } else if flags.is_set("kubeconfig") {
        tracing::warn!(
            "--kubeconfig is ignored because --config is given; set clientConnection.kubeconfig there"
        );
    }
    apply_leader_election(&mut configuration.leader_election, flags);
    config::complete(configuration)
}

/// Flags of leader election that are given beat the file.
fn apply_leader_election(election: &mut config::LeaderElection, flags: &Flags) {
    let duration = |name: &str, slot: &mut GoDuration| {
        if flags.is_set(name) {
            *slot = GoDuration(flags.duration(name));
        }
    };
    duration("leader-elect-lease-duration", &mut election.lease_duration);
    duration("leader-elect-renew-deadline", &mut election.renew_deadline);
    duration("leader-elect-retry-period", &mut election.retry_period);
    let text = |name: &str, slot: &mut String| {
        if flags.is_set(name) {
            *slot = flags.string(name).to_owned();
        }
    };
    text("leader-elect-resource-lock", &mut election.resource_lock);
    text("leader-elect-resource-name", &mut election.resource_name);
    text(
        "leader-elect-resource-namespace",
        &mut election.resource_namespace,
    );
    if flags.is_set("leader-elect") {
        election.leader_elect = flags.bool("leader-elect");
    }
}

/// Where the API server is and who we are to it.
pub fn rest_config(configuration: &Configuration, flags: &Flags) -> Result<RestConfig> {
    let path = &configuration.client_connection.kubeconfig;
    let master = flags.string("master");
    let mut rest = match (path.as_str(), master) {
        ("", "") => kubeconfig::in_cluster().context(
            "neither --kubeconfig nor clientConnection.kubeconfig in --config is given, and this is no pod",
        )?,
        ("", url) => {
            return RestConfig::plain(url)
                .map_err(anyhow::Error::msg)
                .context("--master");
        }
        (path, _) => kubeconfig::load(Path::new(path))?,
    };
    if !master.is_empty() {
        rest.server = RestConfig::plain(master)
            .map_err(anyhow::Error::msg)
            .context("--master")?
            .server;
    }
    Ok(rest)
}

/// `--write-config-to`: the effective configuration as a file.
pub fn write_config(configuration: &Configuration, path: &str) -> Result<()> {
    let mut value = serde_json::to_value(configuration)?;
    let Some(fields) = value.as_object_mut() else {
        bail!("the configuration is no object")
    };
    fields.insert("apiVersion".to_owned(), format!("{}/v1", config::GROUP).into());
    fields.insert("kind".to_owned(), "KubeSchedulerConfiguration".into());
    // JSON is YAML.
    std::fs::write(path, serde_json::to_vec_pretty(&value)?)
        .with_context(|| format!("--write-config-to {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Flags {
        flags().parse(args.iter().map(Into::into)).expect("parses")
    }

    #[test]
    fn the_command_lines_of_the_guides_are_accepted() {
        parse(&["--config=/etc/kubernetes/config/kube-scheduler.yaml", "--v=2"]);
        parse(&["--kubeconfig=/x", "--leader-elect=true", "--v=2"]);
        parse(&["--address=127.0.0.1", "--port", "0", "--scheduler-name=x"]);
        parse(&[
            "--authentication-kubeconfig=/etc/kubernetes/scheduler.conf",
            "--authorization-kubeconfig=/etc/kubernetes/scheduler.conf",
            "--bind-address=127.0.0.1",
            "--kubeconfig=/etc/kubernetes/scheduler.conf",
            "--leader-elect=true",
        ]);
    }

    #[test]
    fn leader_election_flags_beat_the_defaults() {
        let configuration = configuration(&parse(&[
            "--leader-elect=false",
            "--leader-elect-lease-duration",
            "1m",
        ]));
        let election = configuration.expect("valid").leader_election;
        assert!(!election.leader_elect);
        assert_eq!(election.lease_duration.0.as_secs(), 60);
        assert_eq!(election.renew_deadline.0.as_secs(), 10);
    }
}
