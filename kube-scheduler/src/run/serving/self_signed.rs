//! A certificate of our own making, for when none is given.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Certificate and key in `cert_dir`, or in a new directory under the system's temporary one. An existing pair stays.
pub fn certificate(cert_dir: &str, bind_address: &str) -> Result<(PathBuf, PathBuf)> {
    let dir = match cert_dir {
        "" => std::env::temp_dir().join(format!("kube-scheduler-{}", std::process::id())),
        dir => PathBuf::from(dir),
    };
    let (cert, key) = (dir.join("kube-scheduler.crt"), dir.join("kube-scheduler.key"));
    if !cert_dir.is_empty() && cert.exists() && key.exists() {
        return Ok((cert, key));
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .with_context(|| format!("cannot make {}", dir.display()))?;
    let names = ["localhost", "127.0.0.1", bind_address].map(str::to_owned);
    let pair = rcgen::generate_simple_self_signed(names).context("cannot make a self-signed certificate")?;
    write(&key, pair.signing_key.serialize_pem(), 0o600)?;
    write(&cert, pair.cert.pem(), 0o644)?;
    tracing::info!(cert = %cert.display(), "Made a self-signed certificate because no --tls-cert-file is given");
    Ok((cert, key))
}

fn write(path: &Path, pem: String, mode: u32) -> Result<()> {
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path);
    let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(pem.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}
