//! One piece of a pod's life, done: sync, terminate, finish. The sync loop decides which; nothing here knows of the others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::Client;
use k8s_openapi::api::core::v1::{Pod, PodStatus as ApiPodStatus, Secret};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::backoff::unix_nanos;
use crate::cgroups::Cgroups;
use crate::events::{Recorder, Severity};
use crate::metrics;
use crate::mirror::Mirrors;
use crate::objects::Objects;
use crate::pleg::Pleg;
use crate::pod::{PodExt, PodUid, is_terminal_phase};
use crate::pod_workers::{Job, Outcome, StatusOverride, Work};
use crate::probes::Probes;
use crate::resources::Amounts;
use crate::runtime::actions::{PodActions, compute_pod_actions};
use crate::runtime::manager::{RuntimeManager, SyncContext, SyncResult};
use crate::runtime::pod_status::PodStatus;
use crate::status::generate::{self, Inputs, Reasons};
use crate::status::reporter::StatusReporter;
use crate::volumes::{PodFacts, Volumes};

/// What no source knows is given this long.
const ORPHAN_GRACE_SECONDS: i64 = 1;
const NETWORK_NOT_READY: &str = "network is not ready";

pub struct Kubelet {
    pub manager: RuntimeManager,
    pub pleg: Arc<Pleg>,
    pub statuses: Arc<StatusReporter>,
    pub volumes: Arc<Volumes>,
    pub probes: Arc<Probes>,
    pub cgroups: Cgroups,
    pub objects: Arc<dyn Objects>,
    pub recorder: Recorder,
    pub mirrors: Mirrors,
    pub client: Option<Client>,
    pub host_ips: Vec<String>,
    pub allocatable: Amounts,
    /// Why pods with a network of their own cannot start now.
    pub network_error: Arc<RwLock<Option<String>>>,
    pub reasons: Mutex<HashMap<PodUid, Reasons>>,
}

impl Kubelet {
    pub async fn perform(&self, mut job: Job) -> Outcome {
        let begin = Instant::now();
        let (kind, outcome) = match job.work {
            Work::Sync { pod, first } => {
                let outcome = or_cancelled(&mut job.cancel, self.sync(&pod)).await;
                (if first { "create" } else { "sync" }, outcome)
            }
            Work::Terminate { pod, grace, status } => {
                let outcome = or_cancelled(&mut job.cancel, self.terminate(&pod, grace, status)).await;
                ("terminating", outcome)
            }
            Work::Finish { pod } => ("terminated", self.finish(&pod).await),
            Work::KillOrphan { uid, name, namespace } => {
                ("terminating", self.kill_orphan(&uid, &name, &namespace).await)
            }
        };
        metrics::POD_WORKER_DURATION
            .with(&[kind])
            .observe(begin.elapsed().as_secs_f64());
        outcome
    }

    fn known_status(&self, pod: &Pod) -> Arc<PodStatus> {
        let none = || Arc::new(PodStatus::empty(pod.uid(), pod.name(), pod.namespace()));
        self.pleg.cache.get(&pod.uid()).unwrap_or_else(none)
    }

    /// Computes the pod's status from what is known now.
    fn generate(&self, pod: &Pod, runtime: &PodStatus, terminal: bool) -> ApiPodStatus {
        let old = self
            .statuses
            .get(&pod.uid())
            .or_else(|| pod.status.clone())
            .unwrap_or_default();
        let reasons = self.reasons.lock().get(&pod.uid()).cloned().unwrap_or_default();
        let inputs = Inputs {
            pod,
            runtime,
            old: &old,
            reasons: &reasons,
            runtime_name: &self.manager.name,
            terminal,
            host_ips: &self.host_ips,
        };
        let mut status = generate::pod_status(&inputs);
        self.probes.update_pod_status(pod, &mut status);
        generate::finish(&inputs, &mut status);
        if deadline_is_over(pod, &status) {
            status.phase = Some("Failed".into());
            status.reason = Some("DeadlineExceeded".into());
            status.message = Some("Pod was active on the node longer than the specified deadline".into());
        }
        status
    }

    /// A probe's verdict changed: the status says so without waiting for the pod's worker.
    pub fn refresh_status(&self, pod: &Arc<Pod>) {
        let status = self.generate(pod, &self.known_status(pod), false);
        self.statuses.set(pod, status, true);
    }

    async fn sync(&self, pod: &Arc<Pod>) -> Outcome {
        let runtime = self.known_status(pod);
        let status = self.generate(pod, &runtime, false);
        let terminal = is_terminal_phase(status.phase.as_deref().unwrap_or_default());
        self.statuses.set(pod, status, true);
        if terminal {
            return Outcome::Terminal;
        }
        let network = self.network_error.read().clone();
        if let Some(error) = network.filter(|_| !pod.is_host_network()) {
            let message = format!("{NETWORK_NOT_READY}: {error}");
            self.recorder
                .pod(pod, Severity::Warning, "NetworkNotReady", &message);
            return Outcome::FailedTransient;
        }
        self.objects.register(pod);
        match self.prepare(pod, &runtime).await {
            Ok(volumes) => self.sync_containers(pod, &runtime, &volumes).await,
            Err((reason, message)) => {
                tracing::error!(pod = %pod.key(), pod_uid = %pod.uid(), error = %message, "Error syncing pod, skipping");
                self.recorder.pod(pod, Severity::Warning, reason, &message);
                Outcome::RetryIn(Duration::from_secs(2))
            }
        }
    }

    /// Groups, mirror, directories and volumes.
    async fn prepare(
        &self,
        pod: &Arc<Pod>,
        runtime: &PodStatus,
    ) -> Result<crate::volumes::VolumeMap, (&'static str, String)> {
        let cgroup = |e: std::io::Error| {
            (
                "FailedCreatePodContainer",
                format!("unable to ensure pod container exists: {e}"),
            )
        };
        self.cgroups.ensure_pod(pod).await.map_err(cgroup)?;
        if let Some(client) = &self.client {
            self.mirrors.reconcile(client, pod, &self.statuses).await;
        }
        let dirs = |e: std::io::Error| ("Failed", format!("error making pod data directories: {e}"));
        self.volumes.make_pod_dirs(&pod.uid()).map_err(dirs)?;
        let facts = PodFacts {
            pod_ips: &runtime.ips,
            host_ips: &self.host_ips,
            allocatable: &self.allocatable,
        };
        self.volumes
            .set_up(pod, &facts)
            .await
            .map_err(|e| ("FailedMount", e.to_string()))
    }

    async fn sync_containers(
        &self,
        pod: &Arc<Pod>,
        runtime: &PodStatus,
        volumes: &crate::volumes::VolumeMap,
    ) -> Outcome {
        let pull_secrets = self.pull_secrets(pod).await;
        self.probes.add_pod(pod);
        let sync = SyncContext {
            pod,
            status: runtime,
            volumes,
            pull_secrets: &pull_secrets,
            cgroup_parent: &self.cgroups.parent(pod),
            host_ips: &self.host_ips,
            allocatable: &self.allocatable,
        };
        let result = self.manager.sync_pod(&sync).await;
        self.remember_reasons(pod, &result);
        if result.acted {
            if let Err(error) = self.pleg.refresh(&pod.uid(), pod.name(), pod.namespace()).await {
                tracing::warn!(pod = %pod.key(), %error, "Could not read the pod's status after a sync");
                return Outcome::FailedTransient;
            }
            self.probes.poke(&pod.uid());
        }
        let runtime = self.known_status(pod);
        self.statuses.set(pod, self.generate(pod, &runtime, false), true);
        self.judge(pod, &runtime, &result)
    }

    fn judge(&self, pod: &Pod, runtime: &PodStatus, result: &SyncResult) -> Outcome {
        if !result.is_ok() {
            tracing::error!(pod = %pod.key(), pod_uid = %pod.uid(), error = %result.describe(), "Error syncing pod, skipping");
            let wait = result
                .retry_at()
                .map(|at| u64::try_from(at - unix_nanos()).unwrap_or(0));
            return wait.map_or(Outcome::Failed, |ns| Outcome::RetryIn(Duration::from_nanos(ns)));
        }
        // Something may have ended between the start and the look: then it is known already and no event will tell.
        let next = compute_pod_actions(pod, runtime, self.probes.as_ref());
        let quiet = PodActions {
            sandbox_id: next.sandbox_id.clone(),
            attempt: next.attempt,
            ..PodActions::default()
        };
        if next != quiet {
            return Outcome::Again;
        }
        match time_to_deadline(pod) {
            Some(left) if left < Duration::from_secs(60) => Outcome::RetryIn(left),
            _ => Outcome::Ok,
        }
    }

    fn remember_reasons(&self, pod: &Pod, result: &SyncResult) {
        let mut all = self.reasons.lock();
        let reasons = all.entry(pod.uid()).or_default();
        for (name, error) in &result.starts {
            match error {
                Some(e) => {
                    reasons.insert(name.clone(), (e.reason.to_string(), e.message.clone()));
                }
                None => {
                    reasons.remove(name);
                }
            }
        }
    }

    async fn pull_secrets(&self, pod: &Pod) -> Vec<Arc<Secret>> {
        let mut secrets = Vec::new();
        for reference in pod.spec().image_pull_secrets.iter().flatten() {
            match self.objects.secret(pod.namespace(), &reference.name).await {
                Ok(secret) => secrets.push(secret),
                Err(error) => {
                    let message = format!(
                        "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                        reference.name
                    );
                    self.recorder.pod(
                        pod,
                        Severity::Warning,
                        "FailedToRetrieveImagePullSecret",
                        &message,
                    );
                    tracing::warn!(pod = %pod.key(), secret = %reference.name, %error, "Unable to retrieve pull secret");
                }
            }
        }
        secrets
    }

    async fn terminate(&self, pod: &Arc<Pod>, grace: Option<i64>, told: Option<StatusOverride>) -> Outcome {
        let mut status = self.generate(pod, &self.known_status(pod), false);
        if let Some(told) = told {
            status.phase = Some("Failed".into());
            (status.reason, status.message) = (Some(told.reason), Some(told.message));
        }
        self.statuses.set(pod, status, true);
        self.probes.stop_liveness_and_startup(&pod.uid());
        match self.stop(pod, grace).await {
            Ok(stopped) => {
                self.probes.remove_pod(&pod.uid());
                let status = self.generate(pod, &stopped, true);
                self.statuses.set(pod, status, false);
                Outcome::Ok
            }
            Err(error) => {
                tracing::error!(pod = %pod.key(), pod_uid = %pod.uid(), error, "Error killing pod");
                self.recorder.pod(
                    pod,
                    Severity::Warning,
                    "FailedKillPod",
                    &format!("error killing pod: {error}"),
                );
                Outcome::Failed
            }
        }
    }

    /// Looks before and after: what an interrupted sync left is found, and nothing runs when this is over.
    async fn stop(&self, pod: &Pod, grace: Option<i64>) -> Result<Arc<PodStatus>, String> {
        let uid = pod.uid();
        let look = || self.pleg.refresh(&uid, pod.name(), pod.namespace());
        let (_, before) = look().await.map_err(|e| e.to_string())?;
        self.manager
            .kill_pod(pod, &before, grace)
            .await
            .map_err(|e| e.to_string())?;
        let (_, after) = look().await.map_err(|e| e.to_string())?;
        let running: Vec<&str> = after.running().map(|c| c.id.as_str()).collect();
        if running.is_empty() {
            return Ok(after);
        }
        Err(format!(
            "detected running containers after a successful KillPod, CRI violation: {running:?}"
        ))
    }

    async fn finish(&self, pod: &Arc<Pod>) -> Outcome {
        let uid = pod.uid();
        let runtime = self.known_status(pod);
        // A pod that was refused never had containers: what was said then stays as it is.
        let never_ran =
            is_terminal_phase(pod.phase()) && runtime.containers.is_empty() && runtime.sandboxes.is_empty();
        if !never_ran {
            self.statuses.set(pod, self.generate(pod, &runtime, true), false);
        }
        let (volumes, removed) = (self.volumes.clone(), uid.clone());
        // Removing a large emptyDir takes its time.
        let torn_down = tokio::task::spawn_blocking(move || volumes.tear_down(&removed)).await;
        let torn_down = torn_down.unwrap_or_else(|e| Err(std::io::Error::other(e)));
        let removed = match torn_down {
            Ok(()) => self.cgroups.remove_pod(&uid).await,
            failed => failed,
        };
        if let Err(error) = removed {
            tracing::error!(pod = %pod.key(), pod_uid = %uid, %error, "Failed to clean up after pod");
            return Outcome::FailedTransient;
        }
        self.objects.unregister(&uid);
        self.reasons.lock().remove(&uid);
        self.statuses.terminate(pod);
        Outcome::Ok
    }

    async fn kill_orphan(&self, uid: &PodUid, name: &str, namespace: &str) -> Outcome {
        tracing::info!(pod = %format!("{namespace}/{name}"), pod_uid = %uid, "Killing a pod that no source knows");
        let pod = Pod {
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                name: Some(name.into()),
                namespace: Some(namespace.into()),
                uid: Some(uid.to_string()),
                ..Default::default()
            },
            ..Default::default()
        };
        match self.stop(&pod, Some(ORPHAN_GRACE_SECONDS)).await {
            Ok(_) => Outcome::Ok,
            Err(error) => {
                tracing::error!(pod_uid = %uid, error, "Error killing orphaned pod");
                Outcome::Failed
            }
        }
    }
}

async fn or_cancelled(cancel: &mut watch::Receiver<bool>, work: impl Future<Output = Outcome>) -> Outcome {
    tokio::select! {
        outcome = work => outcome,
        () = cancelled(cancel) => Outcome::Cancelled,
    }
}

async fn cancelled(cancel: &mut watch::Receiver<bool>) {
    if cancel.wait_for(|c| *c).await.is_err() {
        // The sync loop forgot the worker: nobody will cancel.
        std::future::pending::<()>().await;
    }
}

fn started(pod: &Pod, status: Option<&ApiPodStatus>) -> Option<jiff::Timestamp> {
    let own = pod.status.as_ref().and_then(|s| s.start_time.as_ref());
    own.or_else(|| status?.start_time.as_ref()).map(|t| t.0)
}

fn deadline_is_over(pod: &Pod, status: &ApiPodStatus) -> bool {
    let Some(seconds) = pod.spec().active_deadline_seconds else {
        return false;
    };
    if is_terminal_phase(status.phase.as_deref().unwrap_or_default()) {
        return false;
    }
    started(pod, Some(status))
        .is_some_and(|at| jiff::Timestamp::now().as_second() - at.as_second() >= seconds)
}

fn time_to_deadline(pod: &Pod) -> Option<Duration> {
    let seconds = pod.spec().active_deadline_seconds?;
    let spent = started(pod, None).map_or(0, |at| jiff::Timestamp::now().as_second() - at.as_second());
    Some(Duration::from_secs(
        u64::try_from(seconds - spent).unwrap_or(0).max(1),
    ))
}
