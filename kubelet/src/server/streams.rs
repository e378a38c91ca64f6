//! exec, attach and port-forward: the runtime is asked for a stream's address and the client's upgrade is carried to it. No redirect is ever followed
//! or passed on, and a connection that was not upgraded is closed, not left open as a tunnel.

use component_base::http as reply;
use component_base::http::Body;
use cri::v1::{AttachRequest, ExecRequest, PortForwardRequest};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Server, query_bool, query_value, query_values};
use crate::pod::PodExt;

/// Of an answer that is no upgrade.
const MAX_ERROR_BODY: usize = 64 << 10;

pub struct Target<'a> {
    pub kind: &'a str,
    pub namespace: &'a str,
    pub pod: &'a str,
    pub container: &'a str,
}

impl Server {
    pub(super) async fn stream(&self, request: Request<Incoming>, target: &Target<'_>) -> Response<Body> {
        let url = match self.stream_url(target, request.uri().query()).await {
            Ok(url) => url,
            Err(response) => return response,
        };
        match proxy(request, &url).await {
            Ok(response) => response,
            Err(error) => {
                tracing::error!(
                    kind = target.kind,
                    pod = target.pod,
                    error,
                    "Error while proxying request"
                );
                reply::text(
                    StatusCode::BAD_GATEWAY,
                    &format!("error dialing backend: {error}"),
                )
            }
        }
    }

    async fn stream_url(&self, target: &Target<'_>, query: Option<&str>) -> Result<String, Response<Body>> {
        let missing = |what: &str| reply::text(StatusCode::NOT_FOUND, &format!("{what} does not exist\n"));
        let failed = |e: cri::Error| reply::text(StatusCode::INTERNAL_SERVER_ERROR, &e.message);
        let Some(pod) = self.find(target.namespace, target.pod).await else {
            return Err(missing(&format!("pod {:?}", target.pod)));
        };
        let status = self.kubelet.pleg.cache.get(&pod.uid());
        let runtime = &self.kubelet.manager.runtime;
        if target.kind == "portForward" {
            let sandbox = status
                .as_ref()
                .and_then(|s| s.ready_sandbox().map(|s| s.id.clone()));
            let pod_sandbox_id =
                sandbox.ok_or_else(|| missing(&format!("sandbox of pod {:?}", target.pod)))?;
            let port = query_values(query, "port")
                .iter()
                .filter_map(|p| p.parse().ok())
                .collect();
            return runtime
                .port_forward(PortForwardRequest { pod_sandbox_id, port })
                .await
                .map_err(failed);
        }
        let container = status.as_ref().and_then(|s| {
            s.running()
                .find(|c| c.name == target.container)
                .map(|c| c.id.clone())
        });
        let container_id = container.ok_or_else(|| {
            reply::text(
                StatusCode::NOT_FOUND,
                &format!("container not found ({:?})\n", target.container),
            )
        })?;
        let (tty, stdin) = (
            query_bool(query, "tty"),
            query_bool(query, "input") || query_bool(query, "stdin"),
        );
        let stdout = query_bool(query, "output") || query_bool(query, "stdout");
        // A terminal has one output.
        let stderr = !tty && (query_bool(query, "error") || query_bool(query, "stderr"));
        if !stdin && !stdout && !stderr {
            return Err(reply::text(
                StatusCode::BAD_REQUEST,
                "you must specify at least 1 of stdin, stdout, stderr",
            ));
        }
        let url = if target.kind == "exec" {
            let cmd = query_values(query, "command");
            runtime
                .exec(ExecRequest {
                    container_id,
                    cmd,
                    tty,
                    stdin,
                    stdout,
                    stderr,
                })
                .await
        } else {
            runtime
                .attach(AttachRequest {
                    container_id,
                    tty,
                    stdin,
                    stdout,
                    stderr,
                })
                .await
        };
        url.map_err(failed)
    }

    /// One command, its output as the answer.
    pub(super) async fn run_command(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        query: Option<&str>,
    ) -> Response<Body> {
        let found = self
            .find(namespace, pod)
            .await
            .and_then(|p| self.kubelet.pleg.cache.get(&p.uid()));
        let id = found.and_then(|s| s.running().find(|c| c.name == container).map(|c| c.id.clone()));
        let Some(id) = id else {
            return reply::text(
                StatusCode::NOT_FOUND,
                &format!("container not found ({container:?})\n"),
            );
        };
        let command = query_value(query, "cmd")
            .unwrap_or_default()
            .split(' ')
            .map(String::from)
            .collect();
        match self
            .kubelet
            .manager
            .runtime
            .exec_sync(&id, command, std::time::Duration::ZERO)
            .await
        {
            Ok(output) => reply::typed(
                StatusCode::OK,
                "text/plain",
                [output.stdout, output.stderr].concat(),
            ),
            Err(e) => reply::text(StatusCode::INTERNAL_SERVER_ERROR, &e.message),
        }
    }
}

async fn proxy(mut request: Request<Incoming>, url: &str) -> Result<Response<Body>, String> {
    let uri: http::Uri = url
        .parse()
        .map_err(|e| format!("the runtime's stream address {url:?}: {e}"))?;
    let host = uri
        .host()
        .ok_or("the runtime's stream address has no host")?
        .trim_matches(['[', ']'])
        .to_string();
    let port = uri.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host.as_str(), port))
        .await
        .map_err(|e| format!("{host}:{port}: {e}"))?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let handshake =
        hyper::client::conn::http1::handshake::<_, http_body_util::Empty<bytes::Bytes>>(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|e| e.to_string())?;
    tokio::spawn(async move {
        // Its end is the stream's end; a failure is seen by the two copies.
        let _ = connection.with_upgrades().await;
    });
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let mut outgoing = Request::builder().method(request.method()).uri(path);
    for (name, value) in request.headers().iter().filter(|(name, _)| is_forwarded(name)) {
        outgoing = outgoing.header(name, value);
    }
    outgoing = outgoing.header(http::header::HOST, uri.authority().map_or("", |a| a.as_str()));
    let outgoing = outgoing
        .body(http_body_util::Empty::new())
        .map_err(|e| e.to_string())?;
    let client_side = hyper::upgrade::on(&mut request);
    let mut answer = sender.send_request(outgoing).await.map_err(|e| e.to_string())?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(refused(answer).await);
    }
    let runtime_side = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        if let (Ok(client), Ok(runtime)) = futures_util::join!(client_side, runtime_side) {
            let (mut client, mut runtime) = (TokioIo::new(client), TokioIo::new(runtime));
            // Either side may leave in the middle: that is how streams end.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut runtime).await;
        }
    });
    let mut response = Response::new(reply::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer.headers().clone();
    Ok(response)
}

/// Credentials are for the kubelet, not for the runtime.
fn is_forwarded(name: &http::HeaderName) -> bool {
    *name != http::header::AUTHORIZATION
        && *name != http::header::HOST
        && *name != http::header::CONTENT_LENGTH
}

async fn refused(answer: Response<Incoming>) -> Response<Body> {
    if answer.status().is_redirection() {
        return reply::text(
            StatusCode::BAD_GATEWAY,
            "the container runtime answered with a redirect, which is not followed",
        );
    }
    let status = answer.status();
    let body = http_body_util::Limited::new(answer.into_body(), MAX_ERROR_BODY)
        .collect()
        .await;
    let mut response = reply::typed(
        status,
        "text/plain",
        body.map(|b| b.to_bytes()).unwrap_or_default(),
    );
    response
        .headers_mut()
        .insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    response
}
