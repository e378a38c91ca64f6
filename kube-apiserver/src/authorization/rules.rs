//! RBAC policy rules: what one rule allows, and whether a set of rules covers another.

use super::attributes::Attributes;
use std::collections::BTreeSet;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRule {
    pub verbs: Vec<String>,
    pub api_groups: Vec<String>,
    pub resources: Vec<String>,
    pub resource_names: Vec<String>,
    pub non_resource_urls: Vec<String>,
}

impl PolicyRule {
    pub fn allows(&self, a: &Attributes<'_>) -> bool {
        if !has_or_all(&self.verbs, a.verb) {
            return false;
        }
        if a.resource_request {
            self.allows_resource(a)
        } else {
            self.non_resource_urls.iter().any(|url| url_covers(url, a.path))
        }
    }

    fn allows_resource(&self, a: &Attributes<'_>) -> bool {
        has_or_all(&self.api_groups, a.api_group)
            && self
                .resources
                .iter()
                .any(|r| resource_matches(r, a.resource, a.subresource))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == a.name))
    }

    /// `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}`, as escalation errors list it.
    pub fn compact_string(&self) -> String {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let parts: Vec<String> = parts
            .iter()
            .filter(|(_, v)| !v.is_empty())
            .map(|(k, v)| format!("{k}:{}", quoted_list(v)))
            .collect();
        format!("{{{}}}", parts.join(", "))
    }

    fn covers(&self, sub: &PolicyRule) -> bool {
        (has(&self.verbs, "*") || has_all(&self.verbs, &sub.verbs))
            && (has(&self.api_groups, "*") || has_all(&self.api_groups, &sub.api_groups))
            && covers_resources(&self.resources, &sub.resources)
            && sub.non_resource_urls.iter().all(|url| {
                self.non_resource_urls
                    .iter()
                    .any(|owner| owner_url_covers(owner, url))
            })
            && (self.resource_names.is_empty()
                || (!sub.resource_names.is_empty() && has_all(&self.resource_names, &sub.resource_names)))
    }

    /// One rule for each single (group, resource, verb, name) or (url, verb) that this rule grants.
    fn breakdown(&self) -> Vec<PolicyRule> {
        let mut out = Vec::new();
        for verb in &self.verbs {
            for group in &self.api_groups {
                for resource in &self.resources {
                    let one = PolicyRule {
                        verbs: vec![verb.clone()],
                        api_groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        ..Default::default()
                    };
                    if self.resource_names.is_empty() {
                        out.push(one);
                    } else {
                        out.extend(self.resource_names.iter().map(|n| PolicyRule {
                            resource_names: vec![n.clone()],
                            ..one.clone()
                        }));
                    }
                }
            }
            for url in &self.non_resource_urls {
                out.push(PolicyRule {
                    verbs: vec![verb.clone()],
                    non_resource_urls: vec![url.clone()],
                    ..Default::default()
                });
            }
        }
        out
    }
}

/// The parts of `wanted` that `owned` does not cover; empty means no escalation.
pub fn uncovered(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted
        .iter()
        .flat_map(PolicyRule::breakdown)
        .filter(|sub| !owned.iter().any(|owner| owner.covers(sub)))
        .collect()
}

/// Joins single-resource rules that differ in their verbs only; keeps the order of first sight.
pub fn compact(rules: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut out: Vec<PolicyRule> = Vec::new();
    for rule in rules {
        let simple =
            rule.non_resource_urls.is_empty() && rule.resources.len() == 1 && rule.resource_names.len() <= 1;
        let twin = |o: &&mut PolicyRule| {
            o.api_groups == rule.api_groups
                && o.resources == rule.resources
                && o.resource_names == rule.resource_names
                && o.non_resource_urls.is_empty()
        };
        match out.iter_mut().find(|o| simple && twin(o)) {
            Some(existing) => existing.verbs.extend(rule.verbs),
            None => out.push(rule),
        }
    }
    out
}

/// The sorted lines of "attempting to grant RBAC permissions not currently held".
pub fn describe_missing(missing: Vec<PolicyRule>) -> String {
    let lines: BTreeSet<String> = compact(missing).iter().map(PolicyRule::compact_string).collect();
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

/// Go's `%q` of a string slice.
pub fn quoted_list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|i| format!("{i:?}")).collect();
    format!("[{}]", items.join(" "))
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    if subresource.is_empty() {
        return rule == resource;
    }
    rule.split_once('/')
        .is_some_and(|(r, sub)| sub == subresource && (r == resource || r == "*"))
}

fn covers_resources(owned: &[String], wanted: &[String]) -> bool {
    has(owned, "*")
        || wanted.iter().all(|path| {
            has(owned, path)
                || path
                    .split_once('/')
                    .is_some_and(|(_, sub)| owned.iter().any(|o| o.strip_prefix("*/") == Some(sub)))
        })
}

/// For a request: `*` alone allows everything.
fn url_covers(rule: &str, path: &str) -> bool {
    rule == "*" || owner_url_covers(rule, path)
}

fn owner_url_covers(owner: &str, path: &str) -> bool {
    owner == path || (owner.ends_with('*') && path.starts_with(owner.trim_end_matches('*')))
}

fn has_or_all(set: &[String], item: &str) -> bool {
    set.iter().any(|s| s == "*" || s == item)
}

fn has(set: &[String], item: &str) -> bool {
    set.iter().any(|s| s == item)
}

fn has_all(set: &[String], items: &[String]) -> bool {
    items.iter().all(|i| has(set, i))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::UserInfo;

    pub fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> PolicyRule {
        let list = |s: &str| {
            if s.is_empty() {
                vec![]
            } else {
                s.split(',').map(|x| x.trim_matches('-').to_owned()).collect()
            }
        };
        PolicyRule {
            verbs: list(verbs),
            api_groups: list(groups),
            resources: list(resources),
            resource_names: list(names),
            ..Default::default()
        }
    }

    fn allowed(rule: &PolicyRule, verb: &str, group: &str, resource: &str, sub: &str, name: &str) -> bool {
        let user = UserInfo::default();
        rule.allows(&Attributes {
            subresource: sub,
            ..Attributes::of_resource(&user, verb, group, resource, "ns", name)
        })
    }

    #[test]
    fn wildcards_match_what_upstream_matches() {
        let pods = rule("get,list", "-", "pods", "");
        assert!(allowed(&pods, "get", "", "pods", "", "x"));
        assert!(
            !allowed(&pods, "get", "", "pods", "log", "x"),
            "a rule on a resource does not grant its subresources"
        );
        assert!(!allowed(&pods, "delete", "", "pods", "", "x"));
        assert!(!allowed(&pods, "get", "apps", "pods", "", "x"));
        assert!(allowed(&rule("*", "*", "*", ""), "exec", "a", "b", "c", "d"));
        assert!(allowed(
            &rule("get", "apps", "*/scale", ""),
            "get",
            "apps",
            "deployments",
            "scale",
            ""
        ));
        assert!(!allowed(
            &rule("get", "apps", "*/scale", ""),
            "get",
            "apps",
            "deployments",
            "",
            ""
        ));
        assert!(allowed(
            &rule("get", "-", "pods/log", ""),
            "get",
            "",
            "pods",
            "log",
            ""
        ));
    }

    #[test]
    fn resource_names_restrict_and_do_not_match_the_empty_name() {
        let one = rule("get", "-", "secrets", "a,b");
        assert!(allowed(&one, "get", "", "secrets", "", "b"));
        assert!(!allowed(&one, "get", "", "secrets", "", "c"));
        assert!(!allowed(&one, "get", "", "secrets", "", ""));
    }

    #[test]
    fn non_resource_urls_match_by_prefix_star() {
        let user = UserInfo::default();
        let urls = |u: &str| PolicyRule {
            verbs: vec!["get".into()],
            non_resource_urls: vec![u.into()],
            ..Default::default()
        };
        for (pattern, path, want) in [
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/etcd", false),
            ("/healthz/*", "/healthz/etcd", true),
            ("/healthz/*", "/healthz", false),
            ("*", "/anything", true),
        ] {
            assert_eq!(
                urls(pattern).allows(&Attributes::of_path(&user, "get", path)),
                want,
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn covering_is_by_single_rights() {
        let owner = [
            rule("get,list", "apps", "deployments", ""),
            rule("*", "-", "*/status,pods", ""),
        ];
        assert!(uncovered(&owner, &[rule("get", "apps", "deployments", "x")]).is_empty());
        assert!(uncovered(&owner, &[rule("patch", "-", "pods,nodes/status", "")]).is_empty());
        let missing = uncovered(&owner, &[rule("get,delete,patch", "apps", "deployments", "")]);
        assert_eq!(
            describe_missing(missing),
            r#"{APIGroups:["apps"], Resources:["deployments"], Verbs:["delete" "patch"]}"#
        );
        assert!(
            !uncovered(&[rule("get", "-", "pods", "a")], &[rule("get", "-", "pods", "")]).is_empty(),
            "one name does not cover all"
        );
    }
}
