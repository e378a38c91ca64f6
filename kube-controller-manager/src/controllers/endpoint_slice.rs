//! Tells, in EndpointSlices, which pods stand behind each Service that has a selector.
//!
//! [`desired`] computes what should be told, [`packing`] fits it into slices with as few writes as upstream needs, [`tracker`]
//! keeps a pass from running on a cache that has not seen the last pass's writes.

mod desired;
mod packing;
mod tracker;

use crate::context::Context;
use crate::controllers::Controller;
use crate::driver::{Driver, Failure, Outcome, Reconciler, Requeue, synced};
use crate::informers::{NAMESPACE, SERVICE};
use crate::meta::{is_deleted, key_in, label, name, namespace};
use crate::selector;
use client::informer::{Event, Informer, Store};
use client::workqueue::WorkQueue;
use client::{Client, object_key};
pub(super) use desired::{addresses, hostname, ports, publishes_not_ready, tells_the_same};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use packing::Plan;
use std::sync::Arc;
use std::time::Duration;
use tracker::Tracker;

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// A failing service is retried from one second on, up to upstream's cap.
const BASE_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(1000);

pub fn build(context: &Context) -> Option<Box<dyn Controller>> {
    let queue = WorkQueue::with_delays("endpoint_slice", BASE_DELAY, MAX_DELAY);
    let informers = &context.informers;
    let (services, pods, nodes, slices) = (
        informers.services.start(),
        informers.pods.start(),
        informers.nodes.start(),
        informers.endpoint_slices.start(),
    );
    let tracker = Arc::new(Tracker::default());
    hear_services(&informers.services, &queue, &tracker);
    hear_pods(&informers.pods, &queue, index_services(&informers.services));
    hear_slices(&informers.endpoint_slices, &queue, &tracker);
    let needs = vec![synced(&services), synced(&pods), synced(&nodes), synced(&slices)];
    let max = context.options.max_endpoints_per_slice;
    let reconciler = Arc::new(Slices {
        client: context.client_for("endpointslice-controller"),
        services,
        pods,
        nodes,
        slices,
        tracker,
        max,
    });
    Some(Box::new(Driver {
        name: "endpointslice-controller",
        queue,
        reconciler,
        workers: context.options.workers.endpoint_slice,
        needs,
    }))
}

fn hear_services(informer: &Informer<Service>, queue: &WorkQueue<String>, tracker: &Arc<Tracker>) {
    let (queue, tracker) = (queue.clone(), tracker.clone());
    informer.on_event(move |event| match event {
        Event::Added(service) => queue.add(object_key(&**service)),
        // What the slices tell depends on spec, labels and deletion; a load balancer's status is not news.
        Event::Modified(old, new)
            if old.spec == new.spec
                && old.metadata.labels == new.metadata.labels
                && old.metadata.uid == new.metadata.uid => {}
        Event::Modified(_, service) => queue.add(object_key(&**service)),
        Event::Deleted(service) => {
            tracker.forget(&object_key(&**service));
            queue.add(object_key(&**service));
        }
        Event::Synced => {}
    });
}

/// Services by namespace, for the pods that may belong to them.
pub(super) fn index_services(informer: &Informer<Service>) -> Store<Service> {
    informer
        .clone()
        .index(NAMESPACE, |service: &Service| {
            service.metadata.namespace.iter().cloned().collect()
        })
        .store()
}

fn hear_pods(informer: &Informer<Pod>, queue: &WorkQueue<String>, services: Store<Service>) {
    let queue = queue.clone();
    informer.on_event(move |event| match event {
        Event::Added(pod) | Event::Deleted(pod) => wake_services(&services, &queue, &[pod]),
        Event::Modified(old, new) if tells_the_same(old, new) => {}
        Event::Modified(old, new) => wake_services(&services, &queue, &[old, new]),
        Event::Synced => {}
    });
}

pub(super) fn wake_services(services: &Store<Service>, queue: &WorkQueue<String>, pods: &[&Arc<Pod>]) {
    let Some(first) = pods.first() else { return };
    for service in services.by_index(NAMESPACE, namespace(&first.metadata)) {
        let Some(wanted) = selector_of(&service) else {
            continue;
        };
        if pods
            .iter()
            .any(|pod| selector::contains(pod.metadata.labels.as_ref(), wanted))
        {
            queue.add(object_key(&*service));
        }
    }
}

/// A service without a selector is its user's business.
pub(super) fn selector_of(service: &Service) -> Option<&std::collections::BTreeMap<String, String>> {
    service.spec.as_ref()?.selector.as_ref().filter(|s| !s.is_empty())
}

fn hear_slices(informer: &Informer<EndpointSlice>, queue: &WorkQueue<String>, tracker: &Arc<Tracker>) {
    let (queue, tracker) = (queue.clone(), tracker.clone());
    informer.on_event(move |event| {
        let (Event::Added(slice) | Event::Modified(_, slice) | Event::Deleted(slice)) = &event else {
            return;
        };
        let Some(key) = service_key(slice).filter(|_| is_ours(slice)) else {
            return;
        };
        let surprising = match &event {
            Event::Deleted(slice) => !tracker.saw_deletion(&key, slice),
            _ => tracker.is_foreign(&key, slice),
        };
        if surprising {
            queue.add(key);
        }
    });
}

fn service_key(slice: &EndpointSlice) -> Option<String> {
    Some(key_in(
        namespace(&slice.metadata),
        label(&slice.metadata, SERVICE_NAME)?,
    ))
}

fn is_ours(slice: &EndpointSlice) -> bool {
    label(&slice.metadata, MANAGED_BY) == Some(CONTROLLER)
}

struct Slices {
    client: Client,
    services: Store<Service>,
    pods: Store<Pod>,
    nodes: Store<Node>,
    slices: Store<EndpointSlice>,
    tracker: Arc<Tracker>,
    max: usize,
}

impl Reconciler for Slices {
    async fn reconcile(&self, key: &str) -> Outcome {
        let Some(service) = self.services.get(key) else {
            return Ok(Requeue::Done);
        };
        let is_external = service.spec.as_ref().and_then(|s| s.type_.as_deref()) == Some("ExternalName");
        let Some(wanted) = selector_of(&service) else {
            return Ok(Requeue::Done);
        };
        // The slices of a service that is being deleted are garbage soon; nobody waits for them to be right.
        if is_external || is_deleted(&service.metadata) {
            return Ok(Requeue::Done);
        }
        let existing: Vec<_> = self
            .slices
            .by_index(SERVICE, key)
            .into_iter()
            .filter(|s| is_ours(s) && !is_deleted(&s.metadata))
            .collect();
        if self.tracker.is_stale(key, &existing) {
            return Err(Failure::NotYet("the EndpointSlice cache is out of date".into()));
        }
        let pods = self.pods.by_index(NAMESPACE, namespace(&service.metadata));
        let pods: Vec<_> = pods
            .into_iter()
            .filter(|pod| selector::contains(pod.metadata.labels.as_ref(), wanted))
            .collect();
        let desired = desired::endpoints(&service, &pods, &self.nodes);
        let plan = packing::plan(&service, desired.groups, existing, self.max);
        self.carry_out(key, plan).await?;
        match desired.skipped {
            0 => Ok(Requeue::Done),
            skipped => Err(Failure::NotYet(format!(
                "{skipped} pods run on nodes that are not known yet"
            ))),
        }
    }
}

impl Slices {
    /// Created before deleted, so that no endpoint is missing in between.
    async fn carry_out(&self, key: &str, plan: Plan) -> Result<(), Failure> {
        let (namespace, _) = client::split_key(key);
        let api = self.client.namespaced::<EndpointSlice>(namespace);
        for slice in &plan.create {
            match api.create(slice).await {
                Err(error) if error.is_namespace_terminating() => return Ok(()),
                created => self.tracker.wrote(key, &created?),
            }
        }
        for slice in &plan.update {
            self.tracker.wrote(key, &api.update(slice).await?);
        }
        for slice in &plan.delete {
            match api.delete(name(&slice.metadata), &Default::default()).await {
                Err(error) if error.is_not_found() => {}
                outcome => outcome?,
            }
            self.tracker.deleted(key, slice);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
