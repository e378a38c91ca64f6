//! A stream and its watchers: what each has seen, and what is put into the outbox for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use etcd_api::etcdserverpb::{WatchCreateRequest, WatchResponse};

use super::Header;
use crate::watch::Interest;
use crate::watch::encode::{self, Body};
use crate::watch::groups::GroupId;
use crate::watch::outbox::Outbox;

/// Watchers of one stream.
const MAX_WATCHERS: usize = 100_000;

pub struct Stream {
    pub outbox: Arc<Outbox>,
    pub watchers: BTreeMap<i64, Watcher>,
    next_id: i64,
    /// A progress request that has to wait until this revision was seen by all.
    pub progress: Option<i64>,
}

pub struct Watcher {
    pub interest: Arc<Interest>,
    pub group: GroupId,
    /// The next revision that it has to see.
    pub next: i64,
    state: Seeing,
    pub fragment: bool,
    pub progress_notify: bool,
    /// Nothing was sent since the last tick.
    pub quiet: bool,
}

/// Watchers of this process that are not present.
static SLOW: AtomicUsize = AtomicUsize::new(0);

pub fn slow_watchers() -> usize {
    SLOW.load(Relaxed)
}

#[derive(Clone, Copy, PartialEq)]
pub enum Seeing {
    /// Everything the hub has seen.
    Present,
    /// Waits for room in the outbox, then for history.
    Behind,
    /// A piece of history is being read for it.
    CatchingUp,
}

impl Stream {
    pub fn new(outbox: Arc<Outbox>) -> Self {
        Stream {
            outbox,
            watchers: BTreeMap::new(),
            next_id: 0,
            progress: None,
        }
    }

    /// Why it may not have this watcher, in etcd's words.
    pub fn refuses(&self, request: &WatchCreateRequest, interest: &Interest) -> Option<&'static str> {
        if request.start_revision < 0 {
            return Some("etcdserver: mvcc: required revision has been compacted");
        }
        if interest.range.is_empty() {
            return Some("mvcc: watcher range is empty");
        }
        if self.watchers.contains_key(&request.watch_id) && request.watch_id != 0 {
            return Some("mvcc: duplicate watch ID provided on the WatchStream");
        }
        (self.watchers.len() >= MAX_WATCHERS).then_some("etcdserver: too many requests")
    }

    /// The id that a watcher asks for; without one, the next that is free.
    pub fn id_for(&mut self, asked: i64) -> i64 {
        if asked != 0 {
            return asked;
        }
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// A response without events.
    pub fn control(&self, response: &WatchResponse) {
        self.outbox.push(&encode::control(response), &Bytes::new(), 0);
    }
}

impl Watcher {
    /// Present from `next` on.
    pub fn new(interest: Arc<Interest>, group: GroupId, next: i64, request: &WatchCreateRequest) -> Self {
        Watcher {
            interest,
            group,
            next,
            state: Seeing::Present,
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            quiet: true,
        }
    }

    pub fn state(&self) -> Seeing {
        self.state
    }

    pub fn set_state(&mut self, state: Seeing) {
        let before = std::mem::replace(&mut self.state, state);
        match (before == Seeing::Present, state == Seeing::Present) {
            (true, false) => drop(SLOW.fetch_add(1, Relaxed)),
            (false, true) => drop(SLOW.fetch_sub(1, Relaxed)),
            _ => {}
        }
    }

    /// Present, and to be told of this revision: it begins no later.
    pub fn awaits(&self, revision: i64) -> bool {
        self.state == Seeing::Present && self.next <= revision
    }

    /// Everything that it has to see up to `seen`. The last response says how far everything was seen; the ones before it, how far they go
    /// themselves.
    pub fn send(&mut self, id: i64, bodies: &[Body], seen: i64, header: &Header, outbox: &Outbox) {
        for (place, body) in bodies.iter().enumerate() {
            let is_last = place + 1 == bodies.len();
            let header = header(if is_last { seen } else { body.last });
            // Of a response in parts, the last one counts.
            let push = |part: &Bytes, more| {
                let events = if more { 0 } else { body.events };
                outbox.push(&encode::event_head(&header, id, more, part.len()), part, events);
            };
            if !self.fragment || body.bytes.len() <= encode::RESPONSE_BYTES {
                push(&body.bytes, false);
                continue;
            }
            let parts = encode::fragments(body);
            for (number, part) in parts.iter().enumerate() {
                push(part, number + 1 < parts.len());
            }
        }
        self.quiet &= bodies.is_empty();
        self.next = self.next.max(seen + 1);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.set_state(Seeing::Present);
    }
}
