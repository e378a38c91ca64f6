//! The seam between the generic store and the admission chain (`crate::admission` implements it).
//!
//! The store calls `admit` once the object is decoded, defaulted and prepared, and `validate` after validation passed,
//! both inside the retry loop of an update, so that a plugin always sees the object that would be replaced.

use std::fmt;
use std::sync::Arc;

use apimachinery::schema::Gvk;
use apimachinery::status::StatusError;
use apimachinery::value::Value;
use futures_util::future::BoxFuture;

use crate::storage::object::CachedObject;
use crate::user::UserInfo;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

pub struct Attributes {
    pub operation: Operation,
    /// Group, version and kind of `object` (the storage version; for subresources their own kind, e.g. `autoscaling/v1 Scale`).
    pub group: String,
    pub version: String,
    pub kind: String,
    /// Plural resource name and subresource (`""` for the main resource); the resource's group is `resource_group`.
    pub resource_group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    /// Empty on create with `generateName` until the name is made (it is made before `admit`).
    pub name: String,
    pub user: Arc<UserInfo>,
    pub dry_run: bool,
    /// The new object; `None` on delete. Mutating plugins change it in place.
    pub object: Option<Value>,
    /// What is stored now; `None` on create. `old.value()` decodes on first use and shares the result.
    pub old: Option<Arc<CachedObject>>,
    /// `CreateOptions`, `UpdateOptions` or `DeleteOptions` of the request.
    pub options: Option<Value>,
    /// Texts for `Warning` response headers.
    pub warnings: Vec<String>,
    /// Annotations for the audit event, `plugin/key` -> value.
    pub audit_annotations: Vec<(String, String)>,
}

impl Attributes {
    pub fn is_resource(&self, group: &str, resource: &str) -> bool {
        self.resource_group == group && self.resource == resource
    }
}

/// For logs: `CREATE v1 Pod pods/binding default/web`.
impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gvk = Gvk::new(&self.group, &self.version, &self.kind);
        write!(
            f,
            "{} {} {} {}",
            self.operation.as_str(),
            gvk.api_version(),
            self.kind,
            self.resource
        )?;
        if !self.subresource.is_empty() {
            write!(f, "/{}", self.subresource)?;
        }
        write!(f, " {}/{}", self.namespace, self.name)?;
        if self.dry_run {
            f.write_str(" (dry run)")?;
        }
        if self.options.is_some() {
            f.write_str(" (with options)")?;
        }
        Ok(())
    }
}

pub trait Admission: Send + Sync {
    /// Mutating phase. An error refuses the request with that status.
    fn admit<'a>(&'a self, attributes: &'a mut Attributes) -> BoxFuture<'a, Result<(), StatusError>>;
    /// Validating phase; sees the final object.
    fn validate<'a>(&'a self, attributes: &'a mut Attributes) -> BoxFuture<'a, Result<(), StatusError>>;
    /// Cheap question asked first: no plugin wants this operation on this resource, so neither phase is called.
    fn handles(&self, operation: Operation) -> bool {
        matches!(
            operation,
            Operation::Create | Operation::Update | Operation::Delete | Operation::Connect
        )
    }
}

/// No plugin at all.
#[cfg(test)]
pub struct AlwaysAdmit;

#[cfg(test)]
impl Admission for AlwaysAdmit {
    fn admit<'a>(&'a self, _: &'a mut Attributes) -> BoxFuture<'a, Result<(), StatusError>> {
        Box::pin(async { Ok(()) })
    }

    fn validate<'a>(&'a self, _: &'a mut Attributes) -> BoxFuture<'a, Result<(), StatusError>> {
        Box::pin(async { Ok(()) })
    }

    fn handles(&self, _: Operation) -> bool {
        false
    }
}
