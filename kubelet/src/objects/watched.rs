//! One informer for each referenced config map or secret, shared by the pods that refer to it and gone with the last of them.

use std::collections::{HashMap, HashSet, hash_map};
use std::sync::Arc;
use std::time::Duration;

use client::informer::{Event as Change, Informer, Store};
use client::{Api, Client, ListOptions};
use k8s_openapi::api::authentication::v1::{
    BoundObjectReference, TokenRequest as ApiTokenRequest, TokenRequestSpec,
};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use parking_lot::Mutex;
use tonic::async_trait;

use super::{Kind, ObjectError, Objects, Reference, Token, TokenRequest, references};
use crate::pod::{PodExt, PodUid};

/// A first list takes a moment; a pod's sync does not wait for ever.
const FIRST_LIST: Duration = Duration::from_secs(10);

enum Watch {
    ConfigMap(Informer<ConfigMap>, Store<ConfigMap>),
    Secret(Informer<Secret>, Store<Secret>),
}

impl Watch {
    fn stop(&self) {
        match self {
            Self::ConfigMap(informer, _) => informer.stop(),
            Self::Secret(informer, _) => informer.stop(),
        }
    }
}

struct Entry {
    watch: Watch,
    pods: HashSet<PodUid>,
}

type Changed = Arc<dyn Fn(PodUid) + Send + Sync>;

pub struct WatchedObjects {
    client: Client,
    entries: Arc<Mutex<HashMap<Reference, Entry>>>,
    services: Store<Service>,
    _services: Informer<Service>,
    changed: Changed,
}

impl WatchedObjects {
    /// `changed` is told of each pod that refers to what changed.
    pub fn new(client: Client, changed: Changed) -> Self {
        let services = Informer::new(client.all::<Service>(), ListOptions::default())
            .transform(|s: &mut Service| s.metadata.managed_fields = None);
        let store = services.start();
        Self {
            client,
            entries: Arc::default(),
            services: store,
            _services: services,
            changed,
        }
    }

    fn watch(&self, reference: &Reference) -> Watch {
        let options = ListOptions::fields(format!("metadata.name={}", reference.name));
        let (entries, changed, key) = (self.entries.clone(), self.changed.clone(), reference.clone());
        let tell = move || {
            let pods: Vec<PodUid> = entries
                .lock()
                .get(&key)
                .iter()
                .flat_map(|e| e.pods.iter().cloned())
                .collect();
            pods.into_iter().for_each(|uid| changed(uid));
        };
        match reference.kind {
            Kind::ConfigMap => {
                let api: Api<ConfigMap> = self.client.namespaced(&reference.namespace);
                let informer = Informer::new(api, options);
                let is_change = change_filter();
                informer.on_event(move |c| {
                    if is_change(&c) {
                        tell()
                    }
                });
                let store = informer.start();
                Watch::ConfigMap(informer, store)
            }
            Kind::Secret => {
                let api: Api<Secret> = self.client.namespaced(&reference.namespace);
                let informer = Informer::new(api, options);
                let is_change = change_filter();
                informer.on_event(move |c| {
                    if is_change(&c) {
                        tell()
                    }
                });
                let store = informer.start();
                Watch::Secret(informer, store)
            }
        }
    }

    fn config_map_store(&self, reference: &Reference) -> Option<Store<ConfigMap>> {
        match &self.entries.lock().get(reference)?.watch {
            Watch::ConfigMap(_, store) => Some(store.clone()),
            Watch::Secret(..) => None,
        }
    }

    fn secret_store(&self, reference: &Reference) -> Option<Store<Secret>> {
        match &self.entries.lock().get(reference)?.watch {
            Watch::Secret(_, store) => Some(store.clone()),
            Watch::ConfigMap(..) => None,
        }
    }
}

/// What the first list brings is no change: the pod that asked is waiting for it.
fn change_filter<T>() -> impl Fn(&Change<&Arc<T>>) -> bool {
    let synced = std::sync::atomic::AtomicBool::new(false);
    move |change| match change {
        Change::Synced => {
            synced.store(true, std::sync::atomic::Ordering::Relaxed);
            false
        }
        _ => synced.load(std::sync::atomic::Ordering::Relaxed),
    }
}

async fn read<T: client::Object>(
    store: Option<Store<T>>,
    api: Api<T>,
    kind: &'static str,
    namespace: &str,
    name: &str,
) -> Result<Arc<T>, ObjectError> {
    let not_found = || ObjectError::NotFound {
        kind,
        name: name.to_string(),
    };
    let Some(store) = store else {
        // Not registered (an image pull secret of a pod that is just being stopped): asked once.
        return match api.get(name).await {
            Ok(object) => Ok(Arc::new(object)),
            Err(e) if e.is_not_found() => Err(not_found()),
            Err(e) => Err(ObjectError::Api(e.to_string())),
        };
    };
    if !store.is_synced()
        && tokio::time::timeout(FIRST_LIST, store.wait_synced())
            .await
            .is_err()
    {
        return Err(ObjectError::Timeout { kind });
    }
    store.get(&format!("{namespace}/{name}")).ok_or_else(not_found)
}

#[async_trait]
impl Objects for WatchedObjects {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError> {
        let reference = Reference {
            kind: Kind::ConfigMap,
            namespace: namespace.into(),
            name: name.into(),
        };
        read(
            self.config_map_store(&reference),
            self.client.namespaced(namespace),
            "configmap",
            namespace,
            name,
        )
        .await
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ObjectError> {
        let reference = Reference {
            kind: Kind::Secret,
            namespace: namespace.into(),
            name: name.into(),
        };
        read(
            self.secret_store(&reference),
            self.client.namespaced(namespace),
            "secret",
            namespace,
            name,
        )
        .await
    }

    async fn token(&self, request: &TokenRequest) -> Result<Token, ObjectError> {
        let body = ApiTokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: request.audience.clone().map(|a| vec![a]),
                expiration_seconds: Some(request.expiration_seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: Some(request.pod_name.clone()),
                    uid: Some(request.pod_uid.to_string()),
                }),
            }),
            ..Default::default()
        };
        let api: Api<ServiceAccount> = self.client.namespaced(&request.namespace);
        let answer: Result<ApiTokenRequest, client::Error> = api
            .create_subresource(&request.service_account, "token", &body)
            .await;
        let failed = |text: String| ObjectError::Api(format!("failed to fetch token: {text}"));
        let status = answer
            .map_err(|e| failed(e.to_string()))?
            .status
            .ok_or_else(|| failed("no status".into()))?;
        let token = status.token.ok_or_else(|| failed("no token".into()))?;
        let expires = status
            .expiration_timestamp
            .ok_or_else(|| failed("no expiration".into()))?
            .0;
        Ok(Token {
            token,
            issued: jiff::Timestamp::now(),
            expires,
        })
    }

    fn services(&self) -> Option<Vec<Arc<Service>>> {
        self.services.is_synced().then(|| self.services.list())
    }

    fn register(&self, pod: &Pod) {
        for reference in references(pod) {
            if let Some(entry) = self.entries.lock().get_mut(&reference) {
                entry.pods.insert(pod.uid());
                continue;
            }
            // Made outside of the lock: its first event takes it.
            let watch = self.watch(&reference);
            let mut entries = self.entries.lock();
            match entries.entry(reference) {
                hash_map::Entry::Occupied(mut other) => {
                    watch.stop();
                    other.get_mut().pods.insert(pod.uid());
                }
                hash_map::Entry::Vacant(free) => {
                    free.insert(Entry {
                        watch,
                        pods: HashSet::from([pod.uid()]),
                    });
                }
            }
        }
    }

    fn unregister(&self, uid: &PodUid) {
        self.entries.lock().retain(|_, entry| {
            entry.pods.remove(uid);
            if entry.pods.is_empty() {
                entry.watch.stop();
            }
            !entry.pods.is_empty()
        });
    }
}
