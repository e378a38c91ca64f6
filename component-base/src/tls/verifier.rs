//! The decisions of `x509` in the shapes that rustls asks for.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use time::OffsetDateTime;

use super::Allowed;
use super::crl::Crl;
use super::x509::{self, CertPool, Certificate, Refusal, Usage, VerifyError};

const SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];

fn date(now: UnixTime) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(now.as_secs() as i64).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn refused(refusal: Refusal) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
}

fn signature(
    cert: &CertificateDer<'_>,
    check: impl FnOnce(&Certificate<'_>) -> bool,
) -> Result<HandshakeSignatureValid, Error> {
    let cert =
        Certificate::parse(cert).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    match check(&cert) {
        true => Ok(HandshakeSignatureValid::assertion()),
        false => Err(Error::InvalidCertificate(CertificateError::BadSignature)),
    }
}

/// Both verifiers check handshake signatures alike.
macro_rules! handshake_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            signature(cert, |cert| {
                x509::verify_tls12(message, cert.parsed.public_key(), dss)
            })
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            signature(cert, |cert| {
                x509::verify_tls13(message, cert.parsed.public_key(), dss)
            })
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            SCHEMES.to_vec()
        }
    };
}

/// A server's view of its clients.
pub(super) struct ClientVerifier {
    pool: Arc<ArcSwap<CertPool>>,
    hints: Vec<DistinguishedName>,
    required: bool,
    crl: Option<Crl>,
    allowed: Allowed,
}

impl ClientVerifier {
    pub fn new(pool: Arc<ArcSwap<CertPool>>, required: bool, crl: Option<Crl>, allowed: Allowed) -> Self {
        let hints = pool.load().subjects();
        ClientVerifier {
            pool,
            hints,
            required,
            crl,
            allowed,
        }
    }

    /// What is asked of a chain that leads to an authority.
    fn admits(&self, chain: &[CertificateDer<'_>]) -> Result<(), VerifyError> {
        if let Some(crl) = &self.crl {
            crl.check(chain)?;
        }
        self.allowed.check(&chain[0])
    }
}

impl std::fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientVerifier")
            .field("required", &self.required)
            .finish_non_exhaustive()
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    /// When certificates are optional the verdict is taken after the handshake, see `ClientIdentity`.
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.required {
            let chain: Vec<CertificateDer<'_>> = std::iter::once(end_entity)
                .chain(intermediates)
                .cloned()
                .collect();
            self.pool
                .load()
                .verify(&chain, Usage::ClientAuth, date(now))
                .map_err(|refusal| refused(*refusal))?;
            self.admits(&chain)
                .map_err(|error| refused(self.pool.load().refusal(error, Some(end_entity))))?;
        }
        Ok(ClientCertVerified::assertion())
    }

    handshake_signatures!();
}

/// A client's view of its server.
pub(super) struct ServerVerifier {
    pub pool: CertPool,
    /// Verified instead of the name that was connected to.
    pub server_name: Option<String>,
    pub insecure: bool,
    pub allowed: Allowed,
}

impl std::fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerVerifier")
            .field("insecure", &self.insecure)
            .finish_non_exhaustive()
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.insecure {
            return Ok(ServerCertVerified::assertion());
        }
        let chain: Vec<CertificateDer<'_>> = std::iter::once(end_entity)
            .chain(intermediates)
            .cloned()
            .collect();
        self.pool
            .verify(&chain, Usage::ServerAuth, date(now))
            .map_err(|refusal| refused(*refusal))?;
        let connected = server_name.to_str();
        let host = self.server_name.as_deref().unwrap_or(&connected);
        let named = Certificate::parse(end_entity)
            .and_then(|cert| cert.check_host(host))
            .and_then(|()| self.allowed.check(end_entity));
        named.map_err(|error| refused(self.pool.refusal(error, Some(end_entity))))?;
        Ok(ServerCertVerified::assertion())
    }

    handshake_signatures!();
}
