//! What a pod asks for and what a node has, as integers.
//!
//! CPU counts in millicores, everything else in its own unit. Sums saturate: a wrapped sum would fit anywhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use smallvec::SmallVec;

/// A container without a CPU request counts as this much in the spreading scores.
pub const DEFAULT_MILLI_CPU: i64 = 100;
/// A container without a memory request counts as this much in the spreading scores.
pub const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

type WireList = BTreeMap<String, WireQuantity>;

/// A vector of resources. Scalars are extended resources, hugepages and attachable volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    pub scalars: SmallVec<[(Arc<str>, i64); 1]>,
}

impl Resources {
    /// The amounts of a node's or container's list; names that the scheduler does not count are left out.
    pub fn from_list(list: &WireList) -> Self {
        let mut resources = Self::default();
        for (name, quantity) in list {
            if let Some(slot) = resources.slot(name) {
                *slot = amount(name, quantity);
            }
        }
        resources
    }

    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.milli_cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            _ => self
                .scalars
                .iter()
                .find(|(n, _)| &**n == name)
                .map_or(0, |(_, v)| *v),
        }
    }

    pub fn add(&mut self, other: &Self) {
        self.merge(other, i64::saturating_add);
    }

    /// The larger of the two in every dimension.
    pub fn raise_to(&mut self, other: &Self) {
        self.merge(other, i64::max);
    }

    /// No cpu, memory, storage or scalar is named at all.
    pub fn is_empty(&self) -> bool {
        self.milli_cpu == 0 && self.memory == 0 && self.ephemeral_storage == 0 && self.scalars.is_empty()
    }

    fn merge(&mut self, other: &Self, with: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        for (name, value) in &other.scalars {
            let slot = self.scalar_slot(name);
            *slot = with(*slot, *value);
        }
    }

    fn slot(&mut self, name: &str) -> Option<&mut i64> {
        match name {
            "cpu" => Some(&mut self.milli_cpu),
            "memory" => Some(&mut self.memory),
            "ephemeral-storage" => Some(&mut self.ephemeral_storage),
            _ if is_scalar_name(name) => Some(self.scalar_slot(name)),
            _ => None,
        }
    }

    fn scalar_slot(&mut self, name: &str) -> &mut i64 {
        let at = self
            .scalars
            .iter()
            .position(|(n, _)| &**n == name)
            .unwrap_or_else(|| {
                self.scalars.push((Arc::from(name), 0));
                self.scalars.len() - 1
            });
        &mut self.scalars[at].1
    }
}

/// Resources that are counted by name: everything with a domain, hugepages and attachable volumes.
pub fn is_scalar_name(name: &str) -> bool {
    name.contains('/') || name.starts_with("hugepages-") || name.starts_with("attachable-volumes-")
}

/// Outside the kubernetes.io domain: an extended resource, which a configuration may tell us to ignore.
pub fn is_extended_name(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// The number of pods a node takes.
pub fn allowed_pods(allocatable: &WireList) -> i64 {
    allocatable.get("pods").map_or(0, |q| amount("pods", q))
}

fn amount(name: &str, quantity: &WireQuantity) -> i64 {
    // The API server refuses malformed quantities; from a foreign one they count as nothing.
    let parsed = Quantity::parse(&quantity.0);
    match (parsed, name) {
        (Ok(q), "cpu") => q.milli_value(),
        (Ok(q), _) => q.value(),
        (Err(_), _) => 0,
    }
}

/// What the pod takes from a node: containers together, or the largest init step, and the overhead.
pub fn pod_requests(pod: &Pod) -> Resources {
    requests(pod, &Resources::default())
}

/// CPU and memory with the defaults for containers that ask for none, as the spreading scores count them.
pub fn pod_non_zero_requests(pod: &Pod) -> (i64, i64) {
    let missing = Resources {
        milli_cpu: DEFAULT_MILLI_CPU,
        memory: DEFAULT_MEMORY,
        ..Resources::default()
    };
    let sum = requests(pod, &missing);
    (sum.milli_cpu, sum.memory)
}

fn requests(pod: &Pod, missing: &Resources) -> Resources {
    let Some(spec) = &pod.spec else {
        return Resources::default();
    };
    let mut sum = container_requests(spec, pod.status.as_ref(), missing);
    if let Some(whole) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        override_with_pod_level(&mut sum, whole);
    }
    if let Some(overhead) = &spec.overhead {
        sum.add(&Resources::from_list(overhead));
    }
    sum
}

fn container_requests(spec: &PodSpec, status: Option<&PodStatus>, missing: &Resources) -> Resources {
    let mut sum = Resources::default();
    for container in &spec.containers {
        let statuses = status.and_then(|s| s.container_statuses.as_deref());
        sum.add(&one_container(container, statuses, missing));
    }
    let (sidecars, largest_step) = init_requests(spec, status, missing);
    sum.add(&sidecars);
    sum.raise_to(&largest_step);
    sum
}

/// What the restartable init containers keep, and the most that any one init step needs beside them.
fn init_requests(spec: &PodSpec, status: Option<&PodStatus>, missing: &Resources) -> (Resources, Resources) {
    let (mut sidecars, mut largest) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let statuses = status.and_then(|s| s.init_container_statuses.as_deref());
        let own = one_container(container, statuses, missing);
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&own);
            largest.raise_to(&sidecars);
        } else {
            let mut step = own;
            step.add(&sidecars);
            largest.raise_to(&step);
        }
    }
    (sidecars, largest)
}

/// The container's requests; while a resize is under way, the larger of wanted, allocated and actual.
fn one_container(
    container: &Container,
    statuses: Option<&[ContainerStatus]>,
    missing: &Resources,
) -> Resources {
    let empty = WireList::new();
    let wanted = container
        .resources
        .as_ref()
        .and_then(|r| r.requests.as_ref())
        .unwrap_or(&empty);
    let mut own = Resources::from_list(wanted);
    let status = statuses.and_then(|all| all.iter().find(|s| s.name == container.name));
    if let Some(actual) = status.and_then(|s| s.resources.as_ref()) {
        for list in [
            actual.requests.as_ref(),
            status.and_then(|s| s.allocated_resources.as_ref()),
        ] {
            own.raise_to(&Resources::from_list(list.unwrap_or(&empty)));
        }
    }
    if !wanted.contains_key("cpu") {
        own.milli_cpu = own.milli_cpu.max(missing.milli_cpu);
    }
    if !wanted.contains_key("memory") {
        own.memory = own.memory.max(missing.memory);
    }
    own
}

fn override_with_pod_level(sum: &mut Resources, whole: &WireList) {
    for (name, quantity) in whole {
        let supported = name == "cpu" || name == "memory" || name.starts_with("hugepages-");
        if let Some(slot) = sum.slot(name).filter(|_| supported) {
            *slot = amount(name, quantity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn init_containers_count_by_their_largest_step() {
        let pod = pod("p")
            .init_container("2", "1Gi")
            .init_container("2", "3Gi")
            .container("2", "1Gi")
            .container("1", "1Gi")
            .build();
        let sum = pod_requests(&pod);
        assert_eq!((sum.milli_cpu, sum.memory), (3000, 3 << 30));
    }

    #[test]
    fn sidecars_add_to_containers_and_to_later_init_steps() {
        let pod = pod("p")
            .sidecar("1", "1Gi")
            .init_container("3", "0")
            .container("1", "1Gi")
            .build();
        let sum = pod_requests(&pod);
        assert_eq!((sum.milli_cpu, sum.memory), (4000, 2 << 30));
    }

    #[test]
    fn containers_without_requests_count_with_the_defaults_in_scores_only() {
        let pod = pod("p").container_with(&[]).container("0", "0").build();
        assert!(pod_requests(&pod).is_empty());
        assert_eq!(pod_non_zero_requests(&pod), (DEFAULT_MILLI_CPU, DEFAULT_MEMORY));
    }

    #[test]
    fn extended_resources_and_overhead_are_counted() {
        let pod = pod("p")
            .container_with(&[("cpu", "100m"), ("example.com/gpu", "2"), ("storage", "1Gi")])
            .overhead(&[("cpu", "50m"), ("memory", "10Mi")])
            .build();
        let sum = pod_requests(&pod);
        assert_eq!(
            (sum.milli_cpu, sum.memory, sum.get("example.com/gpu")),
            (150, 10 << 20, 2)
        );
        assert_eq!(sum.scalars.len(), 1);
    }

    #[test]
    fn pod_level_requests_replace_the_sum() {
        let pod = pod("p").container("1", "1Gi").pod_level(&[("cpu", "2")]).build();
        let sum = pod_requests(&pod);
        assert_eq!((sum.milli_cpu, sum.memory), (2000, 1 << 30));
    }
}
