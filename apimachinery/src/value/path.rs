//! Reading and writing by dotted path (`spec.template.spec.nodeName`), for strategies.
//!
//! A path names struct fields only. Map keys may hold dots: step to the map, then use `get`. Lists are stepped into by `list_at`.

use super::{Object, Value};

impl Value {
    pub fn at(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(self, |value, key| value.get(key))
    }

    pub fn at_mut(&mut self, path: &str) -> Option<&mut Value> {
        path.split('.').try_fold(self, |value, key| value.get_mut(key))
    }

    /// The string at `path`; empty where absent, as Go's zero value.
    pub fn str_at(&self, path: &str) -> &str {
        self.at(path).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn int_at(&self, path: &str) -> Option<i64> {
        self.at(path)?.as_int()
    }

    /// The bool at `path`; false where absent, as Go's zero value.
    pub fn bool_at(&self, path: &str) -> bool {
        self.at(path).and_then(Value::as_bool).unwrap_or_default()
    }

    /// The list at `path`; empty where absent, as Go's nil slice.
    pub fn list_at(&self, path: &str) -> &[Value] {
        self.at(path).and_then(Value::as_list).unwrap_or_default()
    }

    /// The items of the list at `path`; empty where absent.
    pub fn list_at_mut(&mut self, path: &str) -> &mut [Value] {
        self.at_mut(path)
            .and_then(Value::as_list_mut)
            .map(Vec::as_mut_slice)
            .unwrap_or_default()
    }

    /// Writes `value` at `path`, making the objects on the way.
    pub fn set_at(&mut self, path: &str, value: impl Into<Value>) {
        *self.entry_at(path) = value.into();
    }

    pub fn remove_at(&mut self, path: &str) -> Option<Value> {
        match path.rsplit_once('.') {
            Some((parent, key)) => self.at_mut(parent)?.remove(key),
            None => self.remove(path),
        }
    }

    /// The object at `path`, made where absent.
    pub fn object_mut_at(&mut self, path: &str) -> &mut Object {
        self.entry_at(path).make_object()
    }

    /// The list at `path`, made where absent.
    pub fn list_mut_at(&mut self, path: &str) -> &mut Vec<Value> {
        let slot = self.entry_at(path);
        if !matches!(slot, Value::List(_)) {
            *slot = Value::List(Vec::new());
        }
        match slot {
            Value::List(items) => items,
            _ => unreachable!("made a list above"),
        }
    }

    fn entry_at(&mut self, path: &str) -> &mut Value {
        path.split('.')
            .fold(self, |value, key| value.make_object().entry(key))
    }
}
