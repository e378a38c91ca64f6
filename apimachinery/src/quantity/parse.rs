//! Reading a quantity: sign, digits, fraction, suffix.

use super::{Format, NANO, Quantity, QuantityError, ten_to};

/// Decimal digits that always fit an `i64`: upstream's quick path, which decides whether the text is kept.
const QUICK_DIGITS: usize = 18;

/// What the text says, digits without leading zeros.
struct Parts<'a> {
    positive: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

enum Suffix {
    Ten(i32, Format),
    Two(u32),
}

/// The amount, and whether the text is canonical enough to be kept.
pub(super) fn quantity(text: &str) -> Result<(Quantity, bool), QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::Format);
    }
    let parts = split(text)?;
    let suffix = suffix(parts.suffix).ok_or(QuantityError::Suffix)?;
    if let Some((quantity, kept)) = quick(&parts, &suffix) {
        return Ok((quantity, kept || text == "0"));
    }
    Ok((slow(&parts, &suffix)?, false))
}

fn split(text: &str) -> Result<Parts<'_>, QuantityError> {
    let positive = !text.starts_with('-');
    let rest = text
        .strip_prefix(['-', '+'])
        .unwrap_or(text)
        .trim_start_matches('0');
    let (whole, rest) = digits(rest);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    let unit = rest.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let exponent = unit.strip_prefix(['-', '+']).unwrap_or(unit);
    if !digits(exponent).1.is_empty() {
        return Err(QuantityError::Format);
    }
    Ok(Parts {
        positive,
        whole,
        fraction,
        suffix: rest,
    })
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

fn suffix(text: &str) -> Option<Suffix> {
    let ten = |exponent| Some(Suffix::Ten(exponent, Format::DecimalSi));
    match text {
        "" => ten(0),
        "n" => ten(-9),
        "u" => ten(-6),
        "m" => ten(-3),
        "k" => ten(3),
        "M" => ten(6),
        "G" => ten(9),
        "T" => ten(12),
        "P" => ten(15),
        "E" => ten(18),
        "Ki" => Some(Suffix::Two(10)),
        "Mi" => Some(Suffix::Two(20)),
        "Gi" => Some(Suffix::Two(30)),
        "Ti" => Some(Suffix::Two(40)),
        "Pi" => Some(Suffix::Two(50)),
        "Ei" => Some(Suffix::Two(60)),
        _ => Some(Suffix::Ten(
            text.strip_prefix(['e', 'E'])?.parse().ok()?,
            Format::DecimalExponent,
        )),
    }
}

/// The quick path of upstream, step for step, because it decides whether `text` is kept.
fn quick(parts: &Parts<'_>, suffix: &Suffix) -> Option<(Quantity, bool)> {
    // Upstream counts one digit where there is none before the point.
    let whole_len = parts.whole.len().max(1);
    let (scale, factor, format) = match *suffix {
        Suffix::Ten(exponent, format) => {
            if whole_len + parts.fraction.len() > QUICK_DIGITS {
                return None;
            }
            (exponent, 1, format)
        }
        Suffix::Two(exponent) => {
            let spent = whole_len + exponent as usize * 3 / 10 + 1;
            if !parts.fraction.is_empty() || spent > 15 {
                return None;
            }
            (0, 1i64 << exponent, Format::BinarySi)
        }
    };
    let scale = scale
        .checked_sub(parts.fraction.len() as i32)
        .filter(|&scale| scale >= NANO)?;
    let value: i64 = number(parts)?.try_into().ok()?;
    let product = value.checked_mul(factor)?;
    let kept = match *suffix {
        Suffix::Two(_) => value & 7 != 0,
        Suffix::Ten(..) => scale % 3 == 0 && looks_canonical(parts),
    };
    let mantissa = i128::from(if parts.positive { product } else { -product });
    Some((
        Quantity {
            mantissa,
            scale,
            format,
            text: None,
        },
        kept,
    ))
}

/// The digits together neither end in `000` nor begin with a zero.
fn looks_canonical(parts: &Parts<'_>) -> bool {
    let first = parts.whole.bytes().next();
    let trailing = parts
        .fraction
        .bytes()
        .rev()
        .chain(parts.whole.bytes().rev())
        .take_while(|b| *b == b'0')
        .count();
    first.is_some() && trailing < 3
}

fn number(parts: &Parts<'_>) -> Option<i128> {
    let mut value: i128 = 0;
    for digit in parts.whole.bytes().chain(parts.fraction.bytes()) {
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    Some(value)
}

fn slow(parts: &Parts<'_>, suffix: &Suffix) -> Result<Quantity, QuantityError> {
    let mut mantissa = number(parts).ok_or(QuantityError::Number)?;
    let mut scale = -i32::try_from(parts.fraction.len()).map_err(|_| QuantityError::Number)?;
    let mut format = Format::BinarySi;
    match *suffix {
        Suffix::Ten(exponent, family) => {
            scale = scale.saturating_add(exponent);
            format = family;
        }
        Suffix::Two(exponent) => {
            mantissa = mantissa.checked_mul(1 << exponent).ok_or(QuantityError::Number)?
        }
    }
    let mut quantity = Quantity {
        mantissa,
        scale,
        format,
        text: None,
    };
    if scale < NANO {
        (quantity.mantissa, quantity.scale) = (quantity.at_scale(NANO).0, NANO);
    }
    if format == Format::BinarySi {
        cap(&mut quantity);
    }
    if !parts.positive {
        quantity.neg();
    }
    Ok(quantity)
}

/// Binary quantities end at the largest `i64`; below one they turn decimal.
fn cap(quantity: &mut Quantity) {
    let unit = ten_to(quantity.scale.unsigned_abs()).unwrap_or(i128::MAX);
    if quantity.mantissa / unit >= i128::from(i64::MAX) {
        (quantity.mantissa, quantity.scale) = (i64::MAX.into(), 0);
    } else if quantity.mantissa > 0 && quantity.mantissa < unit {
        quantity.format = Format::DecimalSi;
    }
}
