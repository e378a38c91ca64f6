//! The peer listener: raft's messages and streams, snapshots, and what members ask each other.

use std::sync::Arc;

use component_base::http::{Body, read_limited, text, typed};
use component_base::serve;
use component_base::version::ETCD_VERSION;
use etcd_api::raftpb;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use prost::Message as _;
use serde_json::json;
use tracing::warn;

use super::headers;
use super::remote::{MAX_MESSAGE_BYTES, accepts};
use super::socket::Socket;
use super::stream::Kind;
use super::transport::Transport;
use super::{corrupt, lease, metrics, snapshot, wire};
use crate::membership::MemberError;
use crate::raft::driver::Event;
use crate::server::{EtcdServer, ServerError};

const PROTOBUF: &str = "application/protobuf";
const JSON: &str = "application/json";
/// Lease requests of other members.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

#[derive(Clone)]
pub struct PeerHandler {
    pub server: Arc<EtcdServer>,
    pub transport: Arc<Transport>,
}

impl PeerHandler {
    pub fn into_handler(self) -> serve::Handler {
        Arc::new(move |request: Request<Incoming>| {
            let handler = self.clone();
            Box::pin(async move { handler.respond(request).await })
        })
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let path = path.strip_suffix('/').unwrap_or(&path);
        let mut response = match path {
            "/raft" => {
                self.with_method(Method::POST, request, |request| self.pipeline(request))
                    .await
            }
            "/raft/snapshot" => {
                self.with_method(Method::POST, request, |request| self.snapshot(request))
                    .await
            }
            "/raft/probing" => probing(),
            "/members" => self.with_method(Method::GET, request, |_| self.members()).await,
            corrupt::PATH => {
                self.with_method(Method::GET, request, |request| self.hash(request))
                    .await
            }
            "/version" => crate::http::version(&self.server),
            "/downgrade/enabled" => self.with_method(Method::GET, request, |_| self.downgrade()).await,
            "/leases" | "/leases/internal" | lease::MANY => {
                self.with_method(Method::POST, request, |request| self.lease(request))
                    .await
            }
            _ if path.starts_with("/raft/stream/") => {
                self.with_method(Method::GET, request, |request| self.stream(request))
                    .await
            }
            _ if path.starts_with("/members/promote/") => {
                self.with_method(Method::POST, request, |request| self.promote(request))
                    .await
            }
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        };
        if let Ok(id) = HeaderValue::try_from(format!("{:x}", self.server.cluster)) {
            response.headers_mut().insert(headers::CLUSTER_ID, id);
        }
        response
            .headers_mut()
            .insert(headers::SERVER_VERSION, HeaderValue::from_static(ETCD_VERSION));
        response
    }

    async fn with_method<F, Fut>(&self, method: Method, request: Request<Incoming>, then: F) -> Response<Body>
    where
        F: FnOnce(Request<Incoming>) -> Fut,
        Fut: Future<Output = Response<Body>>,
    {
        if request.method() == method {
            return then(request).await;
        }
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
        if let Ok(allow) = HeaderValue::from_str(method.as_str()) {
            response.headers_mut().insert(http::header::ALLOW, allow);
        }
        response
    }

    /// None when the sender fits; also notes where it can be answered.
    fn refuse(&self, request: &Request<Incoming>) -> Option<Response<Body>> {
        let theirs = request.headers();
        if let Err(error) = headers::check(theirs, self.server.cluster) {
            warn!(
                "remote-peer-id" = headers::text(theirs, headers::SERVER_FROM),
                "remote-peer-cluster-id" = headers::text(theirs, headers::CLUSTER_ID),
                "remote-peer-server-version" = headers::text(theirs, headers::SERVER_VERSION),
                error = %error,
                "a request of a peer was refused"
            );
            return Some(text(StatusCode::PRECONDITION_FAILED, &format!("{error}\n")));
        }
        let from = headers::id(headers::text(theirs, headers::SERVER_FROM));
        if let Some(from) = from.filter(|from| !self.is_removed(*from)) {
            self.transport
                .add_remote(from, headers::text(theirs, headers::PEER_URLS));
        }
        None
    }

    fn is_removed(&self, id: u64) -> bool {
        self.server.state.membership.read().is_removed(id)
    }

    async fn pipeline(&self, request: Request<Incoming>) -> Response<Body> {
        if let Some(refusal) = self.refuse(&request) {
            return refusal;
        }
        let bytes = match read_limited(request.into_body(), MAX_MESSAGE_BYTES as usize).await {
            Ok(bytes) => bytes,
            Err(error) => {
                warn!(error = %error, "failed to read Raft message");
                return text(StatusCode::BAD_REQUEST, "error reading raft message\n");
            }
        };
        let length = bytes.len();
        let message = match wire::decode(bytes) {
            Ok(message) => message,
            Err(error) => {
                warn!(error = %error, "failed to unmarshal Raft message");
                return text(StatusCode::BAD_REQUEST, "error unmarshalling raft message\n");
            }
        };
        metrics::RECEIVED_BYTES
            .with(&[&format!("{:x}", message.from)])
            .add(length as f64);
        if self.is_removed(message.from) {
            return text(
                StatusCode::FORBIDDEN,
                "cannot process message from removed member\n",
            );
        }
        if message.to != self.server.member {
            return text(
                StatusCode::FORBIDDEN,
                "cannot process message to mismatch member\n",
            );
        }
        if !accepts(self.transport.local(), &message) {
            return text(StatusCode::BAD_REQUEST, "error unmarshalling raft message\n");
        }
        self.server.events.push(Event::Step(Box::new(message)));
        status(StatusCode::NO_CONTENT)
    }

    async fn stream(&self, request: Request<Incoming>) -> Response<Body> {
        if let Err(error) = headers::check(request.headers(), self.server.cluster) {
            return text(StatusCode::PRECONDITION_FAILED, &format!("{error}\n"));
        }
        let path = request.uri().path();
        let found = [Kind::MsgApp, Kind::Message]
            .into_iter()
            .find_map(|kind| Some((kind, path.strip_prefix(kind.path())?.strip_prefix('/')?)));
        let Some((kind, from)) = found else {
            return text(StatusCode::NOT_FOUND, "invalid path\n");
        };
        let Some(from) = headers::id(from) else {
            return text(StatusCode::NOT_FOUND, "invalid from\n");
        };
        if self.is_removed(from) {
            warn!("remote-peer-id-from" = %format!("{from:x}"), "rejected stream from remote peer because it was removed");
            return text(StatusCode::GONE, "removed member\n");
        }
        if headers::id(headers::text(request.headers(), headers::RAFT_TO)) != Some(self.server.member) {
            return text(StatusCode::PRECONDITION_FAILED, "to field mismatch\n");
        }
        let Some(peer) = self.transport.member(from) else {
            self.transport
                .add_remote(from, headers::text(request.headers(), headers::PEER_URLS));
            return text(StatusCode::NOT_FOUND, "error sender not found\n");
        };
        let detached = request
            .extensions()
            .get::<serve::Detach>()
            .and_then(serve::Detach::take);
        let attached = match detached {
            Some(socket) => {
                Socket::server(socket).and_then(|socket| peer.attach(kind, socket, self.head().as_bytes()))
            }
            None => Err(std::io::ErrorKind::NotConnected.into()),
        };
        match attached {
            // Nobody is there any more to be told so.
            Ok(()) => status(StatusCode::OK),
            Err(error) => {
                warn!("remote-peer-id" = %format!("{from:x}"), error = %error, "failed to begin a stream");
                status(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }

    /// Of an answer that is a stream.
    fn head(&self) -> String {
        format!(
            "HTTP/1.1 200 OK\r\n{}: {:x}\r\n{}: {ETCD_VERSION}\r\ntransfer-encoding: chunked\r\n\r\n",
            headers::CLUSTER_ID,
            self.server.cluster,
            headers::SERVER_VERSION
        )
    }

    async fn snapshot(&self, request: Request<Incoming>) -> Response<Body> {
        if let Some(refusal) = self.refuse(&request) {
            return refusal;
        }
        match snapshot::receive(&self.server, request.into_body()).await {
            Ok(()) => status(StatusCode::NO_CONTENT),
            Err(error) => {
                warn!(error = %error, "failed to save incoming database snapshot");
                text(error.status(), &format!("{error}\n"))
            }
        }
    }

    async fn members(&self) -> Response<Body> {
        let membership = self.server.state.membership.read();
        let members: Vec<_> = membership.members.values().collect();
        typed(
            StatusCode::OK,
            JSON,
            serde_json::to_string(&members).unwrap_or_default(),
        )
    }

    /// Whether the cluster's version is still to be lowered: one of the target's version that joins takes a true for the version before it.
    async fn downgrade(&self) -> Response<Body> {
        match self.server.linearizable().await {
            Ok(()) => {
                let membership = self.server.state.membership.read();
                let downgrade = &membership.downgrade;
                let pending = downgrade.enabled && downgrade.ver != membership.version;
                text(StatusCode::OK, &pending.to_string())
            }
            Err(error) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                &format!("failed linearized read: {error}\n"),
            ),
        }
    }

    async fn hash(&self, request: Request<Incoming>) -> Response<Body> {
        let cluster = headers::text(request.headers(), headers::CLUSTER_ID);
        if !cluster.is_empty() && headers::id(cluster) != Some(self.server.cluster) {
            return text(StatusCode::PRECONDITION_FAILED, "cluster ID mismatch\n");
        }
        let Ok(body) = read_limited(request.into_body(), MAX_REQUEST_BYTES).await else {
            return text(StatusCode::BAD_REQUEST, "error reading body\n");
        };
        match corrupt::serve(&self.server, body).await {
            Ok(json) => typed(StatusCode::OK, JSON, json),
            Err(error) => text(StatusCode::BAD_REQUEST, &format!("{error}\n")),
        }
    }

    async fn promote(&self, request: Request<Incoming>) -> Response<Body> {
        let id = request.uri().path().rsplit('/').next().unwrap_or_default();
        let Ok(id) = id.parse::<u64>() else {
            return text(
                StatusCode::NOT_FOUND,
                &format!("member {id} not found in cluster\n"),
            );
        };
        let status = match self.server.promote_here(id).await {
            Ok(members) => {
                return typed(
                    StatusCode::OK,
                    JSON,
                    serde_json::to_string(&members).unwrap_or_default(),
                );
            }
            Err(ServerError::Member(error @ MemberError::NotFound)) => {
                return text(StatusCode::NOT_FOUND, &format!("{}\n", error.internal()));
            }
            Err(ServerError::Member(error @ (MemberError::NotLearner | MemberError::LearnerNotReady))) => {
                return text(
                    StatusCode::PRECONDITION_FAILED,
                    &format!("{}\n", error.internal()),
                );
            }
            Err(ServerError::Timeout) => (StatusCode::REQUEST_TIMEOUT, ServerError::Timeout),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error),
        };
        text(status.0, &format!("{}\n", status.1))
    }

    async fn lease(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let Ok(bytes) = read_limited(request.into_body(), MAX_REQUEST_BYTES).await else {
            return text(StatusCode::BAD_REQUEST, "error reading body\n");
        };
        let answer = match path.as_str() {
            _ if path.starts_with("/leases/internal") => lease::serve_time_to_live(&self.server, bytes).await,
            lease::MANY => lease::serve_renew_many(&self.server, bytes).await,
            _ => lease::serve_renew(&self.server, bytes).await,
        };
        match answer {
            Ok(bytes) => typed(StatusCode::OK, PROTOBUF, bytes),
            Err(refusal) => text(refusal.status(), &format!("{refusal}\n")),
        }
    }
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(component_base::http::empty());
    *response.status_mut() = status;
    response
}

/// What etcd's prober expects: health, and the clock in RFC 3339.
fn probing() -> Response<Body> {
    let now = crate::clock::rfc3339_now();
    typed(StatusCode::OK, JSON, json!({"OK": true, "Now": now}).to_string())
}

/// The head of a snapshot's body.
pub fn decode_head(bytes: bytes::Bytes) -> Result<raftpb::Message, prost::DecodeError> {
    raftpb::Message::decode(bytes)
}
