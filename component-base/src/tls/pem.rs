//! Certificates and keys from PEM, with errors that name the file.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Pem;
use super::x509::Certificate;

impl Pem {
    pub fn read(&self) -> Result<Vec<u8>> {
        match self {
            Pem::File(path) => std::fs::read(path).with_context(|| format!("open {}", path.display())),
            Pem::Data(data) => Ok(data.clone()),
        }
    }

    /// How messages call it.
    pub fn describe(&self) -> String {
        match self {
            Pem::File(path) => path.display().to_string(),
            Pem::Data(_) => "inline data".to_owned(),
        }
    }

    pub fn path(&self) -> Option<&Path> {
        match self {
            Pem::File(path) => Some(path),
            Pem::Data(_) => None,
        }
    }
}

/// Every CERTIFICATE block; none is an error.
pub fn load_certs(pem: &Pem) -> Result<Vec<CertificateDer<'static>>> {
    let text = pem.read()?;
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certs = certs.map_err(|error| anyhow::anyhow!("{}: not valid PEM: {error}", pem.describe()))?;
    if certs.is_empty() {
        bail!(
            "{}: data does not contain any valid RSA or ECDSA certificates",
            pem.describe()
        );
    }
    for der in &certs {
        Certificate::parse(der).with_context(|| pem.describe())?;
    }
    Ok(certs)
}

/// The first private key: PKCS#8, PKCS#1 or SEC1.
pub fn load_key(pem: &Pem) -> Result<Arc<dyn SigningKey>> {
    let text = pem.read()?;
    if text.windows(9).any(|window| window == b"ENCRYPTED") {
        bail!(
            "{}: the private key is encrypted; decrypt it with: openssl pkey -in {0} -out {0}.plain",
            pem.describe()
        );
    }
    let der = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|error| anyhow::anyhow!("{}: no usable private key: {error}", pem.describe()))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&der);
    key.map_err(|_| {
        anyhow::anyhow!(
            "{}: the private key is neither RSA (2048 bits or more), ECDSA P-256 or P-384, nor Ed25519",
            pem.describe()
        )
    })
}

/// A certificate chain with its key, known to belong together.
#[derive(Clone)]
pub struct KeyPair {
    pub certified: Arc<CertifiedKey>,
}

pub fn load_key_pair(cert: &Pem, key: &Pem) -> Result<KeyPair> {
    let chain = load_certs(cert)?;
    let signing = load_key(key)?;
    let leaf = Certificate::parse(&chain[0]).with_context(|| cert.describe())?;
    if signing
        .public_key()
        .is_some_and(|public| public.as_ref() != leaf.spki())
    {
        bail!(
            "tls: private key does not match public key: {} was not made with {}",
            cert.describe(),
            key.describe()
        );
    }
    // CertifiedKey::from_der would refuse version-1 certificates.
    Ok(KeyPair {
        certified: Arc::new(CertifiedKey::new(chain, signing)),
    })
}
