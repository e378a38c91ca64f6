//! One HTTP/1.1 exchange over a connection of its own.

use std::sync::Arc;

use bytes::Bytes;
use component_base::tls::alpn;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap};
use http::{Method, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::client::{errno_text, tls};

/// A server that sends more is not one of ours.
const MAX_BODY_BYTES: usize = 512 * 1024 * 1024;

#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    pub url: String,
    pub content_type: Option<&'static str>,
    /// `Basic ...`
    pub authorization: Option<String>,
    pub body: Option<String>,
}

impl Request {
    pub fn new(method: Method, url: String) -> Self {
        Request {
            method,
            url,
            content_type: None,
            authorization: None,
            body: None,
        }
    }

    pub fn get(url: String) -> Self {
        Request::new(Method::GET, url)
    }
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody answered at all.
    #[error("{0}")]
    Connection(String),
    #[error("{0}")]
    Exchange(String),
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// `offered` is spoken to `https` URLs; without it the system's authorities are trusted.
pub async fn send(request: &Request, offered: Option<Arc<ClientConfig>>) -> Result<Answer, FetchError> {
    let broken = |error: &dyn std::fmt::Display| FetchError::Exchange(error.to_string());
    let uri: Uri = request
        .url
        .parse()
        .map_err(|error| broken(&format!("parse {:?}: {error}", request.url)))?;
    let stream = connect(&uri, offered).await?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| broken(&error))?;
    // Ends with the exchange; what goes wrong in it is the sender's error.
    let driver = tokio::spawn(async move { drop(connection.await) });
    let response = sender
        .send_request(build(request, &uri)?)
        .await
        .map_err(|error| broken(&error))?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, MAX_BODY_BYTES)
        .collect()
        .await
        .map_err(|error| broken(&error))?;
    driver.abort();
    Ok(Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: body.to_bytes(),
    })
}

fn build(request: &Request, uri: &Uri) -> Result<http::Request<Full<Bytes>>, FetchError> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let mut builder = http::Request::builder()
        .method(&request.method)
        .uri(path)
        .header(HOST, host);
    if let Some(content_type) = request.content_type {
        builder = builder.header(CONTENT_TYPE, content_type);
    }
    if let Some(authorization) = &request.authorization {
        builder = builder.header(AUTHORIZATION, authorization);
    }
    let body = Full::new(Bytes::from(request.body.clone().unwrap_or_default()));
    builder
        .body(body)
        .map_err(|error| FetchError::Exchange(error.to_string()))
}

async fn connect(uri: &Uri, offered: Option<Arc<ClientConfig>>) -> Result<Box<dyn Io>, FetchError> {
    let secure = uri.scheme_str() == Some("https");
    let host = uri
        .host()
        .unwrap_or_default()
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let dialed = TcpStream::connect((host.as_str(), port)).await;
    let stream = dialed.map_err(|error| {
        FetchError::Connection(format!("dial tcp {host}:{port}: connect: {}", errno_text(&error)))
    })?;
    if !secure {
        return Ok(Box::new(stream));
    }
    let config = offered.map_or_else(|| tls::system(alpn::HTTP11), Ok);
    let config = config.map_err(|error| FetchError::Exchange(error.to_string()))?;
    let name = ServerName::try_from(host).map_err(|error| FetchError::Exchange(error.to_string()))?;
    let handshake = tokio_rustls::TlsConnector::from(config)
        .connect(name, stream)
        .await;
    let stream =
        handshake.map_err(|error| FetchError::Exchange(component_base::tls::describe_refusal(&error)))?;
    Ok(Box::new(stream))
}
