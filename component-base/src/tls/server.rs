//! The server's side: certificate, client CA, and who the client turned out to be.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::sign::SingleCertAndKey;
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use super::address::is_at;
use super::crl::Crl;
use super::verifier::ClientVerifier;
use super::x509::{CertPool, Certificate, Usage};
use super::{Allowed, ClientAuth, MinVersion, Pem, load_key_pair, suites};
use crate::metrics::{self, Counter};
use crate::watch::{self, FileWatch};

static RELOADS: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "ferrokube_tls_reload_total",
        "Reloads of changed certificate, key and CA files.",
        &["file", "result"],
    )
});

/// Expiry is warned about at these distances when a certificate is loaded.
const EXPIRY_WARNING_DAYS: i64 = 30;

/// What a server needs to speak TLS.
#[derive(Clone, Debug)]
pub struct ServerTls {
    pub cert: Pem,
    pub key: Pem,
    pub client_ca_file: Option<PathBuf>,
    pub client_auth: ClientAuth,
    /// Empty for h2 and http/1.1.
    pub alpn: Vec<Vec<u8>>,
    pub min_version: MinVersion,
    /// TLS 1.3 is not offered.
    pub at_most_tls12: bool,
    /// Go's names; empty for all.
    pub cipher_suites: Vec<String>,
    /// Required certificates that it lists are refused.
    pub crl_file: Option<PathBuf>,
    /// Of required certificates.
    pub allowed: Allowed,
    /// A client must be at an address that its certificate names, if that names any.
    pub binds_clients: bool,
}

impl ServerTls {
    pub fn new(cert_file: impl Into<PathBuf>, key_file: impl Into<PathBuf>) -> Self {
        Self::from_pem(Pem::File(cert_file.into()), Pem::File(key_file.into()))
    }

    pub fn from_pem(cert: Pem, key: Pem) -> Self {
        ServerTls {
            cert,
            key,
            client_ca_file: None,
            client_auth: ClientAuth::None,
            alpn: super::alpn::both(),
            min_version: MinVersion::default(),
            at_most_tls12: false,
            cipher_suites: Vec::new(),
            crl_file: None,
            allowed: Allowed::default(),
            binds_clients: false,
        }
    }

    pub fn client_ca(mut self, file: impl Into<PathBuf>, auth: ClientAuth) -> Self {
        self.client_ca_file = Some(file.into());
        self.client_auth = auth;
        self
    }

    /// Reads everything now, and again whenever a file changes.
    pub fn load(self) -> Result<ServerConfigHandle> {
        let client_ca = self
            .client_ca_file
            .as_deref()
            .map(CaBundle::load)
            .transpose()
            .context("client CA")?;
        let config = Arc::new(ArcSwap::new(self.build(client_ca.as_ref())?));
        let (ca_file, crl_file) = (self.client_ca_file.as_deref(), self.crl_file.as_deref());
        let paths = [self.cert.path(), self.key.path(), ca_file, crl_file];
        let paths = paths.into_iter().flatten().map(Path::to_path_buf).collect();
        let reload = (config.clone(), client_ca.clone());
        let (name, binds_clients) = (self.cert.describe(), self.binds_clients);
        let watch = watch::files(paths, move || {
            let (config, client_ca) = &reload;
            if let Some(bundle) = client_ca {
                bundle.reload();
            }
            swap(&name, self.build(client_ca.as_ref()), config);
        });
        Ok(ServerConfigHandle {
            config,
            client_ca,
            binds_clients,
            _watch: Arc::new(watch),
        })
    }

    fn versions(&self) -> &'static [&'static rustls::SupportedProtocolVersion] {
        match self.at_most_tls12 {
            true => suites::ONLY_12,
            false => suites::versions(self.min_version),
        }
    }

    fn build(&self, client_ca: Option<&CaBundle>) -> Result<Arc<ServerConfig>> {
        let pair = load_key_pair(&self.cert, &self.key)?;
        warn_of_expiry(&self.cert.describe(), &pair.certified.cert[0]);
        let builder = ServerConfig::builder_with_provider(suites::provider(&self.cipher_suites)?)
            .with_protocol_versions(self.versions())
            .context("cipher suites do not fit the TLS versions")?;
        let builder = match (client_ca, self.client_auth) {
            (Some(bundle), ClientAuth::Optional | ClientAuth::Required) => {
                let required = self.client_auth == ClientAuth::Required;
                let crl = self.crl_file.as_deref().map(Crl::load).transpose()?;
                let pool = bundle.pool.clone();
                let verifier = ClientVerifier::new(pool, required, crl, self.allowed.clone());
                builder.with_client_cert_verifier(Arc::new(verifier))
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair.certified)));
        config.alpn_protocols = if self.alpn.is_empty() {
            super::alpn::both()
        } else {
            self.alpn.clone()
        };
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }
}

/// Publishes a rebuilt config; a broken one leaves the old in place.
pub(super) fn swap<T>(name: &str, built: Result<Arc<T>>, target: &ArcSwap<T>) {
    match built {
        Ok(config) => {
            target.store(config);
            RELOADS.with(&[name, "success"]).inc();
            tracing::info!(file = name, "Reloaded certificates");
        }
        Err(error) => {
            RELOADS.with(&[name, "failure"]).inc();
            tracing::error!(file = name, err = %format!("{error:#}"), "Changed certificates cannot be used, the previous ones stay");
        }
    }
}

pub(super) fn warn_of_expiry(file: &str, der: &[u8]) {
    let Ok(cert) = Certificate::parse(der) else { return };
    let left = (cert.not_after() - OffsetDateTime::now_utc()).whole_days();
    if left < EXPIRY_WARNING_DAYS {
        let not_after = super::x509::rfc3339(cert.not_after());
        tracing::warn!(file, not_after = %not_after, days_left = left, "Certificate expires soon, renew it: pki renew");
    }
}

/// Follows the files on disk. Cheap to clone.
#[derive(Clone)]
pub struct ServerConfigHandle {
    config: Arc<ArcSwap<ServerConfig>>,
    client_ca: Option<CaBundle>,
    binds_clients: bool,
    _watch: Arc<FileWatch>,
}

impl ServerConfigHandle {
    pub fn current(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    pub fn client_ca(&self) -> Option<&CaBundle> {
        self.client_ca.as_ref()
    }

    /// Whether a client may come from there; a reason when it may not.
    pub async fn admits(&self, client: Option<&ClientIdentity>, address: IpAddr) -> Result<(), String> {
        match client.filter(|_| self.binds_clients) {
            Some(client) => is_at(client, address).await,
            None => Ok(()),
        }
    }

    /// Who the peer of a finished handshake is.
    pub fn identify(&self, chain: &[CertificateDer<'_>]) -> Option<Arc<ClientIdentity>> {
        let mut identity = ClientIdentity::parse(chain)?;
        identity.verified = match &self.client_ca {
            Some(bundle) => bundle.verify_client(&identity.chain),
            None => Err("no client CA is configured".to_owned()),
        };
        Some(Arc::new(identity))
    }
}

/// A CA file that is read again when it changes.
#[derive(Clone)]
pub struct CaBundle {
    pool: Arc<ArcSwap<CertPool>>,
    source: Pem,
    _watch: Option<Arc<FileWatch>>,
}

impl CaBundle {
    /// Follows changes only through [`CaBundle::reload`]; see [`CaBundle::watch`].
    fn load(path: &Path) -> Result<Self> {
        let source = Pem::File(path.to_path_buf());
        let pool = Arc::new(ArcSwap::from_pointee(CertPool::load(&source)?));
        Ok(CaBundle {
            pool,
            source,
            _watch: None,
        })
    }

    /// For a CA that no server config holds, such as the front proxy's.
    pub fn watch(path: &Path) -> Result<Self> {
        let mut bundle = Self::load(path)?;
        let followed = bundle.clone();
        bundle._watch = Some(Arc::new(watch::files(vec![path.to_path_buf()], move || {
            followed.reload()
        })));
        Ok(bundle)
    }

    fn reload(&self) {
        swap(
            &self.source.describe(),
            CertPool::load(&self.source).map(Arc::new),
            &self.pool,
        );
    }

    pub fn pool(&self) -> Arc<CertPool> {
        self.pool.load_full()
    }

    /// The refusal as one line.
    pub fn verify_client(&self, chain: &[CertificateDer<'_>]) -> Result<(), String> {
        self.pool
            .load()
            .verify(chain, Usage::ClientAuth, OffsetDateTime::now_utc())
            .map_err(|refusal| refusal.to_string())
    }
}

/// The client certificate of a connection. Only trust it when `verified` is Ok.
#[derive(Clone, Debug)]
pub struct ClientIdentity {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub serial: String,
    pub not_after: OffsetDateTime,
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Against the server's client CA; the reason in one line.
    pub verified: Result<(), String>,
}

impl ClientIdentity {
    /// Parses without verifying.
    pub fn parse(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let cert = Certificate::parse(chain.first()?).ok()?;
        Some(ClientIdentity {
            common_name: cert.common_name(),
            organizations: cert.organizations(),
            dns_names: cert.dns_names(),
            serial: cert.parsed.raw_serial_as_string(),
            not_after: cert.not_after(),
            chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
            verified: Err("not verified".to_owned()),
        })
    }

    pub fn der(&self) -> &[u8] {
        &self.chain[0]
    }
}
