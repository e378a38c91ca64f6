//! The apps group: Deployments, ReplicaSets, StatefulSets, DaemonSets.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::selector::LabelSelector;
use apimachinery::value::Value;

use super::core::pods::validate_template;
use super::strategy::{Request, Strategy};

/// One strategy for all four: they differ in which of these fields they have.
pub struct WorkloadStrategy {
    pub allow_privileged: bool,
    /// StatefulSets may change little of their spec.
    pub stateful: bool,
}

const SPEC: Path<'static> = Path::new("spec");

impl Strategy for WorkloadStrategy {
    fn validates_required_fields(&self) -> bool {
        true
    }

    fn validate_create(&self, _: &Request<'_>, object: &Value) -> ErrorList {
        self.validate(object)
    }

    fn validate_update(&self, request: &Request<'_>, new: &Value, old: &Value) -> ErrorList {
        if request.subresource == "status" {
            return ErrorList::new();
        }
        let mut errors = self.validate(new);
        if new.at("spec.selector") != old.at("spec.selector") {
            let shown = new.at("spec.selector").cloned().unwrap_or_default();
            errors.push(field::invalid(
                &SPEC.child("selector"),
                shown,
                "field is immutable",
            ));
        }
        if self.stateful && munged(new, old) != *old.get("spec").unwrap_or(&Value::Null) {
            errors.push(field::forbidden(&SPEC, "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"));
        }
        errors
    }
}

impl WorkloadStrategy {
    fn validate(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        for name in [
            "replicas",
            "minReadySeconds",
            "revisionHistoryLimit",
            "progressDeadlineSeconds",
        ] {
            if let Some(n) = object.get("spec").and_then(|s| s.int_at(name)).filter(|n| *n < 0) {
                errors.push(field::invalid(
                    &SPEC.child(name),
                    n,
                    "must be greater than or equal to 0",
                ));
            }
        }
        selector(object, &mut errors);
        errors.extend(validate_template(
            object.at("spec.template"),
            &SPEC.child("template"),
            &["Always"],
            self.allow_privileged,
        ));
        strategy(object, &mut errors);
        errors
    }
}

fn selector(object: &Value, errors: &mut ErrorList) {
    let path = SPEC.child("selector");
    let given = object.at("spec.selector");
    let Some(given) = given else {
        errors.push(field::required(&path, ""));
        return;
    };
    let selector = match LabelSelector::from_object(Some(given)) {
        Ok(selector) => selector,
        Err(reason) => {
            errors.push(field::invalid(
                &path,
                given.clone(),
                format!("invalid label selector: {reason}"),
            ));
            return;
        }
    };
    if selector.is_everything() {
        errors.push(field::invalid(
            &path,
            given.clone(),
            "empty selector is invalid for deployment",
        ));
        return;
    }
    let labels = object
        .at("spec.template.metadata.labels")
        .and_then(Value::as_object);
    if !selector.matches(&labels) {
        let path = SPEC.child("template");
        let path = path.child("metadata");
        let shown = labels.cloned().map_or(Value::Null, Value::Object);
        errors.push(field::invalid(
            &path.child("labels"),
            shown,
            "`selector` does not match template `labels`",
        ));
    }
}

/// maxSurge and maxUnavailable may not both be nothing: the rollout could not move.
fn strategy(object: &Value, errors: &mut ErrorList) {
    let Some(strategy) = object.at("spec.strategy") else {
        return;
    };
    let path = SPEC.child("strategy");
    match strategy.str_at("type") {
        "Recreate" if strategy.get("rollingUpdate").is_some() => {
            errors.push(field::forbidden(
                &path.child("rollingUpdate"),
                "may not be specified when strategy `type` is 'Recreate'",
            ));
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let none = |name: &str| match strategy.get("rollingUpdate").and_then(|r| r.get(name)) {
                Some(Value::Int(0)) => true,
                Some(Value::Str(s)) => s.as_str() == "0%",
                _ => false,
            };
            if none("maxUnavailable") && none("maxSurge") {
                let path = path.child("rollingUpdate");
                errors.push(field::invalid(
                    &path.child("maxUnavailable"),
                    0i64,
                    "may not be 0 when `maxSurge` is 0",
                ));
            }
        }
        "" => {}
        other => errors.push(field::not_supported(
            &path.child("type"),
            other,
            &["Recreate", "RollingUpdate"],
        )),
    }
}

fn munged(new: &Value, old: &Value) -> Value {
    let mut spec = new.get("spec").cloned().unwrap_or_default();
    let changeable = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
        "selector",
    ];
    for name in changeable {
        match old.get("spec").and_then(|s| s.get(name)) {
            Some(value) => spec.set(name, value.clone()),
            None => drop(spec.remove(name)),
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json::decode_untyped;

    #[test]
    fn the_selector_must_match_the_template() {
        let object = decode_untyped(br#"{"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"c"}}}}}"#).unwrap();
        let mut errors = ErrorList::new();
        selector(&object, &mut errors);
        assert!(
            errors[0]
                .to_string()
                .ends_with("`selector` does not match template `labels`"),
            "{errors:?}"
        );
    }

    #[test]
    fn a_rollout_must_be_able_to_move() {
        let object = decode_untyped(br#"{"spec":{"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":0,"maxUnavailable":"0%"}}}}"#).unwrap();
        let mut errors = ErrorList::new();
        strategy(&object, &mut errors);
        assert_eq!(
            errors[0].to_string(),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"
        );
    }
}
