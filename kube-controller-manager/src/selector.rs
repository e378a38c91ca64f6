//! Label selectors in object form.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use std::collections::BTreeMap;

type Labels = BTreeMap<String, String>;

/// An empty selector matches everything, as upstream's; callers that must not claim everything ask [`is_empty`] first.
pub fn matches(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let value = |key: &str| labels.and_then(|l| l.get(key));
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, wanted)| value(key) == Some(wanted));
    equal
        && selector.match_expressions.iter().flatten().all(|requirement| {
            let listed = |v: &String| requirement.values.iter().flatten().any(|w| w == v);
            match (requirement.operator.as_str(), value(&requirement.key)) {
                ("In", found) => found.is_some_and(listed),
                ("NotIn", found) => !found.is_some_and(listed),
                ("Exists", found) => found.is_some(),
                ("DoesNotExist", found) => found.is_none(),
                _ => false,
            }
        })
}

pub fn selects(selector: &LabelSelector, meta: &ObjectMeta) -> bool {
    matches(selector, meta.labels.as_ref())
}

pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// A plain map, as services and replication controllers have.
pub fn contains(labels: Option<&Labels>, wanted: &Labels) -> bool {
    wanted
        .iter()
        .all(|(key, value)| labels.and_then(|l| l.get(key)) == Some(value))
}

pub fn of_map(labels: Option<&Labels>) -> LabelSelector {
    LabelSelector {
        match_labels: labels.cloned(),
        match_expressions: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    fn expression(operator: &str, values: &[&str]) -> LabelSelector {
        let requirement = LabelSelectorRequirement {
            key: "tier".into(),
            operator: operator.into(),
            values: Some(values.iter().map(|v| (*v).to_owned()).collect()),
        };
        LabelSelector {
            match_labels: None,
            match_expressions: Some(vec![requirement]),
        }
    }

    #[test]
    fn an_absent_label_matches_not_in_and_does_not_exist_only() {
        assert!(matches(&expression("NotIn", &["db"]), None));
        assert!(matches(&expression("DoesNotExist", &[]), None));
        assert!(!matches(&expression("In", &["db"]), None));
        assert!(!matches(&expression("Exists", &[]), None));
    }

    #[test]
    fn an_unknown_operator_matches_nothing() {
        assert!(!matches(
            &expression("Near", &["db"]),
            Some(&[("tier".to_owned(), "db".to_owned())].into())
        ));
    }
}
