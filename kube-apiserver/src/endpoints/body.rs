//! Request bodies into objects: read with a limit, decode against the schema, default, convert to the stored version.

use apimachinery::defaults;
use apimachinery::json::{self, DecodeError, Decoded, FieldValidation};
use apimachinery::protobuf;
use apimachinery::schema::{Gvk, TypeId};
use apimachinery::status::{self, StatusError};
use apimachinery::value::Value;
use apimachinery::yaml;
use bytes::Bytes;
use component_base::http::{ReadError, read_limited};
use http::HeaderMap;
use hyper::body::Incoming;

use super::audited;
use super::negotiation::Media;
use super::query::Query;
use super::seam::RequestContext;

/// Largest request body; upstream's limit for what etcd takes, with room for JSON.
pub const MAX_BODY: usize = 3 * 1024 * 1024;

pub async fn read(ctx: &RequestContext, headers: &HeaderMap, body: Incoming) -> Result<Bytes, StatusError> {
    match read_limited(body, MAX_BODY).await {
        Ok(bytes) => {
            audited::request_bytes(ctx, headers, &bytes);
            Ok(bytes)
        }
        Err(ReadError::TooLarge { .. }) => {
            Err(status::request_entity_too_large(format!("limit is {MAX_BODY}")))
        }
        Err(error) => Err(status::bad_request(error.to_string())),
    }
}

/// Compressed bodies are taken as upstream takes them: not at all.
pub fn field_validation(query: &Query) -> Result<FieldValidation, StatusError> {
    match query.get("fieldValidation") {
        "" | "Warn" => Ok(FieldValidation::Warn),
        "Strict" => Ok(FieldValidation::Strict),
        "Ignore" => Ok(FieldValidation::Ignore),
        other => {
            let path = apimachinery::field::Path::new("fieldValidation");
            let error = apimachinery::field::not_supported(&path, other, &["Ignore", "Strict", "Warn"]);
            Err(status::invalid("meta.k8s.io", "CreateOptions", "", &vec![error]))
        }
    }
}

/// `dryRun=All`, or nothing.
pub fn dry_run(query: &Query) -> Result<bool, StatusError> {
    let mut dry = false;
    for value in query.all("dryRun").filter(|v| !v.is_empty()) {
        if value != "All" {
            let path = apimachinery::field::Path::new("dryRun");
            let error = apimachinery::field::not_supported(&path, value, &["All"]);
            return Err(status::invalid("meta.k8s.io", "CreateOptions", "", &vec![error]));
        }
        dry = true;
    }
    Ok(dry)
}

/// A body as an object of `gvk`; unknown fields are reported in `warnings`.
pub fn decode(
    bytes: &[u8],
    headers: &HeaderMap,
    gvk: Gvk<'_>,
    ty: TypeId,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value, StatusError> {
    let media = Media::of_content_type(headers)?;
    let mut value = match media {
        Media::Protobuf => decode_protobuf(bytes, gvk, ty)?,
        Media::Json => take(json::decode(bytes, Some(ty), validation), gvk, bytes, warnings)?,
        Media::Yaml => take(yaml::decode(bytes, Some(ty), validation), gvk, bytes, warnings)?,
    };
    check_kind(&mut value, gvk)?;
    defaults::apply(&mut value, ty);
    Ok(value)
}

fn take(
    decoded: Result<Decoded, DecodeError>,
    gvk: Gvk<'_>,
    bytes: &[u8],
    warnings: &mut Vec<String>,
) -> Result<Value, StatusError> {
    match decoded {
        Ok(decoded) => {
            warnings.extend(decoded.warnings);
            Ok(decoded.value)
        }
        Err(error) => Err(wrong_kind(bytes, gvk).unwrap_or_else(|| status::undecodable(gvk, &error))),
    }
}

/// A document of another kind is told so, rather than what of it does not fit.
fn wrong_kind(bytes: &[u8], gvk: Gvk<'_>) -> Option<StatusError> {
    let mut other = json::decode_untyped(bytes).ok()?;
    check_kind(&mut other, gvk).err()
}

fn check_kind(value: &mut Value, gvk: Gvk<'_>) -> Result<(), StatusError> {
    let api_version = gvk.api_version();
    let (found_version, found_kind) = (value.str_at("apiVersion"), value.str_at("kind"));
    if !found_version.is_empty() && found_version != api_version {
        let message = format!(
            "the API version in the data ({found_version}) does not match the expected API version ({api_version})"
        );
        return Err(status::bad_request(message));
    }
    if !found_kind.is_empty() && found_kind != gvk.kind {
        let message = format!(
            "{found_kind} in version \"{}\" cannot be handled as a {}: no kind match",
            gvk.version, gvk.kind
        );
        return Err(status::bad_request(message));
    }
    let (no_version, no_kind) = (found_version.is_empty(), found_kind.is_empty());
    if no_version {
        value.set("apiVersion", api_version);
    }
    if no_kind {
        value.set("kind", gvk.kind.to_owned());
    }
    Ok(())
}

fn decode_protobuf(bytes: &[u8], gvk: Gvk<'_>, ty: TypeId) -> Result<Value, StatusError> {
    let bad = |why: String| {
        status::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: {why}",
            gvk.kind, gvk.version, gvk.kind
        ))
    };
    let unknown = protobuf::unwrap(bytes).map_err(|e| bad(e.to_string()))?;
    let mut found = Value::from([
        ("apiVersion", unknown.api_version.into()),
        ("kind", unknown.kind.into()),
    ]);
    check_kind(&mut found, gvk)?;
    protobuf::decode(unknown.raw, ty).map_err(|e| bad(e.to_string()))
}

/// A body that may be empty, of a kind that no resource is: DeleteOptions.
pub fn decode_options(
    bytes: &[u8],
    headers: &HeaderMap,
    kind: &'static str,
    ty: TypeId,
) -> Result<Value, StatusError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    let unreadable = |why: String| status::bad_request(format!("unable to decode {kind}: {why}"));
    match Media::of_content_type(headers)? {
        Media::Json => json::decode(bytes, Some(ty), FieldValidation::Ignore)
            .map(|d| d.value)
            .map_err(|e| unreadable(e.to_string())),
        Media::Yaml => yaml::decode(bytes, Some(ty), FieldValidation::Ignore)
            .map(|d| d.value)
            .map_err(|e| unreadable(e.to_string())),
        Media::Protobuf => {
            let unknown = protobuf::unwrap(bytes).map_err(|e| unreadable(e.to_string()))?;
            protobuf::decode(unknown.raw, ty).map_err(|e| unreadable(e.to_string()))
        }
    }
}
