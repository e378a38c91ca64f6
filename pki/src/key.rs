//! Private keys: made, loaded in any form that openssl or kubeadm writes, and used to sign.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use component_base::tls::{self, Pem};
use rcgen::{KeyPair, PublicKeyData, SignatureAlgorithm, SigningKey};
use rsa::RsaPrivateKey;
use rsa::pkcs1::EncodeRsaPrivateKey;
use rsa::pkcs8::LineEnding;
use rustls::SignatureScheme;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::store;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Algorithm {
    EcdsaP256,
    EcdsaP384,
    Rsa(usize),
}

impl FromStr for Algorithm {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "ECDSA-P256" => Ok(Algorithm::EcdsaP256),
            "ECDSA-P384" => Ok(Algorithm::EcdsaP384),
            "RSA-2048" => Ok(Algorithm::Rsa(2048)),
            "RSA-3072" => Ok(Algorithm::Rsa(3072)),
            "RSA-4096" => Ok(Algorithm::Rsa(4096)),
            other => bail!(
                "--key-algorithm={other:?} is none of ECDSA-P256, ECDSA-P384, RSA-2048, RSA-3072, RSA-4096"
            ),
        }
    }
}

/// Makes a key; the PEM is PKCS#8 for curves and PKCS#1 for RSA, as kubeadm writes RSA.
pub fn generate(algorithm: Algorithm) -> Result<String> {
    match algorithm {
        Algorithm::EcdsaP256 => Ok(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?.serialize_pem()),
        Algorithm::EcdsaP384 => Ok(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?.serialize_pem()),
        Algorithm::Rsa(bits) => {
            let key =
                RsaPrivateKey::new(&mut rsa::rand_core::OsRng, bits).context("cannot make an RSA key")?;
            Ok(key
                .to_pkcs1_pem(LineEnding::LF)
                .context("cannot encode the RSA key")?
                .to_string())
        }
    }
}

/// A key that signs certificates or has its public half certified.
pub struct Key {
    signing: Arc<dyn rustls::sign::SigningKey>,
    spki: Vec<u8>,
    bits: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
    scheme: SignatureScheme,
}

impl Key {
    pub fn load(path: &Path) -> Result<Self> {
        Self::read(&Pem::File(path.to_path_buf()))
    }

    pub fn from_pem(pem: &str) -> Result<Self> {
        Self::read(&Pem::Data(pem.as_bytes().to_vec()))
    }

    pub fn read(pem: &Pem) -> Result<Self> {
        let signing = tls::load_key(pem)?;
        let spki = signing
            .public_key()
            .ok_or_else(|| anyhow!("{}: the public half is unknown", pem.describe()))?
            .as_ref()
            .to_vec();
        let (algorithm, scheme) = signature_of(&*signing)
            .ok_or_else(|| anyhow!("{}: this kind of key cannot sign certificates", pem.describe()))?;
        let (_, parsed) =
            SubjectPublicKeyInfo::from_der(&spki).map_err(|error| anyhow!("{}: {error}", pem.describe()))?;
        let bits = parsed.subject_public_key.data.to_vec();
        Ok(Key {
            signing,
            bits,
            spki,
            algorithm,
            scheme,
        })
    }

    /// Loads the key at the path, or makes one there.
    pub fn ensure(path: &Path, algorithm: Algorithm) -> Result<Self> {
        if !path.exists() {
            store::write_new(path, &generate(algorithm)?, store::SECRET)?;
        }
        Self::load(path)
    }

    /// The whole SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// `PUBLIC KEY`, as sa.pub holds it.
    pub fn public_pem(&self) -> String {
        let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &self.spki);
        let lines: Vec<String> = base64
            .as_bytes()
            .chunks(64)
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect();
        format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            lines.join("\n")
        )
    }
}

fn signature_of(
    key: &dyn rustls::sign::SigningKey,
) -> Option<(&'static SignatureAlgorithm, SignatureScheme)> {
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
    known
        .into_iter()
        .find(|(_, scheme)| key.choose_scheme(&[*scheme]).is_some())
}

impl PublicKeyData for &Key {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

impl SigningKey for &Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signer = self
            .signing
            .choose_scheme(&[self.scheme])
            .ok_or(rcgen::Error::RemoteKeyError)?;
        signer.sign(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}
