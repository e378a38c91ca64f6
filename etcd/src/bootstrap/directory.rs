//! The data directory: where it is, that it is ours and nobody else's, and how fast its disk is.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tracing::{info, warn};

use crate::config::Config;
use crate::disk::real::{self, DirLock};
use crate::disk::{Disk, Fill, is_full, remove_if_there};

/// An fdatasync at start that takes longer gets a warning.
const SLOW_PROBE: Duration = Duration::from_millis(10);
const PROBES: usize = 8;

/// What `--data-dir` says, or what its default is.
pub fn data_dir(flag: &str, name: &str) -> PathBuf {
    match flag {
        "" => format!("{name}.etcd").into(),
        given => given.into(),
    }
}

/// Makes the directories, refuses a foreign or busy one, and takes the lock.
pub fn prepare(disk: &dyn Disk, config: &Config) -> Result<DirLock> {
    let (data_dir, member) = (&config.data_dir, config.data_dir.join("member"));
    let database = member.join("snap").join("db");
    if database.exists() {
        bail!(
            "{}: this data directory was written by the Go etcd; stop that etcd in order, and move its data into a new --data-dir with `{}`; or take a snapshot there with `etcdctl snapshot save`, and restore that in the same way without --skip-hash-check",
            member.display(),
            restore_command(config, &database)
        );
    }
    for dir in [&config.wal_dir, &member.join("store")] {
        disk.create_dir(dir)
            .with_context(|| format!("cannot create {}", dir.display()))?;
    }
    restrict(data_dir)?;
    let lock =
        real::lock(&member.join("lock")).with_context(|| format!("cannot lock {}", member.display()))?;
    lock.with_context(|| format!("{}: the data directory is in use by another etcd process; stop it, or give this one another --data-dir", data_dir.display()))
}

/// What makes a data directory of ours from the database of a Go etcd.
fn restore_command(config: &Config, database: &Path) -> String {
    format!(
        "etcdutl snapshot restore {} --skip-hash-check --data-dir=<new directory> --name={} --initial-cluster={} --initial-cluster-token={} --initial-advertise-peer-urls={}",
        database.display(),
        config.name,
        config.initial_cluster,
        config.initial_cluster_token,
        config.initial_advertise_peer_urls.join(",")
    )
}

/// etcd wants its directory for itself.
fn restrict(data_dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(data_dir)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        std::fs::set_permissions(data_dir, std::fs::Permissions::from_mode(0o700)).with_context(|| {
            format!(
                "{} has mode {mode:o}, and it cannot be changed to 0700",
                data_dir.display()
            )
        })?;
    }
    Ok(())
}

/// The log decides how fast an entry is durable; the rest matters by itself only where it lies elsewhere.
pub fn probed(config: &Config) -> Vec<PathBuf> {
    let mut dirs = vec![config.wal_dir.clone()];
    if !config.wal_dir.starts_with(&config.data_dir) {
        dirs.push(config.data_dir.join("member"));
    }
    dirs
}

/// One line about what this disk will do to elections and requests.
pub fn probe(disk: &dyn Disk, dir: &Path, election: Duration) -> Result<()> {
    let path = dir.join("probe.tmp");
    remove_if_there(disk, &path).with_context(|| path.display().to_string())?;
    let file = match disk.create(&path, 64 * 1024, Fill::Zeroes) {
        Ok(file) => file,
        Err(error) if is_full(&error) => {
            warn!("the disk is full");
            return Ok(());
        }
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let mut times = Vec::with_capacity(PROBES);
    for number in 0..PROBES {
        let start = Instant::now();
        file.write_at(&[1; 1024], number as u64 * 4096)?;
        file.sync()?;
        times.push(start.elapsed());
    }
    disk.remove(&path)?;
    times.sort();
    let (median, worst) = (times[PROBES / 2], times[PROBES - 1]);
    match median > SLOW_PROBE {
        true => {
            warn!(dir = %dir.display(), median = ?median, worst = ?worst, "election-timeout" = ?election, "the disk is slow: fdatasync should take less than 10 ms; requests will be slow and elections may follow")
        }
        false => {
            info!(dir = %dir.display(), median = ?median, worst = ?worst, "fdatasync of the data directory is fast enough")
        }
    }
    Ok(())
}
