//! Every flag of etcd 3.6.

use component_base::flags::FlagSet;

const ABOUT: &str = "etcd is a distributed reliable key-value store";
const V2_GONE: &str = "its proxies and emulations were removed; --enable-v2 serves the v2 API";
const RENAMED: &str = "use the flag without experimental-";

/// A row: name, default, help.
macro_rules! rows {
    ($($name:literal $default:tt $help:expr;)*) => {
        &[$(($name, $default, $help)),*]
    };
}

const BOOLS: &[(&str, bool, &str)] = rows! {
    "client-cert-auth" false "Enable client cert authentication.";
    "auto-tls" false "Client TLS using generated certificates";
    "peer-client-cert-auth" false "Enable peer client cert authentication.";
    "peer-auto-tls" false "Peer TLS using generated certificates";
    "peer-skip-client-san-verification" false
        "Skip verification of SAN field in client certificate for peer connections.";
    "initial-election-tick-advance" true "Whether to fast-forward initial election ticks on boot.";
    "socket-reuse-port" false "Set SO_REUSEPORT on listeners.";
    "socket-reuse-address" false "Set SO_REUSEADDR on listeners.";
    "strict-reconfig-check" true "Reject reconfiguration requests that would cause quorum loss.";
    "pre-vote" true "Enable the raft Pre-Vote algorithm.";
    "enable-log-rotation" false "Enable log rotation of a single log-outputs file target.";
    "enable-pprof" false "Has no effect: there is no profiler in this binary.";
    "enable-distributed-tracing" false "Send spans of clients' calls to an OpenTelemetry collector.";
    "enable-grpc-gateway" true "Enable GRPC gateway.";
    "enable-v2" false "Accept etcd V2 client requests.";
    "memory-mlock" false "Keep what etcd has in memory from being swapped out.";
    "unsafe-no-fsync" false "Disables fsync, unsafe, will cause data loss.";
    "force-new-cluster" false "Force to create a new one-member cluster.";
    "discovery-insecure-transport" true "V3 discovery: disable transport security.";
    "discovery-insecure-skip-tls-verify" false "V3 discovery: skip server certificate verification.";
    "experimental-peer-skip-client-san-verification" false RENAMED;
    "experimental-enable-distributed-tracing" false RENAMED;
    "experimental-initial-corrupt-check" true "Use --feature-gates=InitialCorruptCheck=true.";
    "experimental-compact-hash-check-enabled" true "Use --feature-gates=CompactHashCheck=true.";
    "experimental-enable-lease-checkpoint" false "Use --feature-gates=LeaseCheckpoint=true.";
    "experimental-enable-lease-checkpoint-persist" false "Use --feature-gates=LeaseCheckpointPersist=true.";
    "experimental-memory-mlock" false RENAMED;
    "experimental-txn-mode-write-with-shared-buffer" true "Has no effect: there is one mode.";
    "experimental-stop-grpc-service-on-defrag" false "Has no effect: defragmentation stops nothing.";
};

const STRINGS: &[(&str, &str, &str)] = rows! {
    "config-file" "" "Path to the server configuration file. Other flags are ignored when it is given.";
    "name" "default" "Human-readable name for this member.";
    "data-dir" "" "Path to the data directory.";
    "wal-dir" "" "Path to the dedicated wal directory.";
    "listen-peer-urls" "http://localhost:2380" "List of URLs to listen on for peer traffic.";
    "listen-client-urls" "http://localhost:2379" "List of URLs to listen on for client traffic.";
    "listen-client-http-urls" "" "List of URLs to listen on for http only client traffic.";
    "listen-metrics-urls" "" "List of URLs to listen on for the metrics and health endpoints.";
    "initial-advertise-peer-urls" "http://localhost:2380"
        "List of this member's peer URLs to advertise to the rest of the cluster.";
    "advertise-client-urls" "http://localhost:2379"
        "List of this member's client URLs to advertise to the public.";
    "initial-cluster" "" "Initial cluster configuration for bootstrapping.";
    "initial-cluster-token" "etcd-cluster" "Initial cluster token for the etcd cluster during bootstrap.";
    "initial-cluster-state" "new" "Initial cluster state ('new' or 'existing').";
    "discovery" "" "Discovery URL used to bootstrap the cluster for v2 discovery.";
    "discovery-fallback" "proxy" "Expected behavior when discovery services fails.";
    "discovery-token" "" "V3 discovery: discovery token for the etcd cluster to be bootstrapped.";
    "discovery-endpoints" "" "V3 discovery: List of gRPC endpoints of the discovery service.";
    "discovery-cert" "" "V3 discovery: client TLS certificate file.";
    "discovery-key" "" "V3 discovery: client TLS key file.";
    "discovery-cacert" "" "V3 discovery: CA bundle.";
    "discovery-user" "" "V3 discovery: username[:password] for authentication.";
    "discovery-password" "" "V3 discovery: password for authentication.";
    "discovery-proxy" "" "HTTP proxy to use for traffic to discovery service.";
    "discovery-srv" "" "DNS domain used to bootstrap initial cluster.";
    "discovery-srv-name" "" "Service name to query when using DNS discovery.";
    "cert-file" "" "Path to the client server TLS cert file.";
    "key-file" "" "Path to the client server TLS key file.";
    "client-cert-file" "" "Path to an explicit peer client TLS cert file.";
    "client-key-file" "" "Path to an explicit peer client TLS key file.";
    "client-crl-file" "" "Path to the client certificate revocation list file.";
    "client-cert-allowed-cn" ""
        "Allowed CNs for client cert authentication (to etcd only a file can say it).";
    "client-cert-allowed-hostname" "" "Allowed SAN hostnames for client cert authentication.";
    "trusted-ca-file" "" "Path to the client server TLS trusted CA cert file.";
    "peer-cert-file" "" "Path to the peer server TLS cert file.";
    "peer-key-file" "" "Path to the peer server TLS key file.";
    "peer-client-cert-file" "" "Path to an explicit peer client TLS cert file.";
    "peer-client-key-file" "" "Path to an explicit peer client TLS key file.";
    "peer-trusted-ca-file" "" "Path to the peer server TLS trusted CA file.";
    "peer-crl-file" "" "Path to the peer certificate revocation list file.";
    "peer-cert-allowed-cn" "" "Allowed CNs for inter-peer TLS authentication.";
    "peer-cert-allowed-hostname" "" "Allowed SAN hostnames for inter-peer TLS authentication.";
    "cipher-suites" "" "Comma-separated list of supported TLS cipher suites.";
    "tls-min-version" "TLS1.2" "Minimum TLS version supported by etcd. Possible values: TLS1.2, TLS1.3.";
    "tls-max-version" "" "Maximum TLS version supported by etcd.";
    "cors" "*" "Comma-separated white list of origins for CORS.";
    "host-whitelist" "*"
        "Comma-separated acceptable hostnames from HTTP client requests, if server is not secure.";
    "logger" "zap" "Currently only supports 'zap' for structured logging.";
    "log-outputs" "default"
        "Comma-separated: 'stderr' ('default'), 'stdout', files; or 'systemd/journal' alone.";
    "log-level" "info" "Configures log level. Only supports debug, info, warn, error, panic, or fatal.";
    "log-format" "json" "Configures log format. Only supports json, console.";
    "log-rotation-config-json" r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#
        "Configures log rotation: size in MB, age in days, number of backups, times, gzip.";
    "auto-compaction-retention" "0"
        "Auto compaction retention for mvcc key value store. 0 means disable auto compaction.";
    "auto-compaction-mode" "periodic" "interpret 'auto-compaction-retention' one of: periodic|revision.";
    "metrics" "basic" "Set level of detail for exported metrics.";
    "distributed-tracing-address" "localhost:4317" "Address for distributed tracing.";
    "distributed-tracing-service-name" "etcd" "Service name for distributed tracing.";
    "distributed-tracing-instance-id" "" "Service instance ID for distributed tracing.";
    "experimental-distributed-tracing-address" "localhost:4317" RENAMED;
    "experimental-distributed-tracing-service-name" "etcd" RENAMED;
    "experimental-distributed-tracing-instance-id" "" RENAMED;
    "auth-token" "simple" "Specify auth token specific options.";
    "backend-bbolt-freelist-type" "map" "Has no effect: there is no bbolt.";
    "v2-deprecation" "write-only-drop-data" "Phase of v2store deprecation.";
    "feature-gates" "" "A set of key=value pairs that describe server level feature gates.";
};

const INTS: &[(&str, i64, &str)] = rows! {
    "max-snapshots" 5 "Has no effect: there are no snapshot files.";
    "max-wals" 5 "Has no effect: wal files are removed once the store is durable.";
    "snapshot-count" 10_000 "Number of committed transactions to trigger a snapshot.";
    "heartbeat-interval" 100 "Time (in milliseconds) of a heartbeat interval.";
    "election-timeout" 1000 "Time (in milliseconds) for an election to timeout.";
    "quota-backend-bytes" 0 "Maximum size (in bytes) of live data (0 is 2 GiB, negative is no limit).";
    "backend-batch-limit" 0 "Has no effect: batches follow the load.";
    "max-txn-ops" 128 "Maximum number of operations permitted in a transaction.";
    "max-request-bytes" 1_572_864 "Maximum client request size in bytes the server will accept.";
    "max-concurrent-streams" 4_294_967_295 "Maximum concurrent streams that each client can open at a time.";
    "self-signed-cert-validity" 1 "The validity period of the client and peer certificates, unit is year";
    "distributed-tracing-sampling-rate" 0 "Number of samples to collect per million spans.";
    "experimental-distributed-tracing-sampling-rate" 0 RENAMED;
    "bcrypt-cost" 10 "Specify bcrypt algorithm cost factor for auth password hashing.";
    "auth-token-ttl" 300 "The lifetime in seconds of the auth token.";
    "compaction-batch-limit" 1000 "Has no effect: compaction goes in steps of microseconds.";
    "experimental-compaction-batch-limit" 1000 RENAMED;
    "bootstrap-defrag-threshold-megabytes" 0 "Has no effect: space is reclaimed while serving.";
    "experimental-bootstrap-defrag-threshold-megabytes" 0 RENAMED;
    "max-learners" 1 "Maximum number of learners that can be available in the cluster membership.";
    "snapshot-catchup-entries" 5000
        "Number of entries for a slow follower to catch up after compacting the raft storage entries.";
    "experimental-snapshot-catchup-entries" 5000 RENAMED;
};

const DURATIONS: &[(&str, &str, &str)] = rows! {
    "backend-batch-interval" "0s" "Has no effect: batches follow the load.";
    "grpc-keepalive-min-time" "5s"
        "Minimum interval duration that a client should wait before pinging server.";
    "grpc-keepalive-interval" "2h0m0s"
        "Frequency duration of server-to-client ping to check if a connection is alive.";
    "grpc-keepalive-timeout" "20s" "Additional duration of wait before closing a non-responsive connection.";
    "raft-read-timeout" "5s" "Read timeout set on each rafthttp connection";
    "raft-write-timeout" "5s" "Write timeout set on each rafthttp connection";
    "discovery-dial-timeout" "2s" "V3 discovery: dial timeout for client connections.";
    "discovery-request-timeout" "5s" "V3 discovery: timeout for discovery requests.";
    "discovery-keepalive-time" "2s" "V3 discovery: keepalive time for client connections.";
    "discovery-keepalive-timeout" "6s" "V3 discovery: keepalive timeout for client connections.";
    "corrupt-check-time" "1h0m0s"
        "Duration of time between cluster corruption check passes (0s switches them off).";
    "experimental-corrupt-check-time" "1h0m0s" RENAMED;
    "compact-hash-check-time" "1m0s" "Duration of time between leader checks followers compaction hashes.";
    "experimental-compact-hash-check-time" "1m0s" RENAMED;
    "compaction-sleep-interval" "10ms" "Has no effect: compaction goes in steps of microseconds.";
    "experimental-compaction-sleep-interval" "10ms" RENAMED;
    "watch-progress-notify-interval" "10m0s" "Duration of periodic watch progress notifications.";
    "experimental-watch-progress-notify-interval" "10m0s" RENAMED;
    "downgrade-check-time" "5s" "Duration of time between two downgrade status checks.";
    "experimental-downgrade-check-time" "5s" RENAMED;
    "warning-apply-duration" "100ms"
        "Time duration after which a warning is generated if applying takes more time.";
    "experimental-warning-apply-duration" "100ms" RENAMED;
    "warning-unary-request-duration" "300ms"
        "Time duration after which a warning is generated if a unary request takes more time.";
    "experimental-warning-unary-request-duration" "300ms" RENAMED;
};

/// Accepted, ignored, warned about: name, whether a value follows, and why.
const REMOVED: &[(&str, bool, &str)] = rows! {
    "experimental-enable-v2v3" true V2_GONE;
    "proxy" true V2_GONE;
    "proxy-failure-wait" true V2_GONE;
    "proxy-refresh-interval" true V2_GONE;
    "proxy-dial-timeout" true V2_GONE;
    "proxy-write-timeout" true V2_GONE;
    "proxy-read-timeout" true V2_GONE;
    "debug" false "use --log-level=debug";
    "log-package-levels" true "use --log-level";
    "log-output" true "use --log-outputs";
    "experimental-backend-bbolt-freelist-type" true "there is no bbolt";
    "ca-file" true "use --trusted-ca-file and --client-cert-auth";
    "peer-ca-file" true "use --peer-trusted-ca-file and --peer-client-cert-auth";
};

pub fn flags() -> FlagSet {
    let set = FlagSet::new("etcd", ABOUT).env_prefix("ETCD").single_dash_long();
    let set = BOOLS
        .iter()
        .fold(set, |set, (name, default, help)| set.bool(name, *default, help));
    let set = STRINGS
        .iter()
        .fold(set, |set, (name, default, help)| set.string(name, default, help));
    let set = INTS
        .iter()
        .fold(set, |set, (name, default, help)| set.int(name, *default, help));
    let set = DURATIONS.iter().fold(set, |set, (name, default, help)| {
        set.duration(name, default, help)
    });
    let set = deprecated(set);
    REMOVED.iter().fold(set, |set, (name, takes_value, advice)| {
        set.removed(name, *takes_value, advice)
    })
}

fn deprecated(set: FlagSet) -> FlagSet {
    let names = BOOLS
        .iter()
        .map(|item| item.0)
        .chain(STRINGS.iter().map(|item| item.0))
        .chain(INTS.iter().map(|item| item.0));
    let names = names
        .chain(DURATIONS.iter().map(|item| item.0))
        .filter(|name| name.starts_with("experimental-"));
    names.fold(set, |set, name| set.deprecated(name, RENAMED))
}

/// Whether a number for this flag in a configuration file counts nanoseconds, as Go's JSON has it.
pub fn is_duration(name: &str) -> bool {
    DURATIONS.iter().any(|(duration, ..)| *duration == name)
}
