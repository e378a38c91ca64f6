//! Which nodes a daemon pod belongs on, and what is added to its template to get it there. No IO.

use crate::meta::name;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
    PodTemplateSpec, Taint, Toleration,
};

const NAME_FIELD: &str = "metadata.name";

/// Conditions that a daemon pod outlives: key and effect.
const TOLERATED: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_UNAVAILABLE: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// A pod is started here.
    pub should_run: bool,
    /// A pod that is here may stay.
    pub may_stay: bool,
}

pub fn verdict(template: &PodTemplateSpec, node: &Node) -> Verdict {
    let no = Verdict {
        should_run: false,
        may_stay: false,
    };
    let Some(spec) = &template.spec else { return no };
    let pinned = spec.node_name.as_deref().filter(|n| !n.is_empty());
    if pinned.is_some_and(|pinned| pinned != name(&node.metadata)) || !fits_affinity(spec, node) {
        return no;
    }
    let tolerations = tolerations(spec);
    let untolerated = |effects: &[&str]| {
        taints(node).any(|t| {
            effects.contains(&t.effect.as_str())
                && !tolerations.iter().any(|toleration| tolerates(toleration, t))
        })
    };
    Verdict {
        should_run: !untolerated(&["NoSchedule", "NoExecute"]),
        may_stay: !untolerated(&["NoExecute"]),
    }
}

fn taints(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.iter().flat_map(|s| s.taints.iter().flatten())
}

fn fits_affinity(spec: &PodSpec, node: &Node) -> bool {
    let label = |key: &str| {
        node.metadata
            .labels
            .as_ref()
            .and_then(|l| l.get(key))
            .map(String::as_str)
    };
    if !spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| label(key) == Some(value))
    {
        return false;
    }
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|selector| {
        selector
            .node_selector_terms
            .iter()
            .any(|term| term_matches(term, node))
    })
}

/// A term without requirements matches nothing.
fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let (by_label, by_field) = (
        term.match_expressions.as_deref().unwrap_or_default(),
        term.match_fields.as_deref().unwrap_or_default(),
    );
    let label = |key: &str| {
        node.metadata
            .labels
            .as_ref()
            .and_then(|l| l.get(key))
            .map(String::as_str)
    };
    let field = |key: &str| (key == NAME_FIELD).then(|| name(&node.metadata));
    (!by_label.is_empty() || !by_field.is_empty())
        && by_label.iter().all(|r| requirement_matches(r, label(&r.key)))
        && by_field.iter().all(|r| requirement_matches(r, field(&r.key)))
}

fn requirement_matches(requirement: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |found: &str| values.iter().any(|v| v == found);
    let numbers = || Some((found?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => found.is_some_and(listed),
        "NotIn" => !found.is_some_and(listed),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => numbers().is_some_and(|(found, wanted)| found > wanted),
        "Lt" => numbers().is_some_and(|(found, wanted)| found < wanted),
        _ => false,
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let empty_or =
        |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|w| w.is_empty() || w == found);
    if !empty_or(&toleration.effect, &taint.effect) || !empty_or(&toleration.key, &taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("") {
        "" | "Equal" => toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""),
        "Exists" => true,
        _ => false,
    }
}

/// Those of the template, and those that every daemon pod has.
pub fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut tolerations = spec.tolerations.clone().unwrap_or_default();
    let network = spec.host_network.unwrap_or(false).then_some(&NETWORK_UNAVAILABLE);
    for (key, effect) in TOLERATED.iter().chain(network) {
        let added = Toleration {
            key: Some((*key).to_owned()),
            operator: Some("Exists".into()),
            effect: Some((*effect).to_owned()),
            ..Toleration::default()
        };
        let same = tolerations.iter_mut().find(|t| {
            (&t.key, &t.effect, t.value.as_deref().unwrap_or("")) == (&added.key, &added.effect, "")
                && t.operator == added.operator
        });
        match same {
            Some(known) => *known = added,
            None => tolerations.push(added),
        }
    }
    tolerations
}

/// The scheduler binds the pod to this node and no other. What the template asked of nodes was answered when we chose it.
pub fn pinned(affinity: Option<Affinity>, node: &str) -> Affinity {
    let requirement = NodeSelectorRequirement {
        key: NAME_FIELD.into(),
        operator: "In".into(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm {
        match_fields: Some(vec![requirement]),
        match_expressions: None,
    };
    let mut affinity = affinity.unwrap_or_default();
    let nodes: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    nodes.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![term],
    });
    affinity
}

/// The node that a pod is on or, by its affinity, meant for.
pub fn target_node(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_deref().filter(|n| !n.is_empty()) {
        return Some(node);
    }
    let required = spec
        .affinity
        .as_ref()?
        .node_affinity
        .as_ref()?
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let by_name = required
        .node_selector_terms
        .iter()
        .flat_map(|t| t.match_fields.iter().flatten());
    let values = by_name
        .filter(|r| r.key == NAME_FIELD && r.operator == "In")
        .map(|r| r.values.as_deref().unwrap_or_default());
    values
        .filter(|v| v.len() == 1)
        .find_map(|v| v.first())
        .map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn template(spec: Value) -> PodTemplateSpec {
        let mut spec = spec;
        spec["containers"] = json!([]);
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    fn node(value: Value) -> Node {
        serde_json::from_value(value).unwrap()
    }

    fn on(template_spec: Value, node_value: Value) -> (bool, bool) {
        let verdict = verdict(&template(template_spec), &node(node_value));
        (verdict.should_run, verdict.may_stay)
    }

    #[test]
    fn a_cordoned_node_gets_daemons_and_a_control_plane_does_not() {
        let tainted = |key: &str, effect: &str| json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": key, "effect": effect}]}});
        assert_eq!(
            on(
                json!({}),
                tainted("node.kubernetes.io/unschedulable", "NoSchedule")
            ),
            (true, true)
        );
        assert_eq!(
            on(
                json!({}),
                tainted("node-role.kubernetes.io/control-plane", "NoSchedule")
            ),
            (false, true)
        );
        assert_eq!(on(json!({}), tainted("mine", "NoExecute")), (false, false));
        assert_eq!(
            on(
                json!({"tolerations": [{"operator": "Exists"}]}),
                tainted("mine", "NoExecute")
            ),
            (true, true)
        );
        assert_eq!(on(json!({}), tainted("mine", "PreferNoSchedule")), (true, true));
    }

    #[test]
    fn the_network_may_be_missing_for_pods_that_do_not_need_it() {
        let without_network = json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "node.kubernetes.io/network-unavailable", "effect": "NoSchedule"}]}});
        assert_eq!(on(json!({}), without_network.clone()), (false, true));
        assert_eq!(on(json!({"hostNetwork": true}), without_network), (true, true));
    }

    #[test]
    fn selectors_affinity_and_node_name_choose_nodes() {
        let node = json!({"metadata": {"name": "n", "labels": {"os": "linux", "cores": "8"}}});
        let terms = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
        assert_eq!(
            on(json!({"nodeSelector": {"os": "linux"}}), node.clone()),
            (true, true)
        );
        assert_eq!(
            on(json!({"nodeSelector": {"os": "plan9"}}), node.clone()),
            (false, false)
        );
        assert_eq!(on(json!({"nodeName": "m"}), node.clone()), (false, false));
        assert_eq!(
            on(
                terms(json!([{"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["4"]}]}])),
                node.clone()
            ),
            (true, true)
        );
        assert_eq!(
            on(
                terms(
                    json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["m"]}]}])
                ),
                node.clone()
            ),
            (false, false)
        );
        assert_eq!(on(terms(json!([{}])), node), (false, false));
    }

    #[test]
    fn a_pinned_pod_tells_its_node() {
        let affinity = pinned(None, "n7");
        let pod = Pod {
            spec: Some(PodSpec {
                affinity: Some(affinity),
                ..PodSpec::default()
            }),
            ..Pod::default()
        };
        assert_eq!(target_node(&pod), Some("n7"));
    }
}
