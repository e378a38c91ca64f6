//! One resource's objects and recent history in memory.
//!
//! `State` is changed only by the feed's task, under the lock: map, ring, observers and watchers move together, so that a
//! snapshot taken with a watcher's registration has neither gap nor overlap.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use imbl::OrdMap;
use parking_lot::RwLock;

use super::object::{CachedObject, Shape};
use super::watcher::{Closed, Interest, Seen, Watch, Watchers};

/// History is kept at least this long, so that a client that lost its connection can resume.
const RING_KEEP: Duration = Duration::from_secs(75);

/// Events kept however old they are.
const RING_MIN: usize = 100;

/// Events kept however fresh they are.
const RING_MAX: usize = 50_000;

/// `namespace/name`, or `name` for cluster-scoped objects: the order of keys in etcd.
pub type ObjectKey = Arc<str>;
pub type Objects = OrdMap<ObjectKey, Arc<CachedObject>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Added,
    Modified,
    Deleted,
}

impl EventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Added => "ADDED",
            EventKind::Modified => "MODIFIED",
            EventKind::Deleted => "DELETED",
        }
    }
}

/// One change. On `Deleted`, `object` is the last state at the revision of the deletion.
pub struct WatchEvent {
    pub kind: EventKind,
    pub object: Arc<CachedObject>,
    pub previous: Option<Arc<CachedObject>>,
    pub revision: i64,
    at: Instant,
    frames: [OnceLock<Bytes>; 2],
}

/// Media types of watch frames that are shared between watchers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    Json,
    Protobuf,
}

impl WatchEvent {
    fn new(
        kind: EventKind,
        object: Arc<CachedObject>,
        previous: Option<Arc<CachedObject>>,
        at: Instant,
    ) -> Arc<WatchEvent> {
        Arc::new(WatchEvent {
            kind,
            revision: object.resource_version,
            object,
            previous,
            at,
            frames: Default::default(),
        })
    }

    /// The encoded frame, made by the first watcher that needs it.
    pub fn frame(&self, media: Media, encode: impl FnOnce() -> Bytes) -> Bytes {
        self.frames[media as usize].get_or_init(encode).clone()
    }
}

pub type Observer = Box<dyn Fn(&WatchEvent) + Send + Sync>;

pub struct WatchCache {
    pub shape: Arc<Shape>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    objects: Objects,
    ring: VecDeque<Arc<WatchEvent>>,
    /// A watch can start after this revision or any later one.
    floor: i64,
    /// The last change of this resource (or the initial list).
    revision: i64,
    observers: Vec<Observer>,
    watchers: Watchers,
}

/// All objects at one moment. Cheap to clone, never changes.
#[derive(Clone, Default)]
pub struct Snapshot {
    pub objects: Objects,
    /// Revision of the last change of this resource that the snapshot has; the feed's revision may be later.
    pub revision: i64,
}

impl Snapshot {
    pub fn iter(&self) -> impl Iterator<Item = &Arc<CachedObject>> {
        self.objects.iter().map(|(_, object)| object)
    }

    pub fn namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<CachedObject>> {
        let prefix = format!("{namespace}/");
        let from: ObjectKey = prefix.as_str().into();
        self.objects
            .range(from..)
            .take_while(move |(key, _)| key.starts_with(&prefix))
            .map(|(_, object)| object)
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<CachedObject>> {
        with_key(namespace, name, |key| self.objects.get(key))
    }
}

pub fn object_key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}/{name}")
    }
}

/// Calls `f` with the key, made on the stack where it fits.
fn with_key<R>(namespace: &str, name: &str, f: impl FnOnce(&str) -> R) -> R {
    if namespace.is_empty() {
        return f(name);
    }
    let mut key = smallvec::SmallVec::<[u8; 192]>::new();
    key.extend_from_slice(namespace.as_bytes());
    key.push(b'/');
    key.extend_from_slice(name.as_bytes());
    // Two strings and a slash are UTF-8; an empty key would only find nothing.
    f(std::str::from_utf8(&key).unwrap_or_default())
}

/// A change as etcd tells it.
pub enum Change {
    Put(Arc<CachedObject>),
    Delete { key: String, revision: i64 },
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("too old resource version: {wanted} ({floor})")]
pub struct TooOld {
    pub wanted: i64,
    pub floor: i64,
}

impl WatchCache {
    pub fn new(shape: Arc<Shape>) -> WatchCache {
        let indexed = shape.selectable.iter().position(|s| s.label == "spec.nodeName");
        let state = State {
            watchers: Watchers::new(indexed),
            ..Default::default()
        };
        WatchCache {
            shape,
            state: RwLock::new(state),
        }
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<CachedObject>> {
        let state = self.state.read();
        with_key(namespace, name, |key| state.objects.get(key).cloned())
    }

    pub fn snapshot(&self) -> Snapshot {
        let state = self.state.read();
        Snapshot {
            objects: state.objects.clone(),
            revision: state.revision,
        }
    }

    pub fn observe(&self, observer: Observer) {
        let mut state = self.state.write();
        let now = Instant::now();
        for (_, object) in &state.objects {
            observer(&WatchEvent::new(EventKind::Added, object.clone(), None, now));
        }
        state.observers.push(observer);
    }

    /// Events after `revision`, then live ones.
    pub fn watch_from(self: &Arc<Self>, interest: Interest, revision: i64) -> Result<Watch, TooOld> {
        let mut state = self.state.write();
        if revision < state.floor {
            return Err(TooOld {
                wanted: revision,
                floor: state.floor,
            });
        }
        let start = state.ring.partition_point(|event| event.revision <= revision);
        let backlog = state
            .ring
            .range(start..)
            .filter_map(|event| interest.sees(event).map(|seen| (seen, event.clone())))
            .collect();
        Ok(state.watchers.register(self.clone(), interest, backlog))
    }

    /// What there is now, and live events after it.
    pub fn watch_with_state(self: &Arc<Self>, interest: Interest) -> (Snapshot, Watch) {
        let mut state = self.state.write();
        let snapshot = Snapshot {
            objects: state.objects.clone(),
            revision: state.revision,
        };
        (
            snapshot,
            state.watchers.register(self.clone(), interest, Vec::new()),
        )
    }

    pub(super) fn unregister(&self, id: u64, interest: &Interest) {
        self.state.write().watchers.unregister(id, interest);
    }

    /// Takes changes in order. Called by the feed's task only.
    pub fn apply(&self, changes: impl Iterator<Item = Change>) {
        let mut state = self.state.write();
        let now = Instant::now();
        for change in changes {
            if let Some(event) = state.change(change, now) {
                state.tell(event);
            }
        }
        state.prune(now);
    }

    /// Replaces everything by a fresh list at `revision`: history before it is lost, so watchers are closed; observers see the difference.
    pub fn replace(&self, listed: Vec<Arc<CachedObject>>, revision: i64) {
        let mut state = self.state.write();
        let now = Instant::now();
        let mut fresh = Objects::new();
        for object in listed {
            fresh.insert(object_key(&object.namespace, &object.name).into(), object);
        }
        let old = std::mem::replace(&mut state.objects, fresh);
        state.observe_difference(&old, revision, now);
        state.ring.clear();
        state.floor = revision;
        state.revision = revision;
        state.watchers.close_all(Closed::Relisted);
    }

    #[cfg(test)]
    fn watchers(&self) -> usize {
        self.state.read().watchers.len()
    }
}

impl State {
    fn change(&mut self, change: Change, now: Instant) -> Option<Arc<WatchEvent>> {
        match change {
            Change::Put(object) => Some(self.put(object, now)),
            Change::Delete { key, revision } => self.delete(&key, revision, now),
        }
    }

    fn put(&mut self, object: Arc<CachedObject>, now: Instant) -> Arc<WatchEvent> {
        let key = with_key(&object.namespace, &object.name, |key| {
            self.objects.get_key_value(key).map(|(k, _)| k.clone())
        });
        let key = key.unwrap_or_else(|| object_key(&object.namespace, &object.name).into());
        let previous = self.objects.insert(key, object.clone());
        let kind = if previous.is_some() {
            EventKind::Modified
        } else {
            EventKind::Added
        };
        WatchEvent::new(kind, object, previous, now)
    }

    fn delete(&mut self, key: &str, revision: i64, now: Instant) -> Option<Arc<WatchEvent>> {
        let previous = self.objects.remove(key)?;
        match previous.deleted_at(revision) {
            Ok(last) => Some(WatchEvent::new(
                EventKind::Deleted,
                Arc::new(last),
                Some(previous),
                now,
            )),
            Err(reason) => {
                tracing::error!(key, err = %reason, "Cannot make the deletion event");
                None
            }
        }
    }

    fn tell(&mut self, event: Arc<WatchEvent>) {
        self.revision = event.revision;
        for observer in &self.observers {
            observer(&event);
        }
        self.watchers.dispatch(&event);
        self.ring.push_back(event);
    }

    fn prune(&mut self, now: Instant) {
        while self.ring.len() > RING_MIN {
            let stale = self
                .ring
                .front()
                .is_some_and(|event| now.duration_since(event.at) > RING_KEEP);
            if !stale && self.ring.len() <= RING_MAX {
                return;
            }
            if let Some(event) = self.ring.pop_front() {
                self.floor = event.revision;
            }
        }
    }

    fn observe_difference(&self, old: &Objects, revision: i64, now: Instant) {
        let gone = old.iter().filter(|(key, _)| !self.objects.contains_key(*key));
        let gone = gone.filter_map(|(_, object)| {
            Some((
                EventKind::Deleted,
                Arc::new(object.deleted_at(revision).ok()?),
                Some(object.clone()),
            ))
        });
        let changed = self
            .objects
            .iter()
            .filter_map(|(key, object)| match old.get(key) {
                None => Some((EventKind::Added, object.clone(), None)),
                Some(previous) if previous.resource_version != object.resource_version => {
                    Some((EventKind::Modified, object.clone(), Some(previous.clone())))
                }
                Some(_) => None,
            });
        for (kind, object, previous) in gone.chain(changed) {
            let event = WatchEvent::new(kind, object, previous, now);
            self.observers.iter().for_each(|observer| observer(&event));
        }
    }
}

/// How a watcher sees an event, with the event itself.
pub type Queued = (Seen, Arc<WatchEvent>);

#[cfg(test)]
mod tests;
