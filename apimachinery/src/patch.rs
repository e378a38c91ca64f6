//! The three patches of the API: RFC 6902, RFC 7386 and strategic merge. The result is a plain tree: pass it through `json::conform`.

use crate::schema::TypeId;
use crate::value::Value;

/// Operations in one JSON patch, as upstream.
pub const MAX_JSON_PATCH_OPERATIONS: usize = 10_000;

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

pub fn json_patch(value: &mut Value, ops: &Value) -> Result<(), PatchError> {
    Err(PatchError::BadRequest(format!("{value:?} {ops:?}")))
}

pub fn merge_patch(value: &mut Value, patch: &Value) {
    *value = patch.clone();
}

pub fn strategic(value: &mut Value, patch: &Value, ty: TypeId) -> Result<(), PatchError> {
    Err(PatchError::BadRequest(format!("{value:?} {patch:?} {ty:?}")))
}
