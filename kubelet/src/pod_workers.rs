//! The life of each pod on this node, as a state machine. Owned by the sync loop; pure but for the clock it is given.
//!
//! Syncing -> Terminating -> Terminated -> Finished. It never goes back: a uid that began to terminate is never started again, a pod's phase
//! never leaves Succeeded or Failed. At most one piece of work runs for a pod at a time; what arrives meanwhile is remembered once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use crate::pod::{PodExt, PodUid, is_terminal_phase};

/// A pod that is content is looked at again after this, stretched by up to half.
const RESYNC: Duration = Duration::from_secs(60);
/// After a failure that says nothing about when to try again.
const RETRY: Duration = Duration::from_secs(10);
/// What is expected to pass by itself: the network comes up, the runtime returns.
const RETRY_TRANSIENT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Syncing,
    Terminating,
    Terminated,
    Finished,
}

/// What the pod's status must say whatever its containers do: an eviction, a missed deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusOverride {
    pub reason: String,
    pub message: String,
}

#[derive(Debug, Clone)]
pub enum Work {
    Sync {
        pod: Arc<Pod>,
        first: bool,
    },
    Terminate {
        pod: Arc<Pod>,
        grace: Option<i64>,
        status: Option<StatusOverride>,
    },
    Finish {
        pod: Arc<Pod>,
    },
    /// Runs here and no source knows it.
    KillOrphan {
        uid: PodUid,
        name: String,
        namespace: String,
    },
}

/// Run `work`, tell [`PodWorkers::done`] what came of it; give up early when `cancel` turns true.
pub struct Job {
    pub uid: PodUid,
    pub work: Work,
    pub cancel: watch::Receiver<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A sync: the pod has come to its end.
    Terminal,
    Ok,
    /// More can be done at once.
    Again,
    Cancelled,
    Failed,
    FailedTransient,
    RetryIn(Duration),
}

#[derive(Debug, Clone, Default)]
pub struct Kill {
    pub grace: Option<i64>,
    pub status: Option<StatusOverride>,
}

enum Subject {
    Pod(Arc<Pod>),
    Orphan { name: String, namespace: String },
}

struct Worker {
    subject: Subject,
    full_name: String,
    phase: Phase,
    grace: Option<i64>,
    status: Option<StatusOverride>,
    started: bool,
    busy: Option<watch::Sender<bool>>,
    pending: bool,
    due: Option<Instant>,
    /// No source has it any more.
    removed: bool,
}

#[derive(Default)]
pub struct PodWorkers {
    workers: HashMap<PodUid, Worker>,
}

impl PodWorkers {
    /// The pod is as `pod` says. `running`: the runtime has something of it.
    pub fn update(&mut self, pod: &Arc<Pod>, running: bool) -> Vec<Job> {
        let uid = pod.uid();
        let worker = self
            .workers
            .entry(uid.clone())
            .or_insert_with(|| Worker::new(pod, running));
        if worker.phase == Phase::Finished {
            return Vec::new();
        }
        worker.subject = Subject::Pod(pod.clone());
        worker.removed = false;
        let ends = pod.is_deleting() || is_terminal_phase(pod.phase());
        if ends {
            let asked = pod
                .metadata
                .deletion_grace_period_seconds
                .filter(|_| pod.is_deleting());
            worker.terminate(&Kill {
                grace: asked,
                status: None,
            });
        }
        worker.pending = true;
        self.dispatch(&uid)
    }

    /// Something about the pod changed outside of its spec.
    pub fn poke(&mut self, uid: &PodUid) -> Vec<Job> {
        match self.workers.get_mut(uid) {
            Some(worker) if worker.phase != Phase::Finished => {
                worker.pending = true;
                self.dispatch(uid)
            }
            _ => Vec::new(),
        }
    }

    pub fn kill(&mut self, uid: &PodUid, kill: &Kill) -> Vec<Job> {
        let Some(worker) = self.workers.get_mut(uid) else {
            return Vec::new();
        };
        if worker.phase == Phase::Finished {
            return Vec::new();
        }
        worker.terminate(kill);
        worker.pending = true;
        self.dispatch(uid)
    }

    /// The source no longer has the pod.
    pub fn removed(&mut self, uid: &PodUid) -> Vec<Job> {
        if let Some(worker) = self.workers.get_mut(uid) {
            worker.removed = true;
        }
        self.kill(uid, &Kill::default())
    }

    pub fn kill_orphan(&mut self, uid: &PodUid, name: &str, namespace: &str) -> Vec<Job> {
        let worker = self.workers.entry(uid.clone()).or_insert_with(|| Worker {
            subject: Subject::Orphan {
                name: name.into(),
                namespace: namespace.into(),
            },
            full_name: format!("{name}_{namespace}"),
            phase: Phase::Terminating,
            grace: None,
            status: None,
            started: true,
            busy: None,
            pending: false,
            due: None,
            removed: true,
        });
        worker.pending = true;
        self.dispatch(uid)
    }

    pub fn done(&mut self, uid: &PodUid, outcome: &Outcome, now: Instant, jitter: f64) -> Vec<Job> {
        let Some(worker) = self.workers.get_mut(uid) else {
            return Vec::new();
        };
        worker.busy = None;
        let orphan = matches!(worker.subject, Subject::Orphan { .. });
        match (outcome, worker.phase) {
            (Outcome::Terminal, Phase::Syncing) => {
                worker.phase = Phase::Terminating;
                worker.pending = true;
            }
            (Outcome::Ok, Phase::Syncing) => worker.due = Some(now + RESYNC.mul_f64(1.0 + jitter / 2.0)),
            (Outcome::Ok, Phase::Terminating) if orphan => {
                self.workers.remove(uid);
                return self.dispatch_waiting();
            }
            (Outcome::Ok, Phase::Terminating) => {
                worker.phase = Phase::Terminated;
                worker.pending = true;
            }
            (Outcome::Ok, Phase::Terminated) => {
                worker.phase = Phase::Finished;
                (worker.pending, worker.due) = (false, None);
                return self.dispatch_waiting();
            }
            (Outcome::Again | Outcome::Cancelled, _) => worker.pending = true,
            (Outcome::RetryIn(wait), _) => worker.due = Some(now + *wait),
            (Outcome::FailedTransient, _) => {
                worker.due = Some(now + RETRY_TRANSIENT.mul_f64(1.0 + jitter / 2.0))
            }
            (Outcome::Failed, _) => worker.due = Some(now + RETRY.mul_f64(1.0 + jitter / 2.0)),
            // A sync that ended while the pod was already told to terminate: the next work is pending.
            (Outcome::Terminal | Outcome::Ok, _) => worker.pending = true,
        }
        self.dispatch(uid)
    }

    /// What is due by `now`.
    pub fn tick(&mut self, now: Instant) -> Vec<Job> {
        let due: Vec<PodUid> = self
            .workers
            .iter()
            .filter(|(_, w)| w.due.is_some_and(|d| d <= now))
            .map(|(u, _)| u.clone())
            .collect();
        let mut jobs = Vec::new();
        for uid in due {
            if let Some(worker) = self.workers.get_mut(&uid) {
                (worker.due, worker.pending) = (None, true);
            }
            jobs.extend(self.dispatch(&uid));
        }
        jobs
    }

    pub fn next_due(&self) -> Option<Instant> {
        self.workers
            .values()
            .filter(|w| w.busy.is_none())
            .filter_map(|w| w.due)
            .min()
    }

    fn dispatch(&mut self, uid: &PodUid) -> Vec<Job> {
        if !self.may_start(uid) {
            return Vec::new();
        }
        let Some(worker) = self.workers.get_mut(uid) else {
            return Vec::new();
        };
        if !worker.pending || worker.busy.is_some() || worker.phase == Phase::Finished {
            return Vec::new();
        }
        let (cancel, watched) = watch::channel(false);
        (worker.pending, worker.due, worker.busy) = (false, None, Some(cancel));
        let work = worker.work(uid);
        worker.started = true;
        vec![Job {
            uid: uid.clone(),
            work,
            cancel: watched,
        }]
    }

    /// Of static pods of one name only one may be on the node: the next waits until the one before has finished.
    fn may_start(&self, uid: &PodUid) -> bool {
        let Some(worker) = self.workers.get(uid) else {
            return false;
        };
        if worker.started || !worker.is_static() {
            return true;
        }
        !self.workers.iter().any(|(other, w)| {
            other != uid && w.full_name == worker.full_name && w.started && w.phase != Phase::Finished
        })
    }

    fn dispatch_waiting(&mut self) -> Vec<Job> {
        let waiting: Vec<PodUid> = self
            .workers
            .iter()
            .filter(|(_, w)| w.pending && w.busy.is_none())
            .map(|(u, _)| u.clone())
            .collect();
        waiting.iter().flat_map(|uid| self.dispatch(uid)).collect()
    }

    /// Forgets finished pods that no source has. What is left is what is still known here.
    pub fn forget_finished(&mut self) -> Vec<PodUid> {
        let gone: Vec<PodUid> = self
            .workers
            .iter()
            .filter(|(_, w)| w.removed && w.phase == Phase::Finished)
            .map(|(u, _)| u.clone())
            .collect();
        for uid in &gone {
            self.workers.remove(uid);
        }
        gone
    }

    pub fn phase(&self, uid: &PodUid) -> Option<Phase> {
        self.workers.get(uid).map(|w| w.phase)
    }

    pub fn knows(&self, uid: &PodUid) -> bool {
        self.workers.contains_key(uid)
    }

    pub fn is_busy(&self) -> bool {
        self.workers.values().any(|w| w.busy.is_some())
    }
}

impl Worker {
    /// A pod that ended under an earlier kubelet, and of which nothing runs, is not terminated once more.
    fn new(pod: &Arc<Pod>, running: bool) -> Self {
        let ended = is_terminal_phase(pod.phase()) && !running;
        Self {
            subject: Subject::Pod(pod.clone()),
            full_name: pod.full_name(),
            phase: if ended { Phase::Terminated } else { Phase::Syncing },
            grace: None,
            status: None,
            started: false,
            busy: None,
            pending: false,
            due: None,
            removed: false,
        }
    }

    fn is_static(&self) -> bool {
        matches!(&self.subject, Subject::Pod(pod) if pod.is_static())
    }

    fn terminate(&mut self, kill: &Kill) {
        let asked = kill.grace.map(|g| g.max(1));
        let shorter = match (asked, self.grace) {
            (Some(new), Some(old)) => new < old,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let interrupts = self.phase == Phase::Syncing || (self.phase == Phase::Terminating && shorter);
        if self.phase == Phase::Syncing {
            self.phase = Phase::Terminating;
        }
        if shorter {
            self.grace = asked;
        }
        if self.status.is_none() {
            self.status.clone_from(&kill.status);
        }
        if let Some(cancel) = self.busy.as_ref().filter(|_| interrupts) {
            // The work may be over by now; then there is nothing to cancel.
            let _ = cancel.send(true);
        }
    }

    fn work(&self, uid: &PodUid) -> Work {
        let pod = match &self.subject {
            Subject::Orphan { name, namespace } => {
                return Work::KillOrphan {
                    uid: uid.clone(),
                    name: name.clone(),
                    namespace: namespace.clone(),
                };
            }
            Subject::Pod(pod) => pod.clone(),
        };
        match self.phase {
            Phase::Syncing => Work::Sync {
                pod,
                first: !self.started,
            },
            Phase::Terminating => Work::Terminate {
                pod,
                grace: self.grace,
                status: self.status.clone(),
            },
            Phase::Terminated | Phase::Finished => Work::Finish { pod },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, extra: serde_json::Value) -> Arc<Pod> {
        let mut value = json!({"metadata": {"name": "p", "namespace": "n", "uid": uid}, "spec": {"containers": []}, "status": {}});
        for (path, v) in extra.as_object().unwrap() {
            *value
                .pointer_mut(path.rsplit_once('/').unwrap().0)
                .unwrap()
                .as_object_mut()
                .unwrap()
                .entry(path.rsplit('/').next().unwrap())
                .or_insert(json!(null)) = v.clone();
        }
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn deleted(uid: &str, grace: i64) -> Arc<Pod> {
        pod(
            uid,
            json!({"/metadata/deletionTimestamp": "2026-01-01T00:00:00Z", "/metadata/deletionGracePeriodSeconds": grace}),
        )
    }

    fn kind(jobs: &[Job]) -> Vec<&'static str> {
        jobs.iter()
            .map(|j| match j.work {
                Work::Sync { .. } => "sync",
                Work::Terminate { .. } => "terminate",
                Work::Finish { .. } => "finish",
                Work::KillOrphan { .. } => "orphan",
            })
            .collect()
    }

    fn uid(s: &str) -> PodUid {
        PodUid::new(s)
    }

    #[test]
    fn a_pod_goes_through_its_states_once_and_never_back() {
        let mut w = PodWorkers::default();
        let now = Instant::now();
        assert_eq!(kind(&w.update(&pod("a", json!({})), false)), ["sync"]);
        assert!(
            w.update(&pod("a", json!({})), false).is_empty(),
            "one piece of work at a time"
        );
        assert_eq!(
            kind(&w.done(&uid("a"), &Outcome::Ok, now, 0.0)),
            ["sync"],
            "what arrived meanwhile is done next"
        );
        assert!(w.done(&uid("a"), &Outcome::Ok, now, 0.0).is_empty());
        assert_eq!(kind(&w.update(&deleted("a", 30), true)), ["terminate"]);
        assert_eq!(
            kind(&w.done(&uid("a"), &Outcome::Failed, now, 0.0)),
            [] as [&str; 0]
        );
        assert_eq!(kind(&w.tick(now + RETRY)), ["terminate"]);
        assert_eq!(kind(&w.done(&uid("a"), &Outcome::Ok, now, 0.0)), ["finish"]);
        assert!(w.done(&uid("a"), &Outcome::Ok, now, 0.0).is_empty());
        assert_eq!(w.phase(&uid("a")), Some(Phase::Finished));
        assert!(
            w.update(&pod("a", json!({})), false).is_empty(),
            "a uid never starts again"
        );
        assert!(
            w.forget_finished().is_empty(),
            "while its source has it, it is remembered"
        );
        w.removed(&uid("a"));
        assert_eq!(w.forget_finished(), [uid("a")]);
    }

    #[test]
    fn deletion_interrupts_a_sync_and_a_shorter_grace_interrupts_termination() {
        let mut w = PodWorkers::default();
        let sync = w.update(&pod("a", json!({})), false);
        assert!(!*sync[0].cancel.borrow());
        w.update(&deleted("a", 30), true);
        assert!(*sync[0].cancel.borrow());
        let terminate = w.done(&uid("a"), &Outcome::Cancelled, Instant::now(), 0.0);
        assert!(matches!(
            terminate[0].work,
            Work::Terminate { grace: Some(30), .. }
        ));
        w.update(&deleted("a", 60), true);
        assert!(!*terminate[0].cancel.borrow(), "grace is never lengthened");
        w.update(&deleted("a", 0), true);
        assert!(*terminate[0].cancel.borrow());
        let again = w.done(&uid("a"), &Outcome::Cancelled, Instant::now(), 0.0);
        assert!(matches!(again[0].work, Work::Terminate { grace: Some(1), .. }));
    }

    #[test]
    fn a_pod_that_reached_its_end_is_terminated_and_finished() {
        let mut w = PodWorkers::default();
        w.update(&pod("a", json!({})), false);
        assert_eq!(
            kind(&w.done(&uid("a"), &Outcome::Terminal, Instant::now(), 0.0)),
            ["terminate"]
        );
        assert_eq!(
            kind(&w.done(&uid("a"), &Outcome::Ok, Instant::now(), 0.0)),
            ["finish"]
        );
    }

    #[test]
    fn a_pod_that_ended_under_an_earlier_kubelet_is_only_finished() {
        let mut w = PodWorkers::default();
        assert_eq!(
            kind(&w.update(&pod("a", json!({"/status/phase": "Failed"})), false)),
            ["finish"]
        );
        assert_eq!(
            kind(&w.update(&pod("b", json!({"/status/phase": "Failed"})), true)),
            ["terminate"]
        );
    }

    #[test]
    fn static_pods_of_one_name_follow_each_other() {
        let mut w = PodWorkers::default();
        let now = Instant::now();
        let source = json!({"/metadata/annotations": {"kubernetes.io/config.source": "file"}});
        w.update(&pod("old", source.clone()), false);
        assert!(w.update(&pod("new", source), false).is_empty());
        w.done(&uid("old"), &Outcome::Ok, now, 0.0);
        assert_eq!(kind(&w.removed(&uid("old"))), ["terminate"]);
        assert_eq!(kind(&w.done(&uid("old"), &Outcome::Ok, now, 0.0)), ["finish"]);
        let next = w.done(&uid("old"), &Outcome::Ok, now, 0.0);
        assert_eq!((kind(&next), next[0].uid.as_str()), (vec!["sync"], "new"));
    }

    #[test]
    fn an_orphan_is_killed_and_forgotten() {
        let mut w = PodWorkers::default();
        assert_eq!(kind(&w.kill_orphan(&uid("x"), "p", "n")), ["orphan"]);
        w.done(&uid("x"), &Outcome::Ok, Instant::now(), 0.0);
        assert!(!w.knows(&uid("x")));
    }

    #[test]
    fn retries_wait_as_long_as_they_were_told() {
        let mut w = PodWorkers::default();
        let now = Instant::now();
        w.update(&pod("a", json!({})), false);
        w.done(&uid("a"), &Outcome::RetryIn(Duration::from_secs(7)), now, 0.0);
        assert_eq!(w.next_due(), Some(now + Duration::from_secs(7)));
        assert!(w.tick(now + Duration::from_secs(6)).is_empty());
        assert_eq!(kind(&w.tick(now + Duration::from_secs(7))), ["sync"]);
    }
}
