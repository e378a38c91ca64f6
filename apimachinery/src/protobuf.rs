//! Kubernetes' protobuf: gogo's bytes for every built-in type, and the `k8s\0` envelope around them.

use crate::schema::{Gvk, TypeId};
use crate::value::Value;

/// First bytes of every stored or sent protobuf object.
pub const MAGIC: [u8; 4] = *b"k8s\0";

#[derive(Debug, thiserror::Error, PartialEq)]
pub enum Error {
    #[error("proto: {0}")]
    Wire(&'static str),
    #[error("{0}")]
    Value(String),
}

/// What storage does not keep in the body and every answer carries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inject<'a> {
    pub resource_version: &'a str,
    pub api_version: &'a str,
    pub kind: &'a str,
}

/// The content of a `runtime.Unknown` envelope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unknown<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub raw: &'a [u8],
    pub content_encoding: &'a str,
    pub content_type: &'a str,
}

/// A message (without envelope) as a tree in Go's image. `kind` and `apiVersion` are filled from the type.
pub fn decode(raw: &[u8], ty: TypeId) -> Result<Value, Error> {
    Err(Error::Value(format!("{} bytes of {ty:?}", raw.len())))
}

/// Appends the message of `value`, without envelope, byte for byte as gogo writes it.
pub fn encode(value: &Value, ty: TypeId, out: &mut Vec<u8>) -> Result<(), Error> {
    Err(Error::Value(format!("{value:?} {ty:?} {}", out.len())))
}

/// Appends the envelope around a message.
pub fn wrap(gvk: Gvk<'_>, raw: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(gvk.kind.as_bytes());
    out.extend_from_slice(raw);
}

pub fn unwrap(bytes: &[u8]) -> Result<Unknown<'_>, Error> {
    Ok(Unknown { raw: bytes, ..Default::default() })
}

/// Message to JSON without a tree.
pub fn to_json(raw: &[u8], ty: TypeId, inject: &Inject<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    crate::json::encode(&decode(raw, ty)?, out);
    out.extend_from_slice(inject.kind.as_bytes());
    Ok(())
}

/// Appends the message with `metadata.resourceVersion` set.
pub fn with_resource_version(raw: &[u8], ty: TypeId, resource_version: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    Err(Error::Value(format!("{} {ty:?} {resource_version} {}", raw.len(), out.len())))
}
