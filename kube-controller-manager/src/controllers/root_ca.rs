//! Publishes the cluster's CA to every namespace, in the config map that service account volumes project.

use crate::context::Context;
use crate::controllers::Controller;
use crate::controllers::service_account::is_active;
use crate::driver::{Driver, Outcome, Reconciler, Requeue, synced};
use crate::informers::ROOT_CA_CONFIG_MAP;
use crate::meta::{key_in, name, namespace};
use client::Client;
use client::informer::{Event, Store};
use client::workqueue::WorkQueue;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;

const KEY: &str = "ca.crt";
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.",
);

pub fn build(context: &Context) -> Option<Box<dyn Controller>> {
    let root_ca = context.options.root_ca.clone()?;
    let queue = WorkQueue::new("root_ca_cert_publisher");
    let (namespaces, maps) = (
        context.informers.namespaces.start(),
        context.informers.root_ca_config_maps.start(),
    );
    context.informers.namespaces.on_event({
        let queue = queue.clone();
        move |event| match event {
            Event::Added(o) | Event::Modified(_, o) => queue.add(name(&o.metadata).to_owned()),
            _ => {}
        }
    });
    context.informers.root_ca_config_maps.on_event({
        let queue = queue.clone();
        move |event| match event {
            Event::Deleted(o) | Event::Modified(_, o) => queue.add(namespace(&o.metadata).to_owned()),
            _ => {}
        }
    });
    let needs = vec![synced(&namespaces), synced(&maps)];
    let reconciler = Arc::new(Publisher {
        client: context.client_for("root-ca-cert-publisher"),
        root_ca,
        namespaces,
        maps,
    });
    Some(Box::new(Driver {
        name: "root-ca-certificate-publisher-controller",
        queue,
        reconciler,
        workers: 1,
        needs,
    }))
}

struct Publisher {
    client: Client,
    root_ca: String,
    namespaces: Store<Namespace>,
    maps: Store<ConfigMap>,
}

impl Reconciler for Publisher {
    async fn reconcile(&self, key: &str) -> Outcome {
        if !is_active(&self.namespaces, key) {
            return Ok(Requeue::Done);
        }
        match self.maps.get(&key_in(key, ROOT_CA_CONFIG_MAP)) {
            None => self.create(key).await,
            Some(map) if self.is_right(&map) => Ok(Requeue::Done),
            Some(map) => self.mend(key, (*map).clone()).await,
        }
    }
}

impl Publisher {
    fn data(&self) -> BTreeMap<String, String> {
        [(KEY.to_owned(), self.root_ca.clone())].into()
    }

    /// The annotation is only put where it is missing, as upstream does: a user may change its text.
    fn is_right(&self, map: &ConfigMap) -> bool {
        map.data.as_ref() == Some(&self.data())
            && map
                .metadata
                .annotations
                .as_ref()
                .is_some_and(|a| a.contains_key(DESCRIPTION.0))
    }

    async fn create(&self, namespace: &str) -> Outcome {
        let annotations = [(DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned())].into();
        let metadata = ObjectMeta {
            name: Some(ROOT_CA_CONFIG_MAP.into()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        };
        let map = ConfigMap {
            metadata,
            data: Some(self.data()),
            ..ConfigMap::default()
        };
        match self.client.namespaced(namespace).create(&map).await {
            Err(error)
                if error.is_already_exists() || error.is_namespace_terminating() || error.is_not_found() =>
            {
                Ok(Requeue::Done)
            }
            outcome => outcome.map(|_| Requeue::Done).map_err(Into::into),
        }
    }

    async fn mend(&self, namespace: &str, mut map: ConfigMap) -> Outcome {
        map.data = Some(self.data());
        map.metadata
            .annotations
            .get_or_insert_default()
            .entry(DESCRIPTION.0.into())
            .or_insert(DESCRIPTION.1.into());
        self.client.namespaced(namespace).update(&map).await?;
        Ok(Requeue::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::fake::FakeServer;

    #[tokio::test]
    async fn the_map_is_made_mended_and_otherwise_left_alone() {
        let server = FakeServer::new();
        let client = server.client();
        let namespaces = Store::of([Namespace {
            metadata: ObjectMeta {
                name: Some("a".into()),
                ..Default::default()
            },
            ..Default::default()
        }]);
        let publisher = |maps| Publisher {
            client: server.client(),
            root_ca: "CA".into(),
            namespaces: namespaces.clone(),
            maps,
        };
        publisher(Store::of([])).reconcile("a").await.unwrap();
        let mut map = client
            .namespaced::<ConfigMap>("a")
            .get(ROOT_CA_CONFIG_MAP)
            .await
            .unwrap();
        server.forget_writes();
        publisher(Store::of([map.clone()])).reconcile("a").await.unwrap();
        assert!(server.writes().is_empty());
        map.data = Some(
            [
                ("ca.crt".to_owned(), "evil".to_owned()),
                ("more".to_owned(), String::new()),
            ]
            .into(),
        );
        let map = client.namespaced("a").update(&map).await.unwrap();
        publisher(Store::of([map])).reconcile("a").await.unwrap();
        assert_eq!(
            client
                .namespaced::<ConfigMap>("a")
                .get(ROOT_CA_CONFIG_MAP)
                .await
                .unwrap()
                .data,
            Some([("ca.crt".to_owned(), "CA".to_owned())].into())
        );
    }
}
