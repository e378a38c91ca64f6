//! The receiving end of a stream: an answer's body that never ends, chunk by chunk, message by message.

use std::io;
use std::time::{Duration, Instant};

use bytes::{Buf as _, BytesMut};
use etcd_api::raftpb;
use prost::Message as _;
use tokio::sync::oneshot;

use super::msgapp::{self, Incoming, check_length, number_at, own};
use super::reader::ReadError;
use super::socket::{Received, Socket};
use super::stream::{Kind, is_link_heartbeat};

/// The line before a chunk.
const MAX_CHUNK_LINE: usize = 1024;

/// Where a body stands.
pub enum Body {
    /// It ends with its connection.
    Bare,
    ChunkSize,
    /// So much of a chunk is to come.
    Chunk(u64),
    ChunkEnd,
}

impl Body {
    /// Moves what is the body's own.
    fn unwrap(&mut self, raw: &mut BytesMut, into: &mut BytesMut) -> Result<(), ReadError> {
        loop {
            match self {
                Body::Bare => {
                    into.extend_from_slice(raw);
                    raw.clear();
                    return Ok(());
                }
                Body::ChunkSize => match chunk_size(raw)? {
                    None => return Ok(()),
                    Some(0) => return Err(ReadError::Ended),
                    Some(size) => *self = Body::Chunk(size),
                },
                Body::Chunk(left) => {
                    let piece = raw.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    into.extend_from_slice(&raw[..piece]);
                    raw.advance(piece);
                    *left -= piece as u64;
                    if *left > 0 {
                        return Ok(());
                    }
                    *self = Body::ChunkEnd;
                }
                Body::ChunkEnd if raw.len() < 2 => return Ok(()),
                Body::ChunkEnd => {
                    if &raw[..2] != b"\r\n" {
                        return Err(ReadError::Malformed("a chunk without its end".to_owned()));
                    }
                    raw.advance(2);
                    *self = Body::ChunkSize;
                }
            }
        }
    }
}

fn chunk_size(raw: &mut BytesMut) -> Result<Option<u64>, ReadError> {
    let malformed = || ReadError::Malformed("a chunk without its size".to_owned());
    let Some(end) = raw.iter().take(MAX_CHUNK_LINE).position(|byte| *byte == b'\n') else {
        return match raw.len() < MAX_CHUNK_LINE {
            true => Ok(None),
            false => Err(malformed()),
        };
    };
    let line = std::str::from_utf8(&raw[..end]).map_err(|_| malformed())?;
    let digits = line.split(';').next().unwrap_or_default().trim();
    let size = u64::from_str_radix(digits, 16).map_err(|_| malformed())?;
    raw.advance(end + 1);
    Ok(Some(size))
}

pub struct Reading {
    socket: Socket,
    body: Body,
    raw: BytesMut,
    buffer: BytesMut,
    kind: Kind,
    decoder: msgapp::Decoder,
    heard: Instant,
    ended: Option<oneshot::Sender<ReadError>>,
}

impl Reading {
    /// `raw` came with the answer's head. `ended` hears why there is no more of it.
    pub fn new(
        socket: Socket,
        body: Body,
        raw: BytesMut,
        kind: Kind,
        decoder: msgapp::Decoder,
        ended: oneshot::Sender<ReadError>,
    ) -> Reading {
        Reading {
            socket,
            body,
            raw,
            buffer: BytesMut::new(),
            kind,
            decoder,
            heard: Instant::now(),
            ended: Some(ended),
        }
    }

    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn silent_for(&self) -> Duration {
        self.heard.elapsed()
    }

    /// One read, and how many bytes are to be looked at.
    pub fn receive(&mut self, scratch: &mut [u8]) -> Result<usize, ReadError> {
        let failed = |error: io::Error| ReadError::Transport(error.into());
        let received = self.socket.receive(scratch, &mut self.raw).map_err(failed)?;
        // A session may have something to say for itself.
        self.socket.flush().map_err(failed)?;
        if let Received::Some = received {
            self.heard = Instant::now();
        }
        let before = self.buffer.len();
        self.body.unwrap(&mut self.raw, &mut self.buffer)?;
        let came = self.buffer.len() - before;
        match received {
            Received::Ended if came == 0 => Err(ReadError::Ended),
            _ => Ok(came),
        }
    }

    /// The next message that is whole.
    pub fn message(&mut self) -> Result<Option<raftpb::Message>, ReadError> {
        loop {
            let incoming = match self.kind {
                Kind::MsgApp => self.decoder.decode(&mut self.buffer)?,
                Kind::Message => general(&mut self.buffer)?,
            };
            match incoming {
                Some(Incoming::Message(message)) => return Ok(Some(*message)),
                Some(Incoming::Heartbeat) => {}
                None => return Ok(None),
            }
        }
    }

    pub fn end(&mut self, why: ReadError) {
        if let Some(ended) = self.ended.take() {
            // Whoever dialed may have been told to stop.
            ended.send(why).ok();
        }
    }
}

fn general(buffer: &mut BytesMut) -> Result<Option<Incoming>, ReadError> {
    let Some(length) = number_at(buffer, 0) else {
        return Ok(None);
    };
    check_length(length)?;
    let end = 8 + length as usize;
    if buffer.len() < end {
        return Ok(None);
    }
    let mut bytes = own(buffer, end);
    bytes.advance(8);
    let message = Box::new(raftpb::Message::decode(bytes)?);
    Ok(Some(match is_link_heartbeat(&message) {
        true => Incoming::Heartbeat,
        false => Incoming::Message(message),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_apart_wherever_they_are_cut() {
        let sent = b"5\r\nhello\r\n00000003;x=y\r\n\r\na\r\n1\r\n!\r\n0\r\n";
        for cut in 0..sent.len() - 3 {
            let (mut body, mut into) = (Body::ChunkSize, BytesMut::new());
            let mut raw = BytesMut::from(&sent[..cut]);
            body.unwrap(&mut raw, &mut into).unwrap();
            raw.extend_from_slice(&sent[cut..]);
            assert!(matches!(body.unwrap(&mut raw, &mut into), Err(ReadError::Ended)));
            assert_eq!(&into[..], b"hello\r\na!");
        }
        for broken in [&b"g\r\n"[..], b"\r\n", b"1\r\nabc", &[b'1'; MAX_CHUNK_LINE]] {
            let refused = Body::ChunkSize.unwrap(&mut BytesMut::from(broken), &mut BytesMut::new());
            assert!(matches!(refused, Err(ReadError::Malformed(_))), "{broken:?}");
        }
    }
}
