//! Dialling etcd: several endpoints, optional TLS with client certificates that reload.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use component_base::tls::ClientConfigHandle;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Window of a connection and of a stream: a page of a thousand pods arrives without waiting for window updates.
const H2_WINDOW_BYTES: u32 = 8 << 20;

#[derive(Clone)]
pub struct Config {
    endpoints: Arc<Vec<Server>>,
    tls: Option<ClientConfigHandle>,
    /// The endpoint that worked last.
    current: Arc<AtomicUsize>,
}

#[derive(Clone, Debug, PartialEq)]
struct Server {
    host: String,
    port: u16,
    tls: bool,
}

impl Config {
    pub fn new(urls: &[String], tls: Option<ClientConfigHandle>) -> anyhow::Result<Config> {
        let endpoints = urls
            .iter()
            .map(|url| parse(url))
            .collect::<anyhow::Result<Vec<_>>>()?;
        if endpoints.is_empty() {
            bail!("--etcd-servers must be specified");
        }
        Ok(Config {
            endpoints: Arc::new(endpoints),
            tls,
            current: Arc::default(),
        })
    }

    /// Any endpoint needs TLS.
    pub fn wants_tls(urls: &[String]) -> bool {
        urls.iter().any(|url| url.starts_with("https://"))
    }

    pub(super) fn channel(&self) -> anyhow::Result<Channel> {
        let first = &self.endpoints[0];
        // The scheme is only the pseudo-header of the requests; `dial` decides on TLS by endpoint.
        let endpoint = Endpoint::from_shared(format!("http://{}:{}", bracketed(&first.host), first.port))?
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(H2_WINDOW_BYTES)
            .initial_connection_window_size(H2_WINDOW_BYTES)
            .tcp_nodelay(true);
        let config = self.clone();
        Ok(
            endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let config = config.clone();
                async move { config.dial().await.map(TokioIo::new) }
            })),
        )
    }

    async fn dial(&self) -> std::io::Result<Box<dyn Stream>> {
        let start = self.current.load(Ordering::Relaxed);
        let mut failure = None;
        for turn in 0..self.endpoints.len() {
            let at = (start + turn) % self.endpoints.len();
            match self.dial_one(&self.endpoints[at]).await {
                Ok(stream) => {
                    self.current.store(at, Ordering::Relaxed);
                    return Ok(stream);
                }
                Err(error) => {
                    let server = &self.endpoints[at];
                    tracing::warn!(endpoint = %format!("{}:{}", server.host, server.port), err = %error, "Cannot reach etcd");
                    failure = Some(error);
                }
            }
        }
        Err(failure.unwrap_or_else(|| std::io::Error::other("no etcd endpoints")))
    }

    async fn dial_one(&self, server: &Server) -> std::io::Result<Box<dyn Stream>> {
        let timed_out = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
        tokio::time::timeout(DIAL_TIMEOUT, self.open(server))
            .await
            .map_err(timed_out)?
    }

    async fn open(&self, server: &Server) -> std::io::Result<Box<dyn Stream>> {
        let tcp = TcpStream::connect((server.host.as_str(), server.port)).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = self.tls.as_ref().filter(|_| server.tls) else {
            return Ok(Box::new(tcp));
        };
        let name = ServerName::try_from(server.host.clone()).map_err(std::io::Error::other)?;
        let connector = tokio_rustls::TlsConnector::from(tls.current());
        Ok(Box::new(connector.connect(name, tcp).await?))
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

fn parse(url: &str) -> anyhow::Result<Server> {
    let full = if url.contains("://") {
        url.to_owned()
    } else {
        format!("http://{url}")
    };
    let uri: Uri = full
        .parse()
        .with_context(|| format!("--etcd-servers: {url:?} is not a URL"))?;
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        other => bail!("--etcd-servers: {url:?} has scheme {other:?}; use http:// or https://"),
    };
    let host = uri
        .host()
        .with_context(|| format!("--etcd-servers: {url:?} names no host"))?;
    Ok(Server {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: uri.port_u16().unwrap_or(2379),
        tls,
    })
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_or_bare_addresses() {
        let server = |host: &str, port, tls| Server {
            host: host.to_owned(),
            port,
            tls,
        };
        assert_eq!(
            parse("https://10.0.0.1:2379").unwrap(),
            server("10.0.0.1", 2379, true)
        );
        assert_eq!(parse("http://[::1]:1234").unwrap(), server("::1", 1234, false));
        assert_eq!(parse("127.0.0.1:2379").unwrap(), server("127.0.0.1", 2379, false));
        assert!(parse("unix:///run/etcd").is_err());
    }
}
