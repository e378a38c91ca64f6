//! The scheduler without its surroundings: cluster events in, decisions out, no IO and no clock.
//!
//! [`Scheduler::put_pod`], [`Scheduler::put_node`] and their kin keep nodes and queue current. [`Scheduler::schedule_next`]
//! pops one pod and decides: [`decide`] filters and scores, [`preempt`] looks for pods to evict when nothing fits. The
//! answer is an [`Outcome`] that the caller carries out; a chosen node is assumed at once, so that the next decision
//! sees it taken, and given back by [`Scheduler::bind_failed`].
//!
//! Invariants: a pod is on at most one node; an assumed pod is in no queue; what is assumed is either confirmed by
//! the pod's update or forgotten.

mod decide;
mod preempt;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::framework::Point;
use crate::framework::diagnosis::Diagnosis;
use crate::framework::events::{Actions, Change, Event, Kind, node_actions, pod_actions};
use crate::framework::profile::Profile;
use crate::framework::world::World;
use crate::pod::{PodInfo, is_assigned, is_finished};
use crate::queue::nominator::Nominator;
use crate::queue::{Incoming, Pending, Queue, QueuedPod, Settings, Uid};
use decide::Cycle;
pub use preempt::Preemption;

/// What a decision asks of the outside.
#[derive(Debug)]
pub enum Outcome {
    Bind(Binding),
    Refused(Refused),
    /// The pod needs no node any more.
    Skipped(Arc<PodInfo>),
}

/// Pod to node, already assumed.
#[derive(Clone, Debug)]
pub struct Binding {
    pub pod: Arc<PodInfo>,
    pub node: Arc<str>,
    pub evaluated_nodes: usize,
    pub feasible_nodes: usize,
    pub attempts: u32,
    pub first_attempt: Instant,
}

/// A pod without a node, already back in the queue.
#[derive(Debug)]
pub struct Refused {
    pub pod: Arc<PodInfo>,
    /// The reason of the pod's PodScheduled condition.
    pub reason: &'static str,
    pub message: String,
    /// The node to write into the pod's status; empty clears it, `None` leaves it.
    pub nominated: Option<String>,
    pub preemption: Option<Preemption>,
}

pub const UNSCHEDULABLE: &str = "Unschedulable";
pub const SCHEDULER_ERROR: &str = "SchedulerError";

struct Assumed {
    queued: QueuedPod,
    node: Arc<str>,
}

/// The last refusal, good for an equal pod as long as nothing changed.
struct Remembered {
    signature: u64,
    generation: u64,
    diagnosis: Diagnosis,
}

pub struct Scheduler {
    pub world: World,
    profiles: HashMap<String, Profile>,
    queue: Queue,
    nominator: Nominator,
    percentage_of_nodes_to_score: i32,
    assumed: HashMap<Uid, Assumed>,
    /// The node of every pod that has one, assumed pods included.
    placed: HashMap<Uid, Arc<str>>,
    /// Pods whose victims are being deleted, and whether one of them was held back meanwhile.
    preempting: HashMap<Uid, bool>,
    next_start: usize,
    random: Random,
    remembered: Option<Remembered>,
}

impl Scheduler {
    pub fn new(
        profiles: HashMap<String, Profile>,
        settings: Settings,
        percentage: i32,
        seed: u64,
        now: Instant,
    ) -> Self {
        Self {
            world: World::default(),
            profiles,
            queue: Queue::new(settings, now),
            nominator: Nominator::default(),
            percentage_of_nodes_to_score: percentage,
            assumed: HashMap::new(),
            placed: HashMap::new(),
            preempting: HashMap::new(),
            next_start: 0,
            random: Random(seed | 1),
            remembered: None,
        }
    }

    pub fn pending(&self) -> Pending {
        self.queue.pending()
    }

    pub fn take_incoming(&mut self) -> Vec<Incoming> {
        self.queue.take_incoming()
    }

    /// Nodes, pods on nodes, and those of them that are only assumed.
    pub fn cache_size(&self) -> (usize, usize, usize) {
        (self.world.nodes.len(), self.placed.len(), self.assumed.len())
    }

    /// Refused pods by plugin, for the metric.
    pub fn refused_by_plugin(&self) -> HashMap<(&'static str, String), usize> {
        let mut counts = HashMap::new();
        for queued in self.queue.refused() {
            let plugins = queued.rejectors.iter().chain(&queued.gated_by);
            for plugin in plugins {
                *counts
                    .entry((*plugin, queued.info.scheduler_name().to_owned()))
                    .or_default() += 1;
            }
        }
        counts
    }

    pub fn next_wakeup(&self) -> Option<Instant> {
        self.queue.next_wakeup()
    }

    pub fn flush(&mut self, now: Instant) {
        self.queue.flush(&self.profiles, now);
    }

    /// Something that refused pods may have waited for.
    pub fn on_event(&mut self, event: &Event<'_>, now: Instant) {
        self.queue.on_event(&self.profiles, event, now);
    }

    /// A storage object, namespace, service or controller came or changed; the caller has changed [`Scheduler::world`].
    pub fn on_other(&mut self, kind: Kind, action: Actions, now: Instant) {
        self.world.nodes.touch();
        self.on_event(
            &Event {
                kind,
                action,
                change: Change::Other,
            },
            now,
        );
    }

    pub fn put_node(&mut self, old: Option<&Node>, new: &Arc<Node>, now: Instant) {
        let actions = old.map_or(Actions::ADD, |old| node_actions(old, new));
        let images = |n: &'_ Node| n.status.as_ref().and_then(|s| s.images.clone());
        // A heartbeat changes nothing here, and there is one per node every few seconds.
        let unchanged =
            |old: &Node| actions.each().next().is_none() && images(old) == images(new) && same_spec(old, new);
        if old.is_some_and(unchanged) {
            return;
        }
        self.world.nodes.put_node(Arc::clone(new));
        for action in actions.each() {
            let change = Change::Node { old, new: Some(new) };
            self.on_event(
                &Event {
                    kind: Kind::Node,
                    action,
                    change,
                },
                now,
            );
        }
    }

    pub fn remove_node(&mut self, node: &Node, now: Instant) {
        self.world
            .nodes
            .remove_node(node.metadata.name.as_deref().unwrap_or_default());
        let change = Change::Node {
            old: Some(node),
            new: None,
        };
        self.on_event(
            &Event {
                kind: Kind::Node,
                action: Actions::DELETE,
                change,
            },
            now,
        );
    }

    /// A pod came or changed. `old` is what was told before.
    pub fn put_pod(&mut self, old: Option<&Arc<Pod>>, new: &Arc<Pod>, now: Instant) {
        if is_finished(new) {
            return self.remove_pod(new, now);
        }
        let info = Arc::new(PodInfo::new(Arc::clone(new)));
        // A pod that was deleted and made again under its name is another pod.
        let old = old.filter(|old| old.metadata.uid == new.metadata.uid);
        if is_assigned(new) {
            self.put_assigned(old, info, now);
        } else if self.profiles.contains_key(info.scheduler_name()) {
            self.put_waiting(old, info, now);
        }
    }

    fn put_assigned(&mut self, old: Option<&Arc<Pod>>, info: Arc<PodInfo>, now: Instant) {
        let uid = Arc::clone(&info.uid);
        self.assumed.remove(&uid);
        self.queue.remove(&uid);
        self.nominator.remove(&uid);
        let before = self.unplace(&uid);
        self.place(Arc::clone(&info), info.node_name());
        let was_assigned = old.is_some_and(|old| is_assigned(old));
        let actions = match old.filter(|_| was_assigned) {
            Some(old) => pod_actions(old, &info.object),
            None => Actions::ADD,
        };
        let before = before.filter(|_| was_assigned);
        for action in actions.each() {
            let change = Change::Pod {
                old: before.as_deref(),
                new: Some(&info),
            };
            self.on_event(
                &Event {
                    kind: Kind::AssignedPod,
                    action,
                    change,
                },
                now,
            );
        }
    }

    fn put_waiting(&mut self, old: Option<&Arc<Pod>>, info: Arc<PodInfo>, now: Instant) {
        if let Some(assumed) = self.assumed.get(&info.uid) {
            // Its binding is under way and will tell how it ends, but nobody may count on a pod that is going.
            if info.is_terminating() && !assumed.queued.info.is_terminating() {
                self.forget(&info.uid.clone(), now);
            }
            return;
        }
        if old.is_some_and(|old| old.metadata.resource_version == info.object.metadata.resource_version) {
            return;
        }
        self.nominator.nominate(Arc::clone(&info), info.nominated_node());
        let Some(profile) = self.profiles.get(info.scheduler_name()) else {
            return;
        };
        match old {
            None => self.queue.add(info, profile, now),
            Some(old) => {
                let old = PodInfo::new(Arc::clone(old));
                let change = Change::Pod {
                    old: Some(&old),
                    new: Some(&info),
                };
                let events: Vec<Event<'_>> = pod_actions(&old.object, &info.object)
                    .each()
                    .map(|action| Event {
                        kind: Kind::UnscheduledPod,
                        action,
                        change,
                    })
                    .collect();
                self.queue.update(Arc::clone(&info), profile, &events, now);
                if !old.nominated_node().is_empty() && old.nominated_node() != info.nominated_node() {
                    self.room_was_made(&old, now);
                }
            }
        }
    }

    pub fn remove_pod(&mut self, pod: &Pod, now: Instant) {
        let uid: Uid = pod.metadata.uid.as_deref().unwrap_or_default().into();
        self.assumed.remove(&uid);
        self.preempting.remove(&uid);
        let promised = self.nominator.node_of(&uid).is_some();
        self.nominator.remove(&uid);
        let waiting = self.queue.remove(&uid);
        if let Some(gone) = self.unplace(&uid) {
            self.room_was_made(&gone, now);
        } else if let Some(queued) = waiting.filter(|_| promised) {
            self.room_was_made(&queued.info, now);
        }
    }

    fn room_was_made(&mut self, gone: &PodInfo, now: Instant) {
        let change = Change::Pod {
            old: Some(gone),
            new: None,
        };
        self.on_event(
            &Event {
                kind: Kind::AssignedPod,
                action: Actions::DELETE,
                change,
            },
            now,
        );
    }

    fn place(&mut self, info: Arc<PodInfo>, node: &str) {
        let row = self.world.nodes.add_pod(node, Arc::clone(&info));
        self.placed
            .insert(Arc::clone(&info.uid), Arc::clone(self.world.nodes.name(row)));
    }

    fn unplace(&mut self, uid: &Uid) -> Option<Arc<PodInfo>> {
        let node = self.placed.remove(uid)?;
        self.world.nodes.remove_pod(&node, uid)
    }

    /// Decides about the pod whose turn it is. `None` if none is.
    pub fn schedule_next(&mut self, now: Instant) -> Option<Outcome> {
        let queued = self.queue.pop(now)?;
        let info = Arc::clone(&queued.info);
        if info.is_terminating() || self.placed.contains_key(&info.uid) {
            return Some(Outcome::Skipped(info));
        }
        if let Some(held) = self.preempting.get_mut(&info.uid) {
            *held = true;
            self.hand_back(queued, BTreeSet::from(["DefaultPreemption"]), now);
            return self.schedule_next(now);
        }
        Some(self.decide(queued, now))
    }

    fn decide(&mut self, queued: QueuedPod, now: Instant) -> Outcome {
        if let Some(diagnosis) = self.recall(&queued.info) {
            return Outcome::Refused(self.refuse(queued, diagnosis, Some(String::new()), None, now));
        }
        let Some(profile) = self.profiles.get(queued.info.scheduler_name()) else {
            return Outcome::Skipped(queued.info);
        };
        let mut cycle = Cycle {
            profile,
            world: &mut self.world,
            nominator: &self.nominator,
            pod: &queued.info,
            percentage: self.percentage_of_nodes_to_score,
            next_start: &mut self.next_start,
            random: &mut self.random,
        };
        match cycle.run() {
            Ok(choice) => {
                let binding = Binding {
                    pod: Arc::clone(&queued.info),
                    node: choice.node,
                    evaluated_nodes: choice.evaluated,
                    feasible_nodes: choice.feasible,
                    attempts: queued.attempts,
                    first_attempt: queued.first_attempt.unwrap_or(now),
                };
                self.assume(queued, &binding.node);
                Outcome::Bind(binding)
            }
            Err(decide::Failure::NoNodes) => Outcome::Refused(self.refuse_without_nodes(queued, now)),
            Err(decide::Failure::NoFit(mut no_fit)) => {
                let search = if profile.runs(Point::PostFilter, "DefaultPreemption") {
                    preempt::search(&mut cycle, &no_fit)
                } else {
                    preempt::Search::default()
                };
                no_fit.diagnosis.post_filter = search.message;
                if search.preemption.is_none() {
                    self.remember(&queued.info, &no_fit.diagnosis);
                }
                let refused = self.refuse(queued, no_fit.diagnosis, search.nominated, search.preemption, now);
                Outcome::Refused(refused)
            }
        }
    }

    fn recall(&self, info: &PodInfo) -> Option<Diagnosis> {
        let remembered = self.remembered.as_ref()?;
        let same = remembered.signature == info.signature
            && remembered.generation == self.world.nodes.generation()
            && info.nominated_node().is_empty()
            && self.nominator.is_empty();
        same.then(|| remembered.diagnosis.clone())
    }

    fn remember(&mut self, info: &PodInfo, diagnosis: &Diagnosis) {
        self.remembered = Some(Remembered {
            signature: info.signature,
            generation: self.world.nodes.generation(),
            diagnosis: diagnosis.clone(),
        });
    }

    fn assume(&mut self, queued: QueuedPod, node: &Arc<str>) {
        self.nominator.remove(&queued.info.uid);
        self.place(Arc::clone(&queued.info), node);
        let uid = Arc::clone(&queued.info.uid);
        self.assumed.insert(
            uid,
            Assumed {
                queued,
                node: Arc::clone(node),
            },
        );
    }

    fn refuse_without_nodes(&mut self, queued: QueuedPod, now: Instant) -> Refused {
        let pod = Arc::clone(&queued.info);
        // Any event about nodes may help; with no plugin to blame the pod would only back off.
        let everyone = self.profiles.get(pod.scheduler_name()).into_iter();
        let everyone = everyone
            .flat_map(|p| p.at(Point::Filter))
            .map(|e| e.plugin.name())
            .collect();
        self.hand_back(queued, everyone, now);
        Refused {
            pod,
            reason: UNSCHEDULABLE,
            message: "no nodes available to schedule pods".to_owned(),
            nominated: Some(String::new()),
            preemption: None,
        }
    }

    fn refuse(
        &mut self,
        queued: QueuedPod,
        diagnosis: Diagnosis,
        nominated: Option<String>,
        preemption: Option<Preemption>,
        now: Instant,
    ) -> Refused {
        let pod = Arc::clone(&queued.info);
        self.hand_back(queued, diagnosis.plugins.clone(), now);
        if let Some(node) = &nominated {
            self.nominator.nominate(Arc::clone(&pod), node);
        }
        if let Some(preemption) = &preemption {
            self.preempting.insert(Arc::clone(&pod.uid), false);
            preemption
                .demoted
                .iter()
                .for_each(|p| self.nominator.remove(&p.uid));
        }
        Refused {
            pod,
            reason: UNSCHEDULABLE,
            message: diagnosis.message(),
            nominated,
            preemption,
        }
    }

    fn hand_back(&mut self, queued: QueuedPod, plugins: BTreeSet<&'static str>, now: Instant) {
        if let Some(profile) = self.profiles.get(queued.info.scheduler_name()) {
            self.queue.add_refused(queued, plugins, profile, now);
        }
    }

    /// Leadership began anew: bindings of an earlier term that were never confirmed are open questions.
    pub fn forget_unconfirmed(&mut self, now: Instant) {
        for uid in self.assumed.keys().cloned().collect::<Vec<_>>() {
            if let Some(assumed) = self.forget(&uid, now) {
                self.hand_back(assumed.queued, BTreeSet::new(), now);
            }
        }
    }

    /// The binding was not accepted: the node is free again and the pod is tried later.
    pub fn bind_failed(&mut self, uid: &Uid, error: &str, now: Instant) -> Option<Refused> {
        let assumed = self.forget(uid, now)?;
        let (pod, node) = (Arc::clone(&assumed.queued.info), assumed.node);
        self.hand_back(assumed.queued, BTreeSet::new(), now);
        Some(Refused {
            message: format!("binding rejected: {error} (node {node})"),
            pod,
            reason: SCHEDULER_ERROR,
            nominated: Some(String::new()),
            preemption: None,
        })
    }

    fn forget(&mut self, uid: &Uid, now: Instant) -> Option<Assumed> {
        let assumed = self.assumed.remove(uid)?;
        if let Some(gone) = self.unplace(uid) {
            self.room_was_made(&gone, now);
        }
        Some(assumed)
    }

    /// The victims' deletion was asked for, or could not be.
    pub fn preemption_done(&mut self, uid: &Uid, succeeded: bool) {
        let held = self.preempting.remove(uid);
        let Some(queued) = self.queue.get(uid) else { return };
        let profile = self.profiles.get(queued.info.scheduler_name());
        if let Some(profile) = profile.filter(|_| held == Some(true) || !succeeded) {
            self.queue.activate(uid, profile);
        }
    }

    /// Every binding and every requested resource, checked against allocatable, for tests.
    pub fn overcommitted(&self) -> Vec<String> {
        let nodes = &self.world.nodes;
        let over = |row: u32| {
            nodes.milli_cpu.free(row) < 0 || nodes.memory.free(row) < 0 || nodes.pods.free(row) < 0
        };
        let rows = (0..nodes.capacity() as u32).filter(|row| nodes.object(*row).is_some());
        rows.filter(|row| over(*row))
            .map(|row| nodes.name(row).to_string())
            .collect()
    }

    /// Nodes by name, for tests.
    pub fn node_of(&self, uid: &str) -> Option<&Arc<str>> {
        self.placed.get(uid)
    }
}

fn same_spec(old: &Node, new: &Node) -> bool {
    let spec = |n: &Node| n.spec.as_ref().map(|s| (s.unschedulable, s.taints.clone()));
    spec(old) == spec(new)
}

/// A small generator for ties and offsets (xorshift64*); nothing here needs to be unpredictable.
pub(crate) struct Random(u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        ((high * bound.max(1) as u64) >> 32) as usize
    }
}

/// Rows that pods of at least this priority are promised, for the slow path of the filters.
fn promised_rows(world: &World, nominator: &Nominator, pod: &PodInfo) -> HashSet<u32> {
    let counts = |p: &Arc<PodInfo>| p.priority >= pod.priority && p.uid != pod.uid;
    let nodes = nominator.nodes().filter(|(_, pods)| pods.iter().any(counts));
    nodes.filter_map(|(name, _)| world.nodes.row(name)).collect()
}

#[cfg(test)]
mod tests;
