//! One pass from bytes to the tree, guided by the schema.

use super::read::Reader;
use super::{DecodeError, FieldValidation, MAX_STRICT_ERRORS};
use crate::image::{Gathered, is_kept, set_kinds, take_object, zero};
use crate::quantity::Quantity;
use crate::schema::{Field, Raw, SchemaAlternative, Shape, Type, TypeId};
use crate::time;
use crate::value::{Object, Str, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;
use std::fmt::Write;

type Result<T> = std::result::Result<T, DecodeError>;

pub(super) struct Decoder<'a> {
    reader: Reader<'a>,
    path: Vec<Step>,
    /// The struct whose field is being read, for Go's type errors.
    owner: &'static str,
    /// Fields of the objects being read, innermost last, each with its place in the schema.
    fields: Gathered,
    /// The same for maps and untyped objects.
    pairs: Vec<(Str, Value)>,
    strict: bool,
    problems: Vec<String>,
}

enum Step {
    Field(&'static str),
    Key(Str),
    Index(usize),
}

/// The document as a tree, and what strict validation found.
pub(super) fn document(
    bytes: &[u8],
    ty: Option<TypeId>,
    validation: FieldValidation,
) -> Result<(Value, Vec<String>)> {
    let mut decoder = Decoder {
        reader: Reader::new(bytes),
        path: Vec::new(),
        owner: "",
        fields: Vec::new(),
        pairs: Vec::new(),
        strict: validation != FieldValidation::Ignore,
        problems: Vec::new(),
    };
    let value = match ty {
        Some(ty) => decoder.shaped(&Shape::Struct(ty))?,
        None => decoder.untyped()?,
    };
    decoder.reader.end()?;
    Ok((value, decoder.problems))
}

impl Decoder<'_> {
    fn shaped(&mut self, shape: &Shape) -> Result<Value> {
        let first = self.reader.begin()?;
        if first == b'n' {
            self.reader.literal("null")?;
            return Ok(zero(shape));
        }
        match (shape, first) {
            (Shape::Struct(ty), b'{') => self.object(*ty),
            (Shape::List(item) | Shape::Items(item), b'[') => self.list(item),
            (Shape::Map(item), b'{') => self.map(item),
            (Shape::String, b'"') => Ok(Value::Str(self.reader.string()?.into())),
            (Shape::Bool, b't') => self.reader.literal("true").map(|()| Value::Bool(true)),
            (Shape::Bool, b'f') => self.reader.literal("false").map(|()| Value::Bool(false)),
            (Shape::Int32 | Shape::Int64 | Shape::Double, b'-' | b'0'..=b'9') => self.number(shape),
            (Shape::Raw(_), _) => self.raw(),
            (Shape::SchemaOr(ty, alternative), _) => self.schema_or(*ty, *alternative, first),
            (Shape::IntOrString, _) => self.int_or_string(first),
            (Shape::Quantity, b'"') => canonical_quantity(self.reader.string()?),
            (Shape::Quantity, b'-' | b'0'..=b'9') => canonical_quantity(self.reader.number()?.into()),
            (Shape::Bytes | Shape::Time | Shape::MicroTime, b'"') => {
                let text = self.reader.string()?;
                textual(shape, &text)
            }
            _ => Err(self.mismatch(shape, first)),
        }
    }

    fn object(&mut self, ty: TypeId) -> Result<Value> {
        let ty: &'static Type = ty.get();
        let owner = self.owner;
        let base = self.fields.len();
        let mut seen = 0u128;
        let mut first = true;
        self.reader.open()?;
        while let Some(key) = self.reader.key(first)? {
            first = false;
            let Some(index) = ty.index_of(&key) else {
                self.problem("unknown field", &key);
                self.reader.skip()?;
                continue;
            };
            let field = &ty.fields[index];
            if seen & (1 << index) != 0 {
                self.problem("duplicate field", &key);
                forget(&mut self.fields, base, index);
            }
            seen |= 1 << index;
            self.owner = ty.short;
            self.field(field, index)?;
        }
        self.owner = owner;
        Ok(Value::Object(take_object(ty, &mut self.fields, base)))
    }

    fn field(&mut self, field: &'static Field, index: usize) -> Result<()> {
        if self.reader.begin()? == b'n' {
            // Null leaves a Go field as it was: absent.
            return self.reader.literal("null");
        }
        self.path.push(Step::Field(field.name));
        let mut value = self.shaped(&field.shape)?;
        self.path.pop();
        if field.kinded {
            set_kinds(&mut value, &field.shape);
        }
        if is_kept(field, &value) {
            self.fields.push((index, value));
        }
        Ok(())
    }

    fn list(&mut self, item: &Shape) -> Result<Value> {
        let mut items = Vec::new();
        self.reader.open()?;
        while self.reader.item(items.is_empty())? {
            self.path.push(Step::Index(items.len()));
            items.push(self.shaped(item)?);
            self.path.pop();
        }
        Ok(Value::List(items))
    }

    fn map(&mut self, item: &Shape) -> Result<Value> {
        let base = self.pairs.len();
        self.reader.open()?;
        while let Some(key) = self.reader.key(self.pairs.len() == base)? {
            let key = Str::from(key);
            self.path.push(Step::Key(key.clone()));
            let value = self.shaped(item)?;
            self.path.pop();
            self.pairs.push((key, value));
        }
        Ok(Value::Object(self.take_map(base)))
    }

    fn take_map(&mut self, base: usize) -> Object {
        let pairs: Vec<(Str, Value)> = self.pairs.drain(base..).collect();
        if self.strict {
            self.duplicate_keys(&pairs);
        }
        Object::from_pairs(pairs)
    }

    fn duplicate_keys(&mut self, pairs: &[(Str, Value)]) {
        if pairs.is_sorted_by(|a, b| a.0 < b.0) {
            return;
        }
        let mut keys: Vec<&Str> = pairs.iter().map(|(key, _)| key).collect();
        keys.sort_unstable();
        for pair in keys.windows(2).filter(|pair| pair[0] == pair[1]) {
            self.problem("duplicate field", pair[0]);
        }
    }

    fn untyped(&mut self) -> Result<Value> {
        match self.reader.begin()? {
            b'{' => self.untyped_object(),
            b'[' => self.untyped_list(),
            b'"' => Ok(Value::Str(self.reader.string()?.into())),
            b't' => self.reader.literal("true").map(|()| Value::Bool(true)),
            b'f' => self.reader.literal("false").map(|()| Value::Bool(false)),
            b'n' => self.reader.literal("null").map(|()| Value::Null),
            b'-' | b'0'..=b'9' => untyped_number(self.reader.number()?),
            _ => Err(self.reader.unexpected("looking for beginning of value")),
        }
    }

    fn untyped_object(&mut self) -> Result<Value> {
        let base = self.pairs.len();
        self.reader.open()?;
        while let Some(key) = self.reader.key(self.pairs.len() == base)? {
            let key = Str::from(key);
            self.path.push(Step::Key(key.clone()));
            let value = self.untyped()?;
            self.path.pop();
            self.pairs.push((key, value));
        }
        Ok(Value::Object(self.take_map(base)))
    }

    fn untyped_list(&mut self) -> Result<Value> {
        let mut items = Vec::new();
        self.reader.open()?;
        while self.reader.item(items.is_empty())? {
            self.path.push(Step::Index(items.len()));
            items.push(self.untyped()?);
            self.path.pop();
        }
        Ok(Value::List(items))
    }

    fn raw(&mut self) -> Result<Value> {
        Ok(Value::Raw(self.reader.raw()?))
    }

    fn number(&mut self, shape: &Shape) -> Result<Value> {
        let text = self.reader.number()?;
        let value = match shape {
            Shape::Int32 => text.parse::<i32>().ok().map(|i| Value::Int(i.into())),
            Shape::Int64 => text.parse::<i64>().ok().map(Value::Int),
            _ => text
                .parse::<f64>()
                .ok()
                .filter(|f| f.is_finite())
                .map(Value::Float),
        };
        value.ok_or_else(|| self.type_error(format!("number {text}"), shape))
    }

    fn int_or_string(&mut self, first: u8) -> Result<Value> {
        match first {
            b'"' => Ok(Value::Str(self.reader.string()?.into())),
            b'-' | b'0'..=b'9' => self.number(&Shape::Int32),
            _ => Err(self.mismatch(&Shape::Int32, first)),
        }
    }

    fn schema_or(&mut self, ty: TypeId, alternative: SchemaAlternative, first: u8) -> Result<Value> {
        match (alternative, first) {
            (_, b'{') => self.object(ty),
            (SchemaAlternative::Bool, b't' | b'f') => self.shaped(&Shape::Bool),
            (SchemaAlternative::Array, b'[') => self.list(&Shape::Struct(ty)),
            (SchemaAlternative::Strings, b'[') => self.list(&Shape::String),
            (SchemaAlternative::Bool, _) => {
                Err(DecodeError::Value("boolean or JSON schema expected".to_owned()))
            }
            _ => Err(DecodeError::Value(
                "json: cannot unmarshal value: JSON schema or list expected".to_owned(),
            )),
        }
    }

    fn mismatch(&mut self, shape: &Shape, first: u8) -> DecodeError {
        let found = match first {
            b'{' => "object",
            b'[' => "array",
            b'"' => "string",
            b't' | b'f' => "bool",
            b'-' | b'0'..=b'9' => "number",
            _ => return self.reader.unexpected("looking for beginning of value"),
        };
        // Go checks the whole document before it looks at types.
        if let Err(error) = self.reader.skip() {
            return error;
        }
        self.type_error(found.to_owned(), shape)
    }

    fn type_error(&self, found: String, shape: &Shape) -> DecodeError {
        let mut field = self.owner.to_owned();
        for step in &self.path {
            if let Step::Field(name) = step {
                field.push('.');
                field.push_str(name);
            }
        }
        DecodeError::Type {
            found,
            field,
            expected: go_type(shape),
        }
    }

    fn problem(&mut self, what: &str, key: &str) {
        if !self.strict || self.problems.len() >= MAX_STRICT_ERRORS {
            return;
        }
        let text = format!("{what} \"{}\"", self.dotted(key));
        if !self.problems.contains(&text) {
            self.problems.push(text);
        }
    }

    fn dotted(&self, key: &str) -> String {
        let mut text = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) => dot(&mut text, name),
                Step::Key(key) => dot(&mut text, key),
                // Writing to a String cannot fail.
                Step::Index(i) => drop(write!(text, "[{i}]")),
            }
        }
        dot(&mut text, key);
        text
    }
}

fn dot(text: &mut String, key: &str) {
    if !text.is_empty() {
        text.push('.');
    }
    text.push_str(key);
}

/// Of a field given twice, the first value goes.
fn forget(fields: &mut Gathered, base: usize, index: usize) {
    if let Some(old) = fields[base..].iter().position(|(i, _)| *i == index) {
        fields.remove(base + old);
    }
}

fn canonical_quantity(text: Cow<'_, str>) -> Result<Value> {
    let text = text.trim();
    match Quantity::canonicalize(text) {
        Ok(Cow::Borrowed(_)) => Ok(Value::Str(text.into())),
        Ok(Cow::Owned(text)) => Ok(Value::Str(text.into())),
        Err(error) => Err(DecodeError::Value(error.to_string())),
    }
}

fn textual(shape: &Shape, text: &str) -> Result<Value> {
    match shape {
        Shape::Time => time::canonical(text)
            .map(Value::from)
            .map_err(|e| DecodeError::Value(e.to_string())),
        Shape::MicroTime => time::canonical_micro(text)
            .map(Value::from)
            .map_err(|e| DecodeError::Value(e.to_string())),
        _ => base64(text),
    }
}

fn base64(text: &str) -> Result<Value> {
    let clean: Cow<'_, str> = if text.contains(['\n', '\r']) {
        text.replace(['\n', '\r'], "").into()
    } else {
        text.into()
    };
    match STANDARD.decode(clean.as_bytes()) {
        Ok(_) => Ok(Value::Str(clean.into())),
        Err(error) => Err(DecodeError::Value(format!(
            "illegal base64 data at input byte {}",
            base64_offset(&error, &clean)
        ))),
    }
}

fn base64_offset(error: &base64::DecodeError, text: &str) -> usize {
    match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => *at,
        _ => text.len(),
    }
}

/// Integers stay integers while they fit, as upstream's `PreserveInts`.
fn untyped_number(text: &str) -> Result<Value> {
    if let Ok(i) = text.parse::<i64>() {
        return Ok(Value::Int(i));
    }
    match text.parse::<f64>() {
        Ok(f) if f.is_finite() => Ok(Value::Float(f)),
        _ => Err(DecodeError::Value(format!(
            "json: cannot unmarshal number {text} into Go value of type float64"
        ))),
    }
}

/// A shape's name in Go.
fn go_type(shape: &Shape) -> String {
    match shape {
        Shape::Bool => "bool".to_owned(),
        Shape::Int32 => "int32".to_owned(),
        Shape::Int64 => "int64".to_owned(),
        Shape::Double => "float64".to_owned(),
        Shape::String => "string".to_owned(),
        Shape::Bytes => "[]uint8".to_owned(),
        Shape::Time => "v1.Time".to_owned(),
        Shape::MicroTime => "v1.MicroTime".to_owned(),
        Shape::Quantity => "resource.Quantity".to_owned(),
        Shape::IntOrString => "intstr.IntOrString".to_owned(),
        Shape::Raw(Raw::Extension) => "runtime.RawExtension".to_owned(),
        Shape::Raw(Raw::FieldsV1) => "v1.FieldsV1".to_owned(),
        Shape::Raw(Raw::Json) => "v1.JSON".to_owned(),
        Shape::Struct(ty) | Shape::SchemaOr(ty, _) => {
            let version = ty.name.rsplit('.').nth(1).unwrap_or_default();
            format!("{version}.{}", ty.short)
        }
        Shape::List(item) | Shape::Items(item) => format!("[]{}", go_type(item)),
        Shape::Map(item) => format!("map[string]{}", go_type(item)),
    }
}
