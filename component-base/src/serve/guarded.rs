//! The bytes of an HTTP/2 connection on their way through [`Frames`]: whoever offends is told so, and let go.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::frames::{Frames, Offence};

/// How long an offender may take to read why: bytes that are not read when a socket is closed destroy those that were sent.
const FAREWELL: Duration = Duration::from_secs(1);

pub(super) struct Guarded<S> {
    /// None once the connection was ended from here.
    stream: Option<S>,
    frames: Arc<Mutex<Frames>>,
}

impl<S> Guarded<S> {
    pub fn new(stream: S, frames: Arc<Mutex<Frames>>) -> Self {
        Guarded {
            stream: Some(stream),
            frames,
        }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut S>>
    where
        S: Unpin,
    {
        self.stream.as_mut().map(Pin::new).ok_or_else(ended)
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was ended")
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Guarded<S> {
    fn end(&mut self, offence: Offence) -> io::Error {
        let goaway = self.frames.lock().goaway(offence);
        if let (Some(stream), Some(goaway)) = (self.stream.take(), goaway) {
            tokio::spawn(farewell(stream, goaway));
        }
        io::Error::new(io::ErrorKind::ConnectionAborted, offence.0)
    }
}

async fn farewell<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, goaway: Vec<u8>) {
    let said = async {
        stream.write_all(&goaway).await?;
        stream.shutdown().await?;
        let mut ignored = [0; 4096];
        while stream.read(&mut ignored).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // Whoever does not want to hear it need not.
    tokio::time::timeout(FAREWELL, said).await.ok();
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(this.stream()?.poll_read(context, buffer))?;
        let received = this
            .frames
            .lock()
            .received(&buffer.filled()[before..], Instant::now());
        Poll::Ready(received.map_err(|offence| this.end(offence)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = ready!(this.stream()?.poll_write(context, bytes))?;
        this.frames.lock().sent(&bytes[..sent]);
        Poll::Ready(Ok(sent))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = ready!(this.stream()?.poll_write_vectored(context, slices))?;
        let (mut left, mut frames) = (sent, this.frames.lock());
        for slice in slices {
            let taken = left.min(slice.len());
            frames.sent(&slice[..taken]);
            left -= taken;
        }
        Poll::Ready(Ok(sent))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream()?.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Some(stream) => Pin::new(stream).poll_shutdown(context),
            None => Poll::Ready(Ok(())),
        }
    }
}
