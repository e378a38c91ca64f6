//! What the disk does at the moment, beside the figures that depend on it.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::measure::percentile;

const SYNCS: usize = 200;
const RECORD_BYTES: usize = 1024;

/// fdatasync of one record after the other into a file that has its bytes already.
pub fn disk(dir: &Path) -> Result<()> {
    let path = dir.join("probe.tmp");
    let open = || {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
    };
    let file = open().with_context(|| path.display().to_string())?;
    file.write_all_at(&vec![0; SYNCS * RECORD_BYTES], 0)?;
    file.sync_all()?;
    let mut times = Vec::with_capacity(SYNCS);
    for number in 0..SYNCS {
        let start = Instant::now();
        file.write_all_at(&[1; RECORD_BYTES], (number * RECORD_BYTES) as u64)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    std::fs::remove_file(&path)?;
    times.sort_unstable();
    println!(
        "# disk probe: fdatasync of {RECORD_BYTES} bytes, p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        percentile(&times, 50),
        percentile(&times, 99),
        percentile(&times, 100)
    );
    Ok(())
}
