//! Resource quantities (`100m`, `1.5Gi`) with upstream's exact canonical form.
//!
//! A quantity is `mantissa * 10^scale` and remembers in which family of suffixes it was written. Like upstream, a text that
//! looks canonical to the parser's quick check is kept as it is, even where a stricter eye would rewrite it (`1.500`).

mod parse;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

#[derive(Clone, Debug)]
pub struct Quantity {
    mantissa: i128,
    scale: i32,
    format: Format,
    /// The text as written, while it is canonical.
    text: Option<Box<str>>,
}

/// The suffix family: `Ki`…, `k`…, or `e3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    BinarySi,
    DecimalSi,
    DecimalExponent,
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

/// Finest scale kept; anything below is rounded up to it.
const NANO: i32 = -9;

const MILLI: i32 = -3;

impl Quantity {
    pub const ZERO: Quantity = Quantity {
        mantissa: 0,
        scale: 0,
        format: Format::DecimalSi,
        text: None,
    };

    pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
        let (quantity, kept) = parse::quantity(text)?;
        Ok(Quantity {
            text: kept.then(|| text.into()),
            ..quantity
        })
    }

    /// The canonical text; borrowed where `text` is canonical already.
    pub fn canonicalize(text: &str) -> Result<Cow<'_, str>, QuantityError> {
        match parse::quantity(text)? {
            (_, true) => Ok(Cow::Borrowed(text)),
            (quantity, false) => Ok(Cow::Owned(quantity.to_string())),
        }
    }

    pub fn from_value(value: i64, format: Format) -> Quantity {
        Quantity {
            mantissa: value.into(),
            scale: 0,
            format,
            text: None,
        }
    }

    pub fn from_milli(value: i64, format: Format) -> Quantity {
        Quantity {
            mantissa: value.into(),
            scale: MILLI,
            format,
            text: None,
        }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// Whole units, rounded away from zero, saturating: `Value()`.
    pub fn value(&self) -> i64 {
        saturate(self.at_scale(0).0)
    }

    /// Thousandths, rounded away from zero, saturating: `MilliValue()`.
    pub fn milli_value(&self) -> i64 {
        saturate(self.at_scale(MILLI).0)
    }

    pub fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.mantissa.signum() as i32
    }

    pub fn add(&mut self, other: &Quantity) {
        self.combine(other, i128::saturating_add);
    }

    pub fn sub(&mut self, other: &Quantity) {
        self.combine(other, i128::saturating_sub);
    }

    pub fn neg(&mut self) {
        self.text = None;
        self.mantissa = -self.mantissa;
    }

    /// Rounds away from zero to thousandths, as defaulting does with resource lists.
    pub fn round_up_to_milli(&mut self) {
        if self.scale < MILLI {
            self.text = None;
            self.mantissa = self.at_scale(MILLI).0;
            self.scale = MILLI;
        }
    }

    fn combine(&mut self, other: &Quantity, operation: fn(i128, i128) -> i128) {
        self.text = None;
        if self.is_zero() {
            self.format = other.format;
        }
        let scale = self.scale.min(other.scale).max(NANO);
        self.mantissa = operation(self.at_scale(scale).0, other.at_scale(scale).0);
        self.scale = scale;
    }

    /// The mantissa at `scale`, rounded away from zero and saturating, and whether that is exact.
    fn at_scale(&self, scale: i32) -> (i128, bool) {
        if self.mantissa == 0 {
            return (0, true);
        }
        let shift = self.scale.saturating_sub(scale);
        let Some(factor) = ten_to(shift.unsigned_abs()) else {
            return if shift < 0 {
                (self.mantissa.signum(), false)
            } else {
                (extreme(self.mantissa), false)
            };
        };
        if shift >= 0 {
            return match self.mantissa.checked_mul(factor) {
                Some(mantissa) => (mantissa, true),
                None => (extreme(self.mantissa), false),
            };
        }
        let rest = self.mantissa % factor;
        (
            self.mantissa / factor + if rest == 0 { 0 } else { rest.signum() },
            rest == 0,
        )
    }
}

fn ten_to(power: u32) -> Option<i128> {
    10i128.checked_pow(power)
}

fn extreme(sign: i128) -> i128 {
    if sign < 0 { i128::MIN } else { i128::MAX }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = &self.text {
            return f.pad(text);
        }
        if self.is_zero() {
            return f.pad("0");
        }
        f.pad(&match self.binary() {
            Some(text) => text,
            None => self.decimal(),
        })
    }
}

impl Quantity {
    /// The binary form, for values that are whole and not within ±1023.
    fn binary(&self) -> Option<String> {
        if self.format != Format::BinarySi {
            return None;
        }
        let (mut amount, exact) = self.at_scale(0);
        if !exact || amount.unsigned_abs() < 1024 {
            return None;
        }
        let mut times = 0;
        while amount % 1024 == 0 {
            amount /= 1024;
            times += 1;
        }
        let suffix = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].get(times).unwrap_or(&"");
        Some(format!("{amount}{suffix}"))
    }

    fn decimal(&self) -> String {
        let (mut amount, mut exponent) = (self.mantissa, self.scale);
        while amount % 10 == 0 {
            amount /= 10;
            exponent = exponent.saturating_add(1);
        }
        while exponent % 3 != 0 {
            amount = amount.saturating_mul(10);
            exponent -= 1;
        }
        match self.format {
            Format::DecimalExponent if exponent == 0 => amount.to_string(),
            Format::DecimalExponent => format!("{amount}e{exponent}"),
            _ => format!("{amount}{}", decimal_suffix(exponent)),
        }
    }
}

/// Empty beyond the table, as upstream.
fn decimal_suffix(exponent: i32) -> &'static str {
    match exponent {
        -9 => "n",
        -6 => "u",
        -3 => "m",
        3 => "k",
        6 => "M",
        9 => "G",
        12 => "T",
        15 => "P",
        18 => "E",
        _ => "",
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
        let signs = self.mantissa.signum().cmp(&other.mantissa.signum());
        if signs != Ordering::Equal || self.mantissa == 0 {
            return signs;
        }
        if self.scale == other.scale {
            return self.mantissa.cmp(&other.mantissa);
        }
        let scale = self.scale.min(other.scale);
        let ((a, a_fits), (b, b_fits)) = (self.at_scale(scale), other.at_scale(scale));
        match (a_fits, b_fits) {
            // Only the one with the larger scale can fail to fit, and then it is the larger in magnitude.
            (false, true) => self.mantissa.cmp(&0),
            (true, false) => 0.cmp(&other.mantissa),
            _ => a.cmp(&b),
        }
    }
}

#[cfg(test)]
mod tests;
