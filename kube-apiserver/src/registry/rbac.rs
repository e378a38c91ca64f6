//! Roles and bindings.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::value::Value;

use super::strategy::{NameRule, Request, Strategy};

pub struct RoleStrategy {
    pub namespaced: bool,
}

pub struct BindingStrategy;

impl Strategy for RoleStrategy {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn validate_create(&self, _: &Request<'_>, role: &Value) -> ErrorList {
        rules(role, self.namespaced)
    }

    fn validate_update(&self, _: &Request<'_>, new: &Value, _: &Value) -> ErrorList {
        rules(new, self.namespaced)
    }
}

impl Strategy for BindingStrategy {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn validate_create(&self, _: &Request<'_>, binding: &Value) -> ErrorList {
        self.validate(binding)
    }

    fn validate_update(&self, _: &Request<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(new);
        if new.get("roleRef") != old.get("roleRef") {
            errors.push(field::invalid(
                &Path::new("roleRef"),
                new.get("roleRef").cloned().unwrap_or_default(),
                "cannot change roleRef",
            ));
        }
        errors
    }
}

fn rules(role: &Value, namespaced: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let list = Path::new("rules");
    for (i, rule) in role.list_at("rules").iter().enumerate() {
        let at = list.index(i);
        if rule.list_at("verbs").is_empty() {
            errors.push(field::required(
                &at.child("verbs"),
                "verbs must contain at least one value",
            ));
        }
        let urls = rule.list_at("nonResourceURLs");
        if !urls.is_empty() {
            if namespaced {
                errors.push(field::invalid(
                    &at.child("nonResourceURLs"),
                    Value::List(urls.to_vec()),
                    "namespaced rules cannot apply to non-resource URLs",
                ));
            }
            if !rule.list_at("apiGroups").is_empty() || !rule.list_at("resources").is_empty() {
                errors.push(field::invalid(
                    &at.child("nonResourceURLs"),
                    Value::List(urls.to_vec()),
                    "rules cannot apply to both regular resources and non-resource URLs",
                ));
            }
            continue;
        }
        if rule.list_at("apiGroups").is_empty() {
            errors.push(field::required(
                &at.child("apiGroups"),
                "resource rules must supply at least one api group",
            ));
        }
        if rule.list_at("resources").is_empty() {
            errors.push(field::required(
                &at.child("resources"),
                "resource rules must supply at least one resource",
            ));
        }
    }
    errors
}

impl BindingStrategy {
    fn validate(&self, binding: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let role = Path::new("roleRef");
        let kind = binding.str_at("roleRef.kind");
        if !matches!(kind, "Role" | "ClusterRole") {
            errors.push(field::not_supported(
                &role.child("kind"),
                kind,
                &["ClusterRole", "Role"],
            ));
        }
        let list = Path::new("subjects");
        for (i, subject) in binding.list_at("subjects").iter().enumerate() {
            let at = list.index(i);
            match subject.str_at("kind") {
                "ServiceAccount" if subject.str_at("namespace").is_empty() => {
                    errors.push(field::required(&at.child("namespace"), ""))
                }
                "ServiceAccount" | "User" | "Group" => {}
                other => errors.push(field::not_supported(
                    &at.child("kind"),
                    other,
                    &["Group", "ServiceAccount", "User"],
                )),
            }
        }
        errors
    }
}
