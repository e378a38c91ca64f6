//! The host's conntrack limits, set as upstream sets them. A limit that cannot be set is a warning: in a container
//! `/proc/sys` is read-only, and Services work all the same.

use std::time::Duration;

use tracing::{info, warn};

use crate::options::{ConntrackLimits, Options};

pub fn apply(options: &Options) {
    let limits = &options.conntrack;
    if let Some(max) = wanted_max(limits) {
        raise("net/netfilter/nf_conntrack_max", max);
    }
    for (name, timeout) in [
        ("nf_conntrack_tcp_timeout_established", limits.tcp_established),
        ("nf_conntrack_tcp_timeout_close_wait", limits.tcp_close_wait),
        ("nf_conntrack_udp_timeout", limits.udp),
        ("nf_conntrack_udp_timeout_stream", limits.udp_stream),
    ] {
        set_timeout(name, timeout);
    }
    if limits.tcp_be_liberal {
        write("net/netfilter/nf_conntrack_tcp_be_liberal", 1);
    }
    set_oom_score(options.oom_score_adj);
}

fn wanted_max(limits: &ConntrackLimits) -> Option<i64> {
    if limits.max_per_core <= 0 {
        return None;
    }
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as i64);
    Some((limits.max_per_core.saturating_mul(cores)).max(limits.min))
}

fn set_timeout(name: &str, timeout: Duration) {
    if !timeout.is_zero() {
        write(&format!("net/netfilter/{name}"), timeout.as_secs() as i64);
    }
}

/// Only upwards: somebody may have chosen more.
fn raise(name: &str, value: i64) {
    if read(name).is_none_or(|current| current < value) {
        write(name, value);
    }
}

fn read(name: &str) -> Option<i64> {
    std::fs::read_to_string(format!("/proc/sys/{name}"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn write(name: &str, value: i64) {
    if read(name) == Some(value) {
        return;
    }
    match std::fs::write(format!("/proc/sys/{name}"), value.to_string()) {
        Ok(()) => info!(entry = name, value, "Set sysctl"),
        Err(error) => warn!(entry = name, value, err = %error, "Cannot set sysctl"),
    }
}

fn set_oom_score(score: i32) {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        warn!(score, err = %error, "Cannot set oom_score_adj");
    }
}
