//! The kubelet's one loop: everything that can happen to a pod arrives here as an [`Event`], in order, and is decided by the one owner of
//! [`PodWorkers`]. Work is done elsewhere, in tasks; its outcome comes back as an event.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use component_base::drain::Drain;
use k8s_openapi::api::core::v1::{Node, Pod, PodStatus};
use parking_lot::RwLock;
use tokio::sync::mpsc;

use crate::admission::{self, NodeFacts, Rejection};
use crate::events::Severity;
use crate::kubelet::Kubelet;
use crate::logs::rotation::{self, RotationPolicy};
use crate::pod::{Labels, PodExt, PodUid, is_terminal_phase, now};
use crate::pod_workers::{Job, Kill, Outcome, PodWorkers, StatusOverride};
use crate::runtime::gc;

/// What nothing announces (an orphaned directory, a log that grew) is found within this.
const HOUSEKEEPING: Duration = Duration::from_secs(10);
const RUNTIME_GC: Duration = Duration::from_secs(60);

pub enum Event {
    /// A source has this pod, new or changed.
    Pod(Arc<Pod>),
    /// A source no longer has it.
    Removed(Arc<Pod>),
    /// All that a source had at the start has been told.
    Synced(Source),
    /// The runtime has something new about it.
    Runtime(PodUid),
    Probe(PodUid),
    /// An object that it refers to changed.
    Objects(PodUid),
    Evict {
        uid: PodUid,
        status: StatusOverride,
        grace: Option<i64>,
    },
    Done(PodUid, Outcome),
    /// Lists the pods for the server.
    Pods(tokio::sync::oneshot::Sender<Vec<Arc<Pod>>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    Api,
    Files,
}

pub struct SyncLoop {
    kubelet: Arc<Kubelet>,
    workers: PodWorkers,
    pods: HashMap<PodUid, Arc<Pod>>,
    mirrors: HashMap<String, Arc<Pod>>,
    waiting_for: Vec<Source>,
    node: Arc<RwLock<Option<Arc<Node>>>>,
    labels: Labels,
    rotation: RotationPolicy,
    tx: mpsc::UnboundedSender<Event>,
    last_gc: Instant,
    housekeeping_due: Instant,
}

pub struct Setup {
    pub kubelet: Arc<Kubelet>,
    pub sources: Vec<Source>,
    pub node: Arc<RwLock<Option<Arc<Node>>>>,
    pub labels: Labels,
    pub rotation: RotationPolicy,
}

impl SyncLoop {
    pub fn new(setup: Setup, tx: mpsc::UnboundedSender<Event>) -> Self {
        Self {
            kubelet: setup.kubelet,
            workers: PodWorkers::default(),
            pods: HashMap::new(),
            mirrors: HashMap::new(),
            waiting_for: setup.sources,
            node: setup.node,
            labels: setup.labels,
            rotation: setup.rotation,
            tx,
            last_gc: Instant::now(),
            housekeeping_due: Instant::now() + HOUSEKEEPING,
        }
    }

    pub async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>, drain: Drain) {
        loop {
            let due = self
                .workers
                .next_due()
                .map_or(self.housekeeping_due, |d| d.min(self.housekeeping_due));
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.handle(event),
                    None => return,
                },
                () = tokio::time::sleep_until(due.into()) => {
                    let jobs = self.workers.tick(Instant::now());
                    self.start(jobs);
                    if Instant::now() >= self.housekeeping_due {
                        self.housekeeping();
                    }
                }
                // Containers go on: only the kubelet ends.
                () = drain.signaled() => return,
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Pod(pod) if pod.is_mirror() => self.mirror(pod),
            Event::Pod(pod) => self.pod(pod),
            Event::Removed(pod) => self.removed(&pod),
            Event::Synced(source) => {
                self.waiting_for.retain(|s| *s != source);
                self.housekeeping_due = Instant::now();
            }
            Event::Runtime(uid) => {
                self.kubelet.probes.poke(&uid);
                if self.pods.contains_key(&uid) {
                    let jobs = self.workers.poke(&uid);
                    self.start(jobs);
                } else {
                    self.housekeeping_due = Instant::now();
                }
            }
            Event::Probe(uid) => {
                if let Some(pod) = self.pods.get(&uid) {
                    self.kubelet.refresh_status(pod);
                }
                let jobs = self.workers.poke(&uid);
                self.start(jobs);
            }
            Event::Objects(uid) => {
                let jobs = self.workers.poke(&uid);
                self.start(jobs);
            }
            Event::Evict { uid, status, grace } => {
                let jobs = self.workers.kill(
                    &uid,
                    &Kill {
                        grace,
                        status: Some(status),
                    },
                );
                self.start(jobs);
            }
            Event::Done(uid, outcome) => {
                let jobs = self.workers.done(&uid, &outcome, Instant::now(), rand::random());
                self.start(jobs);
            }
            Event::Pods(reply) => {
                // The asker may have gone.
                let _ = reply.send(self.pods.values().cloned().collect());
            }
        }
    }

    fn start(&self, jobs: Vec<Job>) {
        for job in jobs {
            let (kubelet, tx, uid) = (self.kubelet.clone(), self.tx.clone(), job.uid.clone());
            tokio::spawn(async move {
                // A panic in one pod's work must not leave its worker busy for ever.
                let work = tokio::spawn(async move { kubelet.perform(job).await });
                let outcome = work.await.unwrap_or_else(|error| {
                    tracing::error!(pod_uid = %uid, %error, "Pod worker panicked");
                    Outcome::Failed
                });
                // The loop ends only with the process.
                let _ = tx.send(Event::Done(uid, outcome));
            });
        }
    }

    fn mirror(&mut self, mirror: Arc<Pod>) {
        self.kubelet
            .statuses
            .server_has(&mirror.key(), Some(mirror.clone()));
        self.mirrors.insert(mirror.full_name(), mirror.clone());
        self.poke_static(&mirror.full_name());
    }

    /// A static pod looks after its mirror in its own sync.
    fn poke_static(&mut self, full_name: &str) {
        let own = self
            .pods
            .values()
            .find(|p| p.is_static() && p.full_name() == full_name)
            .map(|p| p.uid());
        match own {
            Some(uid) => {
                let jobs = self.workers.poke(&uid);
                self.start(jobs);
            }
            None => self.housekeeping_due = Instant::now(),
        }
    }

    fn pod(&mut self, pod: Arc<Pod>) {
        let uid = pod.uid();
        if !pod.is_static() {
            self.kubelet.statuses.server_has(&pod.key(), Some(pod.clone()));
        }
        let before = self.pods.insert(uid.clone(), pod.clone());
        let is_new = before.is_none();
        // A pod that was refused comes back as Failed: there is nothing to do for it until it is deleted.
        let refused = !is_new && !self.workers.knows(&uid) && !pod.is_deleting();
        if refused || before.as_deref().is_some_and(|old| is_only_status(old, &pod)) {
            return;
        }
        let running = self.kubelet.pleg.cache.get(&uid).is_some_and(|s| s.is_running());
        if is_new
            && !running
            && !pod.is_deleting()
            && !is_terminal_phase(pod.phase())
            && let Err(rejection) = self.admit(&pod)
        {
            self.reject(&pod, &rejection);
            return;
        }
        let jobs = self.workers.update(&pod, running);
        self.start(jobs);
    }

    fn admit(&self, pod: &Arc<Pod>) -> Result<(), Rejection> {
        let others: Vec<Arc<Pod>> = self
            .pods
            .values()
            .filter(|p| self.workers.knows(&p.uid()))
            .cloned()
            .collect();
        let node = self.node.read().clone();
        let node_labels = node.as_ref().and_then(|n| n.metadata.labels.as_ref());
        let labels = node_labels.unwrap_or(&self.labels);
        let facts = NodeFacts {
            node: node.as_deref(),
            labels,
            allocatable: &self.kubelet.allocatable,
        };
        admission::admit(pod, &others, &facts)
    }

    fn reject(&self, pod: &Arc<Pod>, rejection: &Rejection) {
        tracing::info!(pod = %pod.key(), reason = %rejection.reason, message = %rejection.message, "Pod was rejected");
        self.kubelet
            .recorder
            .pod(pod, Severity::Warning, &rejection.reason, &rejection.message);
        let status = PodStatus {
            phase: Some("Failed".into()),
            reason: Some(rejection.reason.clone()),
            message: Some(format!(
                "Pod was rejected: {}",
                rejection.message.trim_start_matches("Pod was rejected: ")
            )),
            start_time: Some(now()),
            qos_class: Some(crate::resources::qos_class(pod).as_str().into()),
            observed_generation: pod.metadata.generation,
            ..Default::default()
        };
        self.kubelet.statuses.set(pod, status, false);
    }

    fn removed(&mut self, pod: &Arc<Pod>) {
        if !pod.is_static() {
            self.kubelet.statuses.server_has(&pod.key(), None);
        }
        if pod.is_mirror() {
            self.mirrors.remove(&pod.full_name());
            self.poke_static(&pod.full_name());
            return;
        }
        let uid = pod.uid();
        self.pods.remove(&uid);
        if !self.workers.knows(&uid) {
            self.kubelet.statuses.forget(&uid);
        }
        let jobs = self.workers.removed(&uid);
        self.start(jobs);
        self.housekeeping_due = self.housekeeping_due.min(Instant::now() + Duration::from_secs(1));
    }

    fn housekeeping(&mut self) {
        self.housekeeping_due = Instant::now() + HOUSEKEEPING;
        let mut gone = false;
        for uid in self.workers.forget_finished() {
            gone = true;
            self.kubelet.statuses.forget(&uid);
            self.kubelet.pleg.cache.remove(&uid);
            // A static pod of the same uid whose file came back.
            if let Some(pod) = self.pods.get(&uid).cloned() {
                let jobs = self.workers.update(&pod, false);
                self.start(jobs);
            }
        }
        self.rotate_logs();
        if !self.waiting_for.is_empty() {
            // Until every source has spoken, a pod that is not known may only not be known yet.
            return;
        }
        self.kill_orphans();
        self.clean_disk();
        self.clean_mirrors();
        // What a pod leaves in the runtime goes with it; the period is for what nothing announces.
        if gone || self.last_gc.elapsed() >= RUNTIME_GC {
            self.last_gc = Instant::now();
            self.collect_garbage();
        }
    }

    fn kill_orphans(&mut self) {
        let orphans: Vec<_> = self
            .kubelet
            .pleg
            .cache
            .all()
            .into_iter()
            .filter(|s| s.is_running() && !self.pods.contains_key(&s.uid) && !self.workers.knows(&s.uid))
            .collect();
        for status in orphans {
            let jobs = self
                .workers
                .kill_orphan(&status.uid, &status.name, &status.namespace);
            self.start(jobs);
        }
    }

    /// Directories and groups of pods that nobody knows.
    fn clean_disk(&self) {
        let known = |uid: &PodUid| self.pods.contains_key(uid) || self.workers.knows(uid);
        let runs = |uid: &PodUid| self.kubelet.pleg.cache.get(uid).is_some_and(|s| s.is_running());
        let left = |uid: &PodUid| !known(uid) && !runs(uid);
        let volumes: Vec<PodUid> = self
            .kubelet
            .volumes
            .pods_on_disk()
            .into_iter()
            .filter(|u| left(u))
            .collect();
        let groups: Vec<PodUid> = self
            .kubelet
            .cgroups
            .pods_on_disk()
            .into_iter()
            .filter(|u| left(u))
            .collect();
        if volumes.is_empty() && groups.is_empty() {
            return;
        }
        let kubelet = self.kubelet.clone();
        let volumes = tokio::task::spawn_blocking({
            let kubelet = kubelet.clone();
            move || {
                for uid in volumes {
                    match kubelet.volumes.tear_down(&uid) {
                        Ok(()) => tracing::info!(pod_uid = %uid, "Cleaned up orphaned pod volumes dir"),
                        Err(error) => {
                            tracing::error!(pod_uid = %uid, %error, "Orphaned pod found, but its volumes could not be cleaned up")
                        }
                    }
                }
            }
        });
        tokio::spawn(async move {
            // A panic there is logged by the hook.
            let _ = volumes.await;
            for uid in groups {
                if let Err(error) = kubelet.cgroups.remove_pod(&uid).await {
                    tracing::error!(pod_uid = %uid, %error, "Failed to remove cgroup of orphaned pod");
                }
            }
        });
    }

    /// Mirrors whose static pod is gone.
    fn clean_mirrors(&self) {
        let Some(client) = self.kubelet.client.clone() else {
            return;
        };
        for mirror in self.mirrors.values() {
            let has_pod = self
                .pods
                .values()
                .any(|p| p.is_static() && p.full_name() == mirror.full_name());
            if !has_pod {
                let (kubelet, client, mirror) = (self.kubelet.clone(), client.clone(), mirror.clone());
                tokio::spawn(async move { kubelet.mirrors.delete(&client, &mirror).await });
            }
        }
    }

    fn collect_garbage(&self) {
        let kubelet = self.kubelet.clone();
        let as_of = std::time::SystemTime::now();
        let known: std::collections::HashSet<PodUid> = self.pods.keys().cloned().collect();
        let finished: std::collections::HashSet<PodUid> = known
            .iter()
            .filter(|u| self.workers.phase(u) == Some(crate::pod_workers::Phase::Finished))
            .filter(|u| self.pods.get(u).is_some_and(|p| p.is_deleting()))
            .cloned()
            .collect();
        let terminating: std::collections::HashSet<PodUid> = kubelet
            .pleg
            .cache
            .all()
            .iter()
            .map(|s| s.uid.clone())
            .filter(|u| self.workers.knows(u))
            .collect();
        tokio::spawn(async move {
            let is_known = |uid: &PodUid| known.contains(uid) || terminating.contains(uid);
            let removable = |uid: &PodUid| finished.contains(uid);
            let knowledge = gc::Knowledge {
                as_of,
                known: &is_known,
                removable: &removable,
            };
            let logs = &kubelet.manager.settings.pod_logs_dir;
            if let Err(error) = gc::collect(kubelet.manager.runtime.as_ref(), &knowledge, logs).await {
                tracing::error!(%error, "Container garbage collection failed");
            }
            let alive: std::collections::HashSet<String> = kubelet
                .pleg
                .cache
                .all()
                .iter()
                .flat_map(|s| s.containers.iter().map(|c| c.id.clone()))
                .collect();
            kubelet.probes.keep_results(&|id| alive.contains(id));
        });
    }

    fn rotate_logs(&self) {
        let (kubelet, policy) = (self.kubelet.clone(), self.rotation);
        tokio::spawn(async move {
            for status in kubelet.pleg.cache.all() {
                rotation::rotate_pod(kubelet.manager.runtime.as_ref(), &status, policy).await;
            }
        });
    }
}

/// Our own status patches come back as changes of the pod; they are no reason to sync it again. Conditions of readiness gates are.
fn is_only_status(old: &Pod, new: &Pod) -> bool {
    let gates = |p: &Pod| -> Vec<(String, String)> {
        let gates = p.spec().readiness_gates.as_deref().unwrap_or_default();
        let conditions = p.status.iter().flat_map(|s| s.conditions.iter().flatten());
        conditions
            .filter(|c| gates.iter().any(|g| g.condition_type == c.type_))
            .map(|c| (c.type_.clone(), c.status.clone()))
            .collect()
    };
    let (a, b) = (&old.metadata, &new.metadata);
    old.spec == new.spec
        && a.labels == b.labels
        && a.annotations == b.annotations
        && a.deletion_timestamp == b.deletion_timestamp
        && a.deletion_grace_period_seconds == b.deletion_grace_period_seconds
        && is_terminal_phase(old.phase()) == is_terminal_phase(new.phase())
        && gates(old) == gates(new)
}
