//! A watch that goes on elsewhere when its member goes; every connection of it is judged for itself.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, Bytes, BytesMut};
use etcd::watch::hub::HubEvent;
use etcd::watch::outbox::{Next, Outbox};
use etcd_api::etcdserverpb::{WatchCreateRequest, WatchResponse};
use etcd_api::mvccpb::Event;
use etcd_checker::watch::{Seen, Watched};
use prost::Message as _;
use rand::Rng as _;
use rand::rngs::StdRng;

use crate::member::Life;

/// gRPC's frame: not compressed, and the length.
const PREFIX_BYTES: usize = 5;
const AHEAD: i64 = 6;

pub struct Watcher {
    /// All keys from the first revision on: what happened, for the checker.
    collects: bool,
    pub wake: u64,
    pub connection: Option<Connection>,
    /// The first revision that was not seen.
    next: i64,
    pub lives: Vec<(Watched, Vec<Seen>)>,
    pub events: Vec<Event>,
}

pub struct Connection {
    pub member: usize,
    outbox: Arc<Outbox>,
    stream: u64,
    buffer: BytesMut,
    watched: Watched,
    seen: Vec<Seen>,
    ended: bool,
}

impl Watcher {
    pub fn new(collects: bool) -> Watcher {
        Watcher {
            collects,
            wake: 0,
            connection: None,
            next: i64::from(collects),
            lives: Vec::new(),
            events: Vec::new(),
        }
    }

    /// The last revision that a collector has.
    pub fn collected(&self) -> i64 {
        self.events
            .last()
            .and_then(|event| event.kv.as_ref())
            .map_or(1, |kv| kv.mod_revision)
    }

    pub fn open(&mut self, member: usize, life: &Life, bytes: usize, random: &mut StdRng) {
        let request = if self.collects {
            WatchCreateRequest {
                key: Bytes::from_static(b"\0"),
                range_end: Bytes::from_static(b"\0"),
                start_revision: self.collected() + 1,
                ..WatchCreateRequest::default()
            }
        } else {
            self.request(life, random)
        };
        self.open_with(member, life, bytes, request);
    }

    pub fn open_with(&mut self, member: usize, life: &Life, bytes: usize, request: WatchCreateRequest) {
        let outbox = Arc::new(Outbox::bounded(bytes));
        let stream = life.hub.open(outbox.clone());
        let watched = Watched {
            key: request.key.clone(),
            prefix: !request.range_end.is_empty(),
            start: request.start_revision,
            prev_kv: request.prev_kv,
        };
        life.hub.send(HubEvent::Create(stream, request));
        self.connection = Some(Connection {
            member,
            outbox,
            stream,
            buffer: BytesMut::new(),
            watched,
            seen: Vec::new(),
            ended: false,
        });
    }

    /// Mostly where it broke off; sometimes where history begins, or in the future.
    fn request(&self, life: &Life, random: &mut StdRng) -> WatchCreateRequest {
        let store = &life.state.store;
        let start_revision = match random.random_range(0..10) {
            0 => store.compacted(),
            1 => store.compacted() + 1,
            2 => store.current() + random.random_range(0..AHEAD),
            3 => 0,
            _ => self.next,
        };
        let (key, range_end) = match random.random_bool(0.3) {
            true => (
                Bytes::from(format!("k/{}", random.random_range(0..3))),
                Bytes::new(),
            ),
            false => (Bytes::from_static(b"k/"), Bytes::from_static(b"k0")),
        };
        WatchCreateRequest {
            key,
            range_end,
            start_revision,
            prev_kv: random.random_bool(0.5),
            progress_notify: random.random_bool(0.5),
            fragment: random.random_bool(0.5),
            ..WatchCreateRequest::default()
        }
    }

    /// Takes what has come. Without a life the member is gone, and what it sent last may still arrive.
    pub fn poll(&mut self, life: Option<&Life>, all: bool, random: &mut StdRng) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        while let (Poll::Ready(Next::Chunk(chunk)), drained) =
            connection.outbox.poll(&mut Context::from_waker(Waker::noop()))
        {
            connection.buffer.extend_from_slice(&chunk);
            if let (true, Some(life)) = (drained, life) {
                life.hub.send(HubEvent::Drained(connection.stream));
            }
            if !all && random.random_bool(0.3) {
                break;
            }
        }
        while let Some(response) = connection.response() {
            connection.take(response, &mut self.next);
        }
        if self.collects {
            let came = connection.seen.drain(..);
            self.events.extend(came.flat_map(|seen| seen.events));
        }
        if connection.ended {
            self.close(life);
        }
    }

    pub fn watched(&self) -> Option<&Watched> {
        self.connection.as_ref().map(|connection| &connection.watched)
    }

    /// What the open connection has brought.
    pub fn seen(&self) -> &[Seen] {
        self.connection
            .as_ref()
            .map_or(&[], |connection| &connection.seen)
    }

    pub fn ask_progress(&self, life: &Life) {
        if let Some(connection) = &self.connection {
            life.hub.send(HubEvent::Progress(connection.stream));
        }
    }

    pub fn close(&mut self, life: Option<&Life>) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        if let Some(life) = life {
            life.hub.send(HubEvent::Close(connection.stream));
        }
        if !self.collects {
            self.lives.push((connection.watched, connection.seen));
        }
    }

    pub fn lost(&mut self, member: usize) {
        if self
            .connection
            .as_ref()
            .is_some_and(|connection| connection.member == member)
        {
            self.close(None);
        }
    }
}

impl Connection {
    fn response(&mut self) -> Option<WatchResponse> {
        let length = u32::from_be_bytes(self.buffer.get(1..PREFIX_BYTES)?.try_into().ok()?) as usize;
        if self.buffer.len() < PREFIX_BYTES + length {
            return None;
        }
        self.buffer.advance(PREFIX_BYTES);
        let body = self.buffer.split_to(length);
        let response = WatchResponse::decode(body);
        Some(response.unwrap_or_else(|error| panic!("a watch response that cannot be decoded: {error}")))
    }

    fn take(&mut self, response: WatchResponse, next: &mut i64) {
        // Progress of a stream whose one watch was cancelled is about nothing.
        if self.ended {
            return;
        }
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if response.canceled {
            self.ended = true;
            *next = 0;
            return;
        }
        if response.created {
            if self.watched.start == 0 {
                self.watched.start = revision + 1;
            }
            return;
        }
        let last = response.events.last().and_then(|event| event.kv.as_ref());
        *next = match last {
            Some(kv) => kv.mod_revision + 1,
            None => (revision + 1).max(self.watched.start),
        };
        if response.events.is_empty() && revision + 1 < self.watched.start {
            panic!(
                "progress to {revision} for a watch that begins at {}",
                self.watched.start
            );
        }
        self.seen.push(Seen {
            revision,
            events: response.events,
        });
    }
}
