//! Builders for tests: pods and nodes in a line, one plugin run over a small cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use serde_json::Value;

use crate::framework::block::{Block, Refusal};
use crate::framework::world::World;
use crate::framework::{Plugin, PreFilter};
use crate::nodes::Row;
use crate::plugins;
use crate::pod::PodInfo;

pub fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn quantities(pairs: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), Quantity((*v).to_owned())))
        .collect()
}

pub fn taint(key: &str, value: &str, effect: &str) -> core::Taint {
    core::Taint {
        key: key.into(),
        value: Some(value.into()),
        effect: effect.into(),
        time_added: None,
    }
}

pub fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> core::Toleration {
    let some = |text: &str| Some(text.to_owned());
    core::Toleration {
        key: some(key),
        operator: some(operator),
        value: some(value),
        effect: some(effect),
        toleration_seconds: None,
    }
}

pub fn info(pod: core::Pod) -> Arc<PodInfo> {
    Arc::new(PodInfo::new(Arc::new(pod)))
}

pub fn pod(name: &str) -> PodBuilder {
    let mut pod = core::Pod::default();
    pod.metadata.name = Some(name.to_owned());
    pod.metadata.namespace = Some("default".to_owned());
    pod.metadata.uid = Some(format!("{name}-uid"));
    pod.metadata.resource_version = Some("1".to_owned());
    pod.spec = Some(core::PodSpec::default());
    pod.status = Some(core::PodStatus::default());
    PodBuilder(pod)
}

pub struct PodBuilder(core::Pod);

impl PodBuilder {
    pub fn build(self) -> core::Pod {
        self.0
    }

    fn spec(mut self, change: impl FnOnce(&mut core::PodSpec)) -> Self {
        change(self.0.spec.get_or_insert_default());
        self
    }

    fn status(mut self, change: impl FnOnce(&mut core::PodStatus)) -> Self {
        change(self.0.status.get_or_insert_default());
        self
    }

    pub fn namespace(mut self, namespace: &str) -> Self {
        self.0.metadata.namespace = Some(namespace.to_owned());
        self
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.0
            .metadata
            .labels
            .get_or_insert_default()
            .insert(key.into(), value.into());
        self
    }

    pub fn owner(mut self, kind: &str, name: &str) -> Self {
        let owner = OwnerReference {
            kind: kind.into(),
            name: name.into(),
            controller: Some(true),
            ..OwnerReference::default()
        };
        self.0
            .metadata
            .owner_references
            .get_or_insert_default()
            .push(owner);
        self
    }

    pub fn container(self, cpu: &str, memory: &str) -> Self {
        self.container_with(&[("cpu", cpu), ("memory", memory)])
    }

    pub fn container_with(self, requests: &[(&str, &str)]) -> Self {
        let container = asking(requests);
        self.spec(|s| s.containers.push(container))
    }

    pub fn init_container(self, cpu: &str, memory: &str) -> Self {
        let container = asking(&[("cpu", cpu), ("memory", memory)]);
        self.spec(|s| s.init_containers.get_or_insert_default().push(container))
    }

    pub fn sidecar(self, cpu: &str, memory: &str) -> Self {
        let mut container = asking(&[("cpu", cpu), ("memory", memory)]);
        container.restart_policy = Some("Always".into());
        self.spec(|s| s.init_containers.get_or_insert_default().push(container))
    }

    pub fn image(self, image: &str) -> Self {
        let container = core::Container {
            image: Some(image.into()),
            ..core::Container::default()
        };
        self.spec(|s| s.containers.push(container))
    }

    pub fn overhead(self, amounts: &[(&str, &str)]) -> Self {
        self.spec(|s| s.overhead = Some(quantities(amounts)))
    }

    pub fn pod_level(self, requests: &[(&str, &str)]) -> Self {
        let requests = Some(quantities(requests));
        let whole = core::ResourceRequirements {
            requests,
            ..core::ResourceRequirements::default()
        };
        self.spec(|s| s.resources = Some(whole))
    }

    pub fn host_port(self, port: i32) -> Self {
        let port = core::ContainerPort {
            host_port: Some(port),
            container_port: port,
            ..Default::default()
        };
        let container = core::Container {
            ports: Some(vec![port]),
            ..core::Container::default()
        };
        self.spec(|s| s.containers.push(container))
    }

    pub fn on_node(self, node: &str) -> Self {
        self.spec(|s| s.node_name = Some(node.into()))
    }

    pub fn priority(self, priority: i32) -> Self {
        self.spec(|s| s.priority = Some(priority))
    }

    pub fn never_preempts(self) -> Self {
        self.spec(|s| s.preemption_policy = Some("Never".into()))
    }

    pub fn gate(self, name: &str) -> Self {
        let gate = core::PodSchedulingGate { name: name.into() };
        self.spec(|s| s.scheduling_gates.get_or_insert_default().push(gate))
    }

    pub fn toleration(self, toleration: core::Toleration) -> Self {
        self.spec(|s| s.tolerations.get_or_insert_default().push(toleration))
    }

    pub fn node_selector(self, pairs: &[(&str, &str)]) -> Self {
        self.spec(|s| s.node_selector = Some(labels(pairs)))
    }

    fn node_affinity(self, change: impl FnOnce(&mut core::NodeAffinity)) -> Self {
        self.spec(|s| {
            change(
                s.affinity
                    .get_or_insert_default()
                    .node_affinity
                    .get_or_insert_default(),
            )
        })
    }

    fn node_term(self, term: core::NodeSelectorTerm) -> Self {
        self.node_affinity(|a| {
            let required = a
                .required_during_scheduling_ignored_during_execution
                .get_or_insert_default();
            required.node_selector_terms.push(term);
        })
    }

    pub fn node_affinity_in(self, key: &str, values: &[&str]) -> Self {
        self.node_term(core::NodeSelectorTerm {
            match_expressions: Some(vec![requirement(key, values)]),
            match_fields: None,
        })
    }

    pub fn node_affinity_name(self, names: &[&str]) -> Self {
        self.node_affinity_names(&[names])
    }

    /// One term that names nodes several times: only names in all lists can match.
    pub fn node_affinity_names(self, lists: &[&[&str]]) -> Self {
        let fields = lists
            .iter()
            .map(|names| requirement("metadata.name", names))
            .collect();
        self.node_term(core::NodeSelectorTerm {
            match_expressions: None,
            match_fields: Some(fields),
        })
    }

    pub fn prefer_node(self, key: &str, value: &str, weight: i32) -> Self {
        let preference = core::NodeSelectorTerm {
            match_expressions: Some(vec![requirement(key, &[value])]),
            match_fields: None,
        };
        self.node_affinity(|a| {
            let list = a
                .preferred_during_scheduling_ignored_during_execution
                .get_or_insert_default();
            list.push(core::PreferredSchedulingTerm { preference, weight });
        })
    }

    fn pod_affinity(self, change: impl FnOnce(&mut core::PodAffinity)) -> Self {
        self.spec(|s| {
            change(
                s.affinity
                    .get_or_insert_default()
                    .pod_affinity
                    .get_or_insert_default(),
            )
        })
    }

    fn pod_anti_affinity(self, change: impl FnOnce(&mut core::PodAntiAffinity)) -> Self {
        self.spec(|s| {
            change(
                s.affinity
                    .get_or_insert_default()
                    .pod_anti_affinity
                    .get_or_insert_default(),
            )
        })
    }

    pub fn affinity(self, key: &str, pairs: &[(&str, &str)]) -> Self {
        let term = pod_term(key, pairs);
        self.pod_affinity(|a| {
            a.required_during_scheduling_ignored_during_execution
                .get_or_insert_default()
                .push(term)
        })
    }

    pub fn anti_affinity(self, key: &str, pairs: &[(&str, &str)]) -> Self {
        let term = pod_term(key, pairs);
        self.pod_anti_affinity(|a| {
            a.required_during_scheduling_ignored_during_execution
                .get_or_insert_default()
                .push(term);
        })
    }

    pub fn prefer_affinity(self, weight: i32, key: &str, pairs: &[(&str, &str)]) -> Self {
        let pod_affinity_term = pod_term(key, pairs);
        let term = core::WeightedPodAffinityTerm {
            pod_affinity_term,
            weight,
        };
        self.pod_affinity(|a| {
            a.preferred_during_scheduling_ignored_during_execution
                .get_or_insert_default()
                .push(term)
        })
    }

    pub fn prefer_anti(self, weight: i32, key: &str, pairs: &[(&str, &str)]) -> Self {
        let pod_affinity_term = pod_term(key, pairs);
        let term = core::WeightedPodAffinityTerm {
            pod_affinity_term,
            weight,
        };
        self.pod_anti_affinity(|a| {
            a.preferred_during_scheduling_ignored_during_execution
                .get_or_insert_default()
                .push(term);
        })
    }

    /// Over pods with this pod's own labels.
    pub fn spread(mut self, key: &str, max_skew: i32, action: &str) -> Self {
        let match_labels = self.0.metadata.labels.clone();
        let constraint = core::TopologySpreadConstraint {
            topology_key: key.into(),
            max_skew,
            when_unsatisfiable: action.into(),
            label_selector: Some(LabelSelector {
                match_labels,
                match_expressions: None,
            }),
            ..core::TopologySpreadConstraint::default()
        };
        let spec = self.0.spec.get_or_insert_default();
        spec.topology_spread_constraints
            .get_or_insert_default()
            .push(constraint);
        self
    }

    pub fn min_domains(self, domains: i32) -> Self {
        self.spec(|s| {
            let constraints = s.topology_spread_constraints.iter_mut().flatten();
            constraints.for_each(|c| c.min_domains = Some(domains));
        })
    }

    pub fn claim(self, name: &str) -> Self {
        let claim_name = name.to_owned();
        let source = core::PersistentVolumeClaimVolumeSource {
            claim_name,
            read_only: None,
        };
        let volume = core::Volume {
            name: name.into(),
            persistent_volume_claim: Some(source),
            ..core::Volume::default()
        };
        self.spec(|s| s.volumes.get_or_insert_default().push(volume))
    }

    pub fn nominated(self, node: &str) -> Self {
        self.status(|s| s.nominated_node_name = Some(node.into()))
    }

    pub fn condition(self, type_: &str, status: &str, reason: &str, message: &str) -> Self {
        let condition = core::PodCondition {
            type_: type_.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            ..core::PodCondition::default()
        };
        self.status(|s| s.conditions.get_or_insert_default().push(condition))
    }

    pub fn phase(self, phase: &str) -> Self {
        self.status(|s| s.phase = Some(phase.into()))
    }

    pub fn version(mut self, resource_version: &str) -> Self {
        self.0.metadata.resource_version = Some(resource_version.into());
        self
    }
}

fn asking(requests: &[(&str, &str)]) -> core::Container {
    let requests = Some(quantities(requests));
    let resources = core::ResourceRequirements {
        requests,
        ..core::ResourceRequirements::default()
    };
    core::Container {
        resources: Some(resources),
        ..core::Container::default()
    }
}

fn requirement(key: &str, values: &[&str]) -> core::NodeSelectorRequirement {
    core::NodeSelectorRequirement {
        key: key.into(),
        operator: "In".into(),
        values: Some(values.iter().map(|v| (*v).to_owned()).collect()),
    }
}

fn pod_term(key: &str, pairs: &[(&str, &str)]) -> core::PodAffinityTerm {
    core::PodAffinityTerm {
        topology_key: key.into(),
        label_selector: Some(LabelSelector {
            match_labels: Some(labels(pairs)),
            match_expressions: None,
        }),
        ..core::PodAffinityTerm::default()
    }
}

pub fn node(name: &str) -> NodeBuilder {
    let mut node = core::Node::default();
    node.metadata.name = Some(name.to_owned());
    NodeBuilder(node).capacity("32", "64Gi", 110)
}

pub struct NodeBuilder(core::Node);

impl NodeBuilder {
    pub fn build(self) -> core::Node {
        self.0
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.0
            .metadata
            .labels
            .get_or_insert_default()
            .insert(key.into(), value.into());
        self
    }

    pub fn taint(mut self, taint: core::Taint) -> Self {
        self.0
            .spec
            .get_or_insert_default()
            .taints
            .get_or_insert_default()
            .push(taint);
        self
    }

    pub fn unschedulable(mut self) -> Self {
        self.0.spec.get_or_insert_default().unschedulable = Some(true);
        self
    }

    pub fn capacity(mut self, cpu: &str, memory: &str, pods: u32) -> Self {
        let pods = pods.to_string();
        let amounts = quantities(&[("cpu", cpu), ("memory", memory), ("pods", &pods)]);
        self.0
            .status
            .get_or_insert_default()
            .allocatable
            .get_or_insert_default()
            .extend(amounts);
        self
    }

    pub fn scalar(mut self, name: &str, amount: &str) -> Self {
        let amounts = quantities(&[(name, amount)]);
        self.0
            .status
            .get_or_insert_default()
            .allocatable
            .get_or_insert_default()
            .extend(amounts);
        self
    }

    pub fn image(mut self, name: &str, size: i64) -> Self {
        let image = core::ContainerImage {
            names: Some(vec![name.into()]),
            size_bytes: Some(size),
        };
        self.0
            .status
            .get_or_insert_default()
            .images
            .get_or_insert_default()
            .push(image);
        self
    }
}

/// A cluster and one plugin.
pub struct Filtering {
    plugin: &'static str,
    args: Value,
    pub world: World,
}

/// What a plugin made of a pod.
pub struct Filtered {
    /// Names of nodes, in order.
    pub passing: Vec<String>,
    refusals: Vec<(String, String)>,
    /// The pod was refused before any node was looked at.
    pub rejected: Option<String>,
}

impl Filtered {
    /// `resolvable: ` or `unresolvable: ` and the reasons.
    pub fn refusal(&self, node: &str) -> &str {
        self.refusals
            .iter()
            .find(|(name, _)| name == node)
            .map_or("not refused", |(_, reason)| reason)
    }
}

impl Filtering {
    pub fn new(plugin: &'static str) -> Self {
        Self {
            plugin,
            args: Value::Null,
            world: World::default(),
        }
    }

    pub fn args(mut self, args: Value) -> Self {
        self.args = args;
        self
    }

    pub fn node(mut self, node: NodeBuilder) -> Self {
        self.world.nodes.put_node(Arc::new(node.build()));
        self
    }

    /// A pod that is placed already.
    pub fn pod(mut self, pod: PodBuilder) -> Self {
        let pod = info(pod.build());
        self.world.nodes.add_pod(pod.node_name(), Arc::clone(&pod));
        self
    }

    fn plugin(&self) -> Arc<dyn Plugin> {
        let row = plugins::find(self.plugin).expect("a plugin of the table");
        (row.make)(&self.args).expect("valid arguments")
    }

    fn rows(&self) -> Vec<Row> {
        (0..self.world.nodes.capacity()).map(|row| row as Row).collect()
    }

    pub fn run(&self, pod: core::Pod) -> Filtered {
        // Compiling may build columns, which is no change that a test cares about.
        let mut world = self.copy_of_world();
        let mut rows = self.rows();
        let mut refused: Vec<Refusal> = Vec::new();
        let mut refusals = Vec::new();
        let filter = match self.plugin().pre_filter(&info(pod), &mut world) {
            PreFilter::Skip => None,
            PreFilter::Filter(filter) => Some(filter),
            PreFilter::Only(names, filter) => {
                rows = names.iter().filter_map(|name| world.nodes.row(name)).collect();
                Some(filter)
            }
            PreFilter::Reject(r) => {
                return Filtered {
                    passing: Vec::new(),
                    refusals,
                    rejected: Some(r.message),
                };
            }
        };
        if let Some(filter) = filter {
            filter.filter(
                &world.nodes,
                &mut Block {
                    rows: &mut rows,
                    refused: &mut refused,
                    by: 0,
                },
            );
            for refusal in refused {
                let named = filter.reasons().iter().enumerate();
                let reasons: Vec<&str> = named
                    .filter(|(bit, _)| refusal.reasons >> bit & 1 == 1)
                    .map(|(_, r)| &**r)
                    .collect();
                let kind = if refusal.resolvable {
                    "resolvable"
                } else {
                    "unresolvable"
                };
                refusals.push((
                    world.nodes.name(refusal.row).to_string(),
                    format!("{kind}: {}", reasons.join(", ")),
                ));
            }
        }
        let passing = rows
            .iter()
            .map(|row| world.nodes.name(*row).to_string())
            .collect();
        Filtered {
            passing,
            refusals,
            rejected: None,
        }
    }

    fn copy_of_world(&self) -> World {
        let mut world = World::default();
        for row in self.rows() {
            self.world.nodes.object(row).into_iter().for_each(|n| {
                world.nodes.put_node(Arc::clone(n));
            });
        }
        for (row, pod) in self.world.nodes.all_pods() {
            world.nodes.add_pod(self.world.nodes.name(row), Arc::clone(pod));
        }
        world.namespaces = self.world.namespaces.clone();
        world.workloads.services = self.world.workloads.services.clone();
        world.workloads.controllers = self.world.workloads.controllers.clone();
        world.volumes.claims = self.world.volumes.claims.clone();
        world.volumes.volumes = self.world.volumes.volumes.clone();
        world.volumes.late_binding_classes = self.world.volumes.late_binding_classes.clone();
        world
    }
}

/// A cluster and one plugin that scores.
pub struct Scoring {
    plugin: &'static str,
    args: Value,
    names: Vec<&'static str>,
    pub world: World,
}

impl Scoring {
    pub fn new(plugin: &'static str) -> Self {
        Self {
            plugin,
            args: Value::Null,
            names: Vec::new(),
            world: World::default(),
        }
    }

    pub fn args(mut self, args: Value) -> Self {
        self.args = args;
        self
    }

    pub fn node(mut self, node: NodeBuilder) -> Self {
        let node = node.build();
        self.names
            .push(node.metadata.name.clone().unwrap_or_default().leak());
        self.world.nodes.put_node(Arc::new(node));
        self
    }

    pub fn pod(mut self, pod: PodBuilder) -> Self {
        let pod = info(pod.build());
        self.world.nodes.add_pod(pod.node_name(), Arc::clone(&pod));
        self
    }

    /// Normalised scores by node; empty if the plugin does not score this pod.
    pub fn run(mut self, pod: core::Pod) -> Vec<(&'static str, i64)> {
        self.score(pod)
    }

    pub fn score(&mut self, pod: core::Pod) -> Vec<(&'static str, i64)> {
        let row = plugins::find(self.plugin).expect("a plugin of the table");
        let plugin = (row.make)(&self.args).expect("valid arguments");
        let rows: Vec<Row> = self
            .names
            .iter()
            .filter_map(|name| self.world.nodes.row(name))
            .collect();
        let Some(scorer) = plugin.pre_score(&info(pod), &mut self.world, &rows) else {
            return Vec::new();
        };
        let mut scores = vec![0; rows.len()];
        scorer.score(&self.world.nodes, &rows, &mut scores);
        scorer.normalize(&rows, &mut scores);
        self.names.iter().copied().zip(scores).collect()
    }
}
