//! Signs requests with the cluster's CA.

use crate::options::SigningPair;
use component_base::tls::{self, Pem};
use rcgen::{
    CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose, PublicKeyData,
    SerialNumber, SignatureAlgorithm,
};
use rustls::SignatureScheme;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Clocks of clients may be behind.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// Shorter certificates keep their whole time after being backdated.
const SHORT: Duration = Duration::from_secs(8 * 3600);
/// Nobody gets less, whatever they ask for.
const SHORTEST: Duration = Duration::from_secs(10 * 60);

pub fn duration(asked: Option<i32>, longest: Duration) -> Duration {
    let asked = asked.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).max(SHORTEST));
    asked.map_or(longest, |asked| asked.min(longest))
}

/// The files are read each time: they may have been renewed, and requests are few.
pub fn sign(
    pair: &SigningPair,
    csr_pem: &str,
    usages: &[String],
    lifetime: Duration,
) -> Result<String, String> {
    let ca_pem =
        std::fs::read_to_string(&pair.cert_file).map_err(|e| format!("{}: {e}", pair.cert_file.display()))?;
    let key = Key::load(pair)?;
    let issuer =
        Issuer::from_ca_cert_pem(&ca_pem, &key).map_err(|e| format!("{}: {e}", pair.cert_file.display()))?;
    let mut request = CertificateSigningRequestParams::from_pem(csr_pem)
        .map_err(|e| format!("unable to parse certificate request: {e}"))?;
    let params = &mut request.params;
    (params.key_usages, params.extended_key_usages) = purposes(usages)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (not_before, not_after) = validity(now, lifetime, end_of(&ca_pem)?)?;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    (params.not_before, params.not_after) = (epoch + not_before, epoch + not_after);
    Ok(request
        .signed_by(&issuer)
        .map_err(|e| format!("failed to sign certificate: {e}"))?
        .pem())
}

/// Nothing outlives its signer. All times count from 1970.
fn validity(now: Duration, lifetime: Duration, ca_end: Duration) -> Result<(Duration, Duration), String> {
    if now >= ca_end {
        return Err(format!("the signer has expired: NotAfter={}", ca_end.as_secs()));
    }
    let end = if lifetime < SHORT {
        now + lifetime
    } else {
        now + lifetime - BACKDATE
    };
    Ok((now.saturating_sub(BACKDATE), end.min(ca_end)))
}

fn end_of(ca_pem: &str) -> Result<Duration, String> {
    let (_, pem) = parse_x509_pem(ca_pem.as_bytes()).map_err(|e| e.to_string())?;
    let certificate = pem.parse_x509().map_err(|e| e.to_string())?;
    Ok(Duration::from_secs(
        u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0),
    ))
}

/// Positive, and of full length.
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from(bytes.to_vec())
}

fn purposes(usages: &[String]) -> Result<(Vec<KeyUsagePurpose>, Vec<ExtendedKeyUsagePurpose>), String> {
    let (mut basic, mut extended) = (Vec::new(), Vec::new());
    for usage in usages {
        match (key_usage(usage), extended_usage(usage)) {
            (Some(purpose), _) if !basic.contains(&purpose) => basic.push(purpose),
            (None, Some(purpose)) if !extended.contains(&purpose) => extended.push(purpose),
            (None, None) => return Err(format!("unrecognized usage values: [{usage:?}]")),
            _ => {}
        }
    }
    Ok((basic, extended))
}

fn key_usage(usage: &str) -> Option<KeyUsagePurpose> {
    Some(match usage {
        "signing" | "digital signature" => KeyUsagePurpose::DigitalSignature,
        "content commitment" => KeyUsagePurpose::ContentCommitment,
        "key encipherment" => KeyUsagePurpose::KeyEncipherment,
        "key agreement" => KeyUsagePurpose::KeyAgreement,
        "data encipherment" => KeyUsagePurpose::DataEncipherment,
        "cert sign" => KeyUsagePurpose::KeyCertSign,
        "crl sign" => KeyUsagePurpose::CrlSign,
        "encipher only" => KeyUsagePurpose::EncipherOnly,
        "decipher only" => KeyUsagePurpose::DecipherOnly,
        _ => return None,
    })
}

fn extended_usage(usage: &str) -> Option<ExtendedKeyUsagePurpose> {
    let other = |oid: &[u64]| ExtendedKeyUsagePurpose::Other(oid.to_vec());
    Some(match usage {
        "any" => ExtendedKeyUsagePurpose::Any,
        "server auth" => ExtendedKeyUsagePurpose::ServerAuth,
        "client auth" => ExtendedKeyUsagePurpose::ClientAuth,
        "code signing" => ExtendedKeyUsagePurpose::CodeSigning,
        "email protection" | "s/mime" => ExtendedKeyUsagePurpose::EmailProtection,
        "timestamping" => ExtendedKeyUsagePurpose::TimeStamping,
        "ocsp signing" => ExtendedKeyUsagePurpose::OcspSigning,
        "ipsec end system" => other(&[1, 3, 6, 1, 5, 5, 7, 3, 5]),
        "ipsec tunnel" => other(&[1, 3, 6, 1, 5, 5, 7, 3, 6]),
        "ipsec user" => other(&[1, 3, 6, 1, 5, 5, 7, 3, 7]),
        "microsoft sgc" => other(&[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
        "netscape sgc" => other(&[2, 16, 840, 1, 113_730, 4, 1]),
        _ => return None,
    })
}

/// The CA's key in any form that openssl or kubeadm writes.
struct Key {
    signing: Arc<dyn rustls::sign::SigningKey>,
    public: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
    scheme: SignatureScheme,
}

impl Key {
    fn load(pair: &SigningPair) -> Result<Self, String> {
        let file = pair.key_file.display().to_string();
        let signing = tls::load_key(&Pem::File(pair.key_file.clone())).map_err(|e| format!("{e:#}"))?;
        let spki = signing
            .public_key()
            .ok_or_else(|| format!("{file}: the public half is unknown"))?
            .as_ref()
            .to_vec();
        let (_, parsed) = SubjectPublicKeyInfo::from_der(&spki).map_err(|e| format!("{file}: {e}"))?;
        let public = parsed.subject_public_key.data.to_vec();
        let known: [(&'static SignatureAlgorithm, SignatureScheme); 4] = [
            (
                &rcgen::PKCS_ECDSA_P256_SHA256,
                SignatureScheme::ECDSA_NISTP256_SHA256,
            ),
            (
                &rcgen::PKCS_ECDSA_P384_SHA384,
                SignatureScheme::ECDSA_NISTP384_SHA384,
            ),
            (&rcgen::PKCS_RSA_SHA256, SignatureScheme::RSA_PKCS1_SHA256),
            (&rcgen::PKCS_ED25519, SignatureScheme::ED25519),
        ];
        let found = known
            .into_iter()
            .find(|(_, scheme)| signing.choose_scheme(&[*scheme]).is_some());
        let (algorithm, scheme) =
            found.ok_or_else(|| format!("{file}: this kind of key cannot sign certificates"))?;
        Ok(Key {
            signing,
            public,
            algorithm,
            scheme,
        })
    }
}

impl PublicKeyData for &Key {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl rcgen::SigningKey for &Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signer = self
            .signing
            .choose_scheme(&[self.scheme])
            .ok_or(rcgen::Error::RemoteKeyError)?;
        signer.sign(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_asked_for_within_bounds() {
        let longest = Duration::from_secs(3600 * 24);
        assert_eq!(duration(None, longest), longest);
        assert_eq!(duration(Some(60), longest), SHORTEST);
        assert_eq!(duration(Some(3600), longest), Duration::from_secs(3600));
        assert_eq!(duration(Some(i32::MAX), longest), longest);
    }

    #[test]
    fn a_certificate_ends_with_its_signer_at_the_latest() {
        let at = Duration::from_secs;
        assert_eq!(
            validity(at(10_000), at(600), at(90_000)),
            Ok((at(9_700), at(10_600)))
        );
        assert_eq!(
            validity(at(10_000), at(40_000), at(90_000)),
            Ok((at(9_700), at(49_700)))
        );
        assert_eq!(
            validity(at(10_000), at(40_000), at(20_000)),
            Ok((at(9_700), at(20_000)))
        );
        assert!(validity(at(10_000), at(600), at(9_000)).is_err());
    }
}
