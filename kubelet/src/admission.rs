//! Whether this node can take a pod that the scheduler, or a file, put here. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, NodeSelectorTerm, Pod};

use crate::pod::{Labels, PodExt, is_terminal_phase};
use crate::resources::{Amounts, Which, pod_amounts};

/// The pod's status becomes Failed with these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub reason: String,
    pub message: String,
}

fn reject(reason: impl Into<String>, message: impl Into<String>) -> Result<(), Rejection> {
    Err(Rejection {
        reason: reason.into(),
        message: message.into(),
    })
}

pub struct NodeFacts<'a> {
    pub node: Option<&'a Node>,
    pub labels: &'a Labels,
    /// `pods` included.
    pub allocatable: &'a Amounts,
}

/// `others`: the pods that were admitted before and have not ended.
pub fn admit(pod: &Pod, others: &[Arc<Pod>], facts: &NodeFacts<'_>) -> Result<(), Rejection> {
    let others: Vec<&Arc<Pod>> = others
        .iter()
        .filter(|p| p.uid() != pod.uid() && !is_terminal_phase(p.phase()))
        .collect();
    os_matches(pod, facts.labels)?;
    node_selector(pod, facts)?;
    tolerates(pod, facts.node)?;
    ports(pod, &others)?;
    fits(pod, &others, facts.allocatable)
}

fn os_matches(pod: &Pod, labels: &Labels) -> Result<(), Rejection> {
    let wanted = pod.spec().os.as_ref().map(|os| os.name.as_str());
    if wanted.is_some_and(|os| os != "linux") {
        return reject(
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS",
        );
    }
    let label = pod
        .spec()
        .node_selector
        .as_ref()
        .and_then(|s| s.get("kubernetes.io/os"));
    if label.is_some_and(|l| labels.get("kubernetes.io/os") != Some(l)) {
        return reject(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        );
    }
    Ok(())
}

fn node_selector(pod: &Pod, facts: &NodeFacts<'_>) -> Result<(), Rejection> {
    // A static pod runs where its file lies.
    if pod.is_static() {
        return Ok(());
    }
    let by_label = pod
        .spec()
        .node_selector
        .iter()
        .flatten()
        .all(|(k, v)| facts.labels.get(k) == Some(v));
    let affinity = pod
        .spec()
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let name = facts
        .node
        .and_then(|n| n.metadata.name.as_deref())
        .unwrap_or_default();
    let by_affinity = required.is_none_or(|r| {
        r.node_selector_terms
            .iter()
            .any(|term| matches_term(term, facts.labels, name))
    });
    if by_label && by_affinity {
        return Ok(());
    }
    reject(
        "NodeAffinity",
        "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
    )
}

fn matches_term(term: &NodeSelectorTerm, labels: &Labels, node_name: &str) -> bool {
    let empty = term.match_expressions.as_ref().is_none_or(Vec::is_empty)
        && term.match_fields.as_ref().is_none_or(Vec::is_empty);
    let fields = Labels::from([("metadata.name".to_string(), node_name.to_string())]);
    let holds = |r: &k8s_openapi::api::core::v1::NodeSelectorRequirement, map: &Labels| {
        requirement(&r.key, &r.operator, r.values.as_deref().unwrap_or_default(), map)
    };
    !empty
        && term.match_expressions.iter().flatten().all(|r| holds(r, labels))
        && term.match_fields.iter().flatten().all(|r| holds(r, &fields))
}

fn requirement(key: &str, operator: &str, values: &[String], labels: &Labels) -> bool {
    let have = labels.get(key);
    let number = |s: &String| s.parse::<i64>().ok();
    match operator {
        "In" => have.is_some_and(|v| values.contains(v)),
        "NotIn" => have.is_none_or(|v| !values.contains(v)),
        "Exists" => have.is_some(),
        "DoesNotExist" => have.is_none(),
        "Gt" => {
            matches!((have.and_then(number), values.first().and_then(number)), (Some(a), Some(b)) if a > b)
        }
        "Lt" => {
            matches!((have.and_then(number), values.first().and_then(number)), (Some(a), Some(b)) if a < b)
        }
        _ => false,
    }
}

/// Only `NoExecute` keeps a pod off its node once it is bound; static pods run regardless.
fn tolerates(pod: &Pod, node: Option<&Node>) -> Result<(), Rejection> {
    if pod.is_static() {
        return Ok(());
    }
    let taints = node.and_then(|n| n.spec.as_ref()).and_then(|s| s.taints.as_ref());
    let tolerations = pod.spec().tolerations.as_deref().unwrap_or_default();
    let untolerated = taints
        .into_iter()
        .flatten()
        .filter(|t| t.effect == "NoExecute")
        .find(|taint| {
            !tolerations.iter().any(|t| {
                let effect = t
                    .effect
                    .as_deref()
                    .is_none_or(|e| e.is_empty() || e == taint.effect);
                let key = t.key.as_deref().is_none_or(|k| k.is_empty() || k == taint.key);
                let value = t.operator.as_deref() == Some("Exists")
                    || t.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
                effect && key && value
            })
        });
    match untolerated {
        None => Ok(()),
        Some(taint) => reject(
            "TaintToleration",
            format!(
                "Pod was rejected: Predicate TaintToleration failed: node(s) had untolerated taint(s) {{{}: {}}}",
                taint.key,
                taint.value.as_deref().unwrap_or_default()
            ),
        ),
    }
}

fn host_ports(pod: &Pod) -> Vec<(String, i32, String)> {
    let containers = pod.spec().containers.iter().chain(pod.init_containers());
    let ports = containers.flat_map(|c| c.ports.iter().flatten()).filter_map(|p| {
        let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".into());
        Some((
            protocol,
            p.host_port.filter(|n| *n > 0)?,
            p.host_ip.clone().unwrap_or_default(),
        ))
    });
    ports.collect()
}

fn any_address(ip: &str) -> bool {
    ip.is_empty() || ip == "0.0.0.0" || ip == "::"
}

fn ports(pod: &Pod, others: &[&Arc<Pod>]) -> Result<(), Rejection> {
    let wanted = host_ports(pod);
    if wanted.is_empty() {
        return Ok(());
    }
    let taken: Vec<_> = others.iter().flat_map(|p| host_ports(p)).collect();
    let clash = wanted.iter().any(|(protocol, port, ip)| {
        taken
            .iter()
            .any(|(p, n, i)| p == protocol && n == port && (i == ip || any_address(i) || any_address(ip)))
    });
    if clash {
        return reject(
            "NodePorts",
            "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        );
    }
    Ok(())
}

/// The kubelet counts what runs here, which the scheduler may not know yet.
fn fits(pod: &Pod, others: &[&Arc<Pod>], allocatable: &Amounts) -> Result<(), Rejection> {
    if let Some(most) = allocatable
        .get("pods")
        .filter(|most| others.len() as i64 + 1 > **most)
    {
        let used = others.len();
        let text =
            format!("Node didn't have enough resource: pods, requested: 1, used: {used}, capacity: {most}");
        return reject("OutOfpods", text);
    }
    if pod.is_static() && pod.is_critical() {
        return Ok(());
    }
    let requested = pod_amounts(pod, Which::Requests);

    for (name, want) in requested.iter().filter(|(_, n)| **n > 0) {
        let have = allocatable.get(name).copied().unwrap_or(0);
        let used: i64 = others
            .iter()
            .map(|p| pod_amounts(p, Which::Requests).get(name).copied().unwrap_or(0))
            .sum();
        if used + want > have {
            let text = format!(
                "Node didn't have enough resource: {name}, requested: {want}, used: {used}, capacity: {have}"
            );
            return reject(format!("OutOf{name}"), text);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, spec: serde_json::Value) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": uid, "uid": uid}, "spec": spec})).unwrap(),
        )
    }

    fn asks(uid: &str, cpu: &str) -> Arc<Pod> {
        pod(
            uid,
            json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]}),
        )
    }

    fn verdict(p: &Pod, others: &[Arc<Pod>]) -> Result<(), String> {
        let labels = Labels::from([
            ("kubernetes.io/os".into(), "linux".into()),
            ("zone".into(), "a".into()),
        ]);
        let allocatable = Amounts::from([("cpu".to_string(), 2000), ("pods".to_string(), 3)]);
        admit(
            p,
            others,
            &NodeFacts {
                node: None,
                labels: &labels,
                allocatable: &allocatable,
            },
        )
        .map_err(|r| r.reason)
    }

    #[test]
    fn resources_are_counted_over_pods_that_have_not_ended() {
        assert_eq!(verdict(&asks("b", "1500m"), &[asks("a", "500m")]), Ok(()));
        assert_eq!(
            verdict(&asks("b", "1501m"), &[asks("a", "500m")]),
            Err("OutOfcpu".into())
        );
        let mut ended = (*asks("a", "2")).clone();
        ended.status = Some(serde_json::from_value(json!({"phase": "Succeeded"})).unwrap());
        assert_eq!(verdict(&asks("b", "2"), &[Arc::new(ended)]), Ok(()));
        let three = [asks("1", "1m"), asks("2", "1m"), asks("3", "1m")];
        assert_eq!(verdict(&asks("b", "1m"), &three), Err("OutOfpods".into()));
    }

    #[test]
    fn selectors_and_affinity_must_match_the_nodes_labels() {
        let with = |extra: serde_json::Value| {
            let mut spec = json!({"containers": []});
            spec.as_object_mut()
                .unwrap()
                .extend(extra.as_object().unwrap().clone());
            verdict(&pod("p", spec), &[])
        };
        assert_eq!(with(json!({"nodeSelector": {"zone": "a"}})), Ok(()));
        assert_eq!(
            with(json!({"nodeSelector": {"zone": "b"}})),
            Err("NodeAffinity".into())
        );
        assert_eq!(
            with(json!({"nodeSelector": {"kubernetes.io/os": "windows"}})),
            Err("PodOSSelectorNodeLabelDoesNotMatch".into())
        );
        let affinity = |op: &str| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": op, "values": ["a"]}]}]}}}})
        };
        assert_eq!(with(affinity("In")), Ok(()));
        assert_eq!(with(affinity("NotIn")), Err("NodeAffinity".into()));
    }

    #[test]
    fn a_host_port_is_given_once() {
        let port = |uid: &str, ip: &str| {
            pod(
                uid,
                json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "hostPort": 80, "hostIP": ip}]}]}),
            )
        };
        assert_eq!(
            verdict(&port("b", "127.0.0.1"), &[port("a", "127.0.0.2")]),
            Ok(())
        );
        assert_eq!(
            verdict(&port("b", "127.0.0.1"), &[port("a", "")]),
            Err("NodePorts".into())
        );
    }
}
