//! The flags, environment and configuration file of etcd 3.6, and what they come to.

mod discovery;
mod effect;
pub mod features;
mod file;
mod table;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use component_base::flags::Flags;
use component_base::serve::PingRule;
use component_base::tls::{Allowed, ClientTls, ServerTls};

pub use discovery::{Discovery, Service};
pub use features::Features;
pub use table::flags;

use crate::auth;
use crate::compactor;
use crate::raft::node::{OLDER, Retention};
use crate::traces;

/// What the cluster says about itself, and new members must be able to speak.
pub const CLUSTER_VERSION: &str = "3.6.0";
const MAX_ELECTION_MS: i64 = 50_000;
/// etcd says it has not tested beyond this.
const TESTED_QUOTA: u64 = 8 * 1024 * 1024 * 1024;
/// They share certificates, and whom they let in.
const CLIENT_LISTENERS: &[&str] = &[
    "listen-client-urls",
    "listen-client-http-urls",
    "listen-metrics-urls",
];
const DEFAULT_CLIENT_URL: &str = "http://localhost:2379";
/// Below it a healthy peer would look broken.
const MIN_RAFT_TIMEOUT: Duration = Duration::from_secs(1);
/// Streams of one connection when the flag sets no bound: a multiplexed client with thousands of watches stays served, memory stays bounded.
const MAX_STREAMS: i64 = 10_000;

pub struct Config {
    pub name: String,
    pub data_dir: PathBuf,
    pub wal_dir: PathBuf,
    pub listen_client_urls: Vec<ListenUrl>,
    pub listen_client_http_urls: Vec<ListenUrl>,
    pub listen_peer_urls: Vec<ListenUrl>,
    pub listen_metrics_urls: Vec<ListenUrl>,
    pub advertise_client_urls: Vec<String>,
    pub initial_advertise_peer_urls: Vec<String>,
    pub initial_cluster: String,
    pub initial_cluster_token: String,
    pub initial_cluster_state: String,
    pub discovery: Discovery,
    pub initial_election_tick_advance: bool,
    pub force_new_cluster: bool,
    pub strict_reconfig_check: bool,
    pub max_learners: usize,
    pub retention: Retention,
    pub raft_read_timeout: Duration,
    pub tracing: Option<traces::Settings>,
    pub raft_write_timeout: Duration,
    /// Zero for never.
    pub corrupt_check: Duration,
    pub compact_hash_check: Duration,
    pub features: Features,
    pub heartbeat: Duration,
    pub election: Duration,
    pub pre_vote: bool,
    pub quota_bytes: u64,
    pub max_request_bytes: usize,
    pub max_txn_ops: usize,
    pub max_concurrent_streams: u32,
    pub keepalive: KeepAlive,
    pub socket_reuse_port: bool,
    pub memory_mlock: bool,
    pub no_fsync: bool,
    pub warning_apply_duration: Duration,
    pub warning_unary_duration: Duration,
    pub watch_progress_notify_interval: Duration,
    pub client_tls: Option<ServerTls>,
    pub peer_tls: Option<ServerTls>,
    /// How this member speaks to others; None when no peer URL needs it.
    pub peer_client_tls: Option<ClientTls>,
    /// As callers and as called.
    pub allowed_peers: Allowed,
    pub host_whitelist: Vec<String>,
    pub cors: Vec<String>,
    pub enable_grpc_gateway: bool,
    pub enable_v2: bool,
    pub auto_compaction: Option<compactor::Mode>,
    pub auth: auth::Options,
}

/// What to listen on, and whether it speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenUrl {
    pub text: String,
    pub place: Place,
    pub tls: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// `--grpc-keepalive-*`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Interval and timeout of our pings.
    pub ping: Option<(Duration, Duration)>,
    /// How often clients may.
    pub rule: Option<PingRule>,
}

impl Config {
    pub fn from_flags(mut flags: Flags) -> Result<Config> {
        if !flags.string("config-file").is_empty() {
            file::read(&mut flags)?;
            component_base::logging::follow_etcd_flags(&flags).map_err(anyhow::Error::msg)?;
        }
        effect::warn(&flags);
        check_peer_flags(&flags)?;
        let (heartbeat, election) = timing(&flags)?;
        let discovery = Discovery::from_flags(&flags)?;
        let name = flags.string("name").to_owned();
        let advertise_peer = urls(&flags, "initial-advertise-peer-urls")?;
        let initial_cluster = initial_cluster(&flags, &discovery, &name, &advertise_peer)?;
        let data_dir = crate::bootstrap::data_dir(flags.string("data-dir"), &name);
        let wal_dir = match flags.string("wal-dir") {
            "" => data_dir.join("member/wal"),
            given => PathBuf::from(given),
        };
        Ok(Config {
            data_dir,
            wal_dir,
            listen_client_urls: listen_urls(&flags, "listen-client-urls")?,
            listen_client_http_urls: listen_urls(&flags, "listen-client-http-urls")?,
            listen_peer_urls: listen_urls(&flags, "listen-peer-urls")?,
            listen_metrics_urls: listen_urls(&flags, "listen-metrics-urls")?,
            advertise_client_urls: advertise_client_urls(&flags)?,
            initial_advertise_peer_urls: advertise_peer,
            initial_cluster,
            initial_cluster_token: flags.string("initial-cluster-token").to_owned(),
            initial_cluster_state: cluster_state(&flags)?,
            discovery,
            initial_election_tick_advance: flags.bool("initial-election-tick-advance"),
            force_new_cluster: flags.bool("force-new-cluster"),
            strict_reconfig_check: flags.bool("strict-reconfig-check"),
            max_learners: at_least_one(&flags, "max-learners")? as usize,
            retention: retention(&flags)?,
            tracing: traces::Settings::from_flags(&flags)?,
            raft_read_timeout: flags.duration("raft-read-timeout").max(MIN_RAFT_TIMEOUT),
            raft_write_timeout: flags.duration("raft-write-timeout").max(MIN_RAFT_TIMEOUT),
            corrupt_check: renamed(&flags, "corrupt-check-time"),
            compact_hash_check: compact_hash_check(&flags)?,
            features: Features::from_flags(&flags)?,
            heartbeat,
            election,
            pre_vote: flags.bool("pre-vote"),
            quota_bytes: quota(&flags)?,
            max_request_bytes: at_least_one(&flags, "max-request-bytes")? as usize,
            max_txn_ops: at_least_one(&flags, "max-txn-ops")? as usize,
            max_concurrent_streams: at_least_one(&flags, "max-concurrent-streams")?.min(MAX_STREAMS) as u32,
            keepalive: keepalive(&flags),
            socket_reuse_port: flags.bool("socket-reuse-port"),
            memory_mlock: flags.bool("memory-mlock") || flags.bool("experimental-memory-mlock"),
            no_fsync: flags.bool("unsafe-no-fsync"),
            warning_apply_duration: renamed(&flags, "warning-apply-duration"),
            warning_unary_duration: renamed(&flags, "warning-unary-request-duration"),
            watch_progress_notify_interval: progress_interval(&flags)?,
            client_tls: tls::server(&flags, "", CLIENT_LISTENERS)?,
            peer_tls: tls::server(&flags, "peer-", &["listen-peer-urls"])?,
            peer_client_tls: tls::peer_client(&flags),
            allowed_peers: tls::allowed_peers(&flags)?,
            host_whitelist: flags.strings("host-whitelist"),
            auth: auth_options(&flags),
            cors: flags.strings("cors"),
            enable_grpc_gateway: flags.bool("enable-grpc-gateway"),
            enable_v2: flags.bool("enable-v2"),
            auto_compaction: compactor::parse(
                flags.string("auto-compaction-mode"),
                flags.string("auto-compaction-retention"),
            )?,
            name,
        })
    }

    pub fn election_ticks(&self) -> usize {
        (self.election.as_millis() / self.heartbeat.as_millis().max(1)) as usize
    }

    /// etcd's: one and a half elections, in whole seconds.
    pub fn min_lease_ttl(&self) -> i64 {
        let ms = (3 * self.election_ticks() as u64) / 2 * self.heartbeat.as_millis() as u64;
        ms.div_ceil(1000) as i64
    }
}

fn check_peer_flags(flags: &Flags) -> Result<()> {
    for name in ["listen-peer-urls", "initial-advertise-peer-urls"] {
        let checked = urls(flags, name)?.iter().try_for_each(|url| peer_url(url));
        checked.with_context(|| format!("--{name}"))?;
    }
    Ok(())
}

/// Where the flag says nothing, this member alone.
fn initial_cluster(flags: &Flags, discovery: &Discovery, name: &str, peer_urls: &[String]) -> Result<String> {
    match flags.string("initial-cluster") {
        "" if flags.is_set("initial-cluster") && matches!(discovery, Discovery::Static) => {
            bail!("--initial-cluster is empty: name the members (name=url,...), or leave the flag out")
        }
        "" => {
            let pairs = peer_urls.iter().map(|url| format!("{name}={url}"));
            Ok(pairs.collect::<Vec<_>>().join(","))
        }
        given => Ok(given.to_owned()),
    }
}

fn timing(flags: &Flags) -> Result<(Duration, Duration)> {
    let (heartbeat, election) = (flags.int("heartbeat-interval"), flags.int("election-timeout"));
    if heartbeat <= 0 {
        bail!("--heartbeat-interval must be >0 (set to {heartbeat}ms)");
    }
    if election <= 0 {
        bail!("--election-timeout must be >0 (set to {election}ms)");
    }
    if 5 * heartbeat > election {
        bail!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
        );
    }
    if election > MAX_ELECTION_MS {
        bail!(
            "--election-timeout[{election}ms] is too long, and should be set less than {MAX_ELECTION_MS}ms"
        );
    }
    Ok((
        Duration::from_millis(heartbeat as u64),
        Duration::from_millis(election as u64),
    ))
}

/// As etcd: no time is no rule, and no pings.
fn keepalive(flags: &Flags) -> KeepAlive {
    let some = |name: &str| Some(flags.duration(name)).filter(|time| !time.is_zero());
    KeepAlive {
        ping: some("grpc-keepalive-interval").zip(some("grpc-keepalive-timeout")),
        rule: some("grpc-keepalive-min-time").map(|min_interval| PingRule {
            min_interval,
            // There etcd's HTTP server answers for gRPC and minds no pings, unless HTTP has URLs of its own. Whoever gives the flag means it.
            over_tls: flags.is_set("grpc-keepalive-min-time")
                || !flags.string("listen-client-http-urls").is_empty(),
        }),
    }
}

fn quota(flags: &Flags) -> Result<u64> {
    match flags.int("quota-backend-bytes") {
        0 => Ok(crate::quota::DEFAULT_BYTES),
        negative if negative < 0 => {
            tracing::info!("disabled backend quota");
            Ok(u64::MAX / 2)
        }
        bytes => {
            if bytes as u64 > TESTED_QUOTA {
                tracing::warn!(
                    "quota-size-bytes" = bytes,
                    "quota exceeds the maximum value that etcd recommends"
                );
            }
            Ok(bytes as u64)
        }
    }
}

fn at_least_one(flags: &Flags, name: &str) -> Result<i64> {
    match flags.int(name) {
        value if value < 1 => bail!("invalid value \"{value}\" for --{name}: must be positive"),
        value => Ok(value),
    }
}

fn retention(flags: &Flags) -> Result<Retention> {
    let catchup = match flags.is_set("experimental-snapshot-catchup-entries") {
        true => "experimental-snapshot-catchup-entries",
        false => "snapshot-catchup-entries",
    };
    let catchup_entries = flags.int(catchup).max(0) as u64;
    Ok(Retention {
        snapshot_count: at_least_one(flags, "snapshot-count")? as u64,
        catchup_entries,
        older_entries: catchup_entries.saturating_mul(OLDER),
        ..Retention::default()
    })
}

/// Peer URLs that a request brings.
pub fn check_urls(urls: &[String]) -> Result<()> {
    if urls.is_empty() {
        bail!("no URL was given");
    }
    urls.iter().try_for_each(|url| peer_url(url))
}

/// Members are on hosts of their own.
fn peer_url(url: &str) -> Result<()> {
    match split_url(url)?.0 {
        "unix" | "unixs" => bail!("members do not reach each other over Unix sockets: {url}"),
        _ => Ok(()),
    }
}

fn cluster_state(flags: &Flags) -> Result<String> {
    match flags.string("initial-cluster-state") {
        state @ ("new" | "existing") => Ok(state.to_owned()),
        other => bail!("invalid value \"{other}\" for --initial-cluster-state: want \"new\" or \"existing\""),
    }
}

/// The name under which a flag was given: the experimental one counts when only it was.
pub fn spelling(flags: &Flags, name: &str) -> String {
    let experimental = format!("experimental-{name}");
    match flags.is_set(&experimental) && !flags.is_set(name) {
        true => experimental,
        false => name.to_owned(),
    }
}

fn renamed(flags: &Flags, name: &str) -> Duration {
    flags.duration(&spelling(flags, name))
}

fn progress_interval(flags: &Flags) -> Result<Duration> {
    let interval = renamed(flags, "watch-progress-notify-interval");
    if interval.is_zero() {
        bail!("invalid value for --watch-progress-notify-interval: must be positive");
    }
    Ok(interval)
}

fn compact_hash_check(flags: &Flags) -> Result<Duration> {
    let interval = renamed(flags, "compact-hash-check-time");
    if interval.is_zero() {
        bail!(
            "--compact-hash-check-time must be >0; --feature-gates=CompactHashCheck=false switches the check off"
        );
    }
    Ok(interval)
}

fn advertise_client_urls(flags: &Flags) -> Result<Vec<String>> {
    let advertised = urls(flags, "advertise-client-urls")?;
    if flags.is_set("listen-client-urls")
        && !flags.is_set("advertise-client-urls")
        && flags.string("listen-client-urls") != DEFAULT_CLIENT_URL
    {
        bail!("--advertise-client-urls is required when --listen-client-urls is set explicitly");
    }
    Ok(advertised)
}

fn urls(flags: &Flags, name: &str) -> Result<Vec<String>> {
    let urls: Vec<String> = flags
        .string(name)
        .split(',')
        .map(str::trim)
        .filter(|url| !url.is_empty())
        .map(str::to_owned)
        .collect();
    for url in &urls {
        split_url(url).with_context(|| format!("invalid value {:?} for --{name}", flags.string(name)))?;
    }
    Ok(urls)
}

/// Scheme and host:port, or the path of a Unix socket.
fn split_url(url: &str) -> Result<(&str, &str)> {
    let Some((scheme, rest)) = url.split_once("://") else {
        bail!("URL scheme must be http, https, unix, or unixs: {url}")
    };
    match scheme {
        "http" | "https" => {}
        "unix" | "unixs" if rest.is_empty() => bail!("URL names no socket: {url}"),
        "unix" | "unixs" => return Ok((scheme, rest)),
        _ => bail!("URL scheme must be http, https, unix, or unixs: {url}"),
    }
    let host = rest.trim_end_matches('/');
    if host.contains('/') {
        bail!("URL must not contain a path: {url}");
    }
    let Some((name, port)) = host.rsplit_once(':') else {
        bail!("URL address does not have the form \"host:port\": {url}")
    };
    if port.parse::<u16>().is_err() || name.is_empty() {
        bail!("URL address does not have the form \"host:port\": {url}");
    }
    Ok((scheme, host))
}

fn listen_urls(flags: &Flags, name: &str) -> Result<Vec<ListenUrl>> {
    let parse = |url: &String| -> Result<ListenUrl> {
        let (scheme, host) = split_url(url)?;
        if scheme.starts_with("unix") {
            return Ok(ListenUrl {
                text: url.clone(),
                place: Place::Unix(host.into()),
                tls: scheme == "unixs",
            });
        }
        let host = host
            .strip_prefix("localhost:")
            .map_or_else(|| host.to_owned(), |port| format!("127.0.0.1:{port}"));
        let address: SocketAddr = host
            .parse()
            .map_err(|_| anyhow::anyhow!("expected IP in URL for binding ({url})"))?;
        Ok(ListenUrl {
            text: url.clone(),
            place: Place::Tcp(address),
            tls: scheme == "https",
        })
    };
    urls(flags, name)?
        .iter()
        .map(|url| parse(url).with_context(|| format!("--{name}")))
        .collect::<Result<Vec<_>>>()
}

fn auth_options(flags: &Flags) -> auth::Options {
    auth::Options {
        token: flags.string("auth-token").to_owned(),
        // As etcd: no time is the default one.
        token_ttl: Duration::from_secs(flags.int("auth-token-ttl").max(0) as u64),
        bcrypt_cost: flags.int("bcrypt-cost"),
        client_cert_auth: flags.bool("client-cert-auth"),
    }
}

/// Whether plain HTTP to this host is meant for us: DNS rebinding brings other names.
pub fn host_is_allowed(whitelist: &[String], host: &str) -> bool {
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.parse::<u16>().is_ok())
        .map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    whitelist.iter().any(|allowed| allowed == "*" || allowed == name)
        || name == "localhost"
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests;
