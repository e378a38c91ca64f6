//! The conditions that the kubelet owns.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus as ApiPodStatus};

use crate::pod::{PodExt, is_restartable_init, status_of};
use crate::runtime::actions::sandbox_changed;
use crate::runtime::pod_status::PodStatus;

pub const READY: &str = "Ready";
pub const CONTAINERS_READY: &str = "ContainersReady";
pub const INITIALIZED: &str = "Initialized";
pub const SCHEDULED: &str = "PodScheduled";
pub const READY_TO_START: &str = "PodReadyToStartContainers";
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";

pub fn is_kubelets(kind: &str) -> bool {
    let own = [READY, CONTAINERS_READY, INITIALIZED, SCHEDULED, READY_TO_START];
    own.contains(&kind)
        || matches!(
            kind,
            "PodResizePending" | "PodResizeInProgress" | "AllContainersRestarting"
        )
}

pub fn condition(kind: &str, holds: bool, reason: &str, message: &str) -> PodCondition {
    let text = |t: &str| (!t.is_empty()).then(|| t.to_string());
    PodCondition {
        type_: kind.into(),
        status: if holds { "True" } else { "False" }.into(),
        reason: text(reason),
        message: text(message),
        ..Default::default()
    }
}

/// The conditions after the others' ones are kept.
pub fn generate(pod: &Pod, runtime: &PodStatus, status: &ApiPodStatus) -> Vec<PodCondition> {
    let phase = status.phase.as_deref().unwrap_or_default();
    let statuses: Vec<ContainerStatus> = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten()
        .cloned()
        .collect();
    let others = status.conditions.clone().unwrap_or_default();
    let containers_ready = containers_ready(pod, &statuses, phase);
    let mut all = others.clone();
    all.push(condition(
        READY_TO_START,
        !sandbox_changed(pod, runtime).0,
        "",
        "",
    ));
    all.push(initialized(pod, &statuses, phase));
    all.push(ready(pod, &containers_ready, &others));
    all.push(containers_ready);
    all.push(condition(SCHEDULED, true, "", ""));
    let generation = pod.metadata.generation;
    for c in all.iter_mut().filter(|c| is_kubelets(&c.type_)) {
        c.observed_generation = generation;
    }
    all
}

fn names(list: &[&str]) -> String {
    format!("[{}]", list.join(" "))
}

fn containers_ready(pod: &Pod, statuses: &[ContainerStatus], phase: &str) -> PodCondition {
    let sidecars = pod.init_containers().iter().filter(|c| is_restartable_init(c));
    let counted = sidecars.chain(&pod.spec().containers);
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    for container in counted {
        match status_of(statuses, &container.name) {
            None => unknown.push(container.name.as_str()),
            Some(s) if !s.ready => unready.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return condition(CONTAINERS_READY, false, "PodCompleted", "");
    }
    if phase == "Failed" {
        return condition(CONTAINERS_READY, false, "PodFailed", "");
    }
    let mut messages = Vec::new();
    if !unknown.is_empty() {
        messages.push(format!("containers with unknown status: {}", names(&unknown)));
    }
    if !unready.is_empty() {
        messages.push(format!("containers with unready status: {}", names(&unready)));
    }
    if messages.is_empty() {
        return condition(CONTAINERS_READY, true, "", "");
    }
    condition(
        CONTAINERS_READY,
        false,
        "ContainersNotReady",
        &messages.join(", "),
    )
}

fn ready(pod: &Pod, containers_ready: &PodCondition, others: &[PodCondition]) -> PodCondition {
    if containers_ready.status != "True" {
        return PodCondition {
            type_: READY.into(),
            ..containers_ready.clone()
        };
    }
    let mut unready = Vec::new();
    for gate in pod.spec().readiness_gates.iter().flatten() {
        let kind = &gate.condition_type;
        match others.iter().find(|c| &c.type_ == kind) {
            None => unready.push(format!(
                "corresponding condition of pod readiness gate {kind:?} does not exist."
            )),
            Some(c) if c.status != "True" => {
                unready.push(format!(
                    "the status of pod readiness gate {kind:?} is not \"True\", but {}",
                    c.status
                ));
            }
            Some(_) => {}
        }
    }
    if unready.is_empty() {
        return condition(READY, true, "", "");
    }
    condition(READY, false, "ReadinessGatesNotReady", &unready.join(", "))
}

fn initialized(pod: &Pod, statuses: &[ContainerStatus], phase: &str) -> PodCondition {
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for container in pod.init_containers() {
        let Some(status) = status_of(statuses, &container.name) else {
            unknown.push(container.name.as_str());
            continue;
        };
        let done = if is_restartable_init(container) {
            status.started == Some(true)
        } else {
            status.ready
        };
        if !done {
            incomplete.push(container.name.as_str());
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return condition(INITIALIZED, true, "PodCompleted", "");
    }
    let begun = |s: &ContainerStatus| {
        let now = s
            .state
            .as_ref()
            .is_some_and(|s| s.running.is_some() || s.terminated.is_some());
        now || s.last_state.as_ref().is_some_and(|s| s.terminated.is_some())
    };
    let any_started = pod
        .spec()
        .containers
        .iter()
        .filter_map(|c| status_of(statuses, &c.name))
        .any(begun);
    if any_started || (unknown.is_empty() && incomplete.is_empty()) {
        return condition(INITIALIZED, true, "", "");
    }
    let mut messages = Vec::new();
    if !unknown.is_empty() {
        messages.push(format!("containers with unknown status: {}", names(&unknown)));
    }
    if !incomplete.is_empty() {
        messages.push(format!(
            "containers with incomplete status: {}",
            names(&incomplete)
        ));
    }
    condition(
        INITIALIZED,
        false,
        "ContainersNotInitialized",
        &messages.join(", "),
    )
}
