//! Types of the table as JSON schemas, each with everything it refers to.

use std::collections::BTreeMap;

use apimachinery::schema::{Field, ListType, Raw, SchemaAlternative, Shape, TypeId};
use serde_json::{Map, Value, json};

use super::descriptions::Descriptions;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    V2,
    V3,
}

pub struct Definitions {
    dialect: Dialect,
    descriptions: Descriptions,
    /// Scalars' schemas; null for the types that are or were in `todo`.
    done: BTreeMap<&'static str, Value>,
    todo: Vec<TypeId>,
}

const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
const FIELDS_V1: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";

impl Definitions {
    pub fn new(dialect: Dialect) -> Self {
        Definitions {
            dialect,
            descriptions: Descriptions::read(),
            done: BTreeMap::new(),
            todo: Vec::new(),
        }
    }

    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// A reference to a type, which will be among the definitions.
    pub fn reference(&mut self, ty: TypeId) -> Value {
        if !self.done.contains_key(ty.name) {
            self.done.insert(ty.name, Value::Null);
            self.todo.push(ty);
        }
        self.pointer(ty.name)
    }

    /// All definitions asked for, and those they need, one at a time: all of them as trees take thirty times what they take
    /// as text.
    pub fn each(mut self, mut take: impl FnMut(&'static str, Value)) {
        while let Some(ty) = self.todo.pop() {
            let schema = self.object(ty);
            take(ty.name, schema);
        }
        for (name, schema) in self.done {
            if !schema.is_null() {
                take(name, schema);
            }
        }
    }

    fn pointer(&self, name: &str) -> Value {
        let folder = if self.dialect == Dialect::V2 {
            "definitions"
        } else {
            "components/schemas"
        };
        json!({ "$ref": format!("#/{folder}/{name}") })
    }

    fn object(&mut self, ty: TypeId) -> Value {
        let mut properties = Map::new();
        for field in &ty.fields {
            properties.insert(field.name.to_owned(), self.field(ty.name, field));
        }
        let mut schema = json!({ "type": "object" });
        if let Some(text) = self.descriptions.of_type(ty.name) {
            schema["description"] = text.into();
        }
        if !properties.is_empty() {
            schema["properties"] = properties.into();
        }
        let required: Vec<&str> = ty.fields.iter().filter(|f| f.required).map(|f| f.name).collect();
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        if let Some(gvk) = ty.gvk {
            schema["x-kubernetes-group-version-kind"] =
                json!([{ "group": gvk.group, "version": gvk.version, "kind": gvk.kind }]);
        }
        if ty.atomic {
            schema["x-kubernetes-map-type"] = "atomic".into();
        }
        schema
    }

    fn field(&mut self, owner: &str, field: &Field) -> Value {
        let mut schema = self.shape(&field.shape);
        let description = self.descriptions.of_field(owner, field.name);
        let mut beside = extensions(field);
        beside.extend(description.map(|text| ("description", text.into())));
        if beside.is_empty() {
            return schema;
        }
        if self.dialect == Dialect::V3 && schema.get("$ref").is_some() {
            // In OpenAPI v3 nothing may stand beside a reference.
            schema = json!({ "allOf": [schema] });
        }
        for (key, value) in beside {
            schema[key] = value;
        }
        schema
    }

    fn shape(&mut self, shape: &Shape) -> Value {
        match shape {
            Shape::Bool => json!({ "type": "boolean" }),
            Shape::Int32 => json!({ "type": "integer", "format": "int32" }),
            Shape::Int64 => json!({ "type": "integer", "format": "int64" }),
            Shape::Double => json!({ "type": "number", "format": "double" }),
            Shape::String => json!({ "type": "string" }),
            Shape::Bytes => json!({ "type": "string", "format": "byte" }),
            Shape::Time => self.scalar(TIME, json!({ "type": "string", "format": "date-time" })),
            Shape::MicroTime => self.scalar(MICRO_TIME, json!({ "type": "string", "format": "date-time" })),
            Shape::Quantity => self.scalar(QUANTITY, either(self.dialect, &["string", "number"], None)),
            Shape::IntOrString => self.scalar(
                INT_OR_STRING,
                either(self.dialect, &["integer", "string"], Some("int-or-string")),
            ),
            Shape::Raw(Raw::Extension) => self.scalar(RAW_EXTENSION, json!({ "type": "object" })),
            Shape::Raw(Raw::FieldsV1) => self.scalar(FIELDS_V1, json!({ "type": "object" })),
            Shape::Raw(Raw::Json) => json!({}),
            Shape::Struct(ty) => self.reference(*ty),
            Shape::List(item) | Shape::Items(item) => json!({ "type": "array", "items": self.shape(item) }),
            Shape::Map(value) => json!({ "type": "object", "additionalProperties": self.shape(value) }),
            Shape::SchemaOr(
                _,
                SchemaAlternative::Array | SchemaAlternative::Bool | SchemaAlternative::Strings,
            ) => json!({}),
        }
    }

    fn scalar(&mut self, name: &'static str, mut schema: Value) -> Value {
        if let Some(text) = self.descriptions.of_type(name) {
            schema["description"] = text.into();
        }
        self.done.insert(name, schema);
        self.pointer(name)
    }
}

/// v2 knows no alternatives and says "string".
fn either(dialect: Dialect, types: &[&str], format: Option<&str>) -> Value {
    let mut schema = match dialect {
        Dialect::V2 => json!({ "type": "string" }),
        Dialect::V3 => json!({ "oneOf": types.iter().map(|t| json!({ "type": t })).collect::<Vec<_>>() }),
    };
    if let Some(format) = format {
        schema["format"] = format.into();
    }
    schema
}

fn extensions(field: &Field) -> Vec<(&'static str, Value)> {
    let mut out = Vec::new();
    if matches!(field.shape, Shape::List(_)) {
        let (kind, keys) = match field.list {
            ListType::Atomic => ("atomic", None),
            ListType::Set => ("set", None),
            ListType::Map => ("map", Some(json!(field.keys))),
        };
        out.push(("x-kubernetes-list-type", kind.into()));
        out.extend(keys.map(|keys| ("x-kubernetes-list-map-keys", keys)));
    }
    if field.atomic {
        out.push(("x-kubernetes-map-type", "atomic".into()));
    }
    let patch = field.patch;
    let words: Vec<&str> = [
        (patch.merge, "merge"),
        (patch.replace, "replace"),
        (patch.retain_keys, "retainKeys"),
    ]
    .iter()
    .filter(|(on, _)| *on)
    .map(|(_, w)| *w)
    .collect();
    if !words.is_empty() {
        out.push(("x-kubernetes-patch-strategy", words.join(",").into()));
    }
    out.extend(
        field
            .merge_key
            .map(|key| ("x-kubernetes-patch-merge-key", key.into())),
    );
    if let Some(default) = &field.default {
        out.push(("default", serde_json::to_value(default).unwrap_or_default()));
    }
    out
}
