//! Empties a namespace that is being deleted, whatever kinds the server has, and lets it go when nothing is left.
//!
//! Pods go first, and everything else only when they are gone: a NetworkPolicy must not vanish before what it protects
//! (CVE-2024-7598). What discovery does list is deleted even when a part of discovery fails; the namespace then stays, and
//! its first condition names the group that did not answer.

mod conditions;

use crate::context::Context;
use crate::controllers::Controller;
use crate::discovery::{Discovered, Discovery, discover};
use crate::driver::{Driver, Failure, Outcome, Reconciler, Requeue, synced};
use crate::informers::NAMESPACE;
use crate::meta::{is_deleted, name, namespace};
use client::informer::{Event, Store};
use client::workqueue::WorkQueue;
use client::{Client, ListOptions, options};
use conditions::Remains;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use std::sync::Arc;
use std::time::Duration;

const FINALIZER: &str = "kubernetes";
/// Other API servers may not have seen the deletion yet and still create objects for this long.
const GRACE: Duration = Duration::from_secs(5);
/// How long finalizers take, when nobody says.
const FINALIZER_ESTIMATE: i64 = 15;
const BASE_DELAY: Duration = Duration::from_millis(5);
const MAX_DELAY: Duration = Duration::from_secs(60);

pub fn build(context: &Context) -> Option<Box<dyn Controller>> {
    let queue = WorkQueue::with_delays("namespace", BASE_DELAY, MAX_DELAY);
    let (namespaces, pods) = (
        context.informers.namespaces.start(),
        context.informers.pods.start(),
    );
    context.informers.namespaces.on_event({
        let queue = queue.clone();
        move |event| match event {
            Event::Added(namespace) | Event::Modified(_, namespace) if is_deleted(&namespace.metadata) => {
                queue.add_after(name(&namespace.metadata).to_owned(), GRACE)
            }
            _ => {}
        }
    });
    wake_for_last_pod(context, &queue);
    let needs = vec![synced(&namespaces), synced(&pods)];
    let reconciler = Arc::new(NamespaceController {
        client: context.client_for("namespace-controller"),
        namespaces,
    });
    Some(Box::new(Driver {
        name: "namespace-controller",
        queue,
        reconciler,
        workers: context.options.workers.namespace,
        needs,
    }))
}

/// What waits for pods is woken by the last of them instead of a timer.
fn wake_for_last_pod(context: &Context, queue: &WorkQueue<String>) {
    let (queue, namespaces, pods): (_, _, Store<Pod>) = (
        queue.clone(),
        context.informers.namespaces.store(),
        context.informers.pods.store(),
    );
    context.informers.pods.on_event(move |event| {
        let Event::Deleted(pod) = event else { return };
        let name = namespace(&pod.metadata);
        let terminating = namespaces.get(name).is_some_and(|n| is_deleted(&n.metadata));
        if terminating && pods.by_index(NAMESPACE, name).is_empty() {
            queue.add(name.to_owned());
        }
    });
}

struct NamespaceController {
    client: Client,
    namespaces: Store<Namespace>,
}

impl Reconciler for NamespaceController {
    async fn reconcile(&self, key: &str) -> Outcome {
        let Some(known) = self.namespaces.get(key) else {
            return Ok(Requeue::Done);
        };
        if !is_deleted(&known.metadata) {
            return Ok(Requeue::Done);
        }
        let namespace = match self.client.all::<Namespace>().get(key).await {
            Err(error) if error.is_not_found() => return Ok(Requeue::Done),
            outcome => outcome?,
        };
        if !is_deleted(&namespace.metadata) || finalizers(&namespace).is_empty() {
            return Ok(Requeue::Done);
        }
        match self.empty(namespace).await {
            Err(Failure::Api(error)) if error.is_not_found() => Ok(Requeue::Done),
            outcome => outcome,
        }
    }
}

fn finalizers(namespace: &Namespace) -> &[String] {
    namespace
        .spec
        .as_ref()
        .and_then(|s| s.finalizers.as_deref())
        .unwrap_or_default()
}

impl NamespaceController {
    async fn empty(&self, mut namespace: Namespace) -> Outcome {
        if namespace.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Terminating") {
            namespace.status.get_or_insert_default().phase = Some("Terminating".into());
            namespace = self.client.all().update_status(&namespace).await?;
        }
        let found = discover(&self.client).await?;
        let remains = self.delete_content(name(&namespace.metadata), &found).await;
        let estimate = remains.estimate;
        let problem = remains.first_problem();
        if let Some(status) = conditions::updated(&namespace, &remains) {
            namespace.status = Some(status);
            namespace = self.client.all().update_status(&namespace).await?;
        }
        if let Some(problem) = problem {
            return Err(Failure::other(problem));
        }
        if estimate > 0 {
            return Ok(Requeue::After(Duration::from_secs(estimate as u64 / 2 + 1)));
        }
        self.finalize(namespace).await
    }

    async fn finalize(&self, mut namespace: Namespace) -> Outcome {
        let spec = namespace.spec.get_or_insert_default();
        spec.finalizers = Some(
            spec.finalizers
                .take()
                .into_iter()
                .flatten()
                .filter(|f| f != FINALIZER)
                .collect(),
        );
        let api = self.client.all::<Namespace>();
        let _: serde::de::IgnoredAny = api
            .replace_subresource(name(&namespace.metadata), "finalize", &namespace)
            .await?;
        Ok(Requeue::Done)
    }

    async fn delete_content(&self, namespace: &str, found: &Discovery) -> Remains {
        let mut remains = Remains::new(&found.failed);
        let (pods, others): (Vec<_>, Vec<_>) = found
            .resources
            .iter()
            .filter(|r| r.resource.namespaced && r.can("delete"))
            .partition(|r| r.resource.group.is_empty() && r.resource.resource == "pods");
        for resource in pods {
            self.delete_all(namespace, resource, &mut remains).await;
        }
        if remains.is_empty() {
            for resource in others {
                self.delete_all(namespace, resource, &mut remains).await;
            }
        }
        remains
    }

    async fn delete_all(&self, namespace: &str, resource: &Discovered, remains: &mut Remains) {
        if let Err(error) = self.try_delete_all(namespace, resource, remains).await {
            // A resource that went away since discovery (its CRD was deleted) has nothing left to delete.
            if !error.is_not_found() {
                remains.failed(&resource.resource, &error);
            }
        }
    }

    async fn try_delete_all(
        &self,
        namespace: &str,
        resource: &Discovered,
        remains: &mut Remains,
    ) -> Result<(), client::Error> {
        let api = self.client.metadata(&resource.resource, Some(namespace));
        // Most kinds have nothing in most namespaces: looking is cheaper than deleting.
        if !resource.can("list") {
            return api
                .delete_collection(&options::background(), &ListOptions::default())
                .await;
        }
        if api.list_all(&ListOptions::default()).await?.items.is_empty() {
            return Ok(());
        }
        if resource.can("deletecollection") {
            api.delete_collection(&options::background(), &ListOptions::default())
                .await?;
        } else {
            self.delete_each(&api).await?;
        }
        let left = api.list_all(&ListOptions::default()).await?.items;
        let grace = left
            .iter()
            .filter_map(|o| o.metadata.deletion_grace_period_seconds)
            .max()
            .unwrap_or(0);
        let held = left
            .iter()
            .any(|o| o.metadata.finalizers.iter().flatten().next().is_some());
        let is_pods = resource.resource.group.is_empty() && resource.resource.resource == "pods";
        let estimate = if is_pods && grace > 0 {
            grace
        } else if held {
            FINALIZER_ESTIMATE
        } else {
            1
        };
        remains.left(&resource.resource, &left, estimate);
        Ok(())
    }

    async fn delete_each(
        &self,
        api: &client::Api<client::PartialObjectMetadata>,
    ) -> Result<(), client::Error> {
        for object in api.list_all(&ListOptions::default()).await?.items {
            match api.delete(name(&object.metadata), &options::background()).await {
                Err(error) if error.is_not_found() => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
