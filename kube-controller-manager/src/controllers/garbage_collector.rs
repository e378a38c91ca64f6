//! Deletes what belongs to nobody any more, and carries out foreground and orphaning deletion.
//!
//! [`monitors`] watches the metadata of every deletable resource that discovery names and feeds [`graph`], which knows owners
//! and dependents by uid and says which objects deserve a look. A look never trusts the graph: the object and its owners are
//! read live, and an owner counts as absent only when the server says so. An owner that the graph has seen and that is not being
//! deleted counts as present; should that be stale, its deletion is on its way and wakes the dependents again.

mod graph;
mod monitors;

use crate::context::Context;
use crate::controllers::Controller;
use crate::driver::{BoxFuture, Driver, Failure, Outcome, Reconciler, Requeue};
use crate::meta::{is_deleted, name, uid};
use client::workqueue::WorkQueue;
use client::{Client, DeleteOptions, PartialObjectMetadata, Patch, Preconditions};
use graph::{Graph, Node, Owner};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use monitors::Monitors;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";
/// Key prefixes: what to do with the uid behind them.
const LOOK: &str = "look/";
const RELEASE: &str = "orphan/";
/// Owners that the server said are absent; beyond this the memory starts anew.
const MAX_ABSENT: usize = 500;

pub fn build(context: &Context) -> Option<Box<dyn Controller>> {
    if !context.options.garbage_collector {
        return None;
    }
    let queue = WorkQueue::new("garbage_collector_attempt_to_delete");
    let client = context.client_for("generic-garbage-collector");
    let graph = Arc::new(Mutex::new(Graph::default()));
    let monitors = Monitors::new(client.clone(), graph.clone(), queue.clone());
    let collector = Collector {
        client,
        graph,
        queue: queue.clone(),
        monitors: monitors.clone(),
        absent: Mutex::default(),
    };
    let driver = Driver {
        name: "garbage-collector-controller",
        queue,
        reconciler: Arc::new(collector),
        workers: context.options.workers.garbage_collector,
        needs: Vec::new(),
    };
    Some(Box::new(GarbageCollector { driver, monitors }))
}

struct GarbageCollector {
    driver: Driver<Collector>,
    monitors: Monitors,
}

impl Controller for GarbageCollector {
    fn run(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let work = async {
                self.monitors.synced().await;
                self.driver.reconciler.look_at_suspects();
                self.driver.run().await;
            };
            tokio::join!(self.monitors.follow_discovery(), work);
        })
    }
}

pub(super) fn look_key(uid: &str) -> String {
    format!("{LOOK}{uid}")
}

pub(super) fn orphan_key(uid: &str) -> String {
    format!("{RELEASE}{uid}")
}

struct Collector {
    client: Client,
    graph: Arc<Mutex<Graph>>,
    queue: WorkQueue<String>,
    monitors: Monitors,
    absent: Mutex<HashSet<String>>,
}

impl Reconciler for Collector {
    async fn reconcile(&self, key: &str) -> Outcome {
        if let Some(uid) = key.strip_prefix(LOOK) {
            return self.look(uid).await;
        }
        if let Some(uid) = key.strip_prefix(RELEASE) {
            return self.release_dependents(uid).await;
        }
        Ok(Requeue::Done)
    }
}

/// The owners of one object, sorted by what is known of them.
#[derive(Default)]
struct Owners {
    solid: Vec<OwnerReference>,
    dangling: Vec<OwnerReference>,
    /// Being deleted in the foreground: they wait for their dependents.
    waiting: Vec<OwnerReference>,
}

impl Collector {
    /// Objects whose owners were never seen: they may have lost them while nobody watched.
    fn look_at_suspects(&self) {
        for uid in self.graph.lock().with_unseen_owners() {
            self.queue.add(look_key(&uid));
        }
    }

    async fn look(&self, item: &str) -> Outcome {
        let Some(node) = self.graph.lock().get(item) else {
            return Ok(Requeue::Done);
        };
        let Some(live) = self.live(&node).await? else {
            // Its deletion was missed or is on its way: what hung on it is looked at now.
            let woken = self.graph.lock().remove(item);
            woken.into_iter().for_each(|uid| self.queue.add(look_key(&uid)));
            return Ok(Requeue::Done);
        };
        let foreground = is_deleted(&live.metadata) && has_finalizer(&live, FOREGROUND);
        if foreground {
            return self.finish_foreground(&node, &live).await;
        }
        let references = live.metadata.owner_references.clone().unwrap_or_default();
        if is_deleted(&live.metadata) || references.is_empty() {
            return Ok(Requeue::Done);
        }
        let owners = self.classify(&node, references).await?;
        self.act_on(&node, &live, owners).await
    }

    async fn act_on(&self, node: &Node, live: &PartialObjectMetadata, owners: Owners) -> Outcome {
        if !owners.solid.is_empty() {
            let gone: Vec<_> = owners
                .dangling
                .iter()
                .chain(&owners.waiting)
                .map(|r| r.uid.clone())
                .collect();
            if !gone.is_empty() {
                self.drop_references(node, live, &gone).await?;
            }
            return Ok(Requeue::Done);
        }
        let has_dependents = self.graph.lock().has_dependents(&node.uid);
        let policy = if !owners.waiting.is_empty() && has_dependents {
            self.unblock_cycle(node, live).await?;
            "Foreground"
        } else if has_finalizer(live, ORPHAN) {
            "Orphan"
        } else if has_finalizer(live, FOREGROUND) {
            "Foreground"
        } else {
            "Background"
        };
        self.delete(node, live, policy).await
    }

    /// Dependents that are in foreground deletion themselves may wait for this object through their blocking reference: a cycle
    /// that only ends when the reference stops blocking.
    async fn unblock_cycle(&self, node: &Node, live: &PartialObjectMetadata) -> Result<(), Failure> {
        if !self
            .graph
            .lock()
            .dependents(&node.uid)
            .iter()
            .any(|d| d.deleting_dependents)
        {
            return Ok(());
        }
        let mut references = live.metadata.owner_references.clone().unwrap_or_default();
        if !references.iter().any(|r| r.block_owner_deletion == Some(true)) {
            return Ok(());
        }
        references
            .iter_mut()
            .for_each(|r| r.block_owner_deletion = Some(false));
        self.patch_metadata(
            node,
            json!({"ownerReferences": references, "resourceVersion": live.metadata.resource_version}),
        )
        .await
    }

    /// The uid and version make sure that what is deleted is what was looked at.
    async fn delete(&self, node: &Node, live: &PartialObjectMetadata, policy: &str) -> Outcome {
        let preconditions = Preconditions {
            uid: Some(node.uid.clone()),
            resource_version: live.metadata.resource_version.clone(),
        };
        let options = DeleteOptions {
            propagation_policy: Some(policy.to_owned()),
            preconditions: Some(preconditions),
            ..DeleteOptions::default()
        };
        tracing::info!(object = %node, policy, "Deleting object that has lost its owners");
        match self.api(node).delete(&node.name, &options).await {
            Err(error) if error.is_not_found() => Ok(Requeue::Done),
            outcome => outcome.map(|()| Requeue::Done).map_err(Into::into),
        }
    }

    /// A foreground deletion ends when nothing is left that blocks it.
    async fn finish_foreground(&self, node: &Node, live: &PartialObjectMetadata) -> Outcome {
        let blocking: Vec<_> = self
            .graph
            .lock()
            .dependents(&node.uid)
            .into_iter()
            .filter(|d| d.blocks(&node.uid))
            .collect();
        if blocking.is_empty() {
            self.remove_finalizer(node, live, FOREGROUND).await?;
            return Ok(Requeue::Done);
        }
        for dependent in blocking.iter().filter(|d| !d.deleting_dependents) {
            self.queue.add(look_key(&dependent.uid));
        }
        Ok(Requeue::Done)
    }

    async fn release_dependents(&self, owner: &str) -> Outcome {
        let Some(node) = self.graph.lock().get(owner) else {
            return Ok(Requeue::Done);
        };
        let dependents = self.graph.lock().dependents(owner);
        for dependent in dependents {
            if let Some(live) = self.live(&dependent).await? {
                self.drop_references(&dependent, &live, &[owner.to_owned()])
                    .await?;
            }
        }
        if let Some(live) = self.live(&node).await? {
            self.remove_finalizer(&node, &live, ORPHAN).await?;
        }
        Ok(Requeue::Done)
    }

    /// The object as the server has it now; `None` when it is gone or replaced.
    async fn live(&self, node: &Node) -> Result<Option<PartialObjectMetadata>, Failure> {
        match self.api(node).get(&node.name).await {
            Ok(live) if uid(&live.metadata) == node.uid => Ok(Some(live)),
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn api(&self, node: &Node) -> client::Api<PartialObjectMetadata> {
        self.client.metadata(
            &node.resource,
            Some(node.namespace.as_str()).filter(|n| !n.is_empty()),
        )
    }

    async fn classify(&self, node: &Node, references: Vec<OwnerReference>) -> Result<Owners, Failure> {
        let mut owners = Owners::default();
        for reference in references {
            match self.state_of(node, &reference).await? {
                Owner::Absent => owners.dangling.push(reference),
                Owner::Waiting => owners.waiting.push(reference),
                Owner::Present => owners.solid.push(reference),
            }
        }
        Ok(owners)
    }

    async fn state_of(&self, node: &Node, reference: &OwnerReference) -> Result<Owner, Failure> {
        if self.absent.lock().contains(&absent_key(node, reference)) {
            return Ok(Owner::Absent);
        }
        if self.graph.lock().is_surely_present(&node.namespace, reference) {
            return Ok(Owner::Present);
        }
        let Some(resource) = self.monitors.resource_of(&reference.api_version, &reference.kind) else {
            // A kind that the server does not have at present says nothing about the object.
            return Err(Failure::NotYet(format!(
                "no resource for owner {} {} of {node}",
                reference.api_version, reference.kind
            )));
        };
        if resource.namespaced && node.namespace.is_empty() {
            tracing::warn!(object = %node, owner = %reference.name, "A cluster-scoped object cannot have a namespaced owner");
            return Ok(Owner::Absent);
        }
        let namespace = Some(node.namespace.as_str()).filter(|_| resource.namespaced);
        match self
            .client
            .metadata(&resource, namespace)
            .get(&reference.name)
            .await
        {
            Ok(owner) if uid(&owner.metadata) == reference.uid => {
                let waiting = is_deleted(&owner.metadata) && has_finalizer(&owner, FOREGROUND);
                Ok(if waiting { Owner::Waiting } else { Owner::Present })
            }
            Ok(_) => Ok(self.note_absent(node, reference)),
            Err(error) if error.is_not_found() => Ok(self.note_absent(node, reference)),
            Err(error) => Err(error.into()),
        }
    }

    /// A uid never comes back.
    fn note_absent(&self, node: &Node, reference: &OwnerReference) -> Owner {
        let mut absent = self.absent.lock();
        if absent.len() >= MAX_ABSENT {
            absent.clear();
        }
        absent.insert(absent_key(node, reference));
        Owner::Absent
    }

    async fn drop_references(
        &self,
        node: &Node,
        live: &PartialObjectMetadata,
        gone: &[String],
    ) -> Result<(), Failure> {
        let before = live.metadata.owner_references.as_deref().unwrap_or_default();
        let left: Vec<_> = before.iter().filter(|r| !gone.contains(&r.uid)).collect();
        if left.len() == before.len() {
            return Ok(());
        }
        self.patch_metadata(
            node,
            json!({"ownerReferences": left, "resourceVersion": live.metadata.resource_version}),
        )
        .await
    }

    async fn remove_finalizer(
        &self,
        node: &Node,
        live: &PartialObjectMetadata,
        finalizer: &str,
    ) -> Result<(), Failure> {
        let before = live.metadata.finalizers.as_deref().unwrap_or_default();
        if !before.iter().any(|f| f == finalizer) {
            return Ok(());
        }
        let left: Vec<_> = before.iter().filter(|f| *f != finalizer).collect();
        self.patch_metadata(
            node,
            json!({"finalizers": left, "resourceVersion": live.metadata.resource_version}),
        )
        .await
    }

    /// A merge patch, because custom resources know no other; the version in it makes it safe.
    async fn patch_metadata(&self, node: &Node, metadata: serde_json::Value) -> Result<(), Failure> {
        match self
            .api(node)
            .patch(&node.name, &Patch::Merge(json!({ "metadata": metadata })), None)
            .await
        {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome.map(drop).map_err(Into::into),
        }
    }
}

/// The same uid named with another kind, name or place is another claim: one wrong reference must not condemn the right ones.
fn absent_key(node: &Node, reference: &OwnerReference) -> String {
    [
        &node.namespace,
        &reference.api_version,
        &reference.kind,
        &reference.name,
        &reference.uid,
    ]
    .map(String::as_str)
    .join("/")
}

fn has_finalizer(object: &PartialObjectMetadata, finalizer: &str) -> bool {
    object
        .metadata
        .finalizers
        .iter()
        .flatten()
        .any(|f| f == finalizer)
}

/// For logs.
impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.resource.kind, self.namespace, self.name)
    }
}

fn identity(object: &PartialObjectMetadata) -> (String, String) {
    (
        uid(&object.metadata).to_owned(),
        name(&object.metadata).to_owned(),
    )
}

#[cfg(test)]
mod tests;
