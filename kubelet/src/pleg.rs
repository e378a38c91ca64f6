//! The pod lifecycle event generator: knows what the runtime runs and tells the sync loop when that changes.
//!
//! Three ears: the runtime's own event stream where it has one, the kernel (pidfd) where it has not, and a relist as the audit of both. What is
//! learnt goes into [`StatusCache`], which everyone else reads.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cri::Runtime;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use crate::metrics;
use crate::pod::PodUid;
use crate::probes::{ContainerView, Containers};
use crate::runtime::exit_watch::ExitWatch;
use crate::runtime::pod_status::PodStatus;
use crate::runtime::query::{self, PodOutline};

const RELIST: Duration = Duration::from_secs(1);
/// With events the relist only audits.
const AUDIT: Duration = Duration::from_secs(300);
/// Relisting that has not come to an end for this long makes the node not ready.
const UNHEALTHY_AFTER: Duration = Duration::from_secs(180);
/// Event streams end with the runtime; it is asked again after this.
const REOPEN_EVENTS: Duration = Duration::from_secs(5);

#[derive(Default)]
pub struct StatusCache {
    pods: Mutex<HashMap<PodUid, Arc<PodStatus>>>,
    pub host_ip: std::sync::OnceLock<String>,
}

impl StatusCache {
    pub fn get(&self, uid: &PodUid) -> Option<Arc<PodStatus>> {
        self.pods.lock().get(uid).cloned()
    }

    /// True when something about the pod is different.
    pub fn set(&self, status: PodStatus) -> (bool, Arc<PodStatus>) {
        let mut pods = self.pods.lock();
        if let Some(old) = pods.get(&status.uid) {
            if old.observed > status.observed {
                return (false, old.clone());
            }
            let same = old.containers == status.containers
                && old.sandboxes == status.sandboxes
                && old.ips == status.ips;
            if same {
                return (false, old.clone());
            }
        }
        let status = Arc::new(status);
        pods.insert(status.uid.clone(), status.clone());
        (true, status)
    }

    pub fn remove(&self, uid: &PodUid) {
        self.pods.lock().remove(uid);
    }

    pub fn all(&self) -> Vec<Arc<PodStatus>> {
        self.pods.lock().values().cloned().collect()
    }
}

impl Containers for StatusCache {
    fn view(&self, uid: &PodUid, container: &str) -> Option<ContainerView> {
        let status = self.get(uid)?;
        let c = status.container(container)?;
        Some(ContainerView {
            id: c.id.clone(),
            running: c.state == crate::runtime::pod_status::State::Running,
            started_at: c.started_at,
            pod_ip: self.probe_address(&status),
        })
    }
}

impl StatusCache {
    /// A pod on the host network has no address of its own; the node's is its own.
    fn probe_address(&self, status: &PodStatus) -> Option<String> {
        use cri::v1::NamespaceMode;
        let sandbox = status.sandboxes.first()?;
        let options = sandbox.linux.as_ref()?.namespaces.as_ref()?.options.as_ref()?;
        let on_host = options.network == NamespaceMode::Node as i32;
        status
            .ips
            .first()
            .cloned()
            .or_else(|| on_host.then(|| self.host_ip.get().cloned())?)
    }
}

pub struct Pleg {
    runtime: Arc<dyn Runtime>,
    pub cache: Arc<StatusCache>,
    changed: mpsc::UnboundedSender<PodUid>,
    relist_now: Notify,
    outlines: Mutex<HashMap<PodUid, PodOutline>>,
    /// Milliseconds since `epoch` at which the last relist came to an end.
    last_relist: AtomicU64,
    epoch: Instant,
    has_events: std::sync::atomic::AtomicBool,
    watch: std::sync::OnceLock<ExitWatch>,
}

impl Pleg {
    pub fn new(runtime: Arc<dyn Runtime>, changed: mpsc::UnboundedSender<PodUid>) -> Arc<Self> {
        let pleg = Arc::new(Self {
            runtime: runtime.clone(),
            cache: Arc::default(),
            changed,
            relist_now: Notify::new(),
            outlines: Mutex::default(),
            last_relist: AtomicU64::new(0),
            epoch: Instant::now(),
            has_events: false.into(),
            watch: std::sync::OnceLock::new(),
        });
        let weak = Arc::downgrade(&pleg);
        let exited = move |uid: &PodUid| {
            if let Some(pleg) = weak.upgrade() {
                let uid = uid.clone();
                tokio::spawn(async move { pleg.look(&uid).await });
            }
        };
        // Set once, here.
        let _ = pleg.watch.set(ExitWatch::new(runtime, Arc::new(exited)));
        pleg
    }

    /// Asks the runtime about one pod now and tells if it changed.
    pub async fn look(&self, uid: &PodUid) {
        let (name, namespace) = match self.cache.get(uid) {
            Some(known) => (known.name.clone(), known.namespace.clone()),
            None => (String::new(), String::new()),
        };
        match self.refresh(uid, &name, &namespace).await {
            Ok((true, _)) => self.tell(uid),
            Ok((false, _)) => {}
            Err(error) => {
                tracing::warn!(pod_uid = %uid, %error, "Could not read the pod's status from the runtime");
                self.relist_now.notify_one();
            }
        }
    }

    pub async fn refresh(
        &self,
        uid: &PodUid,
        name: &str,
        namespace: &str,
    ) -> cri::Result<(bool, Arc<PodStatus>)> {
        let status = query::pod_status(self.runtime.as_ref(), uid, name, namespace).await?;
        let (changed, status) = self.cache.set(status);
        self.hear_exits(&status);
        Ok((changed, status))
    }

    fn hear_exits(&self, status: &PodStatus) {
        if !self.has_events.load(Ordering::Relaxed)
            && let Some(watch) = self.watch.get()
        {
            watch.watch(status);
        }
    }

    fn tell(&self, uid: &PodUid) {
        // The sync loop ends only with the process.
        let _ = self.changed.send(uid.clone());
    }

    pub async fn run(self: Arc<Self>) {
        tokio::spawn(self.clone().run_events());
        let mut last_begin = Instant::now();
        loop {
            let begin = Instant::now();
            metrics::PLEG_RELIST_INTERVAL
                .with(&[])
                .observe((begin - last_begin).as_secs_f64());
            last_begin = begin;
            match self.relist().await {
                Ok(()) => {
                    let at = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
                    self.last_relist.store(at, Ordering::Relaxed);
                    metrics::PLEG_RELIST_DURATION
                        .with(&[])
                        .observe(begin.elapsed().as_secs_f64());
                    metrics::PLEG_LAST_SEEN
                        .with(&[])
                        .set(crate::backoff::unix_nanos() as f64 / 1e9);
                }
                Err(error) => {
                    tracing::error!(call = error.call, %error, "GenericPLEG: Unable to retrieve pods")
                }
            }
            let period = if self.has_events.load(Ordering::Relaxed) {
                AUDIT
            } else {
                RELIST
            };
            tokio::select! {
                () = tokio::time::sleep(period) => {}
                () = self.relist_now.notified() => {}
            }
        }
    }

    /// Two calls; one pod is looked at in full only when its outline changed.
    pub async fn relist(&self) -> cri::Result<()> {
        let now = query::list_pods(self.runtime.as_ref()).await?;
        count_running(&now);
        let old = self.outlines.lock().clone();
        let changed: Vec<(PodUid, String, String)> = now
            .iter()
            .filter(|(uid, outline)| old.get(*uid) != Some(*outline))
            .map(|(uid, o)| (uid.clone(), o.name.clone(), o.namespace.clone()))
            .collect();
        for (uid, name, namespace) in changed {
            let (different, _) = self.refresh(&uid, &name, &namespace).await?;
            if let Some(outline) = now.get(&uid) {
                self.outlines.lock().insert(uid.clone(), outline.clone());
            }
            if different {
                self.tell(&uid);
            }
        }
        let gone: Vec<PodUid> = old
            .keys()
            .filter(|uid| !now.contains_key(*uid))
            .cloned()
            .collect();
        for uid in gone {
            self.outlines.lock().remove(&uid);
            let Some(known) = self.cache.get(&uid) else {
                continue;
            };
            if self
                .cache
                .set(PodStatus::empty(uid.clone(), &known.name, &known.namespace))
                .0
            {
                self.tell(&uid);
            }
        }
        Ok(())
    }

    async fn run_events(self: Arc<Self>) {
        loop {
            match self.runtime.container_events().await {
                Ok(mut events) => {
                    self.has_events.store(true, Ordering::Relaxed);
                    while let Some(Ok(event)) = events.next().await {
                        self.heard(event);
                    }
                    self.has_events.store(false, Ordering::Relaxed);
                    // What was missed in between is found by a relist.
                    self.relist_now.notify_one();
                }
                Err(error) if error.is_unimplemented() => {
                    tracing::info!(
                        "The container runtime has no event stream: containers' ends are heard from the kernel, everything else by relisting every second"
                    );
                    return;
                }
                Err(_) => {}
            }
            tokio::time::sleep(REOPEN_EVENTS).await;
        }
    }

    /// An event carries the pod's whole state: no call is needed.
    fn heard(&self, event: cri::v1::ContainerEventResponse) {
        use crate::runtime::labels;
        let Some(sandbox) = event.pod_sandbox_status else {
            self.relist_now.notify_one();
            return;
        };
        let Some(identity) = labels::pod_identity(&sandbox.labels) else {
            return;
        };
        let observed = Instant::now();
        let known = self.cache.get(&identity.uid);
        let other_sandboxes = known
            .iter()
            .flat_map(|k| k.sandboxes.iter())
            .filter(|s| s.id != sandbox.id)
            .cloned();
        if other_sandboxes.count() > 0 {
            // More than one sandbox in play: the event tells of one only.
            let (uid, pleg) = (identity.uid.clone(), self.changed.clone());
            self.outlines.lock().remove(&uid);
            self.relist_now.notify_one();
            let _ = pleg.send(uid);
            return;
        }
        let status = query::assemble(
            &identity.uid,
            &identity.name,
            &identity.namespace,
            vec![sandbox],
            event.containers_statuses,
            observed,
        );
        if self.cache.set(status).0 {
            self.tell(&identity.uid);
        }
    }

    /// Names the call that hangs, if one does.
    pub fn healthy(&self) -> Result<(), String> {
        let since = self
            .epoch
            .elapsed()
            .saturating_sub(Duration::from_millis(self.last_relist.load(Ordering::Relaxed)));
        let limit = if self.has_events.load(Ordering::Relaxed) {
            UNHEALTHY_AFTER + AUDIT
        } else {
            UNHEALTHY_AFTER
        };
        if since <= limit {
            return Ok(());
        }
        let hanging = metrics::longest_runtime_call().map_or(String::new(), |(call, took)| {
            format!("; runtime call {call:?} has been waiting for {}s", took.as_secs())
        });
        Err(format!(
            "PLEG is not healthy: pleg was last seen active {}s ago; threshold is 3m0s{hanging}",
            since.as_secs()
        ))
    }
}

fn count_running(pods: &HashMap<PodUid, PodOutline>) {
    use query::OutlineState::Running;
    let running = pods
        .values()
        .filter(|p| p.states.values().any(|s| *s == Running))
        .count();
    metrics::RUNNING_PODS.with(&[]).set(running as f64);
    let containers: usize = pods
        .values()
        .map(|p| p.states.values().filter(|s| **s == Running).count())
        .sum();
    metrics::RUNNING_CONTAINERS
        .with(&["running"])
        .set(containers.saturating_sub(running) as f64);
}
