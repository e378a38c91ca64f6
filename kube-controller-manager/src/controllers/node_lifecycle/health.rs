//! When each node was last heard of, by our own clock: nodes' clocks are not compared.

use crate::meta::{name, now, seconds_since};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

#[derive(Default)]
pub(super) struct Health {
    nodes: Mutex<HashMap<String, Seen>>,
}

struct Seen {
    last: Instant,
    renewed: Option<MicroTime>,
    announced: bool,
    pods_marked: bool,
}

impl Seen {
    /// The start-up grace of a node whose kubelet never reported counts from the node's creation, whoever watches since when.
    fn first(node: &Node) -> Self {
        let age = node
            .metadata
            .creation_timestamp
            .as_ref()
            .filter(|_| ready(node).is_none())
            .map_or(0, seconds_since);
        let age = Duration::from_secs(u64::try_from(age).unwrap_or(0));
        let now = Instant::now();
        Seen {
            last: now.checked_sub(age).unwrap_or(now),
            renewed: None,
            announced: false,
            pods_marked: false,
        }
    }
}

/// The kubelet sets these; when it is gone nobody knows them.
const KUBELETS_CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

pub(super) fn ready(node: &Node) -> Option<&NodeCondition> {
    node.status
        .as_ref()?
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "Ready")
}

pub(super) fn ready_status(node: &Node) -> Option<&str> {
    ready(node).map(|c| c.status.as_str())
}

impl Health {
    /// A heartbeat is a sign of life; our own marking of the node as Unknown leaves the heartbeat as it was.
    pub fn saw_node(&self, old: Option<&Node>, new: &Node) {
        let heartbeat = |node: &Node| ready(node).and_then(|c| c.last_heartbeat_time.clone());
        let mut nodes = self.nodes.lock();
        let seen = nodes
            .entry(name(&new.metadata).to_owned())
            .or_insert_with(|| Seen::first(new));
        if old.is_some_and(|old| heartbeat(old) != heartbeat(new) && heartbeat(new).is_some()) {
            seen.last = Instant::now();
        }
    }

    /// True when the node had been given up.
    pub fn saw_lease(&self, lease: &Lease) -> bool {
        let renewed = lease.spec.as_ref().and_then(|s| s.renew_time.clone());
        let mut nodes = self.nodes.lock();
        let Some(seen) = nodes.get_mut(name(&lease.metadata)) else {
            return false;
        };
        if renewed.is_none() || seen.renewed == renewed {
            return false;
        }
        seen.renewed = renewed;
        seen.last = Instant::now();
        seen.pods_marked
    }

    pub fn forget(&self, node: &str) {
        self.nodes.lock().remove(node);
    }

    pub fn silence(&self, node: &str) -> Duration {
        self.nodes
            .lock()
            .get(node)
            .map_or(Duration::ZERO, |seen| seen.last.elapsed())
    }

    /// True once for each node.
    pub fn is_new(&self, node: &str) -> bool {
        let mut nodes = self.nodes.lock();
        nodes
            .get_mut(node)
            .is_some_and(|seen| !std::mem::replace(&mut seen.announced, true))
    }

    pub fn pods_marked(&self, node: &str) -> bool {
        self.nodes.lock().get(node).is_some_and(|seen| seen.pods_marked)
    }

    pub fn set_pods_marked(&self, node: &str, marked: bool) {
        if let Some(seen) = self.nodes.lock().get_mut(node) {
            seen.pods_marked = marked;
        }
    }

    #[cfg(test)]
    pub fn pretend_silence(&self, node: &str, silence: Duration) {
        if let Some(seen) = self.nodes.lock().get_mut(node) {
            seen.last = Instant::now()
                .checked_sub(silence)
                .expect("the machine is up for longer than a test's silence");
        }
    }
}

/// The node with everything that its kubelet would say as Unknown; `None` when it is so already.
pub(super) fn marked_unknown(node: &Node) -> Option<Node> {
    let mut marked = node.clone();
    let conditions = marked
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    for type_ in KUBELETS_CONDITIONS {
        match conditions.iter_mut().find(|c| c.type_ == type_) {
            Some(known) if known.status == "Unknown" => {}
            Some(known) => {
                known.status = "Unknown".into();
                known.reason = Some("NodeStatusUnknown".into());
                known.message = Some("Kubelet stopped posting node status.".into());
                known.last_transition_time = Some(now());
            }
            None => conditions.push(NodeCondition {
                type_: type_.into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(now()),
            }),
        }
    }
    (marked != *node).then_some(marked)
}
