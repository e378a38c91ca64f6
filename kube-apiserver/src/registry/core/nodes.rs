//! Nodes: kubelets register with their status, and label themselves through it.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::validation;
use apimachinery::value::Value;

use super::pods::spec::{one_of, push_all};
use crate::registry::store::{keep, split_by_status};
use crate::registry::strategy::{Request, Strategy};

pub struct NodeStrategy;

const SPEC: Path<'static> = Path::new("spec");

impl Strategy for NodeStrategy {
    fn keeps_new_status(&self) -> bool {
        true
    }

    fn split(&self, request: &Request<'_>, new: &mut Value, old: &Value) {
        match request.subresource {
            "status" => keep(new, old, "spec"),
            _ => split_by_status(request, new, old),
        }
    }

    fn validate_create(&self, _: &Request<'_>, node: &Value) -> ErrorList {
        taints(node)
    }

    fn validate_update(&self, _: &Request<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = taints(new);
        for name in ["podCIDR", "providerID"] {
            let (old, new) = (
                old.get("spec").map_or("", |s| s.str_at(name)),
                new.get("spec").map_or("", |s| s.str_at(name)),
            );
            if !old.is_empty() && old != new {
                let text = if name == "podCIDR" {
                    "node updates may not change podCIDR except from \"\" to valid"
                } else {
                    "node updates may not change providerID except from \"\" to valid"
                };
                errors.push(field::forbidden(
                    &SPEC.child(if name == "podCIDR" { "podCIDRs" } else { name }),
                    text,
                ));
            }
        }
        errors
    }
}

fn taints(node: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let list = SPEC.child("taints");
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (i, taint) in node.list_at("spec.taints").iter().enumerate() {
        let at = list.index(i);
        push_all(
            &mut errors,
            &at.child("key"),
            taint.str_at("key"),
            validation::qualified_name(taint.str_at("key")),
        );
        push_all(
            &mut errors,
            &at.child("value"),
            taint.str_at("value"),
            validation::label_value(taint.str_at("value")),
        );
        one_of(
            taint,
            "effect",
            &at,
            &["NoSchedule", "PreferNoSchedule", "NoExecute"],
            true,
            &mut errors,
        );
        let own = (taint.str_at("key"), taint.str_at("effect"));
        if seen.contains(&own) {
            let mut duplicate = field::duplicate(&at, taint.clone());
            duplicate.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(duplicate);
        }
        seen.push(own);
    }
    errors
}
