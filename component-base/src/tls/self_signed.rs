//! The certificate that a server makes for itself when it is given none.
//!
//! Nobody can verify it: it encrypts, and a client has to skip verification or pin it.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use super::Pem;

/// Long, because nothing renews it while the daemon runs.
const VALIDITY_YEARS: i64 = 10;
const YEAR: Duration = Duration::days(365);
/// A peer's clock may be behind.
const CLOCK_SKEW: Duration = Duration::hours(1);

/// Certificate and key of a server whose flags name none. `pair_name` is upstream's base name of the files in
/// `cert_dir`: a pair that lies there is used and never overwritten. With an empty `cert_dir` nothing is written.
pub fn self_signed(
    cert_dir: &str,
    pair_name: &str,
    host: &str,
    alternate_names: &[&str],
) -> Result<(Pem, Pem)> {
    let wanted = SelfSigned {
        host,
        alternate_names,
        years: VALIDITY_YEARS,
        for_clients: false,
    };
    if cert_dir.is_empty() {
        tracing::info!("Generated a self-signed certificate in memory");
        let (cert, key) = wanted.make()?;
        return Ok((Pem::Data(cert.into_bytes()), Pem::Data(key.into_bytes())));
    }
    let dir = Path::new(cert_dir);
    let cert = dir.join(format!("{pair_name}.crt"));
    wanted
        .pair(cert, dir.join(format!("{pair_name}.key")))
        .context("--cert-dir")
}

/// What a pair that does not exist yet is to be like.
pub struct SelfSigned<'a> {
    pub host: &'a str,
    pub alternate_names: &'a [&'a str],
    pub years: i64,
    /// Also for connections that its owner makes.
    pub for_clients: bool,
}

impl SelfSigned<'_> {
    /// A pair that lies there is used and never overwritten.
    pub fn pair(&self, cert: PathBuf, key: PathBuf) -> Result<(Pem, Pem)> {
        match (cert.exists(), key.exists()) {
            (true, true) => {}
            (false, false) => keep((&cert, &key), self.make()?)?,
            (has_cert, _) => {
                let (there, missing) = if has_cert { (&cert, &key) } else { (&key, &cert) };
                anyhow::bail!(
                    "there is {} but not {}: put both there, or remove the first and a self-signed pair is made",
                    there.display(),
                    missing.display()
                );
            }
        }
        Ok((Pem::File(cert), Pem::File(key)))
    }

    fn make(&self) -> Result<(String, String)> {
        make(self).context("cannot make a self-signed certificate")
    }
}

/// PEM of certificate and key, as upstream's `GenerateSelfSignedCertKey` names them.
fn make(wanted: &SelfSigned<'_>) -> Result<(String, String)> {
    let SelfSigned {
        host,
        alternate_names,
        ..
    } = wanted;
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{host}@{}", now.unix_timestamp()));
    for name in std::iter::once(host).chain(*alternate_names) {
        let name = subject_alt_name(name)?;
        if !is_unspecified(&name) && !params.subject_alt_names.contains(&name) {
            params.subject_alt_names.push(name);
        }
    }
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + YEAR * wanted.years as i32;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    if wanted.for_clients {
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn subject_alt_name(name: &str) -> Result<SanType> {
    Ok(match name.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(name.try_into().with_context(|| format!("{name:?}"))?),
    })
}

/// Of a `--bind-address` that means all of them.
fn is_unspecified(name: &SanType) -> bool {
    matches!(name, SanType::IpAddress(address) if address.is_unspecified())
}

/// The key first: a certificate without its key would stop the next start.
fn keep((cert, key): (&Path, &Path), (cert_pem, key_pem): (String, String)) -> Result<()> {
    if let Some(dir) = cert.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(dir)
            .with_context(|| format!("cannot make {}", dir.display()))?;
    }
    write(key, &key_pem, 0o600)?;
    write(cert, &cert_pem, 0o644)?;
    tracing::info!(cert = %cert.display(), key = %key.display(), "Generated a self-signed certificate");
    Ok(())
}

fn write(path: &Path, pem: &str, mode: u32) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(pem.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::{Certificate, ServerTls, load_certs, load_key_pair};
    use super::*;

    fn names(cert: &Pem) -> (String, Vec<String>) {
        let certs = load_certs(cert).unwrap();
        let cert = Certificate::parse(&certs[0]).unwrap();
        (cert.common_name(), cert.dns_names())
    }

    #[test]
    fn without_a_directory_nothing_is_written_and_a_server_can_use_it() {
        let (cert, key) =
            self_signed("", "kubelet", "localhost", &["0.0.0.0", "::1", "node-1", "::1"]).unwrap();
        assert!(matches!((&cert, &key), (Pem::Data(_), Pem::Data(_))));
        load_key_pair(&cert, &key).unwrap();
        let (common_name, dns) = names(&cert);
        assert!(common_name.starts_with("localhost@"), "{common_name}");
        assert_eq!(dns, ["localhost", "node-1"]);
        ServerTls::from_pem(cert, key).load().unwrap();
    }

    #[test]
    fn a_pair_in_the_directory_is_kept() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("deep/pki");
        let made = || self_signed(dir.to_str().unwrap(), "kubelet", "node-1", &[]).unwrap();
        let (cert, key) = made();
        let first = cert.read().unwrap();
        made();
        assert_eq!(cert.read().unwrap(), first);
        assert_eq!(cert.path().unwrap(), dir.join("kubelet.crt"));
        let mode = std::fs::metadata(key.path().unwrap())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn half_a_pair_is_an_error_that_names_both_files() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::write(tmp.path().join("kubelet.crt"), "mine").unwrap();
        let error = self_signed(tmp.path().to_str().unwrap(), "kubelet", "n", &[]).unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("--cert-dir") && text.contains("kubelet.crt") && text.contains("kubelet.key"),
            "{text}"
        );
        assert_eq!(std::fs::read(tmp.path().join("kubelet.crt")).unwrap(), b"mine");
    }
}
