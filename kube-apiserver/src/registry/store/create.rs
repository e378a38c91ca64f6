//! POST, and PUT of a name that does not exist yet: admit -> prepare -> validate -> one transaction.

use std::sync::Arc;

use apimachinery::meta::Meta;
use apimachinery::status::{self, StatusError};
use apimachinery::value::Value;

use super::{Store, WriteOptions, Written, meta, persist};
use crate::endpoints::seam::RequestContext;
use crate::registry::admission::{Attributes, Operation};
use crate::registry::strategy::Request;
use crate::storage::etcd::Outcome;
use crate::storage::object::CachedObject;

/// Names tried for one `generateName`.
const NAME_ATTEMPTS: usize = 8;

pub(super) async fn create(
    store: &Store,
    ctx: &RequestContext,
    namespace: &str,
    mut object: Value,
    options: &mut WriteOptions,
) -> Result<Written, StatusError> {
    meta::match_namespace(store, namespace, &mut object)?;
    if !matches!(object.resource_version(), "" | "0") {
        let message = "resourceVersion should not be set on objects to be created".to_owned();
        return Err(StatusError {
            code: 500,
            reason: "InternalError",
            message,
            details: None,
        });
    }
    let request = store.request(&ctx.user, namespace, "");
    meta::fill_system_fields(&request, &mut object);
    let generated = object.name().is_empty() && !object.generate_name().is_empty();
    if generated {
        meta::generate_name(&mut object);
    }
    object = admit(store, ctx, namespace, object, options).await?;
    prepare(&request, &mut object);
    validate(store, &request, &object, options)?;
    object = approve(store, ctx, namespace, object, options).await?;
    let object = insert(store, &request, object, generated, options.dry_run).await?;
    Ok(Written {
        object,
        created: true,
    })
}

fn prepare(request: &Request<'_>, object: &mut Value) {
    let store = request.store;
    if let Some(empty) = store
        .empty_status
        .as_ref()
        .filter(|_| !store.strategy.keeps_new_status())
    {
        object.set("status", empty.clone());
    }
    if store.traits.generation {
        object.metadata_mut().insert("generation", Value::Int(1));
    }
    store.strategy.prepare_create(request, object);
}

fn validate(
    store: &Store,
    request: &Request<'_>,
    object: &Value,
    options: &mut WriteOptions,
) -> Result<(), StatusError> {
    let mut errors = meta::validate_create(store, object);
    errors.extend(meta::required_fields(store, object));
    errors.extend(store.strategy.validate_create(request, object));
    if !errors.is_empty() {
        return Err(status::invalid(
            &store.shape.group,
            &store.shape.kind,
            object.name(),
            &errors,
        ));
    }
    options.warnings.extend(store.strategy.warnings(object));
    Ok(())
}

/// Reserve, write, and give the reservation back if the write did not happen.
async fn insert(
    store: &Store,
    request: &Request<'_>,
    mut object: Value,
    generated: bool,
    dry_run: bool,
) -> Result<Arc<CachedObject>, StatusError> {
    let rollback = match store.strategy.begin(request, &mut object, None) {
        Some(begin) => begin.await?,
        None => None,
    };
    let result = put(store, request.namespace, object, generated, dry_run).await;
    if let Some(rollback) = rollback.filter(|_| dry_run || result.is_err()) {
        rollback();
    }
    result
}

async fn put(
    store: &Store,
    namespace: &str,
    mut object: Value,
    generated: bool,
    dry_run: bool,
) -> Result<Arc<CachedObject>, StatusError> {
    for attempt in 1.. {
        let key = store.key(namespace, object.name());
        let plain = persist::encode(store, &mut object)?;
        if dry_run {
            return match store.get(namespace, object.name()) {
                Some(_) => Err(status::already_exists(store.group_resource(), object.name())),
                None => persist::unwritten(store, &plain, 0),
            };
        }
        let lease = lease(store).await?;
        let stored = persist::encrypt(store, &key, &plain)?;
        match store.backend.etcd.put(key, stored, 0, lease).await? {
            Outcome::Done(revision) => return persist::written(store, &plain, revision),
            Outcome::Lost(_) if generated && attempt < NAME_ATTEMPTS => meta::generate_name(&mut object),
            Outcome::Lost(_) => return Err(taken(store, &object, generated)),
        }
    }
    Err(taken(store, &object, generated))
}

fn taken(store: &Store, object: &Value, generated: bool) -> StatusError {
    match generated {
        true => status::generate_name_conflict(store.group_resource(), object.name(), 1),
        false => status::already_exists(store.group_resource(), object.name()),
    }
}

pub(super) async fn lease(store: &Store) -> Result<i64, StatusError> {
    match store.strategy.ttl_s(store) {
        0 => Ok(0),
        ttl => Ok(store.backend.leases.lease(&store.backend.etcd, ttl).await?),
    }
}

async fn admit(
    store: &Store,
    ctx: &RequestContext,
    namespace: &str,
    object: Value,
    options: &mut WriteOptions,
) -> Result<Value, StatusError> {
    let Some(chain) = store.admission(Operation::Create) else {
        return Ok(object);
    };
    let mut attributes = attributes(store, ctx, namespace, object, options);
    let result = chain.admit(&mut attributes).await;
    finish(ctx, attributes, options, result)
}

async fn approve(
    store: &Store,
    ctx: &RequestContext,
    namespace: &str,
    object: Value,
    options: &mut WriteOptions,
) -> Result<Value, StatusError> {
    let Some(chain) = store.admission(Operation::Create) else {
        return Ok(object);
    };
    let mut attributes = attributes(store, ctx, namespace, object, options);
    let result = chain.validate(&mut attributes).await;
    finish(ctx, attributes, options, result)
}

fn attributes(
    store: &Store,
    ctx: &RequestContext,
    namespace: &str,
    object: Value,
    options: &WriteOptions,
) -> Attributes {
    let mut attributes = store.attributes(
        ctx,
        Operation::Create,
        namespace,
        object.name(),
        "",
        options.dry_run,
    );
    attributes.object = Some(object);
    attributes
}

/// Takes the object back and passes on what the chain left to say.
pub(super) fn finish(
    ctx: &RequestContext,
    mut attributes: Attributes,
    options: &mut WriteOptions,
    result: Result<(), StatusError>,
) -> Result<Value, StatusError> {
    options.warnings.append(&mut attributes.warnings);
    if !attributes.audit_annotations.is_empty() {
        ctx.notes()
            .audit_annotations
            .append(&mut attributes.audit_annotations);
    }
    if let Err(refusal) = result {
        tracing::debug!(request = %attributes, why = %refusal, "Admission refused");
        return Err(refusal);
    }
    attributes
        .object
        .take()
        .ok_or_else(|| status::internal("admission took the object away"))
}
