//! Roles and bindings.

use apimachinery::value::Value;

use super::text::Row;
use super::{Printer, age, date, name, string, wide};

pub const PRINTERS: &[Printer] = &[
    Printer {
        group: GROUP,
        resource: "roles",
        columns: &[name(), date("Created At")],
        cells: role,
    },
    Printer {
        group: GROUP,
        resource: "clusterroles",
        columns: &[name(), date("Created At")],
        cells: role,
    },
    Printer {
        group: GROUP,
        resource: "rolebindings",
        columns: BINDING,
        cells: binding,
    },
    Printer {
        group: GROUP,
        resource: "clusterrolebindings",
        columns: BINDING,
        cells: binding,
    },
];

const GROUP: &str = "rbac.authorization.k8s.io";
const BINDING: &[super::Column] = &[
    name(),
    string("Role"),
    age(),
    wide("Users"),
    wide("Groups"),
    wide("ServiceAccounts"),
];

fn role(row: &Row<'_>) -> Vec<Value> {
    vec![row.name(), row.text("metadata.creationTimestamp")]
}

fn binding(row: &Row<'_>) -> Vec<Value> {
    let subjects = |kind: &str| {
        let named = |s: &Value| match (kind, s.str_at("namespace")) {
            ("ServiceAccount", namespace) if !namespace.is_empty() => {
                format!("{namespace}/{}", s.str_at("name"))
            }
            _ => s.str_at("name").to_owned(),
        };
        let names: Vec<String> = row
            .object
            .list_at("subjects")
            .iter()
            .filter(|s| s.str_at("kind") == kind)
            .map(named)
            .collect();
        Value::from(names.join(", "))
    };
    let role = format!(
        "{}/{}",
        row.object.str_at("roleRef.kind"),
        row.object.str_at("roleRef.name")
    );
    vec![
        row.name(),
        role.into(),
        row.age(),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}
