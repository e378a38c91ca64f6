//! One connection from its first byte to its last.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsAcceptor;

use super::authority::UrlAuthority;
use super::catch::CatchPanic;
use super::detach::{Detach, Lending, Lent};
use super::frames::Frames;
use super::guarded::Guarded;
use super::socket::{Socket, Stream};
use super::{ConnInfo, Handler, Limits, MAX_HEADER_BYTES};
use crate::drain::Drain;
use crate::tls::{self, ServerConfigHandle};

/// Receive windows of HTTP/2; upstream's for streams.
const H2_STREAM_WINDOW: u32 = 256 * 1024;
const H2_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What a response may be ahead of its connection: beyond the socket's own buffer more only costs memory.
const H2_SEND_BUFFER: usize = 64 * 1024;

/// What a client may have sent before it could know of the drain.
const UNDER_WAY: Duration = Duration::from_millis(100);
/// Between two looks at what is left after it.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

pub(super) struct Server {
    pub tls: Option<ServerConfigHandle>,
    pub handler: Handler,
    pub limits: Limits,
    pub drain: Drain,
    pub local: SocketAddr,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Protocol {
    Http1,
    Http2,
}

impl Server {
    /// The permit is held as long as the connection lives.
    pub async fn connection(
        self: Arc<Self>,
        stream: Socket,
        peer: SocketAddr,
        _permit: OwnedSemaphorePermit,
    ) {
        if let Err(error) = stream.set_nodelay() {
            tracing::debug!(peer = %peer, err = %error, "Cannot set TCP_NODELAY");
        }
        let local = stream.local().unwrap_or(self.local);
        match self.tls.clone() {
            Some(tls) => self.over_tls(&tls, stream, peer, local).await,
            None => self.plain(stream, peer, local).await,
        }
    }

    async fn over_tls(&self, tls: &ServerConfigHandle, stream: Socket, peer: SocketAddr, local: SocketAddr) {
        let local_socket = stream.is_unix();
        // What only a handshake needs goes with it: a connection's task is as large as the largest of its stages.
        let handshake = Box::pin(TlsAcceptor::from(tls.current()).accept(stream));
        let handshake = tokio::select! {
            handshake = tokio::time::timeout(self.limits.handshake_deadline, handshake) => handshake,
            () = self.drain.signaled() => return,
        };
        let stream = match handshake {
            // Moved from stage to stage, each of which would keep room for it.
            Ok(Ok(stream)) => Box::new(stream),
            Ok(Err(error)) => {
                tracing::info!(peer = %peer, err = %tls::describe_refusal(&error), "TLS handshake error");
                return;
            }
            Err(_) => {
                tracing::info!(peer = %peer, "TLS handshake timed out");
                return;
            }
        };
        let (_, session) = stream.get_ref();
        let protocol = match session.alpn_protocol() {
            Some(tls::alpn::H2) => Protocol::Http2,
            _ => Protocol::Http1,
        };
        let client_cert = session.peer_certificates().and_then(|chain| tls.identify(chain));
        let admitted = tls.admits(client_cert.as_deref(), peer.ip());
        let admitted = tokio::time::timeout(self.limits.handshake_deadline, admitted).await;
        if let Err(error) = admitted.unwrap_or_else(|_| Err("its names took too long to look up".to_owned()))
        {
            tracing::warn!(peer = %peer, err = %error, "rejected connection on client certificate address");
            return;
        }
        let info = ConnInfo {
            peer,
            local,
            tls: true,
            client_cert,
        };
        if local_socket && self.limits.url_authorities && protocol == Protocol::Http2 {
            return self
                .http(Box::new(UrlAuthority::new(stream)), protocol, info)
                .await;
        }
        if self.limits.detachable && protocol == Protocol::Http1 {
            return self.lend(Lending::Tls(stream), info).await;
        }
        self.http(stream, protocol, info).await;
    }

    async fn plain(&self, stream: Socket, peer: SocketAddr, local: SocketAddr) {
        let protocol = tokio::select! {
            protocol = tokio::time::timeout(self.limits.header_deadline, sniff(&stream)) => protocol,
            () = self.drain.signaled() => return,
        };
        let Ok(Some(protocol)) = protocol else { return };
        let info = ConnInfo {
            peer,
            local,
            tls: false,
            client_cert: None,
        };
        if protocol == Protocol::Http2 && self.limits.url_authorities {
            return self
                .http(Box::new(UrlAuthority::new(stream)), protocol, info)
                .await;
        }
        if self.limits.detachable && protocol == Protocol::Http1 {
            return self.lend(Lending::Plain(stream), info).await;
        }
        self.http(Box::new(stream), protocol, info).await;
    }

    async fn lend(&self, lending: Lending, info: ConnInfo) {
        let (lent, detach) = Lent::new(lending);
        self.serve(Box::new(lent), Protocol::Http1, info, None, Some(detach))
            .await;
    }

    async fn http(&self, stream: Box<dyn Stream>, protocol: Protocol, info: ConnInfo) {
        if protocol != Protocol::Http2 {
            return self.serve(stream, protocol, info, None, None).await;
        }
        let rule = self.limits.h2_ping_rule;
        let rule = rule.filter(|rule| rule.over_tls || !info.tls);
        let frames = Frames::new(rule.map(|rule| rule.min_interval), Instant::now());
        let frames = Arc::new(Mutex::new(frames));
        let stream = Box::new(Guarded::new(stream, frames.clone()));
        self.serve(stream, protocol, info, Some(frames), None).await;
    }

    async fn serve(
        &self,
        stream: Box<dyn Stream>,
        protocol: Protocol,
        info: ConnInfo,
        frames: Option<Arc<Mutex<Frames>>>,
        detach: Option<Detach>,
    ) {
        let peer = info.peer;
        let info = Arc::new(info);
        let handler = self.handler.clone();
        let asked = Arc::new(AtomicBool::new(false));
        let asking = asked.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            asking.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(info.clone());
            if let Some(detach) = &detach {
                request.extensions_mut().insert(detach.clone());
            }
            let response = CatchPanic(handler(request));
            async move { Ok::<_, Infallible>(response.await) }
        });
        let builder = self.builder(protocol);
        let mut connection =
            std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let mut result = tokio::select! {
            result = connection.as_mut() => Some(result),
            () = self.drain.signaled() => None,
        };
        if result.is_none() {
            connection.as_mut().graceful_shutdown();
            result = tokio::select! {
                result = connection => Some(result),
                () = self.nothing_left(&asked, frames.as_deref()) => None,
            };
        }
        if let Some(Err(error)) = result {
            tracing::debug!(peer = %peer, err = %error, "Connection ended with an error");
        }
    }

    /// Clients that take no notice of the drain: the end comes when what they had asked for by then is answered, at the latest with the grace.
    async fn nothing_left(&self, asked: &AtomicBool, frames: Option<&Mutex<Frames>>) {
        let begun = Instant::now();
        tokio::time::sleep(UNDER_WAY).await;
        let left = || match frames {
            Some(frames) => frames.lock().has_open_since_before(begun + UNDER_WAY),
            // HTTP/1 closes what is idle by itself, but for connections on which nothing was ever asked.
            None => asked.load(Ordering::Relaxed),
        };
        while left() && begun.elapsed() < self.limits.connection_grace {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        // The last answer may still lie in TLS.
        tokio::time::sleep(UNDER_WAY).await;
    }

    fn builder(&self, protocol: Protocol) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_deadline)
            .max_buf_size(MAX_HTTP1_BUFFER);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.limits.max_h2_streams)
            .max_header_list_size(MAX_HEADER_BYTES)
            .initial_stream_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .max_send_buf_size(H2_SEND_BUFFER);
        if let Some((interval, timeout)) = self.limits.h2_ping {
            builder
                .http2()
                .keep_alive_interval(interval)
                .keep_alive_timeout(timeout);
        }
        match protocol {
            Protocol::Http1 => builder.http1_only(),
            Protocol::Http2 => builder.http2_only(),
        }
    }
}

/// An HTTP/1 head must fit into it, so it bounds the memory of a slow one.
const MAX_HTTP1_BUFFER: usize = 128 * 1024;

/// Between two looks at a connection that has sent a byte or two.
const SNIFF_INTERVAL: Duration = Duration::from_millis(5);

/// HTTP/2 with prior knowledge begins with `PRI`, which no HTTP/1 method does. None when the peer left.
async fn sniff(stream: &Socket) -> Option<Protocol> {
    let mut first = [0; 3];
    loop {
        match stream.peek(&mut first).await.ok()? {
            0 => return None,
            3 if &first == b"PRI" => return Some(Protocol::Http2),
            length if length < 3 && b"PRI".starts_with(&first[..length]) => {
                tokio::time::sleep(SNIFF_INTERVAL).await;
            }
            _ => return Some(Protocol::Http1),
        }
    }
}
