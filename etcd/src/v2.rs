//! The v2 keys API, behind `--enable-v2`: a tree of its own beside the v3 keys, over plain HTTP.
//!
//! A set's way: [`form`] reads the parameters, [`keys`] proposes them as etcd's `Request` within an `InternalRaftRequest`, the apply thread runs it
//! on the [`store`], which changes its [`tree`] and writes the changed [`node`]s into the same frame of the store's meta records, and the [`event`] is both the answer and
//! what [`watcher`]s get. Time comes with the request: applying reads no clock, and [`expire`] ends keys by a SYNC request, as etcd does.
//!
//! Entries are applied whether or not this member serves the API, so that all members hold the same. What is not here: users
//! and roles of v2, of which [`auth`] says so.

mod auth;
mod change;
mod error;
mod event;
mod form;
mod keys;
mod members;
mod node;
mod path;
mod stats;
mod store;
mod tree;
mod watcher;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use component_base::http::{Body, text, typed};
use etcd_api::etcdserverpb::{InternalRaftRequest, Request as RequestMessage};
use http::header::{ALLOW, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tracing::warn;

pub use error::Error;
pub use event::Event;
pub use node::{Damaged, Node};
pub use path::clean;
pub use stats::{ActionCount, Counts};
pub use store::{Outcome, Records, Store};

use crate::auth::AuthError;
use crate::rpc::caller::Caller;
use crate::server::EtcdServer;

const PREFIX: &str = "/v2/";
const KEYS: &str = "/v2/keys";
const MEMBERS: &str = "/v2/members";
const AUTH: &str = "/v2/auth";
const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
const JSON: &str = "application/json";
/// etcd looks for expired keys twice a second.
const SYNC_INTERVAL: Duration = Duration::from_millis(500);

pub fn is_for(path: &str) -> bool {
    path.starts_with(PREFIX)
}

/// Whether `path` is `prefix` or lies below it.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

pub async fn serve(server: Arc<EtcdServer>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let cluster = server.cluster;
    if let Err(refused) = permitted(&Caller::lasting(server.clone(), &request), &path).await {
        let refusal = Error::request(error::Code::Unauthorized, refused.to_string());
        return with_cluster_id(refusal.response(), cluster);
    }
    if below(&path, KEYS).is_some() {
        return with_cluster_id(keys::serve(server, request).await, cluster);
    }
    if let Some(rest) = below(&path, MEMBERS) {
        let response = members::serve(server, rest.trim_start_matches('/'), request).await;
        return with_cluster_id(response, cluster);
    }
    if let Some(rest) = below(&path, AUTH) {
        let answer = auth::serve(request.method(), rest);
        return match answer {
            Some(response) => with_cluster_id(response, cluster),
            None => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        };
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return not_allowed("GET,HEAD");
    }
    match path.as_str() {
        "/v2/machines" => text(StatusCode::OK, &members::machines(&server)),
        "/v2/stats/self" => typed(StatusCode::OK, JSON, stats::own(&server)),
        "/v2/stats/store" => typed(StatusCode::OK, JSON, stats::store(&server)),
        "/v2/stats/leader" => stats::leader(&server),
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

/// The rules know ranges of v3 keys only: under auth the keys of this API are root's, and the rest is for who has a token of v3.
async fn permitted(caller: &Caller, path: &str) -> Result<(), AuthError> {
    match below(path, KEYS) {
        Some(_) => caller.admin().await,
        None => caller.known().await,
    }
}

fn with_cluster_id(mut response: Response<Body>, cluster: u64) -> Response<Body> {
    if let Ok(id) = HeaderValue::from_str(&format!("{cluster:x}")) {
        response.headers_mut().insert(CLUSTER_ID, id);
    }
    response
}

fn not_allowed(methods: &'static str) -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(methods));
    response
}

/// `{"message":"..."}`, the form of errors outside of keys.
fn refusal(status: StatusCode, message: &str) -> Response<Body> {
    typed(status, JSON, serde_json::json!({"message": message}).to_string())
}

/// The time of day, which is what expirations are given in.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Proposes the end of what has expired, as long as this member leads. Sleeps while no key has a time to live.
pub async fn expire(server: Arc<EtcdServer>) {
    stats::begin();
    let expiring = server.state.v2.read().expiring();
    loop {
        let next = server.state.v2.read().next_expiration();
        let Some(next) = next else {
            expiring.notified().await;
            continue;
        };
        if next <= now() && server.raft.is_leader.load(std::sync::atomic::Ordering::Relaxed) {
            let request = RequestMessage {
                method: "SYNC".to_owned(),
                time: now(),
                ..Default::default()
            };
            if let Err(error) = server.propose(entry(request)).await {
                warn!(error = %error, "failed to expire keys of the v2 API; it will be tried again");
            }
        }
        tokio::time::sleep(SYNC_INTERVAL).await;
    }
}

fn entry(request: RequestMessage) -> InternalRaftRequest {
    InternalRaftRequest {
        v2: Some(request),
        ..Default::default()
    }
}
