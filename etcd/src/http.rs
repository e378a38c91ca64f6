//! The HTTP side of the client port: health, metrics, version; the JSON gateway and the v2 API where they are switched on.

mod checks;
mod clean;
mod vars;

use std::sync::Arc;
use std::time::Duration;

use component_base::http::{Body, empty, text, typed};
use component_base::version::ETCD_VERSION;
use component_base::{metrics, serve};
use etcd_api::etcdserverpb::AlarmType;
use http::header::{HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use crate::config::host_is_allowed;
use crate::gateway;
use crate::membership::storage_version;
use crate::metrics::{HEALTH_FAILURES, HEALTH_SUCCESS, SCRAPES, SCRAPING};
use crate::rpc;
use crate::rpc::grpc::Inbound;
use crate::server::EtcdServer;
use crate::v2;

/// How long `/health` waits for a linearizable read.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
const JSON: &str = "application/json";

/// What the watchdog of systemd asks: whether the store can be read.
pub fn add_liveness_check(server: &Arc<EtcdServer>) {
    let read = server.clone();
    server.health.add_live("serializable_read", move || {
        read.store().get(b"\0", read.store().current());
        Ok(())
    });
}

fn has_alarm(server: &EtcdServer, kind: AlarmType) -> bool {
    server
        .state
        .alarms
        .read()
        .iter()
        .any(|(_, raised)| *raised == kind as i32)
}

/// What a client URL serves beside gRPC, and to whom.
pub struct Access {
    pub host_whitelist: Vec<String>,
    /// Origins whose pages may read answers.
    pub cors: Vec<String>,
    pub grpc_gateway: bool,
    pub v2: bool,
}

/// gRPC and HTTP of a client URL.
pub fn client_handler(server: Arc<EtcdServer>, access: Arc<Access>) -> serve::Handler {
    let http = client_http_handler(server.clone(), access);
    Arc::new(move |request: Request<Incoming>| {
        if rpc::serve::is_grpc(&request) {
            return Box::pin(rpc::serve::serve(server.clone(), request.map(Inbound::Wire)));
        }
        http(request)
    })
}

/// HTTP alone of a client URL: first who asks, then what for.
pub fn client_http_handler(server: Arc<EtcdServer>, access: Arc<Access>) -> serve::Handler {
    Arc::new(move |request: Request<Incoming>| {
        let (server, access) = (server.clone(), access.clone());
        Box::pin(async move {
            if let Some(host) = refused_host(&request, &access.host_whitelist) {
                let hint = format!(
                    "the Host header {host:?} is none that this etcd answers to over plain HTTP (DNS rebinding, CVE-2018-5702): add it to --host-whitelist, or use HTTPS\n"
                );
                return text(StatusCode::MISDIRECTED_REQUEST, &hint);
            }
            let origin = access.origin(&request);
            let mut response = if request.method() == Method::OPTIONS {
                Response::new(empty())
            } else {
                route(server, &access, request).await
            };
            if let Some(origin) = origin {
                add_cors_headers(response.headers_mut(), origin);
            }
            response
        })
    })
}

async fn route(server: Arc<EtcdServer>, access: &Access, request: Request<Incoming>) -> Response<Body> {
    if let Some(elsewhere) = clean::redirect(&request) {
        return elsewhere;
    }
    let path = request.uri().path();
    if access.grpc_gateway && gateway::is_for(path) {
        return gateway::serve(server, request).await;
    }
    if access.v2 && v2::is_for(path) {
        return v2::serve(server, request).await;
    }
    if path == vars::PATH && request.method() == Method::GET {
        return vars::respond(&server).await;
    }
    respond(&server, &request).await
}

impl Access {
    /// The origin to allow, which is all of them by default.
    fn origin(&self, request: &Request<Incoming>) -> Option<HeaderValue> {
        let allows = |origin: &str| self.cors.iter().any(|allowed| allowed == origin);
        if self.cors.is_empty() || allows("*") {
            return Some(HeaderValue::from_static("*"));
        }
        let origin = request.headers().get(http::header::ORIGIN)?;
        origin.to_str().is_ok_and(allows).then(|| origin.clone())
    }
}

fn add_cors_headers(headers: &mut HeaderMap, origin: HeaderValue) {
    use http::header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    };
    let methods = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    let names = HeaderValue::from_static("accept, content-type, authorization");
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
}

/// HTTP alone: metrics URLs.
pub fn plain_handler(server: Arc<EtcdServer>) -> serve::Handler {
    Arc::new(move |request: Request<Incoming>| {
        let server = server.clone();
        Box::pin(async move { respond(&server, &request).await })
    })
}

/// Only plain HTTP needs the check: a certificate already names the host.
fn refused_host<'a>(request: &'a Request<Incoming>, whitelist: &[String]) -> Option<&'a str> {
    let tls = request
        .extensions()
        .get::<Arc<serve::ConnInfo>>()
        .is_some_and(|info| info.tls);
    let host = request
        .headers()
        .get(http::header::HOST)
        .and_then(|host| host.to_str().ok());
    host.filter(|host| !tls && !host_is_allowed(whitelist, host))
}

async fn respond(server: &Arc<EtcdServer>, request: &Request<Incoming>) -> Response<Body> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
        response
            .headers_mut()
            .insert(http::header::ALLOW, http::HeaderValue::from_static("GET"));
        return response;
    }
    let (path, query) = (request.uri().path(), request.uri().query());
    match path {
        "/health" => health(server, query.unwrap_or_default()).await,
        "/metrics" => scrape(),
        "/version" => version(server),
        _ => checks::respond(server, path, query.unwrap_or_default())
            .await
            .unwrap_or_else(|| text(StatusCode::NOT_FOUND, "404 page not found\n")),
    }
}

fn scrape() -> Response<Body> {
    SCRAPING.inc();
    let families = metrics::render();
    SCRAPING.dec();
    SCRAPES.inc();
    typed(StatusCode::OK, metrics::CONTENT_TYPE, families)
}

/// `{"health":"true","reason":""}`, what `kubectl get componentstatuses` prints.
async fn health(server: &Arc<EtcdServer>, query: &str) -> Response<Body> {
    let serializable = parameters(query).any(|pair| pair == ("serializable", "true"));
    let reason = unhealthy(server, query, serializable).await;
    let (status, healthy, results) = if reason.is_empty() {
        (StatusCode::OK, "true", &HEALTH_SUCCESS)
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "false", &HEALTH_FAILURES)
    };
    results.inc();
    typed(
        status,
        JSON,
        json!({"health": healthy, "reason": reason}).to_string(),
    )
}

fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// What `?exclude=` names, as often as it is given.
fn excluded(query: &str) -> impl Iterator<Item = &str> {
    parameters(query)
        .filter(|(name, _)| *name == "exclude")
        .map(|(_, value)| value)
}

async fn unhealthy(server: &Arc<EtcdServer>, query: &str, serializable: bool) -> String {
    for alarm in [AlarmType::Nospace, AlarmType::Corrupt] {
        let name = alarm.as_str_name();
        if has_alarm(server, alarm) && !excluded(query).any(|left_out| left_out == name) {
            return format!("ALARM {name}");
        }
    }
    let corrupt = AlarmType::Corrupt.as_str_name();
    if let Some(damage) = server.store().storage.damage()
        && !excluded(query).any(|left_out| left_out == corrupt)
    {
        return format!("DATA CORRUPTION {damage}");
    }
    if serializable {
        return String::new();
    }
    if server.leader() == 0 {
        return "RAFT NO LEADER".to_owned();
    }
    match tokio::time::timeout(HEALTH_TIMEOUT, server.linearizable()).await {
        Ok(Ok(())) => String::new(),
        Ok(Err(error)) => format!("RANGE ERROR:{error}"),
        Err(_) => "RANGE ERROR:etcdserver: request timed out".to_owned(),
    }
}

pub fn version(server: &EtcdServer) -> Response<Body> {
    let cluster = server.state.membership.read().version.clone();
    let storage = storage_version(&cluster);
    let cluster = if cluster.is_empty() {
        "not_decided".to_owned()
    } else {
        cluster
    };
    typed(
        StatusCode::OK,
        JSON,
        json!({"etcdserver": ETCD_VERSION, "etcdcluster": cluster, "storage": storage}).to_string(),
    )
}
