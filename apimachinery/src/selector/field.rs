//! Field selectors: `spec.nodeName=n1,status.phase!=Running`.

use super::SelectorError;
use std::fmt;

/// One comparison. `not` is `!=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    pub field: String,
    pub not: bool,
    pub value: String,
}

/// A conjunction of comparisons; without any it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

impl FieldSelector {
    pub fn everything() -> FieldSelector {
        FieldSelector::default()
    }

    pub fn parse(text: &str) -> Result<FieldSelector, SelectorError> {
        Err(SelectorError(text.to_owned()))
    }

    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that `field` must have, if one is demanded.
    pub fn requires(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.field == field && !term.not).map(|term| term.value.as_str())
    }

    /// `get` yields a field's value; the empty string for absent ones.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> &'a str) -> bool {
        self.terms.iter().all(|term| (get(&term.field) == term.value) != term.not)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("")
    }
}
