//! Encryption at rest: between an object's bytes and what lies in etcd.
//!
//! `--encryption-provider-config` names, for each resource, providers in order: the first one writes, all of them read. What a
//! later provider or key wrote is stale: the next update writes it anew, even one that changes nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;

mod config;
mod provider;

use provider::Provider;

/// A value read from etcd.
#[derive(Debug, PartialEq, Eq)]
pub struct Plain<'a> {
    pub bytes: Cow<'a, [u8]>,
    /// It would be written differently now.
    pub stale: bool,
}

/// Applied to every value on its way to and from etcd. `key` is authenticated with it where the provider can.
pub trait Transformer: Send + Sync {
    fn to_storage(&self, key: &[u8], plain: &Bytes) -> Result<Bytes, String>;
    fn transform_from_storage<'a>(&self, key: &[u8], stored: &'a [u8]) -> Result<Plain<'a>, String>;
}

/// What upstream's encrypting providers put before their ciphertext.
const ENCRYPTED: &[u8] = b"k8s:enc:";

/// No `--encryption-provider-config`.
pub struct Identity;

impl Transformer for Identity {
    fn to_storage(&self, _: &[u8], plain: &Bytes) -> Result<Bytes, String> {
        Ok(plain.clone())
    }

    fn transform_from_storage<'a>(&self, _: &[u8], stored: &'a [u8]) -> Result<Plain<'a>, String> {
        if stored.starts_with(ENCRYPTED) {
            return Err("the value is encrypted and no configured provider can read it".to_owned());
        }
        Ok(Plain {
            bytes: Cow::Borrowed(stored),
            stale: false,
        })
    }
}

/// Providers by the key prefix of their resource.
pub struct AtRest(BTreeMap<String, Arc<Vec<Provider>>>);

impl AtRest {
    /// `folders` are the stored resources: group, resource and key prefix.
    pub fn load<'a>(
        path: &Path,
        folders: impl Iterator<Item = (&'a str, &'a str, String)>,
    ) -> Result<AtRest> {
        let config =
            config::load(path).with_context(|| format!("--encryption-provider-config {}", path.display()))?;
        let mut rules = Vec::new();
        for entry in &config.resources {
            let providers = entry
                .providers
                .iter()
                .map(Provider::new)
                .collect::<Result<Vec<_>>>()?;
            if providers.is_empty() || entry.resources.is_empty() {
                bail!(
                    "--encryption-provider-config {}: every entry needs resources and providers",
                    path.display()
                );
            }
            rules.push((
                &entry.resources,
                Arc::new(providers.into_iter().flatten().collect::<Vec<_>>()),
            ));
        }
        let mut places = BTreeMap::new();
        for (group, resource, folder) in folders {
            let rule = rules.iter().find(|(patterns, _)| {
                patterns
                    .iter()
                    .any(|pattern| config::covers(pattern, group, resource))
            });
            if let Some((_, providers)) = rule {
                places.insert(folder, providers.clone());
            }
        }
        Ok(AtRest(places))
    }

    fn providers(&self, key: &[u8]) -> Option<&[Provider]> {
        let key = std::str::from_utf8(key).ok()?;
        let (folder, providers) = self
            .0
            .range::<str, _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()?;
        key.starts_with(folder.as_str()).then_some(providers.as_slice())
    }
}

impl Transformer for AtRest {
    fn to_storage(&self, key: &[u8], plain: &Bytes) -> Result<Bytes, String> {
        match self.providers(key).and_then(<[Provider]>::first) {
            Some(provider) => provider.seal(key, plain),
            None => Ok(plain.clone()),
        }
    }

    fn transform_from_storage<'a>(&self, key: &[u8], stored: &'a [u8]) -> Result<Plain<'a>, String> {
        let Some(providers) = self.providers(key) else {
            return Identity.transform_from_storage(key, stored);
        };
        let found = providers
            .iter()
            .enumerate()
            .find(|(_, provider)| provider.wrote(stored));
        let Some((at, provider)) = found else {
            return Err("no configured encryption provider or key can read the value".to_owned());
        };
        Ok(Plain {
            bytes: provider.open(key, stored)?,
            stale: at > 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;

    fn at_rest(providers: &str) -> AtRest {
        let file = tempfile::NamedTempFile::new().unwrap();
        let yaml = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n{providers}"
        );
        std::fs::write(file.path(), yaml).unwrap();
        let folders = [
            ("", "secrets", "/registry/secrets/".to_owned()),
            ("", "pods", "/registry/pods/".to_owned()),
        ];
        AtRest::load(file.path(), folders.into_iter()).unwrap()
    }

    fn keys(kind: &str, name: &str, fill: u8) -> String {
        let secret = base64::engine::general_purpose::STANDARD.encode([fill; 32]);
        format!("  - {kind}:\n      keys:\n      - name: {name}\n        secret: {secret}\n")
    }

    const KEY: &[u8] = b"/registry/secrets/default/a";

    #[test]
    fn every_provider_reads_what_it_wrote_and_names_its_key() {
        for kind in ["aescbc", "aesgcm", "secretbox"] {
            let at_rest = at_rest(&keys(kind, "key1", 7));
            let plain = Bytes::from_static(b"k8s\0hidden");
            let stored = at_rest.to_storage(KEY, &plain).unwrap();
            assert!(
                stored.starts_with(format!("k8s:enc:{kind}:v1:key1:").as_bytes()),
                "{kind}"
            );
            assert!(!stored.windows(6).any(|w| w == b"hidden"), "{kind}");
            assert_eq!(
                at_rest.transform_from_storage(KEY, &stored).unwrap(),
                Plain {
                    bytes: Cow::Borrowed(&plain[..]),
                    stale: false
                },
                "{kind}"
            );
            let mut broken = stored.to_vec();
            let last = broken.len() - 1;
            broken[last] ^= 1;
            assert!(
                at_rest.transform_from_storage(KEY, &broken).is_err() || kind == "aescbc",
                "{kind}"
            );
        }
    }

    #[test]
    fn a_value_is_bound_to_its_key_where_the_provider_can() {
        let at_rest = at_rest(&keys("aesgcm", "k", 7));
        let stored = at_rest.to_storage(KEY, &Bytes::from_static(b"x")).unwrap();
        assert!(
            at_rest
                .transform_from_storage(b"/registry/secrets/default/b", &stored)
                .is_err()
        );
    }

    #[test]
    fn what_an_older_key_or_nobody_encrypted_is_stale() {
        let old = at_rest(&keys("aescbc", "old", 1))
            .to_storage(KEY, &Bytes::from_static(b"x"))
            .unwrap();
        let rotated = at_rest(&format!(
            "{}  - aescbc:\n      keys:\n      - name: old\n        secret: {}\n  - identity: {{}}\n",
            keys("aescbc", "new", 2),
            base64::engine::general_purpose::STANDARD.encode([1u8; 32])
        ));
        assert_eq!(
            rotated.transform_from_storage(KEY, &old).unwrap(),
            Plain {
                bytes: Cow::Borrowed(b"x"),
                stale: true
            }
        );
        assert!(rotated.transform_from_storage(KEY, b"plain").unwrap().stale);
        assert!(
            at_rest(&keys("aescbc", "other", 3))
                .transform_from_storage(KEY, &old)
                .is_err()
        );
    }

    #[test]
    fn other_resources_stay_as_they_are() {
        let at_rest = at_rest(&keys("aescbc", "k", 7));
        let pod = Bytes::from_static(b"k8s\0pod");
        assert_eq!(
            at_rest.to_storage(b"/registry/pods/default/a", &pod).unwrap(),
            pod
        );
    }
}
