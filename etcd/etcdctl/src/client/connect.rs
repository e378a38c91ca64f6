//! The connection under a client. All endpoints are tried, each a moment after the one before, and the first that answers
//! serves every call until it fails; then the others are tried before it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use component_base::tls::alpn;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::service_fn;

use super::endpoint::{Address, Credentials, Endpoint, authority};
use super::greeting::{Greeted, Listening};
use super::{Config, Error, tls};

/// Between the starts of two attempts: a dead endpoint delays the next this long, not for its own timeout.
const STAGGER: Duration = Duration::from_millis(100);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// Well under gRPC's 120 s: a person waits here.
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// gRPC's `minConnectTimeout`.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);
/// grpc-go raises shorter keepalive times to this; servers close connections that ping more often.
const MIN_PING: Duration = Duration::from_secs(10);

pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// With grpc-go's words.
#[derive(Clone, Debug, thiserror::Error)]
#[error("connection error: desc = \"{0}\"")]
pub struct DialError(String);

impl DialError {
    fn transport(text: impl std::fmt::Display) -> Self {
        DialError(format!("transport: {text}"))
    }
}

pub struct Connector {
    targets: Vec<Target>,
    names: Vec<String>,
    keepalive: (Duration, Duration),
    state: tokio::sync::Mutex<State>,
    last_error: parking_lot::Mutex<Option<DialError>>,
}

#[derive(Default)]
struct State {
    channel: Option<Open>,
    /// The endpoint whose connection failed last: tried after all others.
    failed: Option<usize>,
}

/// The connection in use.
#[derive(Clone)]
pub struct Open {
    index: usize,
    pub channel: Channel,
    greeted: Greeted,
}

#[derive(Clone)]
struct Target {
    endpoint: Endpoint,
    tls: Option<Arc<ClientConfig>>,
}

impl Connector {
    pub fn new(config: &Config) -> Result<Connector, Error> {
        let offered = tls::load(&config.secure, alpn::H2)?;
        let target = |name: &String| {
            let endpoint = Endpoint::parse(name);
            let tls = match endpoint.credentials {
                Credentials::Drop => None,
                Credentials::Optional => offered.clone(),
                Credentials::Require => Some(offered.clone().map_or_else(|| tls::system(alpn::H2), Ok)?),
            };
            Ok(Target { endpoint, tls })
        };
        Ok(Connector {
            targets: config
                .endpoints
                .iter()
                .map(target)
                .collect::<Result<_, Error>>()?,
            names: config.endpoints.clone(),
            keepalive: (config.keepalive_time.max(MIN_PING), config.keepalive_timeout),
            state: tokio::sync::Mutex::default(),
            last_error: parking_lot::Mutex::new(None),
        })
    }

    pub fn authority(&self) -> &str {
        self.names.first().map_or("", |name| authority(name))
    }

    pub fn last_error(&self) -> Option<DialError> {
        self.last_error.lock().clone()
    }

    /// Waits until some endpoint answers. Callers bound it by their deadline.
    pub async fn open(&self) -> Open {
        let mut state = self.state.lock().await;
        if let Some(open) = &state.channel {
            return open.clone();
        }
        let mut backoff = FIRST_BACKOFF;
        loop {
            if let Some(open) = self.race(state.failed).await {
                state.channel = Some(open.clone());
                return open;
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    /// After an exchange. A connection that failed is not given to the next call, nor one to a member that cannot serve.
    /// True when the server never greeted us: whatever listens there has taken no request.
    pub async fn judge(&self, open: &Open, failure: Option<&Status>) -> bool {
        let greeted = open.greeted.get();
        if greeted {
            *self.last_error.lock() = None;
        }
        let Some(status) = failure else { return false };
        if status.code() != Code::Unavailable && greeted {
            return false;
        }
        if !greeted {
            *self.last_error.lock() = Some(DialError("error reading server preface: EOF".to_owned()));
        }
        let mut state = self.state.lock().await;
        if state
            .channel
            .as_ref()
            .is_some_and(|current| current.greeted.is(&open.greeted))
        {
            state.channel = None;
            state.failed = Some(open.index);
        }
        !greeted
    }

    async fn race(&self, failed: Option<usize>) -> Option<Open> {
        let others = (0..self.targets.len()).filter(|index| Some(*index) != failed);
        let order = others.chain(failed).enumerate();
        let attempts: FuturesUnordered<_> = order
            .map(|(place, index)| async move {
                tokio::time::sleep(STAGGER * place as u32).await;
                let dialed = tokio::time::timeout(DIAL_TIMEOUT, self.dial(index)).await;
                dialed.unwrap_or_else(|_| Err(DialError::transport("dial timeout")))
            })
            .collect();
        let mut attempts = std::pin::pin!(attempts);
        while let Some(dialed) = attempts.next().await {
            match dialed {
                Ok(open) => return Some(open),
                Err(error) => *self.last_error.lock() = Some(error),
            }
        }
        None
    }

    async fn dial(&self, index: usize) -> Result<Open, DialError> {
        let target = self.targets[index].clone();
        let failed = |error| DialError::transport(format!("Error while dialing: {error}"));
        let (interval, timeout) = self.keepalive;
        let endpoint = tonic::transport::Endpoint::from_shared(target.uri())
            .map_err(failed)?
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(timeout);
        let greeted = Greeted::default();
        let first = target.stream().await?;
        let held = Arc::new(parking_lot::Mutex::new(Some(first)));
        let seen = greeted.clone();
        let connector = service_fn(move |_| {
            let (held, target, seen) = (held.clone(), target.clone(), seen.clone());
            async move {
                let ready = held.lock().take();
                let stream = match ready {
                    Some(stream) => stream,
                    None => target.stream().await?,
                };
                Ok::<_, DialError>(TokioIo::new(Listening::new(stream, seen)))
            }
        });
        let channel = endpoint.connect_with_connector(connector).await.map_err(failed)?;
        Ok(Open {
            index,
            channel,
            greeted,
        })
    }
}

impl Target {
    fn uri(&self) -> String {
        match &self.endpoint.address {
            Address::Tcp(authority) => format!("http://{authority}"),
            Address::Unix(_) => "http://localhost".to_owned(),
        }
    }

    async fn stream(&self) -> Result<Box<dyn Io>, DialError> {
        let (plain, host) = self.plain().await?;
        let Some(config) = &self.tls else { return Ok(plain) };
        let refused = |text: String| DialError::transport(format!("authentication handshake failed: {text}"));
        let name = ServerName::try_from(host).map_err(|error| refused(error.to_string()))?;
        let handshake = tokio_rustls::TlsConnector::from(config.clone())
            .connect(name, plain)
            .await;
        let stream = handshake.map_err(|error| refused(handshake_text(&error)))?;
        Ok(Box::new(stream))
    }

    async fn plain(&self) -> Result<(Box<dyn Io>, String), DialError> {
        match &self.endpoint.address {
            Address::Tcp(authority) => {
                let address = Endpoint::host_port(authority);
                let dialed = TcpStream::connect(&address).await;
                let stream = dialed.map_err(|error| dial_error("tcp", &address, &error))?;
                // Latency matters more than packets for a tool that sends one request.
                stream.set_nodelay(true).ok();
                Ok((Box::new(stream), Endpoint::host(authority).to_owned()))
            }
            Address::Unix(path) => {
                let dialed = UnixStream::connect(path).await;
                let stream =
                    dialed.map_err(|error| dial_error("unix", &path.display().to_string(), &error))?;
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
                let name = name.unwrap_or_default();
                Ok((Box::new(stream), Endpoint::host(&name).to_owned()))
            }
        }
    }
}

fn handshake_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        _ => component_base::tls::describe_refusal(error),
    }
}

fn dial_error(network: &str, address: &str, error: &io::Error) -> DialError {
    DialError::transport(format!(
        "Error while dialing: dial {network} {address}: connect: {}",
        errno_text(error)
    ))
}

/// The kernel's words alone, as Go prints an errno.
pub fn errno_text(error: &io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = words.chars();
    match (error.raw_os_error(), chars.next()) {
        (Some(_), Some(first)) => first.to_lowercase().chain(chars).collect(),
        _ => text,
    }
}
