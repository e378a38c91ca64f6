//! `runtime.Unknown`: the magic number and the message that says what the bytes in it are.

use super::wire::{Wire, put_bytes, put_delimited, put_tag, put_varint};
use super::{Error, encode};
use crate::schema::{Gvk, Shape, TypeId};
use crate::value::Value;

/// First bytes of every stored or sent protobuf object.
pub const MAGIC: [u8; 4] = *b"k8s\0";

/// The content of an envelope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unknown<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub raw: &'a [u8],
    pub content_encoding: &'a str,
    pub content_type: &'a str,
}

/// Appends the envelope around a message.
pub fn wrap(gvk: Gvk<'_>, raw: &[u8], out: &mut Vec<u8>) {
    out.reserve(raw.len() + 64);
    head(gvk, out);
    put_bytes(2, raw, out);
    tail(out);
}

/// Appends envelope and message at once.
pub fn encode_wrapped(value: &Value, ty: TypeId, gvk: Gvk<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    head(gvk, out);
    put_delimited(2, out, |out| encode(value, ty, out))?;
    tail(out);
    Ok(())
}

fn head(gvk: Gvk<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(&MAGIC);
    let group = if gvk.group.is_empty() {
        0
    } else {
        gvk.group.len() + 1
    };
    let api_version_len = group + gvk.version.len();
    let len = [api_version_len, gvk.kind.len()]
        .iter()
        .map(|len| 1 + varint_width(*len) + len)
        .sum::<usize>();
    put_tag(1, 2, out);
    put_varint(len as u64, out);
    put_tag(1, 2, out);
    put_varint(api_version_len as u64, out);
    if group > 0 {
        out.extend_from_slice(gvk.group.as_bytes());
        out.push(b'/');
    }
    out.extend_from_slice(gvk.version.as_bytes());
    put_bytes(2, gvk.kind.as_bytes(), out);
}

fn varint_width(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// The encoding and the type of the content: empty, as upstream writes them.
fn tail(out: &mut Vec<u8>) {
    put_bytes(3, &[], out);
    put_bytes(4, &[], out);
}

pub fn unwrap(bytes: &[u8]) -> Result<Unknown<'_>, Error> {
    let body = bytes.strip_prefix(&MAGIC).ok_or(Error::Wire(
        "provided data does not appear to be a protobuf message, expected prefix k8s\\0",
    ))?;
    let mut unknown = Unknown::default();
    let mut wire = Wire::new(body);
    while let Some((tag, payload)) = wire.next()? {
        match tag {
            1 => (unknown.api_version, unknown.kind) = type_meta(payload.bytes()?)?,
            2 => unknown.raw = payload.bytes()?,
            3 => unknown.content_encoding = utf8(payload.bytes()?)?,
            4 => unknown.content_type = utf8(payload.bytes()?)?,
            _ => {}
        }
    }
    Ok(unknown)
}

fn type_meta(raw: &[u8]) -> Result<(&str, &str), Error> {
    let (mut api_version, mut kind) = ("", "");
    let mut wire = Wire::new(raw);
    while let Some((tag, payload)) = wire.next()? {
        match tag {
            1 => api_version = utf8(payload.bytes()?)?,
            2 => kind = utf8(payload.bytes()?)?,
            _ => {}
        }
    }
    Ok((api_version, kind))
}

fn utf8(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|_| Error::Wire("string is not UTF-8"))
}

/// Appends the message (without envelope) with `metadata.resourceVersion` set.
pub fn with_resource_version(
    raw: &[u8],
    ty: TypeId,
    resource_version: &str,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let metadata = ty
        .field("metadata")
        .ok_or(Error::Wire("the type has no metadata"))?;
    let Shape::Struct(meta) = &metadata.shape else {
        return Err(Error::Wire("the type has no metadata"));
    };
    let version_tag = meta.field("resourceVersion").map_or(0, |field| field.tag);
    out.reserve(raw.len() + resource_version.len() + 8);
    let (before, inside, after) = cut(raw, metadata.tag)?;
    out.extend_from_slice(before);
    put_delimited(metadata.tag, out, |out| {
        let (before, _, after) = cut(inside, version_tag)?;
        out.extend_from_slice(before);
        put_bytes(version_tag, resource_version.as_bytes(), out);
        out.extend_from_slice(after);
        Ok(())
    })?;
    out.extend_from_slice(after);
    Ok(())
}

/// What stands before the field `wanted`, in it and after it. Where it is absent, it belongs at the place that its tag gives.
fn cut(raw: &[u8], wanted: u32) -> Result<(&[u8], &[u8], &[u8]), Error> {
    let mut wire = Wire::new(raw);
    loop {
        let start = wire.position();
        match wire.next()? {
            Some((tag, payload)) if tag == wanted => {
                return Ok((&raw[..start], payload.bytes()?, &raw[wire.position()..]));
            }
            Some((tag, _)) if tag < wanted => {}
            _ => return Ok((&raw[..start], &[], &raw[start..])),
        }
    }
}
