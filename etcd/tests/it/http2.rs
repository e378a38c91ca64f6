//! HTTP/2 frame by frame, for what no library would send.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
const HEADER_BYTES: usize = 9;

#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub payload: Vec<u8>,
}

pub struct Connection {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// Header fields as literals that no table remembers.
pub fn fields<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "one byte of length");
            out.push(text.len() as u8);
            out.extend(text.as_bytes());
        }
    }
    out
}

/// The head of a gRPC request.
pub fn call(path: &str) -> Vec<u8> {
    fields([
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ])
}

/// One gRPC message in a frame of its own.
pub fn message(compressed: u8, length: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![compressed];
    out.extend(length.to_be_bytes());
    out.extend(bytes);
    out
}

impl Connection {
    pub fn open(port: u16) -> Connection {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut connection = Connection {
            stream,
            unread: Vec::new(),
        };
        assert!(connection.send(PREFACE) && connection.send(&frame(SETTINGS, 0, 0, &[])));
        connection
    }

    /// False when the server has closed the connection.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The next frame within that time, whatever it is; settings are acknowledged.
    pub fn next(&mut self, within: Duration) -> Option<Frame> {
        self.stream.set_read_timeout(Some(within)).unwrap();
        let head = self.take(HEADER_BYTES)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let frame = Frame {
            kind: head[3],
            flags: head[4],
            payload: self.take(length)?,
        };
        if frame.kind == SETTINGS && frame.flags & ACK == 0 {
            self.send(&self::frame(SETTINGS, ACK, 0, &[]));
        }
        Some(frame)
    }

    /// The first frame of a kind; None when the server says nothing of it or leaves.
    pub fn wait_for(&mut self, kind: u8, within: Duration) -> Option<Frame> {
        loop {
            let frame = self.next(within)?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    pub fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0; 16]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }

    fn take(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let mut piece = [0; 16 * 1024];
        while self.unread.len() < bytes {
            match self.stream.read(&mut piece) {
                Ok(0) => return None,
                Ok(read) => self.unread.extend(&piece[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        Some(self.unread.drain(..bytes).collect())
    }
}
