//! Certificates that their authority has taken back. Who made the list is not asked, as etcd does not: the file is the operator's.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use rustls_pki_types::CertificateDer;
use x509_parser::pem::Pem;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::x509::{Certificate, VerifyError};

const PEM_LABEL: &str = "X509 CRL";
const PEM_START: &[u8] = b"-----BEGIN";

/// The serial numbers of a file, which holds lists in PEM or one in DER.
#[derive(Debug)]
pub(super) struct Crl {
    file: PathBuf,
    revoked: HashSet<Vec<u8>>,
}

impl Crl {
    pub fn load(file: &Path) -> Result<Crl> {
        let bytes = std::fs::read(file).with_context(|| format!("open {}", file.display()))?;
        let revoked =
            read(&bytes).with_context(|| format!("{}: no certificate revocation list", file.display()))?;
        Ok(Crl {
            file: file.to_owned(),
            revoked,
        })
    }

    /// Whether all of a chain may still be used.
    pub fn check(&self, chain: &[CertificateDer<'_>]) -> Result<(), VerifyError> {
        for der in chain {
            let cert = Certificate::parse(der)?;
            let serial = number(cert.parsed.raw_serial());
            if self.revoked.contains(serial) {
                return Err(VerifyError::Revoked {
                    serial: serial.iter().map(|byte| format!("{byte:02x}")).collect(),
                    list: self.file.display().to_string(),
                });
            }
        }
        Ok(())
    }
}

fn read(bytes: &[u8]) -> Result<HashSet<Vec<u8>>> {
    if !bytes.trim_ascii_start().starts_with(PEM_START) {
        return serials(bytes);
    }
    let mut all = HashSet::new();
    let mut found = false;
    for block in Pem::iter_from_buffer(bytes) {
        let block = block?;
        if block.label == PEM_LABEL {
            found = true;
            all.extend(serials(&block.contents)?);
        }
    }
    found
        .then_some(all)
        .ok_or_else(|| anyhow!("it has no {PEM_LABEL} block"))
}

fn serials(der: &[u8]) -> Result<HashSet<Vec<u8>>> {
    let (_, list) = CertificateRevocationList::from_der(der)?;
    let revoked = list.iter_revoked_certificates();
    Ok(revoked.map(|item| number(item.raw_serial()).to_vec()).collect())
}

/// Without the zeros that DER writes before a number.
fn number(serial: &[u8]) -> &[u8] {
    let start = serial.iter().position(|byte| *byte != 0).unwrap_or(serial.len());
    &serial[start..]
}
