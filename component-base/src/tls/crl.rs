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

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod,
        KeyPair, RevokedCertParams, SerialNumber,
    };
    use time::{Duration, OffsetDateTime};

    use super::*;

    /// Its first bit makes DER write a zero before it.
    const SERIAL: &[u8] = &[0x80, 7];

    fn issuer() -> Issuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Issuer::new(params, KeyPair::generate().unwrap())
    }

    #[test]
    fn lists_are_read_in_pem_and_der_and_name_the_serial() {
        let (issuer, now) = (issuer(), OffsetDateTime::now_utc());
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: now + Duration::days(1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from_slice(SERIAL),
                revocation_time: now,
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&issuer).unwrap();
        let certificate = |serial: &[u8]| {
            let mut params = CertificateParams::new(vec!["a".to_owned()]).unwrap();
            params.serial_number = Some(SerialNumber::from_slice(serial));
            let key = KeyPair::generate().unwrap();
            params.signed_by(&key, &issuer).unwrap().der().clone()
        };
        let (revoked, good) = (certificate(SERIAL), certificate(&[7]));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("list");
        let twice = list.pem().unwrap().repeat(2).into_bytes();
        for bytes in [list.der().to_vec(), twice] {
            std::fs::write(&file, bytes).unwrap();
            let crl = Crl::load(&file).unwrap();
            assert_eq!(crl.check(std::slice::from_ref(&good)), Ok(()));
            let error = crl
                .check(&[good.clone(), revoked.clone()])
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with("transport: certificate serial 8007 revoked"),
                "{error}"
            );
        }
        for nonsense in [
            &b"nonsense"[..],
            b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
            b"",
        ] {
            std::fs::write(&file, nonsense).unwrap();
            let error = format!("{:#}", Crl::load(&file).unwrap_err());
            assert!(error.contains("no certificate revocation list"), "{error}");
        }
    }
}
