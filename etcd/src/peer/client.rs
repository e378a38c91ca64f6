//! HTTP/1.1 to other members, as etcd's members speak it among each other.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use component_base::http::{Body, BoxError, full, read_limited};
use component_base::tls::{ClientConfigHandle, describe_refusal};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connections kept open to one address between requests.
const IDLE_PER_ADDRESS: usize = 64;
/// Members, versions, lease answers: nothing here is large.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{url} is not a peer URL")]
    Url { url: String },
    #[error("{url}: {reason}")]
    Connect { url: String, reason: String },
    #[error("{url}: no answer within {within:?}")]
    Timeout { url: String, within: Duration },
    #[error("{url}: {source}")]
    Exchange { url: String, source: BoxError },
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

pub struct Client {
    tls: Option<ClientConfigHandle>,
    dial_timeout: Duration,
    idle: Mutex<HashMap<String, Vec<SendRequest<Body>>>>,
}

/// To a peer, with its session.
pub(super) enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Scheme, host and port of a peer URL.
pub(super) struct Target<'a> {
    url: &'a str,
    tls: bool,
    authority: &'a str,
}

impl<'a> Target<'a> {
    pub(super) fn parse(url: &'a str) -> Result<Target<'a>, ClientError> {
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| ClientError::Url { url: url.to_owned() })?;
        Ok(Target {
            url,
            tls: scheme == "https",
            authority: rest.trim_end_matches('/'),
        })
    }

    fn host(&self) -> &'a str {
        let host = self
            .authority
            .rsplit_once(':')
            .map_or(self.authority, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    pub(super) fn authority(&self) -> &'a str {
        self.authority
    }

    pub(super) fn failed(&self, source: impl Into<BoxError>) -> ClientError {
        ClientError::Exchange {
            url: self.url.to_owned(),
            source: source.into(),
        }
    }

    fn unreachable(&self, reason: impl ToString) -> ClientError {
        ClientError::Connect {
            url: self.url.to_owned(),
            reason: reason.to_string(),
        }
    }
}

impl Client {
    pub fn new(tls: Option<ClientConfigHandle>, dial_timeout: Duration) -> Client {
        Client {
            tls,
            dial_timeout,
            idle: Mutex::default(),
        }
    }

    async fn connect(&self, target: &Target<'_>) -> Result<SendRequest<Body>, ClientError> {
        let connect = async {
            match self.socket(target).await? {
                Connection::Plain(stream) => handshake(target, stream).await,
                Connection::Tls(stream) => handshake(target, *stream).await,
            }
        };
        self.within_dial_timeout(target, connect).await
    }

    pub(super) async fn within_dial_timeout<T>(
        &self,
        target: &Target<'_>,
        dial: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        tokio::time::timeout(self.dial_timeout, dial)
            .await
            .unwrap_or_else(|_| {
                Err(target.unreachable(format!("no connection within {:?}", self.dial_timeout)))
            })
    }

    pub(super) async fn socket(&self, target: &Target<'_>) -> Result<Connection, ClientError> {
        let stream = TcpStream::connect(target.authority)
            .await
            .map_err(|error| target.unreachable(error))?;
        stream
            .set_nodelay(true)
            .map_err(|error| target.unreachable(error))?;
        if !target.tls {
            return Ok(Connection::Plain(stream));
        }
        let tls = self.tls.as_ref().ok_or_else(|| {
            target.unreachable(
                "an https peer URL, but this member has no --peer-cert-file or --peer-trusted-ca-file",
            )
        })?;
        let name =
            ServerName::try_from(target.host().to_owned()).map_err(|error| target.unreachable(error))?;
        let session = TlsConnector::from(tls.current()).connect(name, stream).await;
        let session = session.map_err(|error| target.unreachable(describe_refusal(&error)))?;
        Ok(Connection::Tls(Box::new(session)))
    }

    fn idle(&self, authority: &str) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock();
        let connections = idle.get_mut(authority)?;
        while let Some(sender) = connections.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, authority: &str, sender: SendRequest<Body>) {
        let mut idle = self.idle.lock();
        let connections = idle.entry(authority.to_owned()).or_default();
        if connections.len() < IDLE_PER_ADDRESS && !sender.is_closed() {
            connections.push(sender);
        }
    }

    /// A request and its whole answer. One that a kept connection lost on the way is sent again on a fresh one: all of them may come twice.
    pub async fn call(
        &self,
        url: &str,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
        within: Duration,
    ) -> Result<Answer, ClientError> {
        let target = Target::parse(url)?;
        let exchange = async {
            if let Some(sender) = self.idle(target.authority) {
                let request = request(&target, &method, path, headers, full(body.clone()))?;
                if let Ok(answer) = self.exchange(&target, sender, request).await {
                    return Ok(answer);
                }
            }
            let sender = self.connect(&target).await?;
            let request = request(&target, &method, path, headers, full(body))?;
            self.exchange(&target, sender, request).await
        };
        let timeout = |_| ClientError::Timeout {
            url: url.to_owned(),
            within,
        };
        tokio::time::timeout(within, exchange).await.map_err(timeout)?
    }

    async fn exchange(
        &self,
        target: &Target<'_>,
        mut sender: SendRequest<Body>,
        request: Request<Body>,
    ) -> Result<Answer, ClientError> {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| target.failed(error))?;
        let (parts, body) = response.into_parts();
        let body = read_limited(body, MAX_ANSWER_BYTES)
            .await
            .map_err(|error| target.failed(error))?;
        if sender.ready().await.is_ok() {
            self.keep(target.authority, sender);
        }
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }

    /// On a connection of its own, which ends with the answer's body.
    pub async fn open(
        &self,
        url: &str,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response<Incoming>, ClientError> {
        let target = Target::parse(url)?;
        let mut sender = self.connect(&target).await?;
        let request = request(&target, &method, path, headers, body)?;
        sender
            .send_request(request)
            .await
            .map_err(|error| target.failed(error))
    }
}

async fn handshake<S>(target: &Target<'_>, stream: S) -> Result<SendRequest<Body>, ClientError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| target.failed(error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(err = %error, "a connection to a peer ended with an error");
        }
    });
    Ok(sender)
}

fn request(
    target: &Target<'_>,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Request<Body>, ClientError> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .body(body)
        .map_err(|error| target.failed(error))?;
    *request.headers_mut() = headers.clone();
    let host = HeaderValue::try_from(target.authority).map_err(|error| target.failed(error))?;
    request.headers_mut().insert(header::HOST, host);
    Ok(request)
}

/// A body that came from the wire, as all bodies of the house are.
pub fn incoming(body: Incoming) -> Body {
    body.map_err(BoxError::from).boxed_unsync()
}
