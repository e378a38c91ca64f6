//! One probe: HTTP, TCP, a command in the container, or gRPC health.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cri::Runtime;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, GRPCAction, HTTPGetAction, Pod, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;

use crate::runtime::env::expand;

/// Of an answer's body, for the event.
const MAX_BODY: usize = 10 << 10;
const MAX_REDIRECTS: usize = 10;
/// Of a command's output, for the event.
const MAX_OUTPUT: usize = 10 << 10;

pub enum Attempt {
    Success,
    Failure(String),
    /// The probe itself could not be made: it says nothing about the container.
    Errored(String),
}

pub struct Target<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub container_id: &'a str,
    pub pod_ip: Option<&'a str>,
}

pub struct Prober {
    runtime: Arc<dyn Runtime>,
    /// Probes do not verify certificates: a container's is its own affair.
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Prober {
    pub fn new(runtime: Arc<dyn Runtime>, tls: Option<Arc<rustls::ClientConfig>>) -> Self {
        Self { runtime, tls }
    }

    pub async fn attempt(&self, probe: &Probe, target: &Target<'_>, limit: Duration) -> Attempt {
        if let Some(exec) = &probe.exec {
            return self
                .exec(target, exec.command.clone().unwrap_or_default(), limit)
                .await;
        }
        let attempt = async {
            if let Some(action) = &probe.http_get {
                self.http_get(action, target).await
            } else if let Some(action) = &probe.tcp_socket {
                tcp(action, target).await
            } else if let Some(action) = &probe.grpc {
                grpc(action, target).await
            } else {
                Attempt::Errored("missing probe handler".into())
            }
        };
        let timed_out = || {
            Attempt::Failure(format!(
                "context deadline exceeded (no answer within {}s)",
                limit.as_secs()
            ))
        };
        tokio::time::timeout(limit, attempt)
            .await
            .unwrap_or_else(|_| timed_out())
    }

    async fn exec(&self, target: &Target<'_>, command: Vec<String>, limit: Duration) -> Attempt {
        let env = |name: &str| {
            target
                .container
                .env
                .iter()
                .flatten()
                .find(|e| e.name == name)
                .and_then(|e| e.value.clone())
        };
        let command = command.iter().map(|word| expand(word, &env)).collect();
        match self.runtime.exec_sync(target.container_id, command, limit).await {
            Ok(output) if output.exit_code == 0 => Attempt::Success,
            Ok(output) => {
                let mut text = output.stdout;
                text.extend(output.stderr);
                text.truncate(MAX_OUTPUT);
                Attempt::Failure(String::from_utf8_lossy(&text).into_owned())
            }
            Err(e) if e.is_deadline() => {
                Attempt::Failure(format!("command timed out after {}s", limit.as_secs()))
            }
            Err(e) => Attempt::Errored(e.to_string()),
        }
    }

    pub async fn http_get(&self, action: &HTTPGetAction, target: &Target<'_>) -> Attempt {
        let url = match url(action, target) {
            Ok(url) => url,
            Err(e) => return Attempt::Errored(e),
        };
        let headers: Vec<(String, String)> = action
            .http_headers
            .iter()
            .flatten()
            .map(|h| (h.name.clone(), h.value.clone()))
            .collect();
        match self.get(url, &headers).await {
            Ok((status, _)) if (200..400).contains(&status) => Attempt::Success,
            Ok((status, _)) => Attempt::Failure(format!("HTTP probe failed with statuscode: {status}")),
            Err(e) => Attempt::Failure(e),
        }
    }

    /// Follows redirects on the same host; one that leads elsewhere is taken as it is.
    async fn get(&self, mut url: http::Uri, headers: &[(String, String)]) -> Result<(u16, Bytes), String> {
        for _ in 0..MAX_REDIRECTS {
            let (status, location, body) = self
                .get_once(&url, headers)
                .await
                .map_err(|e| format!("Get {:?}: {e}", url.to_string()))?;
            let next = location
                .filter(|_| (300..400).contains(&status))
                .and_then(|l| resolve(&url, &l));
            match next {
                Some(next) if next.host() == url.host() => url = next,
                _ => return Ok((status, body)),
            }
        }
        Err(format!("stopped after {MAX_REDIRECTS} redirects"))
    }

    async fn get_once(
        &self,
        url: &http::Uri,
        headers: &[(String, String)],
    ) -> Result<(u16, Option<String>, Bytes), String> {
        let secure = url.scheme_str() == Some("https");
        let host = url.host().unwrap_or_default();
        let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = connect(host, port).await?;
        let request = request(url, headers)?;
        let response = if secure {
            let config = self.tls.clone().ok_or("no TLS configuration")?;
            let name =
                ServerName::try_from(host.trim_matches(['[', ']']).to_string()).map_err(|e| e.to_string())?;
            let stream = tokio_rustls::TlsConnector::from(config)
                .connect(name, stream)
                .await
                .map_err(|e| e.to_string())?;
            exchange(TokioIo::new(stream), request).await?
        } else {
            exchange(TokioIo::new(stream), request).await?
        };
        let status = response.status().as_u16();
        let location = response
            .headers()
            .get(http::header::LOCATION)
            .and_then(|l| l.to_str().ok())
            .map(String::from);
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        // A body longer than what an event shows is no failure.
        Ok((status, location, body.map(|b| b.to_bytes()).unwrap_or_default()))
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let host = host.trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|e| format!("dial tcp {host}:{port}: connect: {e}"))?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    Ok(stream)
}

fn request(url: &http::Uri, headers: &[(String, String)]) -> Result<http::Request<Empty<Bytes>>, String> {
    let path = url.path_and_query().map_or("/", |p| p.as_str());
    let has = |name: &str| headers.iter().any(|(k, _)| k.eq_ignore_ascii_case(name));
    let mut builder = http::Request::get(path);
    if !has("host") {
        builder = builder.header("Host", url.authority().map_or("", |a| a.as_str()));
    }
    if !has("user-agent") {
        builder = builder.header("User-Agent", "kube-probe/1.36");
    }
    if !has("accept") {
        builder = builder.header("Accept", "*/*");
    }
    for (name, value) in headers.iter().filter(|(_, v)| !v.is_empty()) {
        builder = builder.header(name, value);
    }
    builder
        .header("Connection", "close")
        .body(Empty::new())
        .map_err(|e| e.to_string())
}

async fn exchange<S>(
    stream: TokioIo<S>,
    request: http::Request<Empty<Bytes>>,
) -> Result<http::Response<hyper::body::Incoming>, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(|e| e.to_string())
}

fn url(action: &HTTPGetAction, target: &Target<'_>) -> Result<http::Uri, String> {
    let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let host = host(action.host.as_deref(), target)?;
    let port = port(&action.port, target.container)?;
    let path = action.path.as_deref().unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{scheme}://{host}:{port}{slash}{path}")
        .parse()
        .map_err(|e: http::uri::InvalidUri| e.to_string())
}

fn resolve(base: &http::Uri, location: &str) -> Option<http::Uri> {
    if location.starts_with("http://") || location.starts_with("https://") {
        return location.parse().ok();
    }
    let slash = if location.starts_with('/') { "" } else { "/" };
    format!("{}://{}{slash}{location}", base.scheme_str()?, base.authority()?)
        .parse()
        .ok()
}

fn host(wanted: Option<&str>, target: &Target<'_>) -> Result<String, String> {
    let host = wanted
        .filter(|h| !h.is_empty())
        .or(target.pod_ip)
        .ok_or("the pod has no IP yet")?;
    Ok(match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => host.to_string(),
    })
}

/// A number, or the name of one of the container's ports.
pub fn port(wanted: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match wanted {
        IntOrString::Int(n) => *n,
        IntOrString::String(name) => match container
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_ref() == Some(name))
        {
            Some(port) => port.container_port,
            None => name
                .parse()
                .map_err(|_| format!("couldn't find port named {name:?}"))?,
        },
    };
    u16::try_from(number)
        .ok()
        .filter(|p| *p > 0)
        .ok_or_else(|| format!("invalid port number: {number}"))
}

async fn tcp(action: &TCPSocketAction, target: &Target<'_>) -> Attempt {
    let place =
        host(action.host.as_deref(), target).and_then(|h| Ok((h, port(&action.port, target.container)?)));
    match place {
        Err(e) => Attempt::Errored(e),
        Ok((host, port)) => match connect(&host, port).await {
            Ok(_) => Attempt::Success,
            Err(e) => Attempt::Failure(e),
        },
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

async fn grpc(action: &GRPCAction, target: &Target<'_>) -> Attempt {
    let Ok(host) = host(None, target) else {
        return Attempt::Errored("the pod has no IP yet".into());
    };
    match grpc_check(&host, action).await {
        Ok(SERVING) => Attempt::Success,
        Ok(status) => Attempt::Failure(format!("service unhealthy (responded with {status:?})")),
        Err(e) => Attempt::Failure(e),
    }
}

async fn grpc_check(host: &str, action: &GRPCAction) -> Result<i32, String> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{host}:{}", action.port))
        .map_err(|e| e.to_string())?;
    let refused =
        |e: &dyn std::error::Error| format!("timeout: failed to connect service {host}:{}: {e}", action.port);
    let channel = endpoint.connect().await.map_err(|e| refused(&e))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|e| refused(&e))?;
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let request = HealthCheckRequest {
        service: action.service.clone().unwrap_or_default(),
    };
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let answer = client.unary(tonic::Request::new(request), path, codec).await;
    Ok(answer
        .map_err(|s| format!("rpc error: code = {:?} desc = {}", s.code(), s.message()))?
        .into_inner()
        .status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri::fake::FakeRuntime;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn server(answer: &'static str) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = [0; 1024];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        port
    }

    async fn attempt(probe: serde_json::Value, runtime: FakeRuntime) -> Attempt {
        let (pod, container) = (Pod::default(), Container::default());
        let target = Target {
            pod: &pod,
            container: &container,
            container_id: "id",
            pod_ip: Some("127.0.0.1"),
        };
        let probe: Probe = serde_json::from_value(probe).unwrap();
        Prober::new(Arc::new(runtime), None)
            .attempt(&probe, &target, Duration::from_secs(1))
            .await
    }

    #[tokio::test]
    async fn an_http_answer_below_400_is_a_success() {
        let ok = server("HTTP/1.1 204 No Content\r\n\r\n").await;
        let bad = server("HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n").await;
        let get = |port| serde_json::json!({"httpGet": {"port": port, "path": "/x"}});
        assert!(matches!(
            attempt(get(ok), FakeRuntime::new()).await,
            Attempt::Success
        ));
        let Attempt::Failure(text) = attempt(get(bad), FakeRuntime::new()).await else {
            panic!()
        };
        assert_eq!(text, "HTTP probe failed with statuscode: 503");
    }

    #[tokio::test]
    async fn a_closed_port_is_a_failure_and_an_open_one_a_success() {
        let port = server("").await;
        assert!(matches!(
            attempt(
                serde_json::json!({"tcpSocket": {"port": port}}),
                FakeRuntime::new()
            )
            .await,
            Attempt::Success
        ));
        let closed = {
            std::net::TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port()
        };
        let Attempt::Failure(text) = attempt(
            serde_json::json!({"tcpSocket": {"port": closed}}),
            FakeRuntime::new(),
        )
        .await
        else {
            panic!()
        };
        assert!(text.contains("Connection refused"), "{text}");
    }

    #[tokio::test]
    async fn a_command_is_judged_by_its_exit_code() {
        let runtime = FakeRuntime::new();
        runtime.on_exec(Arc::new(|_, command| {
            if command[0] == "true" {
                (0, String::new())
            } else {
                (1, "no".into())
            }
        }));
        let exec = |word: &str| serde_json::json!({"exec": {"command": [word]}});
        assert!(matches!(
            attempt(exec("true"), runtime.clone()).await,
            Attempt::Success
        ));
        assert!(matches!(attempt(exec("false"), runtime).await, Attempt::Failure(text) if text == "no"));
    }
}
