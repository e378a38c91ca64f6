//! A cluster of a few objects, for tests of whatever reads the caches.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::schema::{self, Gvk};

use super::objects::Objects;
use super::{Refusal, Seams, Verdict};
use crate::registry::admission::{Attributes, Operation};
use crate::storage::object::{CachedObject, Encoding, Shape};
use crate::user::UserInfo;

/// group, resource, namespace, name.
type Key = (String, String, String, String);

#[derive(Default)]
pub struct Cluster(BTreeMap<Key, Arc<CachedObject>>);

impl Cluster {
    pub fn with(mut self, api_version: &str, kind: &str, mut object: serde_json::Value) -> Self {
        object["apiVersion"] = api_version.into();
        object["kind"] = kind.into();
        let cached = cached(&object);
        let gvk = Gvk::parse(api_version, kind);
        let resource = schema::resources()
            .iter()
            .find(|r| r.group == gvk.group && r.version == gvk.version && r.kind == kind)
            .expect("a known kind");
        let key = (
            gvk.group.to_owned(),
            resource.resource.to_string(),
            cached.namespace.to_string(),
            cached.name.to_string(),
        );
        self.0.insert(key, cached);
        self
    }
}

/// An object as a cache would hold it; `object` names its kind.
pub fn cached(object: &serde_json::Value) -> Arc<CachedObject> {
    let text = |key: &str| object[key].as_str().expect("apiVersion and kind").to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let gvk = Gvk::parse(&api_version, &kind);
    let shape = Shape {
        group: gvk.group.into(),
        version: gvk.version.into(),
        kind: gvk.kind.into(),
        api_version: api_version.as_str().into(),
        ty: schema::registry().kind(gvk).expect("a known kind"),
        encoding: Encoding::Json,
        selectable: Vec::new(),
        json_prefix: "".into(),
    };
    Arc::new(
        CachedObject::from_stored(&Arc::new(shape), object.to_string().as_bytes(), 1)
            .expect("a valid object"),
    )
}

impl Objects for Cluster {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<CachedObject>> {
        self.0
            .get(&(
                group.to_owned(),
                resource.to_owned(),
                namespace.to_owned(),
                name.to_owned(),
            ))
            .cloned()
    }

    fn list(&self, group: &str, resource: &str) -> Vec<Arc<CachedObject>> {
        self.0
            .iter()
            .filter(|(k, _)| k.0 == group && k.1 == resource)
            .map(|(_, o)| o.clone())
            .collect()
    }

    fn list_namespace(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<CachedObject>> {
        self.list(group, resource)
            .into_iter()
            .filter(|o| *o.namespace == *namespace)
            .collect()
    }
}

/// A request of an ordinary user; `object` need not name its kind.
pub fn attributes(
    operation: Operation,
    group: &str,
    resource: &str,
    namespace: &str,
    name: &str,
    object: Option<serde_json::Value>,
) -> Attributes {
    let object = object.map(|mut o| {
        o["metadata"]["name"] = name.into();
        if !namespace.is_empty() {
            o["metadata"]["namespace"] = namespace.into();
        }
        serde_json::from_value(o).expect("a value")
    });
    Attributes {
        operation,
        group: group.into(),
        version: "v1".into(),
        kind: String::new(),
        resource_group: group.into(),
        resource: resource.into(),
        subresource: String::new(),
        namespace: namespace.into(),
        name: name.into(),
        user: Arc::new(UserInfo::new("jane", &["system:authenticated"])),
        dry_run: false,
        object,
        old: None,
        options: None,
        warnings: vec![],
        audit_annotations: vec![],
    }
}

/// A pod about to be made in `ns`.
pub fn new_pod(pod: serde_json::Value) -> Attributes {
    attributes(Operation::Create, "", "pods", "ns", "p", Some(pod))
}

pub fn seams(cluster: Cluster) -> Seams {
    Seams {
        objects: Arc::new(cluster),
        authorizers: Arc::default(),
    }
}

/// The text of a refusal.
pub fn message(verdict: Verdict) -> String {
    match verdict.expect_err("refused") {
        Refusal::Status(error) | Refusal::NotYet { error, .. } => error.message,
    }
}

/// The object as JSON, to compare parts of it.
pub fn object(a: &Attributes) -> serde_json::Value {
    serde_json::to_value(a.object.as_ref().expect("an object")).expect("json")
}
