//! The one generic store: every resource is served by a value of this type, told apart by its `Shape` and `Strategy`.
//!
//! Reading: `get`, `list`, `snapshot` are synchronous looks at the watch cache; `consistent().await` first makes sure that
//! the cache has everything etcd had when the call began. Writing: `create`, `update`, `delete` in `store/`.

use std::sync::Arc;

use apimachinery::status::{self, GroupResource, StatusError};
use apimachinery::value::Value;

use super::admission::{Admission, Attributes, Operation};
use super::strategy::{Request, Strategy};
use super::traits::Traits;
use crate::clock;
use crate::endpoints::seam::RequestContext;
use crate::storage::encryption::Transformer;
use crate::storage::etcd;
use crate::storage::feed::Feed;
use crate::storage::object::{CachedObject, Shape};
use crate::storage::watch_cache::{Snapshot, WatchCache, WatchEvent, object_key};
use crate::user::UserInfo;

mod create;
mod delete;
mod history;
pub(crate) mod meta;
mod persist;
mod split;
mod update;

pub use delete::{DeleteOptions, Deleted, Preconditions, Propagation};
pub use split::{keep, spec_changed, split_by_status};

pub struct Store {
    pub resource: &'static apimachinery::schema::Resource,
    pub shape: Arc<Shape>,
    pub strategy: Box<dyn Strategy>,
    pub traits: Traits,
    /// The status of a new object: what Go prints for a zero status.
    pub(crate) empty_status: Option<Value>,
    /// `/registry/pods/`
    pub(crate) key_prefix: String,
    pub(crate) history: history::History,
    pub(crate) cache: Arc<WatchCache>,
    pub(crate) backend: Arc<Backend>,
}

/// What all stores share.
pub struct Backend {
    pub etcd: etcd::Client,
    pub feed: Arc<Feed>,
    /// Set once by the assembly, after the plugins that need the stores are made.
    pub admission: std::sync::OnceLock<Arc<dyn Admission>>,
    pub transformer: Arc<dyn Transformer>,
    /// `--event-ttl` in seconds.
    pub event_ttl_s: i64,
    pub leases: etcd::lease::LeasePool,
}

/// Options of a create or update, from query parameters.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    /// Collected by strategies and admission for `Warning` headers.
    pub warnings: Vec<String>,
}

/// An object as it was written.
pub struct Written {
    /// Made from the very bytes that were stored; the cache takes the same object when its event comes back.
    pub object: Arc<CachedObject>,
    /// `update` made it (update-or-create by PUT/apply).
    pub created: bool,
}

/// How an update turns the stored object into the wanted one. Called again with fresh bytes after a lost race;
/// an error ends the update.
pub type Change<'a> = dyn Fn(&Value) -> Result<Value, StatusError> + Send + Sync + 'a;

impl Store {
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

    /// Waits until the cache holds everything up to `revision`.
    pub async fn reached(&self, revision: i64) -> Result<(), StatusError> {
        self.backend.feed.reached(revision).await
    }

    /// Everything up to this revision is in the cache.
    pub fn feed_revision(&self) -> i64 {
        self.backend.feed.revision()
    }

    /// A snapshot and the revision it stands for, as it happens to be.
    pub fn now(&self) -> (Snapshot, i64) {
        let before = self.feed_revision();
        let snapshot = self.snapshot();
        let revision = before.max(snapshot.revision);
        (snapshot, revision)
    }

    /// A snapshot that has all writes which were done before the call.
    pub async fn current(&self) -> Result<(Snapshot, i64), StatusError> {
        self.consistent().await?;
        Ok(self.now())
    }

    pub async fn not_older(&self, revision: i64) -> Result<(Snapshot, i64), StatusError> {
        self.reached(revision).await?;
        Ok(self.now())
    }

    /// POST. `namespace` comes from the path. The object is of the storage version.
    pub async fn create(
        &self,
        ctx: &RequestContext,
        namespace: &str,
        object: Value,
        options: &mut WriteOptions,
    ) -> Result<Written, StatusError> {
        create::create(self, ctx, namespace, object, options).await
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

    pub async fn delete(
        &self,
        ctx: &RequestContext,
        namespace: &str,
        name: &str,
        options: &mut DeleteOptions,
    ) -> Result<Deleted, StatusError> {
        delete::delete(self, ctx, namespace, name, options).await
    }

    pub(crate) fn group_resource(&self) -> GroupResource<'_> {
        GroupResource::new(self.resource.group, self.resource.resource)
    }

    fn request<'a>(&'a self, user: &'a UserInfo, namespace: &'a str, subresource: &'a str) -> Request<'a> {
        Request {
            store: self,
            user,
            namespace,
            subresource,
            now: clock::now_s(),
        }
    }

    fn key(&self, namespace: &str, name: &str) -> bytes::Bytes {
        format!("{}{}", self.key_prefix, object_key(namespace, name)).into()
    }

    pub(crate) fn not_found(&self, name: &str) -> StatusError {
        status::not_found(self.group_resource(), name)
    }

    /// The admission chain, if it wants to see such an operation.
    fn admission(&self, operation: Operation) -> Option<&Arc<dyn Admission>> {
        self.backend
            .admission
            .get()
            .filter(|chain| chain.handles(operation))
    }

    fn attributes(
        &self,
        ctx: &RequestContext,
        operation: Operation,
        namespace: &str,
        name: &str,
        subresource: &str,
        dry_run: bool,
    ) -> Attributes {
        Attributes {
            operation,
            group: self.shape.group.to_string(),
            version: self.shape.version.to_string(),
            kind: self.shape.kind.to_string(),
            resource_group: self.resource.group.to_owned(),
            resource: self.resource.resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            user: ctx.user.clone(),
            dry_run,
            object: None,
            old: None,
            options: None,
            warnings: Vec::new(),
            audit_annotations: Vec::new(),
        }
    }
}
