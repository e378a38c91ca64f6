//! The content of configMap, secret, downwardAPI and projected volumes.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, ConfigMapVolumeSource, DownwardAPIProjection, DownwardAPIVolumeFile,
    DownwardAPIVolumeSource, KeyToPath, Pod, ProjectedVolumeSource, SecretProjection, SecretVolumeSource,
    ServiceAccountTokenProjection, Volume,
};
use parking_lot::Mutex;

use super::atomic_writer::{Payload, Projection};
use super::{PodFacts, SetUpError};
use crate::downward::{self, Addresses};
use crate::objects::{ObjectError, Objects, Token, TokenRequest};
use crate::pod::{PodExt, PodUid};

const DEFAULT_MODE: u32 = 0o644;
const DEFAULT_TOKEN_SECONDS: i64 = 3600;
/// A token is replaced when this share of its life is over, and in any case after a day.
const REFRESH_AFTER_PERCENT: i64 = 80;
const MAX_TOKEN_AGE_SECONDS: i64 = 24 * 3600;

pub enum AtomicSource<'a> {
    ConfigMap(&'a ConfigMapVolumeSource),
    Secret(&'a SecretVolumeSource),
    Downward(&'a DownwardAPIVolumeSource),
    Projected(&'a ProjectedVolumeSource),
}

impl<'a> AtomicSource<'a> {
    pub fn of(volume: &'a Volume) -> Option<Self> {
        None.or(volume.config_map.as_ref().map(Self::ConfigMap))
            .or(volume.secret.as_ref().map(Self::Secret))
            .or(volume.downward_api.as_ref().map(Self::Downward))
            .or(volume.projected.as_ref().map(Self::Projected))
    }

    pub fn plugin(&self) -> &'static str {
        match self {
            Self::ConfigMap(_) => "configmap",
            Self::Secret(_) => "secret",
            Self::Downward(_) => "downward-api",
            Self::Projected(_) => "projected",
        }
    }

    pub fn in_memory(&self) -> bool {
        !matches!(self, Self::ConfigMap(_))
    }
}

pub async fn payload(
    source: &AtomicSource<'_>,
    pod: &Pod,
    volume: &Volume,
    facts: &PodFacts<'_>,
    objects: &dyn Objects,
    tokens: &TokenCache,
) -> Result<Payload, SetUpError> {
    let mut out = Payload::new();
    let mut builder = Builder {
        pod,
        facts,
        objects,
        tokens,
        volume: &volume.name,
        default_mode: DEFAULT_MODE,
        out: &mut out,
    };
    match source {
        AtomicSource::ConfigMap(s) => {
            builder.default_mode = mode(s.default_mode, DEFAULT_MODE);
            builder
                .config_map(&s.name, s.items.as_deref(), s.optional)
                .await?;
        }
        AtomicSource::Secret(s) => {
            builder.default_mode = mode(s.default_mode, DEFAULT_MODE);
            builder
                .secret(
                    s.secret_name.as_deref().unwrap_or_default(),
                    s.items.as_deref(),
                    s.optional,
                )
                .await?;
        }
        AtomicSource::Downward(s) => {
            builder.default_mode = mode(s.default_mode, DEFAULT_MODE);
            builder.downward(s.items.as_deref().unwrap_or_default())?;
        }
        AtomicSource::Projected(s) => {
            builder.default_mode = mode(s.default_mode, DEFAULT_MODE);
            builder.projected(s).await?;
        }
    }
    Ok(out)
}

fn mode(wanted: Option<i32>, default: u32) -> u32 {
    wanted
        .and_then(|m| u32::try_from(m).ok())
        .map_or(default, |m| m & 0o777)
}

struct Builder<'a> {
    pod: &'a Pod,
    facts: &'a PodFacts<'a>,
    objects: &'a dyn Objects,
    tokens: &'a TokenCache,
    volume: &'a str,
    default_mode: u32,
    out: &'a mut Payload,
}

impl Builder<'_> {
    fn put(&mut self, path: &str, data: Vec<u8>, item_mode: Option<i32>) {
        let mode = mode(item_mode, self.default_mode);
        self.out.insert(
            path.to_string(),
            Projection {
                data,
                mode,
                owner: None,
            },
        );
    }

    fn put_selected(
        &mut self,
        kind: &'static str,
        data: &std::collections::BTreeMap<String, Vec<u8>>,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
    ) -> Result<(), SetUpError> {
        let Some(items) = items.filter(|i| !i.is_empty()) else {
            for (key, bytes) in data {
                self.put(key, bytes.clone(), None);
            }
            return Ok(());
        };
        for item in items {
            match data.get(&item.key) {
                Some(bytes) => self.put(&item.path, bytes.clone(), item.mode),
                None if optional == Some(true) => {}
                None => {
                    return Err(SetUpError::Key {
                        kind,
                        key: item.key.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    async fn config_map(
        &mut self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
    ) -> Result<(), SetUpError> {
        let map = match self.objects.config_map(self.pod.namespace(), name).await {
            Ok(map) => map,
            Err(e) if e.is_not_found() && optional == Some(true) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let text = map
            .data
            .iter()
            .flatten()
            .map(|(k, v)| (k.clone(), v.clone().into_bytes()));
        let binary = map
            .binary_data
            .iter()
            .flatten()
            .map(|(k, v)| (k.clone(), v.0.clone()));
        self.put_selected("config", &text.chain(binary).collect(), items, optional)
    }

    async fn secret(
        &mut self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
    ) -> Result<(), SetUpError> {
        let secret = match self.objects.secret(self.pod.namespace(), name).await {
            Ok(secret) => secret,
            Err(e) if e.is_not_found() && optional == Some(true) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let data = secret
            .data
            .iter()
            .flatten()
            .map(|(k, v)| (k.clone(), v.0.clone()))
            .collect();
        self.put_selected("secret", &data, items, optional)
    }

    fn downward(&mut self, files: &[DownwardAPIVolumeFile]) -> Result<(), SetUpError> {
        let addresses = Addresses {
            pod_ips: self.facts.pod_ips,
            host_ips: self.facts.host_ips,
        };
        for file in files {
            let text = if let Some(r) = &file.field_ref {
                downward::field(self.pod, r, &addresses)
                    .ok_or_else(|| SetUpError::Downward(r.field_path.clone()))?
            } else if let Some(r) = &file.resource_field_ref {
                let container = r.container_name.as_deref().and_then(|n| self.pod.container(n));
                let text = container.and_then(|c| downward::resource(&c, r, self.facts.allocatable));
                text.ok_or_else(|| SetUpError::Downward(r.resource.clone()))?
            } else {
                continue;
            };
            self.put(&file.path, text.into_bytes(), file.mode);
        }
        Ok(())
    }

    async fn projected(&mut self, source: &ProjectedVolumeSource) -> Result<(), SetUpError> {
        for part in source.sources.iter().flatten() {
            if let Some(ConfigMapProjection {
                name,
                items,
                optional,
            }) = &part.config_map
            {
                self.config_map(name, items.as_deref(), *optional).await?;
            }
            if let Some(SecretProjection {
                name,
                items,
                optional,
            }) = &part.secret
            {
                self.secret(name, items.as_deref(), *optional).await?;
            }
            if let Some(DownwardAPIProjection { items }) = &part.downward_api {
                self.downward(items.as_deref().unwrap_or_default())?;
            }
            if let Some(token) = &part.service_account_token {
                self.token(token).await?;
            }
            if part.cluster_trust_bundle.is_some() || part.pod_certificate.is_some() {
                return Err(SetUpError::Unsupported(
                    "clusterTrustBundle and podCertificate projections are not written by this kubelet yet",
                ));
            }
        }
        Ok(())
    }

    async fn token(&mut self, wanted: &ServiceAccountTokenProjection) -> Result<(), SetUpError> {
        let request = TokenRequest {
            namespace: self.pod.namespace().to_string(),
            service_account: self
                .pod
                .spec()
                .service_account_name
                .clone()
                .unwrap_or_else(|| "default".into()),
            audience: wanted.audience.clone().filter(|a| !a.is_empty()),
            expiration_seconds: wanted.expiration_seconds.unwrap_or(DEFAULT_TOKEN_SECONDS),
            pod_name: self.pod.name().to_string(),
            pod_uid: self.pod.uid(),
        };
        let key = (self.pod.uid(), format!("{}/{}", self.volume, wanted.path));
        let token = self.tokens.current(key, &request, self.objects).await?;
        // With one user for all containers, or a group, nobody else needs to read it.
        let user = sole_user(self.pod);
        let has_group = self
            .pod
            .spec()
            .security_context
            .as_ref()
            .and_then(|s| s.fs_group)
            .is_some();
        let mode = if user.is_some() || has_group {
            0o600
        } else {
            self.default_mode
        };
        self.out.insert(
            wanted.path.clone(),
            Projection {
                data: token.into_bytes(),
                mode,
                owner: user,
            },
        );
        Ok(())
    }
}

/// The user that every container of the pod runs as, if it is one and is written down.
fn sole_user(pod: &Pod) -> Option<u32> {
    let pods = pod.spec().security_context.as_ref().and_then(|s| s.run_as_user);
    let mut users = pod
        .spec()
        .containers
        .iter()
        .chain(pod.init_containers())
        .map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(pods));
    let first = users.next()??;
    users.all(|u| u == Some(first)).then_some(())?;
    u32::try_from(first).ok()
}

#[derive(Default)]
pub struct TokenCache(Mutex<HashMap<(PodUid, String), Token>>);

impl TokenCache {
    async fn current(
        &self,
        key: (PodUid, String),
        request: &TokenRequest,
        objects: &dyn Objects,
    ) -> Result<String, ObjectError> {
        let now = jiff::Timestamp::now();
        let held = self.0.lock().get(&key).cloned();
        if let Some(token) = held.as_ref().filter(|t| !needs_refresh(t, now)) {
            return Ok(token.token.clone());
        }
        match objects.token(request).await {
            Ok(token) => {
                self.0.lock().insert(key, token.clone());
                Ok(token.token)
            }
            // An old token that is still valid beats none while the server is away.
            Err(error) => match held.filter(|t| t.expires > now) {
                Some(token) => {
                    tracing::warn!(pod = %request.pod_name, %error, "Couldn't update token, the current one is still valid");
                    Ok(token.token)
                }
                None => Err(error),
            },
        }
    }

    pub fn forget(&self, uid: &PodUid) {
        self.0.lock().retain(|(pod, _), _| pod != uid);
    }
}

fn needs_refresh(token: &Token, now: jiff::Timestamp) -> bool {
    let life = token.expires.as_second() - token.issued.as_second();
    let age = now.as_second() - token.issued.as_second();
    age >= MAX_TOKEN_AGE_SECONDS || age * 100 >= life * REFRESH_AFTER_PERCENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_replaced_at_four_fifths_of_its_life() {
        let issued = jiff::Timestamp::from_second(0).unwrap();
        let token = Token {
            token: String::new(),
            issued,
            expires: jiff::Timestamp::from_second(3600).unwrap(),
        };
        let at = |s| jiff::Timestamp::from_second(s).unwrap();
        assert!(!needs_refresh(&token, at(2879)));
        assert!(needs_refresh(&token, at(2880)));
        let year = Token {
            expires: at(31_536_000),
            ..token
        };
        assert!(!needs_refresh(&year, at(86_399)) && needs_refresh(&year, at(86_400)));
    }
}
