//! The default roles and bindings, read from the text files beside this one.

use apimachinery::value::{Object, Value};

const GROUP: &str = "rbac.authorization.k8s.io";
const AGGREGATE_PREFIX: &str = "rbac.authorization.k8s.io/aggregate-to-";

/// In the order in which they are written: roles before what binds them.
const FILES: [(&str, &str); 6] = [
    ("cluster-roles.txt", include_str!("cluster-roles.txt")),
    ("controller-roles.txt", include_str!("controller-roles.txt")),
    ("namespace-roles.txt", include_str!("namespace-roles.txt")),
    (
        "cluster-role-bindings.txt",
        include_str!("cluster-role-bindings.txt"),
    ),
    (
        "controller-role-bindings.txt",
        include_str!("controller-role-bindings.txt"),
    ),
    (
        "namespace-role-bindings.txt",
        include_str!("namespace-role-bindings.txt"),
    ),
];

#[derive(Clone, Debug, PartialEq)]
pub struct Default {
    /// Plural resource name in rbac.authorization.k8s.io.
    pub resource: &'static str,
    pub namespace: String,
    pub name: String,
    pub object: Value,
}

/// All defaults, with the rules of aggregated roles already collected.
pub fn defaults() -> Vec<Default> {
    let mut all = Vec::new();
    for (file, text) in FILES {
        match parse(text) {
            Ok(some) => all.extend(some),
            // The files are part of the program and a test reads them all.
            Err(line) => tracing::error!(file, line, "Default policy is malformed"),
        }
    }
    aggregate(&mut all);
    all
}

/// The rules that every node has: the `system:node` role.
pub fn node_rules() -> Vec<crate::authorization::rules::PolicyRule> {
    let all = defaults();
    let node = all
        .iter()
        .find(|d| d.resource == "clusterroles" && d.name == "system:node");
    node.map(|d| crate::authorization::escalation::rules_of(&d.object))
        .unwrap_or_default()
}

fn parse(text: &str) -> Result<Vec<Default>, String> {
    let mut out: Vec<Default> = Vec::new();
    for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let malformed = || line.to_owned();
        match line.strip_prefix("  ") {
            None => out.push(header(line).ok_or_else(malformed)?),
            Some(entry) => {
                let last = out.last_mut().ok_or_else(malformed)?;
                if last.resource.ends_with("bindings") {
                    last.object
                        .list_mut_at("subjects")
                        .push(subject(entry).ok_or_else(malformed)?);
                } else {
                    last.object
                        .list_mut_at("rules")
                        .push(rule(entry).ok_or_else(malformed)?);
                }
            }
        }
    }
    Ok(out)
}

fn header(line: &str) -> Option<Default> {
    let mut words = line.split(' ');
    let (kind, resource) = match words.next()? {
        "role" => ("Role", "roles"),
        "clusterrole" => ("ClusterRole", "clusterroles"),
        "rolebinding" => ("RoleBinding", "rolebindings"),
        "clusterrolebinding" => ("ClusterRoleBinding", "clusterrolebindings"),
        _ => return None,
    };
    let id = words.next()?;
    let (namespace, name) = if kind.starts_with("Cluster") {
        ("", id)
    } else {
        id.split_once('/')?
    };
    let mut object = new_object(kind, namespace, name);
    while let (Some(word), Some(target)) = (words.next(), words.next()) {
        match word {
            "->" => object.set("roleRef", role_ref(target)?),
            "into" => object
                .object_mut_at("metadata.labels")
                .entry(format!("{AGGREGATE_PREFIX}{target}"))
                .clone_from(&"true".into()),
            "from" => object.set_at("aggregationRule.clusterRoleSelectors", vec![selector(target)]),
            _ => return None,
        }
    }
    Some(Default {
        resource,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        object,
    })
}

fn new_object(kind: &str, namespace: &str, name: &str) -> Value {
    let mut object = Value::Null;
    object.set("kind", kind);
    object.set("apiVersion", "rbac.authorization.k8s.io/v1");
    object.set_at("metadata.name", name);
    if !namespace.is_empty() {
        object.set_at("metadata.namespace", namespace);
    }
    object
        .object_mut_at("metadata.labels")
        .insert("kubernetes.io/bootstrapping", "rbac-defaults".into());
    object
        .object_mut_at("metadata.annotations")
        .insert("rbac.authorization.kubernetes.io/autoupdate", "true".into());
    if kind.ends_with("Role") {
        object.set("rules", Value::List(Vec::new()));
    }
    object
}

fn selector(target: &str) -> Value {
    let mut labels = Object::new();
    labels.insert(format!("{AGGREGATE_PREFIX}{target}"), "true".into());
    Value::from([("matchLabels", Value::Object(labels))])
}

fn role_ref(target: &str) -> Option<Value> {
    let (kind, name) = target.split_once('/')?;
    Some(Value::from([
        ("apiGroup", GROUP.into()),
        ("kind", kind.into()),
        ("name", name.into()),
    ]))
}

/// `verbs  group  resources  [names]` or `verbs  url  paths`.
fn rule(entry: &str) -> Option<Value> {
    let mut columns = entry.split("  ");
    let list = |text: &str| -> Value {
        text.split(',')
            .map(|item| if item == "core" { "" } else { item })
            .collect::<Vec<_>>()
            .into()
    };
    let (verbs, group, things) = (columns.next()?, columns.next()?, columns.next()?);
    let mut rule = Value::from([("verbs", list(verbs))]);
    if group == "url" {
        rule.set("nonResourceURLs", list(things));
        return Some(rule);
    }
    rule.set("apiGroups", list(group));
    rule.set("resources", list(things));
    if let Some(names) = columns.next() {
        rule.set("resourceNames", list(names));
    }
    Some(rule)
}

fn subject(entry: &str) -> Option<Value> {
    let (kind, id) = entry.split_once(' ')?;
    let named = |kind: &str| {
        Value::from([
            ("kind", kind.into()),
            ("apiGroup", GROUP.into()),
            ("name", id.into()),
        ])
    };
    match kind {
        "user" => Some(named("User")),
        "group" => Some(named("Group")),
        "account" => {
            let (namespace, name) = id.split_once('/')?;
            Some(Value::from([
                ("kind", "ServiceAccount".into()),
                ("name", name.into()),
                ("namespace", namespace.into()),
            ]))
        }
        _ => None,
    }
}

/// What the clusterrole-aggregation controller would make of the defaults; until it runs, admin, edit and view work.
/// Three roles feed each other (view -> edit -> admin), so as many passes as roles settle it.
fn aggregate(all: &mut [Default]) {
    let targets: Vec<usize> = (0..all.len())
        .filter(|at| all[*at].object.at("aggregationRule").is_some())
        .collect();
    for _ in 0..targets.len() {
        for &at in &targets {
            let label = format!("{AGGREGATE_PREFIX}{}", all[at].name);
            let wanted = |d: &&Default| {
                d.object
                    .at("metadata.labels")
                    .is_some_and(|l| l.get(&label).is_some())
            };
            let mut rules: Vec<Value> = Vec::new();
            for source in all.iter().filter(wanted) {
                for rule in source.object.list_at("rules") {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
            all[at].object.set("rules", Value::List(rules));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorization::escalation::rules_of;
    use crate::authorization::rules::uncovered;

    fn find<'a>(all: &'a [Default], resource: &str, name: &str) -> &'a Default {
        all.iter()
            .find(|d| d.resource == resource && d.name == name)
            .unwrap_or_else(|| panic!("{resource} {name}"))
    }

    #[test]
    fn every_file_parses_whole() {
        for (file, text) in FILES {
            let blocks = text
                .lines()
                .filter(|l| !l.is_empty() && !l.starts_with([' ', '#']))
                .count();
            assert_eq!(
                parse(text).unwrap_or_else(|line| panic!("{file}: {line}")).len(),
                blocks,
                "{file}"
            );
        }
    }

    #[test]
    fn every_binding_names_a_default_role() {
        let all = defaults();
        for binding in all.iter().filter(|d| d.resource.ends_with("bindings")) {
            let (kind, name) = (
                binding.object.str_at("roleRef.kind"),
                binding.object.str_at("roleRef.name"),
            );
            let (resource, namespace) = if kind == "Role" {
                ("roles", binding.namespace.as_str())
            } else {
                ("clusterroles", "")
            };
            assert!(
                all.iter()
                    .any(|d| d.resource == resource && d.name == name && d.namespace == namespace),
                "{} -> {name}",
                binding.name
            );
        }
    }

    #[test]
    fn view_is_part_of_edit_and_edit_of_admin() {
        let all = defaults();
        let rules = |name: &str| rules_of(&find(&all, "clusterroles", name).object);
        assert!(!rules("view").is_empty());
        assert!(uncovered(&rules("edit"), &rules("view")).is_empty());
        assert!(uncovered(&rules("admin"), &rules("edit")).is_empty());
        assert!(!uncovered(&rules("view"), &rules("edit")).is_empty());
    }

    #[test]
    fn masters_may_do_everything_and_anyone_may_ask_for_health() {
        let all = defaults();
        let admin = find(&all, "clusterroles", "cluster-admin");
        assert_eq!(rules_of(&admin.object).len(), 2);
        assert_eq!(
            find(&all, "clusterrolebindings", "cluster-admin")
                .object
                .list_at("subjects")[0]
                .str_at("name"),
            "system:masters"
        );
        let public = find(&all, "clusterrolebindings", "system:public-info-viewer");
        assert!(
            public
                .object
                .list_at("subjects")
                .iter()
                .any(|s| s.str_at("name") == "system:unauthenticated")
        );
        assert!(!node_rules().is_empty());
    }

    #[test]
    fn malformed_lines_are_refused() {
        for text in [
            "role x",
            "clusterrole x\n  get core",
            "clusterrolebinding b -> ClusterRole/x\n  alien x",
            "  get  core  pods",
            "thing x",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
