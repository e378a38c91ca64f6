//! The tree as compact JSON, in the order in which it stands.

use super::scan::{plain_output, plain_raw};
use crate::value::Value;

/// Appends `value` as compact JSON, with Go's escapes.
pub fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(b) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
        Value::Int(i) => int(*i, out),
        Value::Float(f) => float(*f, out),
        Value::Str(s) => string(s, out),
        Value::List(items) => list(items, out),
        Value::Object(object) => {
            out.push(b'{');
            for (i, (key, value)) in object.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                string(key, out);
                out.push(b':');
                encode(value, out);
            }
            out.push(b'}');
        }
        Value::Raw(text) => raw(text, out),
    }
}

pub fn to_vec(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    encode(value, &mut out);
    out
}

fn list(items: &[Value], out: &mut Vec<u8>) {
    out.push(b'[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        encode(item, out);
    }
    out.push(b']');
}

pub(crate) fn int(i: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(i).as_bytes());
}

/// Go's float form: shortest decimal; exponents only below 1e-6 and from 1e21, written `1e+21` and `1e-7`.
pub(crate) fn float(f: f64, out: &mut Vec<u8>) {
    if !f.is_finite() {
        // JSON has no such number, and no decoder of ours makes one.
        out.extend_from_slice(b"null");
        return;
    }
    let magnitude = f.abs();
    if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let text = format!("{f:e}");
        let signed = text.replacen('e', "e+", usize::from(!text.contains("e-")));
        out.extend_from_slice(signed.as_bytes());
    } else {
        out.extend_from_slice(format!("{f}").as_bytes());
    }
}

/// Quotes `text`. `<`, `>`, `&` and the two line separators are escaped, as Go's encoder does by default.
pub(crate) fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    escaped(text.as_bytes(), plain_output, out);
    out.push(b'"');
}

/// Carried JSON, with the escapes that Go adds when it prints it. Inside JSON such characters only stand in strings.
pub(crate) fn raw(text: &str, out: &mut Vec<u8>) {
    escaped(text.as_bytes(), plain_raw, out);
}

fn escaped(mut bytes: &[u8], plain: fn(&[u8]) -> usize, out: &mut Vec<u8>) {
    loop {
        let (clean, rest) = bytes.split_at(plain(bytes));
        out.extend_from_slice(clean);
        let Some(&byte) = rest.first() else { return };
        let width = match (byte, line_separator(rest)) {
            (0xE2, Some(escape)) => {
                out.extend_from_slice(escape);
                3
            }
            (0xE2, None) => {
                out.push(byte);
                1
            }
            _ => {
                escape(byte, out);
                1
            }
        };
        bytes = &rest[width..];
    }
}

fn line_separator(bytes: &[u8]) -> Option<&'static [u8]> {
    match bytes.get(..3)? {
        [0xE2, 0x80, 0xA8] => Some(b"\\u2028"),
        [0xE2, 0x80, 0xA9] => Some(b"\\u2029"),
        _ => None,
    }
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0x08 => out.extend_from_slice(b"\\b"),
        0x0C => out.extend_from_slice(b"\\f"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}
