//! Kubernetes' protobuf: gogo's bytes for every built-in type, and the `k8s\0` envelope around them.
//!
//! gogo writes fields by tag, every non-pointer field even when it is zero, and maps sorted by key. `kind` and `apiVersion`
//! are not in the message but in the envelope.

mod decode;
mod encode;
mod envelope;
mod to_json;
mod wire;

pub use envelope::{MAGIC, Unknown, encode_wrapped, unwrap, with_resource_version, wrap};

use crate::schema::{Gvk, TypeId};
use crate::value::Value;

#[derive(Debug, thiserror::Error, PartialEq)]
pub enum Error {
    /// Bytes that are no such message.
    #[error("proto: {0}")]
    Wire(&'static str),
    /// A tree that does not have the type's shape.
    #[error("{0}")]
    Value(String),
}

/// What storage does not keep in the body and every answer carries. Empty strings inject nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inject<'a> {
    pub resource_version: &'a str,
    pub api_version: &'a str,
    pub kind: &'a str,
}

/// A message (without envelope) as a tree in Go's image. `kind` and `apiVersion` are filled in from the type.
pub fn decode(raw: &[u8], ty: TypeId) -> Result<Value, Error> {
    decode::message(raw, ty)
}

/// Appends the message of `value`, without envelope, byte for byte as gogo writes it.
pub fn encode(value: &Value, ty: TypeId, out: &mut Vec<u8>) -> Result<(), Error> {
    encode::message(value, ty, out)
}

/// Appends a message as JSON without building a tree: the same bytes that `json::encode` writes after `decode`.
pub fn to_json(raw: &[u8], ty: TypeId, inject: &Inject<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    to_json::message(raw, ty, inject, out)
}

/// The kind that an envelope names.
pub fn gvk<'a>(unknown: &Unknown<'a>) -> Gvk<'a> {
    Gvk::parse(unknown.api_version, unknown.kind)
}

#[cfg(test)]
mod tests;
