//! One metadata watch for each deletable resource, following discovery.

use super::graph::Graph;
use super::look_key;
use crate::discovery::{Discovered, discover};
use client::informer::{Event, Informer};
use client::workqueue::WorkQueue;
use client::{Client, ListOptions, PartialObjectMetadata, ResourceType};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Events own nothing and are owned by nothing, and they are many.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];
/// Resources whose changes change discovery.
const SHAPES_DISCOVERY: [(&str, &str); 2] = [
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("apiregistration.k8s.io", "apiservices"),
];
/// A new definition is served a moment after it is stored.
const SETTLE: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(5);
/// One resource that cannot be listed must not stop collection of all others for longer.
const SYNC_PATIENCE: Duration = Duration::from_secs(30);
/// The graph's own latency: an owner and its dependent come on two watches.
const OWNER_PATIENCE: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub(super) struct Monitors {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    graph: Arc<Mutex<Graph>>,
    queue: WorkQueue<String>,
    running: Mutex<HashMap<ResourceType, Informer<PartialObjectMetadata>>>,
    /// All kinds, watched or not.
    known: Mutex<Vec<ResourceType>>,
    stale: Notify,
    started: watch::Sender<bool>,
}

impl Monitors {
    pub fn new(client: Client, graph: Arc<Mutex<Graph>>, queue: WorkQueue<String>) -> Self {
        let inner = Inner {
            client,
            graph,
            queue,
            running: Mutex::default(),
            known: Mutex::default(),
            stale: Notify::new(),
            started: watch::Sender::new(false),
        };
        Monitors {
            inner: Arc::new(inner),
        }
    }

    pub async fn follow_discovery(&self) {
        loop {
            let complete = match discover(&self.inner.client).await {
                Ok(found) => {
                    for (group, error) in &found.failed {
                        tracing::warn!(%group, %error, "Discovery failed for a group, keeping what is known of it");
                    }
                    let failed: Vec<_> = found
                        .failed
                        .iter()
                        .map(|(group_version, _)| group_of(group_version).to_owned())
                        .collect();
                    self.adjust(found.resources, &failed);
                    found.failed.is_empty()
                }
                Err(error) => {
                    tracing::warn!(%error, "Discovery failed");
                    false
                }
            };
            let changed = self.inner.stale.notified();
            match complete {
                true => changed.await,
                false => tokio::time::sleep(RETRY).await,
            }
            tokio::time::sleep(SETTLE).await;
        }
    }

    /// Starts what is new and stops what is gone; a group that did not answer is not gone.
    fn adjust(&self, found: Vec<Discovered>, failed: &[String]) {
        let mut known: Vec<_> = found.iter().map(|d| d.resource.clone()).collect();
        known.extend(
            self.inner
                .known
                .lock()
                .iter()
                .filter(|r| failed.contains(&r.group))
                .cloned(),
        );
        *self.inner.known.lock() = known;
        let wanted: Vec<_> = found
            .into_iter()
            .filter(is_collectable)
            .map(|d| d.resource)
            .collect();
        let mut running = self.inner.running.lock();
        running.retain(|resource, informer| {
            let stays = wanted.contains(resource) || failed.contains(&resource.group);
            if !stays {
                informer.stop();
            }
            stays
        });
        for resource in wanted {
            running
                .entry(resource)
                .or_insert_with_key(|resource| self.monitor(resource.clone()));
        }
        self.inner.started.send_replace(true);
    }

    fn monitor(&self, resource: ResourceType) -> Informer<PartialObjectMetadata> {
        let informer = Informer::new(
            self.inner.client.metadata(&resource, None),
            ListOptions::default(),
        )
        .transform(cut);
        let (monitors, resource) = (self.clone(), Arc::new(resource));
        informer.on_event(move |event| monitors.heard(&resource, event));
        informer.start();
        informer
    }

    fn heard(&self, resource: &Arc<ResourceType>, event: Event<&Arc<PartialObjectMetadata>>) {
        let shapes = SHAPES_DISCOVERY.contains(&(resource.group.as_str(), resource.resource.as_str()));
        if shapes && !matches!(event, Event::Synced) {
            self.inner.stale.notify_one();
        }
        match event {
            Event::Added(object) => self.observe(resource, object),
            Event::Modified(old, object) => {
                if old.metadata.uid != object.metadata.uid {
                    self.removed(old);
                }
                self.observe(resource, object);
            }
            Event::Deleted(object) => self.removed(object),
            Event::Synced => {}
        }
    }

    fn observe(&self, resource: &Arc<ResourceType>, object: &PartialObjectMetadata) {
        for key in self.inner.graph.lock().observe(resource, object) {
            self.inner.queue.add_after(key, OWNER_PATIENCE);
        }
    }

    fn removed(&self, object: &PartialObjectMetadata) {
        let uid = object.metadata.uid.as_deref().unwrap_or("");
        for woken in self.inner.graph.lock().remove(uid) {
            self.inner.queue.add(look_key(&woken));
        }
    }

    /// Waits until every monitor has listed once, within reason.
    pub async fn synced(&self) {
        // The sender lives as long as this does.
        drop(self.inner.started.subscribe().wait_for(|started| *started).await);
        let stores: Vec<_> = self.inner.running.lock().values().map(Informer::store).collect();
        let all = async {
            for store in &stores {
                store.wait_synced().await;
            }
        };
        if tokio::time::timeout(SYNC_PATIENCE, all).await.is_err() {
            tracing::warn!("Not all resources could be listed, collecting garbage among the others");
        }
    }

    /// The resource of a kind; any version of it shows the same objects.
    pub fn resource_of(&self, api_version: &str, kind: &str) -> Option<ResourceType> {
        let group = group_of(api_version);
        self.inner
            .known
            .lock()
            .iter()
            .find(|r| r.group == group && r.kind == kind)
            .cloned()
    }
}

fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

fn is_collectable(found: &Discovered) -> bool {
    let ignored = IGNORED.contains(&(found.resource.group.as_str(), found.resource.resource.as_str()));
    !ignored && ["delete", "list", "watch"].iter().all(|verb| found.can(verb))
}

/// Ownership and deletion are all that is needed of a cluster's objects.
fn cut(object: &mut PartialObjectMetadata) {
    let meta = std::mem::take(&mut object.metadata);
    object.metadata = ObjectMeta {
        name: meta.name,
        namespace: meta.namespace,
        uid: meta.uid,
        resource_version: meta.resource_version,
        owner_references: meta.owner_references,
        finalizers: meta.finalizers,
        deletion_timestamp: meta.deletion_timestamp,
        ..ObjectMeta::default()
    };
}
