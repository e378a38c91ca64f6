//! The client's side: CA, own certificate, server name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use rustls::ClientConfig;
use rustls::sign::SingleCertAndKey;

use super::server::{swap, warn_of_expiry};
use super::verifier::ServerVerifier;
use super::{Allowed, CertPool, MinVersion, Pem, load_certs, load_key_pair, suites};
use crate::watch::{self, FileWatch};

/// Where Debian, Fedora and Alpine keep the system's authorities; used when no CA is given.
const SYSTEM_CA_FILES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// What a client needs to speak TLS.
#[derive(Clone, Debug, Default)]
pub struct ClientTls {
    /// None for the system's authorities.
    pub ca: Option<Pem>,
    /// Certificate and key.
    pub cert: Option<(Pem, Pem)>,
    /// Accepts any server.
    pub insecure: bool,
    /// Verified instead of the host that is connected to.
    pub server_name: Option<String>,
    /// Empty for h2 and http/1.1.
    pub alpn: Vec<Vec<u8>>,
}

impl ClientTls {
    /// Reads everything now, and again whenever a file changes.
    pub fn load(self) -> Result<ClientConfigHandle> {
        self.load_for(Allowed::default())
    }

    /// Of the servers that verify only those that are allowed.
    pub fn load_for(self, allowed: Allowed) -> Result<ClientConfigHandle> {
        let config = Arc::new(ArcSwap::new(self.build(&allowed)?));
        let paths = self.paths();
        if paths.is_empty() {
            return Ok(ClientConfigHandle { config, _watch: None });
        }
        let target = config.clone();
        let name = paths[0].display().to_string();
        let watch = watch::files(paths, move || swap(&name, self.build(&allowed), &target));
        Ok(ClientConfigHandle {
            config,
            _watch: Some(Arc::new(watch)),
        })
    }

    fn paths(&self) -> Vec<PathBuf> {
        let pair = self.cert.as_ref().map(|(cert, key)| [cert, key]);
        let pems = self.ca.iter().chain(pair.into_iter().flatten());
        pems.filter_map(Pem::path).map(Path::to_path_buf).collect()
    }

    fn build(&self, allowed: &Allowed) -> Result<Arc<ClientConfig>> {
        let verifier = ServerVerifier {
            pool: self.pool()?,
            server_name: self.server_name.clone(),
            insecure: self.insecure,
            allowed: allowed.clone(),
        };
        let builder = ClientConfig::builder_with_provider(suites::provider(&[])?)
            .with_protocol_versions(suites::versions(MinVersion::Tls12))
            .context("TLS versions")?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.cert {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let pair = load_key_pair(cert, key)?;
                warn_of_expiry(&cert.describe(), &pair.certified.cert[0]);
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair.certified)))
            }
        };
        config.alpn_protocols = if self.alpn.is_empty() {
            super::alpn::both()
        } else {
            self.alpn.clone()
        };
        Ok(Arc::new(config))
    }

    fn pool(&self) -> Result<CertPool> {
        match &self.ca {
            Some(pem) => CertPool::load(pem),
            None if self.insecure => Ok(CertPool::new("none", Vec::new())),
            None => Ok(system_pool()),
        }
    }
}

/// Without any system file nothing is trusted, and the refusal says so.
fn system_pool() -> CertPool {
    let found = SYSTEM_CA_FILES.iter().find(|file| Path::new(file).exists());
    let load = |file: &&'static str| Some(CertPool::new(*file, load_certs(&Pem::File(file.into())).ok()?));
    found
        .and_then(load)
        .unwrap_or_else(|| CertPool::new("the system (no CA file found)", Vec::new()))
}

/// Follows the files on disk. Cheap to clone.
#[derive(Clone)]
pub struct ClientConfigHandle {
    config: Arc<ArcSwap<ClientConfig>>,
    _watch: Option<Arc<FileWatch>>,
}

impl ClientConfigHandle {
    pub fn current(&self) -> Arc<ClientConfig> {
        self.config.load_full()
    }
}
