//! Validation errors of single fields, with upstream's types and texts.

use crate::json;
use crate::value::Value;
use std::fmt;

/// Where a field is, e.g. `spec.containers[0].ports[1].name`. Nothing is allocated until it is printed.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    pub const fn new(name: &'a str) -> Path<'a> {
        Path {
            parent: None,
            step: Step::Field(name),
        }
    }

    /// `name` may be dotted: `spec.child("template.spec")`.
    pub const fn child(&'a self, name: &'a str) -> Path<'a> {
        Path {
            parent: Some(self),
            step: Step::Field(name),
        }
    }

    pub const fn index(&'a self, index: usize) -> Path<'a> {
        Path {
            parent: Some(self),
            step: Step::Index(index),
        }
    }

    pub const fn key(&'a self, key: &'a str) -> Path<'a> {
        Path {
            parent: Some(self),
            step: Step::Key(key),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
        }
        match self.step {
            Step::Field(name) if self.parent.is_some() => write!(f, ".{name}"),
            Step::Field(name) => f.write_str(name),
            Step::Index(i) => write!(f, "[{i}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooShort,
    TooMany,
    TooFew,
    Internal,
    TypeInvalid,
}

impl ErrorType {
    /// The `reason` of a Status cause.
    pub fn reason(self) -> &'static str {
        match self {
            ErrorType::NotFound => "FieldValueNotFound",
            ErrorType::Required => "FieldValueRequired",
            ErrorType::Duplicate => "FieldValueDuplicate",
            ErrorType::Invalid => "FieldValueInvalid",
            ErrorType::NotSupported => "FieldValueNotSupported",
            ErrorType::Forbidden => "FieldValueForbidden",
            ErrorType::TooLong => "FieldValueTooLong",
            ErrorType::TooShort => "FieldValueTooShort",
            ErrorType::TooMany => "FieldValueTooMany",
            ErrorType::TooFew => "FieldValueTooFew",
            ErrorType::Internal => "InternalError",
            ErrorType::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn text(self) -> &'static str {
        match self {
            ErrorType::NotFound => "Not found",
            ErrorType::Required => "Required value",
            ErrorType::Duplicate => "Duplicate value",
            ErrorType::Invalid | ErrorType::TypeInvalid => "Invalid value",
            ErrorType::NotSupported => "Unsupported value",
            ErrorType::Forbidden => "Forbidden",
            ErrorType::TooLong => "Too long",
            ErrorType::TooShort => "Too short",
            ErrorType::TooMany => "Too many",
            ErrorType::TooFew => "Too few",
            ErrorType::Internal => "Internal error",
        }
    }

    fn shows_value(self) -> bool {
        use ErrorType::*;
        !matches!(self, Required | Forbidden | TooLong | TooShort | Internal)
    }
}

/// One invalid field.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    pub kind: ErrorType,
    pub field: String,
    /// Printed after the type's text, where that type prints a value.
    pub bad_value: Option<Value>,
    pub detail: String,
}

pub type ErrorList = Vec<Error>;

impl Error {
    fn new(kind: ErrorType, field: &Path<'_>, bad_value: Option<Value>, detail: impl Into<String>) -> Error {
        Error {
            kind,
            field: field.to_string(),
            bad_value,
            detail: detail.into(),
        }
    }

    /// The text without the field's path: the `message` of a Status cause.
    pub fn body(&self) -> String {
        let mut text = self.kind.text().to_owned();
        if let (true, Some(value)) = (self.kind.shows_value(), &self.bad_value) {
            text.push_str(": ");
            text.push_str(&show(value));
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

impl std::error::Error for Error {}

fn show(value: &Value) -> String {
    match value {
        Value::Str(s) => quote(s),
        Value::Float(f) => f.to_string(),
        other => String::from_utf8_lossy(&json::to_vec(other)).into_owned(),
    }
}

/// Go's `%q`.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0b' => out.push_str("\\v"),
            '\x0c' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c == '\x7f' => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

pub fn required(field: &Path<'_>, detail: impl Into<String>) -> Error {
    Error::new(ErrorType::Required, field, None, detail)
}

pub fn invalid(field: &Path<'_>, value: impl Into<Value>, detail: impl Into<String>) -> Error {
    Error::new(ErrorType::Invalid, field, Some(value.into()), detail)
}

pub fn type_invalid(field: &Path<'_>, value: impl Into<Value>, detail: impl Into<String>) -> Error {
    Error::new(ErrorType::TypeInvalid, field, Some(value.into()), detail)
}

pub fn forbidden(field: &Path<'_>, detail: impl Into<String>) -> Error {
    Error::new(ErrorType::Forbidden, field, None, detail)
}

pub fn not_found(field: &Path<'_>, value: impl Into<Value>) -> Error {
    Error::new(ErrorType::NotFound, field, Some(value.into()), "")
}

pub fn duplicate(field: &Path<'_>, value: impl Into<Value>) -> Error {
    Error::new(ErrorType::Duplicate, field, Some(value.into()), "")
}

/// `valid` is printed in the order given; upstream sorts its sets.
pub fn not_supported(field: &Path<'_>, value: impl Into<Value>, valid: &[&str]) -> Error {
    let quoted: Vec<String> = valid.iter().map(|v| quote(v)).collect();
    let detail = if valid.is_empty() {
        String::new()
    } else {
        format!("supported values: {}", quoted.join(", "))
    };
    Error::new(ErrorType::NotSupported, field, Some(value.into()), detail)
}

pub fn too_long(field: &Path<'_>, max_bytes: usize) -> Error {
    let unit = if max_bytes == 1 { "byte" } else { "bytes" };
    Error::new(
        ErrorType::TooLong,
        field,
        None,
        format!("may not be more than {max_bytes} {unit}"),
    )
}

pub fn too_many(field: &Path<'_>, actual: usize, max: usize) -> Error {
    let unit = if max == 1 { "item" } else { "items" };
    let actual = Value::Int(i64::try_from(actual).unwrap_or(i64::MAX));
    Error::new(
        ErrorType::TooMany,
        field,
        Some(actual),
        format!("must have at most {max} {unit}"),
    )
}

pub fn internal(field: &Path<'_>, detail: impl Into<String>) -> Error {
    Error::new(ErrorType::Internal, field, None, detail)
}

/// The errors as one text, as Go's aggregate prints them: distinct ones, in brackets when there are several.
pub fn aggregate(errors: &[Error]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for text in errors.iter().map(Error::to_string) {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_upstream_prints_them() {
        let spec = Path::new("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        let name = first.child("name");
        assert_eq!(
            required(&name, "").to_string(),
            "spec.containers[0].name: Required value"
        );
        assert_eq!(
            invalid(&name, "A", "must be lower").to_string(),
            "spec.containers[0].name: Invalid value: \"A\": must be lower"
        );
        assert_eq!(
            not_supported(&spec.child("restartPolicy"), "Sometimes", &["Always", "Never"]).to_string(),
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\""
        );
        assert_eq!(
            duplicate(&name, 7).to_string(),
            "spec.containers[0].name: Duplicate value: 7"
        );
        assert_eq!(
            too_long(&name, 63).to_string(),
            "spec.containers[0].name: Too long: may not be more than 63 bytes"
        );
    }

    #[test]
    fn an_aggregate_drops_repeats() {
        let spec = Path::new("spec");
        let a = required(&spec, "");
        assert_eq!(aggregate(&[a.clone(), a.clone()]), "spec: Required value");
        assert_eq!(
            aggregate(&[a, forbidden(&spec, "no")]),
            "[spec: Required value, spec: Forbidden: no]"
        );
    }
}
