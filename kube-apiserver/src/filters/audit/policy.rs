//! `--audit-policy-file`: the first rule that matches a request decides its level.

use serde::Deserialize;

use crate::authorization::Attributes;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    #[default]
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Policy {
    metadata: serde_json::Value,
    rules: Vec<Rule>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Rule {
    level: Level,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// What is logged of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub level: Level,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

impl Decision {
    pub fn omits(&self, stage: Stage) -> bool {
        self.omit_stages.contains(&stage)
    }

    pub fn strip(&self, mut object: serde_json::Value) -> serde_json::Value {
        if self.omit_managed_fields
            && let Some(metadata) = object.get_mut("metadata").and_then(|m| m.as_object_mut())
        {
            metadata.remove("managedFields");
        }
        object
    }
}

impl Policy {
    /// What upstream checks when it loads the file.
    pub fn check(&self) -> Result<(), String> {
        if self.rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".to_owned());
        }
        let mixed = |r: &Rule| {
            !r.non_resource_urls.is_empty() && (!r.resources.is_empty() || !r.namespaces.is_empty())
        };
        match self.rules.iter().position(mixed) {
            Some(at) => Err(format!(
                "rules[{at}].nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs"
            )),
            None => Ok(()),
        }
    }

    pub fn decide(&self, a: &Attributes<'_>) -> Decision {
        let Some(rule) = self.rules.iter().find(|r| r.matches(a)) else {
            return Decision::default();
        };
        let omit_stages = self
            .omit_stages
            .iter()
            .chain(&rule.omit_stages)
            .copied()
            .collect();
        Decision {
            level: rule.level,
            omit_stages,
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn matches(&self, a: &Attributes<'_>) -> bool {
        let any = |list: &[String], item: &str| list.is_empty() || list.iter().any(|i| i == item);
        if !any(&self.users, &a.user.name) || !any(&self.verbs, a.verb) {
            return false;
        }
        if !self.user_groups.is_empty() && !a.user.groups.iter().any(|g| self.user_groups.contains(g)) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return a.resource_request
                && any(&self.namespaces, a.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|r| r.matches(a)));
        }
        self.non_resource_urls.is_empty()
            || (!a.resource_request && self.non_resource_urls.iter().any(|url| path_matches(url, a.path)))
    }
}

impl GroupResources {
    fn matches(&self, a: &Attributes<'_>) -> bool {
        if self.group != "*" && self.group != a.api_group {
            return false;
        }
        let named = self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == a.name);
        self.resources.is_empty() || (named && self.resources.iter().any(|r| resource_matches(r, a)))
    }
}

fn resource_matches(spec: &str, a: &Attributes<'_>) -> bool {
    if spec == "*" || spec == a.combined_resource() {
        return true;
    }
    match spec.split_once('/') {
        Some(("*", sub)) => !a.subresource.is_empty() && sub == a.subresource,
        Some((resource, "*")) => resource == a.resource,
        _ => false,
    }
}

fn path_matches(spec: &str, path: &str) -> bool {
    spec == path || (spec.ends_with('*') && path.starts_with(spec.trim_end_matches('*')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::UserInfo;
    use serde_json::json;

    fn policy() -> Policy {
        serde_json::from_value(json!({
            "omitStages": ["RequestReceived"],
            "rules": [
                {"level": "None", "nonResourceURLs": ["/healthz*"]},
                {"level": "None", "users": ["system:kube-proxy"], "verbs": ["watch"]},
                {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets"]}]},
                {"level": "Request", "resources": [{"group": "", "resources": ["pods/*"]}], "namespaces": ["a"]},
                {"level": "RequestResponse", "userGroups": ["ops"]},
            ],
        }))
        .expect("a policy")
    }

    fn level(user: &UserInfo, a: Attributes<'_>) -> Level {
        policy().decide(&Attributes { user, ..a }).level
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let jane = UserInfo::new("jane", &["ops"]);
        let joe = UserInfo::new("joe", &[]);
        let resource = |user, verb, resource, namespace| {
            Attributes::of_resource(user, verb, "", resource, namespace, "x")
        };
        assert_eq!(
            level(&jane, Attributes::of_path(&jane, "get", "/healthz/etcd")),
            Level::None
        );
        assert_eq!(
            level(&jane, resource(&jane, "get", "secrets", "a")),
            Level::Metadata
        );
        assert_eq!(
            level(
                &joe,
                Attributes {
                    subresource: "log",
                    ..resource(&joe, "get", "pods", "a")
                }
            ),
            Level::Request
        );
        assert_eq!(level(&joe, resource(&joe, "get", "pods", "b")), Level::None);
        assert_eq!(
            level(&jane, resource(&jane, "get", "pods", "b")),
            Level::RequestResponse
        );
    }

    #[test]
    fn stages_are_omitted_by_policy_and_rule() {
        let joe = UserInfo::new("joe", &[]);
        let decision = policy().decide(&Attributes::of_resource(&joe, "get", "", "secrets", "a", "x"));
        assert!(decision.omits(Stage::RequestReceived) && !decision.omits(Stage::ResponseComplete));
    }

    #[test]
    fn broken_policies_are_refused() {
        assert!(policy().check().is_ok());
        assert!(Policy::default().check().is_err());
        let mixed = json!({"rules": [{"level": "None", "nonResourceURLs": ["/a"], "namespaces": ["b"]}]});
        assert!(
            serde_json::from_value::<Policy>(mixed)
                .expect("parses")
                .check()
                .is_err_and(|e| e.starts_with("rules[0]"))
        );
        assert!(serde_json::from_value::<Policy>(json!({"rules": [{"level": "Loud"}]})).is_err());
    }
}
