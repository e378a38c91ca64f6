//! All streams to and from other members, on the thread that decides what goes over them: nobody is woken on a message's way.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use component_base::metrics::CounterValue;
use raft::eraftpb::{Message, MessageType};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use tracing::{debug, warn};

use super::incoming::Reading;
use super::reader::ReadError;
use super::remote::{Peer, accepts};
use super::stream::{Kind, Writer};
use super::{metrics, wire};
use crate::raft::driver::Event;
use crate::raft::inbox::Inbox;

/// One read takes no more, so that no stream keeps the others waiting.
const READ_BYTES: usize = 64 * 1024;
const READY_AT_ONCE: usize = 64;
/// The inbox's bell among the streams.
const BELL: u64 = 0;
/// How often it is looked at who is silent.
const TEND_INTERVAL: Duration = Duration::from_millis(50);

/// A stream that was agreed on elsewhere.
pub struct Opened {
    pub peer: Arc<Peer>,
    pub end: End,
}

pub enum End {
    /// We have dialed.
    Reading(Reading),
    /// The peer has.
    Writing(Kind, Writer),
}

struct Stream {
    peer: Arc<Peer>,
    end: End,
    received: Arc<CounterValue>,
    wants_out: bool,
}

pub struct Streams {
    epoll: OwnedFd,
    bell: Arc<OwnedFd>,
    scratch: Vec<u8>,
    streams: HashMap<u64, Stream>,
    next: u64,
    /// Where messages of a kind to a peer go.
    writers: HashMap<(u64, Kind), u64>,
    /// Writers with something new.
    filled: Vec<u64>,
    tended: Instant,
}

impl Streams {
    /// Whoever pushes into `events` wakes the thread that waits here.
    pub fn new(events: &Inbox<Event>) -> io::Result<Streams> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        // Edges need no reading, which would be one more call for each.
        epoll::add(
            &epoll,
            &*bell,
            EventData::new_u64(BELL),
            EventFlags::IN | EventFlags::ET,
        )?;
        let rung = bell.clone();
        events.set_bell(Box::new(move || {
            // It fails when the count is full, and then it rings anyway.
            rustix::io::write(&*rung, &1_u64.to_ne_bytes()).ok();
        }));
        Ok(Streams {
            epoll,
            bell,
            scratch: Vec::new(),
            streams: HashMap::new(),
            next: BELL + 1,
            writers: HashMap::new(),
            filled: Vec::new(),
            tended: Instant::now(),
        })
    }

    pub fn open(&mut self, opened: Opened) {
        let token = self.next;
        self.next += 1;
        let (peer, end) = (opened.peer, opened.end);
        if let End::Writing(kind, _) = &end
            && let Some(earlier) = self.writers.insert((peer.id, *kind), token)
        {
            self.close(earlier);
        }
        let stream = Stream {
            received: metrics::RECEIVED_BYTES.with(&[&format!("{:x}", peer.id)]),
            peer,
            end,
            wants_out: false,
        };
        let added = epoll::add(
            &self.epoll,
            stream.fd(),
            EventData::new_u64(token),
            EventFlags::IN,
        );
        self.streams.insert(token, stream);
        self.scratch.resize(READ_BYTES, 0);
        match added {
            Ok(()) => self.filled.push(token),
            Err(error) => self.failed(token, ReadError::Transport(io::Error::from(error).into())),
        }
    }

    /// Gives it back where there is no stream for it. Too many that wait are reported to raft, which sends again when the peer answers.
    pub fn send(&mut self, message: Message) -> Option<Message> {
        let append = message.msg_type == MessageType::MsgAppend as i32;
        let own = if append { Kind::MsgApp } else { Kind::Message };
        let find = |kind| self.writers.get(&(message.to, kind)).copied();
        let Some(token) = find(own).or_else(|| find(Kind::Message).filter(|_| append)) else {
            return Some(message);
        };
        let Some(stream) = self.streams.get_mut(&token) else {
            return Some(message);
        };
        if let End::Writing(_, writer) = &mut stream.end {
            let first = !writer.has_waiting();
            if !writer.push(message) {
                stream.peer.dropped("its stream");
            } else if first {
                self.filled.push(token);
            }
        }
        None
    }

    pub fn flush(&mut self) {
        for token in std::mem::take(&mut self.filled) {
            self.pump(token);
        }
    }

    fn pump(&mut self, token: u64) {
        let Some(stream) = self.streams.get_mut(&token) else {
            return;
        };
        let End::Writing(_, writer) = &mut stream.end else {
            return;
        };
        let pumped = writer.pump();
        self.written(token, pumped);
    }

    /// A socket that has not taken everything says when it takes more.
    fn written(&mut self, token: u64, result: io::Result<()>) {
        let Some(stream) = self.streams.get_mut(&token) else {
            return;
        };
        let End::Writing(_, writer) = &stream.end else {
            return;
        };
        if let Err(error) = result {
            return self.failed(token, ReadError::Transport(error.into()));
        }
        let behind = writer.is_behind();
        if behind == stream.wants_out {
            return;
        }
        stream.wants_out = behind;
        let flags = if behind {
            EventFlags::IN | EventFlags::OUT
        } else {
            EventFlags::IN
        };
        let changed = epoll::modify(&self.epoll, stream.fd(), EventData::new_u64(token), flags);
        if let Err(error) = changed {
            self.failed(token, ReadError::Transport(io::Error::from(error).into()));
        }
    }

    /// Until something came or was pushed, at most so long.
    pub fn wait(&mut self, events: &Inbox<Event>, batch: &mut Vec<Event>, timeout: Duration) {
        if self.streams.is_empty() {
            return events.drain(batch, Some(timeout));
        }
        let timeout = if events.doze() { timeout } else { Duration::ZERO };
        let timeout = Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        let mut room = [MaybeUninit::uninit(); READY_AT_ONCE];
        let ready: &[epoll::Event] = match epoll::wait(&self.epoll, &mut room, Some(&timeout)) {
            Ok((ready, _)) => ready,
            Err(rustix::io::Errno::INTR) => &[],
            Err(error) => {
                warn!(error = %error, "failed to wait for the streams of the peers");
                &[]
            }
        };
        events.rise();
        events.take(batch);
        for event in ready {
            let (token, flags) = (event.data.u64(), event.flags);
            if token == BELL {
                continue;
            }
            if flags.contains(EventFlags::OUT) {
                self.pump(token);
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.read(token, events, batch);
            }
        }
        if self.tended.elapsed() >= TEND_INTERVAL {
            self.tend();
        }
    }

    fn read(&mut self, token: u64, events: &Inbox<Event>, batch: &mut Vec<Event>) {
        let Some(stream) = self.streams.get_mut(&token) else {
            return;
        };
        let read = match &mut stream.end {
            End::Reading(reading) => read(reading, &stream.peer, &stream.received, &mut self.scratch, batch),
            End::Writing(_, writer) => match writer.receive(&mut self.scratch) {
                Ok(super::socket::Received::Ended) => Err(ReadError::Ended),
                Ok(_) => Ok(()),
                Err(error) => Err(ReadError::Transport(error.into())),
            },
        };
        if let Err(error) = read {
            self.failed(token, error);
            // What it set off is part of what has happened.
            let mut more = Vec::new();
            events.take(&mut more);
            batch.append(&mut more);
        }
    }

    /// Link heartbeats to whoever would hear nothing for too long, and an end to those that are silent or not wanted.
    fn tend(&mut self) {
        self.tended = Instant::now();
        let tokens: Vec<u64> = self.streams.keys().copied().collect();
        for token in tokens {
            let Some(stream) = self.streams.get_mut(&token) else {
                continue;
            };
            if stream.peer.is_stopped() {
                self.close(token);
                continue;
            }
            let (patience, stuck) = (stream.peer.read_timeout(), stream.peer.write_timeout());
            match &mut stream.end {
                End::Writing(_, writer) if writer.socket().stuck_for() >= stuck => {
                    self.failed(token, ReadError::Stuck(stuck));
                }
                End::Writing(_, writer) => {
                    let kept = writer.keep_alive(patience / 3);
                    self.written(token, kept);
                }
                End::Reading(reading) if reading.silent_for() >= patience => {
                    self.failed(token, ReadError::Silent(patience));
                }
                End::Reading(_) => {}
            }
        }
    }

    /// Of peers that were stopped.
    pub fn close_stopped(&mut self) {
        let stopped = |(token, stream): (&u64, &Stream)| stream.peer.is_stopped().then_some(*token);
        let tokens: Vec<u64> = self.streams.iter().filter_map(stopped).collect();
        tokens.into_iter().for_each(|token| self.close(token));
    }

    fn close(&mut self, token: u64) {
        self.failed(token, ReadError::Ended);
    }

    fn failed(&mut self, token: u64, error: ReadError) {
        let Some(mut stream) = self.streams.remove(&token) else {
            return;
        };
        epoll::delete(&self.epoll, stream.fd()).ok();
        match &mut stream.end {
            End::Reading(reading) => reading.end(error),
            End::Writing(kind, writer) => {
                if self.writers.get(&(stream.peer.id, *kind)) == Some(&token) {
                    self.writers.remove(&(stream.peer.id, *kind));
                }
                stream.peer.stream_ended(*kind, &error, writer.has_waiting());
            }
        }
    }
}

impl Stream {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match &self.end {
            End::Reading(reading) => reading.socket().as_fd(),
            End::Writing(_, writer) => writer.socket().as_fd(),
        }
    }
}

fn read(
    reading: &mut Reading,
    peer: &Peer,
    received: &CounterValue,
    scratch: &mut [u8],
    batch: &mut Vec<Event>,
) -> Result<(), ReadError> {
    let came = reading.receive(scratch)?;
    received.add(came as f64);
    while let Some(message) = reading.message()? {
        match wire::from_raftpb(message) {
            Ok(message) if accepts(peer.local(), &message) => batch.push(Event::Step(Box::new(message))),
            Ok(_) => metrics::RECEIVED_FAILURES
                .with(&[&format!("{:x}", peer.id)])
                .inc(),
            Err(error) => {
                warn!("remote-peer-id" = %format!("{:x}", peer.id), "stream-reader-type" = reading.kind().name(), error = %error, "failed to decode Raft message");
            }
        }
    }
    Ok(())
}

impl Drop for Streams {
    fn drop(&mut self) {
        debug!(streams = self.streams.len(), bell = ?self.bell, "closing the streams of the peers");
    }
}
