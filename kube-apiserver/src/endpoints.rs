//! HTTP verbs on resources.
//!
//! `Endpoints::handle` is the innermost handler of the filter chain: it finds the `ResourceEndpoint` that the
//! `RequestInfo` names and calls one of get (here), `list`, `watch`, `write` (create, update, patch, delete) or a subresource;
//! `negotiation` and `body` read what the client sent and wants, `present` and `respond` write answers; everything that is not a
//! resource goes to what plugged in through `seam`.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::status::{self, StatusError};
use component_base::drain::Drain;
use component_base::http::{Body, typed};
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::registry::{Registry, ResourceEndpoint, Store};
use negotiation::Output;
use present::Presenter;
use query::Query;
use seam::{Connecter, Creater, Handler, Plugs, RequestContext};

pub mod audited;
mod body;
mod deprecated;
mod list;
mod negotiation;
mod present;
mod pretty;
mod query;
pub(crate) mod respond;
pub mod seam;
mod subresources;
mod watch;
mod write;

pub struct Endpoints {
    registry: Arc<Registry>,
    plugs: Plugs,
    drain: Drain,
    /// `--min-request-timeout`: watches without timeoutSeconds last at least this long.
    min_watch: Duration,
}

impl Handler for Endpoints {
    fn handle(
        self: Arc<Self>,
        ctx: RequestContext,
        req: Request<Incoming>,
    ) -> BoxFuture<'static, Response<Body>> {
        Box::pin(async move { self.answer(&ctx, req).await })
    }
}

impl Endpoints {
    pub fn new(registry: Arc<Registry>, plugs: Plugs, drain: Drain, min_watch: Duration) -> Endpoints {
        Endpoints {
            registry,
            plugs,
            drain,
            min_watch,
        }
    }

    async fn answer(&self, ctx: &RequestContext, req: Request<Incoming>) -> Response<Body> {
        let info = &ctx.info;
        if !info.is_resource_request {
            return self.non_resource(ctx, &req);
        }
        let found = self
            .registry
            .endpoint(&info.api_group, &info.api_version, &info.resource);
        let Some(endpoint) = found.filter(|endpoint| scope_fits(endpoint, ctx)) else {
            return not_found();
        };
        let headers = error_headers(req.headers());
        let mut response = match self.resource(ctx, endpoint, req).await {
            Ok(response) => response,
            Err(error) => {
                audited::status(ctx, &error);
                if error.code >= 500 {
                    tracing::warn!(audit_id = %ctx.audit_id, path = %info.path, verb = %info.verb, code = error.code, err = %error, "Request failed");
                }
                respond::error(error_output(&headers), &error)
            }
        };
        deprecated::warn(endpoint.resource, response.headers_mut());
        audited::response(ctx, response).await
    }

    fn non_resource(&self, ctx: &RequestContext, req: &Request<Incoming>) -> Response<Body> {
        if ctx.info.path == "/" && req.method() == Method::GET {
            return self.index();
        }
        self.plugs
            .non_resource
            .iter()
            .find_map(|plug| plug.serve(ctx, req))
            .unwrap_or_else(not_found)
    }

    fn index(&self) -> Response<Body> {
        let mut paths: Vec<String> = self
            .plugs
            .non_resource
            .iter()
            .flat_map(|plug| plug.paths())
            .collect();
        paths.sort();
        paths.dedup();
        component_base::http::json(StatusCode::OK, &serde_json::json!({ "paths": paths }))
    }

    async fn resource(
        &self,
        ctx: &RequestContext,
        endpoint: &Arc<ResourceEndpoint>,
        req: Request<Incoming>,
    ) -> Result<Response<Body>, StatusError> {
        let info = &ctx.info;
        check_verb(endpoint, ctx)?;
        if let Some(connecter) = self.connecter(endpoint, &info.subresource) {
            let connecter = connecter.clone();
            return Ok(connecter.connect(ctx, endpoint, req).await);
        }
        let (parts, incoming) = req.into_parts();
        let (headers, query) = (parts.headers, Query::parse(parts.uri.query()));
        if let Some(creater) = self.creater(endpoint, &info.subresource) {
            let creater = creater.clone();
            return subresources::review(&*creater, ctx, endpoint, &headers, &query, incoming).await;
        }
        match (&endpoint.store, info.verb.as_str()) {
            (None, _) => subresources::storeless(self, ctx, endpoint, &headers, &query, incoming).await,
            (Some(store), "get") if info.subresource != "scale" => {
                self.get(ctx, endpoint, store, &headers, &query).await
            }
            (Some(store), "list") => {
                list::list(
                    endpoint,
                    store,
                    &self.plugs.printers,
                    &info.namespace,
                    &headers,
                    &query,
                )
                .await
            }
            (Some(store), "watch") => self.watch(ctx, endpoint, store, &headers, &query).await,
            (Some(store), _) => {
                let body = body::read(ctx, &headers, incoming).await?;
                let call = write::Call {
                    endpoints: self,
                    ctx,
                    endpoint,
                    store,
                    headers: &headers,
                    query: &query,
                    body,
                };
                self.write(call).await
            }
        }
    }

    async fn get(
        &self,
        ctx: &RequestContext,
        endpoint: &Arc<ResourceEndpoint>,
        store: &Arc<Store>,
        headers: &HeaderMap,
        query: &Query,
    ) -> Result<Response<Body>, StatusError> {
        let output = Output::negotiate(headers, query)?;
        match query.get("resourceVersion") {
            "" => drop(store.consistent().await?),
            "0" => {}
            version => store.reached(list::parse_version(version)?).await?,
        }
        let namespace = if endpoint.resource.namespaced {
            ctx.info.namespace.as_str()
        } else {
            ""
        };
        let object = store
            .get(namespace, &ctx.info.name)
            .ok_or_else(|| store.not_found(&ctx.info.name))?;
        let presenter = Presenter::new(
            endpoint,
            &*self.plugs.printers,
            output,
            query.get("includeObject"),
        );
        Ok(respond::bytes(
            StatusCode::OK,
            output.media,
            presenter.body(&object),
        ))
    }

    async fn watch(
        &self,
        ctx: &RequestContext,
        endpoint: &Arc<ResourceEndpoint>,
        store: &Arc<Store>,
        headers: &HeaderMap,
        query: &Query,
    ) -> Result<Response<Body>, StatusError> {
        let namespace = if endpoint.resource.namespaced {
            ctx.info.namespace.as_str()
        } else {
            ""
        };
        watch::watch(watch::WatchRequest {
            endpoint,
            store,
            printers: &self.plugs.printers,
            namespace,
            name: &ctx.info.name,
            headers,
            query,
            min_timeout: self.min_watch,
            drain: &self.drain,
        })
        .await
    }

    async fn write(&self, call: write::Call<'_>) -> Result<Response<Body>, StatusError> {
        let info = &call.ctx.info;
        match (info.verb.as_str(), info.subresource.as_str()) {
            (_, "scale") => subresources::scale::serve(&call).await,
            ("create", "binding") => subresources::binding::create(&call).await,
            ("create", "eviction") => subresources::eviction::create(&call).await,
            ("create", "") => call.create().await,
            ("update", subresource) => call.update(subresource).await,
            ("patch", subresource) => call.patch(subresource).await,
            ("delete", "") => call.delete().await,
            ("deletecollection", "") => call.delete_collection().await,
            _ => Err(status::method_not_allowed()),
        }
    }

    fn store(&self, group: &str, resource: &str) -> Option<&Arc<Store>> {
        self.registry.store(group, resource)
    }

    fn connecter(&self, endpoint: &ResourceEndpoint, subresource: &str) -> Option<&Arc<dyn Connecter>> {
        let key = (endpoint.resource.group, endpoint.resource.resource, subresource);
        self.plugs
            .connecters
            .iter()
            .find(|(own, _)| *own == key)
            .map(|(_, connecter)| connecter)
    }

    fn creater(&self, endpoint: &ResourceEndpoint, subresource: &str) -> Option<&Arc<dyn Creater>> {
        let key = (endpoint.resource.group, endpoint.resource.resource, subresource);
        self.plugs
            .creaters
            .iter()
            .find(|(own, _)| *own == key)
            .map(|(_, creater)| creater)
    }
}

/// A cluster-scoped resource has no place below a namespace, nor an object of a namespaced one outside of any.
fn scope_fits(endpoint: &ResourceEndpoint, ctx: &RequestContext) -> bool {
    let info = &ctx.info;
    if endpoint.resource.group.is_empty() && endpoint.resource.resource == "namespaces" {
        return true;
    }
    match (endpoint.resource.namespaced, info.namespace.is_empty()) {
        // A collection's name comes from its field selector (`metadata.name=x`), not from the path.
        (true, true) => match info.verb.as_str() {
            "list" | "watch" => true,
            "create" | "deletecollection" => info.name.is_empty(),
            _ => false,
        },
        (false, false) => false,
        _ => true,
    }
}

fn check_verb(endpoint: &ResourceEndpoint, ctx: &RequestContext) -> Result<(), StatusError> {
    let info = &ctx.info;
    let resource = endpoint.resource;
    let named = !info.name.is_empty();
    let wrong_path = match info.verb.as_str() {
        "create" if info.subresource.is_empty() => named || resource.namespaced && info.namespace.is_empty(),
        "deletecollection" => resource.namespaced && info.namespace.is_empty(),
        "get" | "update" | "patch" | "delete" => !named,
        _ => false,
    };
    if wrong_path {
        return Err(status::method_not_allowed());
    }
    let verbs = match info.subresource.as_str() {
        "" => &resource.verbs,
        name => match resource.subresource(name) {
            Some(subresource) => &subresource.verbs,
            None => return Err(status::not_found_path()),
        },
    };
    let verb = info.verb.as_str();
    if verbs.contains(&verb) {
        return Ok(());
    }
    Err(status::method_not_allowed())
}

/// What no route knows.
fn not_found() -> Response<Body> {
    typed(
        StatusCode::NOT_FOUND,
        "text/plain; charset=utf-8",
        "404 page not found\n",
    )
}

/// The headers that decide in which form an error goes out.
fn error_headers(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in [http::header::ACCEPT, http::header::USER_AGENT] {
        if let Some(value) = headers.get(&name) {
            kept.insert(name, value.clone());
        }
    }
    kept
}

fn error_output(headers: &HeaderMap) -> Output {
    let output = Output::negotiate(headers, &Query::parse(None)).unwrap_or(Output::JSON);
    Output {
        form: negotiation::Form::Object,
        ..output
    }
}
