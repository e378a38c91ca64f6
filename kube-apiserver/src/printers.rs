//! Server-side printing: for each kind its columns and how a row's cells come from an object.
//!
//! `kubectl get` shows these tables as they are. One table of printers, one file for each family of kinds.

use apimachinery::meta::Meta;
use apimachinery::value::Value;

use crate::endpoints::seam::{Column, Printers};

mod authorization;
mod cluster;
mod event;
mod network;
mod node;
mod pod;
mod storage;
mod text;
mod workload;

use text::Row;

/// How one resource is shown.
struct Printer {
    group: &'static str,
    resource: &'static str,
    columns: &'static [Column],
    cells: fn(&Row<'_>) -> Vec<Value>,
}

/// Every resource with columns of its own.
const PRINTERS: &[&[Printer]] = &[
    pod::PRINTERS,
    workload::PRINTERS,
    network::PRINTERS,
    node::PRINTERS,
    storage::PRINTERS,
    cluster::PRINTERS,
    authorization::PRINTERS,
    event::PRINTERS,
];

const GENERIC: &[Column] = &[name(), date("Created At")];

#[derive(Clone, Copy, Debug, Default)]
pub struct Tables;

impl Printers for Tables {
    fn columns(&self, group: &str, resource: &str) -> &'static [Column] {
        find(group, resource).map_or(GENERIC, |printer| printer.columns)
    }

    fn cells(&self, group: &str, resource: &str, object: &Value, now: i64) -> Vec<Value> {
        match find(group, resource) {
            Some(printer) => (printer.cells)(&Row { object, now }),
            None => vec![object.name().into(), object.creation_timestamp().into()],
        }
    }
}

fn find(group: &str, resource: &str) -> Option<&'static Printer> {
    PRINTERS
        .iter()
        .copied()
        .flatten()
        .find(|p| p.group == group && p.resource == resource)
}

const fn column(name: &'static str, type_: &'static str) -> Column {
    Column {
        name,
        type_,
        format: "",
        description: name,
        priority: 0,
    }
}

const fn string(name: &'static str) -> Column {
    column(name, "string")
}

const fn integer(name: &'static str) -> Column {
    column(name, "integer")
}

const fn boolean(name: &'static str) -> Column {
    column(name, "boolean")
}

/// Shown by `-o wide` only.
const fn wide(name: &'static str) -> Column {
    Column {
        priority: 1,
        ..column(name, "string")
    }
}

const fn name() -> Column {
    Column {
        format: "name",
        ..column("Name", "string")
    }
}

const fn age() -> Column {
    column("Age", "string")
}

const fn date(name: &'static str) -> Column {
    Column {
        format: "date-time",
        ..column(name, "string")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    pub fn cells(group: &str, resource: &str, object: serde_json::Value) -> Vec<String> {
        let object: Value = serde_json::from_value(object).expect("value");
        let cells = Tables.cells(group, resource, &object, 1_700_000_000);
        cells
            .iter()
            .map(|c| {
                c.as_str().map_or_else(
                    || String::from_utf8(apimachinery::json::to_vec(c)).expect("utf-8"),
                    str::to_owned,
                )
            })
            .collect()
    }

    #[test]
    fn every_printer_fills_its_columns_even_for_an_empty_object() {
        for printer in PRINTERS.iter().copied().flatten() {
            let cells = (printer.cells)(&Row {
                object: &Value::Null,
                now: 0,
            });
            assert_eq!(cells.len(), printer.columns.len(), "{}", printer.resource);
        }
    }

    #[test]
    fn unknown_kinds_show_name_and_creation() {
        let object = json!({"metadata": {"name": "x", "creationTimestamp": "2023-11-14T22:13:20Z"}});
        assert_eq!(
            cells("example.org", "things", object),
            ["x", "2023-11-14T22:13:20Z"]
        );
    }

    #[test]
    fn nodes_tell_status_roles_and_addresses() {
        let node = json!({
            "metadata": {"name": "n1", "creationTimestamp": "2023-11-14T22:03:20Z", "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "edge"}},
            "spec": {"unschedulable": true},
            "status": {
                "conditions": [{"type": "Ready", "status": "False"}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1", "kernelVersion": "6.1", "architecture": "amd64", "osImage": "Debian", "containerRuntimeVersion": "containerd://1"},
            },
        });
        let want = [
            "n1",
            "NotReady,SchedulingDisabled",
            "control-plane,edge",
            "10m",
            "v1",
            "10.0.0.1",
            "<none>",
            "Debian",
            "6.1 (amd64)",
            "containerd://1",
        ];
        assert_eq!(cells("", "nodes", node), want);
    }

    #[test]
    fn services_show_addresses_and_ports() {
        let service =
            |spec: serde_json::Value| cells("", "services", json!({"metadata": {"name": "s"}, "spec": spec}));
        let node_port = service(
            json!({"type": "NodePort", "clusterIPs": ["10.96.0.9"], "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}], "selector": {"b": "2", "a": "1"}}),
        );
        assert_eq!(
            node_port,
            [
                "s",
                "NodePort",
                "10.96.0.9",
                "<none>",
                "80:30080/TCP",
                "<unknown>",
                "a=1,b=2"
            ]
        );
        assert_eq!(service(json!({"type": "LoadBalancer"}))[3], "<pending>");
        assert_eq!(
            service(json!({"type": "ExternalName", "externalName": "x.org"}))[3],
            "x.org"
        );
    }

    #[test]
    fn deployments_and_jobs_count() {
        let deployment = json!({
            "metadata": {"name": "d"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "d"}}, "template": {"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}}},
            "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2},
        });
        assert_eq!(
            cells("apps", "deployments", deployment),
            ["d", "2/3", "3", "2", "<unknown>", "a,b", "x,y", "app=d"]
        );
        let job = json!({
            "metadata": {"name": "j"}, "spec": {"completions": 1},
            "status": {"succeeded": 1, "startTime": "2023-11-14T22:00:00Z", "completionTime": "2023-11-14T22:00:07Z", "conditions": [{"type": "Complete", "status": "True"}]},
        });
        assert_eq!(cells("batch", "jobs", job)[1..4], ["Complete", "1/1", "7s"]);
    }

    #[test]
    fn endpoints_are_cut_after_three() {
        let addresses: Vec<_> = (1..=5).map(|i| json!({"ip": format!("10.0.0.{i}")})).collect();
        let endpoints = json!({"metadata": {"name": "e"}, "subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]});
        assert_eq!(
            cells("", "endpoints", endpoints)[1],
            "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more..."
        );
        assert_eq!(cells("", "endpoints", json!({}))[1], "<none>");
    }

    #[test]
    fn requests_tell_how_far_they_are() {
        let csr = |conditions: serde_json::Value, certificate: &str| {
            cells("certificates.k8s.io", "certificatesigningrequests", json!({"spec": {"username": "u"}, "status": {"conditions": conditions, "certificate": certificate}}))[5].clone()
        };
        assert_eq!(csr(json!([]), ""), "Pending");
        assert_eq!(csr(json!([{"type": "Approved"}]), ""), "Approved");
        assert_eq!(csr(json!([{"type": "Approved"}]), "Y2VydA=="), "Approved,Issued");
        assert_eq!(csr(json!([{"type": "Denied"}]), ""), "Denied");
    }
}
