//! Which node may see which object: every object a pod refers to counts the nodes it is reached from.
//!
//! A secret of a persistent volume is one step longer (secret -> volume -> claim -> pods); those few
//! paths are walked, all others are one lookup.

use hashbrown::{HashMap, HashSet};
use parking_lot::RwLock;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Pod,
    Secret,
    ConfigMap,
    ServiceAccount,
    Claim,
    Volume,
    ResourceClaim,
    Attachment,
    ResourceSlice,
    PodCertificateRequest,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Vertex {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

impl Vertex {
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Vertex {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// What one object (a pod, an attachment, ...) gives a node access to, itself included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    pub node: String,
    pub reaches: Vec<Vertex>,
}

#[derive(Default)]
struct State {
    /// For each object, from how many owners each node reaches it.
    nodes: HashMap<Vertex, HashMap<String, usize>>,
    owners: HashMap<Vertex, Grants>,
    /// Volume name -> the claim bound to it and the secrets its plugin needs on the node.
    volumes: HashMap<String, (Vertex, Vec<Vertex>)>,
    volumes_of_secret: HashMap<Vertex, HashSet<String>>,
}

#[derive(Clone, Default)]
pub struct Graph(Arc<RwLock<State>>);

impl Graph {
    /// Replaces what `owner` grants.
    pub fn set(&self, owner: Vertex, mut grants: Grants) {
        let mut state = self.0.write();
        state.release(&owner);
        if grants.node.is_empty() {
            return;
        }
        grants.reaches.push(owner.clone());
        for vertex in &grants.reaches {
            *state
                .nodes
                .entry(vertex.clone())
                .or_default()
                .entry(grants.node.clone())
                .or_default() += 1;
        }
        state.owners.insert(owner, grants);
    }

    pub fn remove(&self, owner: &Vertex) {
        self.0.write().release(owner);
    }

    pub fn set_volume(&self, name: &str, claim: Option<Vertex>, secrets: Vec<Vertex>) {
        let mut state = self.0.write();
        state.release_volume(name);
        let Some(claim) = claim else { return };
        for secret in &secrets {
            state
                .volumes_of_secret
                .entry(secret.clone())
                .or_default()
                .insert(name.to_owned());
        }
        state.volumes.insert(name.to_owned(), (claim, secrets));
    }

    pub fn remove_volume(&self, name: &str) {
        self.0.write().release_volume(name);
    }

    pub fn reaches(&self, kind: Kind, namespace: &str, name: &str, node: &str) -> bool {
        let vertex = Vertex::new(kind, namespace, name);
        let state = self.0.read();
        match kind {
            Kind::Volume => state.volume_reaches(name, node),
            Kind::Secret => {
                state.counted(&vertex, node)
                    || state
                        .volumes_of_secret
                        .get(&vertex)
                        .is_some_and(|volumes| volumes.iter().any(|v| state.volume_reaches(v, node)))
            }
            _ => state.counted(&vertex, node),
        }
    }
}

impl State {
    fn counted(&self, vertex: &Vertex, node: &str) -> bool {
        self.nodes
            .get(vertex)
            .is_some_and(|nodes| nodes.contains_key(node))
    }

    fn volume_reaches(&self, volume: &str, node: &str) -> bool {
        self.volumes
            .get(volume)
            .is_some_and(|(claim, _)| self.counted(claim, node))
    }

    fn release(&mut self, owner: &Vertex) {
        let Some(grants) = self.owners.remove(owner) else {
            return;
        };
        for vertex in &grants.reaches {
            let Some(nodes) = self.nodes.get_mut(vertex) else {
                continue;
            };
            if let Some(count) = nodes.get_mut(&grants.node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&grants.node);
                }
            }
            if nodes.is_empty() {
                self.nodes.remove(vertex);
            }
        }
    }

    fn release_volume(&mut self, name: &str) {
        let Some((_, secrets)) = self.volumes.remove(name) else {
            return;
        };
        for secret in secrets {
            if let Some(volumes) = self.volumes_of_secret.get_mut(&secret) {
                volumes.remove(name);
                if volumes.is_empty() {
                    self.volumes_of_secret.remove(&secret);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Vertex {
        Vertex::new(Kind::Pod, "ns", name)
    }

    fn grants(node: &str, secret: &str) -> Grants {
        Grants {
            node: node.into(),
            reaches: vec![Vertex::new(Kind::Secret, "ns", secret)],
        }
    }

    #[test]
    fn a_secret_is_reached_until_the_last_pod_using_it_is_gone() {
        let graph = Graph::default();
        graph.set(pod("a"), grants("n1", "s"));
        graph.set(pod("b"), grants("n1", "s"));
        graph.remove(&pod("a"));
        assert!(graph.reaches(Kind::Secret, "ns", "s", "n1"));
        assert!(!graph.reaches(Kind::Secret, "ns", "s", "n2"));
        graph.remove(&pod("b"));
        assert!(!graph.reaches(Kind::Secret, "ns", "s", "n1"));
        assert!(
            graph.0.read().nodes.is_empty(),
            "nothing is kept for pods that are gone"
        );
    }

    #[test]
    fn replacing_a_pod_drops_its_former_references() {
        let graph = Graph::default();
        graph.set(pod("a"), grants("n1", "old"));
        graph.set(pod("a"), grants("n1", "new"));
        assert!(!graph.reaches(Kind::Secret, "ns", "old", "n1"));
        assert!(graph.reaches(Kind::Secret, "ns", "new", "n1"));
        assert!(graph.reaches(Kind::Pod, "ns", "a", "n1"));
    }

    #[test]
    fn volumes_are_reached_through_their_claim_and_give_their_secrets() {
        let graph = Graph::default();
        let claim = Vertex::new(Kind::Claim, "ns", "c");
        graph.set(
            pod("a"),
            Grants {
                node: "n1".into(),
                reaches: vec![claim.clone()],
            },
        );
        graph.set_volume("pv", Some(claim), vec![Vertex::new(Kind::Secret, "sys", "csi")]);
        assert!(graph.reaches(Kind::Volume, "", "pv", "n1"));
        assert!(graph.reaches(Kind::Secret, "sys", "csi", "n1"));
        assert!(!graph.reaches(Kind::Secret, "sys", "csi", "n2"));
        graph.remove_volume("pv");
        assert!(!graph.reaches(Kind::Secret, "sys", "csi", "n1"));
    }

    #[test]
    fn an_unscheduled_pod_grants_nothing() {
        let graph = Graph::default();
        graph.set(pod("a"), grants("", "s"));
        assert!(!graph.reaches(Kind::Secret, "ns", "s", ""));
    }
}
