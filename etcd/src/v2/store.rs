//! What requests do to the tree of keys. Every change counts the index up by one, goes to [`Records`], into the history and to the watchers.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use etcd_api::etcdserverpb::Request;
use tokio::sync::Notify;

use super::change::{Change, Condition};
use super::error::{Code, Error};
use super::event::{Action, Event, History};
use super::node::{Damaged, Node, View, decode_index};
use super::path;
use super::stats::Counts;
use super::tree::{MAX_BYTES, Tree};
use super::watcher::{Interest, Watchers, Watching};

/// etcd's log has the clients' keys below this, and below `/0` what members of before 3.5 said about themselves.
pub const KEYS_PREFIX: &str = "/1";
/// The first second of the year 2000, in nanoseconds: what would have expired before that never does, as in etcd.
const EARLIEST_EXPIRATION: i64 = 946_684_800_000_000_000;

/// What came of a request: nothing to tell of, a change or what was read, or a refusal.
pub type Outcome = Result<Option<Arc<Event>>, Error>;

/// Where changes are kept. The key of the index is empty.
pub trait Records {
    fn put(&mut self, key: &str, record: Bytes);
    fn delete(&mut self, key: &str);
}

#[derive(Default)]
pub struct Store {
    tree: Tree,
    index: u64,
    /// The latest time that a request brought.
    time: i64,
    history: History,
    watchers: Watchers,
    watch_requests: u64,
    pub counts: Counts,
}

impl Store {
    pub fn index(&self) -> u64 {
        self.index
    }

    pub fn end_watches(&mut self) {
        self.watchers.end();
    }

    pub fn watchers(&self) -> usize {
        self.watchers.len()
    }

    pub fn watch_requests(&self) -> u64 {
        self.watch_requests
    }

    /// Rung when a key with a time to live came and there was none before.
    pub fn expiring(&self) -> Arc<Notify> {
        self.tree.expiring.clone()
    }

    pub fn next_expiration(&self) -> Option<i64> {
        self.tree.expirations.first().map(|(at, _)| *at)
    }

    /// Takes back what [`Records`] was given, in any order.
    pub fn restore(&mut self, key: &[u8], record: &Bytes) -> Result<(), Damaged> {
        if key.is_empty() {
            self.index = decode_index(record)?;
            self.history = History::starting_at(self.index + 1);
            return Ok(());
        }
        let node = Node::decode(record.clone())?;
        self.tree.keep(&String::from_utf8_lossy(key), node);
        Ok(())
    }

    pub fn apply(&mut self, request: &Request, records: &mut dyn Records) -> Outcome {
        self.time = self.time.max(request.time);
        if request.method == "SYNC" {
            self.expire(request.time, records);
            return Ok(None);
        }
        let Some(key) = super::below(&request.path, KEYS_PREFIX) else {
            return Ok(None);
        };
        let key = path::clean(key);
        if path::depth(&key) > path::MAX_DEPTH {
            let cause = format!("the key has more than {} parts", path::MAX_DEPTH);
            return Err(Error::new(Code::InvalidField, cause, self.index));
        }
        let event = match request.method.as_str() {
            "PUT" => self.put(&key, request, records),
            "POST" => self.post(&key, request, records),
            "DELETE" => self.delete(&key, request, records),
            "QGET" | "GET" => self.get(&key, request.recursive, self.time).map(Arc::new),
            unknown => Err(Error::new(
                Code::RaftInternal,
                format!("etcdserver: unknown method {unknown}"),
                self.index,
            )),
        };
        event.map(Some)
    }

    fn find(&self, key: &str) -> Result<Node, Error> {
        let found = self.tree.find(key);
        found.map_err(|(code, cause)| self.error(code, cause))
    }

    fn error(&self, code: Code, cause: &str) -> Error {
        Error::new(code, cause, self.index)
    }

    pub fn get(&self, key: &str, recursive: bool, now: i64) -> Result<Event, Error> {
        let found = self.find(key);
        self.counts.count_get(recursive, found.is_ok());
        let node = found?;
        let mut view = node.view(key, now);
        if view.dir {
            view.nodes = self.tree.children(key, recursive, now);
        }
        Ok(Event::new(Action::Get, view, None, self.index))
    }

    fn put(&mut self, key: &str, request: &Request, records: &mut dyn Records) -> Result<Arc<Event>, Error> {
        let change = Change::of(key, request);
        let condition = Condition::of(request);
        let (action, event) = match (request.prev_exist, condition) {
            (Some(false), _) => (Action::Create, self.create(&change, records)),
            (Some(true), None) => (Action::Update, self.update(&change, records)),
            (_, Some(condition)) => (
                Action::CompareAndSwap,
                self.compare_and_swap(&change, &condition, records),
            ),
            (None, None) => (Action::Set, self.set(&change, records)),
        };
        self.counts.count(action, event.is_ok());
        event
    }

    /// Under a key that comes after all that were made before it.
    fn post(&mut self, key: &str, request: &Request, records: &mut dyn Records) -> Result<Arc<Event>, Error> {
        let key = format!("{key}/{:020}", self.index + 1);
        let event = self.create(&Change::of(&key, request), records);
        self.counts.count(Action::Create, event.is_ok());
        event
    }

    fn create(&mut self, change: &Change<'_>, records: &mut dyn Records) -> Result<Arc<Event>, Error> {
        let event = self.make(Action::Create, change, records)?;
        Ok(self.publish(event))
    }

    fn set(&mut self, change: &Change<'_>, records: &mut dyn Records) -> Result<Arc<Event>, Error> {
        let found = match self.find(change.key) {
            Ok(node) => Some(node),
            Err(error) if error.code == Code::KeyNotFound && !change.refresh => None,
            Err(error) => return Err(error),
        };
        let kept;
        let change = match &found {
            Some(node) if change.refresh => {
                kept = change.keeping(node);
                &kept
            }
            _ => change,
        };
        let event = self.make(Action::Set, change, records)?;
        Ok(self.publish(event))
    }

    /// A new node, with the directories that it lies in. Only a set replaces, and only a file.
    fn make(
        &mut self,
        action: Action,
        change: &Change<'_>,
        records: &mut dyn Records,
    ) -> Result<Event, Error> {
        let key = change.key;
        self.check_not_root(key)?;
        for place in path::ancestors_and_self(path::parent(key)) {
            if self.tree.get(place).is_some_and(|node| !node.is_dir()) {
                return Err(self.error(Code::NotDir, place));
            }
        }
        let replaced = self.tree.get(key).cloned();
        match &replaced {
            Some(_) if action == Action::Create => return Err(self.error(Code::NodeExist, key)),
            Some(node) if node.is_dir() => return Err(self.error(Code::NotFile, key)),
            _ => {}
        }
        self.check_space(key, &change.value)?;
        let index = self.index + 1;
        let missing: Vec<String> = path::ancestors_and_self(path::parent(key))
            .filter(|place| self.tree.get(place).is_none())
            .map(str::to_owned)
            .collect();
        let node = |value, expires| Node {
            created: index,
            modified: index,
            expires,
            value,
        };
        for place in missing {
            self.write(&place, node(None, 0), records);
        }
        let expires = if change.expires < EARLIEST_EXPIRATION {
            0
        } else {
            change.expires
        };
        let value = (!change.dir).then(|| change.value.clone());
        let node = node(value, expires);
        let prev = replaced.map(|node| node.view(key, self.time));
        let event = Event {
            refresh: change.refresh,
            ..Event::new(action, node.view(key, self.time), prev, index)
        };
        self.write(key, node, records);
        self.advance(index, records);
        Ok(event)
    }

    /// A directory has no value to change, and keeps its modified index.
    fn update(&mut self, change: &Change<'_>, records: &mut dyn Records) -> Result<Arc<Event>, Error> {
        self.check_not_root(change.key)?;
        let node = self.find(change.key)?;
        if node.is_dir() && !change.value.is_empty() {
            return Err(self.error(Code::NotFile, change.key));
        }
        self.check_space(change.key, &change.value)?;
        Ok(self.modify(Action::Update, change, node, records))
    }

    fn compare_and_swap(
        &mut self,
        change: &Change<'_>,
        condition: &Condition<'_>,
        records: &mut dyn Records,
    ) -> Result<Arc<Event>, Error> {
        self.check_not_root(change.key)?;
        let node = self.checked(change.key, condition)?;
        self.check_space(change.key, &change.value)?;
        Ok(self.modify(Action::CompareAndSwap, change, node, records))
    }

    /// The file at `key`, for which the condition holds.
    fn checked(&self, key: &str, condition: &Condition<'_>) -> Result<Node, Error> {
        let node = self.find(key)?;
        if node.is_dir() {
            return Err(self.error(Code::NotFile, key));
        }
        match condition.failure(&node) {
            Some(cause) => Err(self.error(Code::TestFailed, &cause)),
            None => Ok(node),
        }
    }

    fn modify(
        &mut self,
        action: Action,
        change: &Change<'_>,
        old: Node,
        records: &mut dyn Records,
    ) -> Arc<Event> {
        let index = self.index + 1;
        let value = if change.refresh {
            old.value.clone()
        } else {
            old.value.is_some().then(|| change.value.clone())
        };
        let node = Node {
            created: old.created,
            modified: if old.is_dir() { old.modified } else { index },
            expires: change.expires,
            value,
        };
        let view = View {
            modified: index,
            ..node.view(change.key, self.time)
        };
        let prev = old.view(change.key, self.time);
        let event = Event {
            refresh: change.refresh,
            ..Event::new(action, view, Some(prev), index)
        };
        self.write(change.key, node, records);
        self.advance(index, records);
        self.publish(event)
    }

    fn delete(
        &mut self,
        key: &str,
        request: &Request,
        records: &mut dyn Records,
    ) -> Result<Arc<Event>, Error> {
        let (action, event) = match Condition::of(request) {
            Some(condition) => (
                Action::CompareAndDelete,
                self.checked(key, &condition)
                    .map(|node| self.remove(Action::CompareAndDelete, key, &node, records)),
            ),
            None => {
                let dir = request.dir || request.recursive;
                let found = self.deletable(key, dir, request.recursive);
                (
                    Action::Delete,
                    found.map(|node| self.remove(Action::Delete, key, &node, records)),
                )
            }
        };
        self.counts.count(action, event.is_ok());
        event
    }

    fn deletable(&self, key: &str, dir: bool, recursive: bool) -> Result<Node, Error> {
        self.check_not_root(key)?;
        let node = self.find(key)?;
        if node.is_dir() && !dir {
            return Err(self.error(Code::NotFile, key));
        }
        if node.is_dir() && !recursive && self.tree.below(key).next().is_some() {
            return Err(self.error(Code::DirNotEmpty, key));
        }
        Ok(node)
    }

    /// Who waits for something further down hears of it first, as in etcd.
    fn remove(&mut self, action: Action, key: &str, node: &Node, records: &mut dyn Records) -> Arc<Event> {
        let index = self.index + 1;
        let view = View {
            dir: node.is_dir(),
            ..View::bare(key, index, node.created)
        };
        let event = Arc::new(Event::new(action, view, Some(node.view(key, self.time)), index));
        let gone: Vec<String> = self.tree.below(key).rev().cloned().collect();
        for place in gone {
            self.forget(&place, records);
            self.watchers.notify_at(&place, &event, true);
        }
        self.forget(key, records);
        self.advance(index, records);
        self.tell(&event);
        event
    }

    fn expire(&mut self, cutoff: i64, records: &mut dyn Records) {
        while let Some((_, key)) = self
            .tree
            .expirations
            .first()
            .filter(|(at, _)| *at <= cutoff)
            .cloned()
        {
            let Some(node) = self.tree.get(&key).cloned() else {
                // Cannot be: a node takes its expiration along. Without this the loop would not end.
                self.tree.expirations.pop_first();
                continue;
            };
            self.remove(Action::Expire, &key, &node, records);
            self.counts.count(Action::Expire, true);
        }
    }

    fn check_not_root(&self, key: &str) -> Result<(), Error> {
        match key.is_empty() {
            true => Err(self.error(Code::RootReadOnly, "/")),
            false => Ok(()),
        }
    }

    fn check_space(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        if self.tree.has_room(key, value) {
            return Ok(());
        }
        let cause = format!(
            "etcdserver: the keys of the v2 API must not take more than {MAX_BYTES} bytes; delete some"
        );
        Err(self.error(Code::RaftInternal, &cause))
    }

    fn advance(&mut self, index: u64, records: &mut dyn Records) {
        self.index = index;
        records.put("", Bytes::copy_from_slice(&index.to_le_bytes()));
    }

    fn write(&mut self, key: &str, node: Node, records: &mut dyn Records) {
        let record = node.encode();
        records.put(key, record.clone());
        // What was just encoded decodes; the value is then the record's and not a copy.
        self.tree.keep(key, Node::decode(record).unwrap_or(node));
    }

    fn forget(&mut self, key: &str, records: &mut dyn Records) {
        if self.tree.forget(key) {
            records.delete(key);
        }
    }

    fn publish(&mut self, event: Event) -> Arc<Event> {
        let event = Arc::new(event);
        self.tell(&event);
        event
    }

    fn tell(&mut self, event: &Arc<Event>) {
        self.history.add(event.clone());
        if !event.refresh {
            self.watchers.notify(event);
        }
    }

    /// From `since` on, 0 being now. What has happened already is handed over at once.
    pub fn watch(&mut self, mut interest: Interest) -> Result<Watching, Error> {
        self.watch_requests += 1;
        if interest.since == 0 {
            interest.since = self.index + 1;
        }
        let past = self
            .history
            .since(&interest.key, interest.recursive, interest.since, self.index)?;
        let most = if interest.stream { usize::MAX } else { 1 };
        let past: VecDeque<Arc<Event>> = past.take(most).cloned().collect();
        Ok(self.watchers.join(interest, past, self.index))
    }

    pub fn unwatch(&mut self, key: &str, id: u64) {
        self.watchers.leave(key, id);
    }
}

#[cfg(test)]
mod tests;
