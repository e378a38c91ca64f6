//! Connections to backends: the address is checked after it was resolved, and the checked one is dialed.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Connecting to a backend that does not answer.
const CONNECT_DEADLINE: Duration = Duration::from_secs(30);

pub trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

pub type Connection = Pin<Box<dyn Stream>>;

/// Where to connect, and what may be there.
#[derive(Clone)]
pub struct Target {
    pub host: String,
    pub port: u16,
    pub tls: Option<Arc<ClientConfig>>,
    /// Refuses loopback, link-local, multicast and unspecified addresses: a name that an outsider chose must not lead
    /// to this host's own services.
    pub public_only: bool,
}

impl Target {
    /// `host:port`, with brackets around an IPv6 address.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    pub async fn connect(&self) -> Result<Connection, DialError> {
        let timeout = || self.failed(&"i/o timeout");
        tokio::time::timeout(CONNECT_DEADLINE, self.open())
            .await
            .map_err(|_| timeout())?
    }

    async fn open(&self) -> Result<Connection, DialError> {
        let address = self.resolve().await?;
        let stream = TcpStream::connect(address).await.map_err(|e| match e.kind() {
            io::ErrorKind::ConnectionRefused => self.failed(&"connect: connection refused"),
            _ => self.failed(&e),
        })?;
        stream.set_nodelay(true).map_err(|e| self.failed(&e))?;
        let Some(tls) = &self.tls else {
            return Ok(Box::pin(stream));
        };
        let name = ServerName::try_from(self.host.clone()).map_err(|e| DialError::Tls(e.to_string()))?;
        let connected = TlsConnector::from(tls.clone()).connect(name, stream).await;
        Ok(Box::pin(connected.map_err(|e| DialError::Tls(e.to_string()))?))
    }

    async fn resolve(&self) -> Result<SocketAddr, DialError> {
        let mut addresses = tokio::net::lookup_host((self.host.as_str(), self.port))
            .await
            .map_err(|e| self.failed(&e))?;
        let first = addresses
            .next()
            .ok_or_else(|| self.failed(&"lookup: no such host"))?;
        if self.public_only && !is_public(first.ip()) {
            return Err(DialError::NotAllowed);
        }
        Ok(first)
    }

    fn failed(&self, reason: &dyn fmt::Display) -> DialError {
        DialError::Connect {
            authority: self.authority(),
            reason: reason.to_string(),
        }
    }
}

/// In the words of Go's dialer, which people search for.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("address not allowed")]
    NotAllowed,
    #[error("dial tcp {authority}: {reason}")]
    Connect { authority: String, reason: String },
    #[error("tls: {0}")]
    Tls(String),
}

/// Go's `IsGlobalUnicast`: private ranges count as public here.
pub fn is_public(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some_and(|v4| !is_public(IpAddr::V4(v4)))
        }
    };
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_others_are_public() {
        for (ip, want) in [
            ("10.0.0.1", true),
            ("192.168.1.1", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("::1", false),
            ("fe80::1", false),
            ("fd00::1", true),
            ("::ffff:127.0.0.1", false),
        ] {
            assert_eq!(is_public(ip.parse().expect("an address")), want, "{ip}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_home_is_not_dialed() {
        let target = Target {
            host: "localhost".into(),
            port: 9,
            tls: None,
            public_only: true,
        };
        let error = target.connect().await.err().expect("refused");
        assert_eq!(error.to_string(), "address not allowed");
    }
}
