//! What a scalar means in Go's YAML 1.1.

use super::failed;
use crate::json::DecodeError;
use crate::value::Value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use granit_parser::{ScalarStyle, Tag};

pub(super) fn resolve(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, DecodeError> {
    let tag = tag.and_then(|tag| tag.suffix_in_namespace("tag:yaml.org,2002:"));
    match tag.as_deref() {
        Some("str") => Ok(Value::from(text)),
        Some("binary") => binary(text),
        Some(_) => plain(text),
        None if style == ScalarStyle::Plain => plain(text),
        None => Ok(Value::from(text)),
    }
}

/// Base64 of text; JSON has no bytes.
fn binary(text: &str) -> Result<Value, DecodeError> {
    let clean: String = text.split_whitespace().collect();
    let bytes = STANDARD
        .decode(clean)
        .map_err(|_| failed("!!binary value contains invalid base64 data"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned().into())
}

fn plain(text: &str) -> Result<Value, DecodeError> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Value::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        ".nan" | ".NaN" | ".NAN" => return Err(not_json("NaN")),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Err(not_json("+Inf")),
        "-.inf" | "-.Inf" | "-.INF" => return Err(not_json("-Inf")),
        _ => match text.as_bytes()[0] {
            b'0'..=b'9' | b'+' | b'-' | b'.' => number(text).unwrap_or_else(|| Value::from(text)),
            _ => Value::from(text),
        },
    })
}

fn not_json(value: &str) -> DecodeError {
    DecodeError::Syntax(format!("json: unsupported value: {value}"))
}

fn number(text: &str) -> Option<Value> {
    let digits = text.replace('_', "");
    if let Some(i) = integer(&digits) {
        return Some(Value::Int(i));
    }
    if !is_float(&digits) {
        return None;
    }
    let float: f64 = digits.parse().ok().filter(|f: &f64| f.is_finite())?;
    // Go prints whole floats without a fraction, and a JSON integer is what remains of them.
    Some(Value::Float(float))
}

/// Go's `ParseInt` with base 0: prefixes say the base, and so does a leading zero.
fn integer(text: &str) -> Option<i64> {
    let (negative, body) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = body.to_ascii_lowercase();
    let (radix, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        Some(two) if two.starts_with('0') => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (
            mantissa,
            Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent)),
        ),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let mantissa_fits = match mantissa.split_once('.') {
        Some((whole, fraction)) => {
            digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty())
        }
        None => digits(mantissa) && !mantissa.is_empty(),
    };
    mantissa_fits && exponent.is_none_or(|exponent| digits(exponent) && !exponent.is_empty())
}
