//! Brings stored roles and bindings up to the defaults. Additive: what an administrator added stays, what is
//! missing comes back, and objects marked autoupdate=false are left alone.

use std::sync::Arc;

use apimachinery::status::StatusError;
use apimachinery::value::Value;
use futures_util::stream::{self, StreamExt};

use super::policy::Default;
use super::write;
use crate::authorization::escalation::rules_of;
use crate::authorization::rules::uncovered;
use crate::registry::{Registry, Store};

const GROUP: &str = "rbac.authorization.k8s.io";
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
/// Writes under way at once: enough for etcd to commit them in groups.
const PARALLEL: usize = 32;

/// Roles first, then bindings; the first error after all were tried.
pub async fn reconcile(registry: &Registry, defaults: Vec<Default>) -> Result<(), StatusError> {
    let (bindings, roles): (Vec<_>, Vec<_>) = defaults
        .into_iter()
        .partition(|d| d.resource.ends_with("bindings"));
    all(registry, roles).await?;
    all(registry, bindings).await
}

async fn all(registry: &Registry, defaults: Vec<Default>) -> Result<(), StatusError> {
    let work = defaults
        .into_iter()
        .filter_map(|d| Some((registry.store(GROUP, d.resource)?.clone(), d)));
    let results: Vec<_> = stream::iter(work)
        .map(|(store, default)| one(store, default))
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    results.into_iter().collect()
}

async fn one(store: Arc<Store>, default: Default) -> Result<(), StatusError> {
    let Some(existing) = store.get(&default.namespace, &default.name) else {
        return write::create(&store, &default.namespace, default.object).await;
    };
    let existing = existing.value();
    match reconciled(&existing, &default.object) {
        Reconciled::Same => Ok(()),
        Reconciled::Protected => {
            tracing::warn!(resource = default.resource, name = %default.name, "Skipped a protected default with missing parts");
            Ok(())
        }
        Reconciled::Changed(_) => {
            let wanted = default.object;
            let change = move |stored: &Value| match reconciled(stored, &wanted) {
                Reconciled::Changed(object) => Ok(*object),
                _ => Ok(stored.clone()),
            };
            write::update(&store, &default.namespace, &default.name, &change).await
        }
        Reconciled::Recreate => {
            write::delete(&store, &default.namespace, &default.name).await?;
            write::create(&store, &default.namespace, default.object).await
        }
    }
}

#[derive(Debug, PartialEq)]
enum Reconciled {
    Same,
    Protected,
    Changed(Box<Value>),
    /// A binding to another role: a role reference cannot change.
    Recreate,
}

fn reconciled(existing: &Value, wanted: &Value) -> Reconciled {
    if existing.get("roleRef") != wanted.get("roleRef") {
        return if is_protected(existing) {
            Reconciled::Protected
        } else {
            Reconciled::Recreate
        };
    }
    let mut object = existing.clone();
    merge_map(&mut object, existing, wanted, "metadata.labels");
    merge_map(&mut object, existing, wanted, "metadata.annotations");
    add_missing_rules(&mut object, wanted);
    if wanted.at("aggregationRule").is_some() && object.at("aggregationRule").is_none() {
        object.set(
            "aggregationRule",
            wanted.at("aggregationRule").cloned().unwrap_or_default(),
        );
    }
    for subject in wanted.list_at("subjects") {
        if !object
            .list_at("subjects")
            .iter()
            .any(|s| same_subject(s, subject))
        {
            object.list_mut_at("subjects").push(subject.clone());
        }
    }
    match object == *existing {
        true => Reconciled::Same,
        false if is_protected(existing) => Reconciled::Protected,
        false => Reconciled::Changed(Box::new(object)),
    }
}

fn is_protected(object: &Value) -> bool {
    object
        .at("metadata.annotations")
        .and_then(|a| a.get(AUTO_UPDATE))
        .and_then(Value::as_str)
        == Some("false")
}

/// The administrator's value wins.
fn merge_map(object: &mut Value, existing: &Value, wanted: &Value, path: &str) {
    let Some(wanted) = wanted.at(path).and_then(Value::as_object) else {
        return;
    };
    for (key, value) in wanted.iter() {
        if existing.at(path).and_then(|m| m.get(key)).is_none() {
            object.object_mut_at(path).insert(key.to_owned(), value.clone());
        }
    }
}

fn add_missing_rules(object: &mut Value, wanted: &Value) {
    if wanted.get("rules").is_none() {
        return;
    }
    for rule in uncovered(&rules_of(object), &rules_of(wanted)) {
        let mut value = Value::Null;
        for (key, list) in [
            ("verbs", rule.verbs),
            ("apiGroups", rule.api_groups),
            ("resources", rule.resources),
            ("resourceNames", rule.resource_names),
            ("nonResourceURLs", rule.non_resource_urls),
        ] {
            if !list.is_empty() {
                value.set(key, list);
            }
        }
        object.list_mut_at("rules").push(value);
    }
}

fn same_subject(a: &Value, b: &Value) -> bool {
    ["kind", "name", "namespace"]
        .iter()
        .all(|key| a.str_at(key) == b.str_at(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn role(rules: serde_json::Value, autoupdate: &str) -> Value {
        serde_json::from_value(
            json!({"metadata": {"name": "r", "annotations": {AUTO_UPDATE: autoupdate}}, "rules": rules}),
        )
        .expect("value")
    }

    fn get_pods() -> serde_json::Value {
        json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]})
    }

    #[test]
    fn missing_rules_come_back_and_extra_ones_stay() {
        let extra = json!({"verbs": ["*"], "apiGroups": ["x"], "resources": ["y"]});
        let Reconciled::Changed(object) =
            reconciled(&role(json!([extra]), "true"), &role(json!([get_pods()]), "true"))
        else {
            panic!("changed")
        };
        assert_eq!(object.list_at("rules").len(), 2);
        assert_eq!(
            reconciled(
                &role(json!([extra, get_pods()]), "true"),
                &role(json!([get_pods()]), "true")
            ),
            Reconciled::Same
        );
    }

    #[test]
    fn a_protected_role_is_left_alone() {
        assert_eq!(
            reconciled(&role(json!([]), "false"), &role(json!([get_pods()]), "true")),
            Reconciled::Protected
        );
    }

    #[test]
    fn bindings_regain_subjects_and_are_recreated_for_another_role() {
        let binding = |role: &str, users: &[&str]| -> Value {
            let subjects: Vec<_> = users.iter().map(|u| json!({"kind": "User", "name": u})).collect();
            serde_json::from_value(
                json!({"roleRef": {"kind": "ClusterRole", "name": role}, "subjects": subjects}),
            )
            .expect("value")
        };
        let Reconciled::Changed(object) = reconciled(&binding("a", &["x"]), &binding("a", &["y"])) else {
            panic!("changed")
        };
        assert_eq!(object.list_at("subjects").len(), 2);
        assert_eq!(
            reconciled(&binding("b", &["y"]), &binding("a", &["y"])),
            Reconciled::Recreate
        );
    }
}
