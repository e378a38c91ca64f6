//! The review APIs of authorization.k8s.io: may someone, may I, what may I.

use std::sync::Arc;

use apimachinery::field::{self, Path};
use apimachinery::status::{self, StatusError};
use apimachinery::value::{Object, Value};
use futures_util::future::BoxFuture;

use super::{Attributes, Authorizers, Decision};
use crate::endpoints::seam::{Creater, RequestContext};
use crate::user::UserInfo;

const GROUP: &str = "authorization.k8s.io";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Subject,
    LocalSubject,
    SelfSubject,
    SelfRules,
}

pub struct Reviews {
    pub kind: Kind,
    pub authorizers: Arc<Authorizers>,
}

impl Creater for Reviews {
    fn create<'a>(
        &'a self,
        ctx: &'a RequestContext,
        namespace: &'a str,
        _: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<Value, StatusError>> {
        Box::pin(async move {
            match self.kind {
                Kind::Subject => self.of_subject(object, "SubjectAccessReview"),
                Kind::LocalSubject => self.local(object, namespace),
                Kind::SelfSubject => self.of_caller(ctx, object),
                Kind::SelfRules => self.rules(ctx, object),
            }
        })
    }
}

impl Reviews {
    fn of_subject(&self, object: Value, kind: &str) -> Result<Value, StatusError> {
        let subject = spec_user(&object);
        let mut errors = spec_errors(&object);
        if subject.name.is_empty() && subject.groups.is_empty() {
            errors.push(field::invalid(
                &Path::new("spec").child("user"),
                "",
                "at least one of user or group must be specified",
            ));
        }
        reject(kind, &errors)?;
        Ok(self.answer(object, &subject))
    }

    fn local(&self, object: Value, namespace: &str) -> Result<Value, StatusError> {
        let asked = object.str_at("spec.resourceAttributes.namespace");
        let spec = Path::new("spec");
        let errors = if object.at("spec.resourceAttributes").is_none() {
            vec![field::invalid(
                &spec.child("resourceAttributes"),
                Value::Null,
                "must use resource attributes",
            )]
        } else if asked != namespace {
            vec![field::invalid(
                &spec.child("resourceAttributes.namespace"),
                asked,
                "must match metadata.namespace",
            )]
        } else {
            Vec::new()
        };
        reject("LocalSubjectAccessReview", &errors)?;
        self.of_subject(object, "LocalSubjectAccessReview")
    }

    fn of_caller(&self, ctx: &RequestContext, object: Value) -> Result<Value, StatusError> {
        reject("SelfSubjectAccessReview", &spec_errors(&object))?;
        Ok(self.answer(object, &ctx.user))
    }

    fn answer(&self, mut object: Value, subject: &UserInfo) -> Value {
        let verdict = self.authorizers.authorize(&spec_attributes(&object, subject));
        let mut answer = Value::Object(Object::new());
        answer.set("allowed", verdict.decision == Decision::Allow);
        if verdict.decision == Decision::Deny {
            answer.set("denied", true);
        }
        if !verdict.reason.is_empty() {
            answer.set("reason", verdict.reason);
        }
        object.set("status", answer);
        object
    }

    fn rules(&self, ctx: &RequestContext, mut object: Value) -> Result<Value, StatusError> {
        let namespace = object.str_at("spec.namespace").to_owned();
        if namespace.is_empty() {
            return Err(status::bad_request("no namespace on request"));
        }
        let found = self.authorizers.rules_for(&ctx.user, &namespace);
        let (mut resources, mut paths) = (Vec::new(), Vec::new());
        for rule in found.rules {
            if !rule.resources.is_empty() {
                resources.push(fields(&[
                    ("verbs", &rule.verbs),
                    ("apiGroups", &rule.api_groups),
                    ("resources", &rule.resources),
                    ("resourceNames", &rule.resource_names),
                ]));
            }
            if !rule.non_resource_urls.is_empty() {
                paths.push(fields(&[
                    ("verbs", &rule.verbs),
                    ("nonResourceURLs", &rule.non_resource_urls),
                ]));
            }
        }
        let mut answer = Value::Object(Object::new());
        answer.set("resourceRules", Value::List(resources));
        answer.set("nonResourceRules", Value::List(paths));
        answer.set("incomplete", found.incomplete);
        if !found.errors.is_empty() {
            answer.set("evaluationError", found.errors.join(", "));
        }
        object.set("status", answer);
        Ok(object)
    }
}

fn fields(lists: &[(&'static str, &Vec<String>)]) -> Value {
    let mut value = Value::Object(Object::new());
    for (name, list) in lists.iter().filter(|(_, list)| !list.is_empty()) {
        value.set(*name, (*list).clone());
    }
    value
}

fn spec_errors(object: &Value) -> field::ErrorList {
    let resource = object.at("spec.resourceAttributes").is_some();
    let path = object.at("spec.nonResourceAttributes").is_some();
    let spec = Path::new("spec");
    match (resource, path) {
        (true, true) => vec![field::invalid(
            &spec.child("nonResourceAttributes"),
            Value::Null,
            "cannot be specified in combination with resourceAttributes",
        )],
        (false, false) => vec![field::invalid(
            &spec.child("resourceAttributes"),
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )],
        _ => Vec::new(),
    }
}

fn reject(kind: &str, errors: &field::ErrorList) -> Result<(), StatusError> {
    if errors.is_empty() {
        Ok(())
    } else {
        Err(status::invalid(GROUP, kind, "", errors))
    }
}

fn spec_user(object: &Value) -> UserInfo {
    let strings = |list: &[Value]| {
        list.iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let extra = object.at("spec.extra").and_then(Value::as_object);
    UserInfo {
        name: object.str_at("spec.user").to_owned(),
        uid: object.str_at("spec.uid").to_owned(),
        groups: strings(object.list_at("spec.groups")),
        extra: extra
            .into_iter()
            .flat_map(|e| e.iter())
            .map(|(k, v)| (k.to_owned(), strings(v.as_list().unwrap_or_default())))
            .collect(),
    }
}

fn spec_attributes<'a>(object: &'a Value, user: &'a UserInfo) -> Attributes<'a> {
    match object.at("spec.resourceAttributes") {
        Some(r) => Attributes {
            subresource: r.str_at("subresource"),
            field_selector: r.str_at("fieldSelector.rawSelector"),
            ..Attributes::of_resource(
                user,
                r.str_at("verb"),
                r.str_at("group"),
                r.str_at("resource"),
                r.str_at("namespace"),
                r.str_at("name"),
            )
        },
        None => Attributes::of_path(
            user,
            object.str_at("spec.nonResourceAttributes.verb"),
            object.str_at("spec.nonResourceAttributes.path"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::rbac::{Binding, Metadata, Rbac, Role, RoleRef, Subject};
    use super::super::rules::PolicyRule;
    use super::*;
    use serde_json::json;

    fn reviews(kind: Kind) -> Reviews {
        let rbac = Rbac::default();
        let rule = PolicyRule {
            verbs: vec!["list".into()],
            api_groups: vec!["".into()],
            resources: vec!["pods".into()],
            ..Default::default()
        };
        rbac.set_role(Role {
            metadata: Metadata {
                name: "r".into(),
                namespace: "ns".into(),
            },
            rules: vec![rule],
        });
        rbac.set_binding(Binding {
            metadata: Metadata {
                name: "b".into(),
                namespace: "ns".into(),
            },
            subjects: vec![Subject {
                kind: "User".into(),
                name: "jane".into(),
                namespace: String::new(),
            }],
            role_ref: RoleRef {
                kind: "Role".into(),
                name: "r".into(),
            },
        });
        Reviews {
            kind,
            authorizers: Arc::new(Authorizers::new(
                &["RBAC".to_owned()],
                Default::default(),
                vec![],
                rbac,
            )),
        }
    }

    fn spec(spec: serde_json::Value) -> Value {
        serde_json::from_value(json!({ "spec": spec })).expect("value")
    }

    fn ctx(user: &str) -> RequestContext {
        RequestContext::new(Arc::new(UserInfo::new(user, &[])), Arc::default(), "".into())
    }

    #[test]
    fn a_subject_access_review_answers_for_the_named_user() {
        let ask = |user: &str, verb: &str| {
            let object = spec(
                json!({"user": user, "resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "ns"}}),
            );
            reviews(Kind::Subject)
                .of_subject(object, "SubjectAccessReview")
                .expect("answered")
                .bool_at("status.allowed")
        };
        assert!(ask("jane", "list"));
        assert!(!ask("jane", "delete"));
        assert!(!ask("joe", "list"));
    }

    #[test]
    fn questions_without_a_subject_or_an_object_are_invalid() {
        let sar = reviews(Kind::Subject);
        assert_eq!(
            sar.of_subject(spec(json!({"user": "jane"})), "SubjectAccessReview")
                .expect_err("refused")
                .code,
            422
        );
        assert_eq!(
            sar.of_subject(
                spec(json!({"resourceAttributes": {"verb": "get"}})),
                "SubjectAccessReview"
            )
            .expect_err("refused")
            .code,
            422
        );
        let elsewhere = spec(
            json!({"user": "jane", "resourceAttributes": {"namespace": "other", "verb": "list", "resource": "pods"}}),
        );
        assert_eq!(
            reviews(Kind::LocalSubject)
                .local(elsewhere, "ns")
                .expect_err("refused")
                .code,
            422
        );
    }

    #[test]
    fn rules_are_listed_for_the_caller() {
        let answer = reviews(Kind::SelfRules)
            .rules(&ctx("jane"), spec(json!({"namespace": "ns"})))
            .expect("answered");
        assert_eq!(
            answer.list_at("status.resourceRules")[0].list_at("resources"),
            [Value::from("pods")]
        );
        assert!(!answer.bool_at("status.incomplete"));
        let self_review =
            spec(json!({"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "ns"}}));
        let answer = reviews(Kind::SelfSubject)
            .of_caller(&ctx("jane"), self_review)
            .expect("answered");
        assert_eq!(
            answer.str_at("status.reason"),
            r#"RBAC: allowed by RoleBinding "b/ns" of Role "r" to User "jane""#
        );
    }
}
