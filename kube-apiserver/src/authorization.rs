//! May this user do this? The authorizers of `--authorization-mode`, asked in order.
//!
//! `Authorizers::authorize` puts members of system:masters first, then asks Node, RBAC, ... until one
//! allows or denies; no opinion from all is a refusal. Each is in memory and answers in microseconds.

pub mod attributes;
pub mod escalation;
pub mod node;
pub mod rbac;
pub mod review;
pub mod rules;
pub mod subscribe;

use crate::user::UserInfo;
pub use attributes::Attributes;
use rules::PolicyRule;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    Deny,
    NoOpinion,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub decision: Decision,
    pub reason: String,
}

impl Verdict {
    pub fn no_opinion() -> Self {
        Verdict {
            decision: Decision::NoOpinion,
            reason: String::new(),
        }
    }

    pub fn allowed(&self) -> bool {
        self.decision == Decision::Allow
    }
}

/// Members of this group are never asked for rights.
pub const SYSTEM_MASTERS: &str = "system:masters";

/// A mode of `--authorization-mode`.
pub enum Mode {
    Node(node::NodeAuthorizer),
    Rbac(rbac::Rbac),
    AlwaysAllow,
    AlwaysDeny,
}

#[derive(Debug, thiserror::Error)]
pub enum ModeError {
    #[error(
        "--authorization-mode: unknown authorization mode {0:?}; known modes are AlwaysAllow, AlwaysDeny, Node, RBAC"
    )]
    Unknown(String),
    #[error("--authorization-mode: mode {0} is not built into this server; use Node,RBAC")]
    Unsupported(String),
    #[error("--authorization-mode: mode {0} is given twice")]
    Twice(String),
    #[error("--authorization-mode: at least one authorization mode must be given, e.g. Node,RBAC")]
    None,
}

/// Checks the flag's value; building the authorizers needs the stores and comes later.
pub fn check_modes(modes: &[String]) -> Result<(), ModeError> {
    if modes.is_empty() {
        return Err(ModeError::None);
    }
    for (at, mode) in modes.iter().enumerate() {
        match mode.as_str() {
            "Node" | "RBAC" | "AlwaysAllow" | "AlwaysDeny" => {}
            "ABAC" | "Webhook" => return Err(ModeError::Unsupported(mode.clone())),
            _ => return Err(ModeError::Unknown(mode.clone())),
        }
        if modes[..at].contains(mode) {
            return Err(ModeError::Twice(mode.clone()));
        }
    }
    Ok(())
}

#[derive(Default)]
pub struct Authorizers {
    modes: Vec<Mode>,
}

impl Authorizers {
    /// `modes` is the checked value of `--authorization-mode`.
    pub fn new(
        modes: &[String],
        graph: node::graph::Graph,
        node_rules: Vec<PolicyRule>,
        rbac: rbac::Rbac,
    ) -> Self {
        let modes = modes.iter().map(|mode| match mode.as_str() {
            "Node" => Mode::Node(node::NodeAuthorizer::new(graph.clone(), node_rules.clone())),
            "RBAC" => Mode::Rbac(rbac.clone()),
            "AlwaysAllow" => Mode::AlwaysAllow,
            _ => Mode::AlwaysDeny,
        });
        Authorizers {
            modes: modes.collect(),
        }
    }

    pub fn authorize(&self, a: &Attributes<'_>) -> Verdict {
        if a.user.groups.iter().any(|g| g == SYSTEM_MASTERS) {
            return Verdict {
                decision: Decision::Allow,
                reason: String::new(),
            };
        }
        let mut reasons = Vec::new();
        for mode in &self.modes {
            let verdict = mode.authorize(a);
            if verdict.decision != Decision::NoOpinion {
                return verdict;
            }
            if !verdict.reason.is_empty() {
                reasons.push(verdict.reason);
            }
        }
        Verdict {
            decision: Decision::NoOpinion,
            reason: reasons.join("\n"),
        }
    }

    /// The rules of a user in a namespace, whether the list is incomplete, and why.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> Rules {
        let mut out = Rules::default();
        if user.groups.iter().any(|g| g == SYSTEM_MASTERS) {
            out.rules.extend(everything());
        }
        for mode in &self.modes {
            match mode {
                Mode::Rbac(rbac) => {
                    let (rules, errors) = rbac.rules_for(user, namespace);
                    out.rules.extend(rules);
                    out.incomplete |= !errors.is_empty();
                    out.errors.extend(errors);
                }
                Mode::Node(_) if node::node_identity(user).is_some() => {
                    out.incomplete = true;
                    out.errors
                        .push("node authorizer does not support user rule resolution".to_owned());
                }
                Mode::AlwaysAllow => out.rules.extend(everything()),
                _ => {}
            }
        }
        out
    }
}

#[derive(Debug, Default, PartialEq)]
pub struct Rules {
    pub rules: Vec<PolicyRule>,
    pub incomplete: bool,
    pub errors: Vec<String>,
}

impl Mode {
    fn authorize(&self, a: &Attributes<'_>) -> Verdict {
        match self {
            Mode::Node(node) => node.authorize(a),
            Mode::Rbac(rbac) => rbac.authorize(a),
            Mode::AlwaysAllow => Verdict {
                decision: Decision::Allow,
                reason: String::new(),
            },
            Mode::AlwaysDeny => Verdict {
                decision: Decision::NoOpinion,
                reason: "Everything is forbidden.".to_owned(),
            },
        }
    }
}

fn everything() -> [PolicyRule; 2] {
    let all = || vec!["*".to_owned()];
    [
        PolicyRule {
            verbs: all(),
            api_groups: all(),
            resources: all(),
            ..Default::default()
        },
        PolicyRule {
            verbs: all(),
            non_resource_urls: all(),
            ..Default::default()
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modes(list: &[&str]) -> Vec<String> {
        list.iter().map(|m| (*m).to_owned()).collect()
    }

    fn union(list: &[&str]) -> Authorizers {
        Authorizers::new(&modes(list), Default::default(), vec![], Default::default())
    }

    #[test]
    fn unknown_and_repeated_modes_are_refused_by_name() {
        assert!(check_modes(&modes(&["Node", "RBAC"])).is_ok());
        assert!(check_modes(&modes(&["Rbac"])).is_err_and(|e| e.to_string().contains("\"Rbac\"")));
        assert!(check_modes(&modes(&["RBAC", "RBAC"])).is_err());
        assert!(check_modes(&[]).is_err());
    }

    #[test]
    fn masters_pass_where_everyone_else_is_refused() {
        let root = UserInfo {
            groups: vec![SYSTEM_MASTERS.into()],
            ..Default::default()
        };
        let jane = UserInfo {
            name: "jane".into(),
            ..Default::default()
        };
        let deny = union(&["Node", "RBAC"]);
        assert!(
            deny.authorize(&Attributes::of_resource(&root, "delete", "", "nodes", "", "n"))
                .allowed()
        );
        assert!(
            !deny
                .authorize(&Attributes::of_resource(&jane, "get", "", "nodes", "", "n"))
                .allowed()
        );
        assert!(
            union(&["RBAC", "AlwaysAllow"])
                .authorize(&Attributes::of_resource(&jane, "get", "", "nodes", "", "n"))
                .allowed()
        );
    }

    #[test]
    fn forbidden_texts_are_those_clients_match_on() {
        let jane = UserInfo {
            name: "jane".into(),
            ..Default::default()
        };
        let a = Attributes::of_resource(&jane, "list", "", "pods", "default", "");
        assert_eq!(
            a.forbidden_message(),
            r#"User "jane" cannot list resource "pods" in API group "" in the namespace "default""#
        );
        let a = Attributes {
            subresource: "log",
            ..Attributes::of_resource(&jane, "get", "apps", "pods", "", "x")
        };
        assert_eq!(
            a.forbidden_message(),
            r#"User "jane" cannot get resource "pods/log" in API group "apps" at the cluster scope"#
        );
        assert_eq!(
            Attributes::of_path(&jane, "get", "/a<b").forbidden_message(),
            r#"User "jane" cannot get path "/a&lt;b""#
        );
    }
}
