//! What may change in a pod once it exists.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::value::Value;

use super::spec;

const SPEC: Path<'static> = Path::new("spec");

const IMMUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub fn validate(new: &Value, old: &Value) -> ErrorList {
    let null = &Value::Null;
    let (new, old) = (new.get("spec").unwrap_or(null), old.get("spec").unwrap_or(null));
    let mut errors = ErrorList::new();
    if new == old {
        return errors;
    }
    for list in ["containers", "initContainers"] {
        if new.list_at(list).len() != old.list_at(list).len() {
            errors.push(field::forbidden(
                &SPEC.child(list),
                "pod updates may not add or remove containers",
            ));
        }
    }
    if !errors.is_empty() {
        return errors;
    }
    validate_images(new, &mut errors);
    validate_deadline(new, old, &mut errors);
    validate_tolerations(new, old, &mut errors);
    validate_gates(new, old, &mut errors);
    if munged(new, old) != *old {
        errors.push(field::forbidden(&SPEC, IMMUTABLE));
    }
    errors
}

fn validate_images(new: &Value, errors: &mut ErrorList) {
    for list in ["containers", "initContainers"] {
        let path = SPEC.child(list);
        for (i, container) in new.list_at(list).iter().enumerate() {
            let image = container.str_at("image");
            if image.is_empty() {
                errors.push(field::required(&path.index(i).child("image"), ""));
            } else if image.trim() != image {
                errors.push(field::invalid(
                    &path.index(i).child("image"),
                    image,
                    "must not have leading or trailing whitespace",
                ));
            }
        }
    }
}

fn validate_deadline(new: &Value, old: &Value, errors: &mut ErrorList) {
    let path = SPEC.child("activeDeadlineSeconds");
    match (
        new.int_at("activeDeadlineSeconds"),
        old.int_at("activeDeadlineSeconds"),
    ) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            errors.push(field::invalid(
                &path,
                new,
                "must be between 0 and 2147483647, inclusive",
            ));
        }
        (Some(new), Some(old)) if new > old => errors.push(field::invalid(
            &path,
            new,
            "must be less than or equal to previous value",
        )),
        (None, Some(_)) => errors.push(field::invalid(
            &path,
            Value::Null,
            "must not update from a positive integer to nil value",
        )),
        _ => {}
    }
}

fn validate_tolerations(new: &Value, old: &Value, errors: &mut ErrorList) {
    let kept = |old: &Value| {
        new.list_at("tolerations")
            .iter()
            .any(|new| same_toleration(new, old))
    };
    if !old.list_at("tolerations").iter().all(kept) {
        errors.push(field::forbidden(
            &SPEC.child("tolerations"),
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
}

fn same_toleration(a: &Value, b: &Value) -> bool {
    ["key", "operator", "value", "effect"]
        .iter()
        .all(|field| a.str_at(field) == b.str_at(field))
}

fn validate_gates(new: &Value, old: &Value, errors: &mut ErrorList) {
    let path = SPEC.child("schedulingGates");
    for (i, gate) in new.list_at("schedulingGates").iter().enumerate() {
        if !old
            .list_at("schedulingGates")
            .iter()
            .any(|old| old.str_at("name") == gate.str_at("name"))
        {
            let name = gate.str_at("name");
            errors.push(field::forbidden(
                &path.index(i),
                format!("only deletion is allowed, but found new scheduling gate '{name}'"),
            ));
        }
    }
}

/// `new` with everything that may change set back.
fn munged(new: &Value, old: &Value) -> Value {
    let mut munged = new.clone();
    for list in ["containers", "initContainers"] {
        for (container, old) in munged.list_at_mut(list).iter_mut().zip(old.list_at(list)) {
            put_back(container, old, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        put_back(&mut munged, old, field);
    }
    if old.int_at("terminationGracePeriodSeconds").is_some_and(|s| s < 0)
        && new.int_at("terminationGracePeriodSeconds") == Some(1)
    {
        put_back(&mut munged, old, "terminationGracePeriodSeconds");
    }
    if !old.list_at("schedulingGates").is_empty() {
        // Before it is scheduled, a gated pod may be narrowed down further.
        for field in ["nodeSelector", "affinity"] {
            put_back(&mut munged, old, field);
        }
    }
    munged
}

fn put_back(new: &mut Value, old: &Value, field: &'static str) {
    match old.get(field) {
        Some(value) => new.set(field, value.clone()),
        None => drop(new.remove(field)),
    }
}

/// Ephemeral containers are added, never changed or taken away.
pub fn validate_ephemeral(new: &Value, old: &Value) -> ErrorList {
    let path = SPEC.child("ephemeralContainers");
    let list = new.list_at("spec.ephemeralContainers");
    let mut errors = ErrorList::new();
    for existing in old.list_at("spec.ephemeralContainers") {
        match list.iter().find(|c| c.str_at("name") == existing.str_at("name")) {
            None => errors.push(field::forbidden(
                &path,
                format!(
                    "existing ephemeral containers {} may not be removed\n",
                    field::quote(existing.str_at("name"))
                ),
            )),
            Some(now) if now != existing => {
                errors.push(field::forbidden(
                    &path,
                    format!(
                        "existing ephemeral containers {} may not be changed\n",
                        field::quote(existing.str_at("name"))
                    ),
                ));
            }
            Some(_) => {}
        }
    }
    errors.extend(spec::validate_ephemeral_containers(
        new.get("spec").unwrap_or(&Value::Null),
        &path,
    ));
    errors
}

/// Only CPU and memory of containers.
pub fn validate_resize(new: &Value, old: &Value) -> ErrorList {
    let mut munged = new.clone();
    for (container, old) in munged
        .list_at_mut("spec.containers")
        .iter_mut()
        .zip(old.list_at("spec.containers"))
    {
        put_back(container, old, "resources");
        put_back(container, old, "resizePolicy");
    }
    if munged.get("spec") == old.get("spec") {
        return ErrorList::new();
    }
    vec![field::forbidden(
        &SPEC,
        "only cpu and memory resources are mutable",
    )]
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json::decode_untyped;

    fn pod(image: &str, node: &str) -> Value {
        decode_untyped(
            format!(r#"{{"spec":{{"containers":[{{"name":"c","image":"{image}"}}],"nodeName":"{node}"}}}}"#)
                .as_bytes(),
        )
        .unwrap()
    }

    #[test]
    fn images_change_and_nothing_else() {
        assert!(validate(&pod("b", "n"), &pod("a", "n")).is_empty());
        let errors = validate(&pod("a", "m"), &pod("a", "n"));
        assert!(errors[0].to_string().starts_with(
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`"
        ));
        assert!(
            validate(&pod(" ", "n"), &pod("a", "n"))[0]
                .to_string()
                .contains("whitespace")
        );
    }

    #[test]
    fn tolerations_are_only_added() {
        let mut old = pod("a", "n");
        old.set_at("spec.tolerations", vec![Value::from([("key", "x".into())])]);
        let mut new = old.clone();
        new.list_mut_at("spec.tolerations")
            .push(Value::from([("key", "y".into())]));
        assert!(validate(&new, &old).is_empty());
        assert!(!validate(&old, &new).is_empty());
    }
}
