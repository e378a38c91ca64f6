//! Connections to the endpoints, with TLS or without.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::ArgMatches;
use component_base::tls::{ClientConfigHandle, ClientTls, Pem};
use etcd_api::etcdserverpb::{StatusRequest, StatusResponse};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::grpc::Connection;

pub struct Target {
    endpoints: Vec<Endpoint>,
    tls: Option<Arc<ClientConfigHandle>>,
}

struct Endpoint {
    authority: String,
    tls: bool,
}

impl Target {
    pub fn from_args(args: &ArgMatches) -> Result<Target> {
        let file = |name: &str| {
            args.get_one::<String>(name)
                .map(|path| Pem::File(PathBuf::from(path)))
        };
        let urls = args.get_one::<String>("endpoints").cloned().unwrap_or_default();
        let endpoints: Vec<Endpoint> = urls.split(',').map(endpoint).collect::<Result<_>>()?;
        let tls = endpoints.iter().any(|endpoint| endpoint.tls).then(|| ClientTls {
            ca: file("cacert"),
            cert: file("cert").zip(file("key")),
            insecure: false,
            server_name: None,
            alpn: vec![b"h2".to_vec()],
        });
        Ok(Target {
            endpoints,
            tls: tls.map(ClientTls::load).transpose()?.map(Arc::new),
        })
    }

    /// Puts the leader first, so that a single client asks it, with whatever rival.
    pub async fn leader_first(&mut self) -> Result<()> {
        for (place, connection) in self.each().await?.iter().enumerate() {
            let status: StatusResponse = connection
                .unary("etcdserverpb.Maintenance/Status", &StatusRequest {})
                .await?;
            if status
                .header
                .is_some_and(|header| header.member_id == status.leader)
            {
                self.endpoints.swap(0, place);
            }
        }
        Ok(())
    }

    /// Connections go round the endpoints.
    pub async fn connections(&self, count: usize) -> Result<Vec<Connection>> {
        let mut connections = Vec::with_capacity(count);
        for endpoint in self.endpoints.iter().cycle().take(count) {
            connections.push(self.connect(endpoint).await?);
        }
        Ok(connections)
    }

    /// One to each endpoint.
    pub async fn each(&self) -> Result<Vec<Connection>> {
        self.connections(self.endpoints.len()).await
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<Connection> {
        let authority = &endpoint.authority;
        let stream = TcpStream::connect(authority)
            .await
            .with_context(|| authority.clone())?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Io> = match &self.tls {
            Some(tls) if endpoint.tls => {
                let host = authority
                    .rsplit_once(':')
                    .map_or(authority.as_str(), |(host, _)| host);
                let name = ServerName::try_from(host.to_owned())?;
                Box::new(TlsConnector::from(tls.current()).connect(name, stream).await?)
            }
            _ => Box::new(stream),
        };
        Connection::open(stream, authority).await
    }
}

fn endpoint(url: &str) -> Result<Endpoint> {
    let (scheme, authority) = url
        .split_once("://")
        .with_context(|| format!("{url:?} is not a URL such as https://127.0.0.1:2379"))?;
    Ok(Endpoint {
        authority: authority.to_owned(),
        tls: scheme == "https",
    })
}

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}
