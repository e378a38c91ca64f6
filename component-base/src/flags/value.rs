//! The types of flags: validation with Go's error texts, and the canonical form that is kept.

use super::go_duration::{format_duration, parse_signed};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    String,
    Bool,
    Int,
    Float,
    Duration,
    Strings,
    Map,
    /// A boolean that also takes words (`--version=raw`); also what removed booleans accept.
    Version,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::Bool | Kind::Version => "",
            Kind::Int => "int",
            Kind::Float => "float",
            Kind::Duration => "duration",
            Kind::Strings => "strings",
            Kind::Map => "mapStringString",
        }
    }

    pub fn appends(self) -> bool {
        matches!(self, Kind::Strings | Kind::Map)
    }

    /// Checks one given text; the result is what `string` and friends read.
    pub fn canonical(self, text: &str) -> Result<String, String> {
        match self {
            Kind::String | Kind::Version => Ok(text.to_owned()),
            Kind::Bool => parse_bool(text).map(|value| value.to_string()),
            Kind::Int => parse_int(text).map(|value| value.to_string()),
            Kind::Float => text
                .parse::<f64>()
                .map(|_| text.to_owned())
                .map_err(|_| syntax("ParseFloat", text)),
            Kind::Duration => parse_signed(text).map(|_| text.to_owned()),
            Kind::Strings => split_list(text).map(|_| text.to_owned()),
            Kind::Map => check_map(text).map(|()| text.to_owned()),
        }
    }

    /// As pflag's `String()`: what the start-up log shows.
    pub fn display(self, text: &str) -> String {
        match self {
            Kind::Duration => parse_signed(text).map_or_else(|_| text.to_owned(), format_signed),
            Kind::Strings => format!("[{text}]"),
            _ => text.to_owned(),
        }
    }
}

fn format_signed(nanos: i128) -> String {
    let text = format_duration(std::time::Duration::from_nanos(
        nanos.unsigned_abs().min(u128::from(u64::MAX)) as u64,
    ));
    if nanos < 0 { format!("-{text}") } else { text }
}

fn syntax(function: &str, text: &str) -> String {
    format!("strconv.{function}: parsing {text:?}: invalid syntax")
}

fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(syntax("ParseBool", text)),
    }
}

/// Base 0 of Go: 0x, 0o, 0b and a leading zero for octal.
fn parse_int(text: &str) -> Result<i64, String> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(syntax("ParseInt", text));
    }
    let value = i128::from_str_radix(digits, radix).unwrap_or(i128::MAX);
    i64::try_from(if negative { -value } else { value })
        .map_err(|_| format!("strconv.ParseInt: parsing {text:?}: value out of range"))
}

/// One line of CSV, as pflag's StringSlice reads it: quotes protect commas.
pub(super) fn split_list(text: &str) -> Result<Vec<String>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut items = Vec::new();
    let mut rest = text;
    loop {
        let (item, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_item(quoted)
                .ok_or_else(|| format!("extraneous or missing \" in quoted-field: {text}"))?,
            None => match rest.split_once(',') {
                Some((item, after)) => (item.to_owned(), Some(after)),
                None => (rest.to_owned(), None),
            },
        };
        items.push(item);
        match after {
            Some(after) => rest = after,
            None => return Ok(items),
        }
    }
}

/// Reads up to the closing quote; `""` is a quote.
fn quoted_item(text: &str) -> Option<(String, Option<&str>)> {
    let mut item = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        item.push_str(before);
        if let Some(after) = after.strip_prefix('"') {
            item.push('"');
            rest = after;
        } else if after.is_empty() {
            return Some((item, None));
        } else {
            return after.strip_prefix(',').map(|after| (item, Some(after)));
        }
    }
}

fn check_map(text: &str) -> Result<(), String> {
    match split_list(text)?
        .iter()
        .find(|item| !item.is_empty() && !item.contains('='))
    {
        Some(item) => Err(format!("malformed pair, expect string=string, got {item:?}")),
        None => Ok(()),
    }
}
