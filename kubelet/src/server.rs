//! The kubelet's own API: TLS, who asks ([`auth`]), may they, and then logs ([`logs`]), streams ([`streams`]), pods, stats ([`stats`]), health, metrics.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use client::Client;
use component_base::drain::Drain;
use component_base::flags::Flags;
use component_base::health::Health;
use component_base::http as reply;
use component_base::http::Body;
use component_base::serve::{self, DebugRoutes, Limits};
use component_base::tls::{ClientAuth, Pem, ServerTls, parse_cipher_suites, parse_min_version, self_signed};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use crate::kubelet::Kubelet;
use crate::kubelet_config::KubeletConfiguration;
use crate::pod::PodExt;
use crate::sync_loop::Event;

mod auth;
mod logs;
mod node_logs;
pub mod stats;
mod streams;

pub struct Setup<'a> {
    pub config: &'a KubeletConfiguration,
    pub flags: &'a Flags,
    pub kubelet: &'a Arc<Kubelet>,
    pub client: Option<&'a Client>,
    pub health: &'a Health,
    pub tx: &'a mpsc::UnboundedSender<Event>,
    pub node_name: &'a str,
    pub drain: &'a Drain,
}

/// Ports are bound when this returns.
pub fn start(setup: &Setup<'_>) -> Result<()> {
    let Setup {
        config,
        flags,
        kubelet,
        client,
        health,
        tx,
        node_name,
        drain,
    } = *setup;
    let configz = serve::configz("kubeletconfig", config);
    let debug = DebugRoutes::new("kubelet", health, configz).flags(flags);
    let auth = auth::Auth::new(config, client.cloned(), node_name);
    let server = Arc::new(Server {
        kubelet: kubelet.clone(),
        tx: tx.clone(),
        debug: debug.clone(),
        node_name: node_name.to_string(),
        auth,
    });
    if config.healthz_port > 0 {
        let listener = serve::bind(format!(
            "{}:{}",
            bracketed(&config.healthz_bind_address),
            config.healthz_port
        ))
        .context("--healthz-port")?;
        let health = health.clone();
        let handler = serve::handler(move |request: Request<Incoming>| {
            let answer = health.respond(request.uri().path(), request.uri().query());
            async move { answer.unwrap_or_else(not_found) }
        });
        tokio::spawn(serve::serve(
            listener,
            None,
            handler,
            Limits::default(),
            drain.clone(),
        ));
    }
    if config.read_only_port > 0 {
        let listener = serve::bind(format!(
            "{}:{}",
            bracketed(&config.address),
            config.read_only_port
        ))
        .context("readOnlyPort")?;
        let server = server.clone();
        let handler = serve::handler(move |request| {
            let server = server.clone();
            async move { server.read_only(request).await }
        });
        tokio::spawn(serve::serve(
            listener,
            None,
            handler,
            Limits::default(),
            drain.clone(),
        ));
    }
    if config.enable_server {
        let tls = tls(config, flags, node_name)?
            .load()
            .context("the kubelet's serving certificate")?;
        let listener =
            serve::bind(format!("{}:{}", bracketed(&config.address), config.port)).context("--port")?;
        let handler = serve::handler(move |request| {
            let server = server.clone();
            async move { server.handle(request).await }
        });
        tokio::spawn(serve::serve(
            listener,
            Some(tls),
            handler,
            Limits::default(),
            drain.clone(),
        ));
    }
    Ok(())
}

fn bracketed(ip: &str) -> String {
    if ip.contains(':') {
        format!("[{ip}]")
    } else {
        ip.to_string()
    }
}

fn tls(config: &KubeletConfiguration, flags: &Flags, node_name: &str) -> Result<ServerTls> {
    let (cert, key) = if config.tls_cert_file.is_empty() {
        self_signed(flags.string("cert-dir"), "kubelet", node_name, &[])?
    } else {
        let file = |path: &String| Pem::File(path.into());
        (file(&config.tls_cert_file), file(&config.tls_private_key_file))
    };
    let mut tls = ServerTls::from_pem(cert, key);
    if !config.authentication.x509.client_ca_file.is_empty() {
        tls = tls.client_ca(&config.authentication.x509.client_ca_file, ClientAuth::Optional);
    }
    // Streams are upgrades, which HTTP/2 does not have.
    tls.alpn = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if !config.tls_min_version.is_empty() {
        tls.min_version = parse_min_version(&config.tls_min_version)?;
    }
    if !config.tls_cipher_suites.is_empty() {
        parse_cipher_suites(&config.tls_cipher_suites)?;
        tls.cipher_suites.clone_from(&config.tls_cipher_suites);
    }
    Ok(tls)
}

pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| path.display().to_string())?;
    file.write_all(bytes).with_context(|| path.display().to_string())
}

fn not_found() -> Response<Body> {
    reply::text(StatusCode::NOT_FOUND, "404 page not found\n")
}

pub struct Server {
    kubelet: Arc<Kubelet>,
    tx: mpsc::UnboundedSender<Event>,
    debug: DebugRoutes,
    node_name: String,
    auth: auth::Auth,
}

impl Server {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        match self.auth.check(&request).await {
            Ok(()) => self.route(request).await,
            Err(refusal) => refusal,
        }
    }

    /// Nothing that changes anything or shows what a container says.
    async fn read_only(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        let open = ["/pods", "/metrics", "/stats", "/healthz"]
            .iter()
            .any(|p| path == *p || path.starts_with(&format!("{p}/")));
        if open && request.method() == Method::GET {
            self.route(request).await
        } else {
            not_found()
        }
    }

    async fn route(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_string();
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        match parts.as_slice() {
            ["pods"] => self.pods().await,
            ["runningpods"] => self.running_pods(),
            ["containerLogs", namespace, pod, container] => {
                self.container_logs(namespace, pod, container, request.uri().query())
                    .await
            }
            ["exec" | "attach", namespace, pod, container]
            | ["exec" | "attach", namespace, pod, _, container] => {
                let target = streams::Target {
                    kind: parts[0],
                    namespace,
                    pod,
                    container,
                };
                self.stream(request, &target).await
            }
            ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
                let target = streams::Target {
                    kind: "portForward",
                    namespace,
                    pod,
                    container: "",
                };
                self.stream(request, &target).await
            }
            ["run", namespace, pod, container] | ["run", namespace, pod, _, container]
                if request.method() == Method::POST =>
            {
                self.run_command(namespace, pod, container, request.uri().query())
                    .await
            }
            ["stats", "summary"] => reply::json(
                StatusCode::OK,
                &stats::summary(&self.kubelet, &self.node_name).await,
            ),
            ["metrics", "resource"] => metrics_text(stats::resource_metrics(&self.kubelet).await),
            ["metrics", "cadvisor"] => metrics_text(stats::cadvisor_metrics(&self.kubelet).await),
            ["metrics", "probes"] => metrics_text(probe_metrics()),
            ["logs", rest @ ..] => node_logs::serve(rest).await,
            _ => self
                .debug
                .respond(request.method(), &path, request.uri().query())
                .unwrap_or_else(not_found),
        }
    }

    async fn all_pods(&self) -> Vec<Arc<Pod>> {
        let (tx, rx) = oneshot::channel();
        if self.tx.send(Event::Pods(tx)).is_err() {
            return Vec::new();
        }
        rx.await.unwrap_or_default()
    }

    async fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.all_pods()
            .await
            .into_iter()
            .find(|p| p.namespace() == namespace && p.name() == name)
    }

    async fn pods(&self) -> Response<Body> {
        let items: Vec<Pod> = self
            .all_pods()
            .await
            .iter()
            .map(|p| self.with_status(p))
            .collect();
        reply::json(
            StatusCode::OK,
            &json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}),
        )
    }

    fn with_status(&self, pod: &Pod) -> Pod {
        let mut pod = pod.clone();
        if let Some(status) = self.kubelet.statuses.get(&pod.uid()) {
            pod.status = Some(status);
        }
        pod
    }

    fn running_pods(&self) -> Response<Body> {
        let items: Vec<_> = self
            .kubelet
            .pleg
            .cache
            .all()
            .iter()
            .filter(|s| s.is_running())
            .map(|s| {
                let containers: Vec<_> = s.running().map(|c| json!({"name": c.name, "image": c.image_ref})).collect();
                json!({"metadata": {"name": s.name, "namespace": s.namespace, "uid": s.uid.as_str()}, "spec": {"containers": containers}, "status": {}})
            })
            .collect();
        reply::json(
            StatusCode::OK,
            &json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}),
        )
    }
}

fn metrics_text(text: String) -> Response<Body> {
    reply::typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
}

fn probe_metrics() -> String {
    let all = component_base::metrics::render();
    let own = all.lines().filter(|l| l.contains("prober_probe"));
    own.map(|l| format!("{l}\n")).collect()
}

/// The values of a query parameter, decoded.
pub fn query_values(query: Option<&str>, name: &str) -> Vec<String> {
    let pairs = query
        .unwrap_or_default()
        .split('&')
        .filter_map(|p| p.split_once('=').or(Some((p, ""))));
    pairs
        .filter(|(k, _)| *k == name)
        .map(|(_, v)| percent_decode(v))
        .collect()
}

pub fn query_value(query: Option<&str>, name: &str) -> Option<String> {
    query_values(query, name).into_iter().next()
}

/// Go's booleans; `1` is what kubectl sends.
pub fn query_bool(query: Option<&str>, name: &str) -> bool {
    query_value(query, name).is_some_and(|v| matches!(v.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = (bytes[i] == b'%').then(|| bytes.get(i + 1..i + 3)).flatten();
        let decoded = hex.and_then(|h| u8::from_str_radix(std::str::from_utf8(h).ok()?, 16).ok());
        match (decoded, bytes[i]) {
            (Some(byte), _) => {
                out.push(byte);
                i += 2;
            }
            (None, b'+') => out.push(b' '),
            (None, byte) => out.push(byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let q = Some("command=ls&command=-l%20a%2Bb&tty=1&empty=&x=a+b");
        assert_eq!(query_values(q, "command"), ["ls", "-l a+b"]);
        assert!(query_bool(q, "tty") && !query_bool(q, "stdin") && !query_bool(q, "empty"));
        assert_eq!(query_value(q, "x").as_deref(), Some("a b"));
    }
}
