//! The API objects that a pod refers to: config maps, secrets, services, service accounts.
//!
//! A config map or secret is watched alone, by name, while a pod on this node refers to it: that is all that the Node authorizer allows,
//! and all that is needed. Changes reach mounted volumes through [`Objects::on_change`].

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use tonic::async_trait;

use crate::pod::PodUid;

mod watched;
pub use watched::WatchedObjects;

#[derive(Debug, Clone, thiserror::Error)]
pub enum ObjectError {
    #[error("{kind} {name:?} not found")]
    NotFound { kind: &'static str, name: String },
    #[error("couldn't get {kind} {namespace}/{name}, no kubeClient defined")]
    Standalone {
        kind: &'static str,
        namespace: String,
        name: String,
    },
    #[error("failed to sync {kind} cache: timed out waiting for the condition")]
    Timeout { kind: &'static str },
    #[error("{0}")]
    Api(String),
}

impl ObjectError {
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// Bound to the pod that asks: the token dies with it.
pub struct TokenRequest {
    pub namespace: String,
    pub service_account: String,
    pub audience: Option<String>,
    pub expiration_seconds: i64,
    pub pod_name: String,
    pub pod_uid: PodUid,
}

#[derive(Debug, Clone)]
pub struct Token {
    pub token: String,
    pub issued: jiff::Timestamp,
    pub expires: jiff::Timestamp,
}

#[async_trait]
pub trait Objects: Send + Sync {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError>;
    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ObjectError>;
    async fn token(&self, request: &TokenRequest) -> Result<Token, ObjectError>;
    /// `None` until they have been listed once.
    fn services(&self) -> Option<Vec<Arc<Service>>>;
    /// From now on this pod's references are watched.
    fn register(&self, pod: &k8s_openapi::api::core::v1::Pod);
    fn unregister(&self, uid: &PodUid);
}

/// Without an API server: nothing to refer to, no services to announce.
pub struct Standalone;

#[async_trait]
impl Objects for Standalone {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError> {
        Err(ObjectError::Standalone {
            kind: "configMap",
            namespace: namespace.into(),
            name: name.into(),
        })
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ObjectError> {
        Err(ObjectError::Standalone {
            kind: "secret",
            namespace: namespace.into(),
            name: name.into(),
        })
    }

    async fn token(&self, request: &TokenRequest) -> Result<Token, ObjectError> {
        let (namespace, name) = (request.namespace.clone(), request.service_account.clone());
        Err(ObjectError::Standalone {
            kind: "service account token",
            namespace,
            name,
        })
    }

    fn services(&self) -> Option<Vec<Arc<Service>>> {
        Some(Vec::new())
    }

    fn register(&self, _: &k8s_openapi::api::core::v1::Pod) {}
    fn unregister(&self, _: &PodUid) {}
}

/// Every config map and secret that a pod's spec names.
pub fn references(pod: &k8s_openapi::api::core::v1::Pod) -> Vec<Reference> {
    use crate::pod::PodExt;
    let spec = pod.spec();
    let mut found = Vec::new();
    let mut put = |kind, name: &str| {
        if !name.is_empty() {
            found.push(Reference {
                kind,
                namespace: pod.namespace().to_string(),
                name: name.to_string(),
            });
        }
    };
    for secret in spec.image_pull_secrets.iter().flatten() {
        put(Kind::Secret, &secret.name);
    }
    for container in spec.containers.iter().chain(pod.init_containers()) {
        for from in container.env_from.iter().flatten() {
            from.config_map_ref
                .iter()
                .for_each(|r| put(Kind::ConfigMap, &r.name));
            from.secret_ref.iter().for_each(|r| put(Kind::Secret, &r.name));
        }
        for source in container
            .env
            .iter()
            .flatten()
            .filter_map(|e| e.value_from.as_ref())
        {
            source
                .config_map_key_ref
                .iter()
                .for_each(|r| put(Kind::ConfigMap, &r.name));
            source
                .secret_key_ref
                .iter()
                .for_each(|r| put(Kind::Secret, &r.name));
        }
    }
    for volume in spec.volumes.iter().flatten() {
        volume
            .config_map
            .iter()
            .for_each(|v| put(Kind::ConfigMap, &v.name));
        volume
            .secret
            .iter()
            .for_each(|v| put(Kind::Secret, v.secret_name.as_deref().unwrap_or_default()));
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            source
                .config_map
                .iter()
                .for_each(|r| put(Kind::ConfigMap, &r.name));
            source.secret.iter().for_each(|r| put(Kind::Secret, &r.name));
        }
    }
    found.sort();
    found.dedup();
    found
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    ConfigMap,
    Secret,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

#[cfg(test)]
pub mod fake {
    use std::collections::HashMap;

    use super::*;
    use parking_lot::Mutex;

    #[derive(Default)]
    pub struct FakeObjects {
        pub services: Vec<Arc<Service>>,
        pub config_maps: Mutex<HashMap<(String, String), Arc<ConfigMap>>>,
        pub secrets: Mutex<HashMap<(String, String), Arc<Secret>>>,
        pub tokens: Mutex<Vec<i64>>,
    }

    impl FakeObjects {
        pub fn with_config_map(self, namespace: &str, name: &str, data: &[(&str, &str)]) -> Self {
            self.set_config_map(namespace, name, data);
            self
        }

        pub fn set_config_map(&self, namespace: &str, name: &str, data: &[(&str, &str)]) {
            let data = data.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            let map = ConfigMap {
                data: Some(data),
                ..Default::default()
            };
            self.config_maps
                .lock()
                .insert((namespace.into(), name.into()), Arc::new(map));
        }
    }

    #[async_trait]
    impl Objects for FakeObjects {
        async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError> {
            let found = self
                .config_maps
                .lock()
                .get(&(namespace.into(), name.into()))
                .cloned();
            found.ok_or_else(|| ObjectError::NotFound {
                kind: "configmap",
                name: name.into(),
            })
        }

        async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ObjectError> {
            let found = self.secrets.lock().get(&(namespace.into(), name.into())).cloned();
            found.ok_or_else(|| ObjectError::NotFound {
                kind: "secret",
                name: name.into(),
            })
        }

        async fn token(&self, request: &TokenRequest) -> Result<Token, ObjectError> {
            self.tokens.lock().push(request.expiration_seconds);
            let issued = jiff::Timestamp::now();
            let expires = issued + jiff::SignedDuration::from_secs(request.expiration_seconds);
            Ok(Token {
                token: format!("token-{}", self.tokens.lock().len()),
                issued,
                expires,
            })
        }

        fn services(&self) -> Option<Vec<Arc<Service>>> {
            Some(self.services.clone())
        }

        fn register(&self, _: &k8s_openapi::api::core::v1::Pod) {}
        fn unregister(&self, _: &PodUid) {}
    }
}
