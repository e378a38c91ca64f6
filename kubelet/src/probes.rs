//! Liveness, readiness and startup. One task for each probe of each container; it sleeps until its next period, or until it is told that the
//! container changed. A verdict that changes goes to the sync loop at once.
//!
//! [`schedule`] decides when to probe and what a run of results means (pure); [`attempt`] performs one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus, Probe};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::events::{Recorder, Severity};
use crate::pod::{PodExt, PodUid, is_restartable_init};
use crate::runtime::actions::Verdicts;

pub mod attempt;
mod schedule;

use attempt::{Attempt, Prober, Target};
use schedule::{Schedule, Step, View};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Success,
    Failure,
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    Liveness,
    Readiness,
    Startup,
}

pub const KINDS: [ProbeKind; 3] = [ProbeKind::Startup, ProbeKind::Readiness, ProbeKind::Liveness];

impl ProbeKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
            Self::Startup => "Startup",
        }
    }

    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
            Self::Startup => container.startup_probe.as_ref(),
        }
    }
}

/// What the runtime last said about one container, as far as a probe must know.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerView {
    pub id: String,
    pub running: bool,
    pub started_at: i64,
    pub pod_ip: Option<String>,
}

pub trait Containers: Send + Sync {
    fn view(&self, uid: &PodUid, container: &str) -> Option<ContainerView>;
}

type Key = (PodUid, String, ProbeKind);
type ResultKey = (String, ProbeKind);

struct Worker {
    poke: Arc<Notify>,
    task: tokio::task::AbortHandle,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub struct Probes {
    workers: Mutex<HashMap<Key, Worker>>,
    results: Mutex<HashMap<ResultKey, Verdict>>,
    containers: Arc<dyn Containers>,
    prober: Prober,
    recorder: Recorder,
    changed: Box<dyn Fn(PodUid, ProbeKind) + Send + Sync>,
}

impl Verdicts for Probes {
    fn liveness(&self, id: &str) -> Option<Verdict> {
        self.verdict(id, ProbeKind::Liveness)
    }

    fn startup(&self, id: &str) -> Option<Verdict> {
        self.verdict(id, ProbeKind::Startup)
    }
}

impl Probes {
    pub fn new(
        containers: Arc<dyn Containers>,
        prober: Prober,
        recorder: Recorder,
        changed: Box<dyn Fn(PodUid, ProbeKind) + Send + Sync>,
    ) -> Self {
        Self {
            workers: Mutex::default(),
            results: Mutex::default(),
            containers,
            prober,
            recorder,
            changed,
        }
    }

    fn verdict(&self, id: &str, kind: ProbeKind) -> Option<Verdict> {
        self.results.lock().get(&(id.to_string(), kind)).copied()
    }

    fn set(&self, uid: &PodUid, id: &str, kind: ProbeKind, verdict: Verdict) {
        let old = self.results.lock().insert((id.to_string(), kind), verdict);
        if old != Some(verdict) {
            (self.changed)(uid.clone(), kind);
            if kind == ProbeKind::Startup && verdict == Verdict::Success {
                self.poke(uid);
            }
        }
    }

    /// Begins the probes of a pod's containers that are not running yet; others are left alone.
    pub fn add_pod(self: &Arc<Self>, pod: &Arc<Pod>) {
        let sidecars = pod.init_containers().iter().filter(|c| is_restartable_init(c));
        for container in pod.spec().containers.iter().chain(sidecars) {
            for kind in KINDS {
                let Some(probe) = kind.of(container) else { continue };
                let key = (pod.uid(), container.name.clone(), kind);
                let mut workers = self.workers.lock();
                if workers.contains_key(&key) {
                    continue;
                }
                let poke = Arc::new(Notify::new());
                let run = run(
                    self.clone(),
                    pod.clone(),
                    container.clone(),
                    kind,
                    probe.clone(),
                    poke.clone(),
                );
                let task = tokio::spawn(run).abort_handle();
                workers.insert(key, Worker { poke, task });
            }
        }
    }

    /// A container of the pod changed: the probes look again now.
    pub fn poke(&self, uid: &PodUid) {
        for ((pod, _, _), worker) in self.workers.lock().iter() {
            if pod == uid {
                worker.poke.notify_one();
            }
        }
    }

    /// A pod that is being stopped must not be restarted by a probe; readiness still takes it out of services.
    pub fn stop_liveness_and_startup(&self, uid: &PodUid) {
        self.workers
            .lock()
            .retain(|(pod, _, kind), _| pod != uid || *kind == ProbeKind::Readiness);
    }

    pub fn remove_pod(&self, uid: &PodUid) {
        self.workers.lock().retain(|(pod, _, _), _| pod != uid);
    }

    /// Forgets results of containers that no longer exist.
    pub fn keep_results(&self, alive: &dyn Fn(&str) -> bool) {
        self.results.lock().retain(|(id, _), _| alive(id));
    }

    fn has_worker(&self, uid: &PodUid, container: &str, kind: ProbeKind) -> bool {
        self.workers
            .lock()
            .contains_key(&(uid.clone(), container.to_string(), kind))
    }

    fn is_started(&self, uid: &PodUid, name: &str, id: &str, has_probe: bool) -> bool {
        match self.verdict(id, ProbeKind::Startup) {
            Some(verdict) => verdict == Verdict::Success,
            None => !has_probe || !self.has_worker(uid, name, ProbeKind::Startup),
        }
    }

    /// Fills `started` and `ready` of each container's status.
    pub fn update_pod_status(&self, pod: &Pod, status: &mut PodStatus) {
        let uid = pod.uid();
        for c in status.container_statuses.iter_mut().flatten() {
            let spec = pod.spec().containers.iter().find(|s| s.name == c.name);
            self.update_container(&uid, spec, c);
        }
        for c in status.init_container_statuses.iter_mut().flatten() {
            let spec = pod.init_containers().iter().find(|s| s.name == c.name);
            if spec.is_some_and(is_restartable_init) {
                self.update_container(&uid, spec, c);
            } else {
                let done = c.state.as_ref().and_then(|s| s.terminated.as_ref());
                c.ready = done.is_some_and(|t| t.exit_code == 0);
                c.started = Some(c.state.as_ref().is_some_and(|s| s.running.is_some()));
            }
        }
    }

    fn update_container(&self, uid: &PodUid, spec: Option<&Container>, c: &mut ContainerStatus) {
        let running = c.state.as_ref().is_some_and(|s| s.running.is_some());
        let id = bare_id(c.container_id.as_deref().unwrap_or_default());
        let probed = |kind: ProbeKind| spec.is_some_and(|s| kind.of(s).is_some());
        let started = running && self.is_started(uid, &c.name, id, probed(ProbeKind::Startup));
        c.started = Some(started);
        c.ready = started
            && match self.verdict(id, ProbeKind::Readiness) {
                Some(verdict) => verdict == Verdict::Success,
                // A container that was ready when the kubelet was restarted stays so until its probe says otherwise.
                None => !probed(ProbeKind::Readiness) || !self.has_worker(uid, &c.name, ProbeKind::Readiness),
            };
    }
}

/// `containerd://abc` to `abc`.
pub fn bare_id(id: &str) -> &str {
    id.split_once("://").map_or(id, |(_, id)| id)
}

async fn run(
    probes: Arc<Probes>,
    pod: Arc<Pod>,
    container: Container,
    kind: ProbeKind,
    probe: Probe,
    poke: Arc<Notify>,
) {
    let uid = pod.uid();
    let mut schedule = Schedule::new(kind, &probe);
    loop {
        let view = probes.containers.view(&uid, &container.name);
        let started = view.as_ref().is_some_and(|v| {
            v.running && probes.is_started(&uid, &container.name, &v.id, container.startup_probe.is_some())
        });
        let was_ready = view
            .as_ref()
            .is_some_and(|v| was_ready(&pod, &container.name, &v.id));
        let view = View {
            container: view,
            started,
            was_ready,
        };
        match schedule.step(&view, Instant::now(), crate::backoff::unix_nanos()) {
            Step::Begin { id, verdict } => probes.set(&uid, &id, kind, verdict),
            Step::Gone { id } => probes.set(&uid, &id, kind, Verdict::Failure),
            Step::WaitForChange => poke.notified().await,
            Step::WaitUntil(at) => {
                tokio::select! {
                    () = tokio::time::sleep_until(at.into()) => {}
                    () = poke.notified() => {}
                }
            }
            Step::Probe { id, ip } => {
                let target = Target {
                    pod: &pod,
                    container: &container,
                    container_id: &id,
                    pod_ip: ip.as_deref(),
                };
                let outcome = probe_once(&probes, kind, &probe, &target).await;
                if let Some(verdict) = schedule.record(outcome, Instant::now()) {
                    probes.set(&uid, &id, kind, verdict);
                }
            }
        }
    }
}

fn was_ready(pod: &Pod, container: &str, id: &str) -> bool {
    let statuses = pod
        .status
        .iter()
        .flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses))
        .flatten();
    statuses
        .filter(|s| s.name == container)
        .any(|s| s.ready && bare_id(s.container_id.as_deref().unwrap_or_default()) == id)
}

async fn probe_once(probes: &Probes, kind: ProbeKind, probe: &Probe, target: &Target<'_>) -> Option<Verdict> {
    let limit = Duration::from_secs(
        u64::try_from(probe.timeout_seconds.unwrap_or(1))
            .unwrap_or(1)
            .max(1),
    );
    let (pod, name) = (target.pod, &target.container.name);
    let outcome = probes.prober.attempt(probe, target, limit).await;
    crate::metrics::probe_result(kind.as_str(), &outcome, pod, name);
    match outcome {
        Attempt::Success => Some(Verdict::Success),
        Attempt::Failure(output) => {
            let message = format!("{} probe failed: {output}", kind.as_str());
            tracing::debug!(pod = %pod.key(), container = %name, probe = kind.as_str(), output, "Probe failed");
            probes
                .recorder
                .container(pod, name, Severity::Warning, "Unhealthy", &message);
            Some(Verdict::Failure)
        }
        Attempt::Errored(error) => {
            let message = format!(
                "{} probe errored and resulted in unknown state: {error}",
                kind.as_str()
            );
            probes
                .recorder
                .container(pod, name, Severity::Warning, "Unhealthy", &message);
            None
        }
    }
}
