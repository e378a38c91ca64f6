//! CPU time and memory of the daemons, read from /proc.

use std::collections::BTreeMap;
use std::time::Duration;

pub const DAEMONS: &[&str] = &[
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
];

/// One reading of every daemon that runs.
pub struct Reading(BTreeMap<&'static str, Usage>);

#[derive(Clone, Copy, Default)]
pub struct Usage {
    pub cpu: Duration,
    pub resident_kib: u64,
    pub peak_kib: u64,
}

impl Reading {
    pub fn now() -> Self {
        let mut found: BTreeMap<&'static str, Usage> = BTreeMap::new();
        for pid in pids() {
            let Some(name) = daemon(pid) else { continue };
            let Some(usage) = usage(pid) else { continue };
            let sum = found.entry(name).or_default();
            sum.cpu += usage.cpu;
            sum.resident_kib += usage.resident_kib;
            sum.peak_kib += usage.peak_kib;
        }
        Self(found)
    }

    pub fn get(&self, name: &str) -> Usage {
        self.0.get(name).copied().unwrap_or_else(Usage::default)
    }

    /// CPU that a daemon used since an earlier reading.
    pub fn cpu_since(&self, before: &Reading, name: &str) -> Duration {
        self.get(name).cpu.saturating_sub(before.get(name).cpu)
    }
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// By the program's file name: /proc/PID/comm is cut at 15 characters.
fn daemon(pid: u32) -> Option<&'static str> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let program = line.split(|byte| *byte == 0).next()?;
    let name = program.rsplit(|byte| *byte == b'/').next()?;
    DAEMONS.iter().copied().find(|daemon| daemon.as_bytes() == name)
}

fn usage(pid: u32) -> Option<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces; fields are counted behind it: utime and stime are the 14th and 15th.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Usage {
        cpu: Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64),
        resident_kib: kib(&status, "VmRSS:")?,
        peak_kib: kib(&status, "VmHWM:")?,
    })
}

fn kib(status: &str, field: &str) -> Option<u64> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}
