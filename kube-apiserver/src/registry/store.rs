//! The one generic store: every resource is served by a value of this type, told apart by its `Shape` and `Strategy`.
//!
//! Reading: `get`, `list`, `snapshot` are synchronous looks at the watch cache; `consistent().await` first makes sure that
//! the cache has everything etcd had when the call began. Writing: `create`, `update`, `delete` in `store/`.

use std::sync::Arc;

use apimachinery::status::StatusError;
use apimachinery::value::Value;

use super::admission::Admission;
use super::strategy::Strategy;
use crate::endpoints::seam::RequestContext;
use crate::storage::encryption::Transformer;
use crate::storage::etcd;
use crate::storage::feed::Feed;
use crate::storage::keys;
use crate::storage::object::{CachedObject, Shape};
use crate::storage::watch_cache::{Snapshot, WatchCache, WatchEvent};

mod create;
mod delete;
mod meta;
mod update;

pub use delete::{DeleteOptions, Deleted, Preconditions, Propagation};

pub struct Store {
    pub resource: &'static apimachinery::schema::Resource,
    pub shape: Arc<Shape>,
    pub strategy: Box<dyn Strategy>,
    pub(crate) cache: Arc<WatchCache>,
    pub(crate) backend: Arc<Backend>,
}

/// What all stores share.
pub struct Backend {
    pub etcd: etcd::Client,
    pub feed: Arc<Feed>,
    pub keys: keys::Prefix,
    pub admission: arc_swap::ArcSwap<Box<dyn Admission>>,
    pub transformer: Arc<dyn Transformer>,
    /// `--event-ttl` in seconds.
    pub event_ttl_s: i64,
    pub leases: etcd::lease::LeasePool,
}

/// Options of a create or update, from query parameters.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    /// Collected by strategies and admission for `Warning` headers.
    pub warnings: Vec<String>,
}

/// An object as it was written.
pub struct Written {
    /// With metadata.resourceVersion set.
    pub object: Value,
    /// `update` made it (update-or-create by PUT/apply).
    pub created: bool,
}

/// How an update turns the stored object into the wanted one. Called again with fresh bytes after a lost race;
/// an error ends the update. The second argument is the wanted object's starting point: a copy of the first.
pub type Change<'a> = dyn Fn(&Value) -> Result<Value, StatusError> + Send + Sync + 'a;

impl Store {
    pub fn group(&self) -> &str {
        &self.resource.group
    }

    pub fn name(&self) -> &str {
        &self.resource.resource
    }

    /// The object now in the cache. Cluster-scoped resources take `""` as namespace.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<CachedObject>> {
        self.cache.get(namespace, name)
    }

    /// Everything in the cache as one immutable map; O(1).
    pub fn snapshot(&self) -> Snapshot {
        self.cache.snapshot()
    }

    pub fn list(&self) -> Vec<Arc<CachedObject>> {
        self.snapshot().iter().cloned().collect()
    }

    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<CachedObject>> {
        self.snapshot().namespace(namespace).cloned().collect()
    }

    /// Calls `observer` with `Added` for everything there is, then with every change, in order and without a gap, from the
    /// task that feeds the cache: before any reader sees the change. It must be quick and must not block or call the store.
    pub fn observe(&self, observer: impl Fn(&WatchEvent) + Send + Sync + 'static) {
        self.cache.observe(Box::new(observer));
    }

    /// Returns when the cache holds at least what etcd held at the time of the call.
    pub async fn consistent(&self) -> Result<i64, StatusError> {
        self.backend.feed.consistent().await
    }

    /// POST. `namespace` comes from the path. The object is of the storage version.
    pub async fn create(&self, ctx: &RequestContext, namespace: &str, object: Value, options: &mut WriteOptions) -> Result<Written, StatusError> {
        create::create(self, ctx, namespace, "", object, options).await
    }

    /// PUT and PATCH of the object (`subresource` = "") or of a subresource of the same kind (status, finalize, ...).
    pub async fn update(
        &self,
        ctx: &RequestContext,
        namespace: &str,
        name: &str,
        subresource: &str,
        change: &Change<'_>,
        options: &mut WriteOptions,
    ) -> Result<Written, StatusError> {
        update::update(self, ctx, namespace, name, subresource, change, options).await
    }

    pub async fn delete(&self, ctx: &RequestContext, namespace: &str, name: &str, options: &mut DeleteOptions) -> Result<Deleted, StatusError> {
        delete::delete(self, ctx, namespace, name, options).await
    }
}
