//! The resource table made real: a store for each stored resource, an endpoint for each served version.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::json;
use apimachinery::schema::{self, Gvk, Resource, TypeId};
use apimachinery::value::Value;

use super::store::{Backend, Store};
use super::strategy::Strategy;
use super::traits::{self, Traits};
use super::{Registry, ResourceEndpoint, strategies};
use crate::storage::feed::Routes;
use crate::storage::object::{Encoding, Shape};
use crate::storage::watch_cache::WatchCache;

/// `--runtime-config`: which versions are on besides the default ones.
pub struct Enabled(BTreeMap<String, bool>);

impl Enabled {
    pub fn new(config: BTreeMap<String, String>) -> Enabled {
        Enabled(
            config
                .into_iter()
                .map(|(key, value)| (key, value != "false"))
                .collect(),
        )
    }

    fn serves(&self, resource: &Resource) -> bool {
        let version = match resource.group {
            "" => resource.version.to_owned(),
            group => format!("{group}/{}", resource.version),
        };
        let exact = format!("{version}/{}", resource.resource);
        let level = match resource.version {
            v if v.contains("alpha") => "api/alpha",
            v if v.contains("beta") => "api/beta",
            _ => "api/ga",
        };
        let said = [exact.as_str(), version.as_str(), level, "api/all"]
            .into_iter()
            .find_map(|key| self.0.get(key));
        // Another version's bytes are not this one's: such a version is served once it is the stored one.
        let native = resource.storage.version == resource.version || resource.served;
        native && said.copied().unwrap_or(resource.served)
    }
}

/// Groups whose objects lie in etcd as JSON: upstream's CRD and aggregation layers store them so.
const JSON_GROUPS: [&str; 2] = ["apiextensions.k8s.io", "apiregistration.k8s.io"];

pub struct Built {
    pub registry: Registry,
    pub routes: Routes,
}

pub fn build(
    backend: &Arc<Backend>,
    prefix: &str,
    enabled: &Enabled,
    strategies: &strategies::Shared,
) -> Built {
    let mut built = Built {
        registry: Registry::default(),
        routes: Routes::new(),
    };
    // Two groups may share one place in etcd (events): they share the store.
    let mut by_place: BTreeMap<&'static str, Arc<Store>> = BTreeMap::new();
    for resource in schema::resources()
        .iter()
        .filter(|resource| enabled.serves(resource))
    {
        let store = if resource.key_prefix.is_empty() {
            None
        } else {
            let made = by_place.get(resource.key_prefix).cloned().or_else(|| {
                let store = store(resource, backend, prefix, strategies)?;
                store.strategy.attach(&store);
                built.routes.insert(store.key_prefix.clone(), store.cache.clone());
                by_place.insert(resource.key_prefix, store.clone());
                Some(store)
            });
            match made {
                Some(store) => Some(store),
                None => continue,
            }
        };
        let Some(shape) = endpoint_shape(resource, store.as_ref()) else {
            continue;
        };
        built.registry.add(ResourceEndpoint {
            resource,
            shape,
            store,
        });
    }
    built
}

fn endpoint_shape(resource: &'static Resource, store: Option<&Arc<Store>>) -> Option<Arc<Shape>> {
    let gvk = resource.gvk();
    if let Some(store) = store.filter(|store| store.shape.gvk() == gvk) {
        return Some(store.shape.clone());
    }
    let ty = schema::registry().kind(gvk)?;
    Some(Arc::new(Shape::new(
        gvk,
        ty,
        Encoding::Protobuf,
        traits::selectable(resource.group, resource.resource, ty),
    )))
}

fn store(
    resource: &'static Resource,
    backend: &Arc<Backend>,
    prefix: &str,
    shared: &strategies::Shared,
) -> Option<Arc<Store>> {
    let stored = Gvk {
        group: resource.storage.group,
        version: resource.storage.version,
        kind: resource.kind,
    };
    let ty = schema::registry().kind(stored)?;
    let encoding = if JSON_GROUPS.contains(&stored.group) {
        Encoding::Json
    } else {
        Encoding::Protobuf
    };
    let shape = Arc::new(Shape::new(
        stored,
        ty,
        encoding,
        traits::selectable(stored.group, resource.resource, ty),
    ));
    // The row of the stored version speaks for the resource (its group in error texts).
    let row = schema::resource(stored.group, stored.version, resource.resource).unwrap_or(resource);
    let strategy: Box<dyn Strategy> = strategies::of(row.group, row.resource, shared);
    let has_status = row.subresource("status").is_some();
    Some(Arc::new(Store {
        resource: row,
        strategy,
        traits: Traits::of(row.group, row.resource),
        empty_status: has_status.then(|| empty_status(ty)),
        key_prefix: format!("{prefix}/{}/", resource.key_prefix),
        history: Default::default(),
        cache: Arc::new(WatchCache::new(shape.clone())),
        shape,
        backend: backend.clone(),
    }))
}

/// What Go prints for an object whose status was never written.
fn empty_status(ty: TypeId) -> Value {
    let blank = Value::from([("status", Value::Object(Default::default()))]);
    let conformed = json::conform(&blank, ty, json::FieldValidation::Ignore);
    conformed
        .ok()
        .and_then(|mut decoded| decoded.value.remove("status"))
        .unwrap_or_else(|| Value::Object(Default::default()))
}
