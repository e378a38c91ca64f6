//! DELETE: at once, gracefully, or bound to finalizers.
//!
//! An object that something still holds is marked (deletionTimestamp) by an ordinary guarded write; the update that takes the
//! last hold away deletes it (`update::remove`).

use std::sync::Arc;

use apimachinery::meta::Meta;
use apimachinery::status::{self, StatusError};
use apimachinery::value::Value;
use bytes::Bytes;

use super::{Store, persist};
use crate::clock;
use crate::endpoints::seam::RequestContext;
use crate::registry::admission::Operation;
use crate::storage::etcd::Outcome;
use crate::storage::object::CachedObject;

const MAX_TURNS: usize = 100;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub preconditions: Preconditions,
    pub propagation: Option<Propagation>,
    /// The old form of `propagation`, and its effect on the status code.
    pub orphan_dependents: Option<bool>,
    pub dry_run: bool,
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

pub struct Deleted {
    /// The object as it was last, or as it is now marked.
    pub object: Arc<CachedObject>,
    /// False: it is only marked and waits for its grace period or finalizers.
    pub gone: bool,
}

/// Nothing holds the object and its grace is over: an update may as well delete it.
pub(super) fn is_finished(store: &Store, object: &Value) -> bool {
    object.deletion_timestamp().is_some()
        && object.deletion_grace_period_seconds().unwrap_or_default() == 0
        && object.finalizers().next().is_none()
        && !store.strategy.held(object)
}

pub(super) async fn delete(
    store: &Store,
    ctx: &RequestContext,
    namespace: &str,
    name: &str,
    options: &mut DeleteOptions,
) -> Result<Deleted, StatusError> {
    let key = store.key(namespace, name);
    let mut current = store.get(namespace, name);
    let mut proven = false;
    for _ in 0..MAX_TURNS {
        let Some(old) = current.clone() else {
            if proven {
                return Err(store.not_found(name));
            }
            (current, proven) = (persist::fresh(store, key.clone()).await?, true);
            continue;
        };
        match turn(store, ctx, namespace, name, key.clone(), &old, options).await {
            Ok(Step::Done(deleted)) => return Ok(deleted),
            Ok(Step::Lost(fresh)) => (current, proven) = (fresh, true),
            Err(refusal) if proven => return Err(refusal),
            Err(refusal) => {
                (current, proven) = (persist::fresh(store, key.clone()).await?, true);
                if current
                    .as_ref()
                    .is_some_and(|now| now.resource_version == old.resource_version)
                {
                    return Err(refusal);
                }
            }
        }
    }
    Err(status::conflict(
        store.group_resource(),
        name,
        status::OPTIMISTIC_LOCK,
    ))
}

enum Step {
    Done(Deleted),
    Lost(Option<Arc<CachedObject>>),
}

async fn turn(
    store: &Store,
    ctx: &RequestContext,
    namespace: &str,
    name: &str,
    key: Bytes,
    old: &Arc<CachedObject>,
    options: &mut DeleteOptions,
) -> Result<Step, StatusError> {
    check_preconditions(store, old, &options.preconditions)?;
    admit(store, ctx, namespace, name, old, options).await?;
    let mut object = old.value();
    match plan(store, &mut object, options) {
        Plan::Nothing => Ok(Step::Done(Deleted {
            object: old.clone(),
            gone: false,
        })),
        Plan::Remove => remove(store, key, old, options.dry_run).await,
        Plan::Mark => mark(store, key, old, object, options.dry_run).await,
    }
}

fn check_preconditions(store: &Store, old: &CachedObject, wanted: &Preconditions) -> Result<(), StatusError> {
    let conflict = |why: String| Err(status::conflict(store.group_resource(), &old.name, why));
    if let Some(uid) = wanted.uid.as_deref().filter(|uid| *uid != &*old.uid) {
        return conflict(format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated",
            old.uid
        ));
    }
    let now = old.resource_version.to_string();
    if let Some(version) = wanted
        .resource_version
        .as_deref()
        .filter(|version| *version != now)
    {
        return conflict(format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({now}). The object might have been modified"
        ));
    }
    Ok(())
}

async fn admit(
    store: &Store,
    ctx: &RequestContext,
    namespace: &str,
    name: &str,
    old: &Arc<CachedObject>,
    options: &mut DeleteOptions,
) -> Result<(), StatusError> {
    let Some(chain) = store.admission(Operation::Delete) else {
        return Ok(());
    };
    let mut attributes = store.attributes(ctx, Operation::Delete, namespace, name, "", options.dry_run);
    attributes.old = Some(old.clone());
    let mut result = chain.admit(&mut attributes).await;
    if result.is_ok() {
        result = chain.validate(&mut attributes).await;
    }
    options.warnings.append(&mut attributes.warnings);
    result
}

enum Plan {
    /// It is being deleted already, and not slower than asked now.
    Nothing,
    Mark,
    Remove,
}

/// Decides, and changes `object` into what is to be stored if it is only marked.
fn plan(store: &Store, object: &mut Value, options: &mut DeleteOptions) -> Plan {
    let before = object.finalizers().map(str::to_owned).collect::<Vec<_>>();
    set_propagation(store, object, options);
    let finalizers_changed = !object.finalizers().eq(before.iter().map(String::as_str));
    let held = object.finalizers().next().is_some() || store.strategy.held(object);
    let grace = store.strategy.grace_period(object, options);
    let plan = match (object.deletion_timestamp().is_some(), grace) {
        (false, Some(grace)) if grace > 0 || held => mark_at(object, grace),
        (false, _) if held => mark_at(object, 0),
        (false, _) => return Plan::Remove,
        (true, grace) => shorten(object, grace.unwrap_or(0), held, finalizers_changed),
    };
    if matches!(plan, Plan::Mark) {
        store.strategy.mark_deleting(object);
    }
    plan
}

fn mark_at(object: &mut Value, grace: i64) -> Plan {
    let generation = object.generation();
    let metadata = object.metadata_mut();
    metadata.insert(
        "deletionTimestamp",
        Value::from(clock::rfc3339(clock::now_s() + grace)),
    );
    metadata.insert("deletionGracePeriodSeconds", Value::Int(grace));
    if generation > 0 {
        metadata.insert("generation", Value::Int(generation + 1));
    }
    Plan::Mark
}

/// A second delete of the same object: it can only make the grace period shorter.
fn shorten(object: &mut Value, grace: i64, held: bool, finalizers_changed: bool) -> Plan {
    let left = object.deletion_grace_period_seconds().unwrap_or(0);
    if grace < left {
        if grace == 0 && !held {
            return Plan::Remove;
        }
        let start = object
            .deletion_timestamp()
            .and_then(apimachinery::time::Timestamp::parse)
            .map_or_else(clock::now_s, |t| t.seconds)
            - left;
        let metadata = object.metadata_mut();
        metadata.insert("deletionTimestamp", Value::from(clock::rfc3339(start + grace)));
        metadata.insert("deletionGracePeriodSeconds", Value::Int(grace));
        return Plan::Mark;
    }
    match (left == 0 && !held, finalizers_changed) {
        (true, _) => Plan::Remove,
        (false, true) => Plan::Mark,
        (false, false) => Plan::Nothing,
    }
}

/// orphan and foregroundDeletion are requests to the garbage collector, told by finalizer.
fn set_propagation(store: &Store, object: &mut Value, options: &DeleteOptions) {
    let wanted = match (options.orphan_dependents, options.propagation) {
        (Some(true), _) => Some(Propagation::Orphan),
        (Some(false), _) => Some(Propagation::Background),
        (None, Some(propagation)) => Some(propagation),
        (None, None) if object.finalizers().any(|f| f == ORPHAN || f == FOREGROUND) => return,
        (None, None) if store.traits.orphans_by_default => Some(Propagation::Orphan),
        (None, None) => None,
    };
    let add = match wanted {
        Some(Propagation::Orphan) => Some(ORPHAN),
        Some(Propagation::Foreground) => Some(FOREGROUND),
        _ => None,
    };
    let others = object.finalizers().filter(|f| *f != ORPHAN && *f != FOREGROUND);
    let finalizers: Vec<Value> = others.chain(add).map(Value::from).collect();
    let metadata = object.metadata_mut();
    match finalizers.is_empty() {
        true => drop(metadata.remove("finalizers")),
        false => drop(metadata.insert("finalizers", Value::List(finalizers))),
    }
}

async fn mark(
    store: &Store,
    key: Bytes,
    old: &Arc<CachedObject>,
    mut object: Value,
    dry_run: bool,
) -> Result<Step, StatusError> {
    let plain = persist::encode(store, &mut object)?;
    if dry_run {
        let object = persist::unwritten(store, &plain, old.resource_version)?;
        return Ok(Step::Done(Deleted { object, gone: false }));
    }
    let stored = persist::encrypt(store, &key, &plain)?;
    match store
        .backend
        .etcd
        .put(key, stored, old.resource_version, 0)
        .await?
    {
        Outcome::Done(revision) => Ok(Step::Done(Deleted {
            object: persist::written(store, &plain, revision)?,
            gone: false,
        })),
        Outcome::Lost(now) => Ok(Step::Lost(now.map(|kv| persist::read(store, &kv)).transpose()?)),
    }
}

async fn remove(
    store: &Store,
    key: Bytes,
    old: &Arc<CachedObject>,
    dry_run: bool,
) -> Result<Step, StatusError> {
    if dry_run {
        return Ok(Step::Done(Deleted {
            object: old.clone(),
            gone: true,
        }));
    }
    match store.backend.etcd.delete(key, old.resource_version).await? {
        Outcome::Done(revision) => {
            let last = old.deleted_at(revision).map_err(status::internal)?;
            Ok(Step::Done(Deleted {
                object: Arc::new(last),
                gone: true,
            }))
        }
        Outcome::Lost(now) => Ok(Step::Lost(now.map(|kv| persist::read(store, &kv)).transpose()?)),
    }
}
