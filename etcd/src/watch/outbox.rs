//! What waits to be sent on one watch stream; bounded.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::metrics;

/// A stream with more than this waiting gets no events until half of it was sent.
pub const OUTBOX_BYTES: usize = 1024 * 1024;
/// A body of this size is shared; smaller ones are copied, so that many of them leave in one HTTP/2 frame.
const SHARE_BYTES: usize = 16 * 1024;
/// Small responses are gathered up to this.
const GATHER_BYTES: usize = 64 * 1024;

pub struct Outbox {
    state: Mutex<State>,
    limit: usize,
}

impl Default for Outbox {
    fn default() -> Self {
        Outbox::bounded(OUTBOX_BYTES)
    }
}

/// Events that wait in all outboxes of this process.
static PENDING: AtomicUsize = AtomicUsize::new(0);

pub fn pending_events() -> usize {
    PENDING.load(Relaxed)
}

/// Bytes, and how many events end in them.
#[derive(Default)]
struct Chunk {
    bytes: Bytes,
    events: usize,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Chunk>,
    open: BytesMut,
    open_events: usize,
    bytes: usize,
    /// The hub withheld something and wants to hear when there is room.
    lagging: bool,
    closed: bool,
    waker: Option<Waker>,
}

pub enum Next {
    Chunk(Bytes),
    End,
}

impl Outbox {
    pub fn bounded(limit: usize) -> Self {
        Outbox {
            state: Mutex::default(),
            limit,
        }
    }

    /// A response, with so many events in its body.
    pub fn push(&self, head: &[u8], body: &Bytes, events: usize) {
        if events > 0 {
            PENDING.fetch_add(events, Relaxed);
        }
        let mut state = self.state.lock();
        state.bytes += head.len() + body.len();
        state.open.extend_from_slice(head);
        if body.len() >= SHARE_BYTES {
            state.close_open();
            let bytes = body.clone();
            state.ready.push_back(Chunk { bytes, events });
        } else {
            state.open.extend_from_slice(body);
            state.open_events += events;
        }
        if state.open.len() >= GATHER_BYTES {
            state.close_open();
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether there is room for events; when there is none, the answer of [`Outbox::poll`] will say when to go on.
    pub fn has_room(&self) -> bool {
        let mut state = self.state.lock();
        let room = state.bytes < self.limit;
        state.lagging |= !room;
        room
    }

    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The next bytes to send, and whether the hub is to be told that there is room again.
    pub fn poll(&self, context: &mut Context<'_>) -> (Poll<Next>, bool) {
        let mut state = self.state.lock();
        let chunk = match state.ready.pop_front() {
            Some(chunk) => chunk,
            None if !state.open.is_empty() => state.take_open(),
            None if state.closed => return (Poll::Ready(Next::End), false),
            None => {
                state.waker = Some(context.waker().clone());
                return (Poll::Pending, false);
            }
        };
        state.bytes -= chunk.bytes.len();
        let drained = state.lagging && state.bytes < self.limit / 2;
        if drained {
            state.lagging = false;
        }
        drop(state);
        if chunk.events > 0 {
            PENDING.fetch_sub(chunk.events, Relaxed);
            metrics::EVENTS.add(chunk.events as f64);
        }
        (Poll::Ready(Next::Chunk(chunk.bytes)), drained)
    }
}

impl State {
    fn close_open(&mut self) {
        if !self.open.is_empty() {
            let chunk = self.take_open();
            self.ready.push_back(chunk);
        }
    }

    /// The whole buffer: a stream that waits for events keeps no room for them.
    fn take_open(&mut self) -> Chunk {
        Chunk {
            bytes: std::mem::take(&mut self.open).freeze(),
            events: std::mem::take(&mut self.open_events),
        }
    }
}

impl Drop for State {
    /// What was never sent does not wait any more.
    fn drop(&mut self) {
        let ready: usize = self.ready.iter().map(|chunk| chunk.events).sum();
        PENDING.fetch_sub(ready + self.open_events, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(outbox: &Outbox) -> Option<(Bytes, bool)> {
        let mut context = Context::from_waker(Waker::noop());
        match outbox.poll(&mut context) {
            (Poll::Ready(Next::Chunk(chunk)), drained) => Some((chunk, drained)),
            _ => None,
        }
    }

    #[test]
    fn small_responses_leave_together_and_in_order() {
        let outbox = Outbox::default();
        let large = Bytes::from(vec![3; SHARE_BYTES]);
        outbox.push(b"1", &Bytes::from_static(b"a"), 0);
        outbox.push(b"2", &Bytes::from_static(b"b"), 0);
        outbox.push(b"3", &large, 0);
        outbox.push(b"4", &Bytes::from_static(b"d"), 0);
        assert_eq!(take(&outbox).unwrap().0, "1a2b3");
        assert_eq!(take(&outbox).unwrap().0, large);
        assert_eq!(take(&outbox).unwrap().0, "4d");
        assert!(take(&outbox).is_none());
    }

    #[test]
    fn what_was_taken_leaves_no_room_behind() {
        let outbox = Outbox::default();
        for _ in 0..100 {
            outbox.push(b"head", &Bytes::from(vec![1; 500]), 0);
        }
        assert!(take(&outbox).is_some());
        assert_eq!(outbox.state.lock().open.capacity(), 0);
    }

    #[test]
    fn events_are_pending_until_they_are_sent_or_nobody_wants_them() {
        let before = (pending_events(), metrics::EVENTS.get());
        let outbox = Outbox::default();
        outbox.push(b"head", &Bytes::from_static(b"a"), 2);
        outbox.push(b"head", &Bytes::from(vec![1; SHARE_BYTES]), 3);
        outbox.push(b"head", &Bytes::from_static(b"b"), 4);
        assert_eq!(pending_events(), before.0 + 9);
        take(&outbox).unwrap();
        assert_eq!(pending_events(), before.0 + 7);
        take(&outbox).unwrap();
        assert_eq!(
            (pending_events(), metrics::EVENTS.get()),
            (before.0 + 4, before.1 + 5.0)
        );
        drop(outbox);
        assert_eq!(
            (pending_events(), metrics::EVENTS.get()),
            (before.0, before.1 + 5.0)
        );
    }

    #[test]
    fn a_full_outbox_tells_when_it_has_drained() {
        let outbox = Outbox::default();
        let body = Bytes::from(vec![0; OUTBOX_BYTES / 4]);
        for _ in 0..4 {
            assert!(outbox.has_room());
            outbox.push(b"", &body, 0);
        }
        assert!(!outbox.has_room());
        assert!(!take(&outbox).unwrap().1);
        assert!(!take(&outbox).unwrap().1);
        assert!(take(&outbox).unwrap().1);
        assert!(!take(&outbox).unwrap().1, "told once");
    }
}
