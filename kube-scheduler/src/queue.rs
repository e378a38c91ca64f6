//! Pods that wait for a node.
//!
//! A pod is in one of four places: `active` (try it next, by priority and waiting time), `backoff` (worth another try
//! but not yet), `unschedulable` (refused; waits for a change that may help), or gated among the unschedulable. A pod
//! that is popped belongs to the caller until it is bound or handed back. Time comes in as an argument: the queue
//! reads no clock and answers [`Queue::next_wakeup`] instead of ticking.
//!
//! Backoff doubles from one to ten seconds with each refusal. When `active` is empty, pods are taken from `backoff`
//! early: nothing is gained by idling. Pods that met an error wait theirs out.

pub mod nominator;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::framework::Point;
use crate::framework::events::{Event, Hint};
use crate::framework::profile::Profile;
use crate::pod::PodInfo;

/// Backoffs end at multiples of this, so that pods of one moment come back in order of priority.
const ORDERING_WINDOW: Duration = Duration::from_secs(1);

pub type Uid = Arc<str>;

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub initial_backoff: Duration,
    pub max_backoff: Duration,
    /// A refused pod is tried again after this long even if nothing happened.
    pub max_in_unschedulable: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(10),
            max_in_unschedulable: Duration::from_secs(300),
        }
    }
}

/// A pod with its history in the queue.
#[derive(Clone, Debug)]
pub struct QueuedPod {
    pub info: Arc<PodInfo>,
    /// When it last entered the queue.
    pub timestamp: Instant,
    pub attempts: u32,
    pub first_attempt: Option<Instant>,
    /// Refusals so far, which make the backoff longer.
    pub refusals: u32,
    pub errors_in_a_row: u32,
    /// Plugins that refused it at the last attempt.
    pub rejectors: BTreeSet<&'static str>,
    /// It was not let into `active` at all.
    pub gated_by: Option<&'static str>,
}

impl QueuedPod {
    fn new(info: Arc<PodInfo>, now: Instant) -> Self {
        Self {
            info,
            timestamp: now,
            attempts: 0,
            first_attempt: None,
            refusals: 0,
            errors_in_a_row: 0,
            rejectors: BTreeSet::new(),
            gated_by: None,
        }
    }
}

/// Higher priority first, then the longer wait; the number keeps equal pods in order of arrival.
type ActiveKey = (Reverse<i32>, Instant, u64);
type BackoffKey = (Instant, ActiveKey);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active(ActiveKey),
    Backoff(BackoffKey),
    ErrorBackoff(BackoffKey),
    Unschedulable,
}

/// How many pods are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    pub active: usize,
    pub backoff: usize,
    pub unschedulable: usize,
    pub gated: usize,
}

/// Something came into a queue, for `scheduler_queue_incoming_pods_total`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    pub queue: &'static str,
    pub event: String,
}

pub struct Queue {
    settings: Settings,
    epoch: Instant,
    sequence: u64,
    pods: HashMap<Uid, (QueuedPod, Place)>,
    active: BTreeMap<ActiveKey, Uid>,
    backoff: BTreeMap<BackoffKey, Uid>,
    error_backoff: BTreeMap<BackoffKey, Uid>,
    unschedulable: BTreeSet<Uid>,
    incoming: Vec<Incoming>,
}

impl Queue {
    pub fn new(settings: Settings, epoch: Instant) -> Self {
        Self {
            settings,
            epoch,
            sequence: 0,
            pods: HashMap::new(),
            active: BTreeMap::new(),
            backoff: BTreeMap::new(),
            error_backoff: BTreeMap::new(),
            unschedulable: BTreeSet::new(),
            incoming: Vec::new(),
        }
    }

    pub fn contains(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    pub fn get(&self, uid: &str) -> Option<&QueuedPod> {
        self.pods.get(uid).map(|(queued, _)| queued)
    }

    pub fn pending(&self) -> Pending {
        let gated = self.unschedulable.iter().filter(|uid| self.is_gated(uid)).count();
        Pending {
            active: self.active.len(),
            backoff: self.backoff.len() + self.error_backoff.len(),
            unschedulable: self.unschedulable.len() - gated,
            gated,
        }
    }

    fn is_gated(&self, uid: &str) -> bool {
        self.get(uid).is_some_and(|queued| queued.gated_by.is_some())
    }

    /// What came into the queues since the last call.
    pub fn take_incoming(&mut self) -> Vec<Incoming> {
        std::mem::take(&mut self.incoming)
    }

    /// A pod that nobody has tried yet.
    pub fn add(&mut self, info: Arc<PodInfo>, profile: &Profile, now: Instant) {
        self.remove(&info.uid.clone());
        self.enter(QueuedPod::new(info, now), profile, "UnscheduledPodAdd");
    }

    /// The pod's object changed while it waits. An update that may help moves it at once.
    pub fn update(&mut self, info: Arc<PodInfo>, profile: &Profile, events: &[Event<'_>], now: Instant) {
        let Some((queued, place)) = self.pods.get_mut(&info.uid) else {
            return self.add(info, profile, now);
        };
        let reordered = queued.info.priority != info.priority;
        queued.info = info;
        let (place, uid) = (*place, queued.info.uid.clone());
        match place {
            Place::Unschedulable => {
                for event in events {
                    if self.is_worth_a_try(&uid, profile, event) {
                        return self.requeue(&uid, profile, &event.label(), now);
                    }
                }
            }
            _ if reordered => {
                let moved = self.take(&uid);
                moved
                    .into_iter()
                    .for_each(|queued| self.enter(queued, profile, "UnscheduledPodUpdate"));
            }
            _ => {}
        }
    }

    pub fn remove(&mut self, uid: &str) -> Option<QueuedPod> {
        self.take(uid)
    }

    fn take(&mut self, uid: &str) -> Option<QueuedPod> {
        let (queued, place) = self.pods.remove(uid)?;
        match place {
            Place::Active(key) => drop(self.active.remove(&key)),
            Place::Backoff(key) => drop(self.backoff.remove(&key)),
            Place::ErrorBackoff(key) => drop(self.error_backoff.remove(&key)),
            Place::Unschedulable => drop(self.unschedulable.remove(uid)),
        }
        Some(queued)
    }

    /// The next pod to try. It is the caller's until it is bound or given to [`Queue::add_refused`].
    pub fn pop(&mut self, now: Instant) -> Option<QueuedPod> {
        let first = self.active.first_key_value().map(|(_, uid)| Arc::clone(uid));
        let uid = first.or_else(|| self.backoff.first_key_value().map(|(_, uid)| Arc::clone(uid)))?;
        let mut queued = self.take(&uid)?;
        queued.attempts += 1;
        queued.first_attempt.get_or_insert(now);
        queued.rejectors.clear();
        Some(queued)
    }

    /// Hands back a pod that fits nowhere, with the plugins that refused it; none means it met an error.
    pub fn add_refused(
        &mut self,
        mut queued: QueuedPod,
        rejectors: BTreeSet<&'static str>,
        profile: &Profile,
        now: Instant,
    ) {
        queued.timestamp = now;
        let is_error = rejectors.is_empty();
        queued.rejectors = rejectors;
        if is_error {
            queued.errors_in_a_row += 1;
            return self.enter_backoff(queued, profile, "ScheduleAttemptFailure");
        }
        queued.refusals += 1;
        queued.errors_in_a_row = 0;
        self.enter_unschedulable(queued, "ScheduleAttemptFailure");
    }

    /// Tries pods again that this event may help.
    pub fn on_event(&mut self, profiles: &HashMap<String, Profile>, event: &Event<'_>, now: Instant) {
        if self.unschedulable.is_empty() {
            return;
        }
        let label = event.label();
        let waiting: Vec<Uid> = self.unschedulable.iter().cloned().collect();
        for uid in waiting {
            let profile = self.get(&uid).and_then(|q| profiles.get(q.info.scheduler_name()));
            if let Some(profile) = profile.filter(|profile| self.is_worth_a_try(&uid, profile, event)) {
                self.requeue(&uid, profile, &label, now);
            }
        }
    }

    fn is_worth_a_try(&self, uid: &str, profile: &Profile, event: &Event<'_>) -> bool {
        let Some(queued) = self.get(uid) else { return false };
        let asked = |name: &str| match queued.gated_by {
            Some(gate) => gate == name,
            None => queued.rejectors.contains(name),
        };
        let mut interested = profile
            .interested(event.kind, event.action)
            .filter(|p| asked(p.name()));
        interested.any(|plugin| plugin.hint(&queued.info, event) == Hint::Queue)
    }

    /// To `active`, or to `backoff` while the pod is still backing off.
    fn requeue(&mut self, uid: &str, profile: &Profile, event: &str, now: Instant) {
        let Some(queued) = self.take(uid) else { return };
        match self.backoff_end(&queued) {
            Some(end) if !self.is_over(end, now) => self.enter_backoff(queued, profile, event),
            _ => self.enter(queued, profile, event),
        }
    }

    /// To `active`, unless a plugin keeps the pod out.
    fn enter(&mut self, mut queued: QueuedPod, profile: &Profile, event: &str) {
        queued.gated_by = gate(&queued, profile);
        if queued.gated_by.is_some() {
            return self.enter_unschedulable(queued, event);
        }
        let key = self.active_key(&queued);
        self.active.insert(key, queued.info.uid.clone());
        self.settle(queued, Place::Active(key), "active", event);
    }

    fn enter_backoff(&mut self, mut queued: QueuedPod, profile: &Profile, event: &str) {
        queued.gated_by = gate(&queued, profile);
        if queued.gated_by.is_some() {
            return self.enter_unschedulable(queued, event);
        }
        let Some(end) = self.backoff_end(&queued) else {
            return self.enter(queued, profile, event);
        };
        let key = (end, self.active_key(&queued));
        let uid = queued.info.uid.clone();
        let place = if queued.errors_in_a_row > 0 {
            self.error_backoff.insert(key, uid);
            Place::ErrorBackoff(key)
        } else {
            self.backoff.insert(key, uid);
            Place::Backoff(key)
        };
        self.settle(queued, place, "backoff", event);
    }

    fn enter_unschedulable(&mut self, queued: QueuedPod, event: &str) {
        self.unschedulable.insert(queued.info.uid.clone());
        let queue = if queued.gated_by.is_some() {
            "gated"
        } else {
            "unschedulable"
        };
        self.settle(queued, Place::Unschedulable, queue, event);
    }

    fn settle(&mut self, queued: QueuedPod, place: Place, queue: &'static str, event: &str) {
        self.incoming.push(Incoming {
            queue,
            event: event.to_owned(),
        });
        self.pods.insert(queued.info.uid.clone(), (queued, place));
    }

    fn active_key(&mut self, queued: &QueuedPod) -> ActiveKey {
        self.sequence += 1;
        (Reverse(queued.info.priority), queued.timestamp, self.sequence)
    }

    /// When the pod's backoff ends, at the start of a window. `None` if it has none.
    fn backoff_end(&self, queued: &QueuedPod) -> Option<Instant> {
        let count = if queued.errors_in_a_row > 0 {
            queued.errors_in_a_row
        } else {
            queued.refusals
        };
        if count == 0 || self.settings.max_backoff.is_zero() {
            return None;
        }
        let doubled = self
            .settings
            .initial_backoff
            .checked_mul(1 << (count - 1).min(30));
        let wait = doubled
            .unwrap_or(self.settings.max_backoff)
            .min(self.settings.max_backoff);
        Some(self.window_start(queued.timestamp + wait))
    }

    fn window_start(&self, at: Instant) -> Instant {
        let since = at.saturating_duration_since(self.epoch);
        self.epoch
            + Duration::from_secs(since.as_secs() / ORDERING_WINDOW.as_secs() * ORDERING_WINDOW.as_secs())
    }

    /// A backoff that ends in the present window is not over yet.
    fn is_over(&self, end: Instant, now: Instant) -> bool {
        end < self.window_start(now)
    }

    /// Moves what has waited long enough. Call it at [`Queue::next_wakeup`].
    pub fn flush(&mut self, profiles: &HashMap<String, Profile>, now: Instant) {
        let backoffs = self.backoff.iter().chain(&self.error_backoff);
        let over = backoffs
            .filter(|((end, _), _)| self.is_over(*end, now))
            .map(|(_, uid)| Arc::clone(uid));
        for uid in over.collect::<Vec<Uid>>() {
            let profile = self.profile_of(&uid, profiles);
            let queued = self.take(&uid);
            // A pod of a profile that does not exist is never queued.
            profile
                .zip(queued)
                .into_iter()
                .for_each(|(profile, queued)| self.enter(queued, profile, "BackoffComplete"));
        }
        let waiting = self.unschedulable.iter();
        let leftover: Vec<Uid> = waiting
            .filter(|uid| self.is_leftover(uid, now))
            .cloned()
            .collect();
        for uid in leftover {
            if let Some(profile) = self.profile_of(&uid, profiles) {
                self.requeue(&uid, profile, "UnschedulableTimeout", now);
            }
        }
    }

    fn profile_of<'p>(&self, uid: &str, profiles: &'p HashMap<String, Profile>) -> Option<&'p Profile> {
        self.get(uid)
            .and_then(|queued| profiles.get(queued.info.scheduler_name()))
    }

    fn is_leftover(&self, uid: &str, now: Instant) -> bool {
        let waited = self.get(uid).map(|q| now.saturating_duration_since(q.timestamp));
        !self.is_gated(uid) && waited.is_some_and(|waited| waited > self.settings.max_in_unschedulable)
    }

    /// When [`Queue::flush`] has something to do next. `None` if only an event can change anything.
    pub fn next_wakeup(&self) -> Option<Instant> {
        let backoffs = [&self.backoff, &self.error_backoff].into_iter();
        let ends = backoffs.filter_map(|b| b.first_key_value().map(|((end, _), _)| *end + ORDERING_WINDOW));
        let refused = self
            .unschedulable
            .iter()
            .filter(|uid| !self.is_gated(uid))
            .filter_map(|uid| self.get(uid));
        let oldest = refused.map(|q| q.timestamp).min();
        let leftover = oldest.map(|t| t + self.settings.max_in_unschedulable + Duration::from_millis(1));
        ends.chain(leftover).min()
    }

    /// Straight to `active`, whatever the pod waits for: a victim's deletion failed, so nothing will come.
    pub fn activate(&mut self, uid: &str, profile: &Profile) {
        if let Some(queued) = self.take(uid) {
            self.enter(queued, profile, "ForceActivate");
        }
    }

    /// Pods that were refused at least once and are not gated, for metrics by plugin.
    pub fn refused(&self) -> impl Iterator<Item = &QueuedPod> {
        self.unschedulable.iter().filter_map(|uid| self.get(uid))
    }
}

fn gate(queued: &QueuedPod, profile: &Profile) -> Option<&'static str> {
    let plugins = profile.at(Point::PreEnqueue).iter();
    plugins
        .map(|e| &e.plugin)
        .find(|p| p.pre_enqueue(&queued.info).is_err())
        .map(|p| p.name())
}

#[cfg(test)]
mod tests;
