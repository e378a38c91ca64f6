//! What the scheduler watches, and how each change reaches it.

use std::sync::Arc;

use client::informer::{Event, Informer};
use client::{Client, ListOptions, Object, object_key};
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, Service,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use tokio::task::JoinSet;

use super::Shared;
use crate::framework::events::{Actions, Kind};
use crate::framework::world::{Budget, Claim, Volume, World};
use crate::pod::slim;
use crate::selector::{Selector, node_terms};

/// Running informers; dropping it changes nothing, they live as long as the process.
pub struct Informers {
    waiting: JoinSet<()>,
}

impl Informers {
    /// Every kind has been listed once.
    pub async fn synced(mut self) {
        while self.waiting.join_next().await.is_some() {}
    }
}

pub fn start(client: &Client, shared: &Arc<Shared>) -> Informers {
    let mut starter = Starter {
        client: client.clone(),
        shared: Arc::clone(shared),
        waiting: JoinSet::new(),
    };
    starter.nodes();
    starter.workloads();
    starter.storage();
    starter.others();
    // Last: the more is known of the cluster, the fewer pods are refused in vain at the start.
    starter.pods();
    Informers {
        waiting: starter.waiting,
    }
}

struct Starter {
    client: Client,
    shared: Arc<Shared>,
    waiting: JoinSet<()>,
}

impl Starter {
    fn begin<T: Object>(&mut self, informer: Informer<T>) {
        let store = informer.start();
        self.waiting.spawn(async move { store.wait_synced().await });
    }

    fn pods(&mut self) {
        let running = ListOptions::fields("status.phase!=Succeeded,status.phase!=Failed");
        let informer: Informer<Pod> = Informer::new(self.client.all(), running).transform(slim);
        let shared = Arc::clone(&self.shared);
        informer.on_event(move |event| match event {
            Event::Added(new) => shared.change(|s, now| s.put_pod(None, new, now)),
            Event::Modified(old, new) => shared.change(|s, now| s.put_pod(Some(old), new, now)),
            Event::Deleted(gone) => shared.change(|s, now| s.remove_pod(gone, now)),
            Event::Synced => {}
        });
        self.begin(informer);
    }

    fn nodes(&mut self) {
        let informer: Informer<Node> =
            Informer::new(self.client.all(), ListOptions::default()).transform(slim_node);
        let shared = Arc::clone(&self.shared);
        informer.on_event(move |event| match event {
            Event::Added(new) => shared.change(|s, now| s.put_node(None, new, now)),
            Event::Modified(old, new) => shared.change(|s, now| s.put_node(Some(old), new, now)),
            Event::Deleted(gone) => shared.change(|s, now| s.remove_node(gone, now)),
            Event::Synced => {}
        });
        self.begin(informer);
    }

    /// An informer whose objects become facts of the world: `put` with the object, or with `None` when it is gone.
    fn facts<T: Object>(
        &mut self,
        kind: Kind,
        cut: impl Fn(&mut T) + Send + Sync + 'static,
        put: impl Fn(&mut World, &T, bool) + Send + Sync + 'static,
    ) {
        let informer: Informer<T> = Informer::new(self.client.all(), ListOptions::default()).transform(cut);
        let shared = Arc::clone(&self.shared);
        informer.on_event(move |event| {
            let (object, action) = match event {
                Event::Added(new) => (new, Actions::ADD),
                Event::Modified(_, new) => (new, Actions::UPDATE),
                Event::Deleted(gone) => (gone, Actions::DELETE),
                Event::Synced => return,
            };
            shared.change(|s, now| {
                put(&mut s.world, object, action != Actions::DELETE);
                s.on_other(kind, action, now);
            });
        });
        self.begin(informer);
    }

    fn others(&mut self) {
        self.facts(
            Kind::Namespace,
            slim_meta,
            |world, namespace: &Namespace, present| {
                let name = namespace.metadata.name.as_deref().unwrap_or_default();
                if present {
                    world
                        .namespaces
                        .insert(name.into(), namespace.metadata.labels.clone().unwrap_or_default());
                } else {
                    world.namespaces.remove(name);
                }
            },
        );
        self.facts(
            Kind::Workload,
            slim_meta,
            |world, budget: &PodDisruptionBudget, present| {
                let key = object_key(budget);
                if present {
                    world.budgets.insert(key, budget_facts(budget));
                } else {
                    world.budgets.remove(&key);
                }
            },
        );
    }

    fn workloads(&mut self) {
        self.facts(Kind::Service, slim_meta, |world, service: &Service, present| {
            let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
            let services = world.workloads.services.entry(namespace.into()).or_default();
            let name = service.metadata.name.clone().unwrap_or_default();
            let selector = service.spec.as_ref().and_then(|s| s.selector.clone());
            match selector.filter(|_| present) {
                Some(selector) => drop(services.insert(name, selector)),
                None => drop(services.remove(&name)),
            }
            if services.is_empty() {
                world.workloads.services.remove(namespace);
            }
        });
        let no_pod_template = |set: &mut ReplicaSet| {
            slim_meta(set);
            set.status = None;
            set.spec.iter_mut().for_each(|s| s.template = None);
        };
        self.facts(
            Kind::Workload,
            no_pod_template,
            |world, set: &ReplicaSet, present| {
                let selector = set.spec.as_ref().map(|s| Selector::new(Some(&s.selector)));
                put_controller(world, "ReplicaSet", set, selector.filter(|_| present));
            },
        );
        let no_pod_template = |set: &mut StatefulSet| {
            slim_meta(set);
            set.status = None;
            set.spec.iter_mut().for_each(|s| s.template = Default::default());
        };
        self.facts(
            Kind::Workload,
            no_pod_template,
            |world, set: &StatefulSet, present| {
                let selector = set.spec.as_ref().map(|s| Selector::new(Some(&s.selector)));
                put_controller(world, "StatefulSet", set, selector.filter(|_| present));
            },
        );
        let no_pod_template = |controller: &mut ReplicationController| {
            slim_meta(controller);
            controller.status = None;
            controller.spec.iter_mut().for_each(|s| s.template = None);
        };
        self.facts(
            Kind::Workload,
            no_pod_template,
            |world, rc: &ReplicationController, present| {
                let selector = rc
                    .spec
                    .as_ref()
                    .and_then(|s| s.selector.as_ref())
                    .map(Selector::from_map);
                put_controller(world, "ReplicationController", rc, selector.filter(|_| present));
            },
        );
    }

    fn storage(&mut self) {
        self.facts(
            Kind::PersistentVolumeClaim,
            slim_meta,
            |world, claim: &PersistentVolumeClaim, present| {
                let key = object_key(claim);
                if present {
                    world.volumes.claims.insert(key, claim_facts(claim));
                } else {
                    world.volumes.claims.remove(&key);
                }
            },
        );
        self.facts(
            Kind::PersistentVolume,
            slim_meta,
            |world, volume: &PersistentVolume, present| {
                let name = object_key(volume);
                let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref());
                let required = affinity.and_then(|a| a.required.as_ref()).map(node_terms);
                if present {
                    world.volumes.volumes.insert(name, Volume { required });
                } else {
                    world.volumes.volumes.remove(&name);
                }
            },
        );
        self.facts(
            Kind::StorageClass,
            slim_meta,
            |world, class: &StorageClass, present| {
                let late = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
                if present {
                    world.volumes.late_binding_classes.insert(object_key(class), late);
                } else {
                    world.volumes.late_binding_classes.remove(&object_key(class));
                }
            },
        );
    }
}

fn put_controller<T: Object>(world: &mut World, kind: &'static str, object: &T, selector: Option<Selector>) {
    let key = (kind, object_key(object));
    match selector {
        Some(selector) => drop(world.workloads.controllers.insert(key, selector)),
        None => drop(world.workloads.controllers.remove(&key)),
    }
}

fn budget_facts(budget: &PodDisruptionBudget) -> Budget {
    let status = budget.status.as_ref();
    let disrupted = status.and_then(|s| s.disrupted_pods.as_ref());
    Budget {
        namespace: budget.metadata.namespace.as_deref().unwrap_or_default().into(),
        selector: Selector::new(budget.spec.as_ref().and_then(|s| s.selector.as_ref())),
        disruptions_allowed: status.and_then(|s| s.disruptions_allowed).unwrap_or(0),
        disrupted: disrupted.map(|d| d.keys().cloned().collect()).unwrap_or_default(),
    }
}

fn claim_facts(claim: &PersistentVolumeClaim) -> Claim {
    let spec = claim.spec.as_ref();
    Claim {
        volume: spec.and_then(|s| s.volume_name.clone()).unwrap_or_default(),
        class: spec
            .and_then(|s| s.storage_class_name.clone())
            .unwrap_or_default(),
        lost: claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Lost"),
        terminating: claim.metadata.deletion_timestamp.is_some(),
    }
}

fn slim_meta<T: Object>(object: &mut T) {
    let meta = object.metadata_mut();
    meta.managed_fields = None;
    meta.annotations = None;
}

/// Conditions and images stay: plugins read the images, and a changed condition is an event.
fn slim_node(node: &mut Node) {
    slim_meta(node);
    if let Some(status) = &mut node.status {
        status.node_info = None;
        status.addresses = None;
        status.volumes_attached = None;
        status.volumes_in_use = None;
    }
}
