//! The RBAC authorizer: an index from subjects to the rules that bind them.
//!
//! The index is kept by store events (`apply`, `remove`); a decision reads two or three hash buckets
//! (the user's, each of its groups') at cluster scope and again in the request's namespace.

use super::attributes::Attributes;
use super::rules::PolicyRule;
use super::{Decision, Verdict};
use crate::user::UserInfo;
use hashbrown::HashMap;
use parking_lot::RwLock;
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoleRef {
    pub kind: String,
    pub name: String,
}

#[derive(Clone, Debug, Default)]
pub struct Metadata {
    pub name: String,
    pub namespace: String,
}

/// A Role or ClusterRole as stored.
#[derive(Clone, Debug, Default)]
pub struct Role {
    pub metadata: Metadata,
    pub rules: Vec<PolicyRule>,
}

/// A RoleBinding or ClusterRoleBinding as stored.
#[derive(Clone, Debug, Default)]
pub struct Binding {
    pub metadata: Metadata,
    pub subjects: Vec<Subject>,
    pub role_ref: RoleRef,
}

#[derive(Default)]
struct BindingSet {
    by_name: HashMap<String, Arc<Binding>>,
    by_user: HashMap<String, Vec<Arc<Binding>>>,
    by_group: HashMap<String, Vec<Arc<Binding>>>,
}

enum SubjectKey {
    User(String),
    Group(String),
}

#[derive(Default)]
struct Index {
    /// Namespace -> name -> rules; "" holds the cluster roles.
    roles: HashMap<String, HashMap<String, Arc<[PolicyRule]>>>,
    /// "" holds the cluster role bindings.
    bindings: HashMap<String, BindingSet>,
}

#[derive(Clone, Default)]
pub struct Rbac(Arc<RwLock<Index>>);

impl Rbac {
    pub fn set_role(&self, role: Role) {
        let Metadata { namespace, name } = role.metadata;
        self.0
            .write()
            .roles
            .entry(namespace)
            .or_default()
            .insert(name, role.rules.into());
    }

    pub fn remove_role(&self, namespace: &str, name: &str) {
        let mut index = self.0.write();
        let Some(roles) = index.roles.get_mut(namespace) else {
            return;
        };
        roles.remove(name);
        if roles.is_empty() {
            index.roles.remove(namespace);
        }
    }

    pub fn set_binding(&self, binding: Binding) {
        let mut index = self.0.write();
        let set = index
            .bindings
            .entry(binding.metadata.namespace.clone())
            .or_default();
        set.remove(&binding.metadata.name);
        set.insert(Arc::new(binding));
    }

    pub fn remove_binding(&self, namespace: &str, name: &str) {
        let mut index = self.0.write();
        let Some(set) = index.bindings.get_mut(namespace) else {
            return;
        };
        set.remove(name);
        if set.by_name.is_empty() {
            index.bindings.remove(namespace);
        }
    }

    pub fn authorize(&self, a: &Attributes<'_>) -> Verdict {
        let mut verdict = Verdict::no_opinion();
        let mut missing = Vec::new();
        self.visit(a.user, a.namespace, &mut |binding, rules| match rules {
            Ok(rules) if rules.iter().any(|r| r.allows(a)) => {
                verdict = Verdict {
                    decision: Decision::Allow,
                    reason: allowed_by(binding, a.user),
                };
                false
            }
            Ok(_) => true,
            Err(role) => {
                missing.push(role);
                true
            }
        });
        if verdict.decision != Decision::Allow && !missing.is_empty() {
            verdict.reason = format!("RBAC: {}", aggregate(missing));
        }
        verdict
    }

    /// Every rule that applies to `user` in `namespace` ("" = cluster scope only), and what could not be resolved.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        self.visit(user, namespace, &mut |_, rules| {
            match rules {
                Ok(rules) => out.extend(rules.iter().cloned()),
                Err(missing) => errors.push(missing),
            }
            true
        });
        (out, errors)
    }

    /// The rules behind a role reference, for the bind check.
    pub fn role_rules(&self, reference: &RoleRef, namespace: &str) -> Result<Arc<[PolicyRule]>, String> {
        self.0.read().resolve(reference, namespace)
    }

    fn visit(
        &self,
        user: &UserInfo,
        namespace: &str,
        visitor: &mut dyn FnMut(&Binding, Result<&[PolicyRule], String>) -> bool,
    ) {
        let index = self.0.read();
        let scopes = ["", namespace];
        for scope in if namespace.is_empty() {
            &scopes[..1]
        } else {
            &scopes[..]
        } {
            let Some(set) = index.bindings.get(*scope) else {
                continue;
            };
            for binding in set.of_user(user) {
                let rules = index.resolve(&binding.role_ref, scope);
                let go_on = match &rules {
                    Ok(rules) => visitor(binding, Ok(rules)),
                    Err(missing) => visitor(binding, Err(missing.clone())),
                };
                if !go_on {
                    return;
                }
            }
        }
    }
}

impl Index {
    fn resolve(&self, reference: &RoleRef, namespace: &str) -> Result<Arc<[PolicyRule]>, String> {
        let (scope, what) = match reference.kind.as_str() {
            "Role" => (namespace, "role"),
            "ClusterRole" => ("", "clusterrole"),
            other => return Err(format!("unsupported role reference kind: {other:?}")),
        };
        self.roles
            .get(scope)
            .and_then(|roles| roles.get(&reference.name))
            .cloned()
            .ok_or_else(|| format!("{what}.rbac.authorization.k8s.io {:?} not found", reference.name))
    }
}

impl BindingSet {
    fn insert(&mut self, binding: Arc<Binding>) {
        for key in subject_keys(&binding) {
            let bucket = match key {
                SubjectKey::User(name) => self.by_user.entry(name).or_default(),
                SubjectKey::Group(name) => self.by_group.entry(name).or_default(),
            };
            if !bucket.iter().any(|b| b.metadata.name == binding.metadata.name) {
                bucket.push(binding.clone());
            }
        }
        self.by_name.insert(binding.metadata.name.clone(), binding);
    }

    fn remove(&mut self, name: &str) {
        let Some(binding) = self.by_name.remove(name) else {
            return;
        };
        for key in subject_keys(&binding) {
            let (map, subject) = match &key {
                SubjectKey::User(subject) => (&mut self.by_user, subject),
                SubjectKey::Group(subject) => (&mut self.by_group, subject),
            };
            let Some(bucket) = map.get_mut(subject) else {
                continue;
            };
            bucket.retain(|b| b.metadata.name != name);
            if bucket.is_empty() {
                map.remove(subject);
            }
        }
    }

    fn of_user<'a>(&'a self, user: &'a UserInfo) -> impl Iterator<Item = &'a Arc<Binding>> {
        let of_groups = user.groups.iter().filter_map(|group| self.by_group.get(group));
        self.by_user
            .get(&user.name)
            .into_iter()
            .chain(of_groups)
            .flatten()
    }
}

fn subject_keys(binding: &Binding) -> Vec<SubjectKey> {
    binding
        .subjects
        .iter()
        .filter_map(|s| subject_key(s, &binding.metadata.namespace))
        .collect()
}

/// A service account subject is its user name; one without any namespace binds nobody.
fn subject_key(subject: &Subject, binding_namespace: &str) -> Option<SubjectKey> {
    match subject.kind.as_str() {
        "User" => Some(SubjectKey::User(subject.name.clone())),
        "Group" => Some(SubjectKey::Group(subject.name.clone())),
        "ServiceAccount" => {
            let namespace = if subject.namespace.is_empty() {
                binding_namespace
            } else {
                &subject.namespace
            };
            (!namespace.is_empty())
                .then(|| SubjectKey::User(format!("system:serviceaccount:{namespace}:{}", subject.name)))
        }
        _ => None,
    }
}

fn allowed_by(binding: &Binding, user: &UserInfo) -> String {
    let (metadata, role) = (&binding.metadata, &binding.role_ref);
    let applies = |s: &&Subject| match subject_key(s, &metadata.namespace) {
        Some(SubjectKey::User(name)) => name == user.name,
        Some(SubjectKey::Group(group)) => user.groups.contains(&group),
        None => false,
    };
    let subject = binding
        .subjects
        .iter()
        .find(applies)
        .map(|s| describe(s, &metadata.namespace))
        .unwrap_or_default();
    let kind = if metadata.namespace.is_empty() {
        "ClusterRoleBinding"
    } else {
        "RoleBinding"
    };
    let name = if metadata.namespace.is_empty() {
        metadata.name.clone()
    } else {
        format!("{}/{}", metadata.name, metadata.namespace)
    };
    format!(
        "RBAC: allowed by {kind} {name:?} of {} {:?} to {subject}",
        role.kind, role.name
    )
}

fn describe(subject: &Subject, binding_namespace: &str) -> String {
    if subject.kind != "ServiceAccount" {
        return format!("{} {:?}", subject.kind, subject.name);
    }
    let namespace = if subject.namespace.is_empty() {
        binding_namespace
    } else {
        &subject.namespace
    };
    format!("ServiceAccount {:?}", format!("{}/{namespace}", subject.name))
}

fn aggregate(mut errors: Vec<String>) -> String {
    let mut seen = hashbrown::HashSet::new();
    errors.retain(|e| seen.insert(e.clone()));
    if errors.len() == 1 {
        errors.remove(0)
    } else {
        format!("[{}]", errors.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, groups: &[&str]) -> UserInfo {
        UserInfo {
            name: name.into(),
            groups: groups.iter().map(|g| (*g).into()).collect(),
            ..Default::default()
        }
    }

    fn role(namespace: &str, name: &str, verbs: &[&str], resource: &str) -> Role {
        let rule = PolicyRule {
            verbs: verbs.iter().map(|v| (*v).into()).collect(),
            api_groups: vec!["".into()],
            resources: vec![resource.into()],
            ..Default::default()
        };
        Role {
            metadata: Metadata {
                name: name.into(),
                namespace: namespace.into(),
            },
            rules: vec![rule],
        }
    }

    fn binding(namespace: &str, name: &str, kind: &str, role: &str, subject: (&str, &str, &str)) -> Binding {
        Binding {
            metadata: Metadata {
                name: name.into(),
                namespace: namespace.into(),
            },
            subjects: vec![Subject {
                kind: subject.0.into(),
                namespace: subject.1.into(),
                name: subject.2.into(),
            }],
            role_ref: RoleRef {
                kind: kind.into(),
                name: role.into(),
            },
        }
    }

    fn allows(rbac: &Rbac, user: &UserInfo, verb: &str, resource: &str, namespace: &str) -> bool {
        rbac.authorize(&Attributes::of_resource(user, verb, "", resource, namespace, ""))
            .decision
            == Decision::Allow
    }

    #[test]
    fn a_role_binding_grants_in_its_namespace_only() {
        let rbac = Rbac::default();
        rbac.set_role(role("", "view", &["get"], "pods"));
        rbac.set_binding(binding("a", "b", "ClusterRole", "view", ("User", "", "jane")));
        let jane = user("jane", &[]);
        assert!(allows(&rbac, &jane, "get", "pods", "a"));
        assert!(!allows(&rbac, &jane, "get", "pods", "b"));
        assert!(!allows(&rbac, &jane, "get", "pods", ""));
        rbac.remove_binding("a", "b");
        assert!(!allows(&rbac, &jane, "get", "pods", "a"));
    }

    #[test]
    fn groups_and_service_accounts_are_subjects() {
        let rbac = Rbac::default();
        rbac.set_role(role("", "view", &["get"], "pods"));
        rbac.set_binding(binding("", "g", "ClusterRole", "view", ("Group", "", "dev")));
        rbac.set_binding(binding(
            "x",
            "s",
            "ClusterRole",
            "view",
            ("ServiceAccount", "", "bot"),
        ));
        assert!(allows(&rbac, &user("any", &["dev"]), "get", "pods", ""));
        assert!(allows(
            &rbac,
            &user("system:serviceaccount:x:bot", &[]),
            "get",
            "pods",
            "x"
        ));
        assert!(!allows(&rbac, &user("bot", &[]), "get", "pods", "x"));
    }

    #[test]
    fn a_changed_binding_forgets_its_former_subjects() {
        let rbac = Rbac::default();
        rbac.set_role(role("n", "r", &["get"], "pods"));
        rbac.set_binding(binding("n", "b", "Role", "r", ("User", "", "old")));
        rbac.set_binding(binding("n", "b", "Role", "r", ("User", "", "new")));
        assert!(!allows(&rbac, &user("old", &[]), "get", "pods", "n"));
        assert!(allows(&rbac, &user("new", &[]), "get", "pods", "n"));
    }

    #[test]
    fn reasons_read_as_upstream() {
        let rbac = Rbac::default();
        rbac.set_binding(binding("n", "b", "Role", "gone", ("User", "", "jane")));
        let jane = user("jane", &[]);
        let denied = rbac.authorize(&Attributes::of_resource(&jane, "get", "", "pods", "n", ""));
        assert_eq!(
            denied.reason,
            r#"RBAC: role.rbac.authorization.k8s.io "gone" not found"#
        );
        rbac.set_role(role("n", "gone", &["*"], "pods"));
        let allowed = rbac.authorize(&Attributes::of_resource(&jane, "get", "", "pods", "n", ""));
        assert_eq!(
            allowed.reason,
            r#"RBAC: allowed by RoleBinding "b/n" of Role "gone" to User "jane""#
        );
    }

    #[test]
    fn ten_thousand_bindings_do_not_slow_a_decision() {
        let rbac = Rbac::default();
        rbac.set_role(role("", "view", &["get"], "pods"));
        for i in 0..10_000 {
            rbac.set_binding(binding(
                "",
                &format!("b{i}"),
                "ClusterRole",
                "view",
                ("User", "", &format!("u{i}")),
            ));
        }
        let jane = user("u77", &["system:authenticated"]);
        let start = std::time::Instant::now();
        for _ in 0..1000 {
            assert!(allows(&rbac, &jane, "get", "pods", "ns"));
        }
        assert!(
            start.elapsed() < std::time::Duration::from_millis(200),
            "1000 decisions took {:?}",
            start.elapsed()
        );
    }
}
