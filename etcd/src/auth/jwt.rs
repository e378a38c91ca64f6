//! Signed tokens: whoever has the key can tell who it is and under which revision, without asking anyone.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use component_base::flags::parse_duration;
use ring::rand::SystemRandom;
use ring::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair,
    UnparsedPublicKey, VerificationAlgorithm,
};
use ring::{hmac, signature as sig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer};
use serde::Deserialize;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use super::token::{TokenError, TokenOptions};
use super::{AuthError, AuthInfo};

const DEFAULT_TTL: Duration = Duration::from_secs(300);
const KNOWN_OPTIONS: &[&str] = &["sign-method", "pub-key", "priv-key", "ttl"];
/// A token that is longer is not ours; nobody's CPU is spent on it.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// How one `alg` signs and verifies.
struct Method {
    alg: &'static str,
    verify: &'static dyn VerificationAlgorithm,
    sign: Sign,
}

enum Sign {
    Rsa(&'static dyn RsaEncoding),
    Ecdsa(&'static EcdsaSigningAlgorithm),
    Ed25519,
}

static METHODS: &[Method] = &[
    method(
        "RS256",
        &sig::RSA_PKCS1_2048_8192_SHA256,
        Sign::Rsa(&sig::RSA_PKCS1_SHA256),
    ),
    method(
        "RS384",
        &sig::RSA_PKCS1_2048_8192_SHA384,
        Sign::Rsa(&sig::RSA_PKCS1_SHA384),
    ),
    method(
        "RS512",
        &sig::RSA_PKCS1_2048_8192_SHA512,
        Sign::Rsa(&sig::RSA_PKCS1_SHA512),
    ),
    method(
        "PS256",
        &sig::RSA_PSS_2048_8192_SHA256,
        Sign::Rsa(&sig::RSA_PSS_SHA256),
    ),
    method(
        "PS384",
        &sig::RSA_PSS_2048_8192_SHA384,
        Sign::Rsa(&sig::RSA_PSS_SHA384),
    ),
    method(
        "PS512",
        &sig::RSA_PSS_2048_8192_SHA512,
        Sign::Rsa(&sig::RSA_PSS_SHA512),
    ),
    method(
        "ES256",
        &sig::ECDSA_P256_SHA256_FIXED,
        Sign::Ecdsa(&sig::ECDSA_P256_SHA256_FIXED_SIGNING),
    ),
    method(
        "ES384",
        &sig::ECDSA_P384_SHA384_FIXED,
        Sign::Ecdsa(&sig::ECDSA_P384_SHA384_FIXED_SIGNING),
    ),
    method("EdDSA", &sig::ED25519, Sign::Ed25519),
];

const fn method(alg: &'static str, verify: &'static dyn VerificationAlgorithm, sign: Sign) -> Method {
    Method { alg, verify, sign }
}

static HMACS: &[(&str, &hmac::Algorithm)] = &[
    ("HS256", &hmac::HMAC_SHA256),
    ("HS384", &hmac::HMAC_SHA384),
    ("HS512", &hmac::HMAC_SHA512),
];

pub struct Jwt {
    alg: &'static str,
    ttl: Duration,
    key: Key,
}

enum Key {
    Shared(hmac::Key),
    Pair {
        verify: &'static dyn VerificationAlgorithm,
        public: Bytes,
        /// None on a member that only has the public key.
        private: Option<Private>,
    },
}

enum Private {
    Rsa(&'static dyn RsaEncoding, Box<RsaKeyPair>),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

#[derive(Deserialize)]
struct Claims {
    username: String,
    /// A number of JSON, as Go reads it.
    revision: f64,
    exp: Option<f64>,
    nbf: Option<f64>,
}

impl Jwt {
    pub fn from_options(options: &TokenOptions<'_>) -> Result<Jwt, TokenError> {
        let unknown: Vec<&&str> = options
            .keys()
            .filter(|name| !KNOWN_OPTIONS.contains(name))
            .collect();
        if !unknown.is_empty() {
            tracing::warn!(keys = ?unknown, "unknown JWT options");
        }
        let ttl = match options.get("ttl").copied().unwrap_or_default() {
            "" => DEFAULT_TTL,
            text => parse_duration(text).map_err(TokenError::Ttl)?,
        };
        let alg = options.get("sign-method").copied().unwrap_or_default();
        let files = Files {
            public: options.get("pub-key").copied().unwrap_or_default(),
            private: options.get("priv-key").copied().unwrap_or_default(),
        };
        if let Some((alg, algorithm)) = HMACS.iter().find(|(name, _)| *name == alg) {
            let key = files.shared(**algorithm)?;
            return Ok(Jwt { alg, ttl, key });
        }
        let method = METHODS
            .iter()
            .find(|method| method.alg == alg)
            .ok_or_else(|| TokenError::InvalidMethod(alg.to_owned()))?;
        Ok(Jwt {
            alg: method.alg,
            ttl,
            key: files.pair(method)?,
        })
    }

    pub fn sign(&self, username: &str, revision: u64, now_seconds: u64) -> Result<String, AuthError> {
        let header = serde_json::json!({"alg": self.alg, "typ": "JWT"});
        let exp = now_seconds.saturating_add(self.ttl.as_secs());
        let claims = serde_json::json!({"exp": exp, "revision": revision, "username": username});
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut token);
        let signature = self.key.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// None for whatever is wrong with it: the caller learns nothing more.
    pub fn verify(&self, token: &str, now_seconds: u64) -> Option<AuthInfo> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Header = decode(header)?;
        // The token does not choose its method.
        if header.alg != self.alg {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        if !self.key.verifies(signed.as_bytes(), &signature) {
            return None;
        }
        let claims: Claims = decode(claims)?;
        let now = now_seconds as f64;
        if claims.exp.is_some_and(|exp| now >= exp) || claims.nbf.is_some_and(|nbf| now < nbf) {
            return None;
        }
        Some(AuthInfo {
            username: claims.username,
            revision: claims.revision as u64,
        })
    }
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Option<T> {
    let json = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&json).ok()
}

impl Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, AuthError> {
        let private = match self {
            Key::Shared(key) => return Ok(hmac::sign(key, message).as_ref().to_vec()),
            Key::Pair { private, .. } => private.as_ref().ok_or(AuthError::VerifyOnly)?,
        };
        // Signing fails only without randomness.
        private.sign(message).map_err(|_| AuthError::AuthFailed)
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Key::Shared(key) => hmac::verify(key, message, signature).is_ok(),
            Key::Pair { verify, public, .. } => UnparsedPublicKey::new(*verify, public)
                .verify(message, signature)
                .is_ok(),
        }
    }
}

impl Private {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, ring::error::Unspecified> {
        let random = SystemRandom::new();
        match self {
            Private::Rsa(encoding, pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature)?;
                Ok(signature)
            }
            Private::Ecdsa(pair) => pair
                .sign(&random, message)
                .map(|signature| signature.as_ref().to_vec()),
            Private::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }

    fn public(&self) -> Bytes {
        let public = match self {
            Private::Rsa(_, pair) => pair.public_key().as_ref(),
            Private::Ecdsa(pair) => pair.public_key().as_ref(),
            Private::Ed25519(pair) => pair.public_key().as_ref(),
        };
        Bytes::copy_from_slice(public)
    }
}

/// The paths given as `pub-key` and `priv-key`; empty when they are not.
struct Files<'a> {
    public: &'a str,
    private: &'a str,
}

const PRIVATE: &str = "priv-key";
const PUBLIC: &str = "pub-key";

fn bad(name: &'static str, path: &str, what: impl std::fmt::Display) -> TokenError {
    TokenError::Key {
        name,
        path: path.into(),
        what: what.to_string(),
    }
}

fn read(name: &'static str, path: &str) -> Result<Vec<u8>, TokenError> {
    std::fs::read(Path::new(path)).map_err(|error| bad(name, path, error))
}

impl Files<'_> {
    fn shared(&self, algorithm: hmac::Algorithm) -> Result<Key, TokenError> {
        if self.private.is_empty() {
            return Err(TokenError::MissingKey("HS256, HS384 and HS512 need priv-key"));
        }
        let secret = read(PRIVATE, self.private)?;
        match secret.is_empty() {
            true => Err(bad(PRIVATE, self.private, "the file is empty")),
            false => Ok(Key::Shared(hmac::Key::new(algorithm, &secret))),
        }
    }

    fn pair(&self, method: &Method) -> Result<Key, TokenError> {
        let private = match self.private {
            "" => None,
            path => Some(private_key(path, &method.sign)?),
        };
        let given = match self.public {
            "" => None,
            path => Some(public_key(path)?),
        };
        let public = match (given, &private) {
            (None, None) => return Err(TokenError::MissingKey("give pub-key, priv-key or both")),
            (Some(public), None) => public,
            (None, Some(private)) => private.public(),
            (Some(public), Some(private)) if public == private.public() => public,
            (Some(_), Some(_)) => return Err(TokenError::KeyMismatch),
        };
        Ok(Key::Pair {
            verify: method.verify,
            public,
            private,
        })
    }
}

fn private_key(path: &str, sign: &Sign) -> Result<Private, TokenError> {
    let pem = read(PRIVATE, path)?;
    let der = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| bad(PRIVATE, path, format!("no private key in PEM form: {error:?}")))?;
    let rejected = |error: ring::error::KeyRejected| bad(PRIVATE, path, format!("unusable key: {error}"));
    match (sign, der) {
        (Sign::Rsa(encoding), PrivateKeyDer::Pkcs1(der)) => RsaKeyPair::from_der(der.secret_pkcs1_der())
            .map(|pair| Private::Rsa(*encoding, Box::new(pair)))
            .map_err(rejected),
        (Sign::Rsa(encoding), PrivateKeyDer::Pkcs8(der)) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der())
            .map(|pair| Private::Rsa(*encoding, Box::new(pair)))
            .map_err(rejected),
        (Sign::Ecdsa(algorithm), PrivateKeyDer::Pkcs8(der)) => {
            ecdsa(algorithm, der.secret_pkcs8_der()).map_err(rejected)
        }
        (Sign::Ecdsa(algorithm), PrivateKeyDer::Sec1(der)) => {
            ecdsa(algorithm, &sec1_as_pkcs8(algorithm, der.secret_sec1_der())).map_err(rejected)
        }
        (Sign::Ed25519, PrivateKeyDer::Pkcs8(der)) => {
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
                .map(Private::Ed25519)
                .map_err(rejected)
        }
        _ => Err(bad(PRIVATE, path, "the key is of another kind than sign-method")),
    }
}

fn ecdsa(
    algorithm: &'static EcdsaSigningAlgorithm,
    pkcs8: &[u8],
) -> Result<Private, ring::error::KeyRejected> {
    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8, &SystemRandom::new()).map(Private::Ecdsa)
}

/// What `openssl ecparam -genkey` writes, in the wrapping that ring reads.
fn sec1_as_pkcs8(algorithm: &'static EcdsaSigningAlgorithm, sec1: &[u8]) -> Vec<u8> {
    // AlgorithmIdentifier: ecPublicKey with the curve.
    const P256: &[u8] = &[
        0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
        0x3d, 0x03, 0x01, 0x07,
    ];
    const P384: &[u8] = &[
        0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
        0x22,
    ];
    const VERSION_0: &[u8] = &[0x02, 0x01, 0x00];
    let identifier = if std::ptr::eq(algorithm, &signature::ECDSA_P256_SHA256_FIXED_SIGNING) {
        P256
    } else {
        P384
    };
    let key = der(0x04, sec1);
    der(0x30, &[VERSION_0, identifier, &key].concat())
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = match length {
        0..=0x7f => vec![tag, length as u8],
        0x80..=0xff => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    out.extend_from_slice(content);
    out
}

/// From a public key or a certificate, as etcd takes either: the bits that ring verifies with.
fn public_key(path: &str) -> Result<Bytes, TokenError> {
    let pem = read(PUBLIC, path)?;
    let found = match SubjectPublicKeyInfoDer::from_pem_slice(&pem) {
        Ok(der) => SubjectPublicKeyInfo::from_der(&der)
            .ok()
            .map(|(_, info)| Bytes::copy_from_slice(&info.subject_public_key.data)),
        Err(_) => CertificateDer::from_pem_slice(&pem).ok().and_then(|der| {
            let (_, certificate) = X509Certificate::from_der(&der).ok()?;
            Some(Bytes::copy_from_slice(
                &certificate.public_key().subject_public_key.data,
            ))
        }),
    };
    found.ok_or_else(|| bad(PUBLIC, path, "neither a public key nor a certificate in PEM form"))
}

#[cfg(test)]
mod tests;
