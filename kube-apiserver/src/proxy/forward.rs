//! Carries one request to a backend and its answer back; upgraded connections become a pair of pipes.

use apimachinery::status::{self, StatusError};
use component_base::http::{Body, BoxError};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use super::dial::{DialError, Target};

/// Headers of one hop (RFC 7230), and what must not reach a backend: the caller's credentials.
const DROPPED: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::AUTHORIZATION,
];

/// Bytes of a backend's refusal that are passed on.
const MAX_REFUSAL: usize = 64 * 1024;

pub fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
        && headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .any(|v| v.to_ascii_lowercase().contains("upgrade"))
}

/// `path` is with its query. The body streams both ways.
pub async fn request(
    target: &Target,
    path: &str,
    mut req: Request<Incoming>,
) -> Result<Response<Body>, StatusError> {
    if is_upgrade(req.headers()) {
        return upgrade(target, path, req).await;
    }
    clean(req.headers_mut());
    let (parts, body) = req.into_parts();
    let mut outgoing = Request::new(body.map_err(BoxError::from).boxed_unsync());
    *outgoing.method_mut() = parts.method;
    *outgoing.headers_mut() = parts.headers;
    let mut response = send(target, path, outgoing)
        .await?
        .map(|body| body.map_err(BoxError::from).boxed_unsync());
    clean(response.headers_mut());
    Ok(response)
}

/// A GET of the server's own, for logs.
pub async fn get(target: &Target, path: &str) -> Result<Response<Incoming>, StatusError> {
    send(target, path, Request::new(component_base::http::empty())).await
}

async fn send(
    target: &Target,
    path: &str,
    mut req: Request<Body>,
) -> Result<Response<Incoming>, StatusError> {
    let failed = |error: &dyn std::fmt::Display| unreachable_backend(target, path, error);
    address(&mut req, target, path)?;
    let stream = target.connect().await.map_err(|e| match e {
        DialError::NotAllowed => status::bad_request(e.to_string()),
        other => failed(&other),
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| failed(&e))?;
    tokio::spawn(async move {
        // The sender sees the error too; this end only logs it.
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(err = %error, "Backend connection ended");
        }
    });
    sender.send_request(req).await.map_err(|e| failed(&e))
}

/// 101 from the backend ties both connections together; anything else closes the backend's, whatever it says,
/// and a redirect is never followed nor passed on.
async fn upgrade(
    target: &Target,
    path: &str,
    mut req: Request<Incoming>,
) -> Result<Response<Body>, StatusError> {
    let client = hyper::upgrade::on(&mut req);
    let mut outgoing = Request::new(component_base::http::empty());
    *outgoing.method_mut() = req.method().clone();
    *outgoing.headers_mut() = req.headers().clone();
    outgoing.headers_mut().remove(header::AUTHORIZATION);
    let mut answered = send(target, path, outgoing).await?;
    if answered.status() != StatusCode::SWITCHING_PROTOCOLS {
        return refused(answered).await;
    }
    let backend = hyper::upgrade::on(&mut answered);
    tokio::spawn(async move {
        let (client, backend) = match tokio::try_join!(client, backend) {
            Ok(both) => both,
            Err(error) => return tracing::debug!(err = %error, "Upgrade not completed"),
        };
        // Either side may just go away; that is how sessions end.
        if let Err(error) =
            tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(backend)).await
        {
            tracing::debug!(err = %error, "Upgraded connection ended");
        }
    });
    let mut response = Response::new(component_base::http::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answered.headers().clone();
    Ok(response)
}

async fn refused(answered: Response<Incoming>) -> Result<Response<Body>, StatusError> {
    let code = answered.status();
    if code.is_redirection() || code.is_success() {
        return Err(status::internal(format!(
            "unable to upgrade connection: backend answered {code}"
        )));
    }
    let (parts, body) = answered.into_parts();
    let text = component_base::http::read_limited(body, MAX_REFUSAL)
        .await
        .unwrap_or_default();
    let mut response = Response::new(component_base::http::full(text));
    *response.status_mut() = code;
    if let Some(kind) = parts.headers.get(header::CONTENT_TYPE) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
    }
    Ok(response)
}

fn address<B>(req: &mut Request<B>, target: &Target, path: &str) -> Result<(), StatusError> {
    *req.uri_mut() = path
        .parse()
        .map_err(|_| status::bad_request(format!("invalid proxy path {path:?}")))?;
    let host = HeaderValue::from_str(&target.authority()).map_err(|_| status::bad_request("invalid host"))?;
    req.headers_mut().insert(header::HOST, host);
    Ok(())
}

fn clean(headers: &mut HeaderMap) {
    for name in DROPPED {
        headers.remove(name);
    }
}

fn unreachable_backend(target: &Target, path: &str, error: &dyn std::fmt::Display) -> StatusError {
    let scheme = if target.tls.is_some() { "https" } else { "http" };
    let message = format!("Get \"{scheme}://{}{path}\": {error}", target.authority());
    StatusError {
        code: 500,
        message,
        ..StatusError::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_hop_headers_stop_here() {
        let mut headers = HeaderMap::new();
        for name in ["authorization", "connection", "upgrade", "accept"] {
            headers.insert(name, HeaderValue::from_static("x"));
        }
        clean(&mut headers);
        assert_eq!(
            headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["accept"]
        );
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        let mut headers = HeaderMap::new();
        headers.insert("upgrade", HeaderValue::from_static("websocket"));
        assert!(!is_upgrade(&headers));
        headers.insert("connection", HeaderValue::from_static("keep-alive, Upgrade"));
        assert!(is_upgrade(&headers));
    }
}
