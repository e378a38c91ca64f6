//! PUT and PATCH: change -> split -> admit -> prepare -> validate -> one guarded transaction, again with fresh bytes after a lost race.
//!
//! The first turn starts from the cache, which may be behind. Whatever is refused on such a basis is tried again on what etcd
//! has now before the client is told.

use std::sync::Arc;

use apimachinery::meta::Meta;
use apimachinery::status::{self, OPTIMISTIC_LOCK, StatusError};
use apimachinery::value::Value;
use bytes::Bytes;

use super::create::{self, finish};
use super::{Change, Store, WriteOptions, Written, delete, meta, persist};
use crate::endpoints::seam::RequestContext;
use crate::registry::admission::Operation;
use crate::registry::strategy::Request;
use crate::storage::etcd::Outcome;
use crate::storage::object::CachedObject;

/// Lost races before the client gets a conflict: each lost one means that somebody else's write went through.
const MAX_TURNS: usize = 100;

pub(super) async fn update(
    store: &Store,
    ctx: &RequestContext,
    namespace: &str,
    name: &str,
    subresource: &str,
    change: &Change<'_>,
    options: &mut WriteOptions,
) -> Result<Written, StatusError> {
    let key = store.key(namespace, name);
    let mut current = store.get(namespace, name);
    let mut proven = false;
    for _ in 0..MAX_TURNS {
        let Some(old) = current.clone() else {
            if !proven {
                current = persist::fresh(store, key.clone()).await?;
                proven = true;
                continue;
            }
            return create_instead(store, ctx, namespace, name, subresource, change, options).await;
        };
        options.warnings.clear();
        let turn = Turn {
            store,
            ctx,
            namespace,
            name,
            subresource,
            old: &old,
        };
        match turn.run(key.clone(), change, options).await {
            Ok(Step::Written(object)) => {
                return Ok(Written {
                    object,
                    created: false,
                });
            }
            Ok(Step::Lost(fresh)) => (current, proven) = (fresh, true),
            Ok(Step::Unchanged) if proven => {
                return Ok(Written {
                    object: old,
                    created: false,
                });
            }
            Err(refusal) if proven => return Err(refusal),
            // Refused, or nothing to do, on the basis of the cache: only what etcd has now decides.
            refused => {
                current = persist::fresh(store, key.clone()).await?;
                proven = true;
                if current
                    .as_ref()
                    .is_some_and(|now| now.resource_version == old.resource_version)
                {
                    return refused.map(|_| Written {
                        object: old,
                        created: false,
                    });
                }
            }
        }
    }
    Err(status::conflict(store.group_resource(), name, OPTIMISTIC_LOCK))
}

async fn create_instead(
    store: &Store,
    ctx: &RequestContext,
    namespace: &str,
    name: &str,
    subresource: &str,
    change: &Change<'_>,
    options: &mut WriteOptions,
) -> Result<Written, StatusError> {
    if !store.traits.create_on_update || !subresource.is_empty() {
        return Err(store.not_found(name));
    }
    let object = change(&Value::Null)?;
    if object.is_null() {
        return Err(store.not_found(name));
    }
    if !object.uid().is_empty() {
        let why = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: ",
            object.uid()
        );
        return Err(status::conflict(store.group_resource(), name, why));
    }
    if !matches!(object.resource_version(), "" | "0") {
        return Err(store.not_found(name));
    }
    create::create(store, ctx, namespace, object, options).await
}

enum Step {
    Written(Arc<CachedObject>),
    /// Somebody else wrote first; this is there now.
    Lost(Option<Arc<CachedObject>>),
    Unchanged,
}

struct Turn<'a> {
    store: &'a Store,
    ctx: &'a RequestContext,
    namespace: &'a str,
    name: &'a str,
    subresource: &'a str,
    old: &'a Arc<CachedObject>,
}

impl Turn<'_> {
    async fn run(
        &self,
        key: Bytes,
        change: &Change<'_>,
        options: &mut WriteOptions,
    ) -> Result<Step, StatusError> {
        let store = self.store;
        let old = self.old.value();
        let mut new = change(&old)?;
        meta::match_namespace(store, self.namespace, &mut new)?;
        self.check_version(&new)?;
        let request = store.request(&self.ctx.user, self.namespace, self.subresource);
        meta::keep_system_fields(&mut new, &old);
        store.strategy.split(&request, &mut new, &old);
        new = self.admit(new, options).await?;
        store.strategy.prepare_update(&request, &mut new, &old);
        self.set_generation(&mut new, &old);
        self.validate(&request, &new, &old, options)?;
        new = self.approve(new, options).await?;
        self.write(key, &request, new, &old, options.dry_run).await
    }

    fn check_version(&self, new: &Value) -> Result<(), StatusError> {
        let store = self.store;
        if !new.uid().is_empty() && new.uid() != &*self.old.uid {
            let why = format!(
                "Precondition failed: UID in precondition: {}, UID in object meta: {}",
                new.uid(),
                self.old.uid
            );
            return Err(status::conflict(store.group_resource(), self.name, why));
        }
        match new.resource_version() {
            "" | "0" if store.traits.unconditional_update => Ok(()),
            "" | "0" => Err(meta::version_required(store, self.name)),
            wanted => match wanted.parse::<i64>() {
                Ok(revision) if revision == self.old.resource_version => Ok(()),
                Ok(_) => Err(status::conflict(
                    store.group_resource(),
                    self.name,
                    OPTIMISTIC_LOCK,
                )),
                Err(_) => Err(meta::version_invalid(store, self.name, wanted)),
            },
        }
    }

    fn set_generation(&self, new: &mut Value, old: &Value) {
        if !self.store.traits.generation {
            return;
        }
        let bump = !matches!(self.subresource, "status" | "binding")
            && self.store.strategy.generation_changed(new, old);
        let generation = old.generation() + i64::from(bump);
        if generation > 0 {
            new.metadata_mut().insert("generation", Value::Int(generation));
        }
    }

    fn validate(
        &self,
        request: &Request<'_>,
        new: &Value,
        old: &Value,
        options: &mut WriteOptions,
    ) -> Result<(), StatusError> {
        let store = self.store;
        let mut errors = meta::validate_update(store, new, old);
        if self.subresource != "status" {
            errors.extend(meta::required_fields(store, new));
        }
        errors.extend(store.strategy.validate_update(request, new, old));
        if !errors.is_empty() {
            return Err(status::invalid(
                &store.shape.group,
                &store.shape.kind,
                self.name,
                &errors,
            ));
        }
        if self.subresource.is_empty() {
            options.warnings.extend(store.strategy.warnings(new));
        }
        Ok(())
    }

    async fn admit(&self, new: Value, options: &mut WriteOptions) -> Result<Value, StatusError> {
        let Some(chain) = self.store.admission(Operation::Update) else {
            return Ok(new);
        };
        let mut attributes = self.attributes(new, options.dry_run);
        let result = chain.admit(&mut attributes).await;
        finish(self.ctx, attributes, options, result)
    }

    async fn approve(&self, new: Value, options: &mut WriteOptions) -> Result<Value, StatusError> {
        let Some(chain) = self.store.admission(Operation::Update) else {
            return Ok(new);
        };
        let mut attributes = self.attributes(new, options.dry_run);
        let result = chain.validate(&mut attributes).await;
        finish(self.ctx, attributes, options, result)
    }

    fn attributes(&self, new: Value, dry_run: bool) -> crate::registry::admission::Attributes {
        let mut attributes = self.store.attributes(
            self.ctx,
            Operation::Update,
            self.namespace,
            self.name,
            self.subresource,
            dry_run,
        );
        attributes.object = Some(new);
        attributes.old = Some(self.old.clone());
        attributes
    }

    async fn write(
        &self,
        key: Bytes,
        request: &Request<'_>,
        mut new: Value,
        old: &Value,
        dry_run: bool,
    ) -> Result<Step, StatusError> {
        let store = self.store;
        if delete::is_finished(store, &new) {
            return self.remove(key, new, dry_run).await;
        }
        let rollback = match store.strategy.begin(request, &mut new, Some(old)) {
            Some(begin) => begin.await?,
            None => None,
        };
        let step = self.put(key, new, dry_run).await;
        if let Some(rollback) = rollback.filter(|_| dry_run || !matches!(step, Ok(Step::Written(_)))) {
            rollback();
        }
        step
    }

    async fn put(&self, key: Bytes, mut new: Value, dry_run: bool) -> Result<Step, StatusError> {
        let store = self.store;
        let plain = persist::encode(store, &mut new)?;
        // Writing what is there already is no write: no new revision, no event.
        if self.old.stores_same(&plain) {
            return Ok(Step::Unchanged);
        }
        if dry_run {
            return Ok(Step::Written(persist::unwritten(
                store,
                &plain,
                self.old.resource_version,
            )?));
        }
        let lease = create::lease(store).await?;
        let stored = persist::encrypt(store, &key, &plain)?;
        match store
            .backend
            .etcd
            .put(key, stored, self.old.resource_version, lease)
            .await?
        {
            Outcome::Done(revision) => Ok(Step::Written(persist::written(store, &plain, revision)?)),
            Outcome::Lost(now) => Ok(Step::Lost(now.map(|kv| persist::read(store, &kv)).transpose()?)),
        }
    }

    /// The last finalizer went: this update deletes the object.
    async fn remove(&self, key: Bytes, mut new: Value, dry_run: bool) -> Result<Step, StatusError> {
        let store = self.store;
        let plain = persist::encode(store, &mut new)?;
        let last = persist::unwritten(store, &plain, self.old.resource_version)?;
        if dry_run {
            return Ok(Step::Written(last));
        }
        match store.backend.etcd.delete(key, self.old.resource_version).await? {
            Outcome::Done(_) => Ok(Step::Written(last)),
            Outcome::Lost(now) => Ok(Step::Lost(now.map(|kv| persist::read(store, &kv)).transpose()?)),
        }
    }
}
