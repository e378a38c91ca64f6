//! Tells the API server each pod's status: only what changed, one pod at a time, the latest only. When everything of a deleted pod is gone, deletes it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use client::{Api, Client, DeleteOptions, Patch, Preconditions};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, Semaphore};

use super::conditions::{self, is_kubelets};
use super::generate::{LOST_TERMINATED, lost};
use crate::metrics;
use crate::mirror::is_mirror_of;
use crate::pod::{PodExt, PodUid, condition_is_true, is_terminal_phase, now};

/// Patches under way at a time: enough that one slow answer holds up nobody.
const PARALLEL: usize = 8;
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);
/// Of all containers' termination messages together.
const MAX_MESSAGES_BYTES: usize = 12 * 1024;

#[derive(Clone)]
struct Entry {
    pod: Arc<Pod>,
    status: PodStatus,
    /// While this holds the API is not told of a terminal phase.
    could_run: bool,
    finished: bool,
    since: Instant,
    version: u64,
}

#[derive(Default)]
struct State {
    entries: HashMap<PodUid, Entry>,
    queue: VecDeque<PodUid>,
    queued: HashSet<PodUid>,
    in_flight: HashSet<PodUid>,
    /// `namespace/name` to what the server has, mirrors included.
    server: HashMap<String, Arc<Pod>>,
}

pub struct StatusReporter {
    state: Mutex<State>,
    wake: Notify,
    client: Option<Client>,
    slots: Arc<Semaphore>,
}

impl StatusReporter {
    pub fn new(client: Option<Client>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            wake: Notify::new(),
            client,
            slots: Arc::new(Semaphore::new(PARALLEL)),
        })
    }

    pub fn get(&self, uid: &PodUid) -> Option<PodStatus> {
        self.state.lock().entries.get(uid).map(|e| e.status.clone())
    }

    /// The server's version of a pod (or mirror); `None`: it has none.
    pub fn server_has(&self, key: &str, pod: Option<Arc<Pod>>) {
        let mut state = self.state.lock();
        let Some(pod) = pod else {
            state.server.remove(key);
            return;
        };
        // A deletion, or a mirror that was made anew, may be all that a status was waiting for.
        let is_new = state
            .server
            .get(key)
            .is_none_or(|old| old.metadata.uid != pod.metadata.uid);
        let waits = |e: &Entry| e.pod.key() == key && (e.finished || (is_new && e.pod.is_static()));
        let waiting: Vec<PodUid> = state
            .entries
            .iter()
            .filter(|(_, e)| waits(e))
            .map(|(u, _)| u.clone())
            .collect();
        state.server.insert(key.to_string(), pod);
        for uid in waiting {
            state.enqueue(&uid);
            self.wake.notify_one();
        }
    }

    pub fn server_pod(&self, key: &str) -> Option<Arc<Pod>> {
        self.state.lock().server.get(key).cloned()
    }

    pub fn set(&self, pod: &Arc<Pod>, status: PodStatus, could_run: bool) {
        self.store(pod, status, could_run, false, false);
    }

    /// Nothing of the pod runs and nothing will: the last status, and for a deleted pod the end.
    pub fn terminate(&self, pod: &Arc<Pod>) {
        let known = self
            .get(&pod.uid())
            .or_else(|| pod.status.clone())
            .unwrap_or_default();
        self.store(pod, final_status(pod, known), false, true, true);
    }

    fn store(&self, pod: &Arc<Pod>, mut status: PodStatus, could_run: bool, finished: bool, force: bool) {
        let uid = pod.uid();
        let mut state = self.state.lock();
        let old = state.entries.get(&uid);
        let mirror = state.server.get(&pod.key()).and_then(|p| p.status.clone());
        let before = old
            .map(|e| e.status.clone())
            .or(mirror.filter(|_| pod.is_static()))
            .or_else(|| pod.status.clone());
        settle(pod, &mut status, &before.unwrap_or_default());
        let same = old.is_some_and(|e| e.status == status && e.could_run == could_run);
        if same && !force {
            return;
        }
        note_start(pod, old.map(|e| &e.status), &status);
        let entry = Entry {
            pod: pod.clone(),
            status,
            could_run,
            finished: finished || old.is_some_and(|e| e.finished),
            since: Instant::now(),
            version: old.map_or(0, |e| e.version) + 1,
        };
        state.entries.insert(uid.clone(), entry);
        state.enqueue(&uid);
        drop(state);
        self.wake.notify_one();
    }

    pub fn forget(&self, uid: &PodUid) {
        self.state.lock().entries.remove(uid);
    }

    /// Sends everything that waits, for ever.
    pub async fn run(self: Arc<Self>) {
        let Some(client) = self.client.clone() else { return };
        loop {
            let next = self.state.lock().take();
            let Some((uid, entry)) = next else {
                self.wake.notified().await;
                continue;
            };
            let (reporter, client) = (self.clone(), client.clone());
            // The semaphore is never closed.
            let slot = self.slots.clone().acquire_owned().await;
            tokio::spawn(async move {
                let sent = reporter.send(&client, &uid, &entry).await;
                drop(slot);
                reporter.sent(&uid, &entry, sent).await;
            });
        }
    }

    async fn sent(&self, uid: &PodUid, entry: &Entry, result: Result<Sent, client::Error>) {
        if let Err(error) = &result {
            tracing::warn!(pod = %entry.pod.key(), pod_uid = %uid, %error, "Failed to update status for pod");
            tokio::time::sleep(RETRY).await;
        }
        let mut state = self.state.lock();
        state.in_flight.remove(uid);
        match result {
            Ok(Sent::Gone) => {
                state.entries.remove(uid);
            }
            Ok(Sent::Done) => {
                if state.entries.get(uid).is_some_and(|e| e.version != entry.version) {
                    state.enqueue(uid);
                }
            }
            Err(_) => state.enqueue(uid),
        }
        drop(state);
        self.wake.notify_one();
    }

    async fn send(&self, client: &Client, uid: &PodUid, entry: &Entry) -> Result<Sent, client::Error> {
        let api: Api<Pod> = client.namespaced(entry.pod.namespace());
        let name = entry.pod.name();
        let key = entry.pod.key();
        let known = self.server_pod(&key).filter(|p| is_server_form(&entry.pod, p));
        let server = match known {
            Some(pod) => pod,
            // Its mirror is told to us when it is there.
            None if entry.pod.is_static() => return Ok(Sent::Done),
            None => match api.get(name).await {
                Ok(pod) if is_server_form(&entry.pod, &pod) => Arc::new(pod),
                // Deleted and made again: this status is nobody's.
                Ok(_) => return Ok(Sent::Gone),
                Err(e) if e.is_not_found() => return Ok(Sent::Gone),
                Err(e) => return Err(e),
            },
        };
        let merged = merge(&server, &entry.status, entry.could_run);
        let mut current = server.clone();
        if let Some(patch) = patch(&server, &merged) {
            match api.patch(name, &Patch::Strategic(patch), Some("status")).await {
                Ok(pod) => current = Arc::new(pod),
                Err(e) if e.is_not_found() => return Ok(Sent::Gone),
                Err(e) => {
                    // Perhaps our idea of it is old: ask next time.
                    self.state.lock().server.remove(&key);
                    return Err(e);
                }
            }
            metrics::POD_STATUS_SYNC_DURATION
                .with(&[])
                .observe(entry.since.elapsed().as_secs_f64());
            tracing::debug!(pod = %key, pod_uid = %uid, phase = merged.phase.as_deref().unwrap_or_default(), "Status for pod updated successfully");
            let mut state = self.state.lock();
            // A newer one may have come by the watch meanwhile.
            if state
                .server
                .get(&key)
                .is_none_or(|p| version_of(p) <= version_of(&current))
            {
                state.server.insert(key.clone(), current.clone());
            }
        }
        if entry.finished
            && current.is_deleting()
            && !current.is_mirror()
            && is_terminal_phase(current.phase())
        {
            return delete(&api, &current).await;
        }
        Ok(Sent::Done)
    }
}

enum Sent {
    Done,
    Gone,
}

async fn delete(api: &Api<Pod>, pod: &Pod) -> Result<Sent, client::Error> {
    let preconditions = Preconditions {
        uid: pod.metadata.uid.clone(),
        ..Default::default()
    };
    let options = DeleteOptions {
        grace_period_seconds: Some(0),
        preconditions: Some(preconditions),
        ..Default::default()
    };
    match api.delete(pod.name(), &options).await {
        Ok(()) => {
            tracing::info!(pod = %pod.key(), "Pod fully terminated and removed from etcd");
            Ok(Sent::Gone)
        }
        Err(e) if e.is_not_found() || e.is_conflict() => Ok(Sent::Gone),
        Err(e) => Err(e),
    }
}

impl State {
    fn enqueue(&mut self, uid: &PodUid) {
        if self.queued.insert(uid.clone()) {
            self.queue.push_back(uid.clone());
        }
    }

    /// Of one pod only one status is under way: they arrive in order.
    fn take(&mut self) -> Option<(PodUid, Entry)> {
        for _ in 0..self.queue.len() {
            let uid = self.queue.pop_front()?;
            if self.in_flight.contains(&uid) {
                self.queue.push_back(uid);
                continue;
            }
            self.queued.remove(&uid);
            if let Some(entry) = self.entries.get(&uid) {
                self.in_flight.insert(uid.clone());
                return Some((uid, entry.clone()));
            }
        }
        None
    }
}

fn version_of(pod: &Pod) -> u64 {
    pod.metadata
        .resource_version
        .as_deref()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

/// A static pod's status lives on its own mirror, not on that of the file before; any other's on the very same pod.
fn is_server_form(pod: &Pod, server: &Pod) -> bool {
    if pod.is_static() {
        is_mirror_of(server, pod)
    } else {
        server.metadata.uid == pod.metadata.uid
    }
}

/// Times of transition, start time, sizes: what depends on what was said before.
fn settle(pod: &Pod, status: &mut PodStatus, old: &PodStatus) {
    let at = now();
    for condition in status.conditions.iter_mut().flatten() {
        let before = old
            .conditions
            .iter()
            .flatten()
            .find(|c| c.type_ == condition.type_);
        let unchanged = before
            .filter(|b| b.status == condition.status)
            .and_then(|b| b.last_transition_time.clone());
        if condition.last_transition_time.is_none() || unchanged.is_some() {
            condition.last_transition_time = Some(unchanged.unwrap_or_else(|| at.clone()));
        }
    }
    status.start_time = old
        .start_time
        .clone()
        .or_else(|| status.start_time.take())
        .or(Some(at));
    let containers = pod.spec().containers.len() + pod.init_containers().len();
    let limit = MAX_MESSAGES_BYTES / containers.max(1);
    let all = status
        .container_statuses
        .iter_mut()
        .chain(&mut status.init_container_statuses)
        .flatten();
    for state in all.flat_map(|c: &mut ContainerStatus| c.state.iter_mut().chain(&mut c.last_state)) {
        if let Some(message) = state
            .terminated
            .as_mut()
            .and_then(|t| t.message.as_mut())
            .filter(|m| m.len() > limit)
        {
            let cut = (0..=limit)
                .rev()
                .find(|i| message.is_char_boundary(*i))
                .unwrap_or(0);
            message.truncate(cut);
        }
    }
}

fn note_start(pod: &Pod, old: Option<&PodStatus>, new: &PodStatus) {
    let was_running = old.is_some_and(|s| s.phase.as_deref() == Some("Running"));
    if was_running || new.phase.as_deref() != Some("Running") {
        return;
    }
    let seen = pod
        .annotation(crate::pod::CONFIG_SEEN)
        .and_then(|t| t.parse::<jiff::Timestamp>().ok());
    if let Some(seen) = seen {
        let took = jiff::Timestamp::now().duration_since(seen).as_secs_f64();
        metrics::POD_START_DURATION.with(&[]).observe(took.max(0.0));
    }
}

/// What is left without an end gets one; a pod that has no terminal phase has failed.
fn final_status(pod: &Pod, mut status: PodStatus) -> PodStatus {
    let ended = |c: &ContainerStatus| c.state.as_ref().is_some_and(|s| s.terminated.is_some());
    let begun = |c: &ContainerStatus| c.container_id.is_some();
    let initialized = pod.init_containers().is_empty()
        || status.container_statuses.iter().flatten().any(begun)
        || condition_is_true(&status, conditions::INITIALIZED);
    for c in status
        .container_statuses
        .iter_mut()
        .flatten()
        .filter(|c| initialized && !ended(c))
    {
        c.state = Some(lost(LOST_TERMINATED));
        (c.ready, c.started) = (false, Some(false));
    }
    let last_begun = status
        .init_container_statuses
        .as_deref()
        .unwrap_or_default()
        .iter()
        .rposition(begun);
    let seen = last_begun.map_or(0, |i| i + 1);
    for c in status
        .init_container_statuses
        .iter_mut()
        .flatten()
        .take(seen)
        .filter(|c| !ended(c))
    {
        c.state = Some(lost(LOST_TERMINATED));
    }
    if !pod.is_static() && !is_terminal_phase(status.phase.as_deref().unwrap_or_default()) {
        status.phase = Some("Failed".into());
    }
    status
}

/// Ours over the server's: others' conditions and fields stay; a terminal phase waits until nothing can run.
fn merge(server: &Pod, ours: &PodStatus, could_run: bool) -> PodStatus {
    let old = server.status.clone().unwrap_or_default();
    let mut merged = ours.clone();
    let ends = !is_terminal_phase(old.phase.as_deref().unwrap_or_default())
        && is_terminal_phase(merged.phase.as_deref().unwrap_or_default());
    let is_theirs = |c: &&PodCondition| !is_kubelets(&c.type_);
    let mut all: Vec<PodCondition> = old
        .conditions
        .iter()
        .flatten()
        .filter(is_theirs)
        .cloned()
        .collect();
    for c in ours.conditions.iter().flatten() {
        if is_kubelets(&c.type_) {
            all.push(c.clone());
        } else if c.type_ == conditions::DISRUPTION_TARGET && ends && !could_run {
            all.retain(|o| o.type_ != c.type_);
            all.push(c.clone());
        }
    }
    merged.conditions = Some(all);
    merged.resource_claim_statuses = old.resource_claim_statuses;
    merged.extended_resource_claim_status = old.extended_resource_claim_status;
    merged.nominated_node_name = old.nominated_node_name;
    if ends && could_run {
        (merged.phase, merged.reason, merged.message) = (old.phase, old.reason, old.message);
    }
    let phase = merged.phase.clone().unwrap_or_default();
    if is_terminal_phase(&phase) {
        let reason = if phase == "Failed" {
            "PodFailed"
        } else {
            "PodCompleted"
        };
        for c in merged.conditions.iter_mut().flatten() {
            if matches!(c.type_.as_str(), conditions::READY | conditions::CONTAINERS_READY)
                && c.status == "True"
            {
                let made = conditions::condition(&c.type_, false, reason, "");
                *c = PodCondition {
                    last_transition_time: Some(now()),
                    observed_generation: c.observed_generation,
                    ..made
                };
            }
        }
    }
    merged
}

/// Lists of maps that the server merges by a key: told to replace, so that what is gone goes.
const REPLACED_LISTS: [&str; 2] = ["podIPs", "hostIPs"];

/// The strategic merge patch from what the server has, or `None` when it has it all.
fn patch(server: &Pod, wanted: &PodStatus) -> Option<Value> {
    let old = object(server.status.as_ref().unwrap_or(&PodStatus::default()));
    let new = object(wanted);
    let mut status = Map::new();
    for (key, value) in &new {
        if old.get(key) == Some(value) {
            continue;
        }
        let value = match key.as_str() {
            "conditions" => changed_conditions(old.get(key), value),
            k if REPLACED_LISTS.contains(&k) => replaced(value),
            _ => value.clone(),
        };
        if value != Value::Array(Vec::new()) {
            status.insert(key.clone(), value);
        }
    }
    for key in old.keys().filter(|k| !new.contains_key(*k)) {
        status.insert(key.clone(), Value::Null);
    }
    let uid = server.metadata.uid.clone();
    (!status.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": status}))
}

fn object(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn replaced(list: &Value) -> Value {
    let mut items = vec![json!({"$patch": "replace"})];
    items.extend(list.as_array().cloned().unwrap_or_default());
    Value::Array(items)
}

/// Only those that differ, with what they no longer say set to null: the server merges them by type.
fn changed_conditions(old: Option<&Value>, new: &Value) -> Value {
    let find = |kind: &Value| old?.as_array()?.iter().find(|c| c.get("type") == Some(kind));
    let mut changed = Vec::new();
    for condition in new.as_array().into_iter().flatten() {
        let before = condition.get("type").and_then(find);
        if before == Some(condition) {
            continue;
        }
        let mut condition = condition.clone();
        let gone = before.and_then(Value::as_object).into_iter().flat_map(Map::keys);
        if let Some(map) = condition.as_object_mut() {
            for key in gone {
                map.entry(key.clone()).or_insert(Value::Null);
            }
        }
        changed.push(condition);
    }
    Value::Array(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": [{"name": "a"}]}, "status": status})).unwrap()
    }

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn nothing_changed_is_nothing_sent() {
        let server = pod(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}));
        assert!(patch(&server, server.status.as_ref().unwrap()).is_none());
    }

    #[test]
    fn only_differences_are_sent_and_what_is_gone_becomes_null() {
        let server = pod(
            json!({"phase": "Running", "reason": "x", "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "False", "message": "m"}, {"type": "Other", "status": "True"}]}),
        );
        let wanted = status(json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.2"}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "True"}]}));
        assert_eq!(
            patch(&server, &wanted).unwrap(),
            json!({"metadata": {"uid": "u"}, "status": {"reason": null,
                "podIPs": [{"$patch": "replace"}, {"ip": "10.0.0.2"}],
                "conditions": [{"type": "Ready", "status": "True", "message": null}]}})
        );
    }

    #[test]
    fn others_conditions_stay_and_a_terminal_phase_waits_for_the_last_container() {
        let server =
            pod(json!({"phase": "Running", "conditions": [{"type": "example.com/gate", "status": "True"}]}));
        let ours = status(json!({"phase": "Failed", "conditions": [{"type": "Ready", "status": "True"}]}));
        let waiting = merge(&server, &ours, true);
        assert_eq!(waiting.phase.as_deref(), Some("Running"));
        let ended = merge(&server, &ours, false);
        assert_eq!(ended.phase.as_deref(), Some("Failed"));
        let ready = ended
            .conditions
            .as_ref()
            .unwrap()
            .iter()
            .find(|c| c.type_ == "Ready")
            .unwrap();
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_deref()),
            ("False", Some("PodFailed"))
        );
        assert_eq!(ended.conditions.unwrap().len(), 2);
    }

    #[test]
    fn a_static_pods_status_goes_to_its_own_mirror_and_again_to_a_new_one() {
        let made = |uid: &str, annotations: Value| -> Arc<Pod> {
            let metadata = json!({"name": "p", "namespace": "n", "uid": uid, "annotations": annotations});
            Arc::new(
                serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": []}})).unwrap(),
            )
        };
        let file = made(
            "h",
            json!({"kubernetes.io/config.source": "file", "kubernetes.io/config.hash": "h"}),
        );
        let mirror = |uid: &str, hash: &str| made(uid, json!({"kubernetes.io/config.mirror": hash}));
        assert!(is_server_form(&file, &mirror("m", "h")) && !is_server_form(&file, &mirror("m", "older")));
        let reporter = StatusReporter::new(None);
        reporter.set(&file, status(json!({"phase": "Running"})), true);
        let waits = || !std::mem::take(&mut reporter.state.lock().queue).is_empty();
        let forget = || reporter.state.lock().queued.clear();
        assert!(waits());
        for (uid, expected) in [("m1", true), ("m1", false), ("m2", true)] {
            forget();
            reporter.server_has("n/p", Some(mirror(uid, "h")));
            assert_eq!(waits(), expected, "{uid}");
        }
    }

    #[test]
    fn transition_times_move_only_with_the_status() {
        let p = pod(json!({}));
        let old = status(
            json!({"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
        );
        let mut same = status(json!({"conditions": [{"type": "Ready", "status": "True", "reason": "r"}]}));
        settle(&p, &mut same, &old);
        assert_eq!(
            same.conditions.as_ref().unwrap()[0].last_transition_time,
            old.conditions.as_ref().unwrap()[0].last_transition_time
        );
        let mut other = status(json!({"conditions": [{"type": "Ready", "status": "False"}]}));
        settle(&p, &mut other, &old);
        assert_ne!(
            other.conditions.as_ref().unwrap()[0].last_transition_time,
            old.conditions.as_ref().unwrap()[0].last_transition_time
        );
    }

    #[test]
    fn a_pod_that_ends_without_an_end_has_failed() {
        let p = pod(json!({}));
        let s = final_status(
            &p,
            status(
                json!({"phase": "Running", "containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0, "containerID": "c://1", "state": {"running": {}}}]}),
            ),
        );
        assert_eq!(s.phase.as_deref(), Some("Failed"));
        let c = &s.container_statuses.unwrap()[0];
        assert_eq!(
            c.state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code,
            137
        );
    }
}
