//! The owner of all watchers: one thread, one closed set of events.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use etcd_api::etcdserverpb::{
    ResponseHeader, WatchCreateRequest, WatchResponse, watch_create_request::FilterType,
};
use tracing::warn;

use super::catch_up::{self, Job, Piece};
use super::encode::{self, Bodies, Body, Event, events_of};
use super::groups::{GroupId, Groups, WatcherId};
use super::outbox::Outbox;
use super::{Batch, Interest};
use crate::mvcc::key::KeyRange;
use crate::mvcc::{Error, Store};
use crate::raft::inbox::Inbox;

/// Recent frames for watchers that come from history; beyond either limit the oldest goes.
const RECENT_FRAMES: usize = 64;
const RECENT_BYTES: usize = 4 * 1024 * 1024;
/// Watchers of one stream.
const MAX_WATCHERS: usize = 100_000;
/// etcd's id in answers that are about no watcher or about all of them.
pub const INVALID_WATCH_ID: i64 = -1;

pub enum HubEvent {
    Batch(Batch),
    Open(u64, Arc<Outbox>),
    Create(u64, WatchCreateRequest),
    /// A creation that its user may not have, with the reason.
    Refuse(u64, String),
    Cancel(u64, i64),
    Progress(u64),
    CaughtUp(Piece),
    Drained(u64),
    Close(u64),
    Tick,
    Stop,
}

/// The hub's address for everyone else.
pub struct Hub {
    events: Inbox<HubEvent>,
    watchers: AtomicUsize,
    streams: AtomicI64,
    slow: AtomicUsize,
}

impl Default for Hub {
    fn default() -> Self {
        Hub {
            events: Inbox::default(),
            watchers: AtomicUsize::new(0),
            streams: AtomicI64::new(0),
            slow: AtomicUsize::new(0),
        }
    }
}

impl Hub {
    pub fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::SeqCst) > 0
    }

    pub fn watchers(&self) -> usize {
        self.watchers.load(Ordering::SeqCst)
    }

    pub fn slow_watchers(&self) -> usize {
        self.slow.load(Ordering::Relaxed)
    }

    pub fn publish(&self, batch: Batch) {
        self.events.push(HubEvent::Batch(batch));
    }

    pub fn is_idle(&self) -> bool {
        self.events.is_empty()
    }

    /// Everything that waits, into the empty `batch`; blocks while there is nothing, at most `timeout`.
    pub fn drain(&self, batch: &mut Vec<HubEvent>, timeout: Option<Duration>) {
        self.events.drain(batch, timeout);
    }

    pub fn send(&self, event: HubEvent) {
        self.events.push(event);
    }

    pub fn open(&self, outbox: Arc<Outbox>) -> u64 {
        let id = self.streams.fetch_add(1, Ordering::Relaxed) as u64;
        self.send(HubEvent::Open(id, outbox));
        id
    }
}

/// Fills in the header of a response for a revision.
pub type Header = Arc<dyn Fn(i64) -> ResponseHeader + Send + Sync>;

struct Watcher {
    interest: Arc<Interest>,
    group: GroupId,
    /// The next revision that it has to see.
    next: i64,
    state: Seeing,
    fragment: bool,
    progress_notify: bool,
    /// Nothing was sent since the last tick.
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Seeing {
    /// Everything the hub has seen.
    Present,
    /// Waits for room in the outbox, then for history.
    Behind,
    /// A piece of history is being read for it.
    CatchingUp,
}

struct Stream {
    outbox: Arc<Outbox>,
    watchers: BTreeMap<i64, Watcher>,
    next_id: i64,
    /// A progress request that has to wait until this revision was seen by all.
    progress: Option<i64>,
}

pub struct HubThread {
    hub: Arc<Hub>,
    store: Arc<Store>,
    header: Header,
    history: Arc<Inbox<Option<Job>>>,
    streams: BTreeMap<u64, Stream>,
    groups: Groups,
    /// Everything up to here went to the watchers that are present.
    seen: i64,
    recent: VecDeque<Recent>,
    recent_bytes: usize,
}

struct Recent {
    before: i64,
    batch: Batch,
}

impl HubThread {
    pub fn new(hub: Arc<Hub>, store: Arc<Store>, header: Header, history: Arc<Inbox<Option<Job>>>) -> Self {
        let seen = store.current();
        HubThread {
            hub,
            store,
            header,
            history,
            streams: BTreeMap::new(),
            groups: Groups::default(),
            seen,
            recent: VecDeque::new(),
            recent_bytes: 0,
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
            HubEvent::Open(id, outbox) => {
                self.streams.insert(
                    id,
                    Stream {
                        outbox,
                        watchers: BTreeMap::new(),
                        next_id: 0,
                        progress: None,
                    },
                );
            }
            HubEvent::Create(stream, request) => self.create(stream, request),
            HubEvent::Refuse(stream, reason) => self.refuse(stream, &reason),
            HubEvent::Cancel(stream, id) => self.cancel(stream, id),
            HubEvent::Progress(stream) => {
                let current = self.store.current();
                if !self.hub.is_watched() {
                    self.resume_at(current);
                }
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.progress = Some(current);
                }
                self.answer_progress(stream);
            }
            HubEvent::CaughtUp(piece) => self.caught_up(piece),
            HubEvent::Drained(stream) => self.drained(stream),
            HubEvent::Close(stream) => self.close(stream),
            HubEvent::Tick => self.tick(),
            HubEvent::Stop => {}
        }
    }

    fn create(&mut self, stream_id: u64, request: WatchCreateRequest) {
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        let interest = interest(&request);
        let refusal = stream.refuse(&request, &interest);
        // Counted before the revision is looked at, so that no frame in between is made without its changes (see `Applier::finish_frame`).
        let first = self.hub.watchers.fetch_add(1, Ordering::SeqCst) == 0;
        let current = self.store.current();
        if first {
            self.resume_at(current);
        }
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        let id = if request.watch_id == 0 {
            stream.free_id()
        } else {
            request.watch_id
        };
        if let Some(reason) = refusal {
            self.hub.watchers.fetch_sub(1, Ordering::SeqCst);
            return refuse(&stream.outbox, (self.header)(current), reason);
        }
        let created = WatchResponse {
            header: Some((self.header)(current)),
            watch_id: id,
            created: true,
            ..Default::default()
        };
        stream.outbox.push(&encode::control(&created), &Bytes::new());
        let next = if request.start_revision == 0 {
            current + 1
        } else {
            request.start_revision
        };
        let (group, interest) = self.groups.join(interest, (stream_id, id));
        let state = if next > self.seen {
            Seeing::Present
        } else {
            Seeing::Behind
        };
        let (fragment, progress_notify) = (request.fragment, request.progress_notify);
        stream.watchers.insert(
            id,
            Watcher {
                interest,
                group,
                next,
                state,
                fragment,
                progress_notify,
                quiet: true,
            },
        );
        self.catch_up(stream_id, id);
    }

    fn refuse(&self, stream: u64, reason: &str) {
        if let Some(stream) = self.streams.get(&stream) {
            refuse(&stream.outbox, (self.header)(self.store.current()), reason);
        }
    }

    /// Frames that were made while nobody watched never came here. From the first watcher on they all do.
    fn resume_at(&mut self, current: i64) {
        if current > self.seen {
            self.seen = current;
            self.recent.clear();
            self.recent_bytes = 0;
        }
    }

    fn cancel(&mut self, stream_id: u64, id: i64) {
        if !self.remove(stream_id, id) {
            return;
        }
        let response = WatchResponse {
            header: Some((self.header)(self.seen)),
            watch_id: id,
            canceled: true,
            ..Default::default()
        };
        self.control(stream_id, &response);
    }

    fn control(&self, stream: u64, response: &WatchResponse) {
        if let Some(stream) = self.streams.get(&stream) {
            stream.outbox.push(&encode::control(response), &Bytes::new());
        }
    }

    fn remove(&mut self, stream_id: u64, id: i64) -> bool {
        let Some(watcher) = self
            .streams
            .get_mut(&stream_id)
            .and_then(|stream| stream.watchers.remove(&id))
        else {
            return false;
        };
        self.groups.leave(watcher.group, (stream_id, id));
        self.hub.watchers.fetch_sub(1, Ordering::SeqCst);
        true
    }

    fn close(&mut self, stream_id: u64) {
        let ids: Vec<i64> = self
            .streams
            .get(&stream_id)
            .map(|stream| stream.watchers.keys().copied().collect())
            .unwrap_or_default();
        for id in ids {
            self.remove(stream_id, id);
        }
        if let Some(stream) = self.streams.remove(&stream_id) {
            stream.outbox.close();
        }
        if self.streams.is_empty() {
            self.recent.clear();
            self.recent_bytes = 0;
        }
    }

    fn batch(&mut self, batch: Batch) {
        if batch.revision <= self.seen {
            return;
        }
        let before = self.seen;
        self.seen = batch.revision;
        match batch.changes {
            Some(_) => self.dispatch(before, batch),
            None => self.missed(),
        }
        let asking: Vec<u64> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.progress.is_some())
            .map(|(id, _)| *id)
            .collect();
        asking.into_iter().for_each(|stream| self.answer_progress(stream));
    }

    /// A frame whose changes nobody recorded: who should have seen them reads history.
    fn missed(&mut self) {
        self.recent.clear();
        self.recent_bytes = 0;
        let seen = self.seen;
        let mut behind = Vec::new();
        for (stream, watcher) in self
            .streams
            .iter_mut()
            .flat_map(|(stream, state)| state.watchers.iter_mut().map(move |item| (*stream, item)))
        {
            if watcher.1.state == Seeing::Present && watcher.1.next <= seen {
                watcher.1.state = Seeing::Behind;
                behind.push((stream, *watcher.0));
            }
        }
        behind
            .into_iter()
            .for_each(|(stream, id)| self.catch_up(stream, id));
    }

    fn dispatch(&mut self, before: i64, batch: Batch) {
        let mut events = events_of(&batch);
        let mut wanted: BTreeMap<GroupId, Vec<usize>> = BTreeMap::new();
        for (place, event) in events.iter().enumerate() {
            self.groups
                .matching(&event.key, |group| wanted.entry(group).or_default().push(place));
        }
        let mut behind = Vec::new();
        for (group, places) in wanted {
            self.dispatch_group(group, &places, &mut events, &batch, &mut behind);
        }
        self.remember(before, batch);
        behind
            .into_iter()
            .for_each(|(stream, id)| self.catch_up(stream, id));
    }

    fn dispatch_group(
        &mut self,
        group: GroupId,
        places: &[usize],
        events: &mut [Event],
        batch: &Batch,
        behind: &mut Vec<WatcherId>,
    ) {
        let Some(group) = self.groups.get(group) else {
            return;
        };
        let bodies = match bodies(&group.interest, places, events, batch, &self.store) {
            Ok(bodies) if bodies.is_empty() => return,
            Ok(bodies) => bodies,
            Err(source) => {
                // History says the same, and says it as a cancellation when it cannot be read.
                warn!(error = %source, "failed to read a previous value for watchers");
                Vec::new()
            }
        };
        for (stream_id, id) in &group.members {
            let Some(stream) = self.streams.get_mut(stream_id) else {
                continue;
            };
            let Some(watcher) = stream
                .watchers
                .get_mut(id)
                .filter(|watcher| watcher.state == Seeing::Present)
            else {
                continue;
            };
            let first = places.first().map_or(i64::MAX, |place| events[*place].revision());
            if watcher.next > batch.revision {
                continue;
            }
            // One that begins inside this frame is rare enough to be served from history.
            if watcher.next > first || bodies.is_empty() || !stream.outbox.has_room() {
                watcher.state = Seeing::Behind;
                behind.push((*stream_id, *id));
                continue;
            }
            send(
                &stream.outbox,
                &self.header,
                *id,
                watcher.fragment,
                &bodies,
                batch.revision,
            );
            watcher.quiet = false;
            watcher.next = batch.revision + 1;
        }
    }

    fn remember(&mut self, before: i64, batch: Batch) {
        self.recent_bytes += batch.bytes.len();
        self.recent.push_back(Recent { before, batch });
        while self.recent.len() > RECENT_FRAMES || self.recent_bytes > RECENT_BYTES {
            let Some(old) = self.recent.pop_front() else {
                return;
            };
            self.recent_bytes -= old.batch.bytes.len();
        }
    }

    /// Lets a watcher that is behind go on: from recent frames, or from history.
    fn catch_up(&mut self, stream_id: u64, id: i64) {
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        let Some(watcher) = stream
            .watchers
            .get_mut(&id)
            .filter(|watcher| watcher.state == Seeing::Behind)
        else {
            return;
        };
        if watcher.next > self.seen {
            watcher.state = Seeing::Present;
            return self.answer_progress(stream_id);
        }
        if !stream.outbox.has_room() {
            self.hub.slow.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if self
            .recent
            .front()
            .is_some_and(|oldest| oldest.before < watcher.next)
        {
            return self.replay(stream_id, id);
        }
        self.read_history(stream_id, id);
    }

    fn read_history(&mut self, stream_id: u64, id: i64) {
        let stream = self.streams.get_mut(&stream_id);
        if let Some(watcher) = stream.and_then(|stream| stream.watchers.get_mut(&id)) {
            watcher.state = Seeing::CatchingUp;
            self.history.push(Some(Job {
                stream: stream_id,
                watch_id: id,
                interest: watcher.interest.clone(),
                from: watcher.next,
                until: self.seen,
            }));
        }
    }

    /// Recent frames hold all that the watcher has missed.
    fn replay(&mut self, stream_id: u64, id: i64) {
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        let Some(watcher) = stream.watchers.get_mut(&id) else {
            return;
        };
        let missed = match missed_by(watcher, &self.recent, &self.store) {
            Ok(missed) => missed,
            Err(source) => {
                // History says the same, and says it as a cancellation when it cannot be read.
                warn!(error = %source, "failed to read a previous value for a watcher");
                return self.read_history(stream_id, id);
            }
        };
        send(
            &stream.outbox,
            &self.header,
            id,
            watcher.fragment,
            &missed,
            self.seen,
        );
        watcher.quiet &= missed.is_empty();
        watcher.next = watcher.next.max(self.seen + 1);
        watcher.state = Seeing::Present;
        self.answer_progress(stream_id);
    }

    fn caught_up(&mut self, piece: Piece) {
        let Some(stream) = self.streams.get_mut(&piece.stream) else {
            return;
        };
        let Some(watcher) = stream.watchers.get_mut(&piece.watch_id) else {
            return;
        };
        if let Some(error) = piece.failure {
            return self.fail(piece.stream, piece.watch_id, &error);
        }
        send(
            &stream.outbox,
            &self.header,
            piece.watch_id,
            watcher.fragment,
            &piece.bodies,
            piece.next - 1,
        );
        watcher.quiet &= piece.bodies.is_empty();
        watcher.next = piece.next;
        watcher.state = Seeing::Behind;
        self.catch_up(piece.stream, piece.watch_id);
    }

    fn fail(&mut self, stream: u64, id: i64, error: &Error) {
        self.remove(stream, id);
        let compact_revision = if matches!(error, Error::Compacted) {
            self.store.compacted()
        } else {
            0
        };
        let cancel_reason = if compact_revision == 0 {
            error.to_string()
        } else {
            String::new()
        };
        let header = Some((self.header)(self.seen));
        self.control(
            stream,
            &WatchResponse {
                header,
                watch_id: id,
                canceled: true,
                compact_revision,
                cancel_reason,
                ..Default::default()
            },
        );
    }

    fn drained(&mut self, stream_id: u64) {
        let Some(stream) = self.streams.get(&stream_id) else {
            return;
        };
        let behind: Vec<i64> = stream
            .watchers
            .iter()
            .filter(|(_, watcher)| watcher.state == Seeing::Behind)
            .map(|(id, _)| *id)
            .collect();
        behind.into_iter().for_each(|id| self.catch_up(stream_id, id));
    }

    /// One answer for all watchers of the stream, once all of them have seen what was current when it was asked.
    fn answer_progress(&mut self, stream_id: u64) {
        let Some(stream) = self.streams.get_mut(&stream_id) else {
            return;
        };
        let Some(asked) = stream.progress else { return };
        let ready = |watcher: &Watcher| watcher.state == Seeing::Present && watcher.next <= self.seen + 1;
        if self.seen < asked || !stream.watchers.values().all(ready) {
            return;
        }
        stream.progress = None;
        let response = WatchResponse {
            header: Some((self.header)(self.seen)),
            watch_id: INVALID_WATCH_ID,
            ..Default::default()
        };
        stream.outbox.push(&encode::control(&response), &Bytes::new());
    }

    /// Progress for those who asked for it and heard nothing since the last tick.
    fn tick(&mut self) {
        for stream in self.streams.values_mut() {
            for (id, watcher) in &mut stream.watchers {
                let due = watcher.progress_notify
                    && watcher.state == Seeing::Present
                    && watcher.next <= self.seen + 1;
                if due && std::mem::replace(&mut watcher.quiet, true) {
                    let response = WatchResponse {
                        header: Some((self.header)(self.seen)),
                        watch_id: *id,
                        ..Default::default()
                    };
                    stream.outbox.push(&encode::control(&response), &Bytes::new());
                }
            }
        }
    }
}

/// The events of recent frames that a watcher has not seen.
fn missed_by(watcher: &Watcher, recent: &VecDeque<Recent>, store: &Store) -> std::io::Result<Vec<Body>> {
    let (interest, mut all) = (&watcher.interest, Bodies::default());
    for Recent { batch, .. } in recent
        .iter()
        .filter(|recent| recent.batch.revision >= watcher.next)
    {
        for event in &mut events_of(batch) {
            let wanted = event.revision() >= watcher.next
                && interest.range.contains(&event.key)
                && event.is_wanted(interest);
            if wanted {
                let revision = event.revision();
                let bytes = event.encoded(interest.prev_kv, &store.storage, &batch.segments)?;
                all.push(revision, bytes);
            }
        }
    }
    all.close();
    Ok(all.done)
}

fn bodies(
    interest: &Interest,
    places: &[usize],
    events: &mut [Event],
    batch: &Batch,
    store: &Store,
) -> std::io::Result<Vec<Body>> {
    let mut bodies = Bodies::default();
    for place in places {
        let event = &mut events[*place];
        if event.is_wanted(interest) {
            bodies.push(
                event.change.version.main,
                event.encoded(interest.prev_kv, &store.storage, &batch.segments)?,
            );
        }
    }
    bodies.close();
    Ok(bodies.done)
}

/// The last response says how far everything was seen; the ones before it, how far they go themselves.
fn send(outbox: &Outbox, header: &Header, id: i64, fragment: bool, bodies: &[Body], seen: i64) {
    for (place, body) in bodies.iter().enumerate() {
        let revision = if place + 1 == bodies.len() {
            seen
        } else {
            body.last
        };
        let header = header(revision);
        if !fragment || body.bytes.len() <= encode::RESPONSE_BYTES {
            outbox.push(
                &encode::event_head(&header, id, false, body.bytes.len()),
                &body.bytes,
            );
            continue;
        }
        let parts = encode::fragments(body);
        for (number, part) in parts.iter().enumerate() {
            outbox.push(
                &encode::event_head(&header, id, number + 1 < parts.len(), part.len()),
                part,
            );
        }
    }
}

fn refuse(outbox: &Outbox, header: ResponseHeader, reason: &str) {
    let response = WatchResponse {
        header: Some(header),
        watch_id: INVALID_WATCH_ID,
        created: true,
        canceled: true,
        cancel_reason: reason.to_owned(),
        ..Default::default()
    };
    outbox.push(&encode::control(&response), &Bytes::new());
}

impl Stream {
    fn refuse(&self, request: &WatchCreateRequest, interest: &Interest) -> Option<&'static str> {
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

    fn free_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }
}

/// What a request watches. An empty key is the smallest one.
pub fn range_of(request: &WatchCreateRequest) -> KeyRange {
    let key = if request.key.is_empty() {
        Bytes::from_static(&[0])
    } else {
        Bytes::copy_from_slice(&request.key)
    };
    KeyRange::new(&key, &Bytes::copy_from_slice(&request.range_end))
}

fn interest(request: &WatchCreateRequest) -> Interest {
    let filters: HashSet<i32> = request.filters.iter().copied().collect();
    Interest {
        range: range_of(request),
        prev_kv: request.prev_kv,
        no_put: filters.contains(&(FilterType::Noput as i32)),
        no_delete: filters.contains(&(FilterType::Nodelete as i32)),
    }
}

/// The threads of the hub: its own, the one that reads history, and the one that ticks.
pub fn spawn(
    hub: &Arc<Hub>,
    store: &Arc<Store>,
    header: Header,
    progress_interval: Duration,
) -> std::io::Result<Vec<std::thread::JoinHandle<()>>> {
    let history = Arc::new(Inbox::default());
    let thread = HubThread::new(hub.clone(), store.clone(), header, history.clone());
    let main = std::thread::Builder::new()
        .name("etcd-watch".into())
        .stack_size(1024 * 1024)
        .spawn(move || thread.run())?;
    let (reader_hub, reader_store) = (hub.clone(), store.clone());
    let reader = std::thread::Builder::new()
        .name("etcd-watch-past".into())
        .stack_size(512 * 1024)
        .spawn(move || read_history(&reader_hub, &reader_store, &history))?;
    let ticking = hub.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(progress_interval);
        loop {
            ticks.tick().await;
            ticking.send(HubEvent::Tick);
        }
    });
    Ok(vec![main, reader])
}

fn read_history(hub: &Hub, store: &Store, jobs: &Inbox<Option<Job>>) {
    let mut batch = Vec::new();
    loop {
        jobs.drain(&mut batch, None);
        for job in batch.drain(..) {
            match job {
                Some(job) => hub.send(HubEvent::CaughtUp(catch_up::read(store, job))),
                None => return,
            }
        }
    }
}
