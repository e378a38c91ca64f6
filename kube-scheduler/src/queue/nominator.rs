//! Pods that were promised a node and are not there yet: preemption makes room for them, and others must not take it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::pod::PodInfo;

#[derive(Default)]
pub struct Nominator {
    by_node: HashMap<Arc<str>, Vec<Arc<PodInfo>>>,
    node_of: HashMap<Arc<str>, Arc<str>>,
}

impl Nominator {
    pub fn is_empty(&self) -> bool {
        self.node_of.is_empty()
    }

    /// The pod is promised this node and no other; an empty name takes the promise back.
    pub fn nominate(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove(&pod.uid);
        if node.is_empty() {
            return;
        }
        let node: Arc<str> = node.into();
        self.node_of.insert(Arc::clone(&pod.uid), Arc::clone(&node));
        self.by_node.entry(node).or_default().push(pod);
    }

    pub fn remove(&mut self, uid: &str) {
        let Some(node) = self.node_of.remove(uid) else {
            return;
        };
        if let Some(pods) = self.by_node.get_mut(&node) {
            pods.retain(|p| *p.uid != *uid);
            if pods.is_empty() {
                self.by_node.remove(&node);
            }
        }
    }

    pub fn node_of(&self, uid: &str) -> Option<&Arc<str>> {
        self.node_of.get(uid)
    }

    pub fn on(&self, node: &str) -> &[Arc<PodInfo>] {
        self.by_node.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn nodes(&self) -> impl Iterator<Item = (&Arc<str>, &Vec<Arc<PodInfo>>)> {
        self.by_node.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{info, pod};

    #[test]
    fn a_pod_is_promised_one_node_at_a_time() {
        let mut nominator = Nominator::default();
        let pod = info(pod("p").build());
        nominator.nominate(Arc::clone(&pod), "a");
        nominator.nominate(Arc::clone(&pod), "b");
        assert_eq!((nominator.on("a").len(), nominator.on("b").len()), (0, 1));
        nominator.nominate(pod, "");
        assert!(nominator.is_empty() && nominator.on("b").is_empty());
    }
}
