//! What the runtime says about one pod, in the kubelet's words.

use std::time::Instant;

use cri::v1;

use super::labels;
use crate::pod::PodUid;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Exited,
    Unknown,
}

impl State {
    pub fn of(state: i32) -> Self {
        match v1::ContainerState::try_from(state) {
            Ok(v1::ContainerState::ContainerCreated) => Self::Created,
            Ok(v1::ContainerState::ContainerRunning) => Self::Running,
            Ok(v1::ContainerState::ContainerExited) => Self::Exited,
            _ => Self::Unknown,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct ContainerStatus {
    pub id: String,
    pub name: String,
    pub state: State,
    /// Nanoseconds of Unix time, here and below; zero when it has not happened.
    pub created_at: i64,
    pub started_at: i64,
    pub finished_at: i64,
    pub exit_code: i32,
    pub image: String,
    pub image_ref: String,
    pub hash: u64,
    pub restart_count: u32,
    pub reason: String,
    pub message: String,
    pub log_path: String,
    pub user: Option<v1::LinuxContainerUser>,
}

/// Newest first, both lists.
#[derive(Debug, Clone)]
pub struct PodStatus {
    pub uid: PodUid,
    pub name: String,
    pub namespace: String,
    pub ips: Vec<String>,
    pub containers: Vec<ContainerStatus>,
    pub sandboxes: Vec<v1::PodSandboxStatus>,
    /// When the runtime was asked.
    pub observed: Instant,
}

impl PodStatus {
    pub fn empty(uid: PodUid, name: &str, namespace: &str) -> Self {
        Self {
            uid,
            name: name.into(),
            namespace: namespace.into(),
            ips: Vec::new(),
            containers: Vec::new(),
            sandboxes: Vec::new(),
            observed: Instant::now(),
        }
    }

    pub fn container(&self, name: &str) -> Option<&ContainerStatus> {
        self.containers.iter().find(|c| c.name == name)
    }

    pub fn by_id(&self, id: &str) -> Option<&ContainerStatus> {
        self.containers.iter().find(|c| c.id == id)
    }

    pub fn running(&self) -> impl Iterator<Item = &ContainerStatus> {
        self.containers.iter().filter(|c| c.state == State::Running)
    }

    pub fn ready_sandbox(&self) -> Option<&v1::PodSandboxStatus> {
        self.sandboxes
            .iter()
            .find(|s| s.state() == v1::PodSandboxState::SandboxReady)
    }

    /// Anything that a kill has to stop: a container that may run or a sandbox that is up.
    pub fn is_running(&self) -> bool {
        let active = |c: &ContainerStatus| matches!(c.state, State::Running | State::Unknown);
        self.containers.iter().any(active) || self.ready_sandbox().is_some()
    }
}

/// `termination_message` is read from disk by the caller, only for containers that have left.
pub fn container_status(status: v1::ContainerStatus, termination_message: Option<String>) -> ContainerStatus {
    let state = State::of(status.state);
    let image = status
        .image
        .as_ref()
        .map(|i| match i.user_specified_image.as_str() {
            "" => i.image.clone(),
            specified => specified.to_string(),
        });
    let exited = state == State::Exited;
    let mut message = if exited { status.message } else { String::new() };
    if let Some(text) = termination_message.filter(|t| !t.is_empty()) {
        if !message.is_empty() {
            message.push_str(": ");
        }
        message.push_str(&text);
    }
    ContainerStatus {
        name: status
            .labels
            .get(labels::CONTAINER_NAME)
            .cloned()
            .unwrap_or_default(),
        hash: labels::hash_annotation(&status.annotations),
        restart_count: labels::restart_count_annotation(&status.annotations),
        id: status.id,
        state,
        created_at: status.created_at,
        started_at: if state == State::Created {
            0
        } else {
            status.started_at
        },
        finished_at: if exited { status.finished_at } else { 0 },
        exit_code: if exited { status.exit_code } else { 0 },
        image: image.unwrap_or_default(),
        image_ref: status.image_ref,
        reason: if exited { status.reason } else { String::new() },
        message,
        log_path: status.log_path,
        user: status.user.and_then(|u| u.linux),
    }
}

pub fn sandbox_ips(status: &v1::PodSandboxStatus) -> Vec<String> {
    let Some(network) = &status.network else {
        return Vec::new();
    };
    let all = std::iter::once(&network.ip).chain(network.additional_ips.iter().map(|ip| &ip.ip));
    all.filter(|ip| ip.parse::<std::net::IpAddr>().is_ok())
        .cloned()
        .collect()
}
