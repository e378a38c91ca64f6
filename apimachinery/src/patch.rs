//! The three patches of the API: RFC 6902, RFC 7386 and strategic merge.
//!
//! They change a plain tree and know nothing of validity: pass the result through `json::conform`, which brings it back into
//! Go's image and finds unknown fields and wrong types. Carried JSON (`Value::Raw`) is opened when a patch steps into it.

mod json_patch;
mod strategic;

pub use json_patch::json_patch;
pub use strategic::strategic;

use crate::json;
use crate::value::{Object, Str, Value};

/// Operations in one JSON patch, as upstream.
pub const MAX_JSON_PATCH_OPERATIONS: usize = 10_000;

/// Bytes that the `copy` operations of one JSON patch may add together, as upstream.
pub const MAX_JSON_PATCH_COPY_BYTES: usize = 3 * 1024 * 1024;

#[derive(Debug, thiserror::Error, PartialEq)]
pub enum PatchError {
    /// The patch itself is malformed: 400.
    #[error("{0}")]
    BadRequest(String),
    /// The patch is sound but does not fit the object: 422.
    #[error("{0}")]
    Unprocessable(String),
    /// Too many operations: 413.
    #[error("{0}")]
    TooLarge(String),
}

/// RFC 7386: objects merge, null deletes, everything else replaces.
pub fn merge_patch(value: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *value = patch.clone();
        return;
    };
    open(value);
    let object = value.make_object();
    for (key, patch) in patch.pairs() {
        if patch.is_null() {
            object.remove(key);
        } else {
            merge_patch(object.entry(key.clone()), patch);
        }
    }
}

/// Turns carried JSON into a tree, so that a patch can step into it.
fn open(value: &mut Value) {
    if let Value::Raw(text) = value {
        // The text was checked when it was read.
        *value = json::decode_untyped(text.as_bytes()).unwrap_or_default();
    }
}

/// The same key as a struct's own, where it has it: patched trees keep borrowed keys.
fn take_all(object: &mut Object) -> impl Iterator<Item = (Str, Value)> + use<> {
    std::mem::take(object).into_iter()
}

#[cfg(test)]
mod tests;
