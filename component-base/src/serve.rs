//! Serving HTTP/1.1 and HTTP/2 on one port, with TLS or without.
//!
//! A connection's way: accept (capped) -> TLS handshake with a deadline -> protocol by ALPN, or by the first bytes on
//! plain ports -> requests with their [`ConnInfo`] to the handler, past a guard that looks at HTTP/2's frames -> GOAWAY when the drain
//! begins, and the end when what was asked for before is answered, or with a grace.

mod authority;
mod catch;
mod connection;
mod debug;
mod detach;
mod frames;
mod guarded;
mod socket;
mod threads;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::sync::Semaphore;

use crate::drain::Drain;
use crate::http::Body;
use crate::tls::{ClientIdentity, ServerConfigHandle};

use socket::Socket;

pub use debug::{DebugRoutes, configz, debug_routes};
pub use detach::{Detach, Taken};
pub use socket::{Listener, SocketOptions, bind, bind_unix, bind_with};
pub use threads::Threads;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
pub type Handler = Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// A connection that did not finish its handshake by then is dropped: half-open ones must not become memory.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// For the head of an HTTP/1 request, and for the first bytes on a plain port. Upstream's ReadHeaderTimeout.
pub const HEADER_DEADLINE: Duration = Duration::from_secs(32);
pub const MAX_CONNECTIONS: usize = 10_000;
/// Upstream's `--http2-max-streams-per-connection` when it is 0.
pub const MAX_H2_STREAMS: u32 = 250;
/// Total size of the headers of a request.
pub const MAX_HEADER_BYTES: u32 = 64 * 1024;
/// How long connections may finish what they began after the drain did.
pub const CONNECTION_GRACE: Duration = Duration::from_secs(20);
/// A silent HTTP/2 peer is pinged after this time, and dropped when it does not answer.
pub const H2_PING_INTERVAL: Duration = Duration::from_secs(30);
pub const H2_PING_TIMEOUT: Duration = Duration::from_secs(15);

/// Bounds of one listener.
#[derive(Clone, Debug)]
pub struct Limits {
    pub max_connections: usize,
    pub max_h2_streams: u32,
    pub handshake_deadline: Duration,
    pub header_deadline: Duration,
    pub connection_grace: Duration,
    /// Interval and timeout; None for no pings.
    pub h2_ping: Option<(Duration, Duration)>,
    /// None where clients ping as they like.
    pub h2_ping_rule: Option<PingRule>,
    /// On plain ports and Unix sockets a URL or a path is taken where HTTP/2 wants an authority.
    pub url_authorities: bool,
    /// Handlers may take HTTP/1 connections over: their requests carry a [`Detach`].
    pub detachable: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_connections: MAX_CONNECTIONS,
            max_h2_streams: MAX_H2_STREAMS,
            handshake_deadline: HANDSHAKE_DEADLINE,
            header_deadline: HEADER_DEADLINE,
            connection_grace: CONNECTION_GRACE,
            h2_ping: Some((H2_PING_INTERVAL, H2_PING_TIMEOUT)),
            h2_ping_rule: None,
            url_authorities: false,
            detachable: false,
        }
    }
}

/// Clients that ping more often are closed as grpc-go does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingRule {
    pub min_interval: Duration,
    /// Not on plain ports alone.
    pub over_tls: bool,
}

/// In the extensions of every request, as `Arc<ConnInfo>`.
#[derive(Clone, Debug)]
pub struct ConnInfo {
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub tls: bool,
    pub client_cert: Option<Arc<ClientIdentity>>,
}

/// Makes a [`Handler`] from an async function.
pub fn handler<F, Fut>(f: F) -> Handler
where
    F: Fn(Request<Incoming>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Response<Body>> + Send + 'static,
{
    Arc::new(move |request| Box::pin(f(request)))
}

/// After accept failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the drain begins, then waits for its connections (within the grace).
pub async fn serve(
    listener: impl Into<Listener>,
    tls: Option<ServerConfigHandle>,
    handler: Handler,
    limits: Limits,
    drain: Drain,
) -> Result<()> {
    serve_on(None, listener, tls, handler, limits, drain).await
}

/// The same with the connections on threads of their own.
pub async fn serve_on(
    threads: Option<Arc<Threads>>,
    listener: impl Into<Listener>,
    tls: Option<ServerConfigHandle>,
    handler: Handler,
    limits: Limits,
    drain: Drain,
) -> Result<()> {
    let _hold = drain.hold();
    let listener = listener.into();
    let local = listener.local().context("listener address")?;
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let server = Arc::new(connection::Server {
        tls,
        handler,
        limits,
        drain: drain.clone(),
        local,
    });
    while let Some(permit) = slot(&slots, &drain).await {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.signaled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let server = server.clone();
                let connection = move |stream| server.connection(stream, peer, permit);
                begin(threads.as_deref(), stream, connection);
            }
            Err(error) => {
                tracing::error!(address = %local, err = %error, "Accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    finish(&server, &slots).await;
    Ok(())
}

fn begin<F, Fut>(threads: Option<&Threads>, stream: Socket, connection: F)
where
    F: FnOnce(Socket) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let Some(threads) = threads else {
        return drop(tokio::spawn(connection(stream)));
    };
    if let Err(error) = threads.spawn(stream, connection) {
        tracing::error!(err = %error, "A connection could not be handed to its thread");
    }
}

/// Waits for room under the cap; None when the drain began.
async fn slot(slots: &Arc<Semaphore>, drain: &Drain) -> Option<tokio::sync::OwnedSemaphorePermit> {
    tokio::select! {
        biased;
        () = drain.signaled() => None,
        permit = slots.clone().acquire_owned() => permit.ok(),
    }
}

/// All slots are free again when every connection ended.
async fn finish(server: &connection::Server, slots: &Semaphore) {
    let all = u32::try_from(server.limits.max_connections).unwrap_or(u32::MAX);
    if tokio::time::timeout(server.limits.connection_grace, slots.acquire_many(all))
        .await
        .is_err()
    {
        let left = server.limits.max_connections - slots.available_permits();
        tracing::warn!(address = %server.local, left, "Connections were still open when the grace ended");
    }
}

#[cfg(test)]
mod tests;
