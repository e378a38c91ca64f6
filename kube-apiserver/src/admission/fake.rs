//! A cluster of a few objects, for tests of whatever reads the caches.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::schema::{self, Gvk};

use super::objects::Objects;
use crate::storage::object::{CachedObject, Encoding, Shape};

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
        let resource = schema::resources().iter().find(|r| r.group == gvk.group && r.version == gvk.version && r.kind == kind).expect("a known kind");
        let key = (gvk.group.to_owned(), resource.resource.to_string(), cached.namespace.to_string(), cached.name.to_string());
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
    Arc::new(CachedObject::from_stored(&Arc::new(shape), object.to_string().as_bytes(), 1).expect("a valid object"))
}

impl Objects for Cluster {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<CachedObject>> {
        self.0.get(&(group.to_owned(), resource.to_owned(), namespace.to_owned(), name.to_owned())).cloned()
    }

    fn list(&self, group: &str, resource: &str) -> Vec<Arc<CachedObject>> {
        self.0.iter().filter(|(k, _)| k.0 == group && k.1 == resource).map(|(_, o)| o.clone()).collect()
    }

    fn list_namespace(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<CachedObject>> {
        self.list(group, resource).into_iter().filter(|o| *o.namespace == *namespace).collect()
    }
}
