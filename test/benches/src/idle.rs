//! Memory and CPU of the six daemons while nothing is asked of them.

use std::time::Duration;

use anyhow::Result;

use crate::process::{DAEMONS, Reading};

pub async fn run(seconds: usize) -> Result<()> {
    let before = Reading::now();
    tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
    let after = Reading::now();
    let (mut memory, mut cpu) = (0, Duration::ZERO);
    for name in DAEMONS {
        let (usage, used) = (after.get(name), after.cpu_since(&before, name));
        memory += usage.resident_kib;
        cpu += used;
        println!(
            "{name:<24} resident {:>6.1} MiB (peak {:>6.1})   cpu {:.2} % of a core",
            mib(usage.resident_kib),
            mib(usage.peak_kib),
            percent(used, seconds)
        );
    }
    println!(
        "{:<24} resident {:>6.1} MiB                  cpu {:.2} % of a core",
        "all six",
        mib(memory),
        percent(cpu, seconds)
    );
    Ok(())
}

pub fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn percent(cpu: Duration, seconds: usize) -> f64 {
    cpu.as_secs_f64() / seconds.max(1) as f64 * 100.0
}
