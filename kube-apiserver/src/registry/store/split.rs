//! Which part of an object a request may change: the main resource everything but status, `/status` nothing but status.

use apimachinery::value::{Object, Value};

use crate::registry::strategy::Request;

pub fn split_by_status(request: &Request<'_>, new: &mut Value, old: &Value) {
    match request.subresource {
        "" if request.store.empty_status.is_some() => keep(new, old, "status"),
        "status" => keep_all_but_status(new, old),
        _ => {}
    }
}

/// `new` gets `field` as it is in `old`.
pub fn keep(new: &mut Value, old: &Value, field: &'static str) {
    match old.get(field) {
        Some(value) => new.set(field, value.clone()),
        None => drop(new.remove(field)),
    }
}

/// A status update may also change annotations, finalizers and managed fields, never labels or owners.
fn keep_all_but_status(new: &mut Value, old: &Value) {
    let status = new.remove("status");
    let metadata = new.remove("metadata");
    *new = old.clone();
    if let Some(metadata) = metadata {
        new.set("metadata", metadata);
        for field in ["metadata.labels", "metadata.ownerReferences"] {
            match old.at(field) {
                Some(value) => new.set_at(field, value.clone()),
                None => drop(new.remove_at(field)),
            }
        }
    }
    match status {
        Some(status) => new.set("status", status),
        None => drop(new.remove("status")),
    }
}

/// Anything but metadata, status and the type differs.
pub fn spec_changed(new: &Value, old: &Value) -> bool {
    match (new.as_object(), old.as_object()) {
        (Some(new), Some(old)) => !same_spec(new, old),
        _ => true,
    }
}

fn same_spec(new: &Object, old: &Object) -> bool {
    let counts = |(key, _): &(&str, &Value)| !matches!(*key, "metadata" | "status" | "kind" | "apiVersion");
    let all_in = |a: &Object, b: &Object| {
        a.iter()
            .filter(counts)
            .all(|(key, value)| b.get(key) == Some(value))
    };
    all_in(new, old) && old.iter().filter(counts).all(|(key, _)| new.contains_key(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_spec_fields_count_for_generation() {
        let object = |replicas: i64, phase: &str| {
            let mut v = Value::from([("kind", "Deployment".into())]);
            v.set_at("spec.replicas", replicas);
            v.set_at("status.phase", phase);
            v
        };
        assert!(!spec_changed(&object(1, "a"), &object(1, "b")));
        assert!(spec_changed(&object(1, "a"), &object(2, "a")));
        let mut without = object(1, "a");
        without.remove("spec");
        assert!(spec_changed(&without, &object(1, "a")));
    }
}
