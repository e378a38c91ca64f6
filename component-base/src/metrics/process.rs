//! The families that every process exports: process_*, go_goroutines, go_threads, kubernetes_build_info.

use std::sync::LazyLock;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::text::{head, sample};
use crate::version;

static START_TIME_SECONDS: LazyLock<Option<f64>> = LazyLock::new(start_time);

pub(super) fn render(out: &mut String) {
    if let Some(stat) = Stat::read() {
        stat.render(out);
    }
    fds(out);
    network(out);
    // As client_golang writes that there is no limit.
    let most = getrlimit(Resource::As).current.unwrap_or(u64::MAX);
    single(
        out,
        "process_virtual_memory_max_bytes",
        "Maximum amount of virtual memory available in bytes.",
        "gauge",
        most as f64,
    );
    if let Some(start) = *START_TIME_SECONDS {
        single(
            out,
            "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.",
            "gauge",
            start,
        );
    }
    single(
        out,
        "go_goroutines",
        "Number of goroutines that currently exist (here: of async tasks).",
        "gauge",
        tasks(),
    );
    build_info(out);
}

fn single(out: &mut String, name: &str, help: &str, kind: &str, value: f64) {
    head(out, name, help, kind);
    sample(out, name, &[], &[], value);
}

fn tasks() -> f64 {
    tokio::runtime::Handle::try_current().map_or(0.0, |runtime| runtime.metrics().num_alive_tasks() as f64)
}

fn build_info(out: &mut String) {
    let info = version::info();
    let name = "kubernetes_build_info";
    head(
        out,
        name,
        "[BETA] A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
        "gauge",
    );
    let labels = [
        "build_date",
        "compiler",
        "git_commit",
        "git_tree_state",
        "git_version",
        "go_version",
        "major",
        "minor",
        "platform",
    ];
    let values = [
        info.build_date,
        info.compiler,
        info.git_commit,
        info.git_tree_state,
        info.git_version,
        info.go_version,
        info.major,
        info.minor,
        info.platform,
    ];
    sample(out, name, &labels, &values, 1.0);
}

/// What /proc/self/stat tells.
struct Stat {
    cpu_ticks: f64,
    threads: f64,
    start_ticks: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

impl Stat {
    fn read() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The process name may hold spaces and parentheses; fields are counted from the last ')'.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Stat {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }

    fn render(&self, out: &mut String) {
        let cpu = self.cpu_ticks / clock_ticks_per_second() as f64;
        let resident = self.resident_pages * page_size() as f64;
        single(
            out,
            "process_cpu_seconds_total",
            "Total user and system CPU time spent in seconds.",
            "counter",
            cpu,
        );
        single(
            out,
            "process_resident_memory_bytes",
            "Resident memory size in bytes.",
            "gauge",
            resident,
        );
        single(
            out,
            "process_virtual_memory_bytes",
            "Virtual memory size in bytes.",
            "gauge",
            self.virtual_bytes,
        );
        single(
            out,
            "go_threads",
            "Number of OS threads created.",
            "gauge",
            self.threads,
        );
    }
}

/// Without the one that the counting itself takes.
pub fn open_fds() -> Option<u64> {
    let entries = std::fs::read_dir("/proc/self/fd").ok()?;
    Some((entries.count() as u64).saturating_sub(1))
}

/// None where there is no limit.
pub fn max_fds() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

fn fds(out: &mut String) {
    if let Some(open) = open_fds() {
        single(
            out,
            "process_open_fds",
            "Number of open file descriptors.",
            "gauge",
            open as f64,
        );
    }
    if let Some(limit) = max_fds() {
        single(
            out,
            "process_max_fds",
            "Maximum number of open file descriptors.",
            "gauge",
            limit as f64,
        );
    }
}

/// Of the network namespace that the process lives in, as the counters of the kernel are.
fn network(out: &mut String) {
    let Ok(text) = std::fs::read_to_string("/proc/self/net/netstat") else {
        return;
    };
    for (name, field, help) in [
        (
            "process_network_receive_bytes_total",
            "InOctets",
            "Number of bytes received by the process over the network.",
        ),
        (
            "process_network_transmit_bytes_total",
            "OutOctets",
            "Number of bytes sent by the process over the network.",
        ),
    ] {
        if let Some(bytes) = ip_extension(&text, field) {
            single(out, name, help, "counter", bytes);
        }
    }
}

/// A line of names is followed by the line of their values.
fn ip_extension(netstat: &str, field: &str) -> Option<f64> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("IpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let place = names.split_whitespace().position(|name| name == field)?;
    values.split_whitespace().nth(place)?.parse().ok()
}

fn start_time() -> Option<f64> {
    let stat = Stat::read()?;
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = text
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    Some(boot + stat.start_ticks / clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_under_their_names() {
        let netstat =
            "TcpExt: A InOctets\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 7 80 900\n";
        assert_eq!(ip_extension(netstat, "InOctets"), Some(80.0));
        assert_eq!(ip_extension(netstat, "OutOctets"), Some(900.0));
        assert_eq!(ip_extension(netstat, "InECT0Pkts"), None);
    }
}
