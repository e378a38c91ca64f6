//! What a daemon listens on and what it accepts: TCP, or a Unix socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket as RawSocket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

const LISTEN_BACKLOG: i32 = 1024;
/// The kernel asks a silent peer whether it is still there, as Go's listeners make it do.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);
/// Whoever comes over a Unix socket is on this host.
const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What a connection is read from and written to. HTTP is compiled once, for this type, not once for each kind of stream.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A bound port or socket file.
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// Goes with its listener, so that nobody finds a socket that nobody serves.
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Whoever cleaned up before has done the same.
        std::fs::remove_file(&self.0).ok();
    }
}

/// How a TCP port is bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// Other processes with the same wish may listen on the same port.
    pub reuse_port: bool,
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Listener::Tcp(listener)
    }
}

/// Binds `host:port` (an address, `[v6]:port`, or `:port` for all) before anything else is started.
pub fn bind(address: impl ToString) -> Result<TcpListener> {
    bind_with(address, SocketOptions::default())
}

pub fn bind_with(address: impl ToString, options: SocketOptions) -> Result<TcpListener> {
    let text = address.to_string();
    let full = if text.starts_with(':') {
        format!("[::]{text}")
    } else {
        text.clone()
    };
    let parsed: SocketAddr = full
        .parse()
        .with_context(|| format!("invalid listen address {text:?}, want IP:port"))?;
    listen(parsed, options).with_context(|| format!("failed to create listener: failed to listen on {text}"))
}

/// Reuses the address, so that a restart does not wait for old connections to leave TIME_WAIT.
fn listen(address: SocketAddr, options: SocketOptions) -> io::Result<TcpListener> {
    let socket = RawSocket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.reuse_port)?;
    // Accepted sockets inherit it.
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(TCP_KEEPALIVE)
            .with_interval(TCP_KEEPALIVE),
    )?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Binds a socket file; one that a killed process left is replaced, one that is served is not.
pub fn bind_unix(path: &Path) -> Result<Listener> {
    use std::os::unix::fs::FileTypeExt as _;
    let shown = path.display();
    if let Ok(found) = std::fs::symlink_metadata(path) {
        anyhow::ensure!(
            found.file_type().is_socket(),
            "failed to listen on {shown}: it exists and is no socket; remove it or name another path"
        );
        anyhow::ensure!(
            std::os::unix::net::UnixStream::connect(path).is_err(),
            "failed to listen on {shown}: another process serves it"
        );
        std::fs::remove_file(path).with_context(|| format!("failed to replace the socket {shown}"))?;
    }
    let listener = UnixListener::bind(path).with_context(|| format!("failed to listen on {shown}"))?;
    Ok(Listener::Unix(listener, SocketFile(path.to_owned())))
}

impl Listener {
    pub(super) fn local(&self) -> io::Result<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr(),
            Listener::Unix(..) => Ok(LOCAL),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Socket::Tcp(stream), peer))
            }
            Listener::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Unix(stream), LOCAL))
            }
        }
    }
}

/// An accepted connection.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One that no runtime looks after.
pub(super) enum Detached {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Socket {
    pub fn detach(self) -> io::Result<Detached> {
        Ok(match self {
            Socket::Tcp(stream) => Detached::Tcp(stream.into_std()?),
            Socket::Unix(stream) => Detached::Unix(stream.into_std()?),
        })
    }

    pub fn into_tcp(self) -> Option<TcpStream> {
        match self {
            Socket::Tcp(stream) => Some(stream),
            Socket::Unix(_) => None,
        }
    }

    pub fn is_unix(&self) -> bool {
        matches!(self, Socket::Unix(_))
    }

    pub fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.set_nodelay(true),
            Socket::Unix(_) => Ok(()),
        }
    }

    pub fn local(&self) -> io::Result<SocketAddr> {
        match self {
            Socket::Tcp(stream) => stream.local_addr(),
            Socket::Unix(_) => Ok(LOCAL),
        }
    }

    /// The first bytes, which stay where they are.
    pub async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let stream = match self {
            Socket::Tcp(stream) => return stream.peek(buffer).await,
            Socket::Unix(stream) => stream,
        };
        loop {
            stream.readable().await?;
            let peeked = stream.try_io(Interest::READABLE, || {
                let (length, _) = rustix::net::recv(stream, &mut *buffer, rustix::net::RecvFlags::PEEK)?;
                Ok(length)
            });
            match peeked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                peeked => return peeked,
            }
        }
    }
}

impl Detached {
    /// In the runtime that this is called in.
    pub fn attach(self) -> io::Result<Socket> {
        Ok(match self {
            Detached::Tcp(stream) => Socket::Tcp(TcpStream::from_std(stream)?),
            Detached::Unix(stream) => Socket::Unix(UnixStream::from_std(stream)?),
        })
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Socket::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Socket::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Socket::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing is kept back, by neither.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_file_is_replaced_when_nobody_serves_it_and_goes_with_its_listener() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("s");
        // What a killed process leaves.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = bind_unix(&path).unwrap();
        let error = bind_unix(&path).err().unwrap();
        assert!(error.to_string().contains("another process serves it"), "{error}");
        drop(listener);
        assert!(!path.exists());
        std::fs::write(&path, "precious").unwrap();
        let error = bind_unix(&path).err().unwrap();
        assert!(error.to_string().contains("is no socket"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_port_is_shared_among_those_who_all_want_it() {
        let shared = SocketOptions { reuse_port: true };
        let first = bind_with("127.0.0.1:0", shared).unwrap();
        let address = first.local_addr().unwrap();
        assert!(bind(address).is_err());
        bind_with(address, shared).unwrap();
    }
}
