//! Service account keys from PEM: public keys, certificates or private keys, and the one that signs.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls::SignatureScheme;
use rustls::sign::SigningKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::{SectionKind, from_buf};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{path}: cannot read: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("{path}: no public key, certificate or private key in PEM form found")]
    Empty { path: String },
    #[error("{path}: {reason}")]
    Unusable { path: String, reason: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Rs256,
    Es256,
    Es384,
}

impl Algorithm {
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
            Algorithm::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
        }
    }

    fn scheme(self) -> SignatureScheme {
        match self {
            Algorithm::Rs256 => SignatureScheme::RSA_PKCS1_SHA256,
            Algorithm::Es256 => SignatureScheme::ECDSA_NISTP256_SHA256,
            Algorithm::Es384 => SignatureScheme::ECDSA_NISTP384_SHA384,
        }
    }

    /// Bytes of one coordinate, half of a JWS signature.
    fn coordinate(self) -> usize {
        if self == Algorithm::Es384 { 48 } else { 32 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// base64url(sha256(SubjectPublicKeyInfo DER)).
    pub id: String,
    pub algorithm: Algorithm,
    /// The key as ring and JWK want it: PKCS#1 for RSA, the uncompressed point for ECDSA.
    pub raw: Vec<u8>,
}

const OID_RSA: &str = "1.2.840.113549.1.1.1";
const OID_EC: &str = "1.2.840.10045.2.1";
const OID_P256: &str = "1.2.840.10045.3.1.7";
const OID_P384: &str = "1.3.132.0.34";

impl PublicKey {
    pub fn from_spki(der: &[u8]) -> Result<PublicKey, String> {
        let (_, spki) = SubjectPublicKeyInfo::from_der(der).map_err(|e| format!("not a public key: {e}"))?;
        let curve = || {
            spki.algorithm
                .parameters
                .as_ref()
                .and_then(|p| p.as_oid().ok())
                .map(|o| o.to_id_string())
        };
        let algorithm = match spki.algorithm.algorithm.to_id_string().as_str() {
            OID_RSA => Algorithm::Rs256,
            OID_EC if curve().as_deref() == Some(OID_P256) => Algorithm::Es256,
            OID_EC if curve().as_deref() == Some(OID_P384) => Algorithm::Es384,
            other => {
                return Err(format!(
                    "key algorithm {other} is not supported, use RSA (2048 bits or more) or ECDSA P-256/P-384"
                ));
            }
        };
        Ok(PublicKey {
            id: URL_SAFE_NO_PAD.encode(Sha256::digest(der)),
            algorithm,
            raw: spki.subject_public_key.data.to_vec(),
        })
    }

    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm.verification(), &self.raw)
            .verify(message, signature)
            .is_ok()
    }
}

#[derive(Clone)]
pub struct Signer {
    pub public: PublicKey,
    key: Arc<dyn SigningKey>,
}

impl Signer {
    pub fn load(path: &Path) -> Result<Signer, KeyError> {
        let name = || path.display().to_string();
        let pem = std::fs::read(path).map_err(|source| KeyError::Read { path: name(), source })?;
        let sections = sections(&pem).map_err(|reason| KeyError::Unusable { path: name(), reason })?;
        let private = sections
            .into_iter()
            .find_map(|(kind, der)| private_key(kind, der));
        let Some(private) = private else {
            return Err(KeyError::Unusable {
                path: name(),
                reason: "no private key in PEM form found".to_owned(),
            });
        };
        Signer::new(private).map_err(|reason| KeyError::Unusable { path: name(), reason })
    }

    pub fn new(private: PrivateKeyDer<'static>) -> Result<Signer, String> {
        let key = rustls::crypto::ring::sign::any_supported_type(&private).map_err(|e| e.to_string())?;
        let spki = key
            .public_key()
            .ok_or("the key's public half cannot be derived")?;
        Ok(Signer {
            public: PublicKey::from_spki(spki.as_ref())?,
            key,
        })
    }

    /// A JWS signature: for ECDSA the two numbers side by side, not DER.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        let algorithm = self.public.algorithm;
        let signer = self
            .key
            .choose_scheme(&[algorithm.scheme()])
            .ok_or("the key cannot sign with its own algorithm")?;
        let signature = signer.sign(message).map_err(|e| e.to_string())?;
        match algorithm {
            Algorithm::Rs256 => Ok(signature),
            _ => fixed_from_der(&signature, algorithm.coordinate())
                .ok_or_else(|| "malformed ECDSA signature".to_owned()),
        }
    }
}

/// Every key of one `--service-account-key-file`.
pub fn load_public(path: &Path) -> Result<Vec<PublicKey>, KeyError> {
    let name = || path.display().to_string();
    let pem = std::fs::read(path).map_err(|source| KeyError::Read { path: name(), source })?;
    let keys = parse_public(&pem).map_err(|reason| KeyError::Unusable { path: name(), reason })?;
    if keys.is_empty() {
        Err(KeyError::Empty { path: name() })
    } else {
        Ok(keys)
    }
}

pub fn parse_public(pem: &[u8]) -> Result<Vec<PublicKey>, String> {
    let mut keys = Vec::new();
    for (kind, der) in sections(pem)? {
        match kind {
            SectionKind::PublicKey => keys.push(PublicKey::from_spki(&der)?),
            SectionKind::Certificate => keys.push(of_certificate(&der)?),
            other => keys.extend(
                private_key(other, der)
                    .map(Signer::new)
                    .transpose()?
                    .map(|s| s.public),
            ),
        }
    }
    Ok(keys)
}

fn sections(mut pem: &[u8]) -> Result<Vec<(SectionKind, Vec<u8>)>, String> {
    let mut out = Vec::new();
    while let Some(section) = from_buf(&mut pem).map_err(|e| format!("not PEM: {e:?}"))? {
        out.push(section);
    }
    Ok(out)
}

fn of_certificate(der: &[u8]) -> Result<PublicKey, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|e| format!("not a certificate: {e}"))?;
    PublicKey::from_spki(certificate.public_key().raw)
}

fn private_key(kind: SectionKind, der: Vec<u8>) -> Option<PrivateKeyDer<'static>> {
    match kind {
        SectionKind::PrivateKey => Some(PrivateKeyDer::Pkcs8(der.into())),
        SectionKind::RsaPrivateKey => Some(PrivateKeyDer::Pkcs1(der.into())),
        SectionKind::EcPrivateKey => Some(PrivateKeyDer::Sec1(der.into())),
        _ => None,
    }
}

/// SEQUENCE { INTEGER r, INTEGER s } -> r || s, each of `size` bytes.
fn fixed_from_der(der: &[u8], size: usize) -> Option<Vec<u8>> {
    let body = der_item(der, 0x30)?.0;
    let (r, rest) = der_item(body, 0x02)?;
    let (s, _) = der_item(rest, 0x02)?;
    let mut out = Vec::with_capacity(size * 2);
    for number in [r, s] {
        let number = number
            .iter()
            .position(|b| *b != 0)
            .map_or(&[][..], |at| &number[at..]);
        out.resize(out.len() + size.checked_sub(number.len())?, 0);
        out.extend_from_slice(number);
    }
    Some(out)
}

/// One DER item of a tag; lengths of a signature fit one byte, or 0x81 and one byte.
fn der_item(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(&[tag])?;
    let (length, rest) = match rest {
        [0x81, length, rest @ ..] => (usize::from(*length), rest),
        [length, rest @ ..] if *length < 0x80 => (usize::from(*length), rest),
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ring::rand::SystemRandom;

    pub fn new_signer() -> Signer {
        let pkcs8 = signature::EcdsaKeyPair::generate_pkcs8(
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            &SystemRandom::new(),
        )
        .expect("key");
        Signer::new(PrivateKeyDer::Pkcs8(pkcs8.as_ref().to_vec().into())).expect("signer")
    }

    #[test]
    fn what_a_key_signs_its_public_half_verifies() {
        let signer = new_signer();
        for round in 0..20u8 {
            let signature = signer.sign(&[round]).expect("signs");
            assert_eq!(signature.len(), 64);
            assert!(signer.public.verify(&[round], &signature));
            assert!(!signer.public.verify(&[round + 1], &signature));
        }
    }

    #[test]
    fn short_numbers_are_padded() {
        let der = [0x30, 0x07, 0x02, 0x01, 0x05, 0x02, 0x02, 0x00, 0x80];
        let fixed = fixed_from_der(&der, 4).expect("parses");
        assert_eq!(fixed, [0, 0, 0, 5, 0, 0, 0, 0x80]);
        assert_eq!(fixed_from_der(&der[..5], 4), None);
    }

    #[test]
    fn text_that_holds_no_key_gives_none() {
        assert_eq!(parse_public(b"hello"), Ok(vec![]));
        assert!(
            load_public(Path::new("/nonexistent")).is_err_and(|e| e.to_string().contains("/nonexistent"))
        );
    }
}
