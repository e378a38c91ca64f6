//! The fields of a JSON object: a flat vector, searched linearly while small and by bisection when it is a sorted map.

use super::{Str, Value};

/// From this size an object is kept sorted, so that a hostile document with a million keys costs n log n, not n².
/// No struct of the API has this many fields; Go prints maps sorted anyway.
const MAX_UNSORTED: usize = 128;

/// Below this size a linear scan beats bisection.
const LINEAR: usize = 8;

/// A struct keeps the order of insertion (the schema's order); a map (`Object::map`) is sorted by key, as Go prints maps.
#[derive(Clone, Debug, Default)]
pub struct Object {
    fields: Vec<(Str, Value)>,
    sorted: bool,
}

impl Object {
    /// An object in order of insertion.
    pub const fn new() -> Object {
        Object {
            fields: Vec::new(),
            sorted: false,
        }
    }

    /// An object sorted by key.
    pub const fn map() -> Object {
        Object {
            fields: Vec::new(),
            sorted: true,
        }
    }

    pub fn with_capacity(capacity: usize) -> Object {
        Object {
            fields: Vec::with_capacity(capacity),
            sorted: false,
        }
    }

    /// A map from pairs in any order; of equal keys the last one counts.
    pub fn from_pairs(mut fields: Vec<(Str, Value)>) -> Object {
        sort_last_wins(&mut fields);
        Object { fields, sorted: true }
    }

    /// A struct's fields in their final order. The caller vouches that keys are distinct.
    pub(crate) fn from_ordered(fields: Vec<(Str, Value)>) -> Object {
        Object {
            fields,
            sorted: false,
        }
    }

    /// A map to be filled by `push` in any order and then sorted by `sort_if_map`.
    pub(crate) fn unsorted_map() -> Object {
        Object {
            fields: Vec::new(),
            sorted: true,
        }
    }

    pub(crate) fn push(&mut self, key: Str, value: Value) {
        self.fields.push((key, value));
    }

    /// Restores the order of a map after `push`.
    pub(crate) fn sort_if_map(&mut self) {
        if self.sorted {
            sort_last_wins(&mut self.fields);
        }
    }

    pub fn len(&self) -> usize {
        self.fields.len()
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.position(key).is_ok()
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.position(key).ok().map(|i| &self.fields[i].1)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.position(key).ok().map(|i| &mut self.fields[i].1)
    }

    /// The value of `key`, made `Null` first where absent.
    pub fn entry(&mut self, key: impl Into<Str>) -> &mut Value {
        let key = key.into();
        let i = match self.position(&key) {
            Ok(i) => i,
            Err(at) => self.add(at, key, Value::Null),
        };
        &mut self.fields[i].1
    }

    pub fn insert(&mut self, key: impl Into<Str>, value: Value) -> Option<Value> {
        let key = key.into();
        match self.position(&key) {
            Ok(i) => Some(std::mem::replace(&mut self.fields[i].1, value)),
            Err(at) => {
                self.add(at, key, value);
                None
            }
        }
    }

    /// Adds a field that is not there yet at a place of a struct's order.
    pub(crate) fn insert_at(&mut self, place: usize, key: Str, value: Value) {
        let place = if self.sorted {
            self.fields.partition_point(|(own, _)| *own < key)
        } else {
            place
        };
        self.fields.insert(place, (key, value));
    }

    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let i = self.position(key).ok()?;
        Some(self.fields.remove(i).1)
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&str, &mut Value) -> bool) {
        self.fields.retain_mut(|(key, value)| keep(key, value));
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> + DoubleEndedIterator {
        self.fields.iter().map(|(key, value)| (key.as_str(), value))
    }

    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&str, &mut Value)> {
        self.fields.iter_mut().map(|(key, value)| (key.as_str(), value))
    }

    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.fields.iter().map(|(key, _)| key.as_str())
    }

    pub fn values(&self) -> impl ExactSizeIterator<Item = &Value> {
        self.fields.iter().map(|(_, value)| value)
    }

    pub(crate) fn pairs(&self) -> &[(Str, Value)] {
        &self.fields
    }

    pub(crate) fn pairs_mut(&mut self) -> impl Iterator<Item = (&Str, &mut Value)> {
        self.fields.iter_mut().map(|(key, value)| (&*key, value))
    }

    fn position(&self, key: &str) -> Result<usize, usize> {
        if self.sorted && self.fields.len() > LINEAR {
            return self.fields.binary_search_by(|(own, _)| own.as_str().cmp(key));
        }
        match self.fields.iter().position(|(own, _)| own.as_str() == key) {
            Some(i) => Ok(i),
            None if self.sorted => Err(self.fields.partition_point(|(own, _)| own.as_str() < key)),
            None => Err(self.fields.len()),
        }
    }

    fn add(&mut self, at: usize, key: Str, value: Value) -> usize {
        if self.sorted || self.fields.len() < MAX_UNSORTED {
            self.fields.insert(at, (key, value));
            return at;
        }
        self.fields.sort_by(|a, b| a.0.cmp(&b.0));
        self.sorted = true;
        let at = self.fields.partition_point(|(own, _)| own < &key);
        self.fields.insert(at, (key, value));
        at
    }
}

/// Sorts by key and keeps the last of each run of equal keys.
fn sort_last_wins(fields: &mut Vec<(Str, Value)>) {
    if fields.is_sorted_by(|a, b| a.0 < b.0) {
        return;
    }
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            std::mem::swap(&mut later.1, &mut kept.1);
        }
        same
    });
}

/// Equality does not depend on the order of fields, as in JSON.
impl PartialEq for Object {
    fn eq(&self, other: &Object) -> bool {
        self.len() == other.len() && self.iter().all(|(key, value)| other.get(key) == Some(value))
    }
}

impl<K: Into<Str>> FromIterator<(K, Value)> for Object {
    fn from_iter<T: IntoIterator<Item = (K, Value)>>(fields: T) -> Object {
        let mut object = Object::new();
        for (key, value) in fields {
            object.insert(key, value);
        }
        object
    }
}

impl IntoIterator for Object {
    type Item = (Str, Value);
    type IntoIter = std::vec::IntoIter<(Str, Value)>;
    fn into_iter(self) -> Self::IntoIter {
        self.fields.into_iter()
    }
}
