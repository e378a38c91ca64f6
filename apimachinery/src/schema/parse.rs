//! Parser of the embedded text files. Their form is described in `schema/README.md`.

use super::names::Index;
use super::{
    Field, Gvk, ListType, Message, NO_FIELD, PatchStrategy, ProtoField, ProtoNode, Raw, Schema,
    SchemaAlternative, Shape, Type, TypeId, Union,
};
use crate::json;
use std::collections::HashMap;

macro_rules! embed {
    ($($name:literal)*) => {
        [$(($name, include_str!(concat!("../../schema/", $name, ".txt")))),*]
    };
}

/// File name without suffix, which is also how other files refer to its types, and text.
const FILES: &[(&str, &str)] = &embed! {
    "admission.v1" "admissionregistration.v1" "admissionregistration.v1alpha1" "admissionregistration.v1beta1"
    "apidiscovery.v2" "apiextensions.v1" "apiregistration.v1" "apiserverinternal.v1alpha1" "apps.v1"
    "authentication.v1" "authorization.v1" "autoscaling.v1" "autoscaling.v2" "batch.v1"
    "certificates.v1" "certificates.v1alpha1" "certificates.v1beta1"
    "coordination.v1" "coordination.v1alpha2" "coordination.v1beta1" "core.v1" "discovery.v1" "events.v1"
    "flowcontrol.v1" "meta.v1" "networking.v1" "networking.v1beta1" "node.v1" "policy.v1" "rbac.v1"
    "resource.v1" "resource.v1alpha3" "resource.v1beta1" "resource.v1beta2" "scheduling.v1" "scheduling.v1alpha2"
    "storage.v1" "storage.v1beta1" "storagemigration.v1beta1"
};

/// A type as its lines say it, before names are resolved.
struct Draft {
    file: &'static str,
    name: &'static str,
    short: &'static str,
    gvk: Option<Gvk<'static>>,
    atomic: bool,
    rows: Vec<Row>,
    unions: Vec<Union>,
}

enum Row {
    Field(&'static str),
    Inline { tag: u32, shape: &'static str },
}

/// `(file, type name)` to its place in the table.
type Names = HashMap<(&'static str, &'static str), u16>;

pub(super) fn embedded() -> Schema {
    let drafts: Vec<Draft> = FILES.iter().flat_map(|(file, text)| drafts(file, text)).collect();
    let names: Names = drafts
        .iter()
        .zip(0..)
        .map(|(draft, i)| ((draft.file, draft.short), i))
        .collect();
    let builder = Builder {
        drafts: &drafts,
        names,
    };
    let types: Vec<Type> = drafts.iter().map(|draft| builder.build(draft)).collect();
    let by_name = types
        .iter()
        .zip(0..)
        .map(|(ty, i)| (ty.name, TypeId(i)))
        .collect();
    let kinds = types
        .iter()
        .zip(0..)
        .filter_map(|(ty, i)| Some((ty.gvk?, TypeId(i))))
        .collect();
    Schema {
        types,
        by_name,
        kinds,
    }
}

/// The files are compiled in and a test reads them all, so a bad line cannot reach a user.
fn malformed(file: &str, line: &str) -> ! {
    panic!("schema/{file}.txt: malformed line: {line}")
}

fn drafts(file: &'static str, text: &'static str) -> Vec<Draft> {
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let ["group", group, version, package] = header.split_whitespace().collect::<Vec<_>>()[..] else {
        malformed(file, header)
    };
    let group = if group == "-" { "" } else { group };
    let mut drafts: Vec<Draft> = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        match (line.strip_prefix("  "), drafts.last_mut()) {
            (Some(row), Some(draft)) => draft.add(row),
            (None, _) => drafts.push(draft(file, package, group, version, line)),
            (Some(_), None) => malformed(file, line),
        }
    }
    drafts
}

fn draft(
    file: &'static str,
    package: &str,
    group: &'static str,
    version: &'static str,
    line: &'static str,
) -> Draft {
    let mut words = line.split_whitespace();
    let (Some(word @ ("kind" | "type")), Some(short)) = (words.next(), words.next()) else {
        malformed(file, line)
    };
    Draft {
        file,
        name: format!("{package}.{short}").leak(),
        short,
        gvk: (word == "kind").then_some(Gvk::new(group, version, short)),
        atomic: words.next() == Some("atomic"),
        rows: Vec::new(),
        unions: Vec::new(),
    }
}

impl Draft {
    fn add(&mut self, row: &'static str) {
        if let Some(union) = row.strip_prefix("union ") {
            self.unions.push(union_row(self.file, union));
        } else if row.starts_with('+') {
            let words: Vec<&'static str> = row.split_whitespace().collect();
            let [_, tag, shape] = words[..] else {
                malformed(self.file, row)
            };
            self.rows.push(Row::Inline {
                tag: tag_number(self.file, tag),
                shape,
            });
        } else {
            self.rows.push(Row::Field(row));
        }
    }
}

fn union_row(file: &str, row: &'static str) -> Union {
    let Some((discriminator, fields)) = row.split_once(' ') else {
        malformed(file, row)
    };
    Union {
        discriminator: (discriminator != "-").then_some(discriminator),
        fields: fields.split(',').collect(),
    }
}

fn tag_number(file: &str, text: &str) -> u32 {
    text.parse().unwrap_or_else(|_| malformed(file, text))
}

struct Builder<'a> {
    drafts: &'a [Draft],
    names: Names,
}

impl Builder<'_> {
    fn build(&self, draft: &Draft) -> Type {
        let mut fields = Vec::new();
        if draft.gvk.is_some() {
            fields.extend([type_meta("kind"), type_meta("apiVersion")]);
        }
        let message = self.collect(draft, &mut fields);
        let names: Vec<&'static str> = fields.iter().map(|field| field.name).collect();
        let by_name = Index::new(&names);
        let always = (0..fields.len()).filter(|&i| fields[i].always).collect();
        let unions = draft
            .unions
            .iter()
            .map(|u| Union {
                discriminator: u.discriminator,
                fields: u.fields.clone(),
            })
            .collect();
        Type {
            name: draft.name,
            short: draft.short,
            gvk: draft.gvk,
            atomic: draft.atomic,
            fields,
            message,
            always,
            by_name,
            unions,
        }
    }

    /// Appends the JSON fields of `draft`, inlined structs included, and returns its protobuf side.
    fn collect(&self, draft: &Draft, fields: &mut Vec<Field>) -> Message {
        let mut message = Message::default();
        for row in &draft.rows {
            let (tag, node) = match row {
                Row::Field(row) => {
                    let field = self.field(draft.file, row);
                    fields.push(field);
                    (fields[fields.len() - 1].tag, ProtoNode::Leaf(fields.len() - 1))
                }
                Row::Inline { tag, shape } => {
                    let Shape::Struct(id) = self.shape(draft.file, shape) else {
                        malformed(draft.file, shape)
                    };
                    (
                        *tag,
                        ProtoNode::Inline(self.collect(&self.drafts[usize::from(id.0)], fields)),
                    )
                }
            };
            if tag != 0 {
                message.fields.push(ProtoField { tag, node });
            }
        }
        message.index();
        message
    }

    fn field(&self, file: &'static str, row: &'static str) -> Field {
        let (row, default) = match row.split_once(" default=") {
            Some((row, text)) => (
                row,
                Some(json::decode_untyped(text.as_bytes()).unwrap_or_else(|_| malformed(file, text))),
            ),
            None => (row, None),
        };
        let mut words = row.split_whitespace();
        let (Some(name), Some(tag), Some(shape)) = (words.next(), words.next(), words.next()) else {
            malformed(file, row)
        };
        let mut field = plain_field(
            name.trim_end_matches('!'),
            self.shape(file, shape.trim_start_matches('*')),
        );
        field.tag = tag_number(file, tag);
        field.always = name.ends_with('!');
        field.pointer = shape.starts_with('*');
        field.default = default;
        for mark in words {
            field.mark(mark).unwrap_or_else(|| malformed(file, row));
        }
        field
    }

    fn shape(&self, file: &'static str, text: &'static str) -> Shape {
        if let Some(item) = text.strip_prefix("[]") {
            return Shape::List(Box::new(self.shape(file, item)));
        }
        if let Some(item) = text.strip_prefix("map[]") {
            return Shape::Map(Box::new(self.shape(file, item)));
        }
        if let Some(item) = text.strip_prefix("items[]") {
            return Shape::Items(Box::new(self.shape(file, item)));
        }
        scalar(text)
            .or_else(|| self.schema_or(text))
            .unwrap_or_else(|| Shape::Struct(self.named(file, text)))
    }

    fn schema_or(&self, text: &'static str) -> Option<Shape> {
        let alternative = match text.strip_prefix("JSONSchemaPropsOr")? {
            "Array" => SchemaAlternative::Array,
            "Bool" => SchemaAlternative::Bool,
            "StringArray" => SchemaAlternative::Strings,
            _ => return None,
        };
        Some(Shape::SchemaOr(
            self.named("apiextensions.v1", "JSONSchemaProps"),
            alternative,
        ))
    }

    fn named(&self, file: &'static str, text: &'static str) -> TypeId {
        let (file, name) = text.rsplit_once('.').unwrap_or((file, text));
        TypeId(
            *self
                .names
                .get(&(file, name))
                .unwrap_or_else(|| malformed(file, text)),
        )
    }
}

fn scalar(text: &str) -> Option<Shape> {
    Some(match text {
        "bool" => Shape::Bool,
        "int32" => Shape::Int32,
        "int64" => Shape::Int64,
        "double" => Shape::Double,
        "string" => Shape::String,
        "bytes" => Shape::Bytes,
        "Time" => Shape::Time,
        "MicroTime" => Shape::MicroTime,
        "Quantity" => Shape::Quantity,
        "IntOrString" => Shape::IntOrString,
        "RawExtension" => Shape::Raw(Raw::Extension),
        "FieldsV1" => Shape::Raw(Raw::FieldsV1),
        "JSON" => Shape::Raw(Raw::Json),
        _ => return None,
    })
}

fn plain_field(name: &'static str, shape: Shape) -> Field {
    Field {
        name,
        quoted: format!("\"{name}\":").leak(),
        tag: 0,
        shape,
        required: false,
        pointer: false,
        always: false,
        list: ListType::Atomic,
        keys: Vec::new(),
        atomic: false,
        patch: PatchStrategy::default(),
        merge_key: None,
        kinded: false,
        default: None,
    }
}

fn type_meta(name: &'static str) -> Field {
    plain_field(name, Shape::String)
}

impl Field {
    fn mark(&mut self, mark: &'static str) -> Option<()> {
        match mark {
            "required" => self.required = true,
            "set" => self.list = ListType::Set,
            "atomic" => self.list = ListType::Atomic,
            "atomicMap" => self.atomic = true,
            "kinded" => self.kinded = true,
            "merge" => self.patch.merge = true,
            "replace" => self.patch.replace = true,
            "retainKeys" => self.patch.retain_keys = true,
            _ => return self.mark_with_keys(mark),
        }
        Some(())
    }

    fn mark_with_keys(&mut self, mark: &'static str) -> Option<()> {
        let (name, keys) = mark.strip_suffix(')')?.split_once('(')?;
        match name {
            "map" => {
                self.list = ListType::Map;
                self.keys = keys.split(',').collect();
            }
            "merge" => {
                self.patch.merge = true;
                self.merge_key = Some(keys);
            }
            _ => return None,
        }
        Some(())
    }
}

impl Message {
    fn index(&mut self) {
        self.fields.sort_by_key(|field| field.tag);
        let size = self.fields.last().map_or(0, |field| field.tag as usize + 1);
        self.by_tag = vec![NO_FIELD; size];
        for (field, i) in self.fields.iter().zip(0..) {
            self.by_tag[field.tag as usize] = i;
        }
    }
}
