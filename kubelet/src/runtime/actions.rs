//! Decides what a pod's containers need, from its spec, what the runtime reports and the probes' verdicts. Pure: the runtime manager does it.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::labels::container_hash;
use super::pod_status::{ContainerStatus, PodStatus, State};
use crate::pod::{PodExt, is_restartable_init, restarts_after};
use crate::probes::Verdict;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillReason {
    None,
    Unknown,
    StartupProbe,
    LivenessProbe,
    FailedPostStartHook,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerToKill {
    pub id: String,
    pub name: String,
    pub message: String,
    pub reason: KillReason,
}

/// Indices are into the spec's lists.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PodActions {
    pub kill_pod: bool,
    pub create_sandbox: bool,
    /// The sandbox in use, or the one that is being replaced. Empty: none.
    pub sandbox_id: String,
    pub attempt: u32,
    pub ephemeral_to_start: Vec<usize>,
    pub init_to_start: Vec<usize>,
    pub to_start: Vec<usize>,
    pub to_kill: Vec<ContainerToKill>,
}

/// What the probes last said about a container, by its id. `None`: not probed yet, or no such probe.
pub trait Verdicts {
    fn liveness(&self, container_id: &str) -> Option<Verdict>;
    fn startup(&self, container_id: &str) -> Option<Verdict>;
}

/// Whether a new sandbox is needed, its attempt number, and the id of the one there is.
pub fn sandbox_changed(pod: &Pod, status: &PodStatus) -> (bool, u32, String) {
    use cri::v1::{NamespaceMode, PodSandboxState};
    let Some(latest) = status.sandboxes.first() else {
        return (true, 0, String::new());
    };
    let next = latest.metadata.as_ref().map_or(0, |m| m.attempt) + 1;
    let ready = status
        .sandboxes
        .iter()
        .filter(|s| s.state() == PodSandboxState::SandboxReady)
        .count();
    if ready > 1 || latest.state() != PodSandboxState::SandboxReady {
        return (true, next, latest.id.clone());
    }
    let options = latest
        .linux
        .as_ref()
        .and_then(|l| l.namespaces.as_ref()?.options.as_ref());
    let network = options.map_or(NamespaceMode::Pod as i32, |o| o.network);
    let wanted = if pod.is_host_network() {
        NamespaceMode::Node
    } else {
        NamespaceMode::Pod
    };
    if network != wanted as i32 {
        return (true, next, String::new());
    }
    if !pod.is_host_network() && latest.network.as_ref().is_some_and(|n| n.ip.is_empty()) {
        return (true, next, latest.id.clone());
    }
    (false, next - 1, latest.id.clone())
}

pub fn compute_pod_actions(pod: &Pod, status: &PodStatus, verdicts: &dyn Verdicts) -> PodActions {
    let (create, attempt, sandbox_id) = sandbox_changed(pod, status);
    let mut actions = PodActions {
        kill_pod: create,
        create_sandbox: create,
        sandbox_id,
        attempt,
        ..PodActions::default()
    };
    if create {
        plan_new_sandbox(pod, status, &mut actions);
        return actions;
    }
    for (i, container) in pod.spec().ephemeral_containers.iter().flatten().enumerate() {
        // An ephemeral container is never restarted.
        if status.container(&container.name).is_none() {
            actions.ephemeral_to_start.push(i);
        }
    }
    let initialized = plan_init_containers(pod, status, verdicts, &mut actions);
    if actions.kill_pod || !initialized {
        return actions;
    }
    let mut keep = 0;
    for (i, container) in pod.spec().containers.iter().enumerate() {
        keep += usize::from(plan_container(pod, status, verdicts, i, container, &mut actions));
    }
    if keep == 0 && actions.to_start.is_empty() {
        actions.kill_pod = true;
        // Nothing is left to serve: sidecars must not keep the pod alive.
        actions.init_to_start.clear();
    }
    actions
}

/// Everything begins again in a new sandbox, unless the pod has nothing left to do.
fn plan_new_sandbox(pod: &Pod, status: &PodStatus, actions: &mut PodActions) {
    let never = !restarts_on_failure(pod);
    if never && actions.attempt != 0 && !status.containers.is_empty() {
        actions.create_sandbox = false;
        return;
    }
    let run_once = |c: &Container| match c.restart_policy.as_deref() {
        Some(policy) => policy == "OnFailure",
        None => pod.restart_policy() == "OnFailure",
    };
    let to_start: Vec<usize> = pod
        .spec()
        .containers
        .iter()
        .enumerate()
        .filter(|(_, c)| !(run_once(c) && succeeded(c, status)))
        .map(|(i, _)| i)
        .collect();
    if to_start.is_empty() && any_regular_created(pod, status) {
        actions.create_sandbox = false;
        return;
    }
    if pod.init_containers().is_empty() {
        actions.to_start = to_start;
    } else {
        actions.init_to_start = vec![0];
    }
}

/// Container-level policies may restart what the pod-level one would not.
fn restarts_on_failure(pod: &Pod) -> bool {
    pod.restart_policy() != "Never"
        || pod
            .spec()
            .containers
            .iter()
            .any(|c| c.restart_policy.as_deref().is_some_and(|p| p != "Never"))
}

fn succeeded(container: &Container, status: &PodStatus) -> bool {
    status
        .container(&container.name)
        .is_some_and(|s| s.state == State::Exited && s.exit_code == 0)
}

pub fn any_regular_created(pod: &Pod, status: &PodStatus) -> bool {
    pod.spec()
        .containers
        .iter()
        .any(|c| status.container(&c.name).is_some())
}

/// True when the container runs and stays.
fn plan_container(
    pod: &Pod,
    status: &PodStatus,
    verdicts: &dyn Verdicts,
    index: usize,
    container: &Container,
    actions: &mut PodActions,
) -> bool {
    let current = status.container(&container.name);
    let Some(running) = current.filter(|s| s.state == State::Running) else {
        if should_be_restarted(pod, container, false, status) {
            actions.to_start.push(index);
            if let Some(unknown) = current.filter(|s| s.state == State::Unknown) {
                // It may be running: two incarnations must never be.
                let message = "Container is in \"unknown\" state, try killing it before restart".to_string();
                actions.to_kill.push(kill(unknown, message, KillReason::Unknown));
            }
        }
        return false;
    };
    let policy = container
        .restart_policy
        .as_deref()
        .unwrap_or(pod.restart_policy());
    let (mut message, reason, restart) = if container_hash(container) != running.hash {
        (
            format!("Container {} definition changed", container.name),
            KillReason::None,
            true,
        )
    } else if verdicts.liveness(&running.id) == Some(Verdict::Failure) {
        (
            format!("Container {} failed liveness probe", container.name),
            KillReason::LivenessProbe,
            policy != "Never",
        )
    } else if verdicts.startup(&running.id) == Some(Verdict::Failure) {
        (
            format!("Container {} failed startup probe", container.name),
            KillReason::StartupProbe,
            policy != "Never",
        )
    } else {
        return true;
    };
    if restart {
        message.push_str(", will be restarted");
        actions.to_start.push(index);
    }
    actions.to_kill.push(kill(running, message, reason));
    false
}

fn kill(status: &ContainerStatus, message: String, reason: KillReason) -> ContainerToKill {
    ContainerToKill {
        id: status.id.clone(),
        name: status.name.clone(),
        message,
        reason,
    }
}

/// For a container that does not run. One that was made and never started is made again.
pub fn should_be_restarted(pod: &Pod, container: &Container, is_init: bool, status: &PodStatus) -> bool {
    if pod.is_deleting() {
        return false;
    }
    match status.container(&container.name) {
        None => true,
        Some(s) => match s.state {
            State::Running => false,
            State::Unknown | State::Created => true,
            State::Exited => restarts_after(container, is_init, pod.restart_policy(), s.exit_code),
        },
    }
}

/// Walks the init containers from the last: finished ones may have been removed from the runtime, so only the latest that is known counts.
/// True when the main containers may run.
fn plan_init_containers(
    pod: &Pod,
    status: &PodStatus,
    verdicts: &dyn Verdicts,
    actions: &mut PodActions,
) -> bool {
    let inits = pod.init_containers();
    if inits.is_empty() {
        return true;
    }
    let mut initialized = pod.spec().containers.iter().any(|c| {
        status
            .container(&c.name)
            .is_some_and(|s| matches!(s.state, State::Created | State::Running))
    });
    let mut later_seen = initialized;
    for (i, container) in inits.iter().enumerate().rev() {
        let sidecar = is_restartable_init(container);
        let Some(current) = status.container(&container.name) else {
            if later_seen && sidecar {
                actions.init_to_start.push(i);
            }
            continue;
        };
        if later_seen && !sidecar {
            continue;
        }
        let done = match current.state {
            State::Created => {
                // Made but never started: the runtime failed in between.
                actions.init_to_start.push(i);
                false
            }
            State::Running if sidecar => plan_running_sidecar(container, current, verdicts, i, actions),
            State::Running => false,
            State::Exited if sidecar => {
                actions.init_to_start.push(i);
                false
            }
            State::Exited if current.exit_code == 0 => true,
            State::Exited | State::Unknown => {
                if !restart_failed_init(pod, container, current, sidecar, i, actions) {
                    return false;
                }
                false
            }
        };
        if done {
            if i + 1 == inits.len() {
                initialized = true;
            } else if !later_seen {
                actions.init_to_start.push(i + 1);
            }
        }
        later_seen = true;
    }
    if !later_seen {
        actions.init_to_start.push(0);
    }
    actions.init_to_start.reverse();
    actions.init_to_start.dedup();
    initialized
}

/// False: the pod has failed.
fn restart_failed_init(
    pod: &Pod,
    container: &Container,
    current: &ContainerStatus,
    sidecar: bool,
    index: usize,
    actions: &mut PodActions,
) -> bool {
    let code = if current.state == State::Unknown {
        137
    } else {
        current.exit_code
    };
    if !sidecar && !restarts_after(container, true, pod.restart_policy(), code) {
        actions.kill_pod = true;
        actions.init_to_start.clear();
        return false;
    }
    if current.state == State::Unknown {
        let message = "Init container is in \"unknown\" state, try killing it before restart".to_string();
        actions.to_kill.push(kill(current, message, KillReason::Unknown));
    }
    actions.init_to_start.push(index);
    true
}

/// True when the sidecar has started, so that what follows it may start.
fn plan_running_sidecar(
    container: &Container,
    current: &ContainerStatus,
    verdicts: &dyn Verdicts,
    index: usize,
    actions: &mut PodActions,
) -> bool {
    let name = &container.name;
    if container.startup_probe.is_some() {
        match verdicts.startup(&current.id) {
            Some(Verdict::Success) => {}
            Some(Verdict::Failure) => {
                let message = format!("Init container {name} failed startup probe");
                actions
                    .to_kill
                    .push(kill(current, message, KillReason::StartupProbe));
                actions.init_to_start.push(index);
                return false;
            }
            _ => return false,
        }
    }
    let (message, reason) = if container_hash(container) != current.hash {
        (
            format!("Init container {name} definition changed"),
            KillReason::None,
        )
    } else if container.liveness_probe.is_some() && verdicts.liveness(&current.id) == Some(Verdict::Failure) {
        (
            format!("Init container {name} failed liveness probe"),
            KillReason::LivenessProbe,
        )
    } else {
        return true;
    };
    actions.to_kill.push(kill(current, message, reason));
    actions.init_to_start.push(index);
    true
}

#[cfg(test)]
#[path = "actions_tests.rs"]
mod tests;
