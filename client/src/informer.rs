//! A local copy of one kind, kept current, with its changes told in order.
//!
//! [`reflector`] lists and watches; what it learns passes through one [`Store`] and then, on the same task, to every
//! handler: a handler sees each change once, in the order of the server, and what it sees is already in the store.
//! Nothing is queued in between, so a handler must be quick (put a key into a queue) and memory is bounded by the store.
//! There is no resync timer; a relist reconciles what was deleted while nobody watched.

mod reflector;
mod store;

pub use store::Store;

use crate::object::Object;
use crate::{Api, ListOptions};
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What happened to one object; handlers get it with `T = &Arc<object>`.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<T> {
    Added(T),
    /// Old, new.
    Modified(T, T),
    /// The last state known.
    Deleted(T),
    /// The first list is complete. Told once.
    Synced,
}

type Handler<T> = Arc<dyn Fn(Event<&Arc<T>>) + Send + Sync>;
type Transform<T> = Box<dyn Fn(&mut T) + Send + Sync>;

pub struct Informer<T> {
    inner: Arc<Inner<T>>,
}

impl<T> Clone for Informer<T> {
    fn clone(&self) -> Self {
        Informer {
            inner: self.inner.clone(),
        }
    }
}

struct Inner<T> {
    api: Api<T>,
    options: ListOptions,
    store: Store<T>,
    /// Held while a change is applied and told, so that a late handler joins between two changes.
    handlers: Mutex<Vec<Handler<T>>>,
    transform: Mutex<Transform<T>>,
    started: AtomicBool,
    task: Mutex<Option<tokio::task::AbortHandle>>,
}

impl<T: Object> Informer<T> {
    /// `options` may select by labels and fields; its other fields are the reflector's.
    pub fn new(api: Api<T>, options: ListOptions) -> Self {
        let inner = Inner {
            api,
            options,
            store: Store::new(),
            handlers: Mutex::default(),
            transform: Mutex::new(Box::new(drop_managed_fields)),
            started: AtomicBool::new(false),
            task: Mutex::default(),
        };
        Informer {
            inner: Arc::new(inner),
        }
    }

    /// Lets [`Store::by_index`] find objects by what `of` says of them. Must precede [`Informer::start`].
    pub fn index(self, name: &'static str, of: impl Fn(&T) -> Vec<String> + Send + Sync + 'static) -> Self {
        self.inner.store.add_index(name, Box::new(of));
        self
    }

    /// What to cut from an object before it is stored, in place of the default, which drops managedFields.
    pub fn transform(self, cut: impl Fn(&mut T) + Send + Sync + 'static) -> Self {
        *self.inner.transform.lock() = Box::new(cut);
        self
    }

    /// A handler that comes late is told of all that is in the store first.
    pub fn on_event(&self, handler: impl Fn(Event<&Arc<T>>) + Send + Sync + 'static) {
        let mut handlers = self.inner.handlers.lock();
        let handler: Handler<T> = Arc::new(handler);
        for object in self.inner.store.list() {
            tell(&handler, Event::Added(&object));
        }
        if self.inner.store.is_synced() {
            tell(&handler, Event::Synced);
        }
        handlers.push(handler);
    }

    /// Starts the reflector on the first call; later calls give the same store.
    pub fn start(&self) -> Store<T> {
        if !self.inner.started.swap(true, Ordering::AcqRel) {
            let task = tokio::spawn(reflector::run(self.clone()));
            *self.inner.task.lock() = Some(task.abort_handle());
        }
        self.store()
    }

    /// Ends the reflector for good: the kind is gone, or nobody asks for it any more.
    pub fn stop(&self) {
        if let Some(task) = self.inner.task.lock().take() {
            task.abort();
        }
    }

    pub fn store(&self) -> Store<T> {
        self.inner.store.clone()
    }

    fn cut(&self, object: &mut T) {
        (self.inner.transform.lock())(object);
    }

    /// Added, or modified when the store knows it already.
    fn upsert(&self, object: T) {
        let handlers = self.inner.handlers.lock();
        let new = Arc::new(object);
        match self.inner.store.insert(new.clone()) {
            None => self.tell_all(&handlers, Event::Added(&new)),
            Some(old) => self.tell_all(&handlers, Event::Modified(&old, &new)),
        }
    }

    /// `last` is the state of the deletion event; a relist has none and gives what the store had.
    fn remove(&self, key: &str, last: Option<T>) {
        let handlers = self.inner.handlers.lock();
        let stored = self.inner.store.remove(key);
        if let Some(gone) = last.map(Arc::new).or(stored) {
            self.tell_all(&handlers, Event::Deleted(&gone));
        }
    }

    fn synced(&self) {
        let handlers = self.inner.handlers.lock();
        if self.inner.store.set_synced() {
            self.tell_all(&handlers, Event::Synced);
        }
    }

    fn tell_all(&self, handlers: &[Handler<T>], event: Event<&Arc<T>>) {
        for handler in handlers {
            tell(handler, event.clone());
        }
    }
}

/// A handler's panic must not end the watch of everyone else.
fn tell<T: Object>(handler: &Handler<T>, event: Event<&Arc<T>>) {
    if catch_unwind(AssertUnwindSafe(|| handler(event))).is_err() {
        tracing::error!(kind = T::KIND, "An informer's handler panicked");
    }
}

fn drop_managed_fields<T: Object>(object: &mut T) {
    object.metadata_mut().managed_fields = None;
}

#[cfg(test)]
mod tests;
