//! All resources the server stores, and the table from (group, version, resource) to them.
//!
//! Reading order: `Registry` and `ResourceEndpoint` here, `store` (the one generic store), `strategy` (what a kind adds to
//! it), then a folder for each group with the kinds that add something.

use std::sync::Arc;

use hashbrown::{Equivalent, HashMap};

use crate::storage::object::Shape;

pub mod admission;
pub mod apps;
pub mod batch;
pub mod build;
pub mod certificates;
pub mod convert;
pub mod core;
pub mod rbac;
pub mod store;
pub mod strategies;
pub mod strategy;
pub mod traits;

pub use store::Store;

/// One served resource (or subresource parent) at one version: `apps/v1 deployments`.
pub struct ResourceEndpoint {
    pub resource: &'static apimachinery::schema::Resource,
    /// The served version's kind. Equal to `store.shape` unless the resource is stored at another version.
    pub shape: Arc<Shape>,
    /// `None` for resources that store nothing (tokenreviews, bindings, ...).
    pub store: Option<Arc<Store>>,
}

#[derive(Default)]
pub struct Registry {
    stores: HashMap<Key, Arc<Store>>,
    endpoints: HashMap<Key, Arc<ResourceEndpoint>>,
    order: Vec<Arc<ResourceEndpoint>>,
}

impl Registry {
    /// The store of a resource whatever the version: `store("apps", "deployments")`.
    pub fn store(&self, group: &str, resource: &str) -> Option<&Arc<Store>> {
        self.stores.get(&Borrowed(group, "", resource))
    }

    /// What serves `group/version resource`; `None` = 404.
    pub fn endpoint(&self, group: &str, version: &str, resource: &str) -> Option<&Arc<ResourceEndpoint>> {
        self.endpoints.get(&Borrowed(group, version, resource))
    }

    /// Every served resource at every served version, in discovery order.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<ResourceEndpoint>> {
        self.order.iter()
    }

    pub fn stores(&self) -> impl Iterator<Item = &Arc<Store>> {
        self.stores.values()
    }

    pub fn add(&mut self, endpoint: ResourceEndpoint) {
        let endpoint = Arc::new(endpoint);
        let resource = endpoint.resource;
        if let Some(store) = &endpoint.store {
            self.stores
                .insert(Key::new(resource.group, "", resource.resource), store.clone());
        }
        self.endpoints.insert(
            Key::new(resource.group, resource.version, resource.resource),
            endpoint.clone(),
        );
        self.order.push(endpoint);
    }
}

#[derive(PartialEq, Eq)]
struct Key(Box<str>, Box<str>, Box<str>);

impl Key {
    fn new(group: &str, version: &str, resource: &str) -> Key {
        Key(group.into(), version.into(), resource.into())
    }
}

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Borrowed(&self.0, &self.1, &self.2).hash(state);
    }
}

#[derive(Hash)]
struct Borrowed<'a>(&'a str, &'a str, &'a str);

impl Equivalent<Key> for Borrowed<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *key.0 == *self.0 && *key.1 == *self.1 && *key.2 == *self.2
    }
}
