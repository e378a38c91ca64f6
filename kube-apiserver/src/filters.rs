//! What every request passes on its way in, in order; read `Chain::serve` from top to bottom.
//!
//! Audit id -> panic isolation -> request info -> deadline -> authentication -> audit -> impersonation ->
//! in-flight limit -> authorization -> handler. A stage either answers or hands on; the answer goes back
//! through metrics, audit and the security headers.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apimachinery::status::{self, GroupResource, StatusError};
use component_base::http::{Body, typed};
use component_base::serve::{ConnInfo, Handler as ServeHandler};
use component_base::watch::FileWatch;
use futures_util::FutureExt;
use http::header::{CACHE_CONTROL, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::authentication::{Authenticated, Authenticators};
use crate::authorization::{Attributes, Authorizers};
use crate::endpoints::audited;
use crate::endpoints::seam::{Handler, RequestContext};
use crate::request_info::RequestInfo;
use crate::user::UserInfo;

pub mod assembly;
pub mod audit;
mod finish;
pub mod impersonation;
pub mod in_flight;
pub mod metrics;

use finish::Finish;

pub struct Chain {
    pub authenticators: Authenticators,
    pub authorizers: Arc<Authorizers>,
    pub audit: audit::Audit,
    pub in_flight: in_flight::InFlight,
    /// `--request-timeout`, for requests that are not long-running.
    pub timeout: Duration,
    /// `--strict-transport-security-directives`, joined.
    pub hsts: Option<HeaderValue>,
    pub handler: Arc<dyn Handler>,
    /// Keeps the reloading of service account keys going for as long as requests come in.
    pub _reload: Option<FileWatch>,
}

const AUDIT_ID_HEADER: &str = "audit-id";
/// Longest audit id taken over from a client.
const MAX_AUDIT_ID: usize = 64;
const RETRY_AFTER_SECONDS: u32 = 1;

impl Chain {
    pub fn into_handler(self) -> ServeHandler {
        let chain = Arc::new(self);
        Arc::new(move |req| chain.clone().serve(req).boxed())
    }

    async fn serve(self: Arc<Self>, req: Request<Incoming>) -> Response<Body> {
        let start = Instant::now();
        let audit_id = audit_id(req.headers());
        let mut response = match RequestInfo::new(req.method(), req.uri()) {
            Ok(info) => self.isolated(req, Arc::new(info), audit_id.clone(), start).await,
            Err(error) => typed(
                StatusCode::INTERNAL_SERVER_ERROR,
                "text/plain; charset=utf-8",
                format!("Internal Server Error: {error}\n"),
            ),
        };
        self.add_headers(response.headers_mut(), &audit_id);
        response
    }

    /// A panic ends its request with a 500, never the connection or the process.
    async fn isolated(
        &self,
        req: Request<Incoming>,
        info: Arc<RequestInfo>,
        audit_id: Arc<str>,
        start: Instant,
    ) -> Response<Body> {
        let mut finish = Finish::new(info.clone(), req.method(), req.uri(), start);
        let through = AssertUnwindSafe(self.limited(req, info.clone(), audit_id, &mut finish))
            .catch_unwind()
            .await;
        let response = through.unwrap_or_else(|panic| {
            metrics::terminated(&info, StatusCode::INTERNAL_SERVER_ERROR);
            tracing::error!(path = %info.path, verb = %info.verb, panic = panic_text(&*panic), "Observed a panic");
            typed(
                StatusCode::INTERNAL_SERVER_ERROR,
                "text/plain; charset=utf-8",
                "This request caused apiserver to panic. Look in the logs for details.\n",
            )
        });
        finish.attach(response, info.is_long_running())
    }

    async fn limited(
        &self,
        req: Request<Incoming>,
        info: Arc<RequestInfo>,
        audit_id: Arc<str>,
        finish: &mut Finish,
    ) -> Response<Body> {
        if info.is_long_running() || self.timeout.is_zero() {
            return self.identified(req, info, audit_id, finish).await;
        }
        match tokio::time::timeout(self.timeout, self.identified(req, info.clone(), audit_id, finish)).await {
            Ok(response) => response,
            Err(_) => {
                metrics::terminated(&info, StatusCode::GATEWAY_TIMEOUT);
                refuse(&status::timeout(
                    "request did not complete within the allotted timeout",
                    0,
                ))
            }
        }
    }

    async fn identified(
        &self,
        mut req: Request<Incoming>,
        info: Arc<RequestInfo>,
        audit_id: Arc<str>,
        finish: &mut Finish,
    ) -> Response<Body> {
        let conn = req.extensions().get::<Arc<ConnInfo>>().cloned();
        let known = match self
            .authenticators
            .authenticate(conn.as_deref(), req.headers_mut())
        {
            Ok(Some(known)) => known,
            refused => return self.unauthorized(refused.err(), &req, &info, &audit_id, finish),
        };
        metrics::authenticated(&known.user, conn.as_deref());
        let Authenticated {
            user, annotations, ..
        } = known;
        let user = Arc::new(user);
        let caller = self.audit.begin(&req, &info, &user, &audit_id, conn.as_deref());
        let acting = match impersonation::impersonate(&self.authorizers, &user, req.headers_mut()) {
            Ok(None) => user,
            Ok(Some(other)) => Arc::new(other),
            Err(error) => {
                finish.audit = caller;
                return refuse(&error);
            }
        };
        let ctx = RequestContext::new(acting, info, audit_id);
        ctx.notes().audit_annotations.extend(annotations);
        finish.audit = caller.map(|event| event.with_context(&ctx, &self.audit));
        self.admitted(req, ctx, finish).await
    }

    async fn admitted(
        &self,
        req: Request<Incoming>,
        ctx: RequestContext,
        finish: &mut Finish,
    ) -> Response<Body> {
        if !ctx.info.is_long_running() && !ctx.user.in_group(crate::user::SYSTEM_MASTERS) {
            match self.in_flight.enter(ctx.info.is_read_only()) {
                Some(place) => finish.place = Some(place),
                None => {
                    metrics::dropped(&ctx.info);
                    return refuse_noted(
                        &ctx,
                        &status::too_many_requests(
                            "Too many requests, please try again later.",
                            RETRY_AFTER_SECONDS,
                        ),
                    );
                }
            }
        }
        if let Err(error) = self.authorize(&ctx) {
            return refuse_noted(&ctx, &error);
        }
        finish.started();
        self.handler.clone().handle(ctx, req).await
    }

    fn authorize(&self, ctx: &RequestContext) -> Result<(), StatusError> {
        let attributes = Attributes::of_request(&ctx.user, &ctx.info);
        let verdict = self.authorizers.authorize(&attributes);
        let decision = if verdict.allowed() { "allow" } else { "forbid" };
        if self.audit.enabled() {
            let mut notes = ctx.notes();
            notes
                .audit_annotations
                .push(("authorization.k8s.io/decision".to_owned(), decision.to_owned()));
            notes
                .audit_annotations
                .push(("authorization.k8s.io/reason".to_owned(), verdict.reason.clone()));
        }
        if verdict.allowed() {
            return Ok(());
        }
        tracing::debug!(user = %ctx.user.name, path = %ctx.info.path, reason = %verdict.reason, "Forbidden");
        Err(forbidden(&attributes, &verdict.reason))
    }

    fn unauthorized(
        &self,
        reason: Option<String>,
        req: &Request<Incoming>,
        info: &Arc<RequestInfo>,
        audit_id: &Arc<str>,
        finish: &mut Finish,
    ) -> Response<Body> {
        if let Some(reason) = &reason {
            tracing::error!(err = %reason, path = %info.path, "Unable to authenticate the request");
        }
        metrics::authentication_failed(reason.is_some());
        let nobody = Arc::new(UserInfo::default());
        let conn = req.extensions().get::<Arc<ConnInfo>>().cloned();
        finish.audit = self.audit.begin(req, info, &nobody, audit_id, conn.as_deref());
        refuse(&status::unauthorized("Unauthorized"))
    }

    fn add_headers(&self, headers: &mut HeaderMap, audit_id: &str) {
        if let Ok(value) = HeaderValue::from_str(audit_id) {
            headers.insert(AUDIT_ID_HEADER, value);
        }
        if !headers.contains_key(CACHE_CONTROL) {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        }
        if let Some(hsts) = &self.hsts {
            headers.insert("strict-transport-security", hsts.clone());
        }
    }
}

/// 403 with upstream's message; the reason of the authorizers follows it.
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> StatusError {
    let mut why = attributes.forbidden_message();
    if !reason.is_empty() {
        why.push_str(": ");
        why.push_str(reason);
    }
    status::forbidden(
        GroupResource::new(attributes.api_group, attributes.resource),
        attributes.name,
        why,
    )
}

fn refuse_noted(ctx: &RequestContext, error: &StatusError) -> Response<Body> {
    audited::status(ctx, error);
    refuse(error)
}

/// A Status as the answer.
pub fn refuse(error: &StatusError) -> Response<Body> {
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = typed(code, "application/json", error.to_json());
    if let Some(seconds) = error
        .details
        .as_ref()
        .map(|d| d.retry_after_seconds)
        .filter(|s| *s > 0)
    {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn audit_id(headers: &HeaderMap) -> Arc<str> {
    let given = headers.get(AUDIT_ID_HEADER).and_then(|v| v.to_str().ok());
    match given.filter(|id| !id.is_empty() && id.len() <= MAX_AUDIT_ID) {
        Some(id) => id.into(),
        None => uuid::Uuid::new_v4().to_string().into(),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown")
}
