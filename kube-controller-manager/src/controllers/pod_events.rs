//! What events of pods mean for the objects that control them: observed expectations and woken owners.

use crate::expectations::Expectations;
use crate::informers::NAMESPACE;
use crate::meta::{controlled_by_kind, controller_of, is_deleted, key_in, namespace, uid};
use crate::selector;
use client::informer::{Event, Informer, Store};
use client::workqueue::WorkQueue;
use client::{Object, object_key};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::borrow::Cow;
use std::sync::Arc;

pub struct PodEvents<T> {
    /// Indexed by namespace.
    pub owners: Store<T>,
    pub queue: WorkQueue<String>,
    pub expectations: Arc<Expectations>,
    pub selector: fn(&T) -> Option<Cow<'_, LabelSelector>>,
}

impl<T: Object> PodEvents<T> {
    pub fn hear(self, pods: &Informer<Pod>) {
        pods.on_event(move |event| match event {
            Event::Added(pod) if is_deleted(&pod.metadata) => self.deleted(pod),
            Event::Added(pod) => self.added(pod),
            Event::Modified(old, new) => self.modified(old, new),
            Event::Deleted(pod) => self.deleted(pod),
            Event::Synced => {}
        });
    }

    fn added(&self, pod: &Pod) {
        match owner(&self.owners, pod) {
            Some(owner) => {
                let key = object_key(&*owner);
                self.expectations.creation_observed(&key);
                self.queue.add(key);
            }
            None => self.wake_adopters(pod),
        }
    }

    /// A pod that is on its way out is seen as deleted: its owner need not wait for the end.
    fn modified(&self, old: &Pod, new: &Pod) {
        if is_deleted(&new.metadata) {
            self.deleted(new);
            if old.metadata.labels != new.metadata.labels {
                self.deleted(old);
            }
            return;
        }
        let (before, after) = (
            controlled_by_kind::<T>(&old.metadata),
            controlled_by_kind::<T>(&new.metadata),
        );
        if before != after {
            self.wake_owner(old);
        }
        if after.is_some() {
            return self.wake_owner(new);
        }
        if before.is_some() || old.metadata.labels != new.metadata.labels {
            self.wake_adopters(new);
        }
    }

    fn deleted(&self, pod: &Pod) {
        if let Some(owner) = owner(&self.owners, pod) {
            let key = object_key(&*owner);
            self.expectations.deletion_observed(&key, uid(&pod.metadata));
            self.queue.add(key);
        }
    }

    fn wake_owner(&self, pod: &Pod) {
        if let Some(owner) = owner(&self.owners, pod) {
            self.queue.add(object_key(&*owner));
        }
    }

    fn wake_adopters(&self, pod: &Pod) {
        if controller_of(&pod.metadata).is_some() || pod.metadata.labels.is_none() {
            return;
        }
        for owner in self.owners.by_index(NAMESPACE, namespace(&pod.metadata)) {
            let selects = (self.selector)(&owner)
                .is_some_and(|s| !selector::is_empty(&s) && selector::selects(&s, &pod.metadata));
            if selects {
                self.queue.add(object_key(&*owner));
            }
        }
    }
}

/// The owner in the store, when it is of the store's kind and still the same object.
pub fn owner<T: Object, C: Object>(owners: &Store<T>, dependent: &C) -> Option<Arc<T>> {
    let reference = controlled_by_kind::<T>(dependent.metadata())?;
    let owner = owners.get(&key_in(namespace(dependent.metadata()), &reference.name))?;
    (uid(owner.metadata()) == reference.uid).then_some(owner)
}
