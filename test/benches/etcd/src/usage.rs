//! What a process has used so far.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::cpu_clock;

#[derive(Clone, Copy, Default)]
pub struct Usage {
    pub cpu: Duration,
    /// Of `cpu`, in hundredths of a second: what /proc tells apart.
    pub user_ticks: u64,
    pub system_ticks: u64,
    pub resident_mib: f64,
    pub peak_mib: f64,
}

impl Usage {
    /// The part of the CPU time since `before` that was spent in the kernel, in percent.
    pub fn system_percent(&self, before: &Usage) -> f64 {
        let (user, system) = (
            self.user_ticks.saturating_sub(before.user_ticks),
            self.system_ticks.saturating_sub(before.system_ticks),
        );
        system as f64 * 100.0 / (user + system).max(1) as f64
    }
}

pub fn own() -> Result<Usage> {
    of(std::process::id())
}

pub fn of(pid: u32) -> Result<Usage> {
    let gone = || format!("no process {pid}");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(gone)?;
    // The name in parentheses may hold spaces.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().collect())
        .unwrap_or_default();
    let ticks = |place: usize| {
        fields
            .get(place)
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or_default()
    };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mib = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok())
            .unwrap_or_default()
            / 1024.0
    };
    Ok(Usage {
        cpu: cpu_clock::of(pid).with_context(gone)?,
        user_ticks: ticks(11),
        system_ticks: ticks(12),
        resident_mib: mib("VmRSS:"),
        peak_mib: mib("VmHWM:"),
    })
}

/// Of all members: their CPU together, and the memory of the largest.
pub fn of_all(pids: &[u32]) -> Result<Usage> {
    let mut total = Usage::default();
    for pid in pids {
        let used = of(*pid)?;
        total.cpu += used.cpu;
        total.user_ticks += used.user_ticks;
        total.system_ticks += used.system_ticks;
        total.resident_mib = total.resident_mib.max(used.resident_mib);
        total.peak_mib = total.peak_mib.max(used.peak_mib);
    }
    Ok(total)
}

/// Forgets the peak so far; only root may.
pub fn reset_peak(pid: u32) {
    // Without it the peak is of the whole life.
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_time_of_a_thread_that_has_ended_counts_to_the_microsecond() {
        let before = own().unwrap();
        let spin = || {
            let start = std::time::Instant::now();
            while start.elapsed() < Duration::from_millis(3) {}
        };
        std::thread::spawn(spin).join().unwrap();
        let used = own().unwrap().cpu - before.cpu;
        assert!(used > Duration::from_micros(500), "{used:?}");
        assert_ne!(
            used.subsec_nanos() % 1_000_000,
            0,
            "{used:?} is a number of ticks"
        );
    }
}
