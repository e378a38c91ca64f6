//! From what the runtime says and what was known before to what the API shows.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, ContainerUser, HostIP, LinuxContainerUser, Pod, PodIP, PodStatus as ApiPodStatus,
    VolumeMountStatus,
};

use crate::pod::{
    PodExt, as_container, is_restartable_init, is_terminal_phase, restarts_after, status_of, time_from_nanos,
};
use crate::resources;
use crate::runtime::actions::{any_regular_created, should_be_restarted};
use crate::runtime::pod_status::{self, PodStatus, State};

const UNKNOWN: &str = "ContainerStatusUnknown";
const LOST_DELETED: &str =
    "The container could not be located when the pod was deleted.  The container used to be Running";
pub const LOST_TERMINATED: &str = "The container could not be located when the pod was terminated";
/// The exit code of what was killed and not seen.
pub const LOST_EXIT_CODE: i32 = 137;

/// Why a container could not be started, by its name: the waiting reasons.
pub type Reasons = HashMap<String, (String, String)>;

pub struct Inputs<'a> {
    pub pod: &'a Pod,
    pub runtime: &'a PodStatus,
    /// What was reported last, or the API's own.
    pub old: &'a ApiPodStatus,
    pub reasons: &'a Reasons,
    pub runtime_name: &'a str,
    /// Nothing of the pod runs any more and nothing will.
    pub terminal: bool,
    pub host_ips: &'a [String],
}

/// Everything but `ready`, `started` and the conditions, which need the probes: see [`finish`].
pub fn pod_status(inputs: &Inputs<'_>) -> ApiPodStatus {
    let pod = inputs.pod;
    let has_init = !pod.init_containers().is_empty();
    let ephemeral: Vec<Container> = pod
        .spec()
        .ephemeral_containers
        .iter()
        .flatten()
        .map(as_container)
        .collect();
    let list = |containers: &[Container], old: &Option<Vec<ContainerStatus>>, is_init| {
        let made = container_statuses(
            inputs,
            containers,
            old.as_deref().unwrap_or_default(),
            has_init,
            is_init,
        );
        (!made.is_empty()).then_some(made)
    };
    let mut status = ApiPodStatus {
        container_statuses: list(&pod.spec().containers, &inputs.old.container_statuses, false),
        init_container_statuses: list(pod.init_containers(), &inputs.old.init_container_statuses, true),
        ephemeral_container_statuses: list(&ephemeral, &inputs.old.ephemeral_container_statuses, false),
        qos_class: Some(resources::qos_class(pod).as_str().into()),
        observed_generation: pod.metadata.generation,
        ..Default::default()
    };
    set_addresses(&mut status, inputs);
    status
}

/// After the probes have filled `ready` and `started`.
pub fn finish(inputs: &Inputs<'_>, status: &mut ApiPodStatus) {
    let pod = inputs.pod;
    let mut all = status.container_statuses.clone().unwrap_or_default();
    all.extend(status.init_container_statuses.clone().unwrap_or_default());
    let old_phase = inputs.old.phase.as_deref().unwrap_or_default();
    let mut phase = phase(
        pod,
        &all,
        inputs.terminal,
        any_active_regular(pod, inputs.runtime),
    )
    .to_string();
    // A phase that was terminal once stays so.
    if !is_terminal_phase(&phase) {
        for earlier in [old_phase, pod.phase()] {
            if is_terminal_phase(earlier) {
                phase = earlier.into();
                break;
            }
        }
    }
    if is_terminal_phase(pod.phase()) {
        phase = pod.phase().into();
    }
    if phase == old_phase {
        status.reason = inputs
            .old
            .reason
            .clone()
            .or_else(|| pod.status.as_ref()?.reason.clone());
        status.message = inputs
            .old
            .message
            .clone()
            .or_else(|| pod.status.as_ref()?.message.clone());
    }
    status.phase = Some(phase);
    let others = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let mut kept: Vec<_> = others
        .filter(|c| !super::conditions::is_kubelets(&c.type_))
        .cloned()
        .collect();
    // Set by an eviction before the API knows of it.
    for c in inputs
        .old
        .conditions
        .iter()
        .flatten()
        .filter(|c| c.type_ == super::conditions::DISRUPTION_TARGET)
    {
        kept.retain(|k| k.type_ != c.type_);
        kept.push(c.clone());
    }
    status.conditions = Some(kept);
    status.conditions = Some(super::conditions::generate(pod, inputs.runtime, status));
}

fn set_addresses(status: &mut ApiPodStatus, inputs: &Inputs<'_>) {
    let mut ips = inputs.runtime.ips.clone();
    if inputs.pod.is_host_network() {
        ips = inputs.host_ips.to_vec();
    } else if ips.is_empty() && inputs.terminal {
        ips = inputs
            .old
            .pod_ips
            .iter()
            .flatten()
            .map(|ip| ip.ip.clone())
            .collect();
    }
    status.pod_ip = ips.first().cloned();
    status.pod_ips = (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect());
    status.host_ip = inputs.host_ips.first().cloned();
    let hosts: Vec<HostIP> = inputs
        .host_ips
        .iter()
        .map(|ip| HostIP { ip: ip.clone() })
        .collect();
    status.host_ips = (!hosts.is_empty()).then_some(hosts);
}

fn any_active_regular(pod: &Pod, runtime: &PodStatus) -> bool {
    let Some(sandbox) = runtime.sandboxes.first() else {
        return false;
    };
    pod.spec()
        .containers
        .iter()
        .filter_map(|c| runtime.container(&c.name))
        .any(|s| {
            s.created_at >= sandbox.created_at
                && matches!(s.state, State::Running | State::Exited | State::Unknown)
        })
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let text = |t: &str| (!t.is_empty()).then(|| t.to_string());
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: text(reason),
            message: text(message),
        }),
        ..Default::default()
    }
}

pub fn lost(message: &str) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            reason: Some(UNKNOWN.into()),
            message: Some(message.into()),
            exit_code: LOST_EXIT_CODE,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn container_statuses(
    inputs: &Inputs<'_>,
    containers: &[Container],
    old: &[ContainerStatus],
    has_init: bool,
    is_init: bool,
) -> Vec<ContainerStatus> {
    let default_reason = if has_init {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    let mut made = Vec::with_capacity(containers.len());
    for container in containers {
        let old = status_of(old, &container.name);
        let mut status = match current_status(inputs, container, old) {
            Some(status) => status,
            None => absent_status(inputs, container, old, default_reason),
        };
        status.volume_mounts = volume_mounts(container);
        status.allocated_resources = container.resources.as_ref().and_then(|r| r.requests.clone());
        status.resources.clone_from(&container.resources);
        explain(inputs, container, is_init, &mut status);
        made.push(status);
    }
    if !is_init {
        made.sort_by(|a, b| a.name.cmp(&b.name));
    }
    made
}

/// From the newest incarnation; the one before it is the last state.
fn current_status(
    inputs: &Inputs<'_>,
    container: &Container,
    old: Option<&ContainerStatus>,
) -> Option<ContainerStatus> {
    let mut incarnations = inputs
        .runtime
        .containers
        .iter()
        .filter(|c| c.name == container.name);
    let newest = incarnations.next()?;
    let mut status = from_runtime(inputs, newest, old);
    if let Some(previous) = incarnations.next() {
        status.last_state = Some(from_runtime(inputs, previous, old).state.unwrap_or_default());
    } else {
        // The runtime may have removed the one before; what was told of it stays.
        let same = old.filter(|o| o.container_id == status.container_id);
        status.last_state = same.and_then(|o| o.last_state.clone()).or_else(|| {
            let o = old.filter(|o| o.container_id != status.container_id)?;
            o.state.clone().filter(|s| s.terminated.is_some())
        });
    }
    Some(status)
}

fn from_runtime(
    inputs: &Inputs<'_>,
    c: &pod_status::ContainerStatus,
    old: Option<&ContainerStatus>,
) -> ContainerStatus {
    let id = format!("{}://{}", inputs.runtime_name, c.id);
    let mut restart_count = i32::try_from(c.restart_count).unwrap_or(i32::MAX);
    let was_running = old.is_some_and(|o| o.state.as_ref().is_some_and(|s| s.running.is_some()));
    let state = match c.state {
        State::Running => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(time_from_nanos(c.started_at)),
            }),
            ..Default::default()
        },
        State::Exited => ContainerState {
            terminated: Some(terminated(c, &id)),
            ..Default::default()
        },
        State::Unknown if was_running => {
            restart_count = old.map_or(0, |o| o.restart_count) + 1;
            lost(LOST_TERMINATED)
        }
        State::Created | State::Unknown => waiting("", ""),
    };
    ContainerStatus {
        name: c.name.clone(),
        image: c.image.clone(),
        image_id: c.image_ref.clone(),
        container_id: Some(id),
        restart_count,
        state: Some(state),
        user: c.user.as_ref().map(|u| ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: u.uid,
                gid: u.gid,
                supplemental_groups: (!u.supplemental_groups.is_empty())
                    .then(|| u.supplemental_groups.clone()),
            }),
        }),
        ..Default::default()
    }
}

fn terminated(c: &pod_status::ContainerStatus, id: &str) -> ContainerStateTerminated {
    let text = |t: &str| (!t.is_empty()).then(|| t.to_string());
    ContainerStateTerminated {
        exit_code: c.exit_code,
        reason: text(&c.reason),
        message: text(&c.message),
        started_at: Some(time_from_nanos(c.started_at)),
        finished_at: Some(time_from_nanos(c.finished_at)),
        container_id: Some(id.into()),
        ..Default::default()
    }
}

/// The runtime knows nothing of it: not made yet, or made and lost.
fn absent_status(
    inputs: &Inputs<'_>,
    container: &Container,
    old: Option<&ContainerStatus>,
    default_reason: &str,
) -> ContainerStatus {
    let fresh = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(waiting(default_reason, "")),
        ..Default::default()
    };
    let Some(old) = old else { return fresh };
    let old_state = old.state.clone().unwrap_or_default();
    if old_state.terminated.is_some() {
        return old.clone();
    }
    let mut status = ContainerStatus {
        restart_count: old.restart_count,
        last_state: old.last_state.clone(),
        ..fresh
    };
    let told = status.last_state.as_ref().is_some_and(|s| s.terminated.is_some());
    if old_state.running.is_some() && !told {
        status.last_state = Some(lost(LOST_DELETED));
        if !inputs.pod.is_deleting() {
            status.restart_count += 1;
        }
    }
    status
}

/// What is about to be started, and cannot be, says why.
fn explain(inputs: &Inputs<'_>, container: &Container, is_init: bool, status: &mut ContainerStatus) {
    let runtime = inputs.runtime.container(&container.name);
    if is_init {
        if runtime.is_some_and(|s| s.state == State::Exited && s.exit_code == 0)
            && !is_restartable_init(container)
        {
            return;
        }
        let is_waiting = status.state.as_ref().is_some_and(|s| s.waiting.is_some());
        let initialized = any_regular_created(inputs.pod, inputs.runtime);
        if runtime.is_none() && initialized && !is_restartable_init(container) && is_waiting {
            status.state = Some(ContainerState {
                terminated: Some(ContainerStateTerminated {
                    reason: Some("Completed".into()),
                    message: Some(
                        "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally".into(),
                    ),
                    exit_code: 0,
                    ..Default::default()
                }),
                ..Default::default()
            });
            return;
        }
    }
    if !should_be_restarted(inputs.pod, container, is_init, inputs.runtime) {
        return;
    }
    let Some((reason, message)) = inputs.reasons.get(&container.name) else {
        return;
    };
    if status.state.as_ref().is_some_and(|s| s.terminated.is_some()) {
        status.last_state = status.state.take();
    }
    status.state = Some(waiting(reason, message));
}

fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref()?;
    let made = mounts.iter().map(|m| VolumeMountStatus {
        name: m.name.clone(),
        mount_path: m.mount_path.clone(),
        read_only: m.read_only.filter(|r| *r),
        recursive_read_only: (m.read_only == Some(true)).then(|| "Disabled".to_string()),
        ..Default::default()
    });
    Some(made.collect())
}

#[derive(Default)]
struct Tally {
    pending_init: usize,
    pending_sidecars: usize,
    failed_init: usize,
    unknown: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    stopped_for_good: usize,
    succeeded: usize,
}

/// The exit code of a container's present end, or of its last one while it waits for the next start.
fn exit_of(status: &ContainerStatus) -> Option<(i32, bool)> {
    let state = status.state.as_ref()?;
    if let Some(t) = &state.terminated {
        return Some((t.exit_code, true));
    }
    state.waiting.as_ref()?;
    Some((status.last_state.as_ref()?.terminated.as_ref()?.exit_code, false))
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.running.is_some())
}

fn is_waiting(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.waiting.is_some())
}

pub fn phase(pod: &Pod, statuses: &[ContainerStatus], terminal: bool, initialized: bool) -> &'static str {
    let policy = pod.restart_policy();
    let mut t = Tally::default();
    for container in pod.init_containers() {
        let status = status_of(statuses, &container.name);
        if is_restartable_init(container) {
            tally_sidecar(status, &mut t);
        } else {
            match status.and_then(exit_of) {
                Some((0, _)) => {}
                Some((code, _)) if !restarts_after(container, true, policy, code) => t.failed_init += 1,
                Some(_) => {}
                None => t.pending_init += 1,
            }
        }
    }
    for container in &pod.spec().containers {
        tally_container(container, status_of(statuses, &container.name), policy, &mut t);
    }
    if t.failed_init > 0 {
        return "Failed";
    }
    if t.pending_init > 0 || (t.pending_sidecars > 0 && !initialized) || t.waiting > 0 {
        return "Pending";
    }
    if t.running > 0 && t.unknown == 0 {
        return "Running";
    }
    if t.running == 0 && t.stopped > 0 && t.unknown == 0 {
        let ended = if t.stopped == t.succeeded {
            "Succeeded"
        } else {
            "Failed"
        };
        let over = (terminal && !pod.is_static()) || t.stopped == t.stopped_for_good;
        return if over { ended } else { "Running" };
    }
    "Pending"
}

fn tally_sidecar(status: Option<&ContainerStatus>, t: &mut Tally) {
    let Some(status) = status else {
        t.unknown += 1;
        return;
    };
    if is_running(status) {
        t.pending_sidecars += usize::from(status.started != Some(true));
        t.running += 1;
    } else if exit_of(status).is_some() {
        // A sidecar that ended does not end the pod, nor keep it.
    } else if is_waiting(status) {
        t.pending_sidecars += 1;
        t.waiting += 1;
    } else {
        t.pending_sidecars += 1;
        t.unknown += 1;
    }
}

fn tally_container(container: &Container, status: Option<&ContainerStatus>, policy: &str, t: &mut Tally) {
    let Some(status) = status else {
        t.unknown += 1;
        return;
    };
    if is_running(status) {
        t.running += 1;
    } else if let Some((code, now)) = exit_of(status) {
        t.stopped += 1;
        t.stopped_for_good += usize::from(!restarts_after(container, false, policy, code));
        t.succeeded += usize::from(now && code == 0);
    } else if is_waiting(status) {
        t.waiting += 1;
    } else {
        t.unknown += 1;
    }
}

#[cfg(test)]
#[path = "generate_tests.rs"]
mod tests;
