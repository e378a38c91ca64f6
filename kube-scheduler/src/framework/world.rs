//! What plugins may read: nodes with their pods, and the few facts about other objects.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::nodes::Nodes;
use crate::pod::{AffinityTerm, PodInfo};
use crate::selector::{Labels, NodeTerm, Selector};

#[derive(Default)]
pub struct World {
    pub nodes: Nodes,
    pub namespaces: HashMap<Arc<str>, Labels>,
    pub workloads: Workloads,
    pub volumes: Volumes,
    /// By `namespace/name`.
    pub budgets: HashMap<String, Budget>,
}

impl World {
    pub fn namespace_labels(&self, namespace: &str) -> Option<&Labels> {
        self.namespaces.get(namespace)
    }

    /// The term with its namespace selector replaced by the names that it selects now.
    pub fn resolve(&self, term: &AffinityTerm) -> AffinityTerm {
        let mut term = term.clone();
        if !term.namespace_selector.is_everything() {
            let selected = self
                .namespaces
                .iter()
                .filter(|(_, l)| term.namespace_selector.matches(l));
            term.namespaces.extend(selected.map(|(name, _)| Arc::clone(name)));
            term.namespace_selector = Selector::Nothing;
        }
        term
    }
}

/// A PodDisruptionBudget as preemption reads it.
#[derive(Clone, Debug)]
pub struct Budget {
    pub namespace: Arc<str>,
    pub selector: Selector,
    pub disruptions_allowed: i32,
    /// Names of pods whose eviction is already counted.
    pub disrupted: Vec<String>,
}

/// Selectors of services and controllers, for the default spreading of pods that state no constraints.
#[derive(Default)]
pub struct Workloads {
    /// Selector labels by namespace and service name.
    pub services: HashMap<Arc<str>, HashMap<String, Labels>>,
    /// Selectors by kind and `namespace/name`.
    pub controllers: HashMap<(&'static str, String), Selector>,
}

impl Workloads {
    /// What the pod's replicas have in common. `None` if nothing selects it.
    pub fn default_selector(&self, pod: &PodInfo) -> Option<Selector> {
        let services = self.services.get(&pod.namespace).into_iter().flatten();
        let selecting = services.filter(|(_, selector)| {
            !selector.is_empty() && selector.iter().all(|(k, v)| pod.labels().get(k) == Some(v))
        });
        let merged: Labels = selecting.flat_map(|(_, selector)| selector.clone()).collect();
        let selector = Selector::from_map(&merged);
        let both = match self.controller_selector(pod) {
            Some(controller) => selector.and(controller),
            None => selector,
        };
        (!both.is_everything()).then_some(both)
    }

    fn controller_selector(&self, pod: &PodInfo) -> Option<&Selector> {
        let owner = controller_of(&pod.object.metadata)?;
        let kind = ["ReplicaSet", "StatefulSet", "ReplicationController"]
            .into_iter()
            .find(|k| *k == owner.0)?;
        self.controllers
            .get(&(kind, format!("{}/{}", pod.namespace, owner.1)))
    }
}

/// Kind and name of the controlling owner.
fn controller_of(meta: &ObjectMeta) -> Option<(&str, &str)> {
    let owner = meta
        .owner_references
        .iter()
        .flatten()
        .find(|o| o.controller == Some(true))?;
    Some((&owner.kind, &owner.name))
}

/// The storage objects that volume plugins read.
#[derive(Default)]
pub struct Volumes {
    /// By `namespace/name`.
    pub claims: HashMap<String, Claim>,
    pub volumes: HashMap<String, Volume>,
    /// Names of storage classes that bind when the first pod comes.
    pub late_binding_classes: HashMap<String, bool>,
}

#[derive(Clone, Debug, Default)]
pub struct Claim {
    /// Empty until the claim is bound.
    pub volume: String,
    pub class: String,
    pub lost: bool,
    pub terminating: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Volume {
    /// Where the volume can be reached; `None` means everywhere.
    pub required: Option<Box<[NodeTerm]>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{info, labels, pod};

    #[test]
    fn the_default_selector_joins_services_and_the_controller() {
        let mut workloads = Workloads::default();
        let web = info(
            pod("p")
                .label("app", "web")
                .label("hash", "1")
                .owner("ReplicaSet", "web-1")
                .build(),
        );
        assert_eq!(workloads.default_selector(&web), None);
        let services = workloads.services.entry("default".into()).or_default();
        services.insert("web".into(), labels(&[("app", "web")]));
        services.insert("db".into(), labels(&[("app", "db")]));
        services.insert("headless".into(), labels(&[]));
        let by_service = workloads.default_selector(&web).expect("selected");
        assert!(by_service.matches(&labels(&[("app", "web"), ("hash", "2")])));
        let key = ("ReplicaSet", "default/web-1".to_owned());
        workloads
            .controllers
            .insert(key, Selector::from_map(&labels(&[("hash", "1")])));
        let both = workloads.default_selector(&web).expect("selected");
        assert!(both.matches(&labels(&[("app", "web"), ("hash", "1")])));
        assert!(!both.matches(&labels(&[("app", "web"), ("hash", "2")])));
    }

    #[test]
    fn a_namespace_selector_becomes_the_names_it_selects() {
        let mut world = World::default();
        world.namespaces.insert("a".into(), labels(&[("team", "x")]));
        world.namespaces.insert("b".into(), labels(&[("team", "y")]));
        let mut term = info(pod("p").anti_affinity("zone", &[]).build())
            .terms
            .required_anti[0]
            .clone();
        term.namespaces.clear();
        term.namespace_selector = Selector::from_map(&labels(&[("team", "x")]));
        let resolved = world.resolve(&term);
        assert_eq!(
            resolved.namespaces.iter().map(|n| &**n).collect::<Vec<_>>(),
            ["a"]
        );
        assert_eq!(resolved.namespace_selector, Selector::Nothing);
    }
}
