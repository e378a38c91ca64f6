//! Label selectors: `a=b,c!=d,e in (f,g),!h` and the `metav1.LabelSelector` object.

mod parse;

use super::SelectorError;
use crate::field::{self, Path, quote};
use crate::validation;
use crate::value::{Object, Value};
use std::collections::BTreeMap;
use std::fmt;

/// Something that has labels.
pub trait Labels {
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for Object {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }
}

impl Labels for Option<&Object> {
    fn label(&self, key: &str) -> Option<&str> {
        self.and_then(|object| object.label(key))
    }
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl Labels for [(String, String)] {
    fn label(&self, key: &str) -> Option<&str> {
        self.iter()
            .find(|(own, _)| own == key)
            .map(|(_, value)| value.as_str())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Equals,
    /// `==`, which means the same and is printed as written.
    DoubleEquals,
    NotEquals,
    GreaterThan,
    LessThan,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    pub values: Vec<String>,
}

/// A conjunction of requirements; without any it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    pub fn everything() -> LabelSelector {
        LabelSelector::default()
    }

    pub fn nothing() -> LabelSelector {
        LabelSelector {
            nothing: true,
            ..LabelSelector::default()
        }
    }

    /// The string form of query parameters and `kubectl -l`.
    pub fn parse(text: &str) -> Result<LabelSelector, SelectorError> {
        parse::requirements(text).map(LabelSelector::new)
    }

    /// The object form. An absent selector matches nothing, an empty one everything.
    pub fn from_object(selector: Option<&Value>) -> Result<LabelSelector, SelectorError> {
        let Some(selector) = selector.filter(|selector| !selector.is_null()) else {
            return Ok(LabelSelector::nothing());
        };
        let mut requirements = Vec::new();
        for (key, value) in selector
            .get("matchLabels")
            .and_then(Value::as_object)
            .into_iter()
            .flat_map(Object::iter)
        {
            requirements.push(Requirement::new(
                key,
                Operator::Equals,
                vec![value.as_str().unwrap_or_default().to_owned()],
            )?);
        }
        for expression in selector.list_at("matchExpressions") {
            requirements.push(Requirement::from_object(expression)?);
        }
        Ok(LabelSelector::new(requirements))
    }

    /// Every label given must be there with that value (the selector of Services and ReplicationControllers).
    pub fn from_match_labels(labels: &Object) -> LabelSelector {
        let requirements = labels.iter().map(|(key, value)| Requirement {
            key: key.to_owned(),
            operator: Operator::Equals,
            values: vec![value.as_str().unwrap_or_default().to_owned()],
        });
        LabelSelector::new(requirements.collect())
    }

    fn new(mut requirements: Vec<Requirement>) -> LabelSelector {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        LabelSelector {
            requirements,
            nothing: false,
        }
    }

    /// Sorted by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }
}

impl Requirement {
    /// Checks key, operator and values as upstream.
    pub fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Requirement, SelectorError> {
        let errors = check(key, operator, &values);
        if !errors.is_empty() {
            return Err(SelectorError(field::aggregate(&errors)));
        }
        Ok(Requirement {
            key: key.to_owned(),
            operator,
            values,
        })
    }

    fn from_object(expression: &Value) -> Result<Requirement, SelectorError> {
        let operator = match expression.str_at("operator") {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            other => {
                return Err(SelectorError(format!(
                    "{} is not a valid label selector operator",
                    quote(other)
                )));
            }
        };
        let values = expression
            .list_at("values")
            .iter()
            .map(|value| value.as_str().unwrap_or_default().to_owned());
        Requirement::new(expression.str_at("key"), operator, values.collect())
    }

    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        let found = labels.label(&self.key);
        let listed = |found: &str| self.values.iter().any(|value| value == found);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => found.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => !found.is_some_and(listed),
            Operator::Exists => found.is_some(),
            Operator::DoesNotExist => found.is_none(),
            Operator::GreaterThan => self.compare(found, |found, bound| found > bound),
            Operator::LessThan => self.compare(found, |found, bound| found < bound),
        }
    }

    fn compare(&self, found: Option<&str>, holds: fn(i64, i64) -> bool) -> bool {
        let number = |text: &str| text.parse::<i64>().ok();
        match (
            found.and_then(number),
            self.values.first().and_then(|bound| number(bound)),
        ) {
            (Some(found), Some(bound)) => holds(found, bound),
            _ => false,
        }
    }
}

fn check(key: &str, operator: Operator, values: &[String]) -> field::ErrorList {
    let mut errors = field::ErrorList::new();
    let (key_path, values_path) = (Path::new("key"), Path::new("values"));
    let messages = validation::label_key(key);
    if !messages.is_empty() {
        errors.push(field::invalid(&key_path, key, messages.join("; ")));
    }
    if let Some(rule) = broken_count(operator, values.len()) {
        errors.push(field::invalid(&values_path, values.to_vec(), rule));
    }
    for (i, value) in values.iter().enumerate() {
        let path = values_path.index(i);
        if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err() {
            errors.push(field::invalid(
                &path,
                value.as_str(),
                "for 'Gt', 'Lt' operators, the value must be an integer",
            ));
        }
        let messages = validation::label_value(value);
        if !messages.is_empty() {
            errors.push(field::invalid(
                &path.key(key),
                value.as_str(),
                messages.join("; "),
            ));
        }
    }
    errors
}

fn broken_count(operator: Operator, count: usize) -> Option<&'static str> {
    match operator {
        Operator::In | Operator::NotIn => {
            (count == 0).then_some("for 'in', 'notin' operators, values set can't be empty")
        }
        Operator::Equals | Operator::DoubleEquals | Operator::NotEquals => {
            (count != 1).then_some("exact-match compatibility requires one single value")
        }
        Operator::Exists | Operator::DoesNotExist => {
            (count != 0).then_some("values set must be empty for exists and does not exist")
        }
        Operator::GreaterThan | Operator::LessThan => {
            (count != 1).then_some("for 'Gt', 'Lt' operators, exactly one value is required")
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let mut values = self.values.clone();
        values.sort_unstable();
        let values = values.join(",");
        match self.operator {
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
        }
    }
}

/// The string form, which `parse` reads back.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
