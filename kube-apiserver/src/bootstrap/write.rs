//! The server's own writes: through the stores like everyone's, as the loopback user.

use apimachinery::status::StatusError;
use apimachinery::value::Value;

use crate::endpoints::seam::RequestContext;
use crate::registry::Store;
use crate::registry::store::{Change, DeleteOptions, WriteOptions};

/// Another server of the cluster may have been faster; that is as good.
pub async fn create(store: &Store, namespace: &str, object: Value) -> Result<(), StatusError> {
    match store
        .create(
            &RequestContext::loopback(),
            namespace,
            object,
            &mut WriteOptions::default(),
        )
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if error.is_already_exists() => Ok(()),
        Err(error) => Err(error),
    }
}

pub async fn update(
    store: &Store,
    namespace: &str,
    name: &str,
    change: &Change<'_>,
) -> Result<(), StatusError> {
    store
        .update(
            &RequestContext::loopback(),
            namespace,
            name,
            "",
            change,
            &mut WriteOptions::default(),
        )
        .await
        .map(|_| ())
}

pub async fn delete(store: &Store, namespace: &str, name: &str) -> Result<(), StatusError> {
    store
        .delete(
            &RequestContext::loopback(),
            namespace,
            name,
            &mut DeleteOptions::default(),
        )
        .await
        .map(|_| ())
}

/// Creates `object` if there is none of its name.
pub async fn ensure(store: &Store, namespace: &str, name: &str, object: Value) -> Result<(), StatusError> {
    if store.get(namespace, name).is_some() {
        Ok(())
    } else {
        create(store, namespace, object).await
    }
}
