//! Label and node selectors, compiled once per pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

pub type Labels = BTreeMap<String, String>;

/// How a requirement looks at one label or field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

impl Operator {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "In" => Self::In,
            "NotIn" => Self::NotIn,
            "Exists" => Self::Exists,
            "DoesNotExist" => Self::DoesNotExist,
            "Gt" => Self::Gt,
            "Lt" => Self::Lt,
            _ => return None,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    pub key: Box<str>,
    pub operator: Operator,
    pub values: Box<[Box<str>]>,
}

impl Requirement {
    fn new(key: &str, operator: &str, values: Option<&[String]>) -> Option<Self> {
        let values = values
            .unwrap_or_default()
            .iter()
            .map(|v| v.as_str().into())
            .collect();
        Some(Self {
            key: key.into(),
            operator: Operator::parse(operator)?,
            values,
        })
    }

    fn equal(key: &str, value: &str) -> Self {
        Self {
            key: key.into(),
            operator: Operator::In,
            values: Box::new([value.into()]),
        }
    }

    pub fn matches(&self, value: Option<&str>) -> bool {
        match (self.operator, value) {
            (Operator::Exists, value) => value.is_some(),
            (Operator::DoesNotExist, value) => value.is_none(),
            (Operator::NotIn, None) => true,
            (_, None) => false,
            (Operator::In, Some(value)) => self.lists(value),
            (Operator::NotIn, Some(value)) => !self.lists(value),
            (Operator::Gt, Some(value)) => self.compares(value, |label, bound| label > bound),
            (Operator::Lt, Some(value)) => self.compares(value, |label, bound| label < bound),
        }
    }

    fn lists(&self, value: &str) -> bool {
        self.values.iter().any(|v| &**v == value)
    }

    fn compares(&self, label: &str, compare: impl Fn(i64, i64) -> bool) -> bool {
        let [bound] = &*self.values else { return false };
        match (label.parse(), bound.parse()) {
            (Ok(label), Ok(bound)) => compare(label, bound),
            _ => false,
        }
    }
}

/// A label selector. The absent one matches nothing, the empty one everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    Nothing,
    All(Box<[Requirement]>),
}

impl Selector {
    pub fn everything() -> Self {
        Self::All(Box::new([]))
    }

    /// An unknown operator selects nothing; the API server refuses it long before.
    pub fn new(selector: Option<&LabelSelector>) -> Self {
        let Some(selector) = selector else {
            return Self::Nothing;
        };
        let equal = selector
            .match_labels
            .iter()
            .flatten()
            .map(|(k, v)| Some(Requirement::equal(k, v)));
        let expressions = selector.match_expressions.iter().flatten();
        let expressions = expressions.map(|e| Requirement::new(&e.key, &e.operator, e.values.as_deref()));
        match equal.chain(expressions).collect::<Option<Vec<_>>>() {
            Some(all) => Self::All(all.into()),
            None => Self::Nothing,
        }
    }

    /// The selector of a Service or ReplicationController: plain equality.
    pub fn from_map(labels: &Labels) -> Self {
        Self::All(labels.iter().map(|(k, v)| Requirement::equal(k, v)).collect())
    }

    /// Both selectors at once.
    pub fn and(self, other: &Selector) -> Self {
        match (self, other) {
            (Self::All(a), Self::All(b)) => Self::All(a.into_iter().chain(b.iter().cloned()).collect()),
            _ => Self::Nothing,
        }
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::Nothing => false,
            Self::All(all) => all
                .iter()
                .all(|r| r.matches(labels.get(&*r.key).map(String::as_str))),
        }
    }

    /// False only for the absent selector.
    pub fn may_match_some(&self) -> bool {
        matches!(self, Self::All(_))
    }

    pub fn is_everything(&self) -> bool {
        matches!(self, Self::All(all) if all.is_empty())
    }
}

/// One term of a node selector: label and field requirements that all must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeTerm {
    pub labels: Box<[Requirement]>,
    /// The only field is `metadata.name`.
    pub fields: Box<[Requirement]>,
    /// An empty or malformed term matches no node.
    pub valid: bool,
}

impl NodeTerm {
    pub fn new(term: &NodeSelectorTerm) -> Self {
        let compile = |list: &Option<Vec<NodeSelectorRequirement>>| -> Option<Box<[Requirement]>> {
            let list = list.iter().flatten();
            list.map(|r| Requirement::new(&r.key, &r.operator, r.values.as_deref()))
                .collect()
        };
        let (labels, fields) = (compile(&term.match_expressions), compile(&term.match_fields));
        let empty =
            labels.as_deref().is_none_or(<[_]>::is_empty) && fields.as_deref().is_none_or(<[_]>::is_empty);
        let known = |r: &Requirement| &*r.key == "metadata.name";
        let valid = labels.is_some() && fields.as_ref().is_some_and(|f| f.iter().all(known)) && !empty;
        Self {
            labels: labels.unwrap_or_default(),
            fields: fields.unwrap_or_default(),
            valid,
        }
    }

    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        self.valid
            && self.fields.iter().all(|r| r.matches(Some(name)))
            && self
                .labels
                .iter()
                .all(|r| r.matches(labels.get(&*r.key).map(String::as_str)))
    }
}

/// What a pod demands of its node: `nodeSelector` and the required node affinity, both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RequiredNodeAffinity {
    pub selector: Box<[Requirement]>,
    /// One of these must match; `None` if the pod names no terms.
    pub terms: Option<Box<[NodeTerm]>>,
}

impl RequiredNodeAffinity {
    pub fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else {
            return Self::default();
        };
        let selector = spec
            .node_selector
            .iter()
            .flatten()
            .map(|(k, v)| Requirement::equal(k, v))
            .collect();
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        Self {
            selector,
            terms: required.map(node_terms),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.selector.is_empty() && self.terms.is_none()
    }

    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        self.selector
            .iter()
            .all(|r| r.matches(labels.get(&*r.key).map(String::as_str)))
            && self
                .terms
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|t| t.matches(name, labels)))
    }
}

pub fn node_terms(selector: &NodeSelector) -> Box<[NodeTerm]> {
    selector.node_selector_terms.iter().map(NodeTerm::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{labels, pod};

    fn requirement(operator: &str, values: &[&str]) -> Requirement {
        let values: Vec<String> = values.iter().map(|v| (*v).to_owned()).collect();
        Requirement::new("k", operator, Some(&values)).expect("known operator")
    }

    #[test]
    fn operators_look_at_present_and_absent_labels() {
        let cases = [
            ("In", &["a", "b"][..], Some("b"), true),
            ("In", &["a"], Some("b"), false),
            ("In", &["a"], None, false),
            ("NotIn", &["a"], None, true),
            ("NotIn", &["a"], Some("a"), false),
            ("Exists", &[], Some(""), true),
            ("Exists", &[], None, false),
            ("DoesNotExist", &[], None, true),
            ("Gt", &["5"], Some("6"), true),
            ("Gt", &["5"], Some("5"), false),
            ("Lt", &["5"], Some("-4"), true),
            ("Lt", &["5"], Some("four"), false),
            ("Gt", &["5"], None, false),
        ];
        for (operator, values, label, wanted) in cases {
            let got = requirement(operator, values).matches(label);
            assert_eq!(got, wanted, "{label:?} {operator} {values:?}");
        }
    }

    #[test]
    fn an_absent_selector_matches_nothing_and_an_empty_one_everything() {
        assert!(!Selector::new(None).matches(&labels(&[("a", "b")])));
        assert!(Selector::new(Some(&LabelSelector::default())).matches(&labels(&[])));
    }

    #[test]
    fn node_selector_and_affinity_must_both_hold_and_terms_are_alternatives() {
        let pod = pod("p")
            .node_selector(&[("disk", "ssd")])
            .node_affinity_in("zone", &["a"])
            .node_affinity_in("zone", &["b"])
            .build();
        let required = RequiredNodeAffinity::of(&pod);
        assert!(required.matches("n", &labels(&[("disk", "ssd"), ("zone", "b")])));
        assert!(!required.matches("n", &labels(&[("disk", "ssd"), ("zone", "c")])));
        assert!(!required.matches("n", &labels(&[("zone", "a")])));
    }

    #[test]
    fn a_term_without_requirements_matches_no_node() {
        assert!(!NodeTerm::new(&NodeSelectorTerm::default()).matches("n", &labels(&[])));
    }
}
