//! An object's last steps into etcd and the first back.

use std::sync::Arc;

use apimachinery::json;
use apimachinery::protobuf;
use apimachinery::schema::Gvk;
use apimachinery::status::{self, StatusError};
use apimachinery::value::Value;
use bytes::Bytes;
use etcd_api::mvccpb::KeyValue;

use super::Store;
use crate::storage::object::{CachedObject, Encoding};

/// What is stored of an object, before encryption: everything but its resourceVersion, which is etcd's to say.
pub(super) fn encode(store: &Store, object: &mut Value) -> Result<Bytes, StatusError> {
    object.remove_at("metadata.resourceVersion");
    let shape = &store.shape;
    match shape.encoding {
        Encoding::Json => Ok(json::to_vec(object).into()),
        Encoding::Protobuf => {
            let mut raw = Vec::with_capacity(2048);
            protobuf::encode(object, shape.ty, &mut raw).map_err(|e| status::bad_request(e.to_string()))?;
            let mut stored = Vec::with_capacity(raw.len() + 64);
            protobuf::wrap(
                Gvk::new(&shape.group, &shape.version, &shape.kind),
                &raw,
                &mut stored,
            );
            Ok(stored.into())
        }
    }
}

pub(super) fn encrypt(store: &Store, key: &Bytes, plain: &Bytes) -> Result<Bytes, StatusError> {
    store
        .backend
        .transformer
        .to_storage(key, plain)
        .map_err(status::internal)
}

/// The written object as everybody will see it. The cache is offered the very same, so that it is encoded once.
pub(super) fn written(store: &Store, plain: &Bytes, revision: i64) -> Result<Arc<CachedObject>, StatusError> {
    let object = CachedObject::from_stored(&store.shape, plain, revision).map_err(status::internal)?;
    let object = Arc::new(object);
    store.backend.feed.offer(&object);
    Ok(object)
}

/// A dry run's result: as if it had been written, at the revision it would replace.
pub(super) fn unwritten(
    store: &Store,
    plain: &Bytes,
    revision: i64,
) -> Result<Arc<CachedObject>, StatusError> {
    CachedObject::from_stored(&store.shape, plain, revision)
        .map(Arc::new)
        .map_err(status::internal)
}

pub(super) fn read(store: &Store, kv: &KeyValue) -> Result<Arc<CachedObject>, StatusError> {
    CachedObject::from_etcd(&store.shape, &*store.backend.transformer, kv)
        .map(Arc::new)
        .map_err(status::internal)
}

/// The object as etcd has it now, past every cache.
pub(super) async fn fresh(store: &Store, key: Bytes) -> Result<Option<Arc<CachedObject>>, StatusError> {
    store
        .backend
        .etcd
        .get(key)
        .await?
        .map(|kv| read(store, &kv))
        .transpose()
}
