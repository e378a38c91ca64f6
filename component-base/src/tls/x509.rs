//! Go's certificate rules: chain to a CA, validity, signatures, usages, names. Pure: time is an argument.
//!
//! Differences from webpki that matter: version-1 leaves and roots are accepted, extended key usage binds only when
//! present, a leaf that is itself in the pool is trusted.

mod names;
mod signature;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate, X509Version};

pub use names::format_name;
pub(super) use signature::{verify_tls12, verify_tls13};

/// A chain longer than this is not followed.
const MAX_CHAIN: usize = 8;
/// Signature checks that one verification may cost; a peer chooses its intermediates.
const MAX_SIGNATURE_CHECKS: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    ClientAuth,
    ServerAuth,
}

/// Why a certificate is refused, in Go's words.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum VerifyError {
    #[error("x509: malformed certificate: {0}")]
    Malformed(String),
    #[error("x509: certificate signed by unknown authority")]
    UnknownAuthority,
    #[error(
        "x509: certificate signed by unknown authority (an authority of that name is known, but with another key)"
    )]
    OtherKey,
    #[error("x509: certificate has expired or is not yet valid: current time {now} is after {not_after}")]
    Expired { now: String, not_after: String },
    #[error("x509: certificate has expired or is not yet valid: current time {now} is before {not_before}")]
    NotYetValid { now: String, not_before: String },
    #[error("x509: certificate specifies an incompatible key usage (it lacks {0})")]
    Usage(&'static str),
    #[error("x509: certificate is not authorized to sign other certificates ({0})")]
    NotAuthority(String),
    #[error("x509: certificate relies on legacy Common Name field, use SANs instead")]
    LegacyCommonName,
    #[error("x509: cannot validate certificate for {0} because it doesn't contain any IP SANs")]
    NoIpNames(String),
    #[error("x509: certificate is valid for {valid}, not {wanted}")]
    WrongName { valid: String, wanted: String },
    #[error("x509: unhandled critical extension ({0})")]
    CriticalExtension(String),
    #[error("transport: certificate serial {serial} revoked (by {list})")]
    Revoked { serial: String, list: String },
    #[error("client certificate authentication failed: neither its common name nor its names are allowed")]
    NotAllowed,
    #[error("x509: too many signatures to check")]
    TooMuchWork,
}

/// What the refused peer offered.
#[derive(Clone, Debug, PartialEq)]
pub struct Offered {
    pub subject: String,
    pub issuer: String,
    pub names: Vec<String>,
    pub not_after: String,
    pub version: u32,
}

/// A refusal with all that is needed to mend it, on one line.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub error: VerifyError,
    pub offered: Option<Offered>,
    /// File of the CA, and the names of the authorities in it.
    pub ca: String,
    pub authorities: Vec<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        if let Some(offered) = &self.offered {
            let names = if offered.names.is_empty() {
                "none".to_owned()
            } else {
                offered.names.join(",")
            };
            write!(
                f,
                "; offered subject={:?} issuer={:?} sans={names} notAfter={}",
                offered.subject, offered.issuer, offered.not_after
            )?;
        }
        write!(
            f,
            "; trusted authorities from {}: {}; {}",
            self.ca,
            quoted(&self.authorities),
            self.remedy()
        )
    }
}

impl std::error::Error for Refusal {}

fn quoted(names: &[String]) -> String {
    names
        .iter()
        .map(|name| format!("{name:?}"))
        .collect::<Vec<_>>()
        .join(", ")
}

impl Refusal {
    fn remedy(&self) -> &'static str {
        match self.error {
            VerifyError::UnknownAuthority => {
                "issue the certificate from that CA, or give the CA file that signed it"
            }
            VerifyError::OtherKey => {
                "the CA was made anew under its old name: issue the certificate again, or distribute the new CA file"
            }
            VerifyError::Expired { .. } => "renew it: pki renew",
            VerifyError::NotYetValid { .. } => "check the clocks of both machines",
            VerifyError::Revoked { .. } => "issue another certificate",
            VerifyError::NotAllowed => "add it to the flag for allowed names, or issue one with such a name",
            VerifyError::Usage(_) => "issue it with a profile for this use: pki issue",
            VerifyError::LegacyCommonName | VerifyError::NoIpNames(_) | VerifyError::WrongName { .. } => {
                "issue it with this name or address as a SAN, or connect by a name that it has"
            }
            _ => "pki verify tells more",
        }
    }
}

/// A certificate with what verification asks of it, borrowed from its DER.
pub struct Certificate<'a> {
    pub parsed: X509Certificate<'a>,
    der: &'a [u8],
}

impl<'a> Certificate<'a> {
    pub fn parse(der: &'a [u8]) -> Result<Self, VerifyError> {
        let (rest, parsed) =
            X509Certificate::from_der(der).map_err(|error| VerifyError::Malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(VerifyError::Malformed("trailing data".to_owned()));
        }
        Ok(Certificate { parsed, der })
    }

    pub fn common_name(&self) -> String {
        self.parsed
            .subject()
            .iter_common_name()
            .last()
            .and_then(|name| name.as_str().ok())
            .unwrap_or("")
            .to_owned()
    }

    pub fn organizations(&self) -> Vec<String> {
        self.parsed
            .subject()
            .iter_organization()
            .filter_map(|name| name.as_str().ok())
            .map(str::to_owned)
            .collect()
    }

    pub fn subject(&self) -> String {
        format_name(self.parsed.subject())
    }

    pub fn issuer(&self) -> String {
        format_name(self.parsed.issuer())
    }

    pub fn is_version_1(&self) -> bool {
        self.parsed.version() == X509Version::V1
    }

    pub fn not_after(&self) -> OffsetDateTime {
        self.parsed.validity().not_after.to_datetime()
    }

    pub fn not_before(&self) -> OffsetDateTime {
        self.parsed.validity().not_before.to_datetime()
    }

    /// The whole SubjectPublicKeyInfo.
    pub fn spki(&self) -> &'a [u8] {
        self.parsed.tbs_certificate.subject_pki.raw
    }

    pub fn dns_names(&self) -> Vec<String> {
        names::dns(&self.parsed)
    }

    pub fn ip_addresses(&self) -> Vec<IpAddr> {
        names::addresses(&self.parsed)
    }

    pub fn offered(&self) -> Offered {
        let addresses = self.ip_addresses().into_iter().map(|address| address.to_string());
        Offered {
            subject: self.subject(),
            issuer: self.issuer(),
            names: self.dns_names().into_iter().chain(addresses).collect(),
            not_after: rfc3339(self.not_after()),
            version: self.parsed.version().0 + 1,
        }
    }

    fn check_time(&self, now: OffsetDateTime) -> Result<(), VerifyError> {
        if now > self.not_after() {
            return Err(VerifyError::Expired {
                now: rfc3339(now),
                not_after: rfc3339(self.not_after()),
            });
        }
        if now < self.not_before() {
            return Err(VerifyError::NotYetValid {
                now: rfc3339(now),
                not_before: rfc3339(self.not_before()),
            });
        }
        Ok(())
    }

    fn check_extensions(&self) -> Result<(), VerifyError> {
        for extension in self.parsed.extensions() {
            let known = matches!(
                extension.parsed_extension(),
                ParsedExtension::BasicConstraints(_)
                    | ParsedExtension::KeyUsage(_)
                    | ParsedExtension::ExtendedKeyUsage(_)
                    | ParsedExtension::SubjectAlternativeName(_)
            );
            if extension.critical && !known {
                return Err(VerifyError::CriticalExtension(extension.oid.to_id_string()));
            }
        }
        Ok(())
    }

    /// Absent means any use, as in Go.
    fn check_usage(&self, usage: Usage) -> Result<(), VerifyError> {
        let Ok(Some(extension)) = self.parsed.extended_key_usage() else {
            return Ok(());
        };
        let allowed = extension.value;
        match usage {
            _ if allowed.any => Ok(()),
            Usage::ClientAuth if allowed.client_auth => Ok(()),
            Usage::ServerAuth if allowed.server_auth => Ok(()),
            Usage::ClientAuth => Err(VerifyError::Usage("clientAuth")),
            Usage::ServerAuth => Err(VerifyError::Usage("serverAuth")),
        }
    }

    /// A version-1 root may sign, a version-3 one must say so; intermediates must always say so.
    fn check_authority(&self, intermediate: bool, below: usize) -> Result<(), VerifyError> {
        let refuse = || VerifyError::NotAuthority(self.subject());
        let version_3 = self.parsed.version() == X509Version::V3;
        match self.parsed.basic_constraints() {
            Ok(Some(constraints)) => {
                let too_long = constraints
                    .value
                    .path_len_constraint
                    .is_some_and(|most| below > most as usize);
                if !constraints.value.ca || too_long {
                    return Err(refuse());
                }
            }
            Ok(None) if version_3 || intermediate => return Err(refuse()),
            Ok(None) => {}
            Err(_) => return Err(refuse()),
        }
        match self.parsed.key_usage() {
            Ok(Some(usage)) if !usage.value.key_cert_sign() => Err(refuse()),
            Ok(_) => Ok(()),
            Err(_) => Err(refuse()),
        }
    }

    /// Whether the certificate may speak for the name or address.
    pub fn check_host(&self, host: &str) -> Result<(), VerifyError> {
        names::check(self, host)
    }
}

/// The authorities of one CA file.
#[derive(Clone)]
pub struct CertPool {
    certs: Arc<[CertificateDer<'static>]>,
    /// What messages call the source.
    pub source: String,
}

impl CertPool {
    pub fn new(source: impl Into<String>, certs: Vec<CertificateDer<'static>>) -> Self {
        CertPool {
            certs: certs.into(),
            source: source.into(),
        }
    }

    pub fn load(pem: &super::Pem) -> anyhow::Result<Self> {
        Ok(CertPool::new(pem.describe(), super::load_certs(pem)?))
    }

    pub fn certs(&self) -> &[CertificateDer<'static>] {
        &self.certs
    }

    /// Raw subjects, as servers hint them to clients.
    pub(super) fn subjects(&self) -> Vec<rustls::DistinguishedName> {
        let subject = |der: &CertificateDer<'_>| {
            Some(rustls::DistinguishedName::from(
                Certificate::parse(der).ok()?.parsed.subject().as_raw().to_vec(),
            ))
        };
        self.certs.iter().filter_map(subject).collect()
    }

    pub fn authorities(&self) -> Vec<String> {
        self.certs
            .iter()
            .filter_map(|der| Some(Certificate::parse(der).ok()?.subject()))
            .collect()
    }

    /// Verifies a leaf with the intermediates its peer sent.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        usage: Usage,
        now: OffsetDateTime,
    ) -> Result<(), Box<Refusal>> {
        let Some((leaf, rest)) = chain.split_first() else {
            return Err(Box::new(
                self.refusal(VerifyError::Malformed("no certificate".to_owned()), None),
            ));
        };
        self.check(leaf, rest, usage, now)
            .map_err(|error| Box::new(self.refusal(error, Some(leaf))))
    }

    pub fn refusal(&self, error: VerifyError, leaf: Option<&[u8]>) -> Refusal {
        let offered = leaf.and_then(|der| Some(Certificate::parse(der).ok()?.offered()));
        Refusal {
            error,
            offered,
            ca: self.source.clone(),
            authorities: self.authorities(),
        }
    }

    fn check(
        &self,
        leaf: &[u8],
        rest: &[CertificateDer<'_>],
        usage: Usage,
        now: OffsetDateTime,
    ) -> Result<(), VerifyError> {
        let leaf = Certificate::parse(leaf)?;
        leaf.check_extensions()?;
        leaf.check_time(now)?;
        leaf.check_usage(usage)?;
        if self.certs.iter().any(|root| root.as_ref() == leaf.der) {
            return Ok(());
        }
        let search = Search {
            roots: self
                .certs
                .iter()
                .filter_map(|der| Certificate::parse(der).ok())
                .collect(),
            intermediates: rest
                .iter()
                .take(MAX_CHAIN)
                .filter_map(|der| Certificate::parse(der).ok())
                .collect(),
            usage,
            now,
        };
        search.climb(&leaf, 0, &mut 0)
    }
}

/// Looks for a way from a leaf to a root.
struct Search<'a> {
    roots: Vec<Certificate<'a>>,
    intermediates: Vec<Certificate<'a>>,
    usage: Usage,
    now: OffsetDateTime,
}

impl Search<'_> {
    /// `below` counts the intermediates already under `child`.
    fn climb(&self, child: &Certificate<'_>, below: usize, checks: &mut usize) -> Result<(), VerifyError> {
        let mut why = VerifyError::UnknownAuthority;
        for (parent, intermediate) in self.parents_of(child) {
            *checks += 1;
            if *checks > MAX_SIGNATURE_CHECKS || below >= MAX_CHAIN {
                return Err(VerifyError::TooMuchWork);
            }
            let step = self.step(child, parent, intermediate, below);
            let reached = step.and_then(|()| {
                if intermediate {
                    self.climb(parent, below + 1, checks)
                } else {
                    Ok(())
                }
            });
            match reached {
                Ok(()) => return Ok(()),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    fn parents_of(&self, child: &Certificate<'_>) -> impl Iterator<Item = (&Certificate<'_>, bool)> {
        let issuer = child.parsed.issuer().as_raw().to_vec();
        let roots = self.roots.iter().map(|cert| (cert, false));
        let intermediates = self.intermediates.iter().map(|cert| (cert, true));
        roots
            .chain(intermediates)
            .filter(move |(cert, _)| cert.parsed.subject().as_raw() == issuer)
    }

    fn step(
        &self,
        child: &Certificate<'_>,
        parent: &Certificate<'_>,
        intermediate: bool,
        below: usize,
    ) -> Result<(), VerifyError> {
        signature::check_issued(&child.parsed, &parent.parsed)?;
        parent.check_authority(intermediate, below)?;
        parent.check_extensions()?;
        parent.check_time(self.now)?;
        parent.check_usage(self.usage)
    }
}

pub(crate) fn rfc3339(date: OffsetDateTime) -> String {
    let (year, month, day) = (date.year(), date.month() as u8, date.day());
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        date.hour(),
        date.minute(),
        date.second()
    )
}
