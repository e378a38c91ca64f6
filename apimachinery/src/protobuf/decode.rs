//! gogo's bytes as a tree.

use super::Error;
use super::wire::{MAX_DEPTH, Payload, Wire};
use crate::image::{Gathered, is_kept, set_kinds, take_object};
use crate::json::Reader;
use crate::quantity::Quantity;
use crate::schema::{Field, Message, ProtoNode, SchemaAlternative, Shape, Type, TypeId};
use crate::time::Timestamp;
use crate::value::{Object, Str, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

type Result<T> = std::result::Result<T, Error>;

pub(super) fn message(raw: &[u8], ty: TypeId) -> Result<Value> {
    let ty = ty.get();
    let mut decoder = Decoder {
        gathered: Vec::with_capacity(32),
        depth: 0,
    };
    if let Some(gvk) = ty.gvk {
        decoder.gathered.push((0, gvk.kind.into()));
        decoder.gathered.push((1, gvk.api_version().into()));
    }
    decoder.object(raw, ty, 0)
}

struct Decoder {
    gathered: Gathered,
    depth: usize,
}

impl Decoder {
    fn object(&mut self, raw: &[u8], ty: &'static Type, base: usize) -> Result<Value> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Error::Wire("exceeded max depth"));
        }
        self.fields(raw, ty, &ty.message, base)?;
        self.depth -= 1;
        for (index, value) in &mut self.gathered[base..] {
            if let Value::Object(map) = value {
                map.sort_if_map();
            }
            if ty.fields[*index].kinded {
                set_kinds(value, &ty.fields[*index].shape);
            }
        }
        Ok(Value::Object(take_object(ty, &mut self.gathered, base)))
    }

    fn fields(
        &mut self,
        raw: &[u8],
        ty: &'static Type,
        message: &'static Message,
        base: usize,
    ) -> Result<()> {
        let mut wire = Wire::new(raw);
        while let Some((tag, payload)) = wire.next()? {
            match message.by_tag(tag).map(|proto| &proto.node) {
                None => {}
                Some(ProtoNode::Inline(inner)) => self.fields(payload.bytes()?, ty, inner, base)?,
                Some(ProtoNode::Leaf(index)) => self.field(&ty.fields[*index], *index, payload, base)?,
            }
        }
        Ok(())
    }

    fn field(
        &mut self,
        field: &'static Field,
        index: usize,
        payload: Payload<'_>,
        base: usize,
    ) -> Result<()> {
        match &field.shape {
            Shape::List(item) => self.items(item, index, payload, base),
            Shape::Map(item) => self.entry(item, index, payload, base),
            shape => {
                let value = self.value(shape, payload)?;
                let old = self.gathered[base..].iter().position(|(i, _)| *i == index);
                if let Some(old) = old {
                    self.gathered.swap_remove(base + old);
                }
                if is_kept(field, &value) {
                    self.gathered.push((index, value));
                }
                Ok(())
            }
        }
    }

    /// The gathered value of a repeated field, made if this is its first item.
    fn slot(&mut self, index: usize, base: usize, empty: fn() -> Value) -> &mut Value {
        let found = self.gathered[base..]
            .iter()
            .rposition(|(i, _)| *i == index)
            .map(|i| base + i);
        let place = found.unwrap_or_else(|| {
            self.gathered.push((index, empty()));
            self.gathered.len() - 1
        });
        &mut self.gathered[place].1
    }

    fn items(&mut self, item: &Shape, index: usize, payload: Payload<'_>, base: usize) -> Result<()> {
        if let (Shape::Int32 | Shape::Int64 | Shape::Bool, Payload::Bytes(packed)) = (item, payload) {
            let mut wire = Wire::new(packed);
            while !wire.is_empty() {
                let value = scalar(item, wire.varint()?);
                self.append(index, base, value);
            }
            return Ok(());
        }
        let value = self.value(item, payload)?;
        self.append(index, base, value);
        Ok(())
    }

    fn append(&mut self, index: usize, base: usize, value: Value) {
        if let Value::List(items) = self.slot(index, base, || Value::List(Vec::new())) {
            items.push(value);
        }
    }

    fn entry(&mut self, item: &Shape, index: usize, payload: Payload<'_>, base: usize) -> Result<()> {
        let mut key = Str::default();
        let mut value = None;
        let mut wire = Wire::new(payload.bytes()?);
        while let Some((tag, payload)) = wire.next()? {
            match tag {
                1 => key = text(payload.bytes()?),
                2 => value = Some(self.value(item, payload)?),
                _ => {}
            }
        }
        let value = value.unwrap_or_else(|| empty_map_value(item));
        if let Value::Object(map) = self.slot(index, base, || Value::Object(Object::unsorted_map())) {
            map.push(key, value);
        }
        Ok(())
    }

    fn value(&mut self, shape: &Shape, payload: Payload<'_>) -> Result<Value> {
        Ok(match shape {
            Shape::Bool | Shape::Int32 | Shape::Int64 => scalar(shape, payload.varint()?),
            Shape::Double => double(payload.double()?),
            Shape::String => Value::Str(text(payload.bytes()?)),
            Shape::Bytes => STANDARD.encode(payload.bytes()?).into(),
            Shape::Time => time(payload.bytes()?)?.map(Timestamp::format).into(),
            Shape::MicroTime => time(payload.bytes()?)?.map(Timestamp::format_micro).into(),
            Shape::Quantity => quantity(payload.bytes()?)?,
            Shape::IntOrString => int_or_string(payload.bytes()?)?,
            Shape::Raw(_) => raw(payload.bytes()?)?,
            Shape::Struct(ty) => {
                let base = self.gathered.len();
                self.object(payload.bytes()?, ty.get(), base)?
            }
            Shape::Items(item) => Value::List(self.list_of(1, item, payload.bytes()?)?),
            Shape::SchemaOr(ty, alternative) => self.schema_or(*ty, *alternative, payload.bytes()?)?,
            Shape::List(_) | Shape::Map(_) => {
                return Err(Error::Wire("lists of lists have no protobuf form"));
            }
        })
    }

    fn list_of(&mut self, wanted: u32, item: &Shape, raw: &[u8]) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut wire = Wire::new(raw);
        while let Some((tag, payload)) = wire.next()? {
            if tag == wanted {
                items.push(self.value(item, payload)?);
            }
        }
        Ok(items)
    }

    fn schema_or(&mut self, ty: TypeId, alternative: SchemaAlternative, raw: &[u8]) -> Result<Value> {
        let (schema_tag, list_item) = match alternative {
            SchemaAlternative::Bool => (2, None),
            SchemaAlternative::Array => (1, Some(Shape::Struct(ty))),
            SchemaAlternative::Strings => (1, Some(Shape::String)),
        };
        if let Some(schema) = self.list_of(schema_tag, &Shape::Struct(ty), raw)?.pop() {
            return Ok(schema);
        }
        match list_item {
            Some(item) => Ok(Value::List(self.list_of(2, &item, raw)?)),
            None => Ok(self
                .list_of(1, &Shape::Bool, raw)?
                .pop()
                .unwrap_or(Value::Bool(false))),
        }
    }
}

/// gogo starts a map entry's value from its zero, except that bytes start empty, not nil.
fn empty_map_value(item: &Shape) -> Value {
    match item {
        Shape::Bytes => Value::Str(Str::default()),
        item => crate::image::zero(item),
    }
}

fn scalar(shape: &Shape, bits: u64) -> Value {
    match shape {
        Shape::Bool => Value::Bool(bits != 0),
        // Upstream keeps the low half.
        Shape::Int32 => Value::Int((bits as i32).into()),
        _ => Value::Int(bits as i64),
    }
}

/// JSON has no infinities; Go would refuse to print them.
fn double(value: f64) -> Value {
    if value.is_finite() {
        Value::Float(value)
    } else {
        Value::Null
    }
}

fn text(bytes: &[u8]) -> Str {
    String::from_utf8_lossy(bytes).into()
}

/// `None` is Go's zero time, which is written as an empty message.
pub(super) fn time(raw: &[u8]) -> Result<Option<Timestamp>> {
    if raw.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut wire = Wire::new(raw);
    while let Some((tag, payload)) = wire.next()? {
        match tag {
            1 => seconds = payload.varint()? as i64,
            2 => nanos = payload.varint()? as u32,
            _ => {}
        }
    }
    // RFC 3339 knows the years 0 to 9999 only.
    if !(-62_167_219_200..=253_402_300_799).contains(&seconds) {
        return Err(Error::Wire("time out of range"));
    }
    let time = Timestamp {
        seconds,
        nanos: nanos.min(999_999_999),
    };
    Ok((!time.is_go_zero()).then_some(time))
}

pub(super) fn first_bytes(raw: &[u8], wanted: u32) -> Result<&[u8]> {
    let mut wire = Wire::new(raw);
    let mut found: &[u8] = &[];
    while let Some((tag, payload)) = wire.next()? {
        if tag == wanted {
            found = payload.bytes()?;
        }
    }
    Ok(found)
}

fn quantity(raw: &[u8]) -> Result<Value> {
    let bytes = first_bytes(raw, 1)?;
    let text = std::str::from_utf8(bytes).map_err(|_| Error::Wire("quantity is not UTF-8"))?;
    if text.is_empty() {
        return Ok(Value::from("0"));
    }
    let canonical = Quantity::canonicalize(text).map_err(|e| Error::Value(e.to_string()))?;
    Ok(Value::Str(canonical.into()))
}

fn int_or_string(raw: &[u8]) -> Result<Value> {
    let (mut kind, mut number, mut string) = (0, 0, Str::default());
    let mut wire = Wire::new(raw);
    while let Some((tag, payload)) = wire.next()? {
        match tag {
            1 => kind = payload.varint()?,
            2 => number = payload.varint()? as i32,
            3 => string = text(payload.bytes()?),
            _ => {}
        }
    }
    Ok(if kind == 1 {
        Value::Str(string)
    } else {
        Value::Int(number.into())
    })
}

/// Bodies from outside end up in JSON answers verbatim, so the text is checked here.
fn raw(raw: &[u8]) -> Result<Value> {
    let bytes = first_bytes(raw, 1)?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let mut reader = Reader::new(bytes);
    let text = reader.raw().map_err(|e| Error::Value(e.to_string()))?;
    reader.end().map_err(|e| Error::Value(e.to_string()))?;
    Ok(if &*text == "null" {
        Value::Null
    } else {
        Value::Raw(text)
    })
}
