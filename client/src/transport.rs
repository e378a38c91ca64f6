//! Bytes to and from one server: a connection for all requests, multiplexed by HTTP/2.
//!
//! Every request takes the first connection with a free stream; a second connection is dialed only when the
//! streams of the first run out (many watches). One dial is under way at a time, and failed dials back off with
//! jitter, so that a hundred informers meeting a dead server cost one connect each backoff step, not a hundred.
//! Keepalive pings notice a dead peer under watches; a request that times out on a silent connection retires it.

use crate::error::{BoxError, Error};
use crate::kubeconfig::{RestConfig, Server};
use bytes::Bytes;
use component_base::tls::ClientConfigHandle;
use http::{Request, Response, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// A response body: frames as they come from the wire, with the stream's permit inside.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
pub type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

/// The narrow waist: everything above it runs unchanged on [`crate::fake::FakeServer`].
pub trait Transport: Send + Sync {
    /// `deadline` bounds the time to the response's head.
    fn send(&self, request: Request<Bytes>, deadline: Option<Duration>) -> ResponseFuture;
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Upstream waits 30 s of silence and 15 s for the pong; a lease must survive a dead peer, hence sooner.
const PING_AFTER_SILENCE: Duration = Duration::from_secs(15);
const PONG_WITHIN: Duration = Duration::from_secs(10);
const DIAL_BACKOFF: Duration = Duration::from_millis(50);
const MAX_DIAL_BACKOFF: Duration = Duration::from_secs(2);
/// Until the server's settings arrive: what every server allows.
const ASSUMED_STREAMS: usize = 100;
/// Streams kept free on each connection for requests that must not wait behind watches (lease renewals).
const RESERVED_STREAMS: usize = 4;
/// No single client needs more; a leak of watches must not become a leak of sockets.
const MAX_CONNECTIONS: usize = 16;

#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    server: Server,
    tls: Option<ClientConfigHandle>,
    server_name: Option<String>,
    connections: Mutex<Vec<Arc<Connection>>>,
    dialing: tokio::sync::Mutex<DialState>,
}

#[derive(Default)]
struct DialState {
    failures: u32,
    not_before: Option<Instant>,
}

struct Connection {
    sender: Sender,
    streams: AtomicUsize,
    /// How many streams the server allows.
    limit: Arc<AtomicUsize>,
    retired: AtomicBool,
    opened: Instant,
    /// Milliseconds after `opened` of the last response head.
    last_answer_ms: AtomicUsize,
    /// The TLS config it was opened with: a reloaded client certificate takes effect on the next connection.
    tls: Option<Arc<rustls::ClientConfig>>,
}

#[derive(Clone)]
enum Sender {
    Http2(http2::SendRequest<Full<Bytes>>),
    /// A server without HTTP/2 (a plain-http proxy): one connection for each request.
    Http1,
}

/// One stream of a connection, given back on drop.
struct Stream(Arc<Connection>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Pool {
    pub fn new(config: &RestConfig) -> Result<Self, Error> {
        let tls = match config.server.tls {
            true => Some(
                config
                    .tls()?
                    .load()
                    .map_err(|e| Error::transport(config.server.to_string(), e))?,
            ),
            false => None,
        };
        Ok(Pool(Arc::new(Inner {
            server: config.server.clone(),
            tls,
            server_name: config.tls_server_name.clone(),
            connections: Mutex::default(),
            dialing: tokio::sync::Mutex::default(),
        })))
    }
}

impl Transport for Pool {
    fn send(&self, request: Request<Bytes>, deadline: Option<Duration>) -> ResponseFuture {
        let pool = self.0.clone();
        Box::pin(async move {
            let name = describe(&request);
            let started = Instant::now();
            match deadline {
                None => pool.exchange(request, &name, &mut None).await,
                Some(after) => {
                    let mut used = None;
                    let exchange = pool.exchange(request, &name, &mut used);
                    let outcome = tokio::time::timeout(after, exchange).await;
                    outcome.unwrap_or_else(|_| {
                        retire_if_silent(used, started);
                        Err(Error::Timeout { request: name, after })
                    })
                }
            }
        })
    }
}

/// A connection that answered nobody since the request began is not given to the next one.
fn retire_if_silent(connection: Option<Arc<Connection>>, since: Instant) {
    let Some(connection) = connection else { return };
    let last = Duration::from_millis(connection.last_answer_ms.load(Ordering::Acquire) as u64);
    if connection.opened + last < since {
        connection.retired.store(true, Ordering::Release);
    }
}

pub fn describe(request: &Request<Bytes>) -> String {
    format!("{} {}", request.method(), request.uri())
}

impl Inner {
    /// Sends once, and once more when the connection died before it took the request.
    async fn exchange(
        &self,
        request: Request<Bytes>,
        name: &str,
        used: &mut Option<Arc<Connection>>,
    ) -> Result<Response<Body>, Error> {
        let idempotent = request.method() == http::Method::GET;
        let spare = idempotent.then(|| request.clone());
        let stream = self.stream(name).await?;
        *used = Some(stream.0.clone());
        match self.once(stream, request, name).await {
            Ok(response) => Ok(response),
            Err(Failure { unsent, error }) => {
                let Some(again) = unsent.or(spare) else {
                    return Err(error);
                };
                let stream = self.stream(name).await?;
                *used = Some(stream.0.clone());
                self.once(stream, again, name).await.map_err(|f| f.error)
            }
        }
    }

    async fn once(
        &self,
        stream: Stream,
        request: Request<Bytes>,
        name: &str,
    ) -> Result<Response<Body>, Failure> {
        let response = match stream.0.sender.clone() {
            Sender::Http2(sender) => http2_exchange(sender, self.absolute(request), name).await,
            Sender::Http1 => self.http1_exchange(request, name).await,
        };
        match response {
            Ok(response) => {
                let elapsed = stream.0.opened.elapsed().as_millis() as usize;
                stream.0.last_answer_ms.store(elapsed, Ordering::Release);
                Ok(response.map(|body| {
                    body.map_err(BoxError::from)
                        .map_frame(move |frame| keep(&stream, frame))
                        .boxed_unsync()
                }))
            }
            Err(failure) => {
                stream.0.retired.store(true, Ordering::Release);
                Err(failure)
            }
        }
    }

    /// HTTP/2 wants scheme and authority as pseudo headers.
    fn absolute(&self, mut request: Request<Bytes>) -> Request<Bytes> {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(if self.tls.is_some() {
            http::uri::Scheme::HTTPS
        } else {
            http::uri::Scheme::HTTP
        });
        parts.authority = Some(self.server.authority.clone());
        *request.uri_mut() = http::Uri::from_parts(parts).unwrap_or_default();
        *request.version_mut() = Version::HTTP_2;
        request
    }

    async fn stream(&self, name: &str) -> Result<Stream, Error> {
        if let Some(stream) = self.pick() {
            return Ok(stream);
        }
        let mut dial = self.dialing.lock().await;
        // Whoever held the lock may have dialed for us.
        if let Some(stream) = self.pick() {
            return Ok(stream);
        }
        if let Some(at) = dial.not_before {
            tokio::time::sleep_until(at.into()).await;
        }
        match self.dial().await {
            Ok(connection) => {
                *dial = DialState::default();
                self.adopt(connection, name)
            }
            Err(source) => {
                dial.failed();
                Err(Error::transport(name, source))
            }
        }
    }

    fn pick(&self) -> Option<Stream> {
        let current = self.tls.as_ref().map(ClientConfigHandle::current);
        let mut connections = self.connections.lock();
        connections.retain(|c| c.usable(current.as_ref()));
        connections.iter().find_map(|c| c.take_stream())
    }

    fn adopt(&self, connection: Connection, name: &str) -> Result<Stream, Error> {
        let connection = Arc::new(connection);
        let mut connections = self.connections.lock();
        if connections.len() >= MAX_CONNECTIONS {
            let full = format!(
                "{MAX_CONNECTIONS} connections to {} have no free stream",
                self.server
            );
            return Err(Error::transport(name, full));
        }
        connections.push(connection.clone());
        connection.streams.fetch_add(1, Ordering::AcqRel);
        Ok(Stream(connection))
    }

    async fn dial(&self) -> Result<Connection, BoxError> {
        let dial = tokio::time::timeout(CONNECT_TIMEOUT, self.connect());
        dial.await
            .map_err(|_| format!("no connection to {} within {CONNECT_TIMEOUT:?}", self.server))?
    }

    async fn connect(&self) -> Result<Connection, BoxError> {
        let Some(handle) = &self.tls else {
            return Ok(Connection::new(Sender::Http1, None));
        };
        let config = handle.current();
        let stream = self.handshake(config.clone()).await?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Ok(Connection::new(Sender::Http1, Some(config)));
        }
        let (sender, driver) = http2_builder().handshake(TokioIo::new(stream)).await?;
        let connection = Connection::new(Sender::Http2(sender), Some(config));
        tokio::spawn(drive(
            watch_stream_limit(driver, connection.limit.clone()),
            self.server.to_string(),
        ));
        Ok(connection)
    }

    async fn tcp(&self) -> Result<TcpStream, BoxError> {
        let address = (self.server.host.as_str(), self.server.port);
        let tcp = TcpStream::connect(address)
            .await
            .map_err(|e| format!("dial tcp {}: {e}", self.server))?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }

    async fn handshake(
        &self,
        config: Arc<rustls::ClientConfig>,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, BoxError> {
        let name = self.server_name.as_deref().unwrap_or(&self.server.host);
        let name = rustls_pki_types::ServerName::try_from(name.to_owned())
            .map_err(|_| format!("{name:?} is neither a DNS name nor an IP address: set tls-server-name"))?;
        let stream = tokio_rustls::TlsConnector::from(config)
            .connect(name, self.tcp().await?)
            .await;
        Ok(stream.map_err(|e| format!("TLS with {}: {e}", self.server))?)
    }

    async fn http1_exchange(
        &self,
        mut request: Request<Bytes>,
        name: &str,
    ) -> Result<Response<hyper::body::Incoming>, Failure> {
        if let Ok(host) = http::HeaderValue::from_str(self.server.authority.as_str()) {
            request.headers_mut().insert(http::header::HOST, host);
        }
        let fail = |e: BoxError| Failure {
            unsent: None,
            error: Error::transport(name, e),
        };
        match &self.tls {
            None => http1_on(TokioIo::new(self.tcp().await.map_err(fail)?), request)
                .await
                .map_err(fail),
            Some(tls) => {
                let stream = self.handshake(tls.current()).await.map_err(fail)?;
                http1_on(TokioIo::new(stream), request).await.map_err(fail)
            }
        }
    }
}

struct Failure {
    /// The request, when it certainly never reached the server.
    unsent: Option<Request<Bytes>>,
    error: Error,
}

fn keep(_stream: &Stream, frame: http_body::Frame<Bytes>) -> http_body::Frame<Bytes> {
    frame
}

async fn http2_exchange(
    mut sender: http2::SendRequest<Full<Bytes>>,
    request: Request<Bytes>,
    name: &str,
) -> Result<Response<hyper::body::Incoming>, Failure> {
    let mut copy = None;
    let request = request.map(|body| {
        copy = Some(body.clone());
        Full::new(body)
    });
    sender.try_send_request(request).await.map_err(|mut e| {
        let body = copy.unwrap_or_default();
        let unsent = e.take_message().map(|message| message.map(|_| body));
        Failure {
            unsent,
            error: Error::transport(name, e.into_error()),
        }
    })
}

async fn http1_on<I>(io: I, request: Request<Bytes>) -> Result<Response<hyper::body::Incoming>, BoxError>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, driver) = http1::handshake(io).await?;
    tokio::spawn(drive(driver, String::new()));
    Ok(sender.send_request(request.map(Full::new)).await?)
}

async fn drive<F, E>(driver: F, server: String)
where
    F: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    if let Err(error) = driver.await {
        tracing::debug!(%server, %error, "Connection closed");
    }
}

type Http2Driver<I> = http2::Connection<TokioIo<I>, Full<Bytes>, TokioExecutor>;

/// Drives the connection and publishes how many streams its server allows at present.
fn watch_stream_limit<I>(
    mut driver: Http2Driver<I>,
    limit: Arc<AtomicUsize>,
) -> impl Future<Output = hyper::Result<()>>
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    std::future::poll_fn(move |cx| {
        let outcome = Pin::new(&mut driver).poll(cx);
        limit.store(driver.current_max_send_streams(), Ordering::Release);
        outcome
    })
}

fn http2_builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_AFTER_SILENCE)
        .keep_alive_timeout(PONG_WITHIN)
        .keep_alive_while_idle(false);
    builder
}

impl Connection {
    fn new(sender: Sender, tls: Option<Arc<rustls::ClientConfig>>) -> Self {
        Connection {
            sender,
            streams: AtomicUsize::new(0),
            limit: Arc::new(AtomicUsize::new(ASSUMED_STREAMS)),
            retired: AtomicBool::new(false),
            opened: Instant::now(),
            last_answer_ms: AtomicUsize::new(0),
            tls,
        }
    }

    fn usable(&self, current: Option<&Arc<rustls::ClientConfig>>) -> bool {
        let closed = matches!(&self.sender, Sender::Http2(sender) if sender.is_closed());
        let same_certificate = match (&self.tls, current) {
            (Some(mine), Some(current)) => Arc::ptr_eq(mine, current),
            _ => true,
        };
        !closed && same_certificate && !self.retired.load(Ordering::Acquire)
    }

    fn take_stream(self: &Arc<Self>) -> Option<Stream> {
        let limit = match &self.sender {
            Sender::Http2(_) => {
                let allowed = self.limit.load(Ordering::Acquire);
                allowed.saturating_sub(RESERVED_STREAMS).max(1)
            }
            Sender::Http1 => usize::MAX,
        };
        let taken = self
            .streams
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
                (n < limit).then_some(n + 1)
            });
        taken.ok().map(|_| Stream(self.clone()))
    }
}

impl DialState {
    fn failed(&mut self) {
        let backoff = DIAL_BACKOFF
            .saturating_mul(1 << self.failures.min(10))
            .min(MAX_DIAL_BACKOFF);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(Instant::now() + crate::jitter(backoff, 0.5));
    }
}
