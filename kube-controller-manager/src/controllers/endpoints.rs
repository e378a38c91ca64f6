//! The old form of [`super::endpoint_slice`]: one Endpoints object for each Service, for clients that still read it.

mod subsets;

use crate::context::Context;
use crate::controllers::Controller;
use crate::controllers::endpoint_slice::{index_services, selector_of, tells_the_same, wake_services};
use crate::driver::{Driver, Failure, Outcome, Reconciler, Requeue, synced};
use crate::informers::NAMESPACE;
use crate::meta::{is_deleted, name, namespace};
use crate::selector;
use client::events::{EventRecorder, object_reference};
use client::informer::{Event, Store};
use client::workqueue::WorkQueue;
use client::{Client, object_key, split_key};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const HEADLESS: &str = "service.kubernetes.io/headless";
const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const BASE_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(1000);

pub fn build(context: &Context) -> Option<Box<dyn Controller>> {
    let queue = WorkQueue::with_delays("endpoint", BASE_DELAY, MAX_DELAY);
    let informers = &context.informers;
    let (services, pods, endpoints) = (
        informers.services.start(),
        informers.pods.start(),
        informers.endpoints.start(),
    );
    informers.services.on_event({
        let queue = queue.clone();
        move |event| match event {
            Event::Modified(old, new)
                if old.spec == new.spec && old.metadata.labels == new.metadata.labels => {}
            Event::Added(service) | Event::Modified(_, service) | Event::Deleted(service) => {
                queue.add(object_key(&**service))
            }
            Event::Synced => {}
        }
    });
    let indexed = index_services(&informers.services);
    informers.pods.on_event({
        let queue = queue.clone();
        move |event| match event {
            Event::Added(pod) | Event::Deleted(pod) => wake_services(&indexed, &queue, &[pod]),
            Event::Modified(old, new) if tells_the_same(old, new) => {}
            Event::Modified(old, new) => wake_services(&indexed, &queue, &[old, new]),
            Event::Synced => {}
        }
    });
    informers.endpoints.on_event({
        let queue = queue.clone();
        move |event| {
            if let Event::Deleted(gone) = event {
                queue.add(object_key(&**gone));
            }
        }
    });
    let needs = vec![synced(&services), synced(&pods), synced(&endpoints)];
    let client = context.client_for("endpoint-controller");
    let reconciler = Arc::new(EndpointsController {
        client,
        recorder: context.recorder("endpoint-controller"),
        services,
        pods,
        endpoints,
    });
    Some(Box::new(Driver {
        name: "endpoints-controller",
        queue,
        reconciler,
        workers: context.options.workers.endpoint,
        needs,
    }))
}

struct EndpointsController {
    client: Client,
    recorder: EventRecorder,
    services: Store<Service>,
    pods: Store<Pod>,
    endpoints: Store<Endpoints>,
}

impl Reconciler for EndpointsController {
    async fn reconcile(&self, key: &str) -> Outcome {
        let Some(service) = self.services.get(key) else {
            return self.remove(key).await;
        };
        let is_external = service.spec.as_ref().and_then(|s| s.type_.as_deref()) == Some("ExternalName");
        let Some(wanted) = selector_of(&service).filter(|_| !is_external && !is_deleted(&service.metadata))
        else {
            return Ok(Requeue::Done);
        };
        let pods = self.pods.by_index(NAMESPACE, namespace(&service.metadata));
        let pods: Vec<_> = pods
            .into_iter()
            .filter(|pod| selector::contains(pod.metadata.labels.as_ref(), wanted))
            .collect();
        let (subsets, truncated) = subsets::of(&service, &pods);
        let current = self.endpoints.get(key);
        let mut new = current.as_deref().cloned().unwrap_or_else(|| empty(&service));
        new.subsets = Some(subsets).filter(|s| !s.is_empty());
        new.metadata.labels = Some(labels(&service));
        let annotations = new.metadata.annotations.get_or_insert_default();
        match truncated {
            true => drop(annotations.insert(OVER_CAPACITY.into(), "truncated".into())),
            false => drop(annotations.remove(OVER_CAPACITY)),
        }
        new.metadata.annotations = new.metadata.annotations.filter(|a| !a.is_empty());
        if current.is_some_and(|c| subsets::same(&c, &new)) {
            return Ok(Requeue::Done);
        }
        self.write(&service, new).await
    }
}

impl EndpointsController {
    /// A service that is gone takes its Endpoints along; those that a user keeps for a service yet to come stay.
    async fn remove(&self, key: &str) -> Outcome {
        let ours = self
            .endpoints
            .get(key)
            .is_some_and(|e| crate::meta::label(&e.metadata, MANAGED_BY.0) == Some(MANAGED_BY.1));
        if !ours {
            return Ok(Requeue::Done);
        }
        let (namespace, name) = split_key(key);
        match self
            .client
            .namespaced::<Endpoints>(namespace)
            .delete(name, &Default::default())
            .await
        {
            Err(error) if error.is_not_found() => Ok(Requeue::Done),
            outcome => outcome.map(|()| Requeue::Done).map_err(Into::into),
        }
    }

    async fn write(&self, service: &Service, new: Endpoints) -> Outcome {
        let api = self.client.namespaced::<Endpoints>(namespace(&service.metadata));
        let is_new = new.metadata.resource_version.is_none();
        let written = if is_new {
            api.create(&new).await
        } else {
            api.update(&new).await
        };
        match written {
            Ok(_) => Ok(Requeue::Done),
            Err(error) if error.is_namespace_terminating() => Ok(Requeue::Done),
            // Our cache is behind; its next event brings the truth.
            Err(error) if error.is_conflict() || error.is_already_exists() => {
                Err(Failure::NotYet(error.to_string()))
            }
            Err(error) => {
                let verb = if is_new {
                    ("FailedToCreateEndpoint", "create endpoint for service")
                } else {
                    ("FailedToUpdateEndpoint", "update endpoint")
                };
                self.recorder.event(
                    &object_reference(&new),
                    "Warning",
                    verb.0,
                    &format!("Failed to {} {}: {error}", verb.1, object_key(service)),
                );
                Err(error.into())
            }
        }
    }
}

fn empty(service: &Service) -> Endpoints {
    let metadata = ObjectMeta {
        name: Some(name(&service.metadata).to_owned()),
        namespace: service.metadata.namespace.clone(),
        ..ObjectMeta::default()
    };
    Endpoints {
        metadata,
        subsets: None,
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(MANAGED_BY.0.into(), MANAGED_BY.1.into());
    labels
}
