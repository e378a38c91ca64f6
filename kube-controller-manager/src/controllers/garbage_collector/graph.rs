//! Who belongs to whom, by uid. No IO: a change goes in, the objects that deserve a look come out.

use super::{FOREGROUND, ORPHAN, identity, look_key, orphan_key};
use crate::meta::{is_deleted, namespace};
use client::{PartialObjectMetadata, ResourceType};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub resource: Arc<ResourceType>,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    owners: Vec<OwnerReference>,
    being_deleted: bool,
    /// In foreground deletion.
    pub deleting_dependents: bool,
    orphaning: bool,
}

impl Node {
    pub fn blocks(&self, owner: &str) -> bool {
        self.owners
            .iter()
            .any(|r| r.uid == owner && r.block_owner_deletion == Some(true))
    }
}

/// What is known of an owner.
#[derive(Debug, PartialEq)]
pub(super) enum Owner {
    Present,
    Absent,
    Waiting,
}

#[derive(Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
    /// By the owner's uid, whether or not the owner was ever seen.
    dependents: HashMap<String, HashSet<String>>,
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<Node> {
        self.nodes.get(uid).cloned()
    }

    pub fn dependents(&self, owner: &str) -> Vec<Node> {
        self.dependents
            .get(owner)
            .into_iter()
            .flatten()
            .filter_map(|uid| self.get(uid))
            .collect()
    }

    pub fn has_dependents(&self, owner: &str) -> bool {
        self.dependents.get(owner).is_some_and(|d| !d.is_empty())
    }

    /// Seen by watch, of that kind and place, and not on its way out.
    pub fn is_surely_present(&self, namespace: &str, reference: &OwnerReference) -> bool {
        self.nodes.get(&reference.uid).is_some_and(|owner| {
            let same_place = !owner.resource.namespaced || owner.namespace == namespace;
            let same_group = reference
                .api_version
                .split_once('/')
                .map_or("", |(group, _)| group)
                == owner.resource.group;
            !owner.being_deleted
                && same_place
                && same_group
                && owner.resource.kind == reference.kind
                && owner.name == reference.name
        })
    }

    pub fn with_unseen_owners(&self) -> Vec<String> {
        let unseen = |node: &&Node| node.owners.iter().any(|r| !self.nodes.contains_key(&r.uid));
        self.nodes
            .values()
            .filter(unseen)
            .map(|n| n.uid.clone())
            .collect()
    }

    /// An object was added or changed. The keys to queue.
    pub fn observe(&mut self, resource: &Arc<ResourceType>, object: &PartialObjectMetadata) -> Vec<String> {
        let (uid, name) = identity(object);
        let has = |finalizer: &str| {
            is_deleted(&object.metadata)
                && object
                    .metadata
                    .finalizers
                    .iter()
                    .flatten()
                    .any(|f| f == finalizer)
        };
        let node = Node {
            resource: resource.clone(),
            namespace: namespace(&object.metadata).to_owned(),
            name,
            uid: uid.clone(),
            owners: object.metadata.owner_references.clone().unwrap_or_default(),
            being_deleted: is_deleted(&object.metadata),
            deleting_dependents: has(FOREGROUND),
            orphaning: has(ORPHAN),
        };
        let old = self.nodes.insert(uid, node.clone());
        let mut wake = self.relink(old.as_ref(), &node);
        if node.orphaning && !old.as_ref().is_some_and(|o| o.orphaning) {
            wake.push(orphan_key(&node.uid));
        }
        if node.deleting_dependents && !old.as_ref().is_some_and(|o| o.deleting_dependents) {
            wake.push(look_key(&node.uid));
            wake.extend(
                self.dependents
                    .get(&node.uid)
                    .into_iter()
                    .flatten()
                    .map(|d| look_key(d)),
            );
        }
        wake
    }

    fn relink(&mut self, old: Option<&Node>, new: &Node) -> Vec<String> {
        let before = old.map(|o| o.owners.as_slice()).unwrap_or_default();
        if before == new.owners.as_slice() && old.is_some() {
            return Vec::new();
        }
        let mut wake = Vec::new();
        for gone in before
            .iter()
            .filter(|b| !new.owners.iter().any(|n| n.uid == b.uid))
        {
            self.unlink(&gone.uid, &new.uid);
        }
        for reference in &new.owners {
            self.dependents
                .entry(reference.uid.clone())
                .or_default()
                .insert(new.uid.clone());
        }
        // An owner that waits for its dependents may be free now: one left it, or stopped blocking it.
        let blocked = |list: &[OwnerReference], uid: &str| {
            list.iter()
                .any(|r| r.uid == uid && r.block_owner_deletion == Some(true))
        };
        wake.extend(
            before
                .iter()
                .filter(|b| b.block_owner_deletion == Some(true) && !blocked(&new.owners, &b.uid))
                .map(|b| look_key(&b.uid)),
        );
        let suspicious = new.owners.iter().any(|r| {
            self.nodes
                .get(&r.uid)
                .is_none_or(|owner| owner.deleting_dependents)
        });
        if suspicious {
            wake.push(look_key(&new.uid));
        }
        wake
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }

    /// An object is gone. The uids that deserve a look.
    pub fn remove(&mut self, uid: &str) -> Vec<String> {
        let Some(node) = self.nodes.remove(uid) else {
            return Vec::new();
        };
        let mut wake: Vec<_> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        for reference in &node.owners {
            self.unlink(&reference.uid, uid);
            if self
                .nodes
                .get(&reference.uid)
                .is_some_and(|owner| owner.deleting_dependents)
            {
                wake.push(reference.uid.clone());
            }
        }
        wake
    }
}
