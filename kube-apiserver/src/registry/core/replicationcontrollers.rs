//! ReplicationControllers: selectors are plain maps.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::selector::LabelSelector;
use apimachinery::value::Value;

use super::pods::validate_template;
use crate::registry::strategy::{Request, Strategy};

pub struct ReplicationControllerStrategy {
    pub allow_privileged: bool,
}

const SPEC: Path<'static> = Path::new("spec");

impl Strategy for ReplicationControllerStrategy {
    fn validates_required_fields(&self) -> bool {
        true
    }

    fn validate_create(&self, _: &Request<'_>, object: &Value) -> ErrorList {
        self.validate(object)
    }

    fn validate_update(&self, request: &Request<'_>, new: &Value, _: &Value) -> ErrorList {
        if request.subresource == "status" {
            ErrorList::new()
        } else {
            self.validate(new)
        }
    }
}

impl ReplicationControllerStrategy {
    fn validate(&self, object: &Value) -> ErrorList {
        let template = object.at("spec.template");
        let mut errors = validate_template(
            template,
            &SPEC.child("template"),
            &["Always"],
            self.allow_privileged,
        );
        let selector = object
            .at("spec.selector")
            .and_then(Value::as_object)
            .filter(|s| !s.is_empty());
        let Some(selector) = selector else {
            errors.push(field::required(&SPEC.child("selector"), ""));
            return errors;
        };
        let labels = template
            .and_then(|t| t.at("metadata.labels"))
            .and_then(Value::as_object);
        if !LabelSelector::from_match_labels(selector).matches(&labels) {
            let path = SPEC.child("template");
            let path = path.child("metadata");
            let shown = labels.cloned().map_or(Value::Null, Value::Object);
            errors.push(field::invalid(
                &path.child("labels"),
                shown,
                "`selector` does not match template `labels`",
            ));
        }
        if let Some(replicas) = object.int_at("spec.replicas").filter(|n| *n < 0) {
            errors.push(field::invalid(
                &SPEC.child("replicas"),
                replicas,
                "must be greater than or equal to 0",
            ));
        }
        errors
    }
}
