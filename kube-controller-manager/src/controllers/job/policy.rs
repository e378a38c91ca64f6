//! podFailurePolicy and successPolicy. No IO.

use super::indexes::Intervals;
use crate::meta::{name, namespace};
use k8s_openapi::api::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule, SuccessPolicy,
};
use k8s_openapi::api::core::v1::Pod;

#[derive(Clone, Debug, PartialEq)]
pub enum Consequence {
    /// Towards backoffLimit.
    Count,
    Ignore,
    FailIndex,
    /// With the message of the Job's condition.
    FailJob(String),
}

/// Of a pod that failed: the first rule that matches decides.
pub fn consequence(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Consequence {
    let rules = policy.map(|p| p.rules.as_slice()).unwrap_or_default();
    rules
        .iter()
        .enumerate()
        .find_map(|(at, rule)| applied(rule, at, pod))
        .unwrap_or(Consequence::Count)
}

fn applied(rule: &PodFailurePolicyRule, at: usize, pod: &Pod) -> Option<Consequence> {
    let (pod_name, action) = (
        format!("{}/{}", namespace(&pod.metadata), name(&pod.metadata)),
        &rule.action,
    );
    let message = match (&rule.on_exit_codes, &rule.on_pod_conditions) {
        (Some(codes), _) => {
            let (container, code) = exit_code(codes, pod)?;
            format!(
                "Container {container} for pod {pod_name} failed with exit code {code} matching {action} rule at index {at}"
            )
        }
        (None, Some(patterns)) => format!(
            "Pod {pod_name} has condition {} matching {action} rule at index {at}",
            condition(patterns, pod)?
        ),
        (None, None) => return None,
    };
    match action.as_str() {
        "Ignore" => Some(Consequence::Ignore),
        "FailIndex" => Some(Consequence::FailIndex),
        "Count" => Some(Consequence::Count),
        "FailJob" => Some(Consequence::FailJob(message)),
        _ => None,
    }
}

/// Success is not a failure, whatever the rule lists.
fn exit_code<'a>(wanted: &PodFailurePolicyOnExitCodesRequirement, pod: &'a Pod) -> Option<(&'a str, i32)> {
    let status = pod.status.as_ref()?;
    let containers = status
        .container_statuses
        .iter()
        .flatten()
        .chain(status.init_container_statuses.iter().flatten());
    let named = containers.filter(|c| wanted.container_name.as_ref().is_none_or(|n| *n == c.name));
    let mut ended =
        named.filter_map(|c| Some((c.name.as_str(), c.state.as_ref()?.terminated.as_ref()?.exit_code)));
    ended.find(|(_, code)| {
        let listed = wanted.values.contains(code);
        *code != 0 && ((wanted.operator == "In" && listed) || (wanted.operator == "NotIn" && !listed))
    })
}

fn condition<'a>(patterns: &[PodFailurePolicyOnPodConditionsPattern], pod: &'a Pod) -> Option<&'a str> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let found = conditions.find(|c| {
        patterns
            .iter()
            .any(|p| p.type_ == c.type_ && p.status.as_deref().unwrap_or("True") == c.status)
    })?;
    Some(&found.type_)
}

/// The message of the condition when a rule is met.
pub fn success(policy: Option<&SuccessPolicy>, completions: i32, succeeded: &Intervals) -> Option<String> {
    if succeeded.is_empty() {
        return None;
    }
    let rules = policy.map(|p| p.rules.as_slice()).unwrap_or_default();
    let met = rules
        .iter()
        .position(|rule| match (&rule.succeeded_indexes, rule.succeeded_count) {
            (Some(text), count) => {
                let wanted = Intervals::parse(text, completions);
                let common = wanted.overlap(succeeded);
                !wanted.is_empty() && (common == wanted.total() || count.is_some_and(|c| common >= c))
            }
            (None, count) => count.is_some_and(|c| succeeded.total() >= c),
        });
    met.map(|at| format!("Matched rules at index {at}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(code: i32, condition: &str) -> Pod {
        let value = json!({"metadata": {"name": "p", "namespace": "ns"}, "status": {"phase": "Failed", "conditions": [{"type": condition, "status": "True"}],
            "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code}}}]}});
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let policy = json!({"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
            {"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [1, 2]}}]});
        let policy: PodFailurePolicy = serde_json::from_value(policy).unwrap();
        let of = |pod: &Pod| consequence(Some(&policy), pod);
        assert_eq!(of(&pod(42, "DisruptionTarget")), Consequence::Ignore);
        assert_eq!(
            of(&pod(42, "Other")),
            Consequence::FailJob(
                "Container c for pod ns/p failed with exit code 42 matching FailJob rule at index 1".into()
            )
        );
        assert_eq!(of(&pod(7, "Other")), Consequence::FailIndex);
        assert_eq!(of(&pod(1, "Other")), Consequence::Count);
        assert_eq!(of(&pod(0, "Other")), Consequence::Count);
    }

    #[test]
    fn a_success_policy_counts_within_its_indexes() {
        let policy: SuccessPolicy =
            serde_json::from_value(json!({"rules": [{"succeededIndexes": "0-3", "succeededCount": 2}]}))
                .unwrap();
        assert_eq!(success(Some(&policy), 10, &Intervals::parse("3-9", 10)), None);
        assert_eq!(
            success(Some(&policy), 10, &Intervals::parse("2-9", 10)),
            Some("Matched rules at index 0".into())
        );
    }
}
