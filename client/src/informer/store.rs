//! The objects of one kind by key and by index.

use crate::object::{Object, object_key};
use parking_lot::RwLock;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::watch;

type IndexFn<T> = Box<dyn Fn(&T) -> Vec<String> + Send + Sync>;

pub struct Store<T> {
    inner: Arc<Inner<T>>,
}

impl<T> Clone for Store<T> {
    fn clone(&self) -> Self {
        Store {
            inner: self.inner.clone(),
        }
    }
}

struct Inner<T> {
    content: RwLock<Content<T>>,
    synced: watch::Sender<bool>,
}

struct Content<T> {
    objects: HashMap<Arc<str>, Arc<T>>,
    indexes: Vec<Index<T>>,
}

struct Index<T> {
    name: &'static str,
    of: IndexFn<T>,
    keys: HashMap<String, HashSet<Arc<str>>>,
}

impl<T: Object> Store<T> {
    pub(super) fn new() -> Self {
        let content = Content {
            objects: HashMap::new(),
            indexes: Vec::new(),
        };
        Store {
            inner: Arc::new(Inner {
                content: RwLock::new(content),
                synced: watch::Sender::new(false),
            }),
        }
    }

    /// A store that holds just these, for the tests of whoever reads stores.
    pub fn of(objects: impl IntoIterator<Item = T>) -> Self {
        let store = Self::new();
        store.fill(objects);
        store
    }

    /// As [`Store::of`], for a store that has indexes already.
    pub fn fill(&self, objects: impl IntoIterator<Item = T>) {
        for object in objects {
            self.insert(Arc::new(object));
        }
        self.set_synced();
    }

    /// `namespace/name`, or `name` for what has no namespace.
    pub fn get(&self, key: &str) -> Option<Arc<T>> {
        self.inner.content.read().objects.get(key).cloned()
    }

    pub fn list(&self) -> Vec<Arc<T>> {
        self.inner.content.read().objects.values().cloned().collect()
    }

    pub fn keys(&self) -> Vec<Arc<str>> {
        self.inner.content.read().objects.keys().cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.inner.content.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Objects for which the index function named `value`; none for an index that was never added.
    pub fn by_index(&self, index: &str, value: &str) -> Vec<Arc<T>> {
        let content = self.inner.content.read();
        let Some(index) = content.indexes.iter().find(|i| i.name == index) else {
            return Vec::new();
        };
        let keys = index.keys.get(value).into_iter().flatten();
        keys.filter_map(|key| content.objects.get(key).cloned()).collect()
    }

    pub fn is_synced(&self) -> bool {
        *self.inner.synced.borrow()
    }

    pub async fn wait_synced(&self) {
        // The sender lives as long as this store: waiting cannot fail.
        drop(self.inner.synced.subscribe().wait_for(|synced| *synced).await);
    }

    pub(super) fn add_index(&self, name: &'static str, of: IndexFn<T>) {
        let mut content = self.inner.content.write();
        let mut index = Index {
            name,
            of,
            keys: HashMap::new(),
        };
        for (key, object) in &content.objects {
            index.add(key, object);
        }
        content.indexes.push(index);
    }

    /// What was there before.
    pub(super) fn insert(&self, object: Arc<T>) -> Option<Arc<T>> {
        let key: Arc<str> = object_key(&*object).into();
        let content = &mut *self.inner.content.write();
        let old = content.objects.insert(key.clone(), object.clone());
        for index in &mut content.indexes {
            if let Some(old) = &old {
                index.remove(&key, old);
            }
            index.add(&key, &object);
        }
        old
    }

    pub(super) fn remove(&self, key: &str) -> Option<Arc<T>> {
        let content = &mut *self.inner.content.write();
        let old = content.objects.remove(key)?;
        for index in &mut content.indexes {
            index.remove(key, &old);
        }
        Some(old)
    }

    /// False when it was synced already.
    pub(super) fn set_synced(&self) -> bool {
        !self.inner.synced.send_replace(true)
    }
}

impl<T> Index<T> {
    fn add(&mut self, key: &Arc<str>, object: &T) {
        for value in (self.of)(object) {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &str, object: &T) {
        for value in (self.of)(object) {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }
}
