//! The shape of the API, read from the text files in `schema/`: one file a group-version, one line a field.
//!
//! `schema/README.md` describes the form. The files are embedded and parsed once, on first use.

mod names;
mod parse;
mod resources;

pub use resources::{Resource, Subresource, resource, resources};

use crate::value::{Str, Value};
use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::OnceLock;

/// Where the kinds live that belong to every group.
const META_GROUP: &str = "meta.k8s.io";

/// The whole table.
pub struct Schema {
    types: Vec<Type>,
    by_name: HashMap<&'static str, TypeId>,
    kinds: HashMap<Gvk<'static>, TypeId>,
}

/// The built-in types. Parsed on first use, then shared.
pub fn registry() -> &'static Schema {
    static REGISTRY: OnceLock<Schema> = OnceLock::new();
    REGISTRY.get_or_init(parse::embedded)
}

impl Schema {
    /// The type of a kind, e.g. `("apps", "v1", "Deployment")`. Lists and option kinds are there too; what every group
    /// shares (`DeleteOptions`, `Status`, `WatchEvent`, …) is found under any of them, as upstream registers it.
    pub fn kind(&self, gvk: Gvk<'_>) -> Option<TypeId> {
        let own = self.kinds.get(&gvk);
        own.or_else(|| self.kinds.get(&Gvk::new(META_GROUP, "v1", gvk.kind)))
            .copied()
    }

    /// A type by its dotted name, e.g. `io.k8s.api.core.v1.Container`.
    pub fn named(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    pub fn types(&self) -> impl ExactSizeIterator<Item = &Type> {
        self.types.iter()
    }

    pub fn ids(&self) -> impl ExactSizeIterator<Item = TypeId> + use<> {
        // The parser numbers types in 16 bits.
        (0..self.types.len() as u16).map(TypeId)
    }

    pub fn kinds(&self) -> impl ExactSizeIterator<Item = (Gvk<'static>, TypeId)> {
        self.kinds.iter().map(|(gvk, ty)| (*gvk, *ty))
    }
}

/// Group, version and kind. The core group is the empty string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gvk<'a> {
    pub group: &'a str,
    pub version: &'a str,
    pub kind: &'a str,
}

impl<'a> Gvk<'a> {
    pub const fn new(group: &'a str, version: &'a str, kind: &'a str) -> Gvk<'a> {
        Gvk { group, version, kind }
    }

    /// From the two fields of an object: `apiVersion` is `version` or `group/version`.
    pub fn parse(api_version: &'a str, kind: &'a str) -> Gvk<'a> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        Gvk { group, version, kind }
    }

    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }
}

/// `group/version, Kind=Kind`, as upstream prints it.
impl fmt::Display for Gvk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Kind={}", self.group, self.version, self.kind)
    }
}

/// A type of the registry; reads like a reference to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TypeId(u16);

impl Deref for TypeId {
    type Target = Type;
    fn deref(&self) -> &Type {
        self.get()
    }
}

impl TypeId {
    pub fn get(self) -> &'static Type {
        &registry().types[self.index()]
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Debug for TypeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get().name)
    }
}

/// One struct of the API.
#[derive(Debug, Default)]
pub struct Type {
    /// Dotted name: `io.k8s.api.core.v1.Container`.
    pub name: &'static str,
    /// Last part of the name, which is also the Go type's name.
    pub short: &'static str,
    /// Set on top-level kinds.
    pub gvk: Option<Gvk<'static>>,
    /// Server-side apply replaces the whole struct.
    pub atomic: bool,
    /// JSON fields in Go's order; the fields of inlined structs stand where Go inlines them.
    pub fields: Vec<Field>,
    pub(crate) message: Message,
    /// Indexes into `fields` of those that Go always prints.
    pub(crate) always: Vec<usize>,
    pub unions: Vec<Union>,
    by_name: names::Index,
}

impl Type {
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.index_of(name).map(|i| &self.fields[i])
    }

    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.by_name.find(name, |i| self.fields[i].name)
    }

    /// `index_of` for a key of a tree, which mostly knows its place.
    pub(crate) fn index_of_key(&self, key: &Str) -> Option<usize> {
        match key.field_hint() {
            Some((i, name))
                if self
                    .fields
                    .get(i)
                    .is_some_and(|field| std::ptr::eq(field.name, name)) =>
            {
                Some(i)
            }
            _ => self.index_of(key),
        }
    }

    /// The key of a field, borrowed from the schema.
    pub(crate) fn key(&self, index: usize) -> Str {
        // Structs have at most 128 fields.
        Str::from_field(self.fields[index].name, index as u16)
    }

    /// True for kinds: their JSON carries `kind` and `apiVersion`, which protobuf keeps in the envelope.
    pub fn has_type_meta(&self) -> bool {
        self.gvk.is_some()
    }
}

/// Fields of which at most one may be set.
#[derive(Debug)]
pub struct Union {
    pub discriminator: Option<&'static str>,
    pub fields: Vec<&'static str>,
}

/// One JSON field.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: &'static str,
    /// `"name":`, as it is written.
    pub(crate) quoted: &'static str,
    /// Protobuf tag, within the inlined message if there is one; 0 for fields that protobuf does not carry.
    pub tag: u32,
    /// A pointer's target.
    pub shape: Shape,
    pub required: bool,
    /// A Go pointer: presence is kept, zero values are written.
    pub pointer: bool,
    /// Go prints the field even when it is zero (no `omitempty`, or a struct that `omitempty` cannot leave out).
    pub always: bool,
    pub list: ListType,
    /// Keys of `ListType::Map`.
    pub keys: Vec<&'static str>,
    /// Server-side apply replaces the whole map or struct.
    pub atomic: bool,
    pub patch: PatchStrategy,
    pub merge_key: Option<&'static str>,
    /// Go prints `kind` and `apiVersion` in the items of this list.
    pub(crate) kinded: bool,
    /// What defaulting fills in where the field is absent, whatever the rest of the object says.
    pub default: Option<Value>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    Map,
}

/// Strategic merge patch: how a list or map is merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    pub merge: bool,
    pub replace: bool,
    pub retain_keys: bool,
}

/// What a field holds: its JSON form and its protobuf form at once.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    Bool,
    Int32,
    Int64,
    Double,
    String,
    /// Base64 in JSON.
    Bytes,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    Quantity,
    IntOrString,
    /// JSON carried as text.
    Raw(Raw),
    Struct(TypeId),
    List(Box<Shape>),
    /// String keys.
    Map(Box<Shape>),
    /// A JSON list that protobuf wraps in a message of one repeated field (Go's named slices, e.g. `ExtraValue`).
    Items(Box<Shape>),
    /// `JSONSchemaProps` or one of its JSON alternatives.
    SchemaOr(TypeId, SchemaAlternative),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raw {
    Extension,
    FieldsV1,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaAlternative {
    Array,
    Bool,
    Strings,
}

/// The protobuf side of a struct: its fields by tag.
#[derive(Debug, Default)]
pub(crate) struct Message {
    /// In the order of tags, which is the order on the wire.
    pub fields: Vec<ProtoField>,
    /// `fields` index by tag; `NO_FIELD` where the tag is unknown.
    by_tag: Vec<u16>,
}

const NO_FIELD: u16 = u16::MAX;

/// A protobuf field: either a JSON field or a message whose fields JSON inlines.
#[derive(Debug)]
pub(crate) struct ProtoField {
    pub tag: u32,
    pub node: ProtoNode,
}

#[derive(Debug)]
pub(crate) enum ProtoNode {
    /// Index into `Type::fields`.
    Leaf(usize),
    Inline(Message),
}

impl Message {
    pub fn by_tag(&self, tag: u32) -> Option<&ProtoField> {
        let index = *self.by_tag.get(usize::try_from(tag).ok()?)?;
        self.fields.get(usize::from(index))
    }
}

#[cfg(test)]
mod tests;
