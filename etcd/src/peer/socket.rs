//! A connection whose session was agreed on elsewhere, for a thread that never waits for it.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use bytes::{Buf as _, BytesMut};
use component_base::serve;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{self, Connection};

pub struct Socket {
    tcp: TcpStream,
    session: Option<Box<Connection>>,
    /// What could not be written yet, where there is no session to keep it.
    out: BytesMut,
    /// When the kernel last took a part of what waits, or was first asked to.
    waits_since: Option<Instant>,
}

/// What one read found.
pub enum Received {
    Some,
    Nothing,
    Ended,
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Socket {
    pub fn plain(tcp: tokio::net::TcpStream) -> io::Result<Socket> {
        Socket::new(tcp, None)
    }

    pub fn client(stream: TlsStream<tokio::net::TcpStream>) -> io::Result<Socket> {
        let (tcp, session) = stream.into_inner();
        Socket::new(tcp, Some(session.into()))
    }

    pub fn server(taken: serve::Taken) -> io::Result<Socket> {
        Socket::new(taken.tcp, taken.session.map(Connection::from))
    }

    fn new(tcp: tokio::net::TcpStream, session: Option<Connection>) -> io::Result<Socket> {
        let mut session = session.map(Box::new);
        if let Some(session) = &mut session {
            // Whoever writes looks first whether what was written before is out.
            session.set_buffer_limit(None);
        }
        Ok(Socket {
            tcp: tcp.into_std()?,
            session,
            out: BytesMut::new(),
            waits_since: None,
        })
    }

    /// One read, whose bytes are appended to `into`.
    pub fn receive(&mut self, scratch: &mut [u8], into: &mut BytesMut) -> io::Result<Received> {
        let length = match self.tcp.read(scratch) {
            Ok(0) => return Ok(Received::Ended),
            Ok(length) => length,
            Err(error) if is_passing(&error) => return Ok(Received::Nothing),
            Err(error) => return Err(error),
        };
        let mut wire = &scratch[..length];
        let Some(session) = &mut self.session else {
            into.extend_from_slice(wire);
            return Ok(Received::Some);
        };
        while !wire.is_empty() {
            if session.read_tls(&mut wire)? == 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let state = session.process_new_packets().map_err(invalid)?;
            let start = into.len();
            into.resize(start + state.plaintext_bytes_to_read(), 0);
            session.reader().read_exact(&mut into[start..])?;
            if state.peer_has_closed() {
                return Ok(Received::Ended);
            }
        }
        Ok(Received::Some)
    }

    /// To go out with the next [`Socket::flush`].
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.session {
            Some(session) => session.writer().write_all(bytes),
            None => {
                self.out.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    pub fn is_behind(&self) -> bool {
        match &self.session {
            Some(session) => session.wants_write(),
            None => !self.out.is_empty(),
        }
    }

    /// For how long nothing of what waits was taken: the peer reads no more, or the network is gone.
    pub fn stuck_for(&self) -> Duration {
        self.waits_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Writes what the socket takes.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut waits_since = self.waits_since.take();
        while self.is_behind() {
            let written = match &mut self.session {
                Some(session) => session.write_tls(&mut self.tcp),
                None => self.tcp.write(&self.out),
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => {
                    waits_since = None;
                    if self.session.is_none() {
                        self.out.advance(length);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_passing(&error) => {
                    self.waits_since = waits_since.or_else(|| Some(Instant::now()));
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_stuck_until_the_peer_reads() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
        let (tcp, accepted) = (tcp.await.unwrap(), listener.accept().await.unwrap().0);
        let mut socket = Socket::plain(tcp).unwrap();
        socket.flush().unwrap();
        assert_eq!(socket.stuck_for(), Duration::ZERO);
        while !socket.is_behind() {
            socket.write(&[0; 64 * 1024]).unwrap();
            socket.flush().unwrap();
        }
        let pause = Duration::from_millis(50);
        // The kernel may still find room for some of it.
        let stuck = (0..100).any(|_| {
            std::thread::sleep(pause);
            socket.flush().unwrap();
            socket.stuck_for() >= pause
        });
        assert!(stuck);
        let mut taken = accepted.into_std().unwrap();
        taken.set_nonblocking(false).unwrap();
        while socket.is_behind() {
            taken.read_exact(&mut [0; 64 * 1024]).unwrap();
            socket.flush().unwrap();
        }
        assert_eq!(socket.stuck_for(), Duration::ZERO);
    }
}
