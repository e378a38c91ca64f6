//! OpenAPI v2 and v3, generated from the schema table when somebody asks.
//!
//! v2 is one large document in two forms, JSON and gnostic's protobuf (`gnostic`); each is kept compressed once it was asked
//! for. v3 has a document for each group-version, made anew every time: clients keep them by their hash.

use std::sync::OnceLock;

use bytes::Bytes;
use component_base::http::{Body, empty, full};
use component_base::version::GIT_VERSION;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, LOCATION, VARY};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use apimachinery::schema::Resource;

use crate::endpoints::seam::{NonResource, RequestContext};
use crate::request_info::query_value;

mod accept;
mod descriptions;
mod gnostic;
mod packed;
mod paths;
mod schemas;

use packed::{Packed, Packing};
use schemas::{Definitions, Dialect};

const V2_PATH: &str = "/openapi/v2";
const V3_PATH: &str = "/openapi/v3";
/// `?hash=` names the content, so it may be kept for a year.
const IMMUTABLE: &str = "public, immutable, max-age=31536000";

const JSON: &str = "application/json";
/// The answer is typed by the newer name, whichever was asked for: an `@` is not allowed in a media type.
const GNOSTIC_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// A form of the v2 document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Gnostic,
}

/// Upstream's, in its order.
const V2_OFFERS: [(&str, Form); 3] = [
    ("json", Form::Json),
    ("com.github.proto-openapi.spec.v2@v1.0+protobuf", Form::Gnostic),
    ("com.github.proto-openapi.spec.v2.v1.0+protobuf", Form::Gnostic),
];

pub struct OpenApi {
    resources: Vec<&'static Resource>,
    /// `api/v1`, `apis/apps/v1`, ... and the hash of each document.
    versions: Vec<(String, String)>,
    v2_hash: String,
    v2_json: OnceLock<Packed>,
    v2_gnostic: OnceLock<Packed>,
}

impl OpenApi {
    pub fn new(resources: Vec<&'static Resource>) -> OpenApi {
        let mut versions: Vec<(String, String)> = Vec::new();
        for resource in &resources {
            let path = version_path(resource);
            if !versions.iter().any(|(p, _)| *p == path) {
                let hash = hash_of(&resources, &path);
                versions.push((path, hash));
            }
        }
        OpenApi {
            v2_hash: hash_of(&resources, "v2"),
            resources,
            versions,
            v2_json: OnceLock::new(),
            v2_gnostic: OnceLock::new(),
        }
    }

    fn answer(&self, path: &str, query: &str, headers: &HeaderMap) -> Option<Response<Body>> {
        match path.strip_prefix(V3_PATH) {
            Some("" | "/") => Some(self.index()),
            Some(version) => self.version(version.trim_start_matches('/'), query, headers),
            None if path == V2_PATH => Some(self.v2(headers)),
            None => None,
        }
    }

    fn index(&self) -> Response<Body> {
        let url = |(path, hash): &(String, String)| {
            (
                path.clone(),
                json!({ "serverRelativeURL": format!("{V3_PATH}/{path}?hash={hash}") }),
            )
        };
        let paths: Map<String, Value> = self.versions.iter().map(url).collect();
        json_answer(serialized(&json!({ "paths": paths })))
    }

    fn version(&self, path: &str, query: &str, headers: &HeaderMap) -> Option<Response<Body>> {
        let (path, hash) = self.versions.iter().find(|(p, _)| p == path)?;
        match query_value(query, "hash") {
            Some(asked) if asked != *hash => return Some(moved(&format!("{V3_PATH}/{path}?hash={hash}"))),
            _ if accept::choose(headers, &V2_OFFERS[..1]).is_none() => return Some(not_acceptable()),
            _ => {}
        }
        if accept::has(headers, hash) {
            return Some(unchanged(hash));
        }
        let mut response = json_answer(self.v3_document(path));
        mark(response.headers_mut(), hash);
        if query_value(query, "hash").is_some() {
            response
                .headers_mut()
                .insert(CACHE_CONTROL, HeaderValue::from_static(IMMUTABLE));
        }
        Some(response)
    }

    fn v3_document(&self, path: &str) -> Vec<u8> {
        let members: Vec<&Resource> = self
            .resources
            .iter()
            .copied()
            .filter(|r| version_path(r) == path)
            .collect();
        let mut definitions = Definitions::new(Dialect::V3);
        let paths = paths::of_resources(&members, &mut definitions);
        let head = json!({
            "openapi": "3.0.0",
            "info": { "title": "Kubernetes", "version": GIT_VERSION },
            "paths": paths,
        });
        let mut out = serialized(&head);
        // The rest follows inside of the same object.
        out.pop();
        let security = bearer_token();
        out.extend_from_slice(
            format!(",\"components\":{{\"securitySchemes\":{security},\"schemas\":{{").as_bytes(),
        );
        let mut separator = "";
        definitions.each(|name, schema| {
            out.extend_from_slice(format!("{separator}\"{name}\":{schema}").as_bytes());
            separator = ",";
        });
        out.extend_from_slice(b"}}}");
        out
    }

    fn v2(&self, headers: &HeaderMap) -> Response<Body> {
        let Some(form) = accept::choose(headers, &V2_OFFERS) else {
            return not_acceptable();
        };
        if accept::has(headers, &self.v2_hash) {
            return unchanged(&self.v2_hash);
        }
        let mut response = match form {
            Form::Json => self
                .v2_json
                .get_or_init(|| self.v2_as_json())
                .answer(headers, JSON),
            Form::Gnostic => self
                .v2_gnostic
                .get_or_init(|| self.v2_as_gnostic())
                .answer(headers, GNOSTIC_V2),
        };
        // Both forms may have the same tag: Vary tells them apart.
        mark(response.headers_mut(), &self.v2_hash);
        response
    }

    fn v2_as_json(&self) -> Packed {
        let mut packing = Packing::new();
        let mut head = serialized(&self.v2_head());
        // The rest follows inside of the same object.
        head.pop();
        packing.push(&head);
        let mut section = "";
        self.v2_pieces(|piece, name, value| {
            let (title, before) = match piece {
                Piece::Path => ("paths", ","),
                Piece::Definition => ("definitions", "},"),
            };
            let opening = if section == title {
                ",".to_owned()
            } else {
                format!("{before}\"{title}\":{{")
            };
            section = title;
            packing.push(format!("{opening}{}:{value}", Value::from(name)).as_bytes());
        });
        packing.push(b"}}");
        packing.finish()
    }

    fn v2_as_gnostic(&self) -> Packed {
        let mut encoder = gnostic::Encoder::default();
        encoder.fields(&self.v2_head());
        let mut in_paths = true;
        self.v2_pieces(|piece, name, value| match piece {
            Piece::Path => encoder.path(name, value),
            Piece::Definition => {
                if std::mem::take(&mut in_paths) {
                    encoder.end_paths();
                }
                encoder.definition(name, value);
            }
        });
        encoder.end_definitions();
        let (bytes, unknown) = encoder.finish();
        if !unknown.is_empty() {
            tracing::error!(fields = ?unknown, "OpenAPI v2 as protobuf lacks fields that its JSON form has");
        }
        let mut packing = Packing::new();
        packing.push(&bytes);
        packing.finish()
    }

    fn v2_head(&self) -> Value {
        json!({
            "swagger": "2.0",
            "info": { "title": "Kubernetes", "version": GIT_VERSION },
            "securityDefinitions": bearer_token(),
            "security": [{ "BearerToken": [] }],
        })
    }

    /// The paths, and then the definitions that they need.
    fn v2_pieces(&self, mut take: impl FnMut(Piece, &str, &Value)) {
        let mut definitions = Definitions::new(Dialect::V2);
        for resource in &self.resources {
            let mut paths = Map::new();
            paths::of_resource(resource, &mut definitions, &mut paths);
            paths
                .iter()
                .for_each(|(path, item)| take(Piece::Path, path, item));
        }
        definitions.each(|name, schema| take(Piece::Definition, name, &schema));
    }
}

#[derive(Clone, Copy)]
enum Piece {
    Path,
    Definition,
}

fn bearer_token() -> Value {
    json!({ "BearerToken": {
        "type": "apiKey", "in": "header", "name": "authorization", "description": "Bearer Token authentication",
    } })
}

impl NonResource for OpenApi {
    fn serve(&self, _: &RequestContext, req: &Request<Incoming>) -> Option<Response<Body>> {
        if !matches!(*req.method(), Method::GET | Method::HEAD) {
            return None;
        }
        self.answer(req.uri().path(), req.uri().query().unwrap_or(""), req.headers())
    }

    fn paths(&self) -> Vec<String> {
        let versions = self.versions.iter().map(|(path, _)| format!("{V3_PATH}/{path}"));
        [V2_PATH.to_owned(), V3_PATH.to_owned()]
            .into_iter()
            .chain(versions)
            .collect()
    }
}

fn version_path(resource: &Resource) -> String {
    if resource.group.is_empty() {
        format!("api/{}", resource.version)
    } else {
        format!("apis/{}/{}", resource.group, resource.version)
    }
}

/// A document follows from what it is made from and from the list of served resources.
fn hash_of(resources: &[&'static Resource], document: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(GIT_VERSION);
    hasher.update(env!("OPENAPI_FINGERPRINT"));
    hasher.update(document);
    for resource in resources {
        hasher.update(resource.group);
        hasher.update(resource.version);
        hasher.update(resource.resource);
    }
    hasher.finalize().iter().map(|b| format!("{b:02X}")).collect()
}

fn json_answer(document: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from(document)));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("Accept"));
    response
}

/// A tree of maps with string keys always serializes.
fn serialized(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn mark(headers: &mut HeaderMap, hash: &str) {
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{hash}\"")) {
        headers.insert(ETAG, etag);
    }
}

fn unchanged(hash: &str) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    mark(response.headers_mut(), hash);
    response
}

fn moved(to: &str) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(to) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

fn not_acceptable() -> Response<Body> {
    component_base::http::text(
        StatusCode::NOT_ACCEPTABLE,
        "application/json is served here, and OpenAPI v2 also as gnostic's protobuf\n",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::schema::resources;
    use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, IF_NONE_MATCH};

    fn openapi() -> OpenApi {
        OpenApi::new(resources().iter().filter(|r| r.served).collect())
    }

    fn v3(api: &OpenApi, path: &str) -> Value {
        serde_json::from_slice(&api.v3_document(path)).expect("json")
    }

    #[test]
    fn every_reference_of_a_document_resolves() {
        let api = openapi();
        for (path, _) in &api.versions {
            let doc = v3(&api, path);
            let text = doc.to_string();
            for reference in text.split("\"#/components/schemas/").skip(1) {
                let name = reference.split('"').next().expect("a name");
                assert!(doc["components"]["schemas"].get(name).is_some(), "{path}: {name}");
            }
        }
    }

    #[test]
    fn patches_say_that_fields_are_validated() {
        let doc = v3(&openapi(), "apis/apps/v1");
        let patch = &doc["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": "apps", "version": "v1", "kind": "Deployment"})
        );
        let parameters = patch["parameters"].as_array().expect("parameters");
        assert!(
            parameters
                .iter()
                .any(|p| p["name"] == "fieldValidation" && p["in"] == "query")
        );
    }

    #[test]
    fn list_types_and_merge_keys_are_told() {
        let doc = v3(&openapi(), "api/v1");
        let containers =
            &doc["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-list-type"], "map");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        let pod = &doc["components"]["schemas"]["io.k8s.api.core.v1.Pod"];
        assert_eq!(
            pod["x-kubernetes-group-version-kind"],
            json!([{"group": "", "version": "v1", "kind": "Pod"}])
        );
    }

    #[test]
    fn a_stale_hash_is_sent_to_the_current_one() {
        let api = openapi();
        let response = api
            .answer("/openapi/v3/api/v1", "hash=OLD", &HeaderMap::new())
            .expect("an answer");
        assert_eq!(response.status(), StatusCode::MOVED_PERMANENTLY);
        let current = response.headers()[LOCATION].to_str().expect("text").to_owned();
        let (path, query) = current.split_once('?').expect("a query");
        let fresh = api.answer(path, query, &HeaderMap::new()).expect("an answer");
        assert_eq!(
            (
                fresh.status(),
                fresh.headers()[CACHE_CONTROL].to_str().expect("text")
            ),
            (StatusCode::OK, IMMUTABLE)
        );
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, fresh.headers()[ETAG].clone());
        assert_eq!(
            api.answer(path, query, &headers).expect("an answer").status(),
            StatusCode::NOT_MODIFIED
        );
    }

    fn asking(headers: &[(http::HeaderName, &str)]) -> HeaderMap {
        let pair = |(name, value): &(http::HeaderName, &str)| (name.clone(), value.parse().expect("a value"));
        headers.iter().map(pair).collect()
    }

    fn body(packed: &Packed) -> Bytes {
        packed.unpacked().expect("what was packed")
    }

    #[test]
    fn the_protobuf_form_has_everything_of_the_json_form() {
        let api = openapi();
        let document: Value = serde_json::from_slice(&body(&api.v2_as_json())).expect("json");
        let mut whole = gnostic::Encoder::default();
        whole.fields(&document);
        assert_eq!(whole.finish().1, Vec::<String>::new());
        let bytes = body(&api.v2_as_gnostic());
        let text = String::from_utf8_lossy(&bytes);
        for section in ["definitions", "paths"] {
            let names = document[section].as_object().expect(section);
            assert!(names.len() > 150, "{section}: {}", names.len());
            for name in names.keys() {
                assert!(text.contains(name), "{name}");
            }
        }
    }

    #[test]
    fn kubectl_before_1_27_gets_protobuf_and_the_same_only_once() {
        let api = openapi();
        let old = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
        let packed = api.v2(&asking(&[(ACCEPT, old), (ACCEPT_ENCODING, "gzip")]));
        assert_eq!(packed.headers()[CONTENT_TYPE], GNOSTIC_V2);
        assert_eq!(packed.headers()[CONTENT_ENCODING], "gzip");
        let plain = api.v2(&asking(&[(ACCEPT, old)]));
        assert!(!plain.headers().contains_key(CONTENT_ENCODING));
        let etag = plain.headers()[ETAG].to_str().expect("text").to_owned();
        let again = api.v2(&asking(&[(ACCEPT, old), (IF_NONE_MATCH, &etag)]));
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        let json = api.v2(&asking(&[(ACCEPT, "application/json")]));
        assert_eq!(json.headers()[CONTENT_TYPE], JSON);
        assert_eq!(
            api.v2(&asking(&[(ACCEPT, "text/html")])).status(),
            StatusCode::NOT_ACCEPTABLE
        );
    }

    #[test]
    fn nothing_is_made_before_somebody_asks() {
        let api = openapi();
        assert!(api.v2_json.get().is_none() && api.v2_gnostic.get().is_none());
        api.v2(&asking(&[(IF_NONE_MATCH, &format!("\"{}\"", api.v2_hash))]));
        assert!(api.v2_json.get().is_none(), "who has it already costs nothing");
    }

    #[test]
    fn fields_and_types_are_described() {
        let doc = v3(&openapi(), "api/v1");
        let schemas = &doc["components"]["schemas"];
        let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert!(
            containers["description"]
                .as_str()
                .is_some_and(|d| d.contains("containers")),
            "{containers}"
        );
        let spec = &schemas["io.k8s.api.core.v1.Pod"]["properties"]["spec"];
        assert!(
            spec["description"].is_string() && spec["allOf"].is_array(),
            "{spec}"
        );
        assert!(schemas["io.k8s.api.core.v1.Pod"]["description"].is_string());
    }
}
