//! `--auto-tls` and `--peer-auto-tls`: a certificate that nobody else vouches for, made once and kept in the data directory.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};

const SECONDS_OF_A_YEAR: u64 = 31_556_952;

/// Certificate and key in `<data-dir>/fixtures/<whose>`, valid for so many years.
pub fn files(data_dir: &Path, whose: &str, hosts: Vec<String>, years: i64) -> Result<(PathBuf, PathBuf)> {
    let dir = data_dir.join("fixtures").join(whose);
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    if cert.exists() && key.exists() {
        return Ok((cert, key));
    }
    make(&dir, &cert, &key, hosts, years)
        .with_context(|| format!("cannot make a self-signed certificate in {}", dir.display()))?;
    Ok((cert, key))
}

fn make(dir: &Path, cert: &Path, key: &Path, hosts: Vec<String>, years: i64) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut params = CertificateParams::new(hosts)?;
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let year = 1970 + (crate::clock::unix_seconds() / SECONDS_OF_A_YEAR) as i32;
    params.not_before = rcgen::date_time_ymd(year - 1, 1, 1);
    params.not_after = rcgen::date_time_ymd(year + years.clamp(1, 1000) as i32, 12, 31);
    let pair = KeyPair::generate()?;
    let certificate = params.self_signed(&pair)?;
    write(key, &pair.serialize_pem())?;
    write(cert, &certificate.pem())
}

fn write(path: &Path, pem: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(pem.as_bytes())?)
}
