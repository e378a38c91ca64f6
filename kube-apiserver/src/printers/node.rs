//! Nodes and what hangs on them: leases, CSI nodes, runtime classes.

use std::collections::BTreeSet;

use apimachinery::meta::Meta;
use apimachinery::value::Value;

use super::text::{NONE, Row, UNKNOWN, or};
use super::{Printer, age, integer, name, string, wide};

pub const PRINTERS: &[Printer] = &[
    Printer {
        group: "",
        resource: "nodes",
        columns: &[
            name(),
            string("Status"),
            string("Roles"),
            age(),
            string("Version"),
            wide("Internal-IP"),
            wide("External-IP"),
            wide("OS-Image"),
            wide("Kernel-Version"),
            wide("Container-Runtime"),
        ],
        cells: node,
    },
    Printer {
        group: "coordination.k8s.io",
        resource: "leases",
        columns: &[name(), string("Holder"), age()],
        cells: lease,
    },
    Printer {
        group: "storage.k8s.io",
        resource: "csinodes",
        columns: &[name(), integer("Drivers"), age()],
        cells: csi_node,
    },
    Printer {
        group: "node.k8s.io",
        resource: "runtimeclasses",
        columns: &[name(), string("Handler"), age()],
        cells: runtime_class,
    },
];

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

fn node(row: &Row<'_>) -> Vec<Value> {
    let object = row.object;
    let address = |kind: &str| {
        object
            .list_at("status.addresses")
            .iter()
            .find(|a| a.str_at("type") == kind)
            .map_or(NONE, |a| a.str_at("address"))
    };
    let mut kernel = or(object.str_at("status.nodeInfo.kernelVersion"), UNKNOWN).to_owned();
    let architecture = object.str_at("status.nodeInfo.architecture");
    if !architecture.is_empty() {
        kernel.push_str(&format!(" ({architecture})"));
    }
    vec![
        row.name(),
        status(object).into(),
        roles(object).into(),
        row.age(),
        row.text("status.nodeInfo.kubeletVersion"),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        row.text_or("status.nodeInfo.osImage", UNKNOWN),
        kernel.into(),
        row.text_or("status.nodeInfo.containerRuntimeVersion", UNKNOWN),
    ]
}

fn status(node: &Value) -> String {
    let ready = node
        .list_at("status.conditions")
        .iter()
        .find(|c| c.str_at("type") == "Ready");
    let mut status = match ready.map(|c| c.str_at("status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node.bool_at("spec.unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(node: &Value) -> String {
    let mut roles = BTreeSet::new();
    for (key, value) in node.labels().into_iter().flat_map(|l| l.iter()) {
        if let Some(role) = key.strip_prefix(ROLE_PREFIX) {
            roles.insert(role);
        } else if key == ROLE_LABEL {
            roles.extend(value.as_str());
        }
    }
    roles.remove("");
    or(&roles.into_iter().collect::<Vec<_>>().join(","), NONE).to_owned()
}

fn lease(row: &Row<'_>) -> Vec<Value> {
    vec![row.name(), row.text("spec.holderIdentity"), row.age()]
}

fn csi_node(row: &Row<'_>) -> Vec<Value> {
    vec![
        row.name(),
        (row.object.list_at("spec.drivers").len() as i64).into(),
        row.age(),
    ]
}

fn runtime_class(row: &Row<'_>) -> Vec<Value> {
    vec![row.name(), row.text("handler"), row.age()]
}
