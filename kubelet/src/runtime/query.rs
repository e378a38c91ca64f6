//! Asking the runtime about pods.

use std::collections::HashMap;
use std::time::Instant;

use cri::{Runtime, v1};
use futures_util::future::try_join_all;

use super::labels;
use super::pod_status::{PodStatus, State, container_status, sandbox_ips};
use super::termination_message;
use crate::pod::PodUid;

/// A pod in outline: enough to see what changed since the last look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodOutline {
    pub name: String,
    pub namespace: String,
    /// Container id to state; sandboxes among them, running when ready.
    pub states: HashMap<String, OutlineState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutlineState {
    Running,
    Exited,
    Unknown,
}

impl From<State> for OutlineState {
    fn from(state: State) -> Self {
        match state {
            State::Running => Self::Running,
            State::Exited => Self::Exited,
            State::Created | State::Unknown => Self::Unknown,
        }
    }
}

/// Two calls for the whole node.
pub async fn list_pods(runtime: &dyn Runtime) -> cri::Result<HashMap<PodUid, PodOutline>> {
    let (sandboxes, containers) =
        futures_util::try_join!(runtime.list_pod_sandboxes(None), runtime.list_containers(None))?;
    let mut pods: HashMap<PodUid, PodOutline> = HashMap::new();
    let mut put = |labels: &labels::Map, id: String, state: OutlineState| {
        let Some(identity) = labels::pod_identity(labels) else {
            return;
        };
        let pod = pods.entry(identity.uid).or_default();
        (pod.name, pod.namespace) = (identity.name, identity.namespace);
        pod.states.insert(id, state);
    };
    for sandbox in sandboxes {
        let ready = sandbox.state() == v1::PodSandboxState::SandboxReady;
        let state = if ready {
            OutlineState::Running
        } else {
            OutlineState::Exited
        };
        put(&sandbox.labels, sandbox.id, state);
    }
    for container in containers {
        put(&container.labels, container.id, State::of(container.state).into());
    }
    Ok(pods)
}

/// Everything about one pod.
pub async fn pod_status(
    runtime: &dyn Runtime,
    uid: &PodUid,
    name: &str,
    namespace: &str,
) -> cri::Result<PodStatus> {
    let observed = Instant::now();
    let selector = HashMap::from([(labels::POD_UID.to_string(), uid.to_string())]);
    let sandbox_filter = v1::PodSandboxFilter {
        label_selector: selector.clone(),
        ..Default::default()
    };
    let container_filter = v1::ContainerFilter {
        label_selector: selector,
        ..Default::default()
    };
    let (sandboxes, containers) = futures_util::try_join!(
        runtime.list_pod_sandboxes(Some(sandbox_filter)),
        runtime.list_containers(Some(container_filter))
    )?;
    let sandboxes = try_join_all(sandboxes.iter().map(|s| found(runtime.pod_sandbox_status(&s.id))));
    let containers = try_join_all(
        containers
            .iter()
            .map(|c| found(runtime.container_status(&c.id, false))),
    );
    let (sandboxes, containers) = futures_util::try_join!(sandboxes, containers)?;
    let containers = containers
        .into_iter()
        .flatten()
        .filter_map(|c| c.status)
        .collect();
    Ok(assemble(
        uid,
        name,
        namespace,
        sandboxes.into_iter().flatten().collect(),
        containers,
        observed,
    ))
}

/// What was removed between the list and the look is simply not there.
async fn found<T>(call: impl Future<Output = cri::Result<T>>) -> cri::Result<Option<T>> {
    match call.await {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}

/// Also what a runtime's event carries.
pub fn assemble(
    uid: &PodUid,
    name: &str,
    namespace: &str,
    mut sandboxes: Vec<v1::PodSandboxStatus>,
    containers: Vec<v1::ContainerStatus>,
    observed: Instant,
) -> PodStatus {
    sandboxes.sort_by_key(|s| std::cmp::Reverse(s.created_at));
    let message = |c: &v1::ContainerStatus| {
        (c.state() == v1::ContainerState::ContainerExited)
            .then(|| termination_message::read(c))
            .flatten()
    };
    let mut containers: Vec<_> = containers
        .into_iter()
        .map(|c| {
            let m = message(&c);
            container_status(c, m)
        })
        .collect();
    containers.sort_by_key(|c| std::cmp::Reverse(c.created_at));
    let ips = sandboxes
        .first()
        .filter(|s| s.state() == v1::PodSandboxState::SandboxReady)
        .map(sandbox_ips);
    PodStatus {
        uid: uid.clone(),
        name: name.into(),
        namespace: namespace.into(),
        ips: ips.unwrap_or_default(),
        containers,
        sandboxes,
        observed,
    }
}
