//! Does what [`super::actions`] decided.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cri::{Runtime, v1};
use futures_util::future::join_all;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use parking_lot::Mutex;

use super::actions::{ContainerToKill, KillReason, PodActions, compute_pod_actions};
use super::config::{self, ConfigError, RuntimeSettings, Start};
use super::env::{self, Sources};
use super::images::ImagePuller;
use super::labels;
use super::lifecycle::HookRunner;
use super::pod_status::{PodStatus, State, sandbox_ips};
use crate::backoff::{Backoff, Nanos, unix_nanos};
use crate::downward::Addresses;
use crate::events::{Recorder, Severity};
use crate::metrics;
use crate::objects::Objects;
use crate::pod::{PodExt, as_container, is_restartable_init};
use crate::probes::Probes;
use crate::resources::Amounts;
use crate::volumes::VolumeMap;

/// A container is given at least this long to go.
const MIN_GRACE_SECONDS: i64 = 2;
const CONTAINER_LOG_LINKS: &str = "/var/log/containers";

/// Why a container does not run: the waiting reason and its message.
#[derive(Debug, Clone)]
pub struct StartError {
    pub reason: &'static str,
    pub message: String,
    /// When it is worth trying again, if that is known.
    pub retry_at: Option<Nanos>,
}

impl StartError {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            retry_at: None,
        }
    }
}

/// What came of one sync.
#[derive(Debug, Default)]
pub struct SyncResult {
    /// Each container that was to be started: `None` when it was.
    pub starts: Vec<(String, Option<StartError>)>,
    /// The pod as a whole could not be brought further.
    pub error: Option<String>,
    /// The runtime's state was changed: it is worth looking again.
    pub acted: bool,
}

impl SyncResult {
    fn failed(mut self, error: impl Into<String>) -> Self {
        self.error = Some(error.into());
        self
    }

    pub fn is_ok(&self) -> bool {
        self.error.is_none() && self.starts.iter().all(|(_, e)| e.is_none())
    }

    /// The soonest time at which something that waits may be tried.
    pub fn retry_at(&self) -> Option<Nanos> {
        self.starts.iter().filter_map(|(_, e)| e.as_ref()?.retry_at).min()
    }

    pub fn describe(&self) -> String {
        let starts = self.starts.iter().filter_map(|(name, e)| {
            let e = e.as_ref()?;
            Some(format!(
                "failed to \"StartContainer\" for {name:?} with {}: {:?}",
                e.reason, e.message
            ))
        });
        self.error
            .iter()
            .cloned()
            .chain(starts)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// Of one sync of one pod.
pub struct SyncContext<'a> {
    pub pod: &'a Pod,
    pub status: &'a PodStatus,
    pub volumes: &'a VolumeMap,
    pub pull_secrets: &'a [Arc<Secret>],
    pub cgroup_parent: &'a str,
    pub host_ips: &'a [String],
    pub allocatable: &'a Amounts,
}

pub struct RuntimeManager {
    pub runtime: Arc<dyn Runtime>,
    /// `containerd`, as the ids in statuses have it.
    pub name: String,
    pub settings: RuntimeSettings,
    pub images: ImagePuller,
    hooks: HookRunner,
    probes: Arc<Probes>,
    objects: Arc<dyn Objects>,
    recorder: Recorder,
    backoff: Mutex<Backoff>,
}

pub struct Parts {
    pub runtime: Arc<dyn Runtime>,
    pub name: String,
    pub settings: RuntimeSettings,
    pub images: ImagePuller,
    pub hooks: HookRunner,
    pub probes: Arc<Probes>,
    pub objects: Arc<dyn Objects>,
    pub recorder: Recorder,
    pub backoff: Backoff,
}

impl RuntimeManager {
    pub fn new(parts: Parts) -> Self {
        let Parts {
            runtime,
            name,
            settings,
            images,
            hooks,
            probes,
            objects,
            recorder,
            backoff,
        } = parts;
        Self {
            runtime,
            name,
            settings,
            images,
            hooks,
            probes,
            objects,
            recorder,
            backoff: Mutex::new(backoff),
        }
    }

    /// Brings the pod's containers one step nearer to its spec.
    pub async fn sync_pod(&self, sync: &SyncContext<'_>) -> SyncResult {
        let pod = sync.pod;
        let actions = compute_pod_actions(pod, sync.status, self.probes.as_ref());
        let mut result = SyncResult::default();
        if actions.create_sandbox && !actions.sandbox_id.is_empty() {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.recorder
                .pod(pod, Severity::Normal, "SandboxChanged", message);
        }
        if actions.kill_pod {
            if sync.status.is_running() {
                result.acted = true;
                if let Err(e) = self.kill_pod(pod, sync.status, None).await {
                    return result.failed(e.to_string());
                }
            }
        } else if let Err(e) = self.kill_unwanted(pod, &actions.to_kill, &mut result).await {
            return result.failed(e.to_string());
        }
        self.remove_old_init_containers(sync, actions.create_sandbox)
            .await;
        if !actions.create_sandbox && actions.kill_pod {
            return result;
        }
        self.start_all(sync, &actions, result).await
    }

    async fn kill_unwanted(
        &self,
        pod: &Pod,
        unwanted: &[ContainerToKill],
        result: &mut SyncResult,
    ) -> cri::Result<()> {
        for kill in unwanted {
            result.acted = true;
            let container = pod.container(&kill.name).unwrap_or_default();
            self.kill_container(pod, &container, &kill.id, &kill.message, kill.reason, None)
                .await?;
        }
        Ok(())
    }

    async fn start_all(
        &self,
        sync: &SyncContext<'_>,
        actions: &PodActions,
        mut result: SyncResult,
    ) -> SyncResult {
        let (pod, spec) = (sync.pod, sync.pod.spec());
        let nothing = actions.init_to_start.is_empty()
            && actions.to_start.is_empty()
            && actions.ephemeral_to_start.is_empty();
        if nothing && !actions.create_sandbox {
            return result;
        }
        let made = config::sandbox_config(pod, &self.settings, actions.attempt, sync.cgroup_parent);
        let (sandbox_config, warning) = match made {
            Ok(made) => made,
            Err(e) => {
                return result.failed(format!(
                    "GeneratePodSandboxConfig for pod {:?} failed: {e}",
                    pod.described()
                ));
            }
        };
        if let Some(warning) = warning {
            self.recorder
                .pod(pod, Severity::Warning, "MissingClusterDNS", &warning);
        }
        let (sandbox, ips) = if actions.create_sandbox {
            result.acted = true;
            match self.create_sandbox(pod, &sandbox_config).await {
                Ok(made) => made,
                Err(e) => return result.failed(e),
            }
        } else {
            (actions.sandbox_id.clone(), sync.status.ips.clone())
        };
        let ips = if pod.is_host_network() {
            sync.host_ips.to_vec()
        } else {
            ips
        };
        let starting = Starting {
            sync,
            sandbox: &sandbox,
            sandbox_config: &sandbox_config,
            ips: &ips,
        };
        for i in &actions.ephemeral_to_start {
            let Some(ephemeral) = spec.ephemeral_containers.as_ref().and_then(|l| l.get(*i)) else {
                continue;
            };
            let target = ephemeral
                .target_container_name
                .as_deref()
                .filter(|t| !t.is_empty());
            let target = target
                .and_then(|t| sync.status.container(t))
                .map(|c| c.id.clone());
            self.start(
                &starting,
                &as_container(ephemeral),
                target.as_deref(),
                "ephemeral_container",
                &mut result,
            )
            .await;
        }
        for i in &actions.init_to_start {
            let Some(container) = pod.init_containers().get(*i) else {
                continue;
            };
            let started = self
                .start(&starting, container, None, "init_container", &mut result)
                .await;
            if !started && !is_restartable_init(container) {
                return result;
            }
        }
        let wanted = actions.to_start.iter().filter_map(|i| spec.containers.get(*i));
        for container in wanted {
            self.start(&starting, container, None, "container", &mut result)
                .await;
        }
        result
    }

    async fn create_sandbox(
        &self,
        pod: &Pod,
        config: &v1::PodSandboxConfig,
    ) -> Result<(String, Vec<String>), String> {
        metrics::STARTED_PODS.with(&[]).inc();
        let logs = config::pod_logs_dir(&self.settings, pod);
        std::fs::create_dir_all(&logs)
            .map_err(|e| format!("create pod log directory {}: {e}", logs.display()))?;
        let handler = pod.spec().runtime_class_name.as_deref().unwrap_or_default();
        let id = self.runtime.run_pod_sandbox(config.clone(), handler).await.map_err(|e| {
            metrics::STARTED_PODS_ERRORS.with(&[]).inc();
            let message = format!("Failed to create pod sandbox: {e}");
            self.recorder.pod(pod, Severity::Warning, "FailedCreatePodSandBox", &message);
            format!("failed to \"CreatePodSandbox\" for {:?} with CreatePodSandboxError: \"Failed to create sandbox for pod {:?}: {e}\"", pod.described(), pod.described())
        })?;
        let status = self.runtime.pod_sandbox_status(&id).await.map_err(|e| {
            let message = format!("Unable to get pod sandbox status: {e}");
            self.recorder
                .pod(pod, Severity::Warning, "FailedPodSandBoxStatus", &message);
            message
        })?;
        Ok((id, sandbox_ips(&status)))
    }

    async fn start(
        &self,
        starting: &Starting<'_>,
        container: &Container,
        target: Option<&str>,
        kind: &str,
        result: &mut SyncResult,
    ) -> bool {
        let outcome = match self.check_backoff(starting.sync, container) {
            Err(e) => Err(e),
            Ok(()) => {
                metrics::STARTED_CONTAINERS.with(&[kind]).inc();
                self.start_container(starting, container, target, result).await
            }
        };
        if let Err(e) = &outcome
            && !matches!(e.reason, "CrashLoopBackOff" | "ImagePullBackOff")
        {
            metrics::STARTED_CONTAINERS_ERRORS.with(&[kind, e.reason]).inc();
            tracing::warn!(pod = %starting.sync.pod.key(), container = %container.name, reason = e.reason, error = %e.message, "Container start failed");
        }
        let ok = outcome.is_ok();
        result.starts.push((container.name.clone(), outcome.err()));
        ok
    }

    /// A container that ended a moment ago is not started at once again.
    fn check_backoff(&self, sync: &SyncContext<'_>, container: &Container) -> Result<(), StartError> {
        let exited =
            |c: &&super::pod_status::ContainerStatus| c.name == container.name && c.state == State::Exited;
        let Some(ended) = sync.status.containers.iter().find(exited).map(|c| c.finished_at) else {
            return Ok(());
        };
        let pod = sync.pod;
        let key = format!(
            "{}_{}_{}_{:x}",
            pod.full_name(),
            pod.uid(),
            container.name,
            labels::container_hash(container)
        );
        let now = unix_nanos();
        let mut backoff = self.backoff.lock();
        let Some(wait) = backoff.wait_since(&key, ended, now) else {
            backoff.next(&key, ended, now);
            return Ok(());
        };
        let described = pod.described();
        let event = format!(
            "Back-off restarting failed container {} in pod {described}",
            container.name
        );
        self.recorder
            .container(pod, &container.name, Severity::Warning, "BackOff", &event);
        let text = format!(
            "back-off {} restarting failed container={} pod={described}",
            go_seconds(wait),
            container.name
        );
        let mut error = StartError::new("CrashLoopBackOff", text);
        error.retry_at = Some(ended.saturating_add(i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX)));
        Err(error)
    }

    async fn start_container(
        &self,
        starting: &Starting<'_>,
        container: &Container,
        target: Option<&str>,
        result: &mut SyncResult,
    ) -> Result<(), StartError> {
        let pod = starting.sync.pod;
        let image = self
            .images
            .ensure_image(
                pod,
                container,
                starting.sync.pull_secrets,
                starting.sandbox_config,
            )
            .await?;
        let failed = |reason: &'static str, message: String| {
            self.recorder.container(
                pod,
                &container.name,
                Severity::Warning,
                "Failed",
                &format!("Error: {message}"),
            );
            StartError::new(reason, message)
        };
        let config = self.container_config(starting, container, target, &image).await;
        let config = config.map_err(|e| failed("CreateContainerConfigError", e.to_string()))?;
        let log_path = Path::new(&starting.sandbox_config.log_directory).join(&config.log_path);
        result.acted = true;
        let created = self
            .runtime
            .create_container(starting.sandbox, config, starting.sandbox_config.clone())
            .await;
        let id = created.map_err(|e| failed("CreateContainerError", e.message))?;
        self.recorder.container(
            pod,
            &container.name,
            Severity::Normal,
            "Created",
            "Container created",
        );
        self.runtime
            .start_container(&id)
            .await
            .map_err(|e| failed("RunContainerError", e.message))?;
        self.recorder.container(
            pod,
            &container.name,
            Severity::Normal,
            "Started",
            "Container started",
        );
        link_log(&log_path, pod, &container.name, &id);
        self.post_start(starting, container, &id).await
    }

    async fn container_config(
        &self,
        starting: &Starting<'_>,
        container: &Container,
        target: Option<&str>,
        image: &super::images::PresentImage,
    ) -> Result<v1::ContainerConfig, ConfigError> {
        let sync = starting.sync;
        let sources = Sources {
            objects: self.objects.as_ref(),
            addresses: Addresses {
                pod_ips: starting.ips,
                host_ips: sync.host_ips,
            },
            allocatable: sync.allocatable,
        };
        let env = env::make_environment(sync.pod, container, &sources).await?;
        let earlier = sync
            .status
            .container(&container.name)
            .map(|c| c.restart_count + 1);
        let logs = config::pod_logs_dir(&self.settings, sync.pod).join(&container.name);
        let start = Start {
            pod: sync.pod,
            container,
            // A runtime that lost its state (a reboot) must not make the count, and so the log, begin again.
            restart_count: earlier.unwrap_or_else(|| next_log_number(&logs)),
            image_ref: &image.reference,
            image_user: &image.user,
            pod_ips: starting.ips,
            env,
            volumes: sync.volumes,
            target,
        };
        config::container_config(start, &self.settings)
    }

    async fn post_start(
        &self,
        starting: &Starting<'_>,
        container: &Container,
        id: &str,
    ) -> Result<(), StartError> {
        let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else {
            return Ok(());
        };
        let pod = starting.sync.pod;
        let ip = starting.ips.first().map(String::as_str);
        let Err(error) = self.hooks.run(id, pod, container, ip, hook).await else {
            return Ok(());
        };
        tracing::error!(pod = %pod.key(), container = %container.name, %error, "Failed to execute PostStartHook");
        // The hook's output may hold secrets: it stays out of the event.
        self.recorder.container(
            pod,
            &container.name,
            Severity::Warning,
            "FailedPostStartHook",
            "PostStartHook failed",
        );
        let reason = KillReason::FailedPostStartHook;
        if let Err(e) = self
            .kill_container(pod, container, id, "FailedPostStartHook", reason, None)
            .await
        {
            tracing::error!(pod = %pod.key(), container = %container.name, error = %e, "Failed to kill container");
        }
        Err(StartError::new("PostStartHookError", error.to_string()))
    }

    /// Of each init container one finished incarnation is kept; none when the pod begins again.
    async fn remove_old_init_containers(&self, sync: &SyncContext<'_>, all: bool) {
        for container in sync.pod.init_containers() {
            let finished = sync.status.containers.iter().filter(|c| {
                c.name == container.name && (all || matches!(c.state, State::Exited | State::Unknown))
            });
            for old in finished.skip(usize::from(!all)) {
                if let Err(error) = self.runtime.remove_container(&old.id).await {
                    tracing::warn!(pod = %sync.pod.key(), container = %old.name, %error, "Failed to remove pod init container");
                }
            }
        }
    }

    /// Stops every container, sidecars last and in reverse order, and then the sandboxes.
    pub async fn kill_pod(&self, pod: &Pod, status: &PodStatus, grace: Option<i64>) -> cri::Result<()> {
        let begun = Instant::now();
        let may_run = |c: &&super::pod_status::ContainerStatus| {
            matches!(c.state, State::Running | State::Unknown | State::Created)
        };
        let is_sidecar = |name: &str| {
            pod.init_containers()
                .iter()
                .any(|c| c.name == name && is_restartable_init(c))
        };
        let (sidecars, others): (Vec<_>, Vec<_>) = status
            .containers
            .iter()
            .filter(may_run)
            .partition(|c| is_sidecar(&c.name));
        let kills = others.iter().map(|c| self.kill_one(pod, &c.name, &c.id, grace));
        join_all(kills)
            .await
            .into_iter()
            .collect::<cri::Result<Vec<()>>>()?;
        for container in pod.init_containers().iter().rev() {
            for sidecar in sidecars.iter().filter(|c| c.name == container.name) {
                let spent = i64::try_from(begun.elapsed().as_secs()).unwrap_or(i64::MAX);
                let left = (grace.unwrap_or(pod.grace_seconds()) - spent).max(MIN_GRACE_SECONDS);
                self.kill_one(pod, &sidecar.name, &sidecar.id, Some(left)).await?;
            }
        }
        for sandbox in &status.sandboxes {
            match self.runtime.stop_pod_sandbox(&sandbox.id).await {
                Ok(()) => {}
                Err(e) if e.is_not_found() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    async fn kill_one(&self, pod: &Pod, name: &str, id: &str, grace: Option<i64>) -> cri::Result<()> {
        let container = pod.container(name).unwrap_or_else(|| Container {
            name: name.into(),
            ..Default::default()
        });
        self.kill_container(pod, &container, id, "", KillReason::None, grace)
            .await
    }

    async fn kill_container(
        &self,
        pod: &Pod,
        container: &Container,
        id: &str,
        message: &str,
        reason: KillReason,
        grace: Option<i64>,
    ) -> cri::Result<()> {
        let mut grace = grace.unwrap_or_else(|| grace_for(pod, container, reason));
        let said = if message.is_empty() {
            format!("Stopping container {}", container.name)
        } else {
            message.into()
        };
        self.recorder
            .container(pod, &container.name, Severity::Normal, "Killing", &said);
        let pre_stop = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
        if let Some(hook) = pre_stop.filter(|_| grace > 0) {
            grace -= self.pre_stop(pod, container, id, hook, grace).await;
        }
        let grace = grace.max(MIN_GRACE_SECONDS);
        tracing::info!(pod = %pod.key(), container = %container.name, id, grace_seconds = grace, "Killing container with a grace period");
        match self
            .runtime
            .stop_container(id, Duration::from_secs(u64::try_from(grace).unwrap_or(0)))
            .await
        {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(()),
        }
    }

    /// Seconds spent.
    async fn pre_stop(
        &self,
        pod: &Pod,
        container: &Container,
        id: &str,
        hook: &k8s_openapi::api::core::v1::LifecycleHandler,
        grace: i64,
    ) -> i64 {
        let begun = Instant::now();
        let limit = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        let ip = pod.status.as_ref().and_then(|s| s.pod_ip.as_deref());
        match tokio::time::timeout(limit, self.hooks.run(id, pod, container, ip, hook)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(pod = %pod.key(), container = %container.name, %error, "PreStop hook failed");
                self.recorder.container(
                    pod,
                    &container.name,
                    Severity::Warning,
                    "FailedPreStopHook",
                    "PreStopHook failed",
                );
            }
            Err(_) => {
                tracing::info!(pod = %pod.key(), container = %container.name, grace, "PreStop hook not completed in grace period")
            }
        }
        i64::try_from(begun.elapsed().as_secs()).unwrap_or(i64::MAX)
    }
}

struct Starting<'a> {
    sync: &'a SyncContext<'a>,
    sandbox: &'a str,
    sandbox_config: &'a v1::PodSandboxConfig,
    ips: &'a [String],
}

/// The pod's deletion decides, then the failed probe's own grace, then the spec's.
fn grace_for(pod: &Pod, container: &Container, reason: KillReason) -> i64 {
    if let Some(seconds) = pod.metadata.deletion_grace_period_seconds {
        return seconds;
    }
    let probe = match reason {
        KillReason::StartupProbe => container.startup_probe.as_ref(),
        KillReason::LivenessProbe => container.liveness_probe.as_ref(),
        _ => None,
    };
    probe
        .and_then(|p| p.termination_grace_period_seconds)
        .unwrap_or_else(|| pod.grace_seconds())
}

/// `10s`, `2m40s`, as Go prints a whole number of seconds.
fn go_seconds(d: Duration) -> String {
    let s = d.as_secs();
    if s < 60 {
        format!("{s}s")
    } else {
        format!("{}m{}s", s / 60, s % 60)
    }
}

fn next_log_number(dir: &Path) -> u32 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    let number = |name: String| name.split('.').next()?.parse::<u32>().ok();
    entries
        .flatten()
        .filter_map(|e| number(e.file_name().to_string_lossy().into_owned()))
        .max()
        .map_or(0, |n| n + 1)
}

/// `/var/log/containers/<pod>_<namespace>_<container>-<id>.log`: what cluster log shippers follow.
fn link_log(log: &Path, pod: &Pod, container: &str, id: &str) {
    let link = Path::new(CONTAINER_LOG_LINKS).join(format!(
        "{}_{}_{container}-{id}.log",
        pod.name(),
        pod.namespace()
    ));
    if !log.exists() {
        return;
    }
    if let Err(error) = std::os::unix::fs::symlink(log, &link)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        tracing::warn!(link = %link.display(), %error, "Failed to create legacy symbolic link");
    }
}
