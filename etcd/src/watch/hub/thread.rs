//! The owner of all watchers: one thread, one closed set of events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use etcd_api::etcdserverpb::{WatchCreateRequest, WatchResponse};

use super::recent::Recent;
use super::stream::{Seeing, Stream, Watcher};
use super::{Header, Hub, HubEvent, INVALID_WATCH_ID};
use crate::metrics;
use crate::mvcc::{Error, Store};
use crate::raft::inbox::Inbox;
use crate::watch::Interest;
use crate::watch::catch_up::Job;
use crate::watch::groups::Groups;

pub struct HubThread {
    pub(super) hub: Arc<Hub>,
    pub(super) store: Arc<Store>,
    pub(super) header: Header,
    pub(super) history: Arc<Inbox<Option<Job>>>,
    pub(super) streams: BTreeMap<u64, Stream>,
    pub(super) groups: Groups,
    pub(super) recent: Recent,
}

impl HubThread {
    pub fn new(hub: Arc<Hub>, store: Arc<Store>, header: Header, history: Arc<Inbox<Option<Job>>>) -> Self {
        let recent = Recent::new(store.current());
        HubThread {
            hub,
            store,
            header,
            history,
            streams: BTreeMap::new(),
            groups: Groups::default(),
            recent,
        }
    }

    pub fn run(mut self) {
        let mut events = Vec::new();
        loop {
            self.hub.drain(&mut events, None);
            for event in events.drain(..) {
                if matches!(event, HubEvent::Stop) {
                    return self.stop();
                }
                self.event(event);
            }
        }
    }

    fn stop(&mut self) {
        self.history.push(None);
        self.streams.values().for_each(|stream| stream.outbox.close());
    }

    pub fn event(&mut self, event: HubEvent) {
        match event {
            HubEvent::Batch(batch) => self.batch(batch),
            HubEvent::Open(stream, outbox) => drop(self.streams.insert(stream, Stream::new(outbox))),
            HubEvent::Create(stream, request) => self.create(stream, &request),
            HubEvent::Refuse(stream, reason) => self.refuse(stream, &reason),
            HubEvent::Cancel(stream, id) => self.cancel(stream, id),
            HubEvent::Progress(stream) => self.progress(stream),
            HubEvent::CaughtUp(piece) => self.caught_up(piece),
            HubEvent::Drained(stream) => self.drained(stream),
            HubEvent::Close(stream) => self.close(stream),
            HubEvent::Tick => self.tick(),
            HubEvent::Stop => {}
        }
    }

    fn create(&mut self, stream_id: u64, request: &WatchCreateRequest) {
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        let interest = Interest::of(request);
        if let Some(reason) = stream.refuses(request, &interest) {
            return self.refuse(stream_id, reason);
        }
        // Counted before the revision is looked at, so that no frame in between is made without its changes (see `Applier::finish_frame`).
        let is_first = self.hub.watchers.fetch_add(1, Ordering::SeqCst) == 0;
        let current = self.store.current();
        if is_first {
            self.recent.resume_at(current);
        }
        let id = stream.id_for(request.watch_id);
        stream.control(&WatchResponse {
            created: true,
            ..response(&self.header, current, id)
        });
        let next = match request.start_revision {
            0 => current + 1,
            start => start,
        };
        let (group, interest) = self.groups.join(interest, (stream_id, id));
        let mut watcher = Watcher::new(interest, group, next, request);
        if next <= self.recent.seen {
            watcher.set_state(Seeing::Behind);
        }
        stream.watchers.insert(id, watcher);
        self.catch_up(stream_id, id);
    }

    fn refuse(&self, stream: u64, reason: &str) {
        if let Some(stream) = self.streams.get(&stream) {
            stream.control(&WatchResponse {
                created: true,
                canceled: true,
                cancel_reason: reason.to_owned(),
                ..response(&self.header, self.store.current(), INVALID_WATCH_ID)
            });
        }
    }

    fn cancel(&mut self, stream: u64, id: i64) {
        if self.remove(stream, id) {
            self.cancelled(stream, id, 0, String::new());
        }
    }

    /// Ends a watcher whose history cannot be read.
    pub(super) fn fail(&mut self, stream: u64, id: i64, error: &Error) {
        self.remove(stream, id);
        match error {
            Error::Compacted => self.cancelled(stream, id, self.store.compacted(), String::new()),
            error => self.cancelled(stream, id, 0, error.to_string()),
        }
    }

    fn cancelled(&self, stream: u64, id: i64, compact_revision: i64, cancel_reason: String) {
        if let Some(stream) = self.streams.get(&stream) {
            stream.control(&WatchResponse {
                canceled: true,
                compact_revision,
                cancel_reason,
                ..response(&self.header, self.recent.seen, id)
            });
        }
    }

    fn remove(&mut self, stream_id: u64, id: i64) -> bool {
        let stream = self.streams.get_mut(&stream_id);
        let Some(watcher) = stream.and_then(|stream| stream.watchers.remove(&id)) else {
            return false;
        };
        self.groups.leave(watcher.group, (stream_id, id));
        self.hub.watchers.fetch_sub(1, Ordering::SeqCst);
        true
    }

    fn close(&mut self, stream_id: u64) {
        let Some(stream) = self.streams.remove(&stream_id) else {
            return;
        };
        for (id, watcher) in &stream.watchers {
            self.groups.leave(watcher.group, (stream_id, *id));
        }
        self.hub
            .watchers
            .fetch_sub(stream.watchers.len(), Ordering::SeqCst);
        stream.outbox.close();
        metrics::WATCH_STREAMS.dec();
        if self.streams.is_empty() {
            self.recent.clear();
        }
    }

    fn progress(&mut self, stream_id: u64) {
        let current = self.store.current();
        if !self.hub.is_watched() {
            self.recent.resume_at(current);
        }
        if let Some(stream) = self.streams.get_mut(&stream_id) {
            stream.progress = Some(current);
        }
        self.answer_progress(stream_id);
    }

    /// One answer for all watchers of the stream, once all of them have seen what was current when it was asked.
    pub(super) fn answer_progress(&mut self, stream_id: u64) {
        let seen = self.recent.seen;
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        let is_due = stream.progress.is_some_and(|asked| seen >= asked);
        if is_due && stream.watchers.values().all(|watcher| watcher.awaits(seen + 1)) {
            stream.progress = None;
            stream.control(&response(&self.header, seen, INVALID_WATCH_ID));
        }
    }

    /// Progress for those who asked for it and heard nothing since the last tick.
    fn tick(&mut self) {
        let seen = self.recent.seen;
        for stream in self.streams.values_mut() {
            let mut quiet = Vec::new();
            for (id, watcher) in &mut stream.watchers {
                let is_due = watcher.progress_notify && watcher.awaits(seen + 1);
                if is_due && std::mem::replace(&mut watcher.quiet, true) {
                    quiet.push(*id);
                }
            }
            for id in quiet {
                stream.control(&response(&self.header, seen, id));
            }
        }
    }
}

fn response(header: &Header, revision: i64, watch_id: i64) -> WatchResponse {
    WatchResponse {
        header: Some(header(revision)),
        watch_id,
        ..Default::default()
    }
}
