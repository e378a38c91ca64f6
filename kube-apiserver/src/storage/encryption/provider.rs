//! The ciphers, with upstream's prefixes and layouts.

use std::borrow::Cow;

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, InvalidLength, KeyIvInit};
use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crypto_secretbox::aead::Aead;
use crypto_secretbox::{KeyInit, XSalsa20Poly1305};
use rand::RngCore;
use ring::aead;

use super::ENCRYPTED;
use super::config::{Key, ProviderConfiguration};

/// One provider with one key.
pub struct Provider {
    /// `k8s:enc:aescbc:v1:key1:`; empty for identity.
    prefix: Vec<u8>,
    cipher: Cipher,
}

#[expect(
    clippy::large_enum_variant,
    reason = "one for each configured key, made at start"
)]
enum Cipher {
    Identity,
    /// 16 bytes of IV, then the padded ciphertext.
    AesCbc(Vec<u8>),
    /// 12 bytes of nonce, then ciphertext and tag; the etcd key is authenticated along.
    AesGcm(aead::LessSafeKey),
    /// 24 bytes of nonce, then the box.
    SecretBox(Box<XSalsa20Poly1305>),
}

const IV: usize = 16;
const GCM_NONCE: usize = 12;
const BOX_NONCE: usize = 24;

impl Provider {
    /// A provider for each key, the first of which writes.
    pub fn new(config: &ProviderConfiguration) -> Result<Vec<Provider>> {
        if config.kms.is_some() {
            bail!(
                "--encryption-provider-config: the kms provider is not built into this server; use aescbc, aesgcm or secretbox"
            );
        }
        let mut providers = Vec::new();
        for (kind, keys) in [
            ("aescbc", &config.aescbc),
            ("aesgcm", &config.aesgcm),
            ("secretbox", &config.secretbox),
        ] {
            for key in keys.iter().flat_map(|keys| &keys.keys) {
                let cipher = cipher(kind, key)
                    .with_context(|| format!("--encryption-provider-config: {kind} key {:?}", key.name))?;
                providers.push(Provider {
                    prefix: format!("k8s:enc:{kind}:v1:{}:", key.name).into_bytes(),
                    cipher,
                });
            }
        }
        if config.identity.is_some() {
            providers.push(Provider {
                prefix: Vec::new(),
                cipher: Cipher::Identity,
            });
        }
        if providers.is_empty() {
            bail!(
                "--encryption-provider-config: provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity"
            );
        }
        Ok(providers)
    }

    pub fn wrote(&self, stored: &[u8]) -> bool {
        match self.cipher {
            Cipher::Identity => !stored.starts_with(ENCRYPTED),
            _ => stored.starts_with(&self.prefix),
        }
    }

    pub fn seal(&self, key: &[u8], plain: &Bytes) -> Result<Bytes, String> {
        if let Cipher::Identity = self.cipher {
            return Ok(plain.clone());
        }
        let mut out = self.prefix.clone();
        match &self.cipher {
            Cipher::Identity => {}
            Cipher::AesCbc(secret) => {
                let iv = random::<IV>();
                out.extend_from_slice(&iv);
                out.extend_from_slice(&encrypt_cbc(secret, &iv, plain).map_err(|e| e.to_string())?);
            }
            Cipher::AesGcm(sealing) => {
                let nonce = random::<GCM_NONCE>();
                let mut text = plain.to_vec();
                let sealed = sealing.seal_in_place_append_tag(
                    aead::Nonce::assume_unique_for_key(nonce),
                    aead::Aad::from(key),
                    &mut text,
                );
                sealed.map_err(|_| "AES-GCM failed".to_owned())?;
                out.extend_from_slice(&nonce);
                out.extend_from_slice(&text);
            }
            Cipher::SecretBox(secret) => {
                let nonce = random::<BOX_NONCE>();
                out.extend_from_slice(&nonce);
                out.extend_from_slice(
                    &secret
                        .encrypt(&nonce.into(), &plain[..])
                        .map_err(|e| e.to_string())?,
                );
            }
        }
        Ok(out.into())
    }

    pub fn open<'a>(&self, key: &[u8], stored: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        let rest = &stored[self.prefix.len()..];
        let short = || "the stored data was shorter than the required size".to_owned();
        let plain = match &self.cipher {
            Cipher::Identity => return Ok(Cow::Borrowed(stored)),
            Cipher::AesCbc(secret) => {
                let (iv, text) = rest.split_first_chunk::<IV>().ok_or_else(short)?;
                decrypt_cbc(secret, iv, text)?
            }
            Cipher::AesGcm(opening) => {
                let (nonce, text) = rest.split_first_chunk::<GCM_NONCE>().ok_or_else(short)?;
                let mut text = text.to_vec();
                let opened = opening.open_in_place(
                    aead::Nonce::assume_unique_for_key(*nonce),
                    aead::Aad::from(key),
                    &mut text,
                );
                opened
                    .map_err(|_| "cipher: message authentication failed".to_owned())?
                    .to_vec()
            }
            Cipher::SecretBox(secret) => {
                let (nonce, text) = rest.split_first_chunk::<BOX_NONCE>().ok_or_else(short)?;
                secret
                    .decrypt(nonce.into(), text)
                    .map_err(|_| "secretbox: message authentication failed".to_owned())?
            }
        };
        Ok(Cow::Owned(plain))
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

fn cipher(kind: &str, key: &Key) -> Result<Cipher> {
    if key.name.is_empty() || key.name.contains(':') {
        bail!("the key needs a name without ':'");
    }
    let secret = STANDARD
        .decode(&key.secret)
        .context("the secret is not valid base64")?;
    match (kind, secret.len()) {
        ("aescbc", 16 | 24 | 32) => Ok(Cipher::AesCbc(secret)),
        ("aesgcm", 16 | 32) => {
            let algorithm = if secret.len() == 16 {
                &aead::AES_128_GCM
            } else {
                &aead::AES_256_GCM
            };
            let key = aead::UnboundKey::new(algorithm, &secret)
                .map_err(|_| anyhow::anyhow!("the secret is no AES key"))?;
            Ok(Cipher::AesGcm(aead::LessSafeKey::new(key)))
        }
        ("secretbox", 32) => {
            let secret = XSalsa20Poly1305::new_from_slice(&secret)
                .map_err(|_| anyhow::anyhow!("the secret is no key"))?;
            Ok(Cipher::SecretBox(Box::new(secret)))
        }
        ("secretbox", length) => bail!("the secret has {length} bytes, expected 32"),
        (_, length) => bail!("the secret has {length} bytes, expected 16, 24 or 32 (aesgcm: 16 or 32)"),
    }
}

fn encrypt_cbc(secret: &[u8], iv: &[u8; IV], plain: &[u8]) -> Result<Vec<u8>, InvalidLength> {
    Ok(match secret.len() {
        16 => {
            cbc::Encryptor::<aes::Aes128>::new_from_slices(secret, iv)?.encrypt_padded_vec_mut::<Pkcs7>(plain)
        }
        24 => {
            cbc::Encryptor::<aes::Aes192>::new_from_slices(secret, iv)?.encrypt_padded_vec_mut::<Pkcs7>(plain)
        }
        _ => {
            cbc::Encryptor::<aes::Aes256>::new_from_slices(secret, iv)?.encrypt_padded_vec_mut::<Pkcs7>(plain)
        }
    })
}

fn decrypt_cbc(secret: &[u8], iv: &[u8; IV], text: &[u8]) -> Result<Vec<u8>, String> {
    let bad = |_| "invalid padding on input".to_owned();
    let key = |e: InvalidLength| e.to_string();
    match secret.len() {
        16 => cbc::Decryptor::<aes::Aes128>::new_from_slices(secret, iv)
            .map_err(key)?
            .decrypt_padded_vec_mut::<Pkcs7>(text)
            .map_err(bad),
        24 => cbc::Decryptor::<aes::Aes192>::new_from_slices(secret, iv)
            .map_err(key)?
            .decrypt_padded_vec_mut::<Pkcs7>(text)
            .map_err(bad),
        _ => cbc::Decryptor::<aes::Aes256>::new_from_slices(secret, iv)
            .map_err(key)?
            .decrypt_padded_vec_mut::<Pkcs7>(text)
            .map_err(bad),
    }
}
