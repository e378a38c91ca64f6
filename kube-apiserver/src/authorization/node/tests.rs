use super::graph::{Grants, Vertex};
use super::*;

fn node_user(name: &str) -> UserInfo {
    UserInfo {
        name: format!("system:node:{name}"),
        groups: vec!["system:nodes".into(), "system:authenticated".into()],
        ..Default::default()
    }
}

fn authorizer() -> NodeAuthorizer {
    let graph = Graph::default();
    let reaches = vec![
        Vertex::new(Kind::Secret, "ns", "s"),
        Vertex::new(Kind::ConfigMap, "ns", "c"),
        Vertex::new(Kind::ServiceAccount, "ns", "sa"),
    ];
    graph.set(
        Vertex::new(Kind::Pod, "ns", "p"),
        Grants {
            node: "n1".into(),
            reaches,
        },
    );
    let services = PolicyRule {
        verbs: vec!["list".into()],
        api_groups: vec!["".into()],
        resources: vec!["services".into()],
        ..Default::default()
    };
    NodeAuthorizer::new(graph, vec![services])
}

/// (verb, "group/resource/subresource", namespace, name, field selector)
type Question<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str);

fn ask(node: &str, q: Question<'_>) -> (bool, String) {
    let user = node_user(node);
    let parts: Vec<&str> = q.1.split('/').collect();
    let a = Attributes {
        subresource: parts.get(2).copied().unwrap_or(""),
        field_selector: q.4,
        ..Attributes::of_resource(&user, q.0, parts[0], parts[1], q.2, q.3)
    };
    let verdict = authorizer().authorize(&a);
    (verdict.decision == Decision::Allow, verdict.reason)
}

#[test]
fn a_node_reads_what_its_pods_refer_to_and_nothing_else() {
    let cases: &[(Question<'_>, bool, bool)] = &[
        (("get", "/secrets", "ns", "s", ""), true, false),
        (("watch", "/secrets", "ns", "s", ""), true, false),
        (("list", "/secrets", "ns", "", ""), false, false),
        (("update", "/secrets", "ns", "s", ""), false, false),
        (("get", "/configmaps", "ns", "c", ""), true, false),
        (("get", "/configmaps", "other", "c", ""), false, false),
        (("create", "/serviceaccounts/token", "ns", "sa", ""), true, false),
        (("create", "/serviceaccounts", "ns", "", ""), false, false),
        (("get", "/serviceaccounts", "ns", "sa", ""), true, false),
        (("get", "/pods", "ns", "p", ""), true, false),
        (("list", "/pods", "", "", "spec.nodeName=n1"), true, false),
        (("list", "/pods", "", "", ""), false, false),
        (("patch", "/pods/status", "ns", "p", ""), true, true),
        (("create", "/pods/exec", "ns", "p", ""), false, false),
        (("get", "/nodes", "", "n1", ""), true, false),
        (("list", "/nodes", "", "", ""), false, false),
        (("delete", "/nodes", "", "n1", ""), false, false),
        (
            (
                "update",
                "coordination.k8s.io/leases",
                "kube-node-lease",
                "n1",
                "",
            ),
            true,
            false,
        ),
        (
            ("list", "coordination.k8s.io/leases", "kube-node-lease", "", ""),
            false,
            false,
        ),
        (
            ("update", "coordination.k8s.io/leases", "kube-system", "n1", ""),
            false,
            false,
        ),
        (("patch", "storage.k8s.io/csinodes", "", "n1", ""), true, false),
        (("list", "/services", "", "", ""), true, true),
        (("list", "/endpoints", "", "", ""), false, false),
    ];
    for (question, n1, n2) in cases {
        assert_eq!(ask("n1", *question).0, *n1, "n1 {question:?}");
        assert_eq!(ask("n2", *question).0, *n2, "n2 {question:?}");
    }
}

#[test]
fn refusals_say_why() {
    assert_eq!(
        ask("n2", ("get", "/secrets", "ns", "s", "")).1,
        "no relationship found between node 'n2' and this object"
    );
    assert_eq!(
        ask("n1", ("get", "/nodes", "", "n2", "")).1,
        "node 'n1' cannot read 'n2', only its own Node object"
    );
    assert_eq!(
        ask("n1", ("list", "/pods", "", "", "spec.nodeName=n2")).1,
        "can only list/watch pods with spec.nodeName field selector"
    );
}

#[test]
fn others_are_not_its_business() {
    let user = UserInfo {
        name: "system:node:n1".into(),
        ..Default::default()
    };
    let verdict = authorizer().authorize(&Attributes::of_resource(&user, "get", "", "secrets", "ns", "s"));
    assert_eq!(verdict, Verdict::no_opinion());
}
