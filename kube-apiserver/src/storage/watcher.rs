//! Those who watch one resource, indexed by what they can possibly be interested in.
//!
//! A watcher stands in exactly one list: that of its name, its node, its namespace, or everything. An event looks into the
//! lists of its own name, node(s) and namespace, so the cost of an event is the number of those who may want it.

use std::sync::Arc;

use apimachinery::selector::{FieldSelector, LabelSelector, Labels};
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::object::CachedObject;
use super::watch_cache::{EventKind, Queued, WatchCache, WatchEvent, object_key};

/// Events a watcher may lag behind before it is closed: a client that reads at all drains them in milliseconds.
const QUEUE: usize = 4096;

/// What a watcher (or list) asks for.
#[derive(Clone, Default)]
pub struct Interest {
    /// `None` = all namespaces.
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

impl Labels for CachedObject {
    fn label(&self, key: &str) -> Option<&str> {
        CachedObject::label(self, key)
    }
}

/// An event as one watcher must see it: an object that leaves the selection is deleted for that watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen(pub EventKind);

impl Interest {
    pub fn in_namespace(namespace: &str) -> Interest {
        Interest {
            namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
            ..Default::default()
        }
    }

    pub fn matches(&self, object: &CachedObject) -> bool {
        self.namespace
            .as_deref()
            .is_none_or(|namespace| namespace == &*object.namespace)
            && self.name.as_deref().is_none_or(|name| name == &*object.name)
            && (self.labels.is_everything() || self.labels.matches(object))
            && (self.fields.is_everything()
                || self
                    .fields
                    .matches(|field| object.field(field).unwrap_or_default()))
    }

    /// True if nothing but namespace and name select.
    pub fn selects_all(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    pub fn sees(&self, event: &WatchEvent) -> Option<Seen> {
        let now = event.kind != EventKind::Deleted && self.matches(&event.object);
        let before = event
            .previous
            .as_ref()
            .is_some_and(|previous| self.matches(previous));
        match (before, now) {
            (false, false) => None,
            (false, true) => Some(Seen(EventKind::Added)),
            (true, true) => Some(Seen(EventKind::Modified)),
            (true, false) => Some(Seen(EventKind::Deleted)),
        }
    }

    fn scope(&self, indexed_field: Option<&str>) -> Scope {
        let name = self
            .name
            .as_deref()
            .or_else(|| self.fields.requires("metadata.name"));
        let namespace = self
            .namespace
            .as_deref()
            .or_else(|| self.fields.requires("metadata.namespace"));
        if let Some(name) = name {
            return Scope::Name(name.into());
        }
        if let Some(value) = indexed_field.and_then(|field| self.fields.requires(field)) {
            return Scope::Field(value.into());
        }
        namespace.map_or(Scope::All, |namespace| Scope::Namespace(namespace.into()))
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Scope {
    /// Of an object, in whichever namespace: the watcher's own test does the rest.
    Name(Box<str>),
    /// A value of the indexed field (`spec.nodeName`).
    Field(Box<str>),
    Namespace(Box<str>),
    All,
}

/// Why the server ends a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The client did not read fast enough.
    TooSlow,
    /// The cache was listed anew and cannot say what happened in between.
    Relisted,
}

#[derive(Default)]
pub(super) struct Watchers {
    lists: HashMap<Scope, Vec<Watcher>>,
    /// Position of the indexed field in the objects' `fields`.
    indexed: Option<usize>,
    next_id: u64,
    count: usize,
}

struct Watcher {
    id: u64,
    interest: Arc<Interest>,
    queue: mpsc::Sender<Queued>,
    closed: Arc<Mutex<Option<Closed>>>,
}

impl Watchers {
    pub fn new(indexed: Option<usize>) -> Watchers {
        Watchers {
            indexed,
            ..Default::default()
        }
    }

    pub fn register(&mut self, cache: Arc<WatchCache>, interest: Interest, backlog: Vec<Queued>) -> Watch {
        let (queue, events) = mpsc::channel(QUEUE);
        let closed = Arc::new(Mutex::new(None));
        let interest = Arc::new(interest);
        let id = self.next_id;
        self.next_id += 1;
        self.count += 1;
        let scope = interest.scope(self.indexed_label(&cache));
        let watcher = Watcher {
            id,
            interest: interest.clone(),
            queue,
            closed: closed.clone(),
        };
        self.lists.entry(scope).or_default().push(watcher);
        Watch {
            cache,
            id,
            interest,
            backlog: backlog.into(),
            events,
            closed,
        }
    }

    fn indexed_label(&self, cache: &WatchCache) -> Option<&'static str> {
        self.indexed.map(|at| cache.shape.selectable[at].label)
    }

    pub fn unregister(&mut self, id: u64, interest: &Interest) {
        let label = self.indexed.map(|_| "spec.nodeName");
        let scope = interest.scope(label);
        let Some(list) = self.lists.get_mut(&scope) else {
            return;
        };
        let before = list.len();
        list.retain(|watcher| watcher.id != id);
        self.count -= before - list.len();
        if list.is_empty() {
            self.lists.remove(&scope);
        }
    }

    pub fn dispatch(&mut self, event: &Arc<WatchEvent>) {
        if self.count == 0 {
            return;
        }
        let object = &event.object;
        self.send(&Scope::All, event);
        self.send(&Scope::Name(object.name.clone()), event);
        if !object.namespace.is_empty() {
            self.send(&Scope::Namespace(object.namespace.clone()), event);
        }
        if let Some(at) = self.indexed {
            self.send(&Scope::Field(object.fields[at].clone()), event);
            if let Some(previous) = event
                .previous
                .as_ref()
                .filter(|p| p.fields[at] != object.fields[at])
            {
                self.send(&Scope::Field(previous.fields[at].clone()), event);
            }
        }
    }

    fn send(&mut self, scope: &Scope, event: &Arc<WatchEvent>) {
        let Some(list) = self.lists.get_mut(scope) else {
            return;
        };
        let before = list.len();
        list.retain(|watcher| watcher.offer(event));
        self.count -= before - list.len();
        if list.is_empty() {
            self.lists.remove(scope);
        }
    }

    pub fn close_all(&mut self, why: Closed) {
        for watcher in self.lists.values().flatten() {
            *watcher.closed.lock() = Some(why);
        }
        self.lists.clear();
        self.count = 0;
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.count
    }
}

impl Watcher {
    /// False = it lags too far behind or is gone.
    fn offer(&self, event: &Arc<WatchEvent>) -> bool {
        let Some(seen) = self.interest.sees(event) else {
            return true;
        };
        match self.queue.try_send((seen, event.clone())) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                *self.closed.lock() = Some(Closed::TooSlow);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

/// The receiving end. Dropping it unregisters the watcher.
pub struct Watch {
    cache: Arc<WatchCache>,
    id: u64,
    interest: Arc<Interest>,
    backlog: std::collections::VecDeque<Queued>,
    events: mpsc::Receiver<Queued>,
    closed: Arc<Mutex<Option<Closed>>>,
}

impl Watch {
    pub fn interest(&self) -> &Interest {
        &self.interest
    }

    /// The next event; `Err` when the server closed the watch.
    pub async fn next(&mut self) -> Result<Queued, Closed> {
        if let Some(event) = self.backlog.pop_front() {
            return Ok(event);
        }
        match self.events.recv().await {
            Some(event) => Ok(event),
            None => Err(self.closed.lock().unwrap_or(Closed::Relisted)),
        }
    }

    /// An event that is already here.
    pub fn try_next(&mut self) -> Option<Queued> {
        self.backlog.pop_front().or_else(|| self.events.try_recv().ok())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.cache.unregister(self.id, &self.interest);
    }
}

/// For tests and logs.
impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = object_key(
            self.interest.namespace.as_deref().unwrap_or("*"),
            self.interest.name.as_deref().unwrap_or("*"),
        );
        f.debug_struct("Watch")
            .field("id", &self.id)
            .field("of", &key)
            .finish()
    }
}
