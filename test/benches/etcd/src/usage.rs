//! What a process has used so far, from /proc.

use std::time::Duration;

use anyhow::{Context, Result};

const TICKS_PER_SECOND: u64 = 100;

#[derive(Clone, Copy, Default)]
pub struct Usage {
    pub cpu: Duration,
    pub resident_mib: f64,
    pub peak_mib: f64,
}

pub fn own() -> Result<Usage> {
    of(std::process::id())
}

pub fn of(pid: u32) -> Result<Usage> {
    let stat =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("no process {pid}"))?;
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
        cpu: Duration::from_millis((ticks(11) + ticks(12)) * 1000 / TICKS_PER_SECOND),
        resident_mib: mib("VmRSS:"),
        peak_mib: mib("VmHWM:"),
    })
}

/// Forgets the peak so far; only root may.
pub fn reset_peak(pid: u32) {
    // Without it the peak is of the whole life.
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").ok();
}
