//! Resource quantities (`100m`, `1.5Gi`) with upstream's exact canonical form.

use std::cmp::Ordering;
use std::fmt;

#[derive(Clone, Debug)]
pub struct Quantity {
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse quantity's suffix")]
    Suffix,
    #[error("unable to parse numeric part of quantity")]
    Number,
}

impl Quantity {
    pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
        Ok(Quantity { text: text.to_owned() })
    }

    /// Rounded up to whole units, saturating: `Value()`.
    pub fn value(&self) -> i64 {
        0
    }

    /// Rounded up to thousandths, saturating: `MilliValue()`.
    pub fn milli_value(&self) -> i64 {
        0
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        self.text.cmp(&other.text)
    }
}
