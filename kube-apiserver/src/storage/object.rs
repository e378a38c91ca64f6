//! A stored object as the server keeps it: a small header and its encoded bytes.
//!
//! Reads, lists and watches take `raw` or `json` and never parse the body; `value()` is for those who must look inside.

use std::sync::{Arc, OnceLock};

use apimachinery::json;
use apimachinery::protobuf;
use apimachinery::schema::{Gvk, TypeId};
use apimachinery::value::Value;
use bytes::Bytes;
use etcd_api::mvccpb::KeyValue;

use super::encryption::Transformer;
use super::header::{self, FieldPath};

/// How objects of one kind are stored and shown: built once for each (kind, version).
pub struct Shape {
    pub group: Box<str>,
    pub version: Box<str>,
    pub kind: Box<str>,
    /// `v1` or `apps/v1`.
    pub api_version: Box<str>,
    pub ty: TypeId,
    pub encoding: Encoding,
    /// Fields that field selectors may ask for besides metadata.name and metadata.namespace.
    pub selectable: Vec<Selectable>,
    /// `{"kind":"Pod","apiVersion":"v1",`: every object's JSON starts with it, list items are shown without it.
    pub json_prefix: Box<str>,
}

impl Shape {
    pub fn new(gvk: Gvk<'_>, ty: TypeId, encoding: Encoding, selectable: Vec<Selectable>) -> Shape {
        let api_version = gvk.api_version();
        Shape {
            group: gvk.group.into(),
            version: gvk.version.into(),
            kind: gvk.kind.into(),
            json_prefix: format!("{{\"kind\":\"{}\",\"apiVersion\":\"{api_version}\",", gvk.kind).into(),
            api_version: api_version.into(),
            ty,
            encoding,
            selectable,
        }
    }

    pub fn gvk(&self) -> Gvk<'_> {
        Gvk::new(&self.group, &self.version, &self.kind)
    }
}

/// What the bytes in etcd are. Protobuf has the `k8s\0` envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Protobuf,
    Json,
}

/// A field selector's label and where its value is found.
pub struct Selectable {
    pub label: &'static str,
    /// First non-empty wins.
    pub paths: Vec<FieldPath>,
    /// Value when the field is absent (`""`, `"false"`, `"0"`).
    pub absent: &'static str,
}

pub type Labels = Box<[(Box<str>, Box<str>)]>;

pub struct CachedObject {
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    /// etcd's mod revision; on a deleted object, the revision of the deletion.
    pub resource_version: i64,
    pub labels: Labels,
    /// Values in the order of `shape.selectable`.
    pub fields: Box<[Box<str>]>,
    /// metadata.deletionTimestamp is set.
    pub deleting: bool,
    /// etcd's bytes would be written differently now (another encryption key): no update of it is a no-op.
    pub stale_at_rest: bool,
    shape: Arc<Shape>,
    body: Body,
    json: OnceLock<Bytes>,
}

/// The object with metadata.resourceVersion in it.
enum Body {
    Protobuf(Bytes),
    Json(Bytes),
}

impl CachedObject {
    /// `stored` is etcd's value (after decryption), `revision` its mod revision.
    pub fn from_stored(shape: &Arc<Shape>, stored: &[u8], revision: i64) -> Result<CachedObject, String> {
        if stored.starts_with(&protobuf::MAGIC) {
            let unknown = protobuf::unwrap(stored).map_err(|e| e.to_string())?;
            let raw = header::with_resource_version(unknown.raw, revision)?;
            return Self::from_protobuf(shape, Bytes::from(raw), revision);
        }
        if stored.first() == Some(&b'{') {
            return Self::from_json(shape, stored, revision);
        }
        Err("neither protobuf nor JSON".to_owned())
    }

    /// The same, from etcd's value as it lies there.
    pub fn from_etcd(
        shape: &Arc<Shape>,
        transformer: &dyn Transformer,
        kv: &KeyValue,
    ) -> Result<CachedObject, String> {
        let plain = transformer.transform_from_storage(&kv.key, &kv.value)?;
        let object = Self::from_stored(shape, &plain.bytes, kv.mod_revision)?;
        Ok(CachedObject {
            stale_at_rest: plain.stale,
            ..object
        })
    }

    fn from_protobuf(shape: &Arc<Shape>, raw: Bytes, revision: i64) -> Result<CachedObject, String> {
        let found = header::scan(&raw, &shape.selectable)?;
        Ok(CachedObject {
            namespace: found.namespace,
            name: found.name,
            uid: found.uid,
            resource_version: revision,
            labels: found.labels,
            fields: found.fields,
            deleting: found.deleting,
            stale_at_rest: false,
            shape: shape.clone(),
            body: Body::Protobuf(raw),
            json: OnceLock::new(),
        })
    }

    fn from_json(shape: &Arc<Shape>, stored: &[u8], revision: i64) -> Result<CachedObject, String> {
        let decoded =
            json::decode(stored, Some(shape.ty), json::FieldValidation::Ignore).map_err(|e| e.to_string())?;
        let mut value = decoded.value;
        if revision > 0 {
            value.set_at("metadata.resourceVersion", Value::from(revision.to_string()));
        }
        let found = header::of_value(&value, &shape.selectable);
        let mut bytes = Vec::with_capacity(stored.len() + 32);
        json::encode(&value, &mut bytes);
        Ok(CachedObject {
            namespace: found.namespace,
            name: found.name,
            uid: found.uid,
            resource_version: revision,
            labels: found.labels,
            fields: found.fields,
            deleting: found.deleting,
            stale_at_rest: false,
            shape: shape.clone(),
            body: Body::Json(Bytes::from(bytes)),
            json: OnceLock::new(),
        })
    }

    /// The same object as of its deletion at `revision`.
    pub fn deleted_at(&self, revision: i64) -> Result<CachedObject, String> {
        match &self.body {
            Body::Protobuf(raw) => Self::from_protobuf(
                &self.shape,
                Bytes::from(header::with_resource_version(raw, revision)?),
                revision,
            ),
            Body::Json(bytes) => Self::from_json(&self.shape, bytes, revision),
        }
    }

    /// `plain` (as it would be stored) is this object without its resourceVersion.
    pub fn stores_same(&self, plain: &[u8]) -> bool {
        if self.stale_at_rest {
            return false;
        }
        match CachedObject::from_stored(&self.shape, plain, self.resource_version) {
            Ok(other) => match (&self.body, &other.body) {
                (Body::Protobuf(a), Body::Protobuf(b)) | (Body::Json(a), Body::Json(b)) => a == b,
                _ => false,
            },
            Err(_) => false,
        }
    }

    /// The whole object with kind, apiVersion and resourceVersion. Decodes on every call: keep the result.
    pub fn value(&self) -> Value {
        match &self.body {
            Body::Protobuf(raw) => self.decode_protobuf(raw),
            // Written by `json::encode` above, or checked on the way in: it decodes.
            Body::Json(bytes) => json::decode(bytes, Some(self.shape.ty), json::FieldValidation::Ignore)
                .map(|d| d.value)
                .unwrap_or(Value::Null),
        }
    }

    fn decode_protobuf(&self, raw: &[u8]) -> Value {
        match protobuf::decode(raw, self.shape.ty) {
            Ok(mut value) => {
                value.set_at("kind", Value::from(&*self.shape.kind));
                value.set_at("apiVersion", Value::from(&*self.shape.api_version));
                value
            }
            Err(reason) => {
                tracing::error!(kind = %self.shape.kind, namespace = %self.namespace, name = %self.name, err = %reason, "Stored object does not decode");
                Value::Null
            }
        }
    }

    /// Encoded once, on first use, and shared by everybody.
    pub fn json(&self) -> &Bytes {
        self.json.get_or_init(|| match &self.body {
            Body::Protobuf(raw) => Bytes::from(self.transcode(raw)),
            Body::Json(bytes) => bytes.clone(),
        })
    }

    fn transcode(&self, raw: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(raw.len() * 2);
        let inject = protobuf::Inject {
            resource_version: "",
            api_version: &self.shape.api_version,
            kind: &self.shape.kind,
        };
        if let Err(reason) = protobuf::to_json(raw, self.shape.ty, &inject, &mut out) {
            tracing::error!(kind = %self.shape.kind, namespace = %self.namespace, name = %self.name, err = %reason, "Stored object does not decode");
            out.clear();
            out.extend_from_slice(b"null");
        }
        out.shrink_to_fit();
        out
    }

    /// JSON as an item of a typed list: without kind and apiVersion (Go's typed lists leave them out).
    pub fn json_item(&self) -> ItemJson<'_> {
        let json = self.json();
        match json.strip_prefix(self.shape.json_prefix.as_bytes()) {
            Some(rest) => ItemJson { open: b"{", rest },
            None => ItemJson {
                open: b"",
                rest: json,
            },
        }
    }

    /// The protobuf message (no envelope), resourceVersion included; `None` for kinds stored as JSON.
    pub fn protobuf(&self) -> Option<&Bytes> {
        match &self.body {
            Body::Protobuf(raw) => Some(raw),
            Body::Json(_) => None,
        }
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(k, _)| **k == *key).map(|(_, v)| &**v)
    }

    /// A selectable field by its selector label: `field("spec.nodeName")`.
    pub fn field(&self, label: &str) -> Option<&str> {
        match label {
            "metadata.name" => Some(&self.name),
            "metadata.namespace" => Some(&self.namespace),
            _ => self
                .shape
                .selectable
                .iter()
                .position(|s| s.label == label)
                .map(|at| &*self.fields[at]),
        }
    }

    /// Bytes held, for limits and metrics.
    pub fn size(&self) -> usize {
        let body = match &self.body {
            Body::Protobuf(raw) => raw.len(),
            Body::Json(bytes) => bytes.len(),
        };
        body + self.json.get().map_or(0, Bytes::len)
    }
}

pub struct ItemJson<'a> {
    pub open: &'static [u8],
    pub rest: &'a [u8],
}
