//! An API server in memory, behind [`Transport`]: for the tests of whatever talks to one.
//!
//! It keeps the promises that clients rely on (resourceVersion order, conflicts, finalizers, status apart from spec,
//! generations, watches that lose nothing, 410 after [`FakeServer::compact`]) and knows nothing of any kind: no
//! defaults, no validation. Every write is counted by [`FakeServer::writes`], so that a test can demand that there was none.

mod objects;
mod path;

use crate::Client;
use crate::error::BoxError;
use crate::transport::{Body, ResponseFuture, Transport};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use objects::{Objects, Refusal};
use parking_lot::Mutex;
use path::Target;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

#[derive(Clone)]
pub struct FakeServer {
    inner: Arc<Inner>,
}

struct Inner {
    objects: Mutex<Objects>,
    documents: Mutex<HashMap<String, Value>>,
    writes: Mutex<Vec<String>>,
    faults: Mutex<Vec<(String, u16)>>,
    /// The revision that watchers may read up to.
    revision: watch::Sender<u64>,
    /// Raised to end all watches.
    epoch: watch::Sender<u64>,
}

impl Default for FakeServer {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeServer {
    pub fn new() -> Self {
        let inner = Inner {
            objects: Mutex::default(),
            documents: Mutex::default(),
            writes: Mutex::default(),
            faults: Mutex::default(),
            revision: watch::Sender::new(0),
            epoch: watch::Sender::new(0),
        };
        FakeServer {
            inner: Arc::new(inner),
        }
    }

    pub fn client(&self) -> Client {
        Client::on(Arc::new(self.clone()), "test")
    }

    /// `METHOD path` of each write so far, refused ones included.
    pub fn writes(&self) -> Vec<String> {
        self.inner.writes.lock().clone()
    }

    pub fn forget_writes(&self) {
        self.inner.writes.lock().clear();
    }

    /// A fixed answer to GET of `path`: discovery.
    pub fn serve(&self, path: &str, document: Value) {
        self.inner.documents.lock().insert(path.to_owned(), document);
    }

    /// The next request whose `METHOD path` contains `pattern` is answered with `code`.
    pub fn fail_next(&self, pattern: &str, code: u16) {
        self.inner.faults.lock().push((pattern.to_owned(), code));
    }

    /// Ends all watches, as a restarted server does.
    pub fn end_watches(&self) {
        self.inner.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Forgets the past: a watch from an older revision gets 410.
    pub fn compact(&self) {
        self.inner.objects.lock().compact();
    }

    /// Removes an object although nobody is told: what a client that was away has to find out by a relist.
    pub fn remove_unseen(&self, path: &str) {
        if let Some(Target::Object { target, name, .. }) = Target::parse(path) {
            self.inner.objects.lock().remove_unseen(&target, &name);
        }
    }

    fn fault(&self, line: &str) -> Option<u16> {
        let mut faults = self.inner.faults.lock();
        let at = faults
            .iter()
            .position(|(pattern, _)| line.contains(pattern.as_str()))?;
        Some(faults.remove(at).1)
    }

    fn answer(&self, request: Request<Bytes>) -> Response<Body> {
        let line = format!("{} {}", request.method(), request.uri().path());
        if *request.method() != Method::GET {
            self.inner.writes.lock().push(line.clone());
        }
        if let Some(code) = self.fault(&line) {
            return refuse(Refusal {
                code,
                reason: "",
                message: format!("injected for {line}"),
            });
        }
        let document = self.inner.documents.lock().get(request.uri().path()).cloned();
        if let Some(document) = document.filter(|_| *request.method() == Method::GET) {
            return respond(200, &document);
        }
        let Some(target) = Target::parse(request.uri().path()) else {
            return refuse(Refusal::not_found(
                "the server could not find the requested resource",
            ));
        };
        let query = path::query(request.uri().query().unwrap_or(""));
        let is_watch = query.get("watch").is_some_and(|w| w == "true");
        match (request.method().clone(), target) {
            (Method::GET, Target::Collection(of)) if is_watch => self.watch(of, query),
            (method, target) => {
                let outcome = self.inner.objects.lock().handle(
                    &method,
                    target,
                    &query,
                    request.headers(),
                    request.body(),
                );
                self.publish();
                outcome.map_or_else(refuse, |value| respond(200, &value))
            }
        }
    }

    fn publish(&self) {
        let revision = self.inner.objects.lock().revision();
        self.inner
            .revision
            .send_if_modified(|known| std::mem::replace(known, revision) != revision);
    }

    fn watch(&self, of: path::Collection, query: HashMap<String, String>) -> Response<Body> {
        let from: u64 = query
            .get("resourceVersion")
            .and_then(|v| v.parse().ok())
            .unwrap_or(0);
        if from < self.inner.objects.lock().oldest() {
            let expired = json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "code": 410, "reason": "Expired",
                "message": format!("too old resource version: {from}")}});
            return Response::new(full(format!("{expired}\n")));
        }
        let cursor = Cursor {
            server: self.clone(),
            of,
            query,
            from,
            revision: self.inner.revision.subscribe(),
            epoch: self.inner.epoch.subscribe(),
        };
        let stream = futures_util::stream::unfold(cursor, |mut cursor| async move {
            let chunk = cursor.next().await?;
            Some((Ok::<_, BoxError>(Frame::data(Bytes::from(chunk))), cursor))
        });
        Response::new(StreamBody::new(stream).boxed_unsync())
    }
}

struct Cursor {
    server: FakeServer,
    of: path::Collection,
    query: HashMap<String, String>,
    from: u64,
    revision: watch::Receiver<u64>,
    epoch: watch::Receiver<u64>,
}

impl Cursor {
    async fn next(&mut self) -> Option<String> {
        loop {
            self.revision.borrow_and_update();
            let (lines, upto) =
                self.server
                    .inner
                    .objects
                    .lock()
                    .events_after(&self.of, &self.query, self.from);
            self.from = upto;
            if !lines.is_empty() {
                return Some(lines);
            }
            tokio::select! {
                changed = self.revision.changed() => changed.ok()?,
                _ = self.epoch.changed() => return None,
            }
        }
    }
}

impl Transport for FakeServer {
    fn send(&self, request: Request<Bytes>, _deadline: Option<Duration>) -> ResponseFuture {
        let server = self.clone();
        Box::pin(async move { Ok(server.answer(request)) })
    }
}

fn full(text: String) -> Body {
    Full::new(Bytes::from(text))
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn respond(code: u16, value: &Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string()));
    *response.status_mut() =
        http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response
}

fn refuse(refusal: Refusal) -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": refusal.code, "reason": refusal.reason, "message": refusal.message});
    respond(refusal.code, &status)
}
