//! Between an object's bytes and what lies in etcd.

use std::borrow::Cow;

use bytes::Bytes;

/// Applied to every value on its way to and from etcd. `key` is authenticated with it where the provider can.
pub trait Transformer: Send + Sync {
    fn to_storage(&self, key: &[u8], plain: &Bytes) -> Result<Bytes, String>;
    fn from_storage<'a>(&self, key: &[u8], stored: &'a [u8]) -> Result<Cow<'a, [u8]>, String>;
}

/// No encryption: `--encryption-provider-config` is not given.
pub struct Identity;

/// What upstream's encrypting providers put before their ciphertext.
const ENCRYPTED: &[u8] = b"k8s:enc:";

impl Transformer for Identity {
    fn to_storage(&self, _: &[u8], plain: &Bytes) -> Result<Bytes, String> {
        Ok(plain.clone())
    }

    fn from_storage<'a>(&self, _: &[u8], stored: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        if stored.starts_with(ENCRYPTED) {
            return Err("the value is encrypted and no --encryption-provider-config can read it".to_owned());
        }
        Ok(Cow::Borrowed(stored))
    }
}
