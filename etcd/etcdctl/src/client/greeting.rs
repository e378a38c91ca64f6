//! Whether the other side speaks HTTP/2 at all: its first frame must be SETTINGS. What never says that has taken no
//! request, so that any request may be sent again.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Where a frame's header has its type.
const TYPE_OFFSET: usize = 3;
const SETTINGS: u8 = 4;

/// Told by the stream, read by the client.
#[derive(Clone, Default)]
pub struct Greeted(Arc<AtomicBool>);

impl Greeted {
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Of the same connection.
    pub fn is(&self, other: &Greeted) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

pub struct Listening<T> {
    inner: T,
    greeted: Greeted,
    read: usize,
}

impl<T> Listening<T> {
    pub fn new(inner: T, greeted: Greeted) -> Self {
        Listening {
            inner,
            greeted,
            read: 0,
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        if self.read <= TYPE_OFFSET && bytes.get(TYPE_OFFSET - self.read) == Some(&SETTINGS) {
            self.greeted.0.store(true, Ordering::Release);
        }
        self.read = self.read.saturating_add(bytes.len());
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Listening<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        self.hear(&buffer.filled()[before..]);
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Listening<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greets(pieces: &[&[u8]]) -> bool {
        let greeted = Greeted::default();
        let mut stream = Listening::new((), greeted.clone());
        pieces.iter().for_each(|piece| stream.hear(piece));
        greeted.get()
    }

    #[test]
    fn only_a_settings_frame_is_a_greeting() {
        assert!(greets(&[&[0, 0, 0, 4, 0]]));
        assert!(greets(&[&[0, 0], &[0], &[4, 0]]));
        assert!(!greets(&[b"HTTP/1.1 400"]));
        assert!(!greets(&[&[0x15, 3, 3, 0, 2, 2, 70], &[4, 4, 4, 4]]));
        assert!(!greets(&[&[0, 0, 0]]));
    }
}
