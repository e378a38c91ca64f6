//! Runs the pods of a Job to the end, and counts them.
//!
//! One pass: claim the pods and count them ([`pass`]), decide whether the Job is over ([`pass`], [`policy`]), start or remove pods
//! ([`pods`]), then write down what finished and let it go ([`tracking`]). A pod that finished is held by a finalizer until
//! it is counted, so that one that is deleted meanwhile is not forgotten.

mod backoff;
mod conditions;
mod finalizers;
mod indexes;
mod pass;
mod pods;
mod policy;
mod tracking;

pub use conditions::finished;

use crate::context::Context;
use crate::controllers::Controller;
use crate::controllers::pod_events::{PodEvents, owner};
use crate::driver::{Driver, Failure, Outcome, Reconciler, Requeue, synced};
use crate::expectations::Expectations;
use crate::informers::{OWNER, claimable};
use crate::meta::{controlled_by_kind, controller_of, is_deleted, key_in, name, namespace, now, uid};
use crate::pod_control::{PodControl, claim};
use crate::selector;
use backoff::Records;
use client::events::{EventRecorder, object_reference};
use client::informer::{Event, Informer, Store};
use client::workqueue::WorkQueue;
use client::{Client, object_key};
use finalizers::{Removals, is_tracked};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use pass::{Pass, is_suspended, spec, status_of};
use pods::Managed;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// Before the key of a pod whose Job is gone: nobody else takes the finalizer off.
const ORPHAN: &str = "orphan:";
const CONTROLLER_NAME: &str = "kubernetes.io/job-controller";

pub fn build(context: &Context) -> Option<Box<dyn Controller>> {
    Some(Box::new(driver(context)))
}

fn driver(context: &Context) -> Driver<Jobs> {
    let queue = WorkQueue::new("job");
    let (jobs, pods) = (context.informers.jobs.start(), context.informers.pods.start());
    let (expectations, removals) = (Arc::new(Expectations::default()), Arc::new(Removals::default()));
    PodEvents {
        owners: jobs.clone(),
        queue: queue.clone(),
        expectations: expectations.clone(),
        selector: |job: &Job| job.spec.as_ref()?.selector.as_ref().map(Cow::Borrowed),
    }
    .hear(&context.informers.pods);
    hear_jobs(&context.informers.jobs, &queue, &expectations, &pods);
    hear_finalizers(&context.informers.pods, &queue, &removals, &jobs);
    let needs = vec![synced(&jobs), synced(&pods)];
    let (client, recorder) = (
        context.client_for("job-controller"),
        context.recorder("job-controller"),
    );
    let control = PodControl::new(client.clone(), recorder.clone());
    let reconciler = Arc::new(Jobs {
        client,
        recorder,
        control,
        jobs,
        pods,
        expectations,
        removals,
        records: Records::default(),
    });
    Driver {
        name: "job-controller",
        queue,
        reconciler,
        workers: context.options.workers.job,
        needs,
    }
}

fn hear_jobs(
    jobs: &Informer<Job>,
    queue: &WorkQueue<String>,
    expectations: &Arc<Expectations>,
    pods: &Store<Pod>,
) {
    let (queue, expectations, pods) = (queue.clone(), expectations.clone(), pods.clone());
    let orphaned = |queue: &WorkQueue<String>, pods: &Store<Pod>, job: &Job| {
        for pod in pods
            .by_index(OWNER, uid(&job.metadata))
            .iter()
            .filter(|p| is_tracked(p))
        {
            queue.add(format!("{ORPHAN}{}", object_key(&**pod)));
        }
    };
    jobs.on_event(move |event| match event {
        Event::Added(job) => queue.add(object_key(&**job)),
        Event::Modified(old, new) => {
            if uid(&old.metadata) != uid(&new.metadata) {
                expectations.forget(&object_key(&**old));
                orphaned(&queue, &pods, old);
            }
            queue.add(object_key(&**new));
        }
        Event::Deleted(job) => {
            expectations.forget(&object_key(&**job));
            queue.add(object_key(&**job));
            orphaned(&queue, &pods, job);
        }
        Event::Synced => {}
    });
}

fn hear_finalizers(
    pods: &Informer<Pod>,
    queue: &WorkQueue<String>,
    removals: &Arc<Removals>,
    jobs: &Store<Job>,
) {
    let (queue, removals, jobs) = (queue.clone(), removals.clone(), jobs.clone());
    pods.on_event(move |event| {
        let (gone, pod) = match event {
            Event::Added(pod) | Event::Modified(_, pod) => (false, pod),
            Event::Deleted(pod) => (true, pod),
            Event::Synced => return,
        };
        match (gone || !is_tracked(pod), controlled_by_kind::<Job>(&pod.metadata)) {
            (true, Some(job)) => {
                removals.observed(&key_in(namespace(&pod.metadata), &job.name), uid(&pod.metadata))
            }
            (false, _) if owner(&jobs, &**pod).is_none_or(|job| finished(&job).is_some()) => {
                queue.add(format!("{ORPHAN}{}", object_key(&**pod)))
            }
            _ => {}
        }
    });
}

struct Jobs {
    client: Client,
    recorder: EventRecorder,
    control: PodControl,
    jobs: Store<Job>,
    pods: Store<Pod>,
    expectations: Arc<Expectations>,
    removals: Arc<Removals>,
    records: Records,
}

impl Reconciler for Jobs {
    async fn reconcile(&self, key: &str) -> Outcome {
        if let Some(pod) = key.strip_prefix(ORPHAN) {
            return self.release_orphan(pod).await;
        }
        let Some(job) = self.jobs.get(key) else {
            self.forget(key);
            return Ok(Requeue::Done);
        };
        if is_foreign(&job) {
            return Ok(Requeue::Done);
        }
        if finished(&job).is_some() {
            self.records.forget(key);
            return self.release_all(&job).await;
        }
        self.pass(key, &job).await
    }
}

/// Somebody else runs it.
fn is_foreign(job: &Job) -> bool {
    spec(job)
        .managed_by
        .as_deref()
        .is_some_and(|by| by != CONTROLLER_NAME)
}

impl Jobs {
    fn forget(&self, key: &str) {
        self.expectations.forget(key);
        self.removals.forget(key);
        self.records.forget(key);
    }

    async fn release_orphan(&self, key: &str) -> Outcome {
        let Some(pod) = self.pods.get(key).filter(|p| is_tracked(p)) else {
            return Ok(Requeue::Done);
        };
        let of_other_kind =
            controller_of(&pod.metadata).is_some() && controlled_by_kind::<Job>(&pod.metadata).is_none();
        let in_use = owner(&self.jobs, &*pod).is_some_and(|job| is_foreign(&job) || finished(&job).is_none());
        match of_other_kind || in_use {
            true => Ok(Requeue::Done),
            false => ignore_gone(finalizers::remove(&self.client, &pod).await),
        }
    }

    async fn release_all(&self, job: &Job) -> Outcome {
        for pod in self.pods.by_index(OWNER, uid(&job.metadata)) {
            ignore_gone(finalizers::remove(&self.client, &pod).await)?;
        }
        Ok(Requeue::Done)
    }

    async fn pass(&self, key: &str, job: &Arc<Job>) -> Outcome {
        // Asked before the cache is read: a pod that comes in between only delays us.
        let satisfied = self.expectations.satisfied(key);
        let removed = self.removals.of(key);
        let pods = self.claimed(job).await?;
        let mut copy = (**job).clone();
        let status = copy.status.get_or_insert_default();
        status.uncounted_terminated_pods.get_or_insert_default();
        if status.start_time.is_none() && spec(job).suspend != Some(true) {
            status.start_time = Some(now());
        }
        let mut pass = Pass::new(key, copy, pods, removed, self.records.of(key));
        pass.decide();
        let deadline = pass.seconds_to_deadline().filter(|_| pass.finished.is_none());
        let (managed, told) = self.act(&mut pass, satisfied).await;
        let changed = told | put_counts(&mut pass, managed.active);
        self.track(&mut pass, changed).await?;
        if let Some(error) = managed.error {
            return Err(error.into());
        }
        let deadline = deadline.map(|left| Duration::from_secs(left.max(0).unsigned_abs()));
        Ok(managed
            .wait
            .into_iter()
            .chain(deadline)
            .min()
            .map_or(Requeue::Done, Requeue::After))
    }

    async fn claimed(&self, job: &Job) -> Result<Vec<Arc<Pod>>, Failure> {
        let Some(wanted) = spec(job).selector.clone() else {
            return Ok(Vec::new());
        };
        let candidates = claimable(&self.pods, namespace(&job.metadata), uid(&job.metadata));
        claim(&self.client, job, candidates, |pod: &Pod| {
            selector::selects(&wanted, &pod.metadata)
        })
        .await
    }

    /// Whether the suspension changed goes with what was managed.
    async fn act(&self, pass: &mut Pass, satisfied: bool) -> (Managed, bool) {
        let active = pass.active.len() as i32;
        if pass.finished.is_some() {
            let deleted = self.delete_active(pass).await;
            // There may be pods that we cannot see yet.
            if deleted.active > 0 || !satisfied {
                pass.finished = None;
            }
            return (deleted, false);
        }
        let may_manage = satisfied && !is_deleted(&pass.job.metadata);
        let managed = match may_manage {
            true => self.manage(pass).await,
            false => Managed {
                active,
                ..Managed::default()
            },
        };
        if pass.is_complete(managed.active) {
            pass.finished = Some(conditions::newly(
                conditions::SUCCESS_CRITERIA_MET,
                "CompletionsReached",
                "Reached expected number of succeeded pods",
            ));
            return (managed, false);
        }
        let told = may_manage && self.note_suspension(&mut pass.job);
        (managed, told)
    }

    /// The clock of the deadline runs while the Job may run.
    fn note_suspension(&self, job: &mut Job) -> bool {
        let suspended = is_suspended(job);
        let status = job.status.get_or_insert_default();
        if !conditions::ensure(status, conditions::suspended(suspended)) {
            return false;
        }
        status.start_time = (!suspended).then(now);
        let (reason, message) = if suspended {
            ("Suspended", "Job suspended")
        } else {
            ("Resumed", "Job resumed")
        };
        tracing::debug!(job = name(&job.metadata), reason, "Job changed");
        self.recorder
            .event(&object_reference(job), "Normal", reason, message);
        true
    }
}

fn ignore_gone(outcome: Result<(), client::Error>) -> Outcome {
    match outcome {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(Requeue::Done),
    }
}

fn put_counts(pass: &mut Pass, active: i32) -> bool {
    let before = status_of(&pass.job);
    let status = pass.job.status.get_or_insert_default();
    status.active = Some(active).filter(|n| *n != 0);
    status.ready = Some(pass.ready);
    status.terminating = Some(pass.terminating);
    (before.active.unwrap_or(0), before.ready, before.terminating)
        != (active, status.ready, status.terminating)
}

#[cfg(test)]
mod tests;
