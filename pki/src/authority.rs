//! A certificate authority: made once, or adopted as it lies there (also RSA ones that openssl or kubeadm made).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use component_base::tls::{self, CertPool, Certificate, Pem};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::key::{Algorithm, Key};
use crate::profiles::{self, AltNames};
use crate::store;

/// Clocks of other machines may be behind.
const BACKDATE: time::Duration = time::Duration::minutes(5);

pub struct Authority {
    pub name: &'static str,
    pub der: CertificateDer<'static>,
    pub pem: String,
    /// None for a CA whose key is kept elsewhere.
    key: Option<Key>,
}

/// What a leaf certificate is to say.
pub struct Request<'a> {
    pub common_name: &'a str,
    pub organizations: &'a [String],
    pub names: &'a AltNames,
    pub server: bool,
    pub client: bool,
    pub validity: Duration,
}

/// How an authority came to be there.
#[derive(PartialEq)]
pub enum Origin {
    Made,
    Adopted,
}

impl Authority {
    /// Adopts what lies there, or makes a new one. A certificate without key is adopted too; a key without certificate gets one.
    pub fn ensure(
        row: &'static profiles::Authority,
        cert_dir: &Path,
        algorithm: Algorithm,
        validity: Duration,
    ) -> Result<(Self, Origin)> {
        let base = cert_dir.join(row.path);
        if store::crt(&base).exists() {
            return Ok((Self::load(row, cert_dir)?, Origin::Adopted));
        }
        let key = Key::ensure(&store::key(&base), algorithm)?;
        let pem = self_signed(row.common_name, &key, validity)?;
        store::write_new(&store::crt(&base), &pem, store::PUBLIC)?;
        Ok((Self::load(row, cert_dir)?, Origin::Made))
    }

    pub fn load(row: &'static profiles::Authority, cert_dir: &Path) -> Result<Self> {
        let base = cert_dir.join(row.path);
        let (crt, key) = (store::crt(&base), store::key(&base));
        let pem = std::fs::read_to_string(&crt).with_context(|| crt.display().to_string())?;
        let der = tls::load_certs(&Pem::File(crt.clone()))?.remove(0);
        let key = key.exists().then(|| Key::load(&key)).transpose()?;
        let parsed = Certificate::parse(&der)?;
        if key.as_ref().is_some_and(|key| key.spki() != parsed.spki()) {
            bail!(
                "{}: the key beside it belongs to another certificate",
                crt.display()
            );
        }
        if parsed.not_after() < OffsetDateTime::now_utc() {
            bail!(
                "{}: the authority has expired; make a new one under another name, or move it away and run pki init",
                crt.display()
            );
        }
        Ok(Authority {
            name: row.name,
            der,
            pem,
            key,
        })
    }

    pub fn is_external(&self) -> bool {
        self.key.is_none()
    }

    pub fn pool(&self) -> CertPool {
        CertPool::new(format!("{}.crt", self.name), vec![self.der.clone()])
    }

    /// Signs; the PEM of the certificate.
    pub fn issue(&self, request: &Request<'_>, key: &Key) -> Result<String> {
        let Some(signing) = &self.key else {
            bail!(
                "the key of authority {} is not here (an external CA): sign {:?} where it is, and put certificate and key here",
                self.name,
                request.common_name
            )
        };
        let issuer = Issuer::from_ca_cert_der(&self.der, signing)
            .with_context(|| format!("authority {}", self.name))?;
        let ca_end = Certificate::parse(&self.der)?.not_after();
        let certificate = parameters(request, ca_end)?
            .signed_by(&key, &issuer)
            .with_context(|| format!("signing {:?}", request.common_name))?;
        Ok(certificate.pem())
    }
}

fn parameters(request: &Request<'_>, ca_end: OffsetDateTime) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(request.common_name, request.organizations);
    params.subject_alt_names = alt_names(request.names)?;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    let usages = [
        (request.server, ExtendedKeyUsagePurpose::ServerAuth),
        (request.client, ExtendedKeyUsagePurpose::ClientAuth),
    ];
    params.extended_key_usages = usages
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .map(|(_, usage)| usage)
        .collect();
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial());
    let now = now();
    params.not_before = now - BACKDATE;
    // A leaf that outlives its authority only looks as if it were valid.
    params.not_after = (now + request.validity).min(ca_end);
    Ok(params)
}

fn self_signed(common_name: &str, key: &Key, validity: Duration) -> Result<String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(common_name, &[]);
    params.subject_alt_names = vec![SanType::DnsName(common_name.try_into()?)];
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
    ];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.serial_number = Some(serial());
    let now = now();
    params.not_before = now - BACKDATE;
    params.not_after = now + validity;
    Ok(params.self_signed(&key)?.pem())
}

/// Certificates carry whole seconds.
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
        .replace_nanosecond(0)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Organizations first, as Go orders them.
fn subject(common_name: &str, organizations: &[String]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    organizations
        .iter()
        .for_each(|organization| name.push(DnType::OrganizationName, organization.as_str()));
    name.push(DnType::CommonName, common_name);
    name
}

fn alt_names(names: &AltNames) -> Result<Vec<SanType>> {
    let dns = names
        .dns
        .iter()
        .map(|name| Ok(SanType::DnsName(name.as_str().try_into()?)));
    let addresses = names
        .addresses
        .iter()
        .map(|address| Ok(SanType::IpAddress(*address)));
    dns.chain(addresses).collect()
}

/// Random and positive: a renewed certificate must not share the serial of the one before.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}
