//! The sending end of a stream: the body of an answer that a peer asked for and never ends.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, BytesMut};
use component_base::metrics::CounterValue;
use etcd_api::raftpb;
use prost::Message as _;
use raft::eraftpb::Message;

use super::socket::{Received, Socket};
use super::{msgapp, wire};

/// etcd's: messages that wait for one stream.
const QUEUE_MESSAGES: usize = 4096;
/// And what they may hold; beyond it the peer counts as unreachable, and raft probes instead of sending on.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// A chunk of the body is closed at this size.
const CHUNK_BYTES: usize = 256 * 1024;
/// Eight digits and the end of their line.
const CHUNK_HEAD: usize = 10;
/// What a message takes beside its entries.
const MESSAGE_BYTES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Appends.
    MsgApp,
    /// Everything else, and appends while the other is not there.
    Message,
}

impl Kind {
    pub fn path(self) -> &'static str {
        match self {
            Kind::MsgApp => "/raft/stream/msgapp",
            Kind::Message => "/raft/stream/message",
        }
    }

    /// As etcd calls it in its log.
    pub fn name(self) -> &'static str {
        match self {
            Kind::MsgApp => "stream MsgApp v2",
            Kind::Message => "stream Message",
        }
    }
}

pub fn size_of(message: &Message) -> usize {
    let entries: usize = message.entries.iter().map(|entry| entry.data.len() + 16).sum();
    MESSAGE_BYTES + entries
}

enum Encoding {
    MsgApp(msgapp::Encoder),
    Message,
}

impl Encoding {
    fn encode(&mut self, message: &raftpb::Message, out: &mut BytesMut) {
        match self {
            Encoding::MsgApp(encoder) => encoder.encode(message, out),
            Encoding::Message => length_delimited(message, out),
        }
    }

    fn heartbeat(&self, out: &mut BytesMut) {
        match self {
            Encoding::MsgApp(_) => msgapp::Encoder::heartbeat(out),
            Encoding::Message => length_delimited(&link_heartbeat(), out),
        }
    }
}

/// A message of the general stream and the head of a snapshot: eight bytes of length before it.
pub fn length_delimited(message: &raftpb::Message, out: &mut BytesMut) {
    let length = message.encoded_len();
    out.reserve(8 + length);
    out.put_u64(length as u64);
    message.encode_raw(out);
}

fn link_heartbeat() -> raftpb::Message {
    raftpb::Message {
        r#type: raftpb::MessageType::MsgHeartbeat as i32,
        ..raftpb::Message::default()
    }
}

/// raft sends nothing without from and to.
pub fn is_link_heartbeat(message: &raftpb::Message) -> bool {
    message.r#type == raftpb::MessageType::MsgHeartbeat as i32 && message.from == 0 && message.to == 0
}

/// Messages that wait for the socket, in the encoding of their stream.
pub struct Writer {
    socket: Socket,
    encoding: Encoding,
    queue: VecDeque<Message>,
    load: usize,
    last: Instant,
    /// One chunk of the answer's body.
    chunk: BytesMut,
    sent: Arc<CounterValue>,
}

impl Writer {
    /// `head` is the answer's.
    pub fn new(socket: Socket, kind: Kind, head: &[u8], sent: Arc<CounterValue>) -> io::Result<Writer> {
        let mut writer = Writer {
            socket,
            encoding: match kind {
                Kind::MsgApp => Encoding::MsgApp(msgapp::Encoder::default()),
                Kind::Message => Encoding::Message,
            },
            queue: VecDeque::new(),
            load: 0,
            last: Instant::now(),
            chunk: BytesMut::new(),
            sent,
        };
        writer.socket.write(head)?;
        writer.socket.flush()?;
        Ok(writer)
    }

    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    pub fn has_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether the socket is to say when it takes more.
    pub fn is_behind(&self) -> bool {
        self.socket.is_behind()
    }

    /// False when too much waits already.
    pub fn push(&mut self, message: Message) -> bool {
        let size = size_of(&message);
        if self.queue.len() >= QUEUE_MESSAGES || self.load + size > QUEUE_BYTES {
            return false;
        }
        self.load += size;
        self.queue.push_back(message);
        true
    }

    /// Writes what waits, as far as the socket takes it.
    pub fn pump(&mut self) -> io::Result<()> {
        loop {
            self.socket.flush()?;
            if self.socket.is_behind() || self.queue.is_empty() {
                return Ok(());
            }
            self.begin_chunk();
            while self.chunk.len() < CHUNK_BYTES
                && let Some(message) = self.queue.pop_front()
            {
                self.load -= size_of(&message);
                self.encoding.encode(&wire::to_raftpb(message), &mut self.chunk);
            }
            self.end_chunk()?;
        }
    }

    /// The other side gives a stream up that is silent.
    pub fn keep_alive(&mut self, heartbeat: Duration) -> io::Result<()> {
        if self.last.elapsed() < heartbeat || self.socket.is_behind() {
            return Ok(());
        }
        self.begin_chunk();
        self.encoding.heartbeat(&mut self.chunk);
        self.end_chunk()?;
        self.socket.flush()
    }

    /// Nothing that counts ever comes from whoever reads.
    pub fn receive(&mut self, scratch: &mut [u8]) -> io::Result<Received> {
        let mut ignored = BytesMut::new();
        let received = self.socket.receive(scratch, &mut ignored)?;
        self.socket.flush()?;
        Ok(received)
    }

    fn begin_chunk(&mut self) {
        self.chunk.clear();
        self.chunk.put_bytes(b'0', CHUNK_HEAD);
    }

    fn end_chunk(&mut self) -> io::Result<()> {
        let length = self.chunk.len() - CHUNK_HEAD;
        let head = format!("{length:08x}\r\n");
        self.chunk[..CHUNK_HEAD].copy_from_slice(head.as_bytes());
        self.chunk.put_slice(b"\r\n");
        self.sent.add(length as f64);
        self.last = Instant::now();
        let written = self.socket.write(&self.chunk);
        if self.chunk.capacity() > 2 * CHUNK_BYTES {
            self.chunk = BytesMut::new();
        }
        written
    }
}
