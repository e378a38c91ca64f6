//! Connections to the endpoint, with TLS or without.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::ArgMatches;
use component_base::tls::{ClientConfigHandle, ClientTls, Pem};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

pub struct Target {
    endpoint: String,
    tls: Option<Arc<ClientConfigHandle>>,
}

impl Target {
    pub fn from_args(args: &ArgMatches) -> Result<Target> {
        let file = |name: &str| {
            args.get_one::<String>(name)
                .map(|path| Pem::File(PathBuf::from(path)))
        };
        let endpoint = args.get_one::<String>("endpoint").cloned().unwrap_or_default();
        if !endpoint.starts_with("https://") {
            return Ok(Target { endpoint, tls: None });
        }
        let cert = file("cert").zip(file("key"));
        let tls = ClientTls {
            ca: file("cacert"),
            cert,
            insecure: false,
            server_name: None,
            alpn: vec![b"h2".to_vec()],
        };
        Ok(Target {
            endpoint,
            tls: Some(Arc::new(tls.load()?)),
        })
    }

    pub async fn channel(&self) -> Result<Channel> {
        // The connector speaks TLS itself: to tonic the transport is plain.
        let plain = self.endpoint.replacen("https://", "http://", 1);
        let endpoint = Endpoint::from_shared(plain)?
            .tcp_nodelay(true)
            .initial_stream_window_size(8 << 20)
            .initial_connection_window_size(16 << 20);
        let tls = self.tls.clone();
        let connector = service_fn(move |uri: Uri| connect(uri, tls.clone()));
        endpoint
            .connect_with_connector(connector)
            .await
            .with_context(|| self.endpoint.clone())
    }

    pub async fn channels(&self, count: usize) -> Result<Vec<Channel>> {
        let mut channels = Vec::with_capacity(count);
        for _ in 0..count {
            channels.push(self.channel().await?);
        }
        Ok(channels)
    }
}

type Stream = TokioIo<Box<dyn Io>>;

trait Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Io for T {}

async fn connect(uri: Uri, tls: Option<Arc<ClientConfigHandle>>) -> Result<Stream> {
    let authority = uri.authority().context("the endpoint has no address")?.clone();
    let stream = TcpStream::connect(authority.as_str()).await?;
    stream.set_nodelay(true)?;
    let stream: Box<dyn Io> = match tls {
        None => Box::new(stream),
        Some(tls) => {
            let name = ServerName::try_from(authority.host().to_owned())?;
            Box::new(TlsConnector::from(tls.current()).connect(name, stream).await?)
        }
    };
    Ok(TokioIo::new(stream))
}
