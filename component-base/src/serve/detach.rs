//! A connection that a handler takes out of HTTP's hands, with the session that was agreed on it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::rustls::ServerConnection;
use tokio_rustls::server::TlsStream;

use super::socket::{Socket, Stream};

/// A TCP connection, with what TLS has agreed on it.
pub struct Taken {
    pub tcp: TcpStream,
    pub session: Option<ServerConnection>,
}

pub(super) enum Lending {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Lending {
    fn stream(&mut self) -> Pin<&mut dyn Stream> {
        match self {
            Lending::Plain(stream) => Pin::new(stream),
            Lending::Tls(stream) => Pin::new(stream),
        }
    }
}

/// In the extensions of the requests of a listener with [`super::Limits::detachable`].
#[derive(Clone)]
pub struct Detach(Arc<Mutex<Option<Lending>>>);

impl Detach {
    /// To be called when nothing follows the request that has come. Whatever the handler answers then is not sent. None when it is taken
    /// already, or no TCP.
    pub fn take(&self) -> Option<Taken> {
        let (socket, session) = match self.0.lock().take()? {
            Lending::Plain(socket) => (socket, None),
            Lending::Tls(stream) => {
                let (socket, session) = stream.into_inner();
                (socket, Some(session))
            }
        };
        let tcp = socket.into_tcp()?;
        Some(Taken { tcp, session })
    }
}

/// What HTTP reads from and writes to until somebody takes it.
pub(super) struct Lent(Detach);

impl Lent {
    pub fn new(lending: Lending) -> (Lent, Detach) {
        let detach = Detach(Arc::new(Mutex::new(Some(lending))));
        (Lent(detach.clone()), detach)
    }

    fn poll<T>(
        &self,
        poll: impl FnOnce(Pin<&mut dyn Stream>) -> Poll<io::Result<T>>,
        without: io::Result<T>,
    ) -> Poll<io::Result<T>> {
        match self.0.0.lock().as_mut() {
            Some(lending) => poll(lending.stream()),
            None => Poll::Ready(without),
        }
    }
}

fn gone<T>() -> io::Result<T> {
    Err(io::ErrorKind::BrokenPipe.into())
}

impl AsyncRead for Lent {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_read(context, buffer), Ok(()))
    }
}

impl AsyncWrite for Lent {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write(context, bytes), gone())
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(context), gone())
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_shutdown(context), Ok(()))
    }
}
