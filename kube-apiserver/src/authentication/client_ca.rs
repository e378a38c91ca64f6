//! Verifies a client certificate against a CA bundle other than the listener's: the front proxy's.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};

pub struct ClientCa(Arc<dyn ClientCertVerifier>);

#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}; give a file with the CA certificates in PEM form")]
pub struct ClientCaError {
    pub path: String,
    pub reason: String,
}

impl ClientCa {
    pub fn load(path: &Path) -> Result<ClientCa, ClientCaError> {
        let error = |reason: String| ClientCaError { path: path.display().to_string(), reason };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| error(e.to_string()))? {
            roots.add(certificate.map_err(|e| error(e.to_string()))?).map_err(|e| error(e.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|e| error(e.to_string()))?;
        Ok(ClientCa(verifier))
    }

    /// `chain` is as the client sent it, leaf first.
    pub fn accepts(&self, chain: &[CertificateDer<'_>]) -> bool {
        chain.split_first().is_some_and(|(leaf, rest)| self.0.verify_client_cert(leaf, rest, UnixTime::now()).is_ok())
    }
}
