//! The cluster in columns: one row per node, one vector per thing that a plugin looks at.
//!
//! Events change rows in place; a decision reads vectors and never walks node or pod objects. [`labels`] holds one
//! column per label key in use, [`counts`] how many pods match a selector on each row and which rows own an inter-pod
//! term, [`taints`] the distinct taint sets, [`images`] which rows have an image, [`order`] the zone-interleaved
//! order in which rows are tried.
//!
//! Invariant: `requested`, `ports`, `counts` and `pods` of a row always describe the same set of pods.

pub mod counts;
pub mod images;
pub mod labels;
pub mod order;
pub mod taints;

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use crate::pod::{HostPort, PodInfo};
use crate::resources::{Resources, allowed_pods};
use crate::selector::Labels;
use counts::{PodCounts, TermOwners};
use images::Images;
use labels::LabelColumns;
use order::ZoneOrder;
use taints::TaintSets;

/// Where a node's values are in every column.
pub type Row = u32;

/// One resource over all rows.
#[derive(Default)]
pub struct Column {
    pub allocatable: Vec<i64>,
    pub requested: Vec<i64>,
}

impl Column {
    fn grow(&mut self, rows: usize) {
        self.allocatable.resize(rows, 0);
        self.requested.resize(rows, 0);
    }

    pub fn free(&self, row: Row) -> i64 {
        self.allocatable[row as usize].saturating_sub(self.requested[row as usize])
    }
}

#[derive(Default)]
pub struct Nodes {
    rows: HashMap<Arc<str>, Row>,
    unused: Vec<Row>,
    names: Vec<Arc<str>>,
    /// `None` for a row that only holds pods of a node not seen (or no longer there).
    objects: Vec<Option<Arc<Node>>>,
    pub milli_cpu: Column,
    pub memory: Column,
    pub ephemeral_storage: Column,
    /// Allowed and present pods.
    pub pods: Column,
    scalars: HashMap<Arc<str>, Column>,
    /// Requests as the spreading scores count them.
    pub non_zero_cpu: Vec<i64>,
    pub non_zero_memory: Vec<i64>,
    pub unschedulable: Vec<bool>,
    pub taints: TaintSets,
    pub labels: LabelColumns,
    pub images: Images,
    pub counts: PodCounts,
    pub owners: TermOwners,
    ports: Vec<Vec<HostPort>>,
    row_pods: Vec<Vec<Arc<PodInfo>>>,
    order: ZoneOrder,
    /// Rises with every change, so that a refusal can be reused while nothing has changed.
    generation: u64,
}

impl Nodes {
    /// Rows with a node, in the order in which they are tried.
    pub fn order(&mut self) -> &[Row] {
        self.order.rows()
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Columns have this many entries.
    pub fn capacity(&self) -> usize {
        self.names.len()
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Something outside this table that plugins read has changed.
    pub fn touch(&mut self) {
        self.generation += 1;
    }

    pub fn name(&self, row: Row) -> &Arc<str> {
        &self.names[row as usize]
    }

    /// The row of a node that exists.
    pub fn row(&self, name: &str) -> Option<Row> {
        self.rows
            .get(name)
            .copied()
            .filter(|row| self.objects[*row as usize].is_some())
    }

    pub fn object(&self, row: Row) -> Option<&Arc<Node>> {
        self.objects[row as usize].as_ref()
    }

    pub fn node_labels(&self, row: Row) -> &Labels {
        static NONE: Labels = Labels::new();
        self.object(row)
            .and_then(|n| n.metadata.labels.as_ref())
            .unwrap_or(&NONE)
    }

    pub fn ports(&self, row: Row) -> &[HostPort] {
        &self.ports[row as usize]
    }

    pub fn pods_on(&self, row: Row) -> &[Arc<PodInfo>] {
        &self.row_pods[row as usize]
    }

    pub fn all_pods(&self) -> impl Iterator<Item = (Row, &Arc<PodInfo>)> {
        (0..)
            .zip(&self.row_pods)
            .flat_map(|(row, pods)| pods.iter().map(move |pod| (row, pod)))
    }

    /// How many pods match the query, by row.
    pub fn count(&mut self, query: counts::Query) -> &[u32] {
        let pods = (0..)
            .zip(&self.row_pods)
            .flat_map(|(row, pods)| pods.iter().map(move |pod| (row, pod)));
        self.counts.of(query, pods)
    }

    pub fn scalar(&self, name: &str) -> Option<&Column> {
        self.scalars.get(name)
    }

    /// The column of a resource by its name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        match name {
            "cpu" => Some(&self.milli_cpu),
            "memory" => Some(&self.memory),
            "ephemeral-storage" => Some(&self.ephemeral_storage),
            _ => self.scalar(name),
        }
    }

    /// Adds the node or takes over its new version.
    pub fn put_node(&mut self, node: Arc<Node>) -> Row {
        let row = self.row_for(node.metadata.name.as_deref().unwrap_or_default());
        self.generation += 1;
        let at = row as usize;
        let spec = node.spec.as_ref();
        self.unschedulable[at] = spec.and_then(|s| s.unschedulable).unwrap_or(false);
        self.taints
            .set(row, spec.and_then(|s| s.taints.as_deref()).unwrap_or_default());
        let status = node.status.as_ref();
        let empty = Default::default();
        let allocatable = status.and_then(|s| s.allocatable.as_ref()).unwrap_or(&empty);
        self.set_allocatable(row, &Resources::from_list(allocatable));
        self.pods.allocatable[at] = allowed_pods(allocatable);
        self.images
            .set(row, status.and_then(|s| s.images.as_deref()).unwrap_or_default());
        self.labels.set(row, node.metadata.labels.as_ref());
        self.order.put(row, node.metadata.labels.as_ref());
        self.objects[at] = Some(node);
        row
    }

    /// Forgets the node; its row stays while pods are still on it.
    pub fn remove_node(&mut self, name: &str) {
        let Some(row) = self.row(name) else { return };
        self.generation += 1;
        self.objects[row as usize] = None;
        self.set_allocatable(row, &Resources::default());
        self.pods.allocatable[row as usize] = 0;
        self.unschedulable[row as usize] = false;
        self.taints.set(row, &[]);
        self.images.set(row, &[]);
        self.labels.set(row, None);
        self.order.remove(row);
        self.release_if_unused(row);
    }

    pub fn add_pod(&mut self, node: &str, pod: Arc<PodInfo>) -> Row {
        let row = self.row_for(node);
        self.generation += 1;
        self.account(row, &pod, 1);
        self.counts.add_pod(row, &pod);
        self.owners.add_pod(row, &pod);
        self.row_pods[row as usize].push(pod);
        row
    }

    /// Takes the pod with this UID off the node, if it is there.
    pub fn remove_pod(&mut self, node: &str, uid: &str) -> Option<Arc<PodInfo>> {
        let row = self.rows.get(node).copied()?;
        let at = self.row_pods[row as usize].iter().position(|p| &*p.uid == uid)?;
        let pod = self.row_pods[row as usize].swap_remove(at);
        self.generation += 1;
        self.account(row, &pod, -1);
        self.counts.remove_pod(row, &pod);
        self.owners.remove_pod(row, &pod);
        self.release_if_unused(row);
        Some(pod)
    }

    /// Adds (1) or takes back (-1) what the pod occupies on the row. Preemption uses it to try a node without some
    /// pods; whoever does so puts back exactly what was taken.
    pub fn account(&mut self, row: Row, pod: &PodInfo, sign: i64) {
        let at = row as usize;
        let move_by = |slot: &mut i64, by: i64| *slot = slot.saturating_add(sign * by);
        move_by(&mut self.milli_cpu.requested[at], pod.requests.milli_cpu);
        move_by(&mut self.memory.requested[at], pod.requests.memory);
        move_by(
            &mut self.ephemeral_storage.requested[at],
            pod.requests.ephemeral_storage,
        );
        move_by(&mut self.pods.requested[at], 1);
        move_by(&mut self.non_zero_cpu[at], pod.non_zero_cpu);
        move_by(&mut self.non_zero_memory[at], pod.non_zero_memory);
        for (name, value) in &pod.requests.scalars {
            let column = self.scalar_column(name);
            move_by(&mut column.requested[at], *value);
        }
        for port in &pod.host_ports {
            if sign > 0 {
                self.ports[at].push(port.clone());
            } else if let Some(found) = self.ports[at].iter().position(|p| p == port) {
                self.ports[at].swap_remove(found);
            }
        }
    }

    fn set_allocatable(&mut self, row: Row, amounts: &Resources) {
        let at = row as usize;
        self.milli_cpu.allocatable[at] = amounts.milli_cpu;
        self.memory.allocatable[at] = amounts.memory;
        self.ephemeral_storage.allocatable[at] = amounts.ephemeral_storage;
        for column in self.scalars.values_mut() {
            column.allocatable[at] = 0;
        }
        for (name, value) in &amounts.scalars {
            self.scalar_column(name).allocatable[at] = *value;
        }
    }

    fn scalar_column(&mut self, name: &Arc<str>) -> &mut Column {
        let rows = self.capacity();
        self.scalars.entry(Arc::clone(name)).or_insert_with(|| {
            let mut column = Column::default();
            column.grow(rows);
            column
        })
    }

    fn row_for(&mut self, name: &str) -> Row {
        if let Some(row) = self.rows.get(name) {
            return *row;
        }
        let name: Arc<str> = name.into();
        let row = self.unused.pop().unwrap_or_else(|| self.new_row());
        self.names[row as usize] = Arc::clone(&name);
        self.rows.insert(name, row);
        row
    }

    fn new_row(&mut self) -> Row {
        let rows = self.names.len() + 1;
        self.names.push(Arc::from(""));
        self.objects.push(None);
        self.ports.push(Vec::new());
        self.row_pods.push(Vec::new());
        self.non_zero_cpu.push(0);
        self.non_zero_memory.push(0);
        self.unschedulable.push(false);
        let fixed = [
            &mut self.milli_cpu,
            &mut self.memory,
            &mut self.ephemeral_storage,
            &mut self.pods,
        ];
        fixed
            .into_iter()
            .chain(self.scalars.values_mut())
            .for_each(|column| column.grow(rows));
        self.taints.grow(rows);
        self.labels.grow(rows);
        self.counts.grow(rows);
        // A row is an index below the number of nodes, which no cluster takes past u32.
        Row::try_from(rows - 1).unwrap_or(Row::MAX)
    }

    fn release_if_unused(&mut self, row: Row) {
        let at = row as usize;
        if self.objects[at].is_none() && self.row_pods[at].is_empty() {
            self.rows.remove(&self.names[at]);
            self.names[at] = Arc::from("");
            self.unused.push(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{info, node, pod};

    fn put(nodes: &mut Nodes, node: Node) -> Row {
        nodes.put_node(Arc::new(node))
    }

    #[test]
    fn a_row_follows_the_pods_that_come_and_go() {
        let mut nodes = Nodes::default();
        let row = put(
            &mut nodes,
            node("n")
                .capacity("4", "8Gi", 110)
                .scalar("x.io/gpu", "2")
                .build(),
        );
        let pod = pod("p")
            .container_with(&[("cpu", "1"), ("x.io/gpu", "1")])
            .host_port(80)
            .build();
        nodes.add_pod("n", info(pod));
        assert_eq!(nodes.milli_cpu.free(row), 3000);
        assert_eq!(nodes.scalar("x.io/gpu").map(|c| c.free(row)), Some(1));
        assert_eq!((nodes.pods.free(row), nodes.ports(row).len()), (109, 1));
        nodes.remove_pod("n", "p-uid");
        assert_eq!(nodes.milli_cpu.free(row), 4000);
        assert_eq!(
            (
                nodes.pods.free(row),
                nodes.ports(row).len(),
                nodes.pods_on(row).len()
            ),
            (110, 0, 0)
        );
    }

    #[test]
    fn a_row_is_reused_only_after_its_last_pod_left() {
        let mut nodes = Nodes::default();
        let first = put(&mut nodes, node("a").build());
        nodes.add_pod("a", info(pod("p").container("1", "1Gi").build()));
        nodes.remove_node("a");
        assert_eq!((nodes.row("a"), nodes.len()), (None, 0));
        assert_ne!(put(&mut nodes, node("b").build()), first);
        nodes.remove_pod("a", "p-uid");
        assert_eq!(put(&mut nodes, node("c").build()), first);
        assert_eq!(nodes.milli_cpu.requested[first as usize], 0);
    }

    #[test]
    fn a_pod_seen_before_its_node_is_counted_when_the_node_arrives() {
        let mut nodes = Nodes::default();
        nodes.add_pod("n", info(pod("p").container("1", "1Gi").build()));
        assert!(nodes.is_empty());
        let row = put(&mut nodes, node("n").capacity("4", "8Gi", 10).build());
        assert_eq!(nodes.milli_cpu.free(row), 3000);
    }
}
