//! One stored object in the form and media type that a client asked for.

use apimachinery::json;
use apimachinery::protobuf;
use apimachinery::schema::{Gvk, TypeId, registry};
use apimachinery::value::Value;

use super::negotiation::{Form, Media, Output};
use super::respond;
use super::seam::{Column, Printers};
use crate::clock;
use crate::registry::ResourceEndpoint;
use crate::registry::convert;
use crate::storage::header::Fields;
use crate::storage::object::CachedObject;

/// Presents objects of one endpoint; made once for each request.
pub struct Presenter<'a> {
    pub endpoint: &'a ResourceEndpoint,
    pub printers: &'a dyn Printers,
    pub output: Output,
    /// `includeObject` of table requests.
    pub include: Include,
    /// The endpoint's version is not the stored one.
    converts: bool,
    now: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    Metadata,
    Object,
    None,
}

impl Include {
    pub fn parse(text: &str) -> Include {
        match text {
            "Object" => Include::Object,
            "None" => Include::None,
            _ => Include::Metadata,
        }
    }
}

impl<'a> Presenter<'a> {
    pub fn new(
        endpoint: &'a ResourceEndpoint,
        printers: &'a dyn Printers,
        output: Output,
        include: &str,
    ) -> Presenter<'a> {
        let converts = endpoint
            .store
            .as_ref()
            .is_some_and(|store| store.shape.api_version != endpoint.shape.api_version);
        Presenter {
            endpoint,
            printers,
            output,
            include: Include::parse(include),
            converts,
            now: clock::now_s(),
        }
    }

    /// The bytes kept with the object are the answer as they are.
    pub fn is_plain(&self) -> bool {
        self.output.form == Form::Object && !self.converts
    }

    /// A whole document: the body of a GET, or the object of a watch event.
    pub fn document(&self, object: &CachedObject) -> Vec<u8> {
        match (self.output.form, self.output.media) {
            (Form::Object, Media::Protobuf) => self.envelope(object),
            (Form::Object, _) => self.json(object),
            (Form::Metadata(version), Media::Protobuf) => metadata_envelope(object, version),
            (Form::Metadata(version), _) => metadata_json(object, version),
            (Form::Table(version), _) => self.table(object, version),
        }
    }

    pub fn json(&self, object: &CachedObject) -> Vec<u8> {
        match self.converts {
            false => object.json().to_vec(),
            true => json::to_vec(&self.value(object)),
        }
    }

    pub fn value(&self, object: &CachedObject) -> Value {
        let mut value = object.value();
        if self.converts {
            convert::from_storage(self.endpoint, &mut value);
        }
        value
    }

    fn gvk(&self) -> Gvk<'_> {
        let shape = &self.endpoint.shape;
        Gvk::new(&shape.group, &shape.version, &shape.kind)
    }

    /// The protobuf message in the endpoint's version.
    pub fn message(&self, object: &CachedObject) -> Vec<u8> {
        match object.protobuf().filter(|_| !self.converts) {
            Some(raw) => raw.to_vec(),
            None => {
                let mut raw = Vec::new();
                if let Err(reason) = protobuf::encode(&self.value(object), self.endpoint.shape.ty, &mut raw) {
                    tracing::error!(name = %object.name, err = %reason, "Object does not encode as protobuf");
                }
                raw
            }
        }
    }

    fn envelope(&self, object: &CachedObject) -> Vec<u8> {
        let mut out = Vec::new();
        match object.protobuf().filter(|_| !self.converts) {
            Some(raw) => protobuf::wrap(self.gvk(), raw, &mut out),
            None => protobuf::wrap(self.gvk(), &self.message(object), &mut out),
        }
        out
    }

    fn table(&self, object: &CachedObject, version: &str) -> Vec<u8> {
        let mut out = self.table_head(
            version,
            &format!("\"resourceVersion\":\"{}\"", object.resource_version),
            true,
        );
        self.row(object, version, &mut out);
        out.extend_from_slice(b"]}");
        out
    }

    /// Everything up to the first row. `metadata` is the inside of the list's metadata.
    pub fn table_head(&self, version: &str, metadata: &str, columns: bool) -> Vec<u8> {
        let mut out = format!("{{\"kind\":\"Table\",\"apiVersion\":\"{version}\",\"metadata\":{{{metadata}}},\"columnDefinitions\":").into_bytes();
        let resource = self.endpoint.resource;
        let definitions = if columns {
            self.printers.columns(resource.group, resource.resource)
        } else {
            &[]
        };
        json::encode(&Value::List(definitions.iter().map(column).collect()), &mut out);
        out.extend_from_slice(b",\"rows\":[");
        out
    }

    pub fn row(&self, object: &CachedObject, version: &str, out: &mut Vec<u8>) {
        let resource = self.endpoint.resource;
        let cells = self
            .printers
            .cells(resource.group, resource.resource, &self.value(object), self.now);
        out.extend_from_slice(b"{\"cells\":");
        json::encode(&Value::List(cells), out);
        match self.include {
            Include::None => {}
            Include::Object => {
                out.extend_from_slice(b",\"object\":");
                out.extend_from_slice(&self.json(object));
            }
            Include::Metadata => {
                out.extend_from_slice(b",\"object\":");
                out.extend_from_slice(&metadata_json(object, version));
            }
        }
        out.push(b'}');
    }

    /// The document as it goes over the wire outside of a stream.
    pub fn body(&self, object: &CachedObject) -> Vec<u8> {
        match self.output.media {
            Media::Json => respond::finish_json(self.output, self.document(object)),
            Media::Yaml => respond::to_yaml(&self.document(object)),
            Media::Protobuf => self.document(object),
        }
    }
}

fn column(column: &Column) -> Value {
    Value::from([
        ("name", column.name.into()),
        ("type", column.type_.into()),
        ("format", column.format.into()),
        ("description", column.description.into()),
        ("priority", Value::Int(i64::from(column.priority))),
    ])
}

fn object_meta() -> Option<TypeId> {
    registry().named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
}

/// `PartialObjectMetadata` without decoding: the metadata message is transcoded alone.
pub fn metadata_json(object: &CachedObject, version: &str) -> Vec<u8> {
    let mut out = format!("{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"{version}\",").into_bytes();
    metadata_field(object, &mut out);
    out.push(b'}');
    out
}

/// `"metadata":{...}`
pub fn metadata_field(object: &CachedObject, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"metadata\":");
    let start = out.len();
    let raw = object.protobuf().and_then(|raw| metadata_message(raw));
    let transcoded = match (raw, object_meta()) {
        (Some(raw), Some(ty)) => protobuf::to_json(raw, ty, &protobuf::Inject::default(), out).is_ok(),
        _ => false,
    };
    if !transcoded {
        out.truncate(start);
        json::encode(object.value().get("metadata").unwrap_or(&Value::Null), out);
    }
}

fn metadata_message(raw: &[u8]) -> Option<&[u8]> {
    Fields(raw).next()?.ok()?.bytes().ok()
}

/// The PartialObjectMetadata message: its only field is the metadata.
pub fn metadata_raw(object: &CachedObject) -> Vec<u8> {
    let whole = object
        .protobuf()
        .and_then(|raw| Some(Fields(raw).next()?.ok()?.whole.to_vec()));
    whole.unwrap_or_else(|| {
        let (mut raw, value) = (Vec::new(), object.value());
        let meta = value.get("metadata").unwrap_or(&Value::Null);
        let encoded = object_meta().is_some_and(|ty| protobuf::encode(meta, ty, &mut raw).is_ok());
        let mut out = vec![1 << 3 | 2];
        crate::storage::header::put_varint(&mut out, if encoded { raw.len() as u64 } else { 0 });
        out.extend_from_slice(&raw);
        out
    })
}

fn metadata_envelope(object: &CachedObject, version: &str) -> Vec<u8> {
    let mut out = Vec::new();
    protobuf::wrap(
        Gvk::parse(version, "PartialObjectMetadata"),
        &metadata_raw(object),
        &mut out,
    );
    out
}
