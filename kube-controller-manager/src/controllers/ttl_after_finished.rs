//! Deletes finished Jobs when their time to live is over.

use super::job;
use crate::context::Context;
use crate::controllers::Controller;
use crate::driver::{Driver, Outcome, Reconciler, Requeue, synced};
use crate::meta::{is_deleted, name, namespace, seconds_since};
use client::informer::{Event, Store};
use client::workqueue::WorkQueue;
use client::{Client, DeleteOptions, Preconditions, object_key};
use k8s_openapi::api::batch::v1::Job;
use std::sync::Arc;
use std::time::Duration;

pub fn build(context: &Context) -> Option<Box<dyn Controller>> {
    let queue = WorkQueue::new("ttl_jobs_to_delete");
    let jobs = context.informers.jobs.start();
    let heard = queue.clone();
    context.informers.jobs.on_event(move |event| {
        if let Event::Added(job) | Event::Modified(_, job) = event
            && seconds_left(job).is_some()
        {
            heard.add(object_key(&**job));
        }
    });
    let needs = vec![synced(&jobs)];
    let reconciler = Arc::new(Ttl {
        client: context.client_for("ttl-after-finished-controller"),
        jobs,
    });
    Some(Box::new(Driver {
        name: "ttl-after-finished-controller",
        queue,
        reconciler,
        workers: context.options.workers.ttl_after_finished,
        needs,
    }))
}

struct Ttl {
    client: Client,
    jobs: Store<Job>,
}

impl Reconciler for Ttl {
    async fn reconcile(&self, key: &str) -> Outcome {
        let Some(job) = self.jobs.get(key) else {
            return Ok(Requeue::Done);
        };
        match seconds_left(&job) {
            None => Ok(Requeue::Done),
            Some(left) if left > 0 => Ok(Requeue::After(Duration::from_secs(left.unsigned_abs()))),
            Some(_) => self.delete(&job).await,
        }
    }
}

impl Ttl {
    /// The cache may not know that the time was prolonged.
    async fn delete(&self, job: &Job) -> Outcome {
        let api = self.client.namespaced::<Job>(namespace(&job.metadata));
        let fresh = match api.get(name(&job.metadata)).await {
            Err(error) if error.is_not_found() => return Ok(Requeue::Done),
            fresh => fresh?,
        };
        if seconds_left(&fresh).is_none_or(|left| left > 0) {
            return Ok(Requeue::Done);
        }
        let preconditions = Preconditions {
            uid: fresh.metadata.uid.clone(),
            ..Preconditions::default()
        };
        let options = DeleteOptions {
            propagation_policy: Some("Foreground".into()),
            preconditions: Some(preconditions),
            ..DeleteOptions::default()
        };
        match api.delete(name(&fresh.metadata), &options).await {
            Err(error) if error.is_not_found() => Ok(Requeue::Done),
            outcome => Ok(outcome.map(|()| Requeue::Done)?),
        }
    }
}

/// `None` for a Job that is not to be deleted, whatever time goes by.
fn seconds_left(job: &Job) -> Option<i64> {
    let ttl = job
        .spec
        .as_ref()?
        .ttl_seconds_after_finished
        .filter(|_| !is_deleted(&job.metadata))?;
    let finished = job::finished(job)?.last_transition_time.as_ref()?;
    Some(i64::from(ttl) - seconds_since(finished))
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::fake::FakeServer;
    use serde_json::json;

    #[tokio::test]
    async fn a_job_goes_when_its_time_is_over_and_not_before() {
        let server = FakeServer::new();
        for (ttl, outcome) in [(60, Requeue::After(Duration::from_secs(60))), (0, Requeue::Done)] {
            let value = json!({"metadata": {"name": format!("j{ttl}")}, "spec": {"ttlSecondsAfterFinished": ttl, "template": {}},
                "status": {"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": crate::meta::now()}]}});
            let job: Job = server
                .client()
                .namespaced("ns")
                .create(&serde_json::from_value(value).unwrap())
                .await
                .unwrap();
            let key = object_key(&job);
            let controller = Ttl {
                client: server.client(),
                jobs: Store::of([job]),
            };
            let found = controller.reconcile(&key).await.unwrap();
            assert!(
                found == outcome || matches!(found, Requeue::After(left) if ttl > 0 && left.as_secs() >= 58),
                "{found:?}"
            );
        }
        let gone = server.client().namespaced::<Job>("ns").get("j0").await.unwrap();
        assert!(
            gone.metadata.deletion_timestamp.is_some(),
            "in the foreground: its pods go first"
        );
        assert!(
            server
                .client()
                .namespaced::<Job>("ns")
                .get("j60")
                .await
                .unwrap()
                .metadata
                .deletion_timestamp
                .is_none()
        );
    }
}
