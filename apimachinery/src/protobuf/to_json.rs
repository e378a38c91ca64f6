//! gogo's bytes straight to JSON.
//!
//! JSON wants Go's field order, the wire has tag order: each message is first surveyed (where does each field begin and end),
//! then written field by field. Nothing is allocated but the output.

use super::decode::{first_bytes, time};
use super::wire::{MAX_DEPTH, Payload, Wire};
use super::{Error, Inject};
use crate::image::zero;
use crate::json;
use crate::schema::{Field, Message, ProtoNode, SchemaAlternative, Shape, Type, TypeId};
use crate::time::Timestamp;
use crate::value::Value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use smallvec::{SmallVec, smallvec};

type Result<T> = std::result::Result<T, Error>;

pub(super) fn message(raw: &[u8], ty: TypeId, inject: &Inject<'_>, out: &mut Vec<u8>) -> Result<()> {
    let mut writer = Writer { out, depth: 0 };
    writer.top(raw, ty.get(), inject)
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    depth: usize,
}

/// What a survey finds of a field.
#[derive(Clone, Copy)]
enum Found<'a> {
    Nothing,
    /// The last occurrence, which is the one that counts.
    Once(Payload<'a>),
    /// Lists and maps: the bytes from the first occurrence to the end of the last; others may stand between.
    Span(&'a [u8]),
}

/// One entry for each field of the type. Most structs fit without allocation.
type Survey<'a> = SmallVec<[Found<'a>; 32]>;

fn survey<'a>(raw: &'a [u8], ty: &'static Type) -> Result<Survey<'a>> {
    let mut found: Survey<'a> = smallvec![Found::Nothing; ty.fields.len()];
    survey_message(raw, ty, &ty.message, &mut found)?;
    Ok(found)
}

fn survey_message<'a>(
    raw: &'a [u8],
    ty: &'static Type,
    message: &'static Message,
    all: &mut Survey<'a>,
) -> Result<()> {
    let mut wire = Wire::new(raw);
    loop {
        let start = wire.position();
        let Some((tag, payload)) = wire.next()? else {
            return Ok(());
        };
        match message.by_tag(tag).map(|proto| &proto.node) {
            None => {}
            Some(ProtoNode::Inline(inner)) => survey_message(payload.bytes()?, ty, inner, all)?,
            Some(&ProtoNode::Leaf(index)) => {
                all[index] = match (&ty.fields[index].shape, all[index]) {
                    (Shape::List(_) | Shape::Map(_), before) => {
                        Found::Span(&raw[span_start(raw, before, start)..wire.position()])
                    }
                    _ => Found::Once(payload),
                };
            }
        }
    }
}

/// Where the span that ends here begins. A span of an earlier inlined twin does not count.
fn span_start(raw: &[u8], before: Found<'_>, start: usize) -> usize {
    match before {
        Found::Span(span) => offset_in(raw, span).unwrap_or(start),
        _ => start,
    }
}

/// Where `part` begins in `whole`, if it is a slice of it.
fn offset_in(whole: &[u8], part: &[u8]) -> Option<usize> {
    let offset = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    (offset + part.len() <= whole.len()).then_some(offset)
}

impl Writer<'_> {
    fn top(&mut self, raw: &[u8], ty: &'static Type, inject: &Inject<'_>) -> Result<()> {
        let survey = survey(raw, ty)?;
        let mut comma = self.open();
        for (key, text) in [
            ("\"kind\":", inject.kind),
            ("\"apiVersion\":", inject.api_version),
        ] {
            if !text.is_empty() {
                self.key(key, &mut comma);
                json::string(text, self.out);
            }
        }
        for (field, found) in ty.fields.iter().zip(&survey).filter(|(field, _)| field.tag != 0) {
            match (&field.shape, field.name) {
                (Shape::Struct(meta), "metadata") if !inject.resource_version.is_empty() => {
                    self.key(field.quoted, &mut comma);
                    let raw = if let Found::Once(payload) = found {
                        payload.bytes()?
                    } else {
                        &[]
                    };
                    self.metadata(raw, meta.get(), inject.resource_version)?;
                }
                _ => self.field(field, *found, &mut comma)?,
            }
        }
        self.close();
        Ok(())
    }

    fn metadata(&mut self, raw: &[u8], ty: &'static Type, resource_version: &str) -> Result<()> {
        let survey = survey(raw, ty)?;
        let mut comma = self.open();
        for (field, found) in ty.fields.iter().zip(&survey) {
            if field.name == "resourceVersion" {
                self.key(field.quoted, &mut comma);
                json::string(resource_version, self.out);
            } else {
                self.field(field, *found, &mut comma)?;
            }
        }
        self.close();
        Ok(())
    }

    fn object(&mut self, raw: &[u8], ty: &'static Type) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Error::Wire("exceeded max depth"));
        }
        let survey = survey(raw, ty)?;
        let mut comma = self.open();
        for (field, found) in ty.fields.iter().zip(&survey) {
            self.field(field, *found, &mut comma)?;
        }
        self.close();
        self.depth -= 1;
        Ok(())
    }

    fn open(&mut self) -> bool {
        self.out.push(b'{');
        false
    }

    fn close(&mut self) {
        self.out.push(b'}');
    }

    fn comma(&mut self, comma: &mut bool) {
        if std::mem::replace(comma, true) {
            self.out.push(b',');
        }
    }

    fn key(&mut self, quoted: &str, comma: &mut bool) {
        self.comma(comma);
        self.out.extend_from_slice(quoted.as_bytes());
    }

    fn field(&mut self, field: &'static Field, found: Found<'_>, comma: &mut bool) -> Result<()> {
        match (found, &field.shape) {
            (Found::Nothing, _) if !field.always => return Ok(()),
            (Found::Once(payload), _) if !field.always && is_left_out(field, payload)? => return Ok(()),
            _ => self.key(field.quoted, comma),
        }
        match (found, &field.shape) {
            (Found::Once(payload), shape) => self.value(shape, payload),
            (Found::Span(span), Shape::List(item)) if field.kinded => self.kinded_list(span, field.tag, item),
            (Found::Span(span), Shape::List(item)) => self.list(span, field.tag, item),
            (Found::Span(span), Shape::Map(item)) => self.map(span, field.tag, item),
            _ => {
                let value = if field.pointer {
                    Value::Null
                } else {
                    zero(&field.shape)
                };
                json::encode(&value, self.out);
                Ok(())
            }
        }
    }

    fn list(&mut self, span: &[u8], wanted: u32, item: &Shape) -> Result<()> {
        self.out.push(b'[');
        let mut comma = false;
        let mut wire = Wire::new(span);
        while let Some((tag, payload)) = wire.next()? {
            if tag != wanted {
                continue;
            }
            if let (Shape::Int32 | Shape::Int64 | Shape::Bool, Payload::Bytes(packed)) = (item, payload) {
                self.packed(packed, item, &mut comma)?;
                continue;
            }
            self.comma(&mut comma);
            self.value(item, payload)?;
        }
        self.out.push(b']');
        Ok(())
    }

    /// A list whose items say what they are.
    fn kinded_list(&mut self, span: &[u8], wanted: u32, item: &Shape) -> Result<()> {
        let Shape::Struct(id) = item else {
            return self.list(span, wanted, item);
        };
        let ty = id.get();
        let Some(gvk) = ty.gvk else {
            return self.list(span, wanted, item);
        };
        let api_version = gvk.api_version();
        let inject = Inject {
            resource_version: "",
            api_version: &api_version,
            kind: gvk.kind,
        };
        self.out.push(b'[');
        let mut comma = false;
        let mut wire = Wire::new(span);
        while let Some((tag, payload)) = wire.next()? {
            if tag == wanted {
                self.comma(&mut comma);
                self.top(payload.bytes()?, ty, &inject)?;
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn packed(&mut self, packed: &[u8], item: &Shape, comma: &mut bool) -> Result<()> {
        let mut wire = Wire::new(packed);
        while !wire.is_empty() {
            let bits = wire.varint()?;
            self.comma(comma);
            self.value(item, Payload::Varint(bits))?;
        }
        Ok(())
    }

    fn map(&mut self, span: &[u8], wanted: u32, item: &Shape) -> Result<()> {
        let mut entries: SmallVec<[(&[u8], Option<Payload<'_>>); 16]> = SmallVec::new();
        let mut wire = Wire::new(span);
        while let Some((tag, payload)) = wire.next()? {
            if tag == wanted {
                entries.push(entry(payload.bytes()?)?);
            }
        }
        if !entries.is_sorted_by(|a, b| a.0 < b.0) {
            // Of equal keys the last counts.
            entries.reverse();
            entries.sort_by_key(|(key, _)| *key);
            entries.dedup_by_key(|(key, _)| *key);
        }
        let mut comma = self.open();
        for (key, payload) in entries {
            self.comma(&mut comma);
            json::string(&String::from_utf8_lossy(key), self.out);
            self.out.push(b':');
            match payload {
                Some(payload) => self.value(item, payload)?,
                None if *item == Shape::Bytes => self.out.extend_from_slice(b"\"\""),
                None => json::encode(&zero(item), self.out),
            }
        }
        self.close();
        Ok(())
    }

    fn value(&mut self, shape: &Shape, payload: Payload<'_>) -> Result<()> {
        match shape {
            Shape::Bool => {
                self.out
                    .extend_from_slice(if payload.varint()? != 0 { b"true" } else { b"false" })
            }
            Shape::Int32 => json::int((payload.varint()? as i32).into(), self.out),
            Shape::Int64 => json::int(payload.varint()? as i64, self.out),
            Shape::Double => json::float(payload.double()?, self.out),
            Shape::String => json::string(&String::from_utf8_lossy(payload.bytes()?), self.out),
            Shape::Bytes => self.base64(payload.bytes()?),
            Shape::Time => self.time(payload.bytes()?, Timestamp::format)?,
            Shape::MicroTime => self.time(payload.bytes()?, Timestamp::format_micro)?,
            Shape::Quantity => self.quantity(payload.bytes()?)?,
            Shape::IntOrString => self.int_or_string(payload.bytes()?)?,
            Shape::Raw(_) => self.raw(payload.bytes()?)?,
            Shape::Struct(ty) => self.object(payload.bytes()?, ty.get())?,
            Shape::Items(item) => self.list(payload.bytes()?, 1, item)?,
            Shape::SchemaOr(ty, alternative) => self.schema_or(*ty, *alternative, payload.bytes()?)?,
            Shape::List(_) | Shape::Map(_) => {
                return Err(Error::Wire("lists of lists have no protobuf form"));
            }
        }
        Ok(())
    }

    fn base64(&mut self, bytes: &[u8]) {
        self.out.push(b'"');
        let start = self.out.len();
        self.out.resize(start + bytes.len().div_ceil(3) * 4, 0);
        // The slice has exactly the room that padded base64 takes.
        let written = STANDARD
            .encode_slice(bytes, &mut self.out[start..])
            .unwrap_or_default();
        self.out.truncate(start + written);
        self.out.push(b'"');
    }

    fn time(&mut self, raw: &[u8], format: fn(Timestamp) -> String) -> Result<()> {
        match time(raw)? {
            Some(time) => {
                self.out.push(b'"');
                self.out.extend_from_slice(format(time).as_bytes());
                self.out.push(b'"');
            }
            None => self.out.extend_from_slice(b"null"),
        }
        Ok(())
    }

    fn quantity(&mut self, raw: &[u8]) -> Result<()> {
        let text = first_bytes(raw, 1)?;
        let text = if text.is_empty() { b"0" } else { text };
        json::string(&String::from_utf8_lossy(text), self.out);
        Ok(())
    }

    fn int_or_string(&mut self, raw: &[u8]) -> Result<()> {
        let (mut kind, mut number, mut text) = (0, 0, &[][..]);
        let mut wire = Wire::new(raw);
        while let Some((tag, payload)) = wire.next()? {
            match tag {
                1 => kind = payload.varint()?,
                2 => number = payload.varint()? as i32,
                3 => text = payload.bytes()?,
                _ => {}
            }
        }
        match kind {
            1 => json::string(&String::from_utf8_lossy(text), self.out),
            _ => json::int(number.into(), self.out),
        }
        Ok(())
    }

    fn raw(&mut self, raw: &[u8]) -> Result<()> {
        match first_bytes(raw, 1)? {
            b"" => self.out.extend_from_slice(b"null"),
            text => json::raw(&String::from_utf8_lossy(text), self.out),
        }
        Ok(())
    }

    fn schema_or(&mut self, ty: TypeId, alternative: SchemaAlternative, raw: &[u8]) -> Result<()> {
        let schema_tag = if alternative == SchemaAlternative::Bool {
            2
        } else {
            1
        };
        let (mut schema, mut allows) = (None, false);
        let mut wire = Wire::new(raw);
        while let Some((tag, payload)) = wire.next()? {
            match (tag, alternative) {
                (1, SchemaAlternative::Bool) => allows = payload.varint()? != 0,
                _ if tag == schema_tag => schema = Some(payload.bytes()?),
                _ => {}
            }
        }
        match (schema, alternative) {
            (Some(schema), _) => self.object(schema, ty.get()),
            (None, SchemaAlternative::Bool) => self.value(&Shape::Bool, Payload::Varint(allows.into())),
            (None, SchemaAlternative::Array) => self.list(raw, 2, &Shape::Struct(ty)),
            (None, SchemaAlternative::Strings) => self.list(raw, 2, &Shape::String),
        }
    }
}

fn entry(raw: &[u8]) -> Result<(&[u8], Option<Payload<'_>>)> {
    let (mut key, mut value) = (&[][..], None);
    let mut wire = Wire::new(raw);
    while let Some((tag, payload)) = wire.next()? {
        match tag {
            1 => key = payload.bytes()?,
            2 => value = Some(payload),
            _ => {}
        }
    }
    Ok((key, value))
}

/// Whether `omitempty` leaves the value out: `image::is_kept` for bytes.
fn is_left_out(field: &Field, payload: Payload<'_>) -> Result<bool> {
    Ok(match field.shape {
        Shape::Time | Shape::MicroTime => time(payload.bytes()?)?.is_none(),
        Shape::Raw(_) => matches!(first_bytes(payload.bytes()?, 1)?, b"" | b"null"),
        _ if field.pointer => false,
        Shape::Bool | Shape::Int32 | Shape::Int64 => payload.varint()? == 0,
        Shape::Double => payload.double()? == 0.0,
        Shape::String | Shape::Bytes | Shape::Items(_) => payload.bytes()?.is_empty(),
        _ => false,
    })
}
