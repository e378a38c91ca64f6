//! One active instance among many, by a Lease that it must keep renewing.
//!
//! Losing the lease ends the work (its future is dropped) and starts to wait for it again in the same process, with
//! warm caches; `exit_on_loss` gives upstream's behaviour, which is to exit. A paused process that wakes after its
//! lease is over finds its [`LeaderToken`] invalid before its next write ([`Client::fenced`]).

use crate::error::Error;
use crate::events::{EventRecorder, object_reference};
use crate::{Client, jitter};
use component_base::drain::Drain;
use component_base::metrics::{Gauge, gauge};
use component_base::sd_notify;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

static MASTER: LazyLock<Gauge> = LazyLock::new(|| {
    gauge(
        "leader_election_master_status",
        "[ALPHA] Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master. 'name' is the string used to identify the lease. Please make sure to group by name.",
        &["name"],
    )
});

/// Waits between attempts to acquire are stretched by up to this, as upstream's.
const ACQUIRE_JITTER: f64 = 1.2;

#[derive(Clone, Debug)]
pub struct LeaderElection {
    pub lock_namespace: String,
    pub lock_name: String,
    pub identity: String,
    pub lease_duration: Duration,
    pub renew_deadline: Duration,
    pub retry_period: Duration,
    /// Upstream's behaviour: the process ends when the lease is lost.
    pub exit_on_loss: bool,
}

impl LeaderElection {
    /// Upstream's defaults: 15 s, 10 s, 2 s.
    pub fn new(namespace: &str, name: &str, identity: String) -> Self {
        LeaderElection {
            lock_namespace: namespace.to_owned(),
            lock_name: name.to_owned(),
            identity,
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
            exit_on_loss: false,
        }
    }

    /// The relations without which two instances could lead at once.
    pub fn validate(&self) -> Result<(), String> {
        if self.lease_duration <= self.renew_deadline {
            return Err(
                "--leader-elect-lease-duration must be greater than --leader-elect-renew-deadline".into(),
            );
        }
        if self.renew_deadline <= self.retry_period.mul_f64(ACQUIRE_JITTER) {
            return Err(format!(
                "--leader-elect-renew-deadline must be greater than {ACQUIRE_JITTER} times --leader-elect-retry-period"
            ));
        }
        if self.lease_duration.as_secs() < 1 || self.retry_period.is_zero() {
            return Err("--leader-elect-lease-duration must be at least 1s and --leader-elect-retry-period greater than zero".into());
        }
        Ok(())
    }
}

/// `<host>_<uuid>`, as upstream names its instances.
pub fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!(
        "{}_{}",
        if host.is_empty() { "localhost" } else { host },
        uuid::Uuid::new_v4()
    )
}

/// Proof of leadership, good until the lease it stands for could be taken over.
#[derive(Clone, Debug)]
pub struct LeaderToken {
    inner: Arc<Term>,
}

#[derive(Debug)]
struct Term {
    lock: String,
    transitions: i32,
    began: Instant,
    /// Milliseconds after `began`; 0 once leadership ended.
    valid_ms: AtomicU64,
}

impl LeaderToken {
    fn new(lock: String, transitions: i32) -> Self {
        LeaderToken {
            inner: Arc::new(Term {
                lock,
                transitions,
                began: Instant::now(),
                valid_ms: AtomicU64::new(0),
            }),
        }
    }

    pub fn is_valid(&self) -> bool {
        let elapsed = self.inner.began.elapsed().as_millis() as u64;
        elapsed < self.inner.valid_ms.load(Ordering::Acquire)
    }

    /// Grows with every change of leader: orders the terms of leaders.
    pub fn transitions(&self) -> i32 {
        self.inner.transitions
    }

    pub fn lock(&self) -> &str {
        &self.inner.lock
    }

    /// `from` is when the renewal was sent: others count from its arrival, which is later.
    fn extend(&self, from: Instant, by: Duration) {
        let until = (from + by).saturating_duration_since(self.inner.began);
        self.inner
            .valid_ms
            .store(until.as_millis() as u64, Ordering::Release);
    }

    fn end(&self) {
        self.inner.valid_ms.store(0, Ordering::Release);
    }
}

/// Whose writes are allowed at present: a client that outlives terms is fenced by this, and each term arms it anew.
#[derive(Clone, Debug, Default)]
pub struct Fence {
    token: Arc<parking_lot::Mutex<Option<LeaderToken>>>,
}

impl Fence {
    pub fn arm(&self, token: LeaderToken) {
        *self.token.lock() = Some(token);
    }

    /// The lock whose lease is over; `None` while writes are allowed.
    pub(crate) fn broken(&self) -> Option<String> {
        let token = self.token.lock();
        token
            .as_ref()
            .filter(|t| !t.is_valid())
            .map(|t| t.lock().to_owned())
    }
}

impl From<LeaderToken> for Fence {
    fn from(token: LeaderToken) -> Self {
        let fence = Fence::default();
        fence.arm(token);
        fence
    }
}

/// Runs `lead` whenever this instance holds the lease, until drained. `lead`'s future is dropped when leadership ends:
/// what it spawned must end with it.
pub async fn run<F, Fut>(
    client: Client,
    config: LeaderElection,
    drain: Drain,
    mut lead: F,
) -> Result<(), Error>
where
    F: FnMut(LeaderToken) -> Fut,
    Fut: Future<Output = ()>,
{
    let recorder = EventRecorder::new(client.clone(), &config.lock_name, "");
    let mut candidate = Candidate::new(client, config, recorder);
    loop {
        sd_notify::status(&format!("Waits to lead: lease {} is not ours", candidate.lock()));
        let token = tokio::select! {
            token = candidate.acquire() => token,
            () = drain.signaled() => return Ok(()),
        };
        sd_notify::status(&format!("Leads: holds lease {}", candidate.lock()));
        let lost = tokio::select! {
            () = lead(token.clone()) => false,
            () = drain.signaled() => false,
            () = candidate.renew(&token) => true,
        };
        token.end();
        candidate.stopped().await;
        if !lost {
            return candidate.release().await;
        }
        if candidate.config.exit_on_loss {
            return Err(Error::Fenced(candidate.lock()));
        }
    }
}

struct Candidate {
    client: Client,
    config: LeaderElection,
    recorder: EventRecorder,
    /// The lease as last seen, and when it last changed by our own clock.
    observed: Option<Lease>,
    observed_at: Instant,
}

impl Candidate {
    fn new(client: Client, config: LeaderElection, recorder: EventRecorder) -> Self {
        let client = client.with_deadline(config.renew_deadline / 2);
        Candidate {
            client,
            config,
            recorder,
            observed: None,
            observed_at: Instant::now(),
        }
    }

    fn lock(&self) -> String {
        format!("{}/{}", self.config.lock_namespace, self.config.lock_name)
    }

    fn api(&self) -> crate::Api<Lease> {
        self.client.namespaced(&self.config.lock_namespace)
    }

    async fn acquire(&mut self) -> LeaderToken {
        tracing::info!(lock = %self.lock(), "Attempting to acquire leader lease...");
        MASTER.with(&[&self.config.lock_name]).set(0.0);
        loop {
            let asked = Instant::now();
            match self.try_acquire_or_renew().await {
                Ok(true) => return self.started(asked),
                Ok(false) => tracing::debug!(lock = %self.lock(), "Failed to acquire lease"),
                Err(error) => {
                    tracing::warn!(lock = %self.lock(), %error, "Error retrieving or creating lease lock")
                }
            }
            tokio::time::sleep(jitter(self.config.retry_period, ACQUIRE_JITTER)).await;
        }
    }

    fn started(&self, asked: Instant) -> LeaderToken {
        tracing::info!(lock = %self.lock(), "Successfully acquired lease");
        MASTER.with(&[&self.config.lock_name]).set(1.0);
        let transitions = self.spec().and_then(|s| s.lease_transitions).unwrap_or(0);
        let token = LeaderToken::new(self.lock(), transitions);
        token.extend(asked, self.config.lease_duration);
        self.event("became leader");
        token
    }

    async fn stopped(&mut self) {
        MASTER.with(&[&self.config.lock_name]).set(0.0);
        self.event("stopped leading");
    }

    fn event(&self, what: &str) {
        if let Some(lease) = &self.observed {
            let message = format!("{} {what}", self.config.identity);
            self.recorder
                .event(&object_reference(lease), "Normal", "LeaderElection", &message);
        }
    }

    /// Returns when the lease is lost: not renewed within the deadline, or taken by another.
    async fn renew(&mut self, token: &LeaderToken) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.config.retry_period).await;
            let asked = Instant::now();
            let left = self.config.renew_deadline.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.try_acquire_or_renew()).await {
                Ok(Ok(true)) => {
                    renewed = asked;
                    token.extend(asked, self.config.lease_duration);
                }
                Ok(Ok(false)) => return self.lost("another instance holds the lease"),
                Ok(Err(error)) => {
                    tracing::warn!(lock = %self.lock(), %error, "Failed to renew lease, will retry")
                }
                Err(_) => {}
            }
            if renewed.elapsed() >= self.config.renew_deadline {
                return self.lost("timed out waiting for the condition");
            }
        }
    }

    fn lost(&self, error: &str) {
        tracing::error!(lock = %self.lock(), error, "Failed to renew lease");
    }

    /// True when the lease is ours now.
    async fn try_acquire_or_renew(&mut self) -> Result<bool, Error> {
        if self.is_ours() {
            // The common case needs no read; a conflict says that somebody wrote, and then we look.
            match self.write(self.observed.clone()).await {
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                outcome => return outcome.map(|()| true),
            }
        }
        let current = match self.api().get(&self.config.lock_name).await {
            Ok(lease) => Some(lease),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        if let Some(lease) = &current {
            self.observe(lease);
            if self.is_held_by_other(lease) {
                return Ok(false);
            }
        }
        match self.write(current).await {
            Err(error) if error.is_conflict() || error.is_already_exists() => Ok(false),
            outcome => outcome.map(|()| true),
        }
    }

    fn spec(&self) -> Option<&LeaseSpec> {
        self.observed.as_ref()?.spec.as_ref()
    }

    fn is_ours(&self) -> bool {
        self.spec()
            .is_some_and(|s| s.holder_identity.as_deref() == Some(&self.config.identity))
    }

    /// A change of the record, by whomever, starts its lease duration anew on our clock: no clocks are compared.
    fn observe(&mut self, lease: &Lease) {
        if self.spec() != lease.spec.as_ref() {
            self.observed_at = Instant::now();
        }
        self.observed = Some(lease.clone());
    }

    fn is_held_by_other(&self, lease: &Lease) -> bool {
        let Some(spec) = &lease.spec else { return false };
        let holder = spec.holder_identity.as_deref().unwrap_or("");
        let holds = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
        let fresh = self.observed_at.elapsed() < Duration::from_secs(holds);
        !holder.is_empty() && holder != self.config.identity && fresh
    }

    /// Puts our record in place of `current`, guarded by its resourceVersion.
    async fn write(&mut self, current: Option<Lease>) -> Result<(), Error> {
        let written = match current {
            None => self.api().create(&self.record(None)).await?,
            Some(lease) => self.api().update(&self.record(Some(lease))).await?,
        };
        self.observed = Some(written);
        self.observed_at = Instant::now();
        Ok(())
    }

    fn record(&self, current: Option<Lease>) -> Lease {
        let now = Some(MicroTime(Timestamp::now()));
        let mut lease = current.unwrap_or_else(|| self.empty());
        let spec = lease.spec.get_or_insert_default();
        let ours = spec.holder_identity.as_deref() == Some(&self.config.identity);
        if !ours {
            let first = spec.holder_identity.is_none() && spec.acquire_time.is_none();
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0) + i32::from(!first));
            spec.acquire_time = now.clone();
        }
        spec.holder_identity = Some(self.config.identity.clone());
        spec.lease_duration_seconds =
            Some(i32::try_from(self.config.lease_duration.as_secs()).unwrap_or(i32::MAX));
        spec.renew_time = now;
        lease
    }

    fn empty(&self) -> Lease {
        let metadata = ObjectMeta {
            name: Some(self.config.lock_name.clone()),
            namespace: Some(self.config.lock_namespace.clone()),
            ..ObjectMeta::default()
        };
        Lease { metadata, spec: None }
    }

    /// The next leader need not wait for our lease to run out.
    async fn release(&mut self) -> Result<(), Error> {
        if !self.is_ours() {
            return Ok(());
        }
        let Some(mut lease) = self.observed.clone() else {
            return Ok(());
        };
        let now = Some(MicroTime(Timestamp::now()));
        let transitions = self.spec().and_then(|s| s.lease_transitions);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            acquire_time: now.clone(),
            renew_time: now,
            lease_transitions: transitions,
            ..LeaseSpec::default()
        });
        if let Err(error) = self.api().update(&lease).await {
            tracing::warn!(lock = %self.lock(), %error, "Failed to release lease");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
