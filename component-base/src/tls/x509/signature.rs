//! Signatures on certificates and on handshakes, checked by ring with the key of a certificate of any version.

use ring::signature::{self as ring_alg, UnparsedPublicKey, VerificationAlgorithm};
use rustls::{DigitallySignedStruct, SignatureScheme};
use x509_parser::prelude::X509Certificate;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::VerifyError;

#[derive(Clone, Copy, PartialEq)]
enum Key {
    Rsa,
    P256,
    P384,
    Ed25519,
}

const OID_RSA: &str = "1.2.840.113549.1.1.1";
const OID_EC: &str = "1.2.840.10045.2.1";
const OID_ED25519: &str = "1.3.101.112";
const OID_P256: &str = "1.2.840.10045.3.1.7";
const OID_P384: &str = "1.3.132.0.34";

fn key_of(spki: &SubjectPublicKeyInfo<'_>) -> Option<Key> {
    let algorithm = &spki.algorithm;
    match algorithm.algorithm.to_id_string().as_str() {
        OID_RSA => Some(Key::Rsa),
        OID_ED25519 => Some(Key::Ed25519),
        OID_EC => match algorithm
            .parameters
            .as_ref()?
            .as_oid()
            .ok()?
            .to_id_string()
            .as_str()
        {
            OID_P256 => Some(Key::P256),
            OID_P384 => Some(Key::P384),
            _ => None,
        },
        _ => None,
    }
}

fn check(
    spki: &SubjectPublicKeyInfo<'_>,
    algorithm: &'static dyn VerificationAlgorithm,
    message: &[u8],
    signature: &[u8],
) -> bool {
    UnparsedPublicKey::new(algorithm, &spki.subject_public_key.data)
        .verify(message, signature)
        .is_ok()
}

/// Whether `parent`'s key signed `child`.
pub(super) fn check_issued(
    child: &X509Certificate<'_>,
    parent: &X509Certificate<'_>,
) -> Result<(), VerifyError> {
    let spki = parent.public_key();
    let oid = child.signature_algorithm.algorithm.to_id_string();
    let unsupported = || {
        VerifyError::Malformed(format!(
            "signature algorithm {oid} with this key is not supported"
        ))
    };
    let key = key_of(spki).ok_or_else(unsupported)?;
    let algorithm: &'static dyn VerificationAlgorithm = match (oid.as_str(), key) {
        ("1.2.840.113549.1.1.11", Key::Rsa) => &ring_alg::RSA_PKCS1_2048_8192_SHA256,
        ("1.2.840.113549.1.1.12", Key::Rsa) => &ring_alg::RSA_PKCS1_2048_8192_SHA384,
        ("1.2.840.113549.1.1.13", Key::Rsa) => &ring_alg::RSA_PKCS1_2048_8192_SHA512,
        ("1.2.840.10045.4.3.2", Key::P256) => &ring_alg::ECDSA_P256_SHA256_ASN1,
        ("1.2.840.10045.4.3.3", Key::P256) => &ring_alg::ECDSA_P256_SHA384_ASN1,
        ("1.2.840.10045.4.3.2", Key::P384) => &ring_alg::ECDSA_P384_SHA256_ASN1,
        ("1.2.840.10045.4.3.3", Key::P384) => &ring_alg::ECDSA_P384_SHA384_ASN1,
        (OID_ED25519, Key::Ed25519) => &ring_alg::ED25519,
        _ => return Err(unsupported()),
    };
    match check(
        spki,
        algorithm,
        child.tbs_certificate.as_ref(),
        &child.signature_value.data,
    ) {
        true => Ok(()),
        false => Err(VerifyError::OtherKey),
    }
}

pub(in crate::tls) fn verify_tls13(
    message: &[u8],
    spki: &SubjectPublicKeyInfo<'_>,
    dss: &DigitallySignedStruct,
) -> bool {
    let algorithm: &'static dyn VerificationAlgorithm = match (dss.scheme, key_of(spki)) {
        (SignatureScheme::ECDSA_NISTP256_SHA256, Some(Key::P256)) => &ring_alg::ECDSA_P256_SHA256_ASN1,
        (SignatureScheme::ECDSA_NISTP384_SHA384, Some(Key::P384)) => &ring_alg::ECDSA_P384_SHA384_ASN1,
        (scheme, key) => match common(scheme, key) {
            Some(algorithm) => algorithm,
            None => return false,
        },
    };
    check(spki, algorithm, message, dss.signature())
}

/// TLS 1.2 names the hash only: any curve goes with it, and RSA may be PKCS#1.
pub(in crate::tls) fn verify_tls12(
    message: &[u8],
    spki: &SubjectPublicKeyInfo<'_>,
    dss: &DigitallySignedStruct,
) -> bool {
    let algorithm: &'static dyn VerificationAlgorithm = match (dss.scheme, key_of(spki)) {
        (SignatureScheme::ECDSA_NISTP256_SHA256, Some(Key::P256)) => &ring_alg::ECDSA_P256_SHA256_ASN1,
        (SignatureScheme::ECDSA_NISTP256_SHA256, Some(Key::P384)) => &ring_alg::ECDSA_P384_SHA256_ASN1,
        (SignatureScheme::ECDSA_NISTP384_SHA384, Some(Key::P256)) => &ring_alg::ECDSA_P256_SHA384_ASN1,
        (SignatureScheme::ECDSA_NISTP384_SHA384, Some(Key::P384)) => &ring_alg::ECDSA_P384_SHA384_ASN1,
        (SignatureScheme::RSA_PKCS1_SHA256, Some(Key::Rsa)) => &ring_alg::RSA_PKCS1_2048_8192_SHA256,
        (SignatureScheme::RSA_PKCS1_SHA384, Some(Key::Rsa)) => &ring_alg::RSA_PKCS1_2048_8192_SHA384,
        (SignatureScheme::RSA_PKCS1_SHA512, Some(Key::Rsa)) => &ring_alg::RSA_PKCS1_2048_8192_SHA512,
        (scheme, key) => match common(scheme, key) {
            Some(algorithm) => algorithm,
            None => return false,
        },
    };
    check(spki, algorithm, message, dss.signature())
}

fn common(scheme: SignatureScheme, key: Option<Key>) -> Option<&'static dyn VerificationAlgorithm> {
    match (scheme, key?) {
        (SignatureScheme::RSA_PSS_SHA256, Key::Rsa) => Some(&ring_alg::RSA_PSS_2048_8192_SHA256),
        (SignatureScheme::RSA_PSS_SHA384, Key::Rsa) => Some(&ring_alg::RSA_PSS_2048_8192_SHA384),
        (SignatureScheme::RSA_PSS_SHA512, Key::Rsa) => Some(&ring_alg::RSA_PSS_2048_8192_SHA512),
        (SignatureScheme::ED25519, Key::Ed25519) => Some(&ring_alg::ED25519),
        _ => None,
    }
}
