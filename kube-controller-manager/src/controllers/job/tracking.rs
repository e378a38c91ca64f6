//! Counts each finished pod exactly once.
//!
//! Uids of finished pods are written to status.uncountedTerminatedPods; then their finalizers are removed; then they move
//! from the list into the counters. Whoever continues after a crash finds in the list what is not counted yet, and in the
//! finalizers what was not listed. Succeeded indexes need no list: an index is counted once by what it is.

use super::Jobs;
use super::conditions::{
    self, COMPLETE, FAILURE_TARGET, SUCCESS_CRITERIA_MET, complete_for, ensure, failed_for,
};
use super::finalizers;
use super::indexes::index_of;
use super::pass::{Pass, is_indexed, spec, status_of};
use super::policy::Consequence;
use crate::driver::Failure;
use crate::meta::{is_deleted, namespace, uid};
use crate::pod::phase;
use client::events::object_reference;
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// No more uids than this in a status: it must stay small, and other Jobs want their turn.
const MAX_UNCOUNTED: usize = 500;

/// Pods to let go, and whether there are more than one pass may take.
struct Listed {
    pods: Vec<Arc<Pod>>,
    cut: bool,
    changed: bool,
}

impl Jobs {
    /// Ends with the final condition when everything is counted. `changed`: the status differs from what the server has.
    pub(super) async fn track(&self, pass: &mut Pass, mut changed: bool) -> Result<(), Failure> {
        let mut held: HashSet<String> = pass
            .pods
            .iter()
            .filter(|p| pass.is_held(p))
            .map(|p| uid(&p.metadata).to_owned())
            .collect();
        changed |= count_released(status_mut(&mut pass.job), &held);
        let listed = list_finished(pass);
        changed |= listed.changed;
        changed |= interim_condition(pass);
        if changed {
            self.flush(pass).await?;
            self.records.set(&pass.key, pass.record);
        }
        let (removed, error) =
            finalizers::remove_all(&self.client, &self.removals, &pass.key, &listed.pods).await;
        held.retain(|uid| !removed.contains(uid));
        let counted = count_released(status_mut(&mut pass.job), &held);
        if let Some(error) = error {
            if counted {
                self.flush(pass).await?;
            }
            return Err(error.into());
        }
        let finished = !listed.cut && finish(pass);
        if counted || finished {
            self.flush(pass).await?;
        }
        if finished {
            self.tell_end(pass);
        }
        Ok(())
    }

    async fn flush(&self, pass: &mut Pass) -> Result<(), Failure> {
        pass.job = self
            .client
            .namespaced::<Job>(namespace(&pass.job.metadata))
            .update_status(&pass.job)
            .await?;
        Ok(())
    }

    fn tell_end(&self, pass: &Pass) {
        let Some(end) = &pass.finished else { return };
        let job = object_reference(&pass.job);
        if end.type_ != COMPLETE {
            return self.recorder.event(
                &job,
                "Warning",
                end.reason.as_deref().unwrap_or(""),
                end.message.as_deref().unwrap_or(""),
            );
        }
        let succeeded = status_of(&pass.job).succeeded.unwrap_or(0);
        if spec(&pass.job)
            .completions
            .is_some_and(|wanted| succeeded > wanted)
        {
            self.recorder.event(
                &job,
                "Warning",
                "TooManySucceededPods",
                "Too many succeeded pods running after completion count reached",
            );
        }
        self.recorder.event(&job, "Normal", "Completed", "Job completed");
    }
}

fn status_mut(job: &mut Job) -> &mut JobStatus {
    job.status.get_or_insert_default()
}

/// Listed pods that nobody holds any more move into the counters.
fn count_released(status: &mut JobStatus, held: &HashSet<String>) -> bool {
    let lists = status.uncounted_terminated_pods.get_or_insert_default();
    let succeeded = release(&mut lists.succeeded, held);
    let failed = release(&mut lists.failed, held);
    add(&mut status.succeeded, succeeded);
    add(&mut status.failed, failed);
    succeeded + failed > 0
}

fn release(list: &mut Option<Vec<String>>, held: &HashSet<String>) -> i32 {
    let Some(uids) = list else { return 0 };
    let before = uids.len();
    uids.retain(|uid| held.contains(uid));
    let gone = before - uids.len();
    *list = list.take().filter(|l| !l.is_empty());
    gone as i32
}

fn add(counter: &mut Option<i32>, more: i32) {
    let total = counter.unwrap_or(0) + more;
    *counter = (total != 0).then_some(total);
}

fn list_finished(pass: &mut Pass) -> Listed {
    let mut listed = Listed {
        pods: Vec::new(),
        cut: false,
        changed: false,
    };
    let mut new_indexes = BTreeSet::new();
    let mut pods = pass.pods.clone();
    pods.sort_by_key(|p| index_of(p));
    for pod in pods {
        if !pass.is_held(&pod) || !may_go(pass, &pod) {
            continue;
        }
        listed.changed |= list_one(pass, &pod, &mut new_indexes);
        listed.pods.push(pod);
        if new_indexes.len() + uncounted(pass) >= MAX_UNCOUNTED {
            listed.cut = true;
            break;
        }
    }
    listed.changed |= is_indexed(&pass.job) && tell_indexes(pass, &new_indexes);
    listed
}

/// A failed pod stays until its successor has its index's number of failures.
fn may_go(pass: &Pass, pod: &Pod) -> bool {
    if is_deleted(&pass.job.metadata) || pass.finished.is_some() || phase(pod) == "Succeeded" {
        return true;
    }
    let delayed = index_of(pod)
        .and_then(|i| pass.delayed.get(&i))
        .is_some_and(|p| p.metadata.uid == pod.metadata.uid);
    pass.is_failed(pod) && !delayed
}

/// True when the pod was not known before.
fn list_one(pass: &mut Pass, pod: &Pod, new_indexes: &mut BTreeSet<i32>) -> bool {
    let id = uid(&pod.metadata);
    if phase(pod) == "Succeeded" && !pass.uncounted_failed.contains(id) {
        if is_indexed(&pass.job) {
            let new = index_of(pod).filter(|i| pass.has_place(pod) && !pass.before.has(*i));
            return new.is_some_and(|i| new_indexes.insert(i));
        }
        return pass.uncounted_succeeded.insert(id.to_owned()) && push(pass, id, true);
    }
    let lost = pass
        .finished
        .as_ref()
        .is_some_and(|f| f.type_ != SUCCESS_CRITERIA_MET);
    // When a Job has failed, whatever has not ended has failed too.
    let counts =
        (pass.is_failed(pod) || lost) && pass.has_place(pod) && pass.consequence(pod) != Consequence::Ignore;
    counts && pass.uncounted_failed.insert(id.to_owned()) && push(pass, id, false)
}

fn push(pass: &mut Pass, uid: &str, succeeded: bool) -> bool {
    let lists = status_mut(&mut pass.job)
        .uncounted_terminated_pods
        .get_or_insert_default();
    let list = if succeeded {
        &mut lists.succeeded
    } else {
        &mut lists.failed
    };
    list.get_or_insert_default().push(uid.to_owned());
    true
}

fn uncounted(pass: &Pass) -> usize {
    let lists = pass
        .job
        .status
        .as_ref()
        .and_then(|s| s.uncounted_terminated_pods.as_ref());
    lists.map_or(0, |l| {
        l.succeeded.as_ref().map_or(0, Vec::len) + l.failed.as_ref().map_or(0, Vec::len)
    })
}

fn tell_indexes(pass: &mut Pass, new: &BTreeSet<i32>) -> bool {
    // Only what this pass lets go: the rest is counted when its turn comes.
    let succeeded = pass.before.with(new);
    let nonempty = |text: String| Some(text).filter(|t| !t.is_empty());
    let failed = pass.failed_indexes.as_ref().map(ToString::to_string);
    let status = status_mut(&mut pass.job);
    let before = (status.completed_indexes.clone(), status.failed_indexes.clone());
    status.completed_indexes = nonempty(succeeded.to_string());
    status.failed_indexes = failed;
    status.succeeded = Some(succeeded.total()).filter(|n| *n != 0);
    before != (status.completed_indexes.clone(), status.failed_indexes.clone())
}

/// Writes what was decided before anything is let go, and turns the decision into the condition that ends the Job.
fn interim_condition(pass: &mut Pass) -> bool {
    let Some(decided) = pass.finished.clone() else {
        return false;
    };
    let status = status_mut(&mut pass.job);
    match decided.type_.as_str() {
        FAILURE_TARGET => {
            pass.finished = Some(failed_for(&decided));
            ensure(status, decided)
        }
        SUCCESS_CRITERIA_MET => {
            pass.finished = Some(complete_for(&decided));
            !conditions::has(status, SUCCESS_CRITERIA_MET) && ensure(status, decided)
        }
        _ => false,
    }
}

/// Not while a pod is uncounted or still running.
fn finish(pass: &mut Pass) -> bool {
    let Some(end) = pass.finished.clone() else {
        return false;
    };
    if uncounted(pass) > 0 || pass.terminating > 0 {
        return false;
    }
    let status = status_mut(&mut pass.job);
    if end.type_ == COMPLETE {
        status.completion_time = end.last_transition_time.clone();
    }
    ensure(status, end)
}
