//! The objects, their history, and the rules of writing them.

use super::path::{Collection, Target};
use http::{HeaderMap, Method};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};

pub(super) struct Refusal {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
}

impl Refusal {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Refusal {
            code,
            reason,
            message: message.into(),
        }
    }

    pub fn not_found(what: &str) -> Self {
        Self::new(404, "NotFound", what)
    }
}

type Key = (String, String, String, String);
type Query = HashMap<String, String>;

#[derive(Default)]
pub(super) struct Objects {
    revision: u64,
    oldest: u64,
    live: BTreeMap<Key, Value>,
    /// Revision, event type, key, state before, state after.
    history: Vec<(u64, &'static str, Key, Value)>,
}

fn key(of: &Collection, name: &str) -> Key {
    (
        of.root.clone(),
        of.resource.clone(),
        of.namespace.clone().unwrap_or_default(),
        name.to_owned(),
    )
}

impl Objects {
    pub fn revision(&self) -> u64 {
        self.revision
    }

    pub fn oldest(&self) -> u64 {
        self.oldest
    }

    pub fn compact(&mut self) {
        self.oldest = self.revision + 1;
        self.revision += 1;
        self.history.clear();
    }

    pub fn remove_unseen(&mut self, of: &Collection, name: &str) {
        self.live.remove(&key(of, name));
    }

    pub fn handle(
        &mut self,
        method: &Method,
        target: Target,
        query: &Query,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Value, Refusal> {
        let body = || {
            serde_json::from_slice::<Value>(body).map_err(|e| Refusal::new(400, "BadRequest", e.to_string()))
        };
        match (method.as_str(), target) {
            ("GET", Target::Collection(of)) => Ok(self.list(&of, query)),
            ("POST", Target::Collection(of)) => self.create(of, body()?),
            ("DELETE", Target::Collection(of)) => {
                self.delete_collection(&of, query, &body().unwrap_or(Value::Null))
            }
            ("GET", Target::Object { target, name, .. }) => self.get(&target, &name).cloned(),
            (
                "PUT",
                Target::Object {
                    target,
                    name,
                    subresource,
                },
            ) => self.put(&target, &name, subresource.as_deref(), body()?),
            (
                "PATCH",
                Target::Object {
                    target,
                    name,
                    subresource,
                },
            ) => {
                let kind = headers
                    .get(http::header::CONTENT_TYPE)
                    .and_then(|v| v.to_str().ok())
                    .unwrap_or("");
                let patched = patched(self.get(&target, &name)?.clone(), body()?, kind);
                self.put(&target, &name, subresource.as_deref(), patched)
            }
            ("DELETE", Target::Object { target, name, .. }) => {
                self.delete(&target, &name, &body().unwrap_or(Value::Null))
            }
            (
                "POST",
                Target::Object {
                    target,
                    name,
                    subresource,
                },
            ) => self.post_subresource(&target, &name, subresource.as_deref(), body()?),
            (method, _) => Err(Refusal::new(405, "MethodNotAllowed", method)),
        }
    }

    fn get(&self, of: &Collection, name: &str) -> Result<&Value, Refusal> {
        self.live
            .get(&key(of, name))
            .ok_or_else(|| Refusal::not_found(&format!("{} {name:?} not found", of.resource)))
    }

    fn list(&self, of: &Collection, query: &Query) -> Value {
        let limit = query
            .get("limit")
            .and_then(|l| l.parse().ok())
            .unwrap_or(usize::MAX);
        let after: Option<Key> = query.get("continue").and_then(|c| serde_json::from_str(c).ok());
        let fits = |k: &&Key| after.as_ref().is_none_or(|after| *k > after);
        let mut found: Vec<_> = self
            .live
            .iter()
            .filter(|(k, v)| within(of, k) && selected(query, v) && fits(k))
            .collect();
        let token = match found.len() > limit {
            true => json!(found.get(limit - 1).map(|(k, _)| k)).to_string(),
            false => String::new(),
        };
        found.truncate(limit);
        let items: Vec<_> = found.into_iter().map(|(_, v)| v.clone()).collect();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": self.revision.to_string(), "continue": token}, "items": items})
    }

    fn create(&mut self, of: Collection, mut object: Value) -> Result<Value, Refusal> {
        let next = self.revision + 1;
        let meta = meta(&mut object);
        if meta.get("name").and_then(Value::as_str).unwrap_or("").is_empty() {
            let Some(prefix) = meta.get("generateName").and_then(Value::as_str) else {
                return Err(Refusal::new(422, "Invalid", "name or generateName is required"));
            };
            meta.insert("name".into(), json!(format!("{prefix}{next:05}")));
        }
        let name = meta["name"].as_str().unwrap_or_default().to_owned();
        if let Some(namespace) = &of.namespace {
            meta.insert("namespace".into(), json!(namespace));
        }
        meta.insert("uid".into(), json!(uuid::Uuid::new_v4().to_string()));
        meta.entry("creationTimestamp")
            .or_insert_with(|| json!(jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
        meta.insert("generation".into(), json!(1));
        let key = key(&of, &name);
        if self.live.contains_key(&key) {
            return Err(Refusal::new(
                409,
                "AlreadyExists",
                format!("{} {name:?} already exists", of.resource),
            ));
        }
        Ok(self.store("ADDED", key, object))
    }

    fn store(&mut self, event: &'static str, key: Key, mut object: Value) -> Value {
        self.revision += 1;
        meta(&mut object).insert("resourceVersion".into(), json!(self.revision.to_string()));
        self.history
            .push((self.revision, event, key.clone(), object.clone()));
        match event {
            "DELETED" => self.live.remove(&key),
            _ => self.live.insert(key, object.clone()),
        };
        object
    }

    fn put(
        &mut self,
        of: &Collection,
        name: &str,
        subresource: Option<&str>,
        mut new: Value,
    ) -> Result<Value, Refusal> {
        let old = self.get(of, name)?.clone();
        let sent = new["metadata"]["resourceVersion"].as_str().unwrap_or("");
        if !sent.is_empty() && sent != old["metadata"]["resourceVersion"] {
            return Err(Refusal::new(
                409,
                "Conflict",
                format!(
                    "Operation cannot be fulfilled on {} {name:?}: the object has been modified",
                    of.resource
                ),
            ));
        }
        if new["metadata"]["uid"]
            .as_str()
            .is_some_and(|uid| old["metadata"]["uid"] != uid)
        {
            return Err(Refusal::new(
                409,
                "Conflict",
                format!("the UID in the precondition does not match the UID in record of {name:?}"),
            ));
        }
        merge_by_subresource(&old, &mut new, subresource);
        for kept in [
            "uid",
            "creationTimestamp",
            "generation",
            "resourceVersion",
            "namespace",
            "name",
            "deletionTimestamp",
        ] {
            match old["metadata"].get(kept) {
                Some(value) => meta(&mut new).insert(kept.into(), value.clone()),
                None => meta(&mut new).remove(kept),
            };
        }
        if new == old {
            return Ok(old);
        }
        if subresource.is_none() && new["spec"] != old["spec"] {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(1) + 1;
            meta(&mut new).insert("generation".into(), json!(generation));
        }
        let event = if is_finished(&new) { "DELETED" } else { "MODIFIED" };
        Ok(self.store(event, key(of, name), new))
    }

    fn delete_collection(
        &mut self,
        of: &Collection,
        query: &Query,
        options: &Value,
    ) -> Result<Value, Refusal> {
        let found: Vec<Key> = self
            .live
            .iter()
            .filter(|(k, v)| within(of, k) && selected(query, v))
            .map(|(k, _)| k.clone())
            .collect();
        for (root, resource, namespace, name) in found {
            let of = Collection {
                root,
                resource,
                namespace: Some(namespace),
            };
            self.delete(&of, &name, options)?;
        }
        Ok(json!({"kind": "Status", "status": "Success"}))
    }

    fn delete(&mut self, of: &Collection, name: &str, options: &Value) -> Result<Value, Refusal> {
        let mut object = self.get(of, name)?.clone();
        for precondition in ["uid", "resourceVersion"] {
            if let Some(wanted) = options["preconditions"][precondition]
                .as_str()
                .filter(|w| object["metadata"][precondition] != *w)
            {
                return Err(Refusal::new(
                    409,
                    "Conflict",
                    format!("the {precondition} {wanted} does not match the record"),
                ));
            }
        }
        let finalizer = match options["propagationPolicy"].as_str() {
            Some("Foreground") => Some("foregroundDeletion"),
            Some("Orphan") => Some("orphan"),
            _ => None,
        };
        let meta_map = meta(&mut object);
        if let Some(finalizer) = finalizer {
            let finalizers = meta_map.entry("finalizers").or_insert_with(|| json!([]));
            if let Some(list) = finalizers
                .as_array_mut()
                .filter(|l| !l.contains(&json!(finalizer)))
            {
                list.push(json!(finalizer));
            }
        }
        if meta_map
            .get("finalizers")
            .and_then(Value::as_array)
            .is_none_or(Vec::is_empty)
            && object["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty)
        {
            return Ok(self.store("DELETED", key(of, name), object));
        }
        let now = json!(jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        meta(&mut object).entry("deletionTimestamp").or_insert(now);
        if of.resource == "namespaces" {
            object["status"]["phase"] = json!("Terminating");
        }
        Ok(self.store("MODIFIED", key(of, name), object))
    }

    fn post_subresource(
        &mut self,
        of: &Collection,
        name: &str,
        subresource: Option<&str>,
        body: Value,
    ) -> Result<Value, Refusal> {
        match subresource {
            Some("binding") => {
                let mut pod = self.get(of, name)?.clone();
                pod["spec"]["nodeName"] = body["target"]["name"].clone();
                self.store("MODIFIED", key(of, name), pod);
                Ok(json!({"kind": "Status", "status": "Success"}))
            }
            Some("eviction") => self.delete(of, name, &body["deleteOptions"]),
            _ => Err(Refusal::new(405, "MethodNotAllowed", "unknown subresource")),
        }
    }

    /// The frames of a watch after `from`, and the revision they reach.
    pub fn events_after(&self, of: &Collection, query: &Query, from: u64) -> (String, u64) {
        let mut lines = String::new();
        for (_, event, _, object) in self
            .history
            .iter()
            .filter(|(r, _, k, o)| *r > from && within(of, k) && selected(query, o))
        {
            lines.push_str(&json!({"type": event, "object": object}).to_string());
            lines.push('\n');
        }
        (lines, self.revision)
    }
}

/// `status` writes status, and annotations as most of upstream's strategies let it; everything else never writes status;
/// `finalize` and `approval` write what they are for.
fn merge_by_subresource(old: &Value, new: &mut Value, subresource: Option<&str>) {
    match subresource {
        None => copy_field(old, new, "status"),
        Some("finalize") => {
            let finalizers = new["spec"]["finalizers"].clone();
            *new = old.clone();
            new["spec"]["finalizers"] = finalizers;
        }
        Some(_) => {
            let status = new.get("status").cloned().unwrap_or_else(|| json!({}));
            let annotations = new["metadata"].get("annotations").cloned();
            *new = old.clone();
            new["status"] = status;
            if let Some(annotations) = annotations {
                new["metadata"]["annotations"] = annotations;
            }
        }
    }
}

fn copy_field(from: &Value, to: &mut Value, field: &str) {
    if let (Some(value), Some(to)) = (from.get(field), to.as_object_mut()) {
        to.insert(field.into(), value.clone());
    }
}

fn is_finished(object: &Value) -> bool {
    let empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    object["metadata"]["deletionTimestamp"].is_string()
        && empty(&object["metadata"]["finalizers"])
        && empty(&object["spec"]["finalizers"])
}

fn meta(object: &mut Value) -> &mut Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["metadata"]
        .as_object_mut()
        .expect("it was made an object above")
}

fn within(of: &Collection, (root, resource, namespace, _): &Key) -> bool {
    of.root == *root && of.resource == *resource && of.namespace.as_ref().is_none_or(|n| n == namespace)
}

fn selected(query: &Query, object: &Value) -> bool {
    let label = |name: &str| {
        object["metadata"]["labels"][name]
            .as_str()
            .unwrap_or("")
            .to_owned()
    };
    let field = |path: &str| {
        path.split('.')
            .fold(object, |o, segment| &o[segment])
            .as_str()
            .unwrap_or("")
            .to_owned()
    };
    matches_all(query.get("labelSelector"), label) && matches_all(query.get("fieldSelector"), field)
}

/// Equality terms only.
fn matches_all(selector: Option<&String>, value: impl Fn(&str) -> String) -> bool {
    selector
        .map(String::as_str)
        .unwrap_or("")
        .split(',')
        .filter(|t| !t.is_empty())
        .all(|term| match (term.split_once("!="), term.split_once('=')) {
            (Some((name, unwanted)), _) => value(name) != unwanted,
            (None, Some((name, wanted))) => value(name) == wanted.trim_start_matches('='),
            (None, None) => !value(term).is_empty(),
        })
}

fn patched(mut object: Value, patch: Value, content_type: &str) -> Value {
    match content_type.contains("json-patch") {
        true => json_patch(&mut object, &patch),
        false => merge(&mut object, &patch, content_type.contains("strategic")),
    }
    object
}

/// The operations that clients in this project send: add, replace and remove of members.
fn json_patch(object: &mut Value, operations: &Value) {
    for operation in operations.as_array().into_iter().flatten() {
        let path = operation["path"].as_str().unwrap_or("");
        let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
        match (object.pointer_mut(parent), operation["op"].as_str()) {
            (Some(Value::Object(map)), Some("remove")) => drop(map.remove(last)),
            (Some(Value::Object(map)), _) => drop(map.insert(last.to_owned(), operation["value"].clone())),
            (Some(Value::Array(list)), _) => list.push(operation["value"].clone()),
            _ => {}
        }
    }
}

/// Strategic only in the lists that controllers patch so: those merged by uid or type.
fn merge(into: &mut Value, patch: &Value, strategic: bool) {
    let Value::Object(changes) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, change) in changes {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            remove_values(&mut into[list], change);
            continue;
        }
        let merge_key = match name.as_str() {
            "ownerReferences" => "uid",
            "conditions" => "type",
            _ => "",
        };
        match (change, strategic && !merge_key.is_empty()) {
            (Value::Null, _) => drop(into.as_object_mut().map(|o| o.remove(name))),
            (Value::Array(items), true) => merge_list(&mut into[name], items, merge_key),
            _ if name.starts_with('$') => {}
            _ => merge(&mut into[name], change, strategic),
        }
    }
}

fn remove_values(list: &mut Value, values: &Value) {
    if let (Some(list), Some(values)) = (list.as_array_mut(), values.as_array()) {
        list.retain(|v| !values.contains(v));
    }
}

fn merge_list(into: &mut Value, items: &[Value], merge_key: &str) {
    if !into.is_array() {
        *into = json!([]);
    }
    let Value::Array(list) = into else { return };
    for item in items {
        let at = list.iter().position(|known| known[merge_key] == item[merge_key]);
        match (at, item["$patch"] == "delete") {
            (Some(at), true) => drop(list.remove(at)),
            (None, true) => {}
            (Some(at), false) => merge(&mut list[at], item, true),
            (None, false) => list.push(item.clone()),
        }
    }
}
