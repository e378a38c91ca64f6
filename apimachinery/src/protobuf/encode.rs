//! The tree as gogo's bytes.

use super::Error;
use super::wire::{put_bytes, put_delimited, put_tag, put_varint};
use crate::json;
use crate::schema::{Field, Message, ProtoNode, SchemaAlternative, Shape, Type, TypeId};
use crate::time::Timestamp;
use crate::value::{Object, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

type Result<T> = std::result::Result<T, Error>;

pub(super) fn message(value: &Value, ty: TypeId, out: &mut Vec<u8>) -> Result<()> {
    let Some(object) = value.as_object() else {
        return Err(mismatch("object", value));
    };
    fields(object, ty.get(), out)
}

/// No struct of the API has more fields; a test of the schema checks that.
const MAX_FIELDS: usize = 128;

const ABSENT: u16 = u16::MAX;

fn fields(object: &Object, ty: &'static Type, out: &mut Vec<u8>) -> Result<()> {
    let mut places = [ABSENT; MAX_FIELDS];
    for ((key, _), place) in object.pairs().iter().zip(0..) {
        if let Some(index) = ty.index_of_key(key) {
            places[index] = place;
        }
    }
    put_message(
        &Located {
            object,
            places: &places,
            ty,
        },
        &ty.message,
        out,
    )
}

/// An object with the place of each schema field in it.
struct Located<'a> {
    object: &'a Object,
    places: &'a [u16; MAX_FIELDS],
    ty: &'static Type,
}

impl<'a> Located<'a> {
    fn get(&self, index: usize) -> Option<&'a Value> {
        let (_, value) = self.object.pairs().get(usize::from(self.places[index]))?;
        (!value.is_null()).then_some(value)
    }
}

fn put_message(located: &Located<'_>, message: &Message, out: &mut Vec<u8>) -> Result<()> {
    for proto in &message.fields {
        match &proto.node {
            ProtoNode::Inline(inner) => {
                put_delimited(proto.tag, out, |out| put_message(located, inner, out))?
            }
            ProtoNode::Leaf(index) => {
                let field = &located.ty.fields[*index];
                match located.get(*index) {
                    Some(value) => put_field(field, value, out).map_err(|e| within(field.name, e))?,
                    None if !field.pointer => put_zero(proto.tag, &field.shape, out)?,
                    None => {}
                }
            }
        }
    }
    Ok(())
}

fn within(name: &str, error: Error) -> Error {
    match error {
        Error::Value(text) => Error::Value(format!("{name}: {text}")),
        wire => wire,
    }
}

fn put_field(field: &Field, value: &Value, out: &mut Vec<u8>) -> Result<()> {
    match &field.shape {
        Shape::List(item) => list(value)?
            .iter()
            .try_for_each(|value| put(field.tag, item, value, out)),
        Shape::Map(item) => put_map(field.tag, item, value, out),
        shape => put(field.tag, shape, value, out),
    }
}

/// What gogo writes for a non-pointer field that is not set.
fn put_zero(tag: u32, shape: &Shape, out: &mut Vec<u8>) -> Result<()> {
    match shape {
        Shape::List(_) | Shape::Map(_) | Shape::Bytes | Shape::Items(_) => Ok(()),
        Shape::Bool | Shape::Int32 | Shape::Int64 => {
            put_tag(tag, 0, out);
            out.push(0);
            Ok(())
        }
        Shape::Double => {
            put_double(tag, 0.0, out);
            Ok(())
        }
        Shape::Quantity => put(tag, shape, &Value::from("0"), out),
        Shape::IntOrString => put(tag, shape, &Value::Int(0), out),
        Shape::Struct(ty) => put_delimited(tag, out, |out| fields(&Object::new(), ty.get(), out)),
        Shape::SchemaOr(_, SchemaAlternative::Bool) => put(tag, shape, &Value::Bool(false), out),
        Shape::String | Shape::Time | Shape::MicroTime | Shape::Raw(_) | Shape::SchemaOr(..) => {
            put_bytes(tag, &[], out);
            Ok(())
        }
    }
}

fn put(tag: u32, shape: &Shape, value: &Value, out: &mut Vec<u8>) -> Result<()> {
    if value.is_null() {
        return put_zero(tag, shape, out);
    }
    match shape {
        Shape::Bool => put_int(
            tag,
            u64::from(value.as_bool().ok_or_else(|| mismatch("bool", value))?),
            out,
        ),
        Shape::Int32 | Shape::Int64 => put_int(tag, int(value)? as u64, out),
        Shape::Double => put_double(
            tag,
            value.as_float().ok_or_else(|| mismatch("number", value))?,
            out,
        ),
        Shape::String => put_bytes(tag, string(value)?.as_bytes(), out),
        Shape::Bytes => put_base64(tag, string(value)?, out)?,
        Shape::Time | Shape::MicroTime => put_time(tag, string(value)?, out)?,
        Shape::Quantity => {
            let text = string(value)?.as_bytes();
            put_delimited(tag, out, |out| {
                put_bytes(1, text, out);
                Ok(())
            })?;
        }
        Shape::IntOrString => put_delimited(tag, out, |out| put_int_or_string(value, out))?,
        Shape::Raw(_) => put_raw(tag, value, out),
        Shape::Struct(ty) => {
            let object = value.as_object().ok_or_else(|| mismatch("object", value))?;
            put_delimited(tag, out, |out| fields(object, ty.get(), out))?;
        }
        Shape::Items(item) => {
            put_delimited(tag, out, |out| {
                list(value)?.iter().try_for_each(|value| put(1, item, value, out))
            })?;
        }
        Shape::SchemaOr(ty, alternative) => {
            put_delimited(tag, out, |out| put_schema_or(*ty, *alternative, value, out))?
        }
        Shape::List(_) | Shape::Map(_) => {
            return Err(Error::Value("lists of lists have no protobuf form".to_owned()));
        }
    }
    Ok(())
}

fn put_int(tag: u32, value: u64, out: &mut Vec<u8>) {
    put_tag(tag, 0, out);
    put_varint(value, out);
}

fn put_double(tag: u32, value: f64, out: &mut Vec<u8>) {
    put_tag(tag, 1, out);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

fn put_base64(tag: u32, text: &str, out: &mut Vec<u8>) -> Result<()> {
    let bytes = STANDARD
        .decode(text)
        .map_err(|_| Error::Value("illegal base64 data".to_owned()))?;
    put_bytes(tag, &bytes, out);
    Ok(())
}

fn put_time(tag: u32, text: &str, out: &mut Vec<u8>) -> Result<()> {
    let time = Timestamp::parse(text).ok_or_else(|| Error::Value(format!("{text:?} is no RFC 3339 time")))?;
    put_delimited(tag, out, |out| {
        put_int(1, time.seconds as u64, out);
        put_int(2, u64::from(time.nanos), out);
        Ok(())
    })
}

fn put_int_or_string(value: &Value, out: &mut Vec<u8>) -> Result<()> {
    let (kind, number, text) = match value {
        Value::Str(text) => (1, 0, text.as_str()),
        other => (0, int(other)?, ""),
    };
    put_int(1, kind, out);
    put_int(2, number as u64, out);
    put_bytes(3, text.as_bytes(), out);
    Ok(())
}

fn put_raw(tag: u32, value: &Value, out: &mut Vec<u8>) {
    let text = match value {
        Value::Raw(text) => std::borrow::Cow::Borrowed(text.as_bytes()),
        tree => json::to_vec(tree).into(),
    };
    // Its length is that of one field with tag 1.
    let mut field = Vec::with_capacity(text.len() + 6);
    put_bytes(1, &text, &mut field);
    put_bytes(tag, &field, out);
}

fn put_schema_or(ty: TypeId, alternative: SchemaAlternative, value: &Value, out: &mut Vec<u8>) -> Result<()> {
    let schema = Shape::Struct(ty);
    match (alternative, value) {
        (SchemaAlternative::Bool, Value::Bool(allows)) => put_int(1, u64::from(*allows), out),
        (SchemaAlternative::Bool, Value::Object(_)) => {
            put_int(1, 1, out);
            put(2, &schema, value, out)?;
        }
        (SchemaAlternative::Array, Value::List(items)) => {
            items.iter().try_for_each(|item| put(2, &schema, item, out))?
        }
        (SchemaAlternative::Strings, Value::List(items)) => items
            .iter()
            .try_for_each(|item| put(2, &Shape::String, item, out))?,
        (_, Value::Object(_)) => put(1, &schema, value, out)?,
        _ => return Err(mismatch("JSON schema", value)),
    }
    Ok(())
}

fn put_map(tag: u32, item: &Shape, value: &Value, out: &mut Vec<u8>) -> Result<()> {
    let object = value.as_object().ok_or_else(|| mismatch("object", value))?;
    let pairs = object.pairs();
    let sorted = pairs.is_sorted_by(|a, b| a.0 <= b.0);
    let mut order: Vec<usize> = Vec::new();
    if !sorted {
        order = (0..pairs.len()).collect();
        order.sort_by(|&a, &b| pairs[a].0.cmp(&pairs[b].0));
    }
    for place in 0..pairs.len() {
        let (key, value) = &pairs[order.get(place).copied().unwrap_or(place)];
        put_delimited(tag, out, |out| {
            put_bytes(1, key.as_bytes(), out);
            put(2, item, value, out)
        })?;
    }
    Ok(())
}

fn int(value: &Value) -> Result<i64> {
    value.as_int().ok_or_else(|| mismatch("integer", value))
}

fn string(value: &Value) -> Result<&str> {
    value.as_str().ok_or_else(|| mismatch("string", value))
}

fn list(value: &Value) -> Result<&[Value]> {
    value.as_list().ok_or_else(|| mismatch("array", value))
}

fn mismatch(wanted: &str, value: &Value) -> Error {
    Error::Value(format!("expected {wanted}, found {}", value.json_type()))
}
