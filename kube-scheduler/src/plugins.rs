//! The plugin table: upstream's default plugins, one file each, in the order in which they run.
//!
//! Adding a plugin is a new file and a line in [`TABLE`].

mod default_binder;
mod default_preemption;
mod dynamic_resources;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_balanced;
mod node_resources_fit;
mod node_unschedulable;
mod pod_topology_spread;
mod priority_sort;
mod resource_scorer;
mod scheduling_gates;
mod taint_toleration;
mod topology;
mod volume_binding;

use std::sync::Arc;

use serde_json::Value;

use crate::framework::Plugin;

/// Makes a plugin from its `pluginConfig` arguments, or says what is wrong with them.
type Make = fn(&Value) -> Result<Arc<dyn Plugin>, String>;

pub struct Row {
    pub name: &'static str,
    /// In the default profile; zero means the plugin does not score.
    pub weight: i64,
    pub make: Make,
}

const fn row(name: &'static str, weight: i64, make: Make) -> Row {
    Row { name, weight, make }
}

/// The default profile: plugins and weights as upstream's MultiPoint set has them.
pub const TABLE: &[Row] = &[
    row("SchedulingGates", 0, scheduling_gates::make),
    row("PrioritySort", 0, priority_sort::make),
    row("NodeUnschedulable", 0, node_unschedulable::make),
    row("NodeName", 0, node_name::make),
    row("TaintToleration", 3, taint_toleration::make),
    row("NodeAffinity", 2, node_affinity::make),
    row("NodePorts", 0, node_ports::make),
    row("NodeResourcesFit", 1, node_resources_fit::make),
    row("VolumeBinding", 0, volume_binding::make),
    row("PodTopologySpread", 2, pod_topology_spread::make),
    row("InterPodAffinity", 2, inter_pod_affinity::make),
    row("DynamicResources", 0, dynamic_resources::make),
    row("DefaultPreemption", 0, default_preemption::make),
    row(
        "NodeResourcesBalancedAllocation",
        1,
        node_resources_balanced::make,
    ),
    row("ImageLocality", 1, image_locality::make),
    row("DefaultBinder", 0, default_binder::make),
];

/// Upstream's plugins that a configuration may name and that this scheduler does not have.
pub const ABSENT: &[&str] = &[
    "VolumeRestrictions",
    "NodeVolumeLimits",
    "VolumeZone",
    "NodeDeclaredFeatures",
    "GangScheduling",
    "TopologyPlacementGenerator",
    "PodGroupPodsCount",
];

pub fn find(name: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.name == name)
}

/// The arguments of a plugin as its own type. Absent arguments are all defaults.
pub fn args<T: serde::de::DeserializeOwned + Default>(value: &Value) -> Result<T, String> {
    if value.is_null() {
        return Ok(T::default());
    }
    let mut value = value.clone();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    serde_json::from_value(value).map_err(|e| e.to_string())
}
