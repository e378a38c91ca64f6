//! What plugins, authenticators and authorizers look up: the objects in the watch caches.

use std::sync::Arc;

use crate::registry::Registry;
use crate::storage::object::CachedObject;

pub trait Objects: Send + Sync {
    /// `namespace` is "" for cluster-scoped resources.
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<CachedObject>>;
    fn list(&self, group: &str, resource: &str) -> Vec<Arc<CachedObject>>;
    fn list_namespace(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<CachedObject>>;
}

impl Objects for Registry {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<CachedObject>> {
        self.store(group, resource)?.get(namespace, name)
    }

    fn list(&self, group: &str, resource: &str) -> Vec<Arc<CachedObject>> {
        self.store(group, resource).map(|s| s.list()).unwrap_or_default()
    }

    fn list_namespace(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<CachedObject>> {
        self.store(group, resource)
            .map(|s| s.list_namespace(namespace))
            .unwrap_or_default()
    }
}
