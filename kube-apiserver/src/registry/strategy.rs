//! What a kind adds to the generic store.
//!
//! Everything has a default that is right for any resource: spec and status are split by subresource, generation counts
//! spec changes (`traits`), names are DNS subdomains, required fields of the schema are required. A kind overrides what differs.

use apimachinery::field::ErrorList;
use apimachinery::status::StatusError;
use apimachinery::value::Value;
use futures_util::future::BoxFuture;

use super::store::{DeleteOptions, Store};

/// The request as strategies see it.
pub struct Request<'a> {
    pub store: &'a Store,
    pub user: &'a crate::user::UserInfo,
    pub namespace: &'a str,
    /// `""`, `status`, ...
    pub subresource: &'a str,
    /// Seconds since 1970.
    pub now: i64,
}

/// How names of a kind are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// DNS-1123 subdomain.
    Subdomain,
    /// DNS-1123 label.
    Label,
    /// DNS-1035 label.
    Label1035,
    /// Anything that is one path segment (RBAC, events' kin).
    PathSegment,
}

/// Undoes what `begin` reserved; called if the write did not happen.
pub type Rollback = Box<dyn FnOnce() + Send>;

pub trait Strategy: Send + Sync {
    fn name_rule(&self) -> NameRule {
        NameRule::Subdomain
    }

    /// Clears and sets what clients must not or need not. metadata's system fields, the status reset and generation are done already.
    fn prepare_create(&self, _request: &Request<'_>, _object: &mut Value) {}

    /// Whoever creates the object may set its status (nodes register with theirs).
    fn keeps_new_status(&self) -> bool {
        false
    }

    /// Called after the subresource split: `new` has only those changes that the subresource may make.
    fn prepare_update(&self, _request: &Request<'_>, _new: &mut Value, _old: &Value) {}

    /// For `subresource` updates other than status: which parts of `new` count. The rest is taken from `old`.
    /// Default: nothing but the main resource and status are known, other subresources change everything.
    fn split(&self, request: &Request<'_>, new: &mut Value, old: &Value) {
        super::store::split_by_status(request, new, old);
    }

    /// The kind's own validation covers the required fields, with upstream's texts.
    fn validates_required_fields(&self) -> bool {
        false
    }

    /// metadata is checked already, and required fields unless `validates_required_fields`.
    fn validate_create(&self, _request: &Request<'_>, _object: &Value) -> ErrorList {
        ErrorList::new()
    }

    fn validate_update(&self, _request: &Request<'_>, _new: &Value, _old: &Value) -> ErrorList {
        ErrorList::new()
    }

    fn warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }

    /// Graceful deletion: seconds to wait, or `None` to delete at once. May look at and correct the options.
    fn grace_period(&self, _object: &Value, _options: &mut DeleteOptions) -> Option<i64> {
        None
    }

    /// Called when graceful or finalizer-bound deletion marks the object, to change it along (namespace phase, pod status).
    fn mark_deleting(&self, _object: &mut Value) {}

    /// Something besides metadata.finalizers keeps the object (a namespace's spec.finalizers).
    fn held(&self, _object: &Value) -> bool {
        false
    }

    /// Spec changes that count for metadata.generation: default is every top-level field but metadata and status.
    fn generation_changed(&self, new: &Value, old: &Value) -> bool {
        super::store::spec_changed(new, old)
    }

    /// Reserves what the object needs outside of itself (addresses, ports), and writes it into the object. `old` is `None` on create.
    fn begin<'a>(
        &'a self,
        _request: &'a Request<'a>,
        _object: &'a mut Value,
        _old: Option<&'a Value>,
    ) -> Option<BoxFuture<'a, Result<Option<Rollback>, StatusError>>> {
        None
    }

    /// Once, when the store is made: strategies that keep books follow it from here on.
    fn attach(&self, _store: &Store) {}

    /// Seconds after which etcd removes the object; 0 = never.
    fn ttl_s(&self, _store: &Store) -> i64 {
        0
    }
}

/// Right for any resource.
pub struct DefaultStrategy {
    pub names: NameRule,
}

impl Strategy for DefaultStrategy {
    fn name_rule(&self) -> NameRule {
        self.names
    }
}
