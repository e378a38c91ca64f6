//! What plugs into the endpoints from outside: the filters in front, and discovery, OpenAPI, tables, reviews and
//! streaming subresources behind.

use std::sync::Arc;

use apimachinery::status::StatusError;
use apimachinery::value::Value;
use component_base::http::Body;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use parking_lot::Mutex;

use crate::registry::ResourceEndpoint;
use crate::request_info::RequestInfo;
use crate::user::UserInfo;

/// One request as the filters leave it. Cheap to clone.
#[derive(Clone)]
pub struct RequestContext {
    pub user: Arc<UserInfo>,
    pub info: Arc<RequestInfo>,
    /// Set by `Audit-Id` handling; echoed in the response header by the filters.
    pub audit_id: Arc<str>,
    notes: Arc<Mutex<Notes>>,
}

/// What handlers leave for the filters to write out: audit annotations, and the bodies that an audit policy may want.
#[derive(Default)]
pub struct Notes {
    pub audit_annotations: Vec<(String, String)>,
    /// What the audit filter asks for: an event at all, bodies as they come, and as they go out.
    pub audited: bool,
    pub want_request: bool,
    pub want_response: bool,
    pub request_object: Option<serde_json::Value>,
    pub response_object: Option<serde_json::Value>,
    /// The Status of a refusal.
    pub response_status: Option<serde_json::Value>,
}

impl RequestContext {
    pub fn new(user: Arc<UserInfo>, info: Arc<RequestInfo>, audit_id: Arc<str>) -> RequestContext {
        RequestContext {
            user,
            info,
            audit_id,
            notes: Arc::default(),
        }
    }

    /// In-process calls of the server itself.
    pub fn loopback() -> RequestContext {
        RequestContext::new(Arc::new(UserInfo::loopback()), Arc::default(), Arc::from(""))
    }

    pub fn notes(&self) -> parking_lot::MutexGuard<'_, Notes> {
        self.notes.lock()
    }
}

/// The innermost handler of the filter chain. `endpoints::Endpoints` is the real one.
pub trait Handler: Send + Sync {
    fn handle(
        self: Arc<Self>,
        ctx: RequestContext,
        req: Request<Incoming>,
    ) -> BoxFuture<'static, Response<Body>>;
}

/// Paths that are not resources: `/api`, `/apis`, `/openapi/...`, `/.well-known/...`, `/openid/v1/jwks`. Asked in order; `None` = not mine.
/// Group and version documents (`/api/v1`, `/apis/apps/v1`) come this way too: `RequestInfo` calls them non-resource requests.
pub trait NonResource: Send + Sync {
    fn serve(&self, ctx: &RequestContext, req: &Request<Incoming>) -> Option<Response<Body>>;
    /// Paths listed at `/`.
    fn paths(&self) -> Vec<String>;
}

/// One column of a Table, as `meta/v1 TableColumnDefinition`.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: &'static str,
    pub type_: &'static str,
    pub format: &'static str,
    pub description: &'static str,
    pub priority: i32,
}

/// Server-side printing (`Accept: application/json;as=Table;v=v1;g=meta.k8s.io`).
pub trait Printers: Send + Sync {
    /// Columns for a kind; kinds without their own get Name and Created At.
    fn columns(&self, group: &str, resource: &str) -> &'static [Column];
    /// One row's cells in the order of `columns`. `now` is Unix seconds.
    fn cells(&self, group: &str, resource: &str, object: &Value, now: i64) -> Vec<Value>;
}

/// A resource or subresource that only takes POST and stores nothing: tokenreviews, subjectaccessreviews,
/// selfsubject*, serviceaccounts/token. The object is decoded and defaulted; the answer goes out with 201.
pub trait Creater: Send + Sync {
    fn create<'a>(
        &'a self,
        ctx: &'a RequestContext,
        namespace: &'a str,
        name: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<Value, StatusError>>;
}

/// A subresource that takes the connection itself: pods/log, exec, attach, portforward, pods|services|nodes/proxy.
/// Called after admission's Connect; the named parent exists is its own check.
pub trait Connecter: Send + Sync {
    fn connect<'a>(
        &'a self,
        ctx: &'a RequestContext,
        endpoint: &'a ResourceEndpoint,
        req: Request<Incoming>,
    ) -> BoxFuture<'a, Response<Body>>;
}

/// Everything that plugs in, handed to `Endpoints::new` by `server.rs`.
pub struct Plugs {
    pub non_resource: Vec<Arc<dyn NonResource>>,
    pub printers: Arc<dyn Printers>,
    /// Keyed by (group, resource, subresource; `""` = the resource itself).
    pub creaters: Vec<((&'static str, &'static str, &'static str), Arc<dyn Creater>)>,
    pub connecters: Vec<((&'static str, &'static str, &'static str), Arc<dyn Connecter>)>,
}
