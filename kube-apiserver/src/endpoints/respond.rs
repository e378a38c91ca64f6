//! Answers: objects, Status, warnings, compression.

use std::io::Write;

use apimachinery::json;
use apimachinery::protobuf;
use apimachinery::schema::{Gvk, registry};
use apimachinery::status::StatusError;
use apimachinery::value::Value;
use bytes::Bytes;
use component_base::http::{Body, full};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY, WARNING,
};
use http::{HeaderMap, Response, StatusCode};

use super::negotiation::{Media, Output};

/// Answers below this size are not worth compressing; upstream's threshold.
pub const GZIP_THRESHOLD: usize = 128 * 1024;

/// Warning headers in one answer, together.
const MAX_WARNING_BYTES: usize = 4 * 1024;

/// A tree as an answer.
pub fn value(code: StatusCode, output: Output, value: &Value) -> Response<Body> {
    bytes(code, output.media, encode(output, value))
}

pub fn bytes(code: StatusCode, media: Media, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media.content_type()));
    response
}

pub fn encode(output: Output, value: &Value) -> Vec<u8> {
    match output.media {
        Media::Json => finish_json(output, json::to_vec(value)),
        Media::Yaml => to_yaml(&json::to_vec(value)),
        Media::Protobuf => to_protobuf(value),
    }
}

/// Go's encoder ends compact documents with a newline; indented ones it does not.
pub fn finish_json(output: Output, mut compact: Vec<u8>) -> Vec<u8> {
    if output.pretty {
        return super::pretty::indent(&compact);
    }
    compact.push(b'\n');
    compact
}

pub fn to_yaml(json: &[u8]) -> Vec<u8> {
    let tree: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    serde_saphyr::to_string(&tree).unwrap_or_default().into_bytes()
}

/// The envelope of a kind that the schema knows; JSON in an envelope's stead where it does not.
fn to_protobuf(value: &Value) -> Vec<u8> {
    let gvk = Gvk::parse(value.str_at("apiVersion"), value.str_at("kind"));
    let ty = match gvk.kind {
        "Status" => registry().named("io.k8s.apimachinery.pkg.apis.meta.v1.Status"),
        _ => registry().kind(gvk),
    };
    let mut raw = Vec::new();
    let encoded = ty.is_some_and(|ty| protobuf::encode(value, ty, &mut raw).is_ok());
    if !encoded {
        return json::to_vec(value);
    }
    let mut out = Vec::with_capacity(raw.len() + 64);
    protobuf::wrap(gvk, &raw, &mut out);
    out
}

pub fn error(output: Output, error: &StatusError) -> Response<Body> {
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = value(code, output, &error.to_value());
    if let Some(seconds) = error
        .details
        .as_ref()
        .map(|d| d.retry_after_seconds)
        .filter(|s| *s > 0)
    {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// `Warning: 299 - "text"`, once for each text.
pub fn add_warnings(headers: &mut HeaderMap, warnings: &[String]) {
    let mut size = 0;
    for (at, warning) in warnings.iter().enumerate() {
        if warnings[..at].contains(warning) {
            continue;
        }
        let text = format!("299 - {}", apimachinery::field::quote(warning));
        size += text.len();
        if size > MAX_WARNING_BYTES {
            return;
        }
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.append(WARNING, value);
        }
    }
}

pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get(ACCEPT_ENCODING)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    accepted
        .split(',')
        .any(|encoding| encoding.trim().split(';').next() == Some("gzip"))
}

pub fn mark_gzip(headers: &mut HeaderMap) {
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// Compresses what is pushed through it, chunk by chunk.
pub struct Gzip(GzEncoder<Vec<u8>>);

impl Gzip {
    pub fn new() -> Gzip {
        Gzip(GzEncoder::new(Vec::new(), Compression::fast()))
    }

    pub fn push(&mut self, chunk: &[u8]) -> Bytes {
        // Writing into a Vec does not fail.
        drop(self.0.write_all(chunk));
        std::mem::take(self.0.get_mut()).into()
    }

    pub fn finish(self) -> Bytes {
        self.0.finish().unwrap_or_default().into()
    }
}
