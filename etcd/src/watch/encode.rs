//! Events and watch responses as bytes.

use std::io;

use bytes::{BufMut as _, Bytes, BytesMut};
use etcd_api::etcdserverpb::{ResponseHeader, WatchResponse};
use etcd_api::mvccpb::{KeyValue, event::EventType};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::{Batch, Interest};
use crate::mvcc::response::{write_header, write_message};
use crate::mvcc::txn::Change;
use crate::storage::record::{RECORD_HEADER_BYTES, key_of};
use crate::storage::{Segments, Storage};

/// A response is closed at the end of the revision that takes it beyond this; other clients than etcd's refuse 4 MiB.
pub const RESPONSE_BYTES: usize = 1024 * 1024;
/// gRPC's frame: not compressed, and the length.
pub const PREFIX_BYTES: usize = 5;
const EVENTS_TAG: u32 = 11;

/// An event, encoded when the first watcher wants it.
pub struct Event {
    pub key: Bytes,
    pub change: Change,
    /// The encoded KeyValue as it is stored.
    stored: Bytes,
    plain: Option<Bytes>,
    with_prev: Option<Bytes>,
}

impl Event {
    pub fn new(change: Change, stored: Bytes) -> Event {
        let key = key_of(&stored)
            .map(|key| stored.slice_ref(key))
            .unwrap_or_default();
        Event {
            key,
            change,
            stored,
            plain: None,
            with_prev: None,
        }
    }

    pub fn revision(&self) -> i64 {
        self.change.version.main
    }

    pub fn is_wanted(&self, interest: &Interest) -> bool {
        let filtered = if self.change.version.is_tombstone() {
            interest.no_delete
        } else {
            interest.no_put
        };
        !filtered
    }

    pub fn encoded(&mut self, prev_kv: bool, storage: &Storage, segments: &Segments) -> io::Result<&Bytes> {
        let prev = self.change.prev.filter(|_| prev_kv);
        let Some(prev) = prev else {
            let Event {
                plain,
                change,
                key,
                stored,
                ..
            } = self;
            return Ok(plain.get_or_insert_with(|| encode_event(change, key, stored, None)));
        };
        if self.with_prev.is_none() {
            let prev = storage.read(segments, prev.loc)?;
            self.with_prev = Some(encode_event(&self.change, &self.key, &self.stored, Some(&prev)));
        }
        Ok(self.with_prev.get_or_insert_default())
    }
}

fn encode_event(change: &Change, key: &Bytes, stored: &Bytes, prev: Option<&Bytes>) -> Bytes {
    let mut out = BytesMut::with_capacity(stored.len() + prev.map_or(0, Bytes::len) + 24);
    if change.version.is_tombstone() {
        prost::encoding::int32::encode(1, &(EventType::Delete as i32), &mut out);
        let kv = KeyValue {
            key: key.clone(),
            mod_revision: change.version.main,
            ..KeyValue::default()
        };
        write_message(2, &kv.encode_to_vec(), &mut out);
    } else {
        write_message(2, stored, &mut out);
    }
    if let Some(prev) = prev {
        write_message(3, prev, &mut out);
    }
    out.freeze()
}

/// The events of a frame; the stored bytes are slices of it.
pub fn events_of(batch: &Batch) -> Vec<Event> {
    let changes = batch.changes.as_deref().unwrap_or_default();
    let event = |change: &Change| {
        let start = (change.version.loc.offset - batch.place.offset) as usize;
        let stored = batch
            .bytes
            .slice(start + RECORD_HEADER_BYTES..start + change.version.loc.length as usize);
        Event::new(*change, stored)
    };
    changes.iter().map(event).collect()
}

/// The events part of one response, shared by all watchers of a group.
#[derive(Clone, Debug)]
pub struct Body {
    pub bytes: Bytes,
    pub first: i64,
    pub last: i64,
    pub events: usize,
}

/// Collects events into responses that end with a revision.
#[derive(Default)]
pub struct Bodies {
    pub done: Vec<Body>,
    open: BytesMut,
    first: i64,
    last: i64,
    events: usize,
}

impl Bodies {
    pub fn push(&mut self, revision: i64, event: &[u8]) {
        if revision != self.last && self.open.len() >= RESPONSE_BYTES {
            self.close();
        }
        if self.events == 0 {
            self.first = revision;
        }
        self.last = revision;
        self.events += 1;
        self.open.reserve(event.len() + 8);
        write_message(EVENTS_TAG, event, &mut self.open);
    }

    /// The revision of the last event.
    pub fn last_revision(&self) -> Option<i64> {
        (self.events > 0 || !self.done.is_empty()).then_some(self.last)
    }

    pub fn bytes(&self) -> usize {
        self.open.len() + self.done.iter().map(|body| body.bytes.len()).sum::<usize>()
    }

    pub fn close(&mut self) {
        if self.events > 0 {
            self.done.push(Body {
                bytes: self.open.split().freeze(),
                first: self.first,
                last: self.last,
                events: self.events,
            });
            self.events = 0;
        }
    }
}

/// Splits one body into fragments of at most [`RESPONSE_BYTES`] where an event is not larger itself.
pub fn fragments(body: &Body) -> Vec<Bytes> {
    let mut out = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < body.bytes.len() {
        let next = at + event_field_len(&body.bytes[at..]);
        if next - start > RESPONSE_BYTES && at > start {
            out.push(body.bytes.slice(start..at));
            start = at;
        }
        at = next;
    }
    out.push(body.bytes.slice(start..));
    out
}

/// Length of the events field at the start: one key byte, the length, the event.
fn event_field_len(bytes: &[u8]) -> usize {
    let mut rest = &bytes[1..];
    let length = prost::encoding::decode_varint(&mut rest).unwrap_or(0) as usize;
    bytes.len() - rest.len() + length
}

/// A response with events, but for the events: the bytes that stand before them, gRPC's frame included.
pub fn event_head(header: &ResponseHeader, watch_id: i64, fragment: bool, body: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(64);
    out.put_bytes(0, PREFIX_BYTES);
    write_header(header, &mut out);
    if watch_id != 0 {
        encode_key(2, WireType::Varint, &mut out);
        encode_varint(watch_id as u64, &mut out);
    }
    if fragment {
        encode_key(7, WireType::Varint, &mut out);
        encode_varint(1, &mut out);
    }
    let length = (out.len() - PREFIX_BYTES + body) as u32;
    out[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    out
}

/// A response without events.
pub fn control(response: &WatchResponse) -> BytesMut {
    let length = response.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + length);
    out.put_u8(0);
    out.put_u32(length as u32);
    response.encode_raw(&mut out);
    out
}
