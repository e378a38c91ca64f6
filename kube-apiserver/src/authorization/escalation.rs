//! Writing RBAC must not raise the writer: nobody grants what they do not have, unless they may `escalate` or `bind`.
//!
//! Runs as the last validating step of admission, for every create and update of a role or binding.

use std::sync::Arc;

use apimachinery::status::{self, GroupResource, StatusError};
use apimachinery::value::Value;

use super::rbac::{Rbac, RoleRef};
use super::rules::{PolicyRule, describe_missing, quoted_list, uncovered};
use super::{Attributes, Authorizers, SYSTEM_MASTERS, everything};
use crate::registry::admission;
use crate::user::UserInfo;

const GROUP: &str = "rbac.authorization.k8s.io";

pub struct EscalationCheck {
    pub authorizers: Arc<Authorizers>,
    pub rbac: Rbac,
}

impl EscalationCheck {
    pub fn validate(&self, a: &admission::Attributes) -> Result<(), StatusError> {
        if a.resource_group != GROUP || !a.subresource.is_empty() || a.user.in_group(SYSTEM_MASTERS) {
            return Ok(());
        }
        let Some(object) = &a.object else { return Ok(()) };
        let old = a.old.as_ref().map(|o| o.value());
        if old
            .as_ref()
            .is_some_and(|old| only_garbage_collection_fields_differ(old, object))
        {
            return Ok(());
        }
        match a.resource.as_str() {
            "roles" | "clusterroles" => self.role(a, object, old.as_ref()),
            "rolebindings" | "clusterrolebindings" => self.binding(a, object),
            _ => Ok(()),
        }
    }

    fn role(
        &self,
        a: &admission::Attributes,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), StatusError> {
        let escalate =
            Attributes::of_resource(&a.user, "escalate", GROUP, &a.resource, &a.namespace, &a.name);
        if self.authorizers.authorize(&escalate).allowed() {
            return Ok(());
        }
        let refuse = |why: String| status::forbidden(GroupResource::new(GROUP, &a.resource), &a.name, why);
        self.confirm(&a.user, &a.namespace, &rules_of(object))
            .map_err(refuse)?;
        let aggregates = |o: &Value| !o.list_at("aggregationRule.clusterRoleSelectors").is_empty();
        if (aggregates(object) || old.is_some_and(aggregates))
            && self.confirm(&a.user, &a.namespace, &everything()).is_err()
        {
            return Err(refuse(
                "must have cluster-admin privileges to use the aggregationRule".to_owned(),
            ));
        }
        Ok(())
    }

    fn binding(&self, a: &admission::Attributes, object: &Value) -> Result<(), StatusError> {
        let reference = RoleRef {
            kind: object.str_at("roleRef.kind").to_owned(),
            name: object.str_at("roleRef.name").to_owned(),
        };
        let resource = if reference.kind == "Role" {
            "roles"
        } else {
            "clusterroles"
        };
        let bind = Attributes::of_resource(
            &a.user,
            "bind",
            object.str_at("roleRef.apiGroup"),
            resource,
            &a.namespace,
            &reference.name,
        );
        if self.authorizers.authorize(&bind).allowed() {
            return Ok(());
        }
        let Ok(rules) = self.rbac.role_rules(&reference, &a.namespace) else {
            return Err(status::not_found(
                GroupResource::new(GROUP, resource),
                &reference.name,
            ));
        };
        self.confirm(&a.user, &a.namespace, &rules)
            .map_err(|why| status::forbidden(GroupResource::new(GROUP, &a.resource), &a.name, why))
    }

    fn confirm(&self, user: &UserInfo, namespace: &str, wanted: &[PolicyRule]) -> Result<(), String> {
        let (owned, errors) = self.rbac.rules_for(user, namespace);
        let missing = uncovered(&owned, wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let mut why = format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            quoted_list(&user.groups),
            describe_missing(missing)
        );
        if !errors.is_empty() {
            why.push_str(&format!("; resolution errors: [{}]", errors.join(", ")));
        }
        Err(why)
    }
}

/// A role whose rules cannot be read grants nothing; validation has refused it before.
pub fn rules_of(role: &Value) -> Vec<PolicyRule> {
    let strings = |v: &Value, key: &str| {
        v.list_at(key)
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    role.list_at("rules")
        .iter()
        .map(|rule| PolicyRule {
            verbs: strings(rule, "verbs"),
            api_groups: strings(rule, "apiGroups"),
            resources: strings(rule, "resources"),
            resource_names: strings(rule, "resourceNames"),
            non_resource_urls: strings(rule, "nonResourceURLs"),
        })
        .collect()
}

/// The garbage collector must be able to release owners without holding the role's rights.
fn only_garbage_collection_fields_differ(old: &Value, new: &Value) -> bool {
    let strip = |v: &Value| {
        let mut v = v.clone();
        for field in [
            "ownerReferences",
            "finalizers",
            "managedFields",
            "resourceVersion",
            "generation",
        ] {
            v.remove_at(&format!("metadata.{field}"));
        }
        v
    };
    strip(old) == strip(new)
}

#[cfg(test)]
mod tests {
    use super::super::rbac::{Binding, Metadata, Role, Subject};
    use super::*;
    use crate::admission::fake::cached;
    use crate::registry::admission::Operation;
    use serde_json::json;

    fn rule(verb: &str, group: &str, resource: &str) -> PolicyRule {
        PolicyRule {
            verbs: vec![verb.into()],
            api_groups: vec![group.into()],
            resources: vec![resource.into()],
            ..Default::default()
        }
    }

    fn check(own: Vec<PolicyRule>) -> EscalationCheck {
        let rbac = Rbac::default();
        rbac.set_role(Role {
            metadata: Metadata {
                name: "own".into(),
                ..Default::default()
            },
            rules: own,
        });
        rbac.set_role(Role {
            metadata: Metadata {
                name: "target".into(),
                ..Default::default()
            },
            rules: vec![rule("get", "", "secrets")],
        });
        rbac.set_binding(Binding {
            metadata: Metadata {
                name: "b".into(),
                ..Default::default()
            },
            subjects: vec![Subject {
                kind: "User".into(),
                name: "jane".into(),
                ..Default::default()
            }],
            role_ref: RoleRef {
                kind: "ClusterRole".into(),
                name: "own".into(),
            },
        });
        EscalationCheck {
            authorizers: Arc::new(Authorizers::new(
                &["RBAC".to_owned()],
                Default::default(),
                vec![],
                rbac.clone(),
            )),
            rbac,
        }
    }

    fn write(
        kind: &str,
        resource: &str,
        body: serde_json::Value,
        old: Option<serde_json::Value>,
    ) -> admission::Attributes {
        let with_kind = |mut o: serde_json::Value| {
            o["apiVersion"] = "rbac.authorization.k8s.io/v1".into();
            o["kind"] = kind.into();
            o["metadata"] = json!({"name": "x"});
            o
        };
        admission::Attributes {
            operation: Operation::Create,
            group: GROUP.into(),
            version: "v1".into(),
            kind: kind.into(),
            resource_group: GROUP.into(),
            resource: resource.into(),
            subresource: String::new(),
            namespace: String::new(),
            name: "x".into(),
            user: Arc::new(UserInfo::new("jane", &["system:authenticated"])),
            dry_run: false,
            object: Some(serde_json::from_value(with_kind(body)).expect("value")),
            old: old.map(|o| cached(&with_kind(o))),
            options: None,
            warnings: vec![],
            audit_annotations: vec![],
        }
    }

    fn secrets_role() -> serde_json::Value {
        json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]})
    }

    #[test]
    fn nobody_grants_what_they_do_not_hold() {
        let error = check(vec![rule("get", "", "pods")])
            .validate(&write("ClusterRole", "clusterroles", secrets_role(), None))
            .expect_err("refused");
        assert_eq!(
            error.message,
            "clusterroles.rbac.authorization.k8s.io \"x\" is forbidden: user \"jane\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}"
        );
        assert!(
            check(vec![rule("*", "", "secrets")])
                .validate(&write("ClusterRole", "clusterroles", secrets_role(), None))
                .is_ok()
        );
    }

    #[test]
    fn escalate_and_bind_are_rights_of_their_own() {
        let binding = || {
            write(
                "ClusterRoleBinding",
                "clusterrolebindings",
                json!({"roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "target"}}),
                None,
            )
        };
        assert!(
            check(vec![rule("escalate", GROUP, "clusterroles")])
                .validate(&write("ClusterRole", "clusterroles", secrets_role(), None))
                .is_ok()
        );
        assert!(check(vec![rule("get", "", "pods")]).validate(&binding()).is_err());
        assert!(
            check(vec![rule("bind", GROUP, "clusterroles")])
                .validate(&binding())
                .is_ok()
        );
        assert!(
            check(vec![rule("get", "", "secrets")])
                .validate(&binding())
                .is_ok()
        );
    }

    #[test]
    fn aggregation_needs_everything() {
        let body = json!({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
        let error = check(vec![rule("*", "*", "pods")])
            .validate(&write("ClusterRole", "clusterroles", body, None))
            .expect_err("refused");
        assert!(
            error
                .message
                .ends_with("must have cluster-admin privileges to use the aggregationRule"),
            "{}",
            error.message
        );
    }

    #[test]
    fn releasing_an_owner_is_not_a_grant() {
        let unchanged = write(
            "ClusterRole",
            "clusterroles",
            secrets_role(),
            Some(secrets_role()),
        );
        assert!(check(vec![]).validate(&unchanged).is_ok());
    }
}
