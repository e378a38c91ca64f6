//! OpenAPI v2 and v3, generated from the schema table when somebody asks.
//!
//! Nothing is kept but the hashes: documents are large, made in milliseconds, and clients cache them.

use bytes::Bytes;
use component_base::http::{Body, empty, full};
use component_base::version::GIT_VERSION;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, LOCATION, VARY,
};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use apimachinery::schema::Resource;

use crate::endpoints::seam::{NonResource, RequestContext};
use crate::request_info::query_value;

mod paths;
mod schemas;

use schemas::{Definitions, Dialect};

const V2_PATH: &str = "/openapi/v2";
const V3_PATH: &str = "/openapi/v3";
/// `?hash=` names the content, so it may be kept for a year.
const IMMUTABLE: &str = "public, immutable, max-age=31536000";

pub struct OpenApi {
    resources: Vec<&'static Resource>,
    /// `api/v1`, `apis/apps/v1`, ... and the hash of each document.
    versions: Vec<(String, String)>,
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
        OpenApi { resources, versions }
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
        document(
            &json!({ "paths": self.versions.iter().map(url).collect::<Map<_, _>>() }),
            "application/json",
        )
    }

    fn version(&self, path: &str, query: &str, headers: &HeaderMap) -> Option<Response<Body>> {
        let (path, hash) = self.versions.iter().find(|(p, _)| p == path)?;
        match query_value(query, "hash") {
            Some(asked) if asked != *hash => return Some(moved(&format!("{V3_PATH}/{path}?hash={hash}"))),
            _ if !accepts_json(headers) => return Some(not_acceptable()),
            _ => {}
        }
        if matches(headers, hash) {
            return Some(unchanged(hash));
        }
        let mut response = document(&self.v3_document(path), "application/json");
        mark(response.headers_mut(), hash);
        if query_value(query, "hash").is_some() {
            response
                .headers_mut()
                .insert(CACHE_CONTROL, HeaderValue::from_static(IMMUTABLE));
        }
        Some(response)
    }

    fn v3_document(&self, path: &str) -> Value {
        let members: Vec<&Resource> = self
            .resources
            .iter()
            .copied()
            .filter(|r| version_path(r) == path)
            .collect();
        let mut definitions = Definitions::new(Dialect::V3);
        let paths = paths::of_resources(&members, &mut definitions);
        let bearer = json!({ "BearerToken": { "type": "apiKey", "in": "header", "name": "authorization", "description": "Bearer Token authentication" } });
        json!({
            "openapi": "3.0.0",
            "info": { "title": "Kubernetes", "version": GIT_VERSION },
            "paths": paths,
            "components": { "schemas": definitions.finish(), "securitySchemes": bearer },
        })
    }

    fn v2(&self, headers: &HeaderMap) -> Response<Body> {
        if !accepts_json(headers) {
            return not_acceptable();
        }
        let hash = hash_of(&self.resources, "v2");
        if matches(headers, &hash) {
            return unchanged(&hash);
        }
        let mut definitions = Definitions::new(Dialect::V2);
        let paths = paths::of_resources(&self.resources, &mut definitions);
        let swagger = json!({
            "swagger": "2.0",
            "info": { "title": "Kubernetes", "version": GIT_VERSION },
            "paths": paths,
            "definitions": definitions.finish(),
        });
        let mut response = document(&swagger, "application/json");
        mark(response.headers_mut(), &hash);
        response
    }
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

/// A document follows from the program's version and the list of served resources.
fn hash_of(resources: &[&'static Resource], document: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(GIT_VERSION);
    hasher.update(env!("CARGO_PKG_VERSION"));
    hasher.update(document);
    for resource in resources {
        hasher.update(resource.group);
        hasher.update(resource.version);
        hasher.update(resource.resource);
    }
    hasher.finalize().iter().map(|b| format!("{b:02X}")).collect()
}

/// The protobuf forms are not made: no kubectl since 1.27 asks for them without JSON beside.
fn accepts_json(headers: &HeaderMap) -> bool {
    let Some(accept) = headers.get(ACCEPT).and_then(|v| v.to_str().ok()) else {
        return true;
    };
    accept.split(',').any(|clause| {
        matches!(
            clause.split(';').next().unwrap_or("").trim(),
            "application/json" | "*/*" | "application/*" | ""
        )
    })
}

fn matches(headers: &HeaderMap, hash: &str) -> bool {
    headers
        .get(IF_NONE_MATCH)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.trim_matches('"') == hash)
}

fn document(value: &Value, media: &'static str) -> Response<Body> {
    // A tree of maps with string keys always serializes.
    let body = Bytes::from(serde_json::to_vec(value).unwrap_or_default());
    let mut response = Response::new(full(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("Accept"));
    response
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
        "only application/json is served here\n",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::schema::resources;

    fn openapi() -> OpenApi {
        OpenApi::new(resources().iter().filter(|r| r.served).collect())
    }

    #[test]
    fn every_reference_of_a_document_resolves() {
        let api = openapi();
        for (path, _) in &api.versions {
            let text = api.v3_document(path).to_string();
            let doc: Value = serde_json::from_str(&text).expect("json");
            for reference in text.split("\"#/components/schemas/").skip(1) {
                let name = reference.split('"').next().expect("a name");
                assert!(doc["components"]["schemas"].get(name).is_some(), "{path}: {name}");
            }
        }
    }

    #[test]
    fn patches_say_that_fields_are_validated() {
        let doc = openapi().v3_document("apis/apps/v1");
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
        let doc = openapi().v3_document("api/v1");
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
}
