//! Decisions carried out: bindings, conditions, events, evictions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::events::{EventRecorder, object_reference};
use client::{Api, Client, DeleteOptions, Error, Patch};
use k8s_openapi::api::core::v1::{Binding as WireBinding, ObjectReference, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Shared;
use crate::framework::diagnosis::truncated;
use crate::metrics;
use crate::pod::PodInfo;
use crate::scheduler::{Binding, Outcome, Preemption, Refused, SCHEDULER_ERROR};

/// Requests of the scheduler under way at the same time. When the server is slow, decisions wait for it.
const MAX_IN_FLIGHT: usize = 256;

pub struct Effects {
    client: Client,
    shared: Arc<Shared>,
    recorder: EventRecorder,
    in_flight: Arc<Semaphore>,
}

impl Effects {
    pub fn new(client: Client, shared: Arc<Shared>) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let instance = format!("default-scheduler-{}", host.trim());
        Self {
            recorder: EventRecorder::series(client.clone(), "default-scheduler", &instance),
            client,
            shared,
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
        }
    }

    pub async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed; without a permit the work would still be right, only unbounded.
        Arc::clone(&self.in_flight).acquire_owned().await.ok()
    }

    /// Holds `_permit` for as long as requests may be under way.
    pub async fn carry_out(&self, outcome: Outcome, took: Duration, _permit: Option<OwnedSemaphorePermit>) {
        match outcome {
            Outcome::Bind(binding) => self.bind(binding, took).await,
            Outcome::Refused(refused) => self.report(refused, took).await,
            Outcome::Skipped(pod) => {
                tracing::debug!(pod = %pod.key(), "Skip schedule deleting or assumed pod")
            }
        }
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        self.client.namespaced(namespace)
    }

    async fn bind(&self, binding: Binding, took: Duration) {
        let started = Instant::now();
        metrics::GOROUTINES.with(&["binding"]).inc();
        let posted = self.post_binding(&binding).await;
        metrics::GOROUTINES.with(&["binding"]).dec();
        match posted {
            Ok(()) => self.bound(&binding, took + started.elapsed()),
            Err(error) => {
                tracing::info!(pod = %binding.pod.key(), node = %binding.node, err = %error, "Failed to bind pod");
                let mut refused = None;
                self.shared
                    .change(|s, now| refused = s.bind_failed(&binding.pod.uid, &error.to_string(), now));
                match refused {
                    // A pod that is gone needs no condition; its deletion clears the rest.
                    Some(refused) if !error.is_not_found() => self.report(refused, took).await,
                    _ => {}
                }
            }
        }
    }

    async fn post_binding(&self, binding: &Binding) -> Result<(), Error> {
        let pod = &binding.pod;
        let body = WireBinding {
            metadata: ObjectMeta {
                name: Some(pod.name.to_string()),
                namespace: Some(pod.namespace.to_string()),
                uid: Some(pod.uid.to_string()),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(binding.node.to_string()),
                ..ObjectReference::default()
            },
        };
        let answer: Result<Status, Error> = self
            .pods(&pod.namespace)
            .create_subresource(&pod.name, "binding", &body)
            .await;
        answer.map(drop)
    }

    fn bound(&self, binding: &Binding, took: Duration) {
        let (pod, node) = (&binding.pod, &binding.node);
        let (evaluated, feasible) = (binding.evaluated_nodes, binding.feasible_nodes);
        tracing::info!(pod = %pod.key(), node = %node, evaluatedNodes = evaluated, feasibleNodes = feasible, "Successfully bound pod to node");
        let message = format!("Successfully assigned {} to {node}", pod.key());
        self.event(pod, "Normal", "Scheduled", "Binding", &message);
        count_attempt(pod, metrics::SCHEDULED, took);
        metrics::SCHEDULING_ATTEMPTS.observe(f64::from(binding.attempts));
        let label = metrics::attempts_label(binding.attempts);
        metrics::SLI_DURATION
            .with(&[&label])
            .observe(binding.first_attempt.elapsed().as_secs_f64());
    }

    fn event(&self, pod: &PodInfo, type_: &str, reason: &str, action: &str, message: &str) {
        let regarding = object_reference(&*pod.object);
        self.recorder
            .event_with_action(&regarding, None, type_, reason, action, message);
    }

    async fn report(&self, refused: Refused, took: Duration) {
        let pod = &refused.pod;
        let error = refused.reason == SCHEDULER_ERROR;
        count_attempt(
            pod,
            if error {
                metrics::ERROR
            } else {
                metrics::UNSCHEDULABLE
            },
            took,
        );
        tracing::info!(pod = %pod.key(), err = refused.message, "Unable to schedule pod; waiting");
        self.event(
            pod,
            "Warning",
            "FailedScheduling",
            "Scheduling",
            &truncated(&refused.message),
        );
        if let Some(patch) = status_patch(&refused) {
            self.patch_status(pod, patch).await;
        }
        if !error {
            metrics::PREEMPTION_ATTEMPTS.inc();
        }
        if let Some(preemption) = &refused.preemption {
            metrics::PREEMPTION_VICTIMS.observe(preemption.victims.len() as f64);
            let succeeded = self.evict(pod, preemption).await;
            self.shared.change(|s, _| s.preemption_done(&pod.uid, succeeded));
        }
    }

    async fn patch_status(&self, pod: &PodInfo, patch: Value) {
        let patched = self
            .pods(&pod.namespace)
            .patch(&pod.name, &Patch::Strategic(patch), Some("status"))
            .await;
        match patched {
            Err(error) if !error.is_not_found() => {
                tracing::error!(pod = %pod.key(), err = %error, "Error updating pod");
            }
            _ => {}
        }
    }

    /// Asks for the deletion of every victim. A failure is no reason to spare the others.
    async fn evict(&self, preemptor: &PodInfo, preemption: &Preemption) -> bool {
        for pod in &preemption.demoted {
            let cleared =
                json!({ "metadata": { "uid": &*pod.uid }, "status": { "nominatedNodeName": null } });
            self.patch_status(pod, cleared).await;
        }
        let mut succeeded = true;
        for victim in preemption.victims.iter().filter(|v| !v.is_terminating()) {
            if let Err(error) = self.evict_one(preemptor, victim, &preemption.node).await {
                tracing::error!(pod = %preemptor.key(), victim = %victim.key(), err = %error, "Tried to preempt pod");
                succeeded = false;
            }
        }
        succeeded
    }

    async fn evict_one(&self, preemptor: &PodInfo, victim: &PodInfo, node: &str) -> Result<(), Error> {
        let why = format!(
            "{}: preempting to accommodate a higher priority pod",
            preemptor.scheduler_name()
        );
        let condition = condition(victim, "DisruptionTarget", "True", "PreemptionByScheduler", &why);
        let patch = json!({ "metadata": { "uid": &*victim.uid }, "status": { "conditions": [condition] } });
        let pods = self.pods(&victim.namespace);
        gone_is_fine(
            pods.patch(&victim.name, &Patch::Strategic(patch), Some("status"))
                .await
                .map(drop),
        )?;
        // The name may already be another pod's.
        let options: DeleteOptions = client::options::precondition_uid(&victim.uid);
        gone_is_fine(pods.delete(&victim.name, &options).await)?;
        let message = format!("Preempted by pod {} on node {node}", preemptor.uid);
        let related = object_reference(&*preemptor.object);
        let regarding = object_reference(&*victim.object);
        self.recorder.event_with_action(
            &regarding,
            Some(&related),
            "Normal",
            "Preempted",
            "Preempting",
            &message,
        );
        Ok(())
    }
}

fn gone_is_fine(answer: Result<(), Error>) -> Result<(), Error> {
    match answer {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        other => other,
    }
}

fn count_attempt(pod: &PodInfo, result: &str, took: Duration) {
    let labels = [pod.scheduler_name(), result];
    metrics::SCHEDULE_ATTEMPTS.with(&labels).inc();
    metrics::ATTEMPT_DURATION
        .with(&labels)
        .observe(took.as_secs_f64());
}

/// What the refusal changes in the pod's status; `None` if it is all there already.
fn status_patch(refused: &Refused) -> Option<Value> {
    let pod = &refused.pod;
    let nominated = refused
        .nominated
        .as_deref()
        .filter(|node| *node != pod.nominated_node());
    let condition = condition(pod, "PodScheduled", "False", refused.reason, &refused.message);
    let same = |old: &PodCondition| {
        old.status == "False"
            && old.reason.as_deref() == Some(refused.reason)
            && old.message.as_deref() == Some(&refused.message)
    };
    let unchanged = existing(pod, "PodScheduled").is_some_and(same);
    if unchanged && nominated.is_none() {
        return None;
    }
    let mut status = json!({ "conditions": [condition] });
    match nominated {
        Some("") => status["nominatedNodeName"] = Value::Null,
        Some(node) => status["nominatedNodeName"] = node.into(),
        None => {}
    }
    Some(json!({ "metadata": { "uid": &*pod.uid }, "status": status }))
}

fn existing<'p>(pod: &'p PodInfo, type_: &str) -> Option<&'p PodCondition> {
    pod.status()
        .and_then(|s| s.conditions.iter().flatten().find(|c| c.type_ == type_))
}

/// A condition whose transition time moves only when its status does.
fn condition(pod: &PodInfo, type_: &str, status: &str, reason: &str, message: &str) -> Value {
    let kept = existing(pod, type_)
        .filter(|c| c.status == status)
        .and_then(|c| c.last_transition_time.clone());
    let since = kept.map_or_else(Timestamp::now, |time| time.0);
    json!({
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": pod.object.metadata.generation,
        "lastProbeTime": null,
        "lastTransitionTime": since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::UNSCHEDULABLE;
    use crate::testing::{info, pod};

    fn refused(pod: Pod, message: &str, nominated: Option<&str>) -> Refused {
        Refused {
            pod: info(pod),
            reason: UNSCHEDULABLE,
            message: message.to_owned(),
            nominated: nominated.map(str::to_owned),
            preemption: None,
        }
    }

    #[test]
    fn a_refusal_is_written_once() {
        let first = status_patch(&refused(pod("p").build(), "0/1 nodes", Some(""))).expect("a patch");
        assert_eq!(first["status"]["conditions"][0]["reason"], "Unschedulable");
        assert_eq!(first["metadata"]["uid"], "p-uid");
        assert!(first["status"].get("nominatedNodeName").is_none());
        let told = pod("p").condition("PodScheduled", "False", "Unschedulable", "0/1 nodes");
        assert_eq!(status_patch(&refused(told.build(), "0/1 nodes", Some(""))), None);
    }

    #[test]
    fn a_nomination_is_written_and_taken_back() {
        let patch = status_patch(&refused(pod("p").build(), "x", Some("node-1"))).expect("a patch");
        assert_eq!(patch["status"]["nominatedNodeName"], "node-1");
        let patch =
            status_patch(&refused(pod("p").nominated("node-1").build(), "x", Some(""))).expect("a patch");
        assert_eq!(patch["status"].get("nominatedNodeName"), Some(&Value::Null));
    }
}
