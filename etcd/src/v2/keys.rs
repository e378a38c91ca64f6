//! `/v2/keys`.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use component_base::http::{Body, BoxError, full, read_limited};
use etcd_api::etcdserverpb::Request as RequestMessage;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::error::{Code, Error, INDEX};
use super::event::Event;
use super::form::{self, Form, Parsed};
use super::store::KEYS_PREFIX;
use super::watcher::{Interest, Watching};
use crate::apply::Answer;
use crate::rpc::grpc::OVERHEAD_BYTES;
use crate::rpc::unfinished::at_most;
use crate::server::{EtcdServer, ServerError};

const RAFT_INDEX: HeaderName = HeaderName::from_static("x-raft-index");
const RAFT_TERM: HeaderName = HeaderName::from_static("x-raft-term");
const FORM: &str = "application/x-www-form-urlencoded";

pub async fn serve(server: Arc<EtcdServer>, request: Request<Incoming>) -> Response<Body> {
    const METHODS: [Method; 5] = [
        Method::HEAD,
        Method::GET,
        Method::PUT,
        Method::POST,
        Method::DELETE,
    ];
    if !METHODS.contains(request.method()) {
        return super::not_allowed("HEAD,GET,PUT,POST,DELETE");
    }
    match answer(&server, request).await {
        Ok(response) => response,
        Err(error) => error.response(),
    }
}

async fn answer(server: &Arc<EtcdServer>, request: Request<Incoming>) -> Result<Response<Body>, Error> {
    let Parsed {
        request,
        no_value_on_success,
    } = parse(server, request).await?;
    match request.method.as_str() {
        "GET" if request.wait => watch(server, &request),
        "GET" | "HEAD" => {
            let event = get(server, &request).await?;
            Ok(respond(server, &event, false))
        }
        _ => {
            let event = write(server, request).await?;
            Ok(respond(server, &event, no_value_on_success))
        }
    }
}

async fn parse(server: &EtcdServer, request: Request<Incoming>) -> Result<Parsed, Error> {
    let (parts, body) = request.into_parts();
    let key = form::decode(
        parts.uri.path().strip_prefix(super::KEYS).unwrap_or_default(),
        false,
    )?;
    let is_form = parts
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(FORM.as_bytes()));
    let body = if is_form && (parts.method == Method::PUT || parts.method == Method::POST) {
        // Three letters on the wire may be one of a value.
        let max = (server.limits.max_request_bytes + OVERHEAD_BYTES) * 3;
        let read = server
            .unfinished
            .read(at_most(&body, max), read_limited(body, max));
        read.await
            .map_err(|error| internal(&error))?
            .map_err(|error| Error::request(Code::InvalidForm, error.to_string()))?
    } else {
        Bytes::new()
    };
    let body =
        std::str::from_utf8(&body).map_err(|_| Error::request(Code::InvalidForm, "the form is not ASCII"))?;
    Form::parse(parts.uri.query().unwrap_or_default(), body)?.request(&parts.method, &key, super::now())
}

fn internal(error: &ServerError) -> Error {
    Error::request(Code::RaftInternal, error.to_string())
}

/// A quorum's answer is a linearizable read of this member: the log need not carry it.
async fn get(server: &EtcdServer, request: &RequestMessage) -> Result<Event, Error> {
    if request.quorum {
        server.linearizable().await.map_err(|error| internal(&error))?;
    }
    let store = server.state.v2.read();
    store.get(key(request), request.recursive, super::now())
}

fn key(request: &RequestMessage) -> &str {
    request.path.strip_prefix(KEYS_PREFIX).unwrap_or_default()
}

async fn write(server: &Arc<EtcdServer>, request: RequestMessage) -> Result<Arc<Event>, Error> {
    if request.method != "DELETE" {
        server
            .check_space(request.path.len() + request.val.len())
            .map_err(|error| internal(&error))?;
    }
    let applied = server
        .propose(super::entry(request))
        .await
        .map_err(|error| internal(&error))?;
    match applied.result {
        Ok(Answer::V2(outcome)) => outcome?.ok_or_else(unexpected),
        Ok(_) => Err(unexpected()),
        Err(error) => Err(internal(&error.into())),
    }
}

fn unexpected() -> Error {
    Error::request(
        Code::RaftInternal,
        "etcdserver: the answer does not fit the request",
    )
}

fn respond(server: &EtcdServer, event: &Event, without_values: bool) -> Response<Body> {
    let line = if without_values {
        event.without_values().line()
    } else {
        event.line()
    };
    let mut response = headed(server, event.index, full(line));
    if event.is_created() {
        *response.status_mut() = StatusCode::CREATED;
    }
    response
}

fn headed(server: &EtcdServer, index: u64, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(super::JSON));
    headers.insert(INDEX, HeaderValue::from(index));
    headers.insert(
        RAFT_INDEX,
        HeaderValue::from(server.raft.committed.load(Ordering::Relaxed)),
    );
    headers.insert(
        RAFT_TERM,
        HeaderValue::from(server.raft.term.load(Ordering::Relaxed)),
    );
    response
}

/// The head of the answer leaves at once, so that the client knows where it stands.
fn watch(server: &Arc<EtcdServer>, request: &RequestMessage) -> Result<Response<Body>, Error> {
    let interest = Interest {
        key: key(request).to_owned(),
        recursive: request.recursive,
        stream: request.stream,
        since: request.since,
    };
    let watching = server.state.v2.write().watch(interest)?;
    let index = watching.index;
    let body = WatchBody {
        server: server.clone(),
        watching,
        stream: request.stream,
        done: false,
    };
    Ok(headed(server, index, body.boxed_unsync()))
}

/// Ends with the first event, or for a stream when the client was cut off; leaves its place when it is dropped.
struct WatchBody {
    server: Arc<EtcdServer>,
    watching: Watching,
    stream: bool,
    done: bool,
}

impl http_body::Body for WatchBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let event = match self.watching.past.pop_front() {
            Some(event) => Some(event),
            None => ready!(self.watching.events.poll_recv(context)),
        };
        self.done = !self.stream || event.is_none();
        Poll::Ready(event.map(|event| Ok(Frame::data(event.line().into()))))
    }
}

impl Drop for WatchBody {
    fn drop(&mut self) {
        if let Some(id) = self.watching.id {
            self.server.state.v2.write().unwatch(&self.watching.key, id);
        }
    }
}
