//! JSON in and out.
//!
//! `decode` reads a document against a type in one pass and leaves Go's image of it: unknown fields gone, zero values
//! that Go omits gone, fields that Go always prints present, times and quantities in canonical form.

mod decode;
mod encode;
mod read;
mod scan;

pub use encode::{encode, to_vec};
pub(crate) use encode::{float, int, raw, string};
pub(crate) use read::Reader;

use crate::schema::TypeId;
use crate::value::Value;

/// Nesting of objects and lists. Go allows 10,000; nothing real passes 60, and each level costs us stack.
pub const MAX_DEPTH: usize = 256;

/// Strict errors collected before upstream stops counting.
pub const MAX_STRICT_ERRORS: usize = 100;

/// The `fieldValidation` query parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Unknown and duplicate fields are an error.
    Strict,
    /// They are reported in `Decoded::warnings`. Upstream's default.
    #[default]
    Warn,
    Ignore,
}

#[derive(Debug)]
pub struct Decoded {
    pub value: Value,
    /// `unknown field "spec.foo"`, `duplicate field "spec.bar"`: what a Warning header says.
    pub warnings: Vec<String>,
}

#[derive(Debug, thiserror::Error, PartialEq)]
pub enum DecodeError {
    #[error("{0}")]
    Syntax(String),
    #[error("json: cannot unmarshal {found} into Go struct field {field} of type {expected}")]
    Type {
        found: String,
        field: String,
        expected: String,
    },
    #[error("{0}")]
    Value(String),
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
    #[error("exceeded max depth")]
    TooDeep,
}

/// Reads one document against `ty`, or as plain JSON without it.
pub fn decode(bytes: &[u8], ty: Option<TypeId>, validation: FieldValidation) -> Result<Decoded, DecodeError> {
    let (value, problems) = decode::document(bytes, ty, validation)?;
    if validation == FieldValidation::Strict && !problems.is_empty() {
        return Err(DecodeError::Strict(problems));
    }
    Ok(Decoded {
        value,
        warnings: problems,
    })
}

/// Plain JSON: objects become sorted maps, duplicate keys keep the last value.
pub fn decode_untyped(bytes: &[u8]) -> Result<Value, DecodeError> {
    Ok(decode(bytes, None, FieldValidation::Ignore)?.value)
}

/// Brings a tree that was patched or built by hand into the image of `ty`, with the checks of `decode`.
pub fn conform(value: &Value, ty: TypeId, validation: FieldValidation) -> Result<Decoded, DecodeError> {
    decode(&to_vec(value), Some(ty), validation)
}

#[cfg(test)]
mod tests;
