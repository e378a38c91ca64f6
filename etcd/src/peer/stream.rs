//! The sending end of a stream: the body of an answer that a peer asked for and never ends.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use component_base::http::BoxError;
use component_base::metrics::CounterValue;
use etcd_api::raftpb;
use http_body::Frame;
use parking_lot::Mutex;
use prost::Message as _;
use raft::eraftpb::Message;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use super::msgapp;
use super::wire;

/// etcd's: messages that wait for one stream.
const QUEUE_MESSAGES: usize = 4096;
/// And what they may hold; beyond it the peer counts as unreachable, and raft probes instead of sending on.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// A frame of the body is closed at this size.
const FRAME_BYTES: usize = 256 * 1024;
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

/// Bytes that wait in a queue.
#[derive(Default)]
struct Load(AtomicUsize);

pub fn size_of(message: &Message) -> usize {
    let entries: usize = message.entries.iter().map(|entry| entry.data.len() + 16).sum();
    MESSAGE_BYTES + entries
}

/// A place for the stream that the peer may or may not have open.
#[derive(Default)]
pub struct Lane {
    writer: Mutex<Option<Writer>>,
}

struct Writer {
    id: u64,
    sender: mpsc::Sender<Message>,
    load: Arc<Load>,
}

/// Why a message was not taken.
#[derive(Debug)]
pub enum NotTaken {
    NoStream(Box<Message>),
    Full,
}

impl Lane {
    pub fn send(&self, message: Message) -> Result<(), NotTaken> {
        let mut writer = self.writer.lock();
        let Some(open) = writer.as_ref() else {
            return Err(NotTaken::NoStream(Box::new(message)));
        };
        let size = size_of(&message);
        if open.load.0.load(Ordering::Relaxed) + size > QUEUE_BYTES {
            return Err(NotTaken::Full);
        }
        open.load.0.fetch_add(size, Ordering::Relaxed);
        match open.sender.try_send(message) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => {
                open.load.0.fetch_sub(size, Ordering::Relaxed);
                Err(NotTaken::Full)
            }
            Err(mpsc::error::TrySendError::Closed(message)) => {
                *writer = None;
                Err(NotTaken::NoStream(Box::new(message)))
            }
        }
    }

    /// Takes the place of an earlier stream, which ends.
    fn attach(&self, id: u64) -> (mpsc::Receiver<Message>, Arc<Load>) {
        let (sender, receiver) = mpsc::channel(QUEUE_MESSAGES);
        let load = Arc::new(Load::default());
        *self.writer.lock() = Some(Writer {
            id,
            sender,
            load: load.clone(),
        });
        (receiver, load)
    }

    fn detach(&self, id: u64) {
        let mut writer = self.writer.lock();
        if writer.as_ref().is_some_and(|open| open.id == id) {
            *writer = None;
        }
    }

    pub fn close(&self) {
        *self.writer.lock() = None;
    }
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

pub struct StreamBody {
    id: u64,
    lane: Arc<Lane>,
    messages: mpsc::Receiver<Message>,
    load: Arc<Load>,
    encoding: Encoding,
    idle: Pin<Box<Sleep>>,
    heartbeat: Duration,
    sent: Arc<CounterValue>,
    /// Called with whether messages were lost.
    ended: Box<dyn Fn(bool) + Send + Sync>,
}

impl StreamBody {
    pub fn new(
        id: u64,
        kind: Kind,
        lane: &Arc<Lane>,
        heartbeat: Duration,
        sent: Arc<CounterValue>,
        ended: Box<dyn Fn(bool) + Send + Sync>,
    ) -> StreamBody {
        let (messages, load) = lane.attach(id);
        StreamBody {
            id,
            lane: lane.clone(),
            messages,
            load,
            encoding: match kind {
                Kind::MsgApp => Encoding::MsgApp(msgapp::Encoder::default()),
                Kind::Message => Encoding::Message,
            },
            idle: Box::pin(tokio::time::sleep(heartbeat)),
            heartbeat,
            sent,
            ended,
        }
    }

    fn push(&mut self, message: Message, out: &mut BytesMut) {
        self.load.0.fetch_sub(size_of(&message), Ordering::Relaxed);
        self.encoding.encode(&wire::to_raftpb(message), out);
    }

    /// All that waits, up to the size of a frame. None when the stream has ended.
    fn gather(&mut self, context: &mut Context<'_>) -> Poll<Option<BytesMut>> {
        let mut out = BytesMut::new();
        while out.len() < FRAME_BYTES {
            match self.messages.poll_recv(context) {
                Poll::Ready(Some(message)) => self.push(message, &mut out),
                Poll::Ready(None) if out.is_empty() => return Poll::Ready(None),
                Poll::Pending if out.is_empty() => return Poll::Pending,
                _ => break,
            }
        }
        Poll::Ready(Some(out))
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let out = match self.gather(context) {
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(out)) => out,
            Poll::Pending => {
                std::task::ready!(self.idle.as_mut().poll(context));
                let mut out = BytesMut::new();
                self.encoding.heartbeat(&mut out);
                out
            }
        };
        let next = Instant::now() + self.heartbeat;
        self.idle.as_mut().reset(next);
        // The timer must know this task again, or nothing would wake it.
        if self.idle.as_mut().poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
        self.sent.add(out.len() as f64);
        Poll::Ready(Some(Ok(Frame::data(out.freeze()))))
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        self.lane.detach(self.id);
        let lost = self.messages.try_recv().is_ok();
        (self.ended)(lost);
    }
}
