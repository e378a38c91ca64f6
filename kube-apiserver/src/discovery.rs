//! What is served: `/api`, `/apis`, `/apis/<group>`, `/api/v1`, `/apis/<group>/<version>`, aggregated discovery.
//!
//! All documents are made once from the resource table and answered from memory.

use std::collections::BTreeMap;

use apimachinery::json;
use apimachinery::schema::{Gvk, Resource, Subresource};
use apimachinery::value::{Object, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use component_base::http::{Body, empty, full};
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use sha2::{Digest, Sha256};

use crate::endpoints::seam::{NonResource, RequestContext};

const AGGREGATED_V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const AGGREGATED_V2BETA1: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

pub struct Discovery {
    /// Path without trailing slash -> document.
    plain: BTreeMap<String, Document>,
    /// "/api" and "/apis" in the aggregated form, for v2 and v2beta1.
    aggregated: BTreeMap<(&'static str, &'static str), Document>,
}

struct Document {
    body: Bytes,
    etag: String,
}

impl Discovery {
    /// `resources` are those served, in discovery order; `address` is what clients are told to connect to.
    pub fn new(resources: &[&'static Resource], address: &str) -> Discovery {
        let groups = groups(resources);
        let mut plain = BTreeMap::new();
        plain.insert("/api".to_owned(), Document::new(&api_versions(address)));
        plain.insert("/apis".to_owned(), Document::new(&api_group_list(&groups)));
        for group in &groups {
            if !group.name.is_empty() {
                plain.insert(
                    format!("/apis/{}", group.name),
                    Document::new(&api_group(group, true)),
                );
            }
            for (version, members) in &group.versions {
                plain.insert(
                    version_path(group.name, version),
                    Document::new(&resource_list(group.name, version, members)),
                );
            }
        }
        let mut aggregated = BTreeMap::new();
        for version in ["v2", "v2beta1"] {
            let (core, named): (Vec<&Group>, Vec<&Group>) = groups.iter().partition(|g| g.name.is_empty());
            aggregated.insert(
                ("/api", version),
                Document::new(&group_discovery_list(version, &core)),
            );
            aggregated.insert(
                ("/apis", version),
                Document::new(&group_discovery_list(version, &named)),
            );
        }
        Discovery { plain, aggregated }
    }

    fn answer(&self, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
        let path = path.trim_end_matches('/');
        if let Some((version, media)) = wants_aggregated(headers)
            && let Some((_, document)) = self
                .aggregated
                .iter()
                .find(|((p, v), _)| *p == path && *v == version)
        {
            return Some(document.response(media, headers, true));
        }
        self.plain
            .get(path)
            .map(|document| document.response("application/json", headers, false))
    }
}

impl NonResource for Discovery {
    fn serve(&self, _: &RequestContext, req: &Request<Incoming>) -> Option<Response<Body>> {
        if !matches!(*req.method(), Method::GET | Method::HEAD) {
            return None;
        }
        self.answer(req.uri().path(), req.headers())
    }

    fn paths(&self) -> Vec<String> {
        self.plain.keys().cloned().collect()
    }
}

impl Document {
    fn new(value: &Value) -> Self {
        let body = Bytes::from(json::to_vec(value));
        let hash: String = Sha256::digest(&body).iter().map(|b| format!("{b:02X}")).collect();
        Document {
            body,
            etag: format!("\"{hash}\""),
        }
    }

    fn response(&self, media: &'static str, headers: &HeaderMap, with_etag: bool) -> Response<Body> {
        let unchanged = with_etag
            && headers
                .get(IF_NONE_MATCH)
                .is_some_and(|v| v.as_bytes() == self.etag.as_bytes());
        let mut response = Response::new(if unchanged {
            empty()
        } else {
            full(self.body.clone())
        });
        if unchanged {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let out = response.headers_mut();
        out.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        out.insert(VARY, HeaderValue::from_static("Accept"));
        if let (true, Ok(etag)) = (with_etag, HeaderValue::from_str(&self.etag)) {
            out.insert(ETAG, etag);
        }
        response
    }
}

/// The first acceptable form, in the client's order, if it is the aggregated one.
fn wants_aggregated(headers: &HeaderMap) -> Option<(&'static str, &'static str)> {
    let accept = headers.get(ACCEPT)?.to_str().ok()?;
    for clause in accept.split(',') {
        let mut parameters = clause.split(';').map(str::trim);
        let media = parameters.next()?;
        let parameters: Vec<&str> = parameters.collect();
        if parameters.contains(&"as=APIGroupDiscoveryList") && parameters.contains(&"g=apidiscovery.k8s.io") {
            match () {
                () if parameters.contains(&"v=v2") => return Some(("v2", AGGREGATED_V2)),
                () if parameters.contains(&"v=v2beta1") => return Some(("v2beta1", AGGREGATED_V2BETA1)),
                () => continue,
            }
        }
        if matches!(media, "application/json" | "*/*" | "application/*")
            && !parameters.iter().any(|p| p.starts_with("as="))
        {
            return None;
        }
    }
    None
}

struct Group {
    name: &'static str,
    /// In order of preference.
    versions: Vec<(&'static str, Vec<&'static Resource>)>,
}

fn groups(resources: &[&'static Resource]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for resource in resources {
        let at = groups
            .iter()
            .position(|g| g.name == resource.group)
            .unwrap_or_else(|| {
                groups.push(Group {
                    name: resource.group,
                    versions: Vec::new(),
                });
                groups.len() - 1
            });
        let versions = &mut groups[at].versions;
        match versions.iter_mut().find(|(v, _)| *v == resource.version) {
            Some((_, members)) => members.push(resource),
            None => versions.push((resource.version, vec![resource])),
        }
    }
    groups.sort_by_key(|g| group_order(g.name));
    for group in &mut groups {
        group.versions.sort_by_key(|(v, _)| version_order(v));
    }
    groups
}

/// Upstream's group priorities, highest first; clients resolve ambiguous names in this order.
fn group_order(name: &str) -> usize {
    const ORDER: [&str; 20] = [
        "",
        "apiregistration.k8s.io",
        "apps",
        "events.k8s.io",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "autoscaling",
        "batch",
        "certificates.k8s.io",
        "networking.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
        "storage.k8s.io",
        "admissionregistration.k8s.io",
        "apiextensions.k8s.io",
        "scheduling.k8s.io",
        "coordination.k8s.io",
        "node.k8s.io",
        "discovery.k8s.io",
        "flowcontrol.apiserver.k8s.io",
    ];
    ORDER.iter().position(|g| *g == name).unwrap_or(ORDER.len())
}

/// Stable before beta before alpha, newer before older: v2, v1, v1beta2, v1beta1, v1alpha1.
fn version_order(version: &str) -> (u8, std::cmp::Reverse<u32>, std::cmp::Reverse<u32>) {
    let rest = version.strip_prefix('v').unwrap_or(version);
    let (stage, split) = match (rest.find("alpha"), rest.find("beta")) {
        (Some(at), _) => (2, Some((at, at + 5))),
        (_, Some(at)) => (1, Some((at, at + 4))),
        _ => (0, None),
    };
    let number = |text: &str| std::cmp::Reverse(text.parse().unwrap_or(0));
    match split {
        Some((end, start)) => (stage, number(&rest[..end]), number(&rest[start..])),
        None => (stage, number(rest), std::cmp::Reverse(0)),
    }
}

fn version_path(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{group}/{version}")
    }
}

fn api_versions(address: &str) -> Value {
    let server = Value::from([
        ("clientCIDR", "0.0.0.0/0".into()),
        ("serverAddress", address.into()),
    ]);
    Value::from([
        ("kind", "APIVersions".into()),
        ("versions", vec!["v1"].into()),
        ("serverAddressByClientCIDRs", vec![server].into()),
    ])
}

fn api_group_list(groups: &[Group]) -> Value {
    let named: Vec<Value> = groups
        .iter()
        .filter(|g| !g.name.is_empty())
        .map(|g| api_group(g, false))
        .collect();
    Value::from([
        ("kind", "APIGroupList".into()),
        ("apiVersion", "v1".into()),
        ("groups", named.into()),
    ])
}

fn api_group(group: &Group, alone: bool) -> Value {
    let mut value = Value::Object(Object::new());
    if alone {
        value.set("kind", "APIGroup");
        value.set("apiVersion", "v1");
    }
    let version = |v: &str| {
        Value::from([
            ("groupVersion", format!("{}/{v}", group.name).into()),
            ("version", v.into()),
        ])
    };
    value.set("name", group.name);
    value.set(
        "versions",
        group.versions.iter().map(|(v, _)| version(v)).collect::<Vec<_>>(),
    );
    if let Some((preferred, _)) = group.versions.first() {
        value.set("preferredVersion", version(preferred));
    }
    value
}

fn resource_list(group: &str, version: &str, members: &[&'static Resource]) -> Value {
    let mut rows: Vec<(String, Value)> = Vec::new();
    for resource in members {
        rows.push((resource.resource.to_owned(), resource_row(resource)));
        rows.extend(resource.subresources.iter().map(|sub| {
            let name = format!("{}/{}", resource.resource, sub.name);
            let row = subresource_row(resource, sub, &name);
            (name, row)
        }));
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let rows: Vec<Value> = rows.into_iter().map(|(_, row)| row).collect();
    Value::from([
        ("kind", "APIResourceList".into()),
        ("apiVersion", "v1".into()),
        ("groupVersion", Gvk::new(group, version, "").api_version().into()),
        ("resources", rows.into()),
    ])
}

fn resource_row(resource: &Resource) -> Value {
    let mut row = Value::from([
        ("name", resource.resource.into()),
        ("singularName", resource.singular.into()),
        ("namespaced", resource.namespaced.into()),
        ("kind", resource.kind.into()),
        ("verbs", resource.verbs.clone().into()),
    ]);
    if !resource.short_names.is_empty() {
        row.set("shortNames", resource.short_names.clone());
    }
    if !resource.categories.is_empty() {
        row.set("categories", resource.categories.clone());
    }
    if !resource.key_prefix.is_empty() {
        let stored = format!(
            "{}/{}/{}",
            resource.storage.group, resource.storage.version, resource.storage.kind
        );
        row.set(
            "storageVersionHash",
            STANDARD.encode(&Sha256::digest(stored)[..8]),
        );
    }
    row
}

fn subresource_row(resource: &Resource, sub: &Subresource, name: &str) -> Value {
    let mut row = Value::from([
        ("name", name.into()),
        ("singularName", "".into()),
        ("namespaced", resource.namespaced.into()),
    ]);
    if (sub.gvk.group, sub.gvk.version) != (resource.group, resource.version) {
        row.set("group", sub.gvk.group);
        row.set("version", sub.gvk.version);
    }
    row.set("kind", sub.gvk.kind);
    row.set("verbs", sub.verbs.clone());
    row
}

fn group_discovery_list(version: &str, groups: &[&Group]) -> Value {
    let items: Vec<Value> = groups.iter().map(|g| group_discovery(g)).collect();
    Value::from([
        ("kind", "APIGroupDiscoveryList".into()),
        ("apiVersion", format!("apidiscovery.k8s.io/{version}").into()),
        ("metadata", Value::Object(Object::new())),
        ("items", items.into()),
    ])
}

fn group_discovery(group: &Group) -> Value {
    let mut metadata = Value::Object(Object::new());
    if !group.name.is_empty() {
        metadata.set("name", group.name);
    }
    metadata.set("creationTimestamp", Value::Null);
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|(version, members)| {
            let mut members = members.clone();
            members.sort_by_key(|r| r.resource);
            let resources: Vec<Value> = members.iter().map(|r| resource_discovery(r)).collect();
            Value::from([
                ("version", (*version).into()),
                ("resources", resources.into()),
                ("freshness", "Current".into()),
            ])
        })
        .collect();
    Value::from([("metadata", metadata), ("versions", versions.into())])
}

fn resource_discovery(resource: &Resource) -> Value {
    let mut value = Value::from([
        ("resource", resource.resource.into()),
        ("responseKind", kind(resource.gvk())),
        (
            "scope",
            if resource.namespaced {
                "Namespaced"
            } else {
                "Cluster"
            }
            .into(),
        ),
        ("singularResource", resource.singular.into()),
        ("verbs", resource.verbs.clone().into()),
    ]);
    if !resource.short_names.is_empty() {
        value.set("shortNames", resource.short_names.clone());
    }
    if !resource.categories.is_empty() {
        value.set("categories", resource.categories.clone());
    }
    if !resource.subresources.is_empty() {
        let sub = |s: &Subresource| {
            Value::from([
                ("subresource", s.name.into()),
                ("responseKind", kind(s.gvk)),
                ("verbs", s.verbs.clone().into()),
            ])
        };
        value.set(
            "subresources",
            resource.subresources.iter().map(sub).collect::<Vec<_>>(),
        );
    }
    value
}

fn kind(gvk: Gvk<'static>) -> Value {
    Value::from([
        ("group", gvk.group.into()),
        ("version", gvk.version.into()),
        ("kind", gvk.kind.into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::schema::resources;

    fn discovery() -> Discovery {
        let served: Vec<&'static Resource> = resources().iter().filter(|r| r.served).collect();
        Discovery::new(&served, "10.0.0.1:6443")
    }

    fn get(path: &str, accept: &str) -> (StatusCode, HeaderMap, serde_json::Value) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("accept"));
        let response = discovery().answer(path, &headers).expect("a document");
        let (parts, body) = response.into_parts();
        let bytes = futures_util::FutureExt::now_or_never(http_body_util::BodyExt::collect(body))
            .expect("ready")
            .expect("body")
            .to_bytes();
        (
            parts.status,
            parts.headers,
            serde_json::from_slice(&bytes).unwrap_or_default(),
        )
    }

    #[test]
    fn the_core_version_lists_resources_and_subresources_in_order() {
        let (_, _, doc) = get("/api/v1", "application/json");
        let names: Vec<&str> = doc["resources"]
            .as_array()
            .expect("list")
            .iter()
            .map(|r| r["name"].as_str().expect("name"))
            .collect();
        assert!(names.is_sorted());
        let pods = doc["resources"]
            .as_array()
            .expect("list")
            .iter()
            .find(|r| r["name"] == "pods")
            .expect("pods");
        assert_eq!(pods["storageVersionHash"], "xPOwRZ+Yhw8=");
        let eviction = doc["resources"]
            .as_array()
            .expect("list")
            .iter()
            .find(|r| r["name"] == "pods/eviction")
            .expect("eviction");
        assert_eq!(
            (&eviction["group"], &eviction["kind"]),
            (&"policy".into(), &"Eviction".into())
        );
    }

    #[test]
    fn groups_prefer_stable_and_newer_versions() {
        let (_, _, doc) = get("/apis/autoscaling", "application/json");
        assert_eq!(doc["preferredVersion"]["version"], "v2");
        let mut versions = ["v1alpha1", "v1beta1", "v1", "v1beta2", "v2", "v10"];
        versions.sort_by_key(|v| version_order(v));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1"]);
    }

    #[test]
    fn aggregated_discovery_is_given_to_who_asks_for_it_first() {
        let kubectl = format!("{AGGREGATED_V2},{AGGREGATED_V2BETA1},application/json");
        let (_, headers, doc) = get("/apis", &kubectl);
        assert_eq!(headers[CONTENT_TYPE], AGGREGATED_V2);
        assert_eq!(doc["items"][1]["metadata"]["name"], "apps");
        let (_, headers, doc) = get("/apis", "application/json");
        assert_eq!(
            (headers[CONTENT_TYPE].to_str().expect("text"), &doc["kind"]),
            ("application/json", &"APIGroupList".into())
        );
        let (_, _, doc) = get("/api", &format!("{AGGREGATED_V2BETA1},application/json"));
        assert_eq!(doc["apiVersion"], "apidiscovery.k8s.io/v2beta1");
    }

    #[test]
    fn an_unchanged_document_is_not_sent_again() {
        let (_, headers, _) = get("/apis", AGGREGATED_V2);
        let mut again = HeaderMap::new();
        again.insert(ACCEPT, HeaderValue::from_static(AGGREGATED_V2));
        again.insert(IF_NONE_MATCH, headers[ETAG].clone());
        assert_eq!(
            discovery().answer("/apis", &again).expect("a document").status(),
            StatusCode::NOT_MODIFIED
        );
    }

    #[test]
    fn unknown_groups_are_not_its_business() {
        assert!(discovery().answer("/apis/nope", &HeaderMap::new()).is_none());
        assert!(discovery().answer("/apis/apps/v1/", &HeaderMap::new()).is_some());
    }
}
