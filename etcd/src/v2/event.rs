//! What happened, and the last thousand of it.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;

use super::error::{Code, Error};
use super::node::View;
use super::path;

/// etcd's.
const HISTORY_EVENTS: usize = 1000;
/// Large values shorten the history: it must not be a thousand times the largest request.
const HISTORY_BYTES: usize = 16 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    Get,
    Create,
    Set,
    Update,
    Delete,
    CompareAndSwap,
    CompareAndDelete,
    Expire,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    pub action: Action,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<View>,
    #[serde(rename = "prevNode", skip_serializing_if = "Option::is_none")]
    pub prev: Option<View>,
    #[serde(skip)]
    pub key: String,
    /// Of the change; for a get the store's.
    #[serde(skip)]
    pub index: u64,
    /// Only the time to live changed: nobody is told.
    #[serde(skip)]
    pub refresh: bool,
}

impl Event {
    pub fn new(action: Action, node: View, prev: Option<View>, index: u64) -> Event {
        Event {
            action,
            key: node.key.clone(),
            node: Some(node),
            prev,
            index,
            refresh: false,
        }
    }

    pub fn is_created(&self) -> bool {
        self.action == Action::Create || (self.action == Action::Set && self.prev.is_none())
    }

    /// For clients that know what they have sent.
    pub fn without_values(&self) -> Event {
        let keeps = matches!(
            self.action,
            Action::Get | Action::Delete | Action::CompareAndDelete | Action::Expire
        );
        Event {
            node: self.node.clone().filter(|_| keeps),
            prev: self.prev.clone().filter(|_| keeps),
            key: self.key.clone(),
            ..*self
        }
    }

    pub fn line(&self) -> Vec<u8> {
        let mut out = serde_json::to_vec(self).unwrap_or_default();
        out.push(b'\n');
        out
    }

    fn bytes(&self) -> usize {
        let view = |view: &Option<View>| view.as_ref().map_or(0, View::bytes);
        size_of::<Event>() + self.key.len() + view(&self.node) + view(&self.prev)
    }

    /// Whether who waits for `key` waits for this.
    fn concerns(&self, key: &str, recursive: bool) -> bool {
        let ended = matches!(self.action, Action::Delete | Action::Expire)
            && self.prev.as_ref().is_some_and(|prev| prev.dir);
        self.key == key
            || (recursive && path::is_below(&self.key, key))
            || (ended && path::is_below(key, &self.key))
    }
}

/// One event for each index from `start` on. Not stored: after a restart it begins anew, and who asks for what was before is told so.
#[derive(Debug, Default)]
pub struct History {
    events: VecDeque<Arc<Event>>,
    start: u64,
    bytes: usize,
}

impl History {
    /// Nothing before `index` is known.
    pub fn starting_at(index: u64) -> History {
        History {
            start: index,
            ..History::default()
        }
    }

    pub fn add(&mut self, event: Arc<Event>) {
        if self.events.is_empty() {
            self.start = event.index;
        }
        self.bytes += event.bytes();
        self.events.push_back(event);
        while self.events.len() > HISTORY_EVENTS || (self.bytes > HISTORY_BYTES && self.events.len() > 1) {
            let oldest = self.events.pop_front();
            self.bytes -= oldest.map_or(0, |oldest| oldest.bytes());
            self.start += 1;
        }
    }

    /// What concerns `key` since `index`, oldest first. `now` is the store's index, for the error.
    pub fn since<'a>(
        &'a self,
        key: &'a str,
        recursive: bool,
        index: u64,
        now: u64,
    ) -> Result<impl Iterator<Item = &'a Arc<Event>>, Error> {
        if index < self.start {
            let cause = format!("the requested history has been cleared [{}/{index}]", self.start);
            return Err(Error::new(Code::EventIndexCleared, cause, now));
        }
        let skipped = usize::try_from(index - self.start).unwrap_or(usize::MAX);
        let wanted = move |event: &&Arc<Event>| !event.refresh && event.concerns(key, recursive);
        Ok(self.events.iter().skip(skipped).filter(wanted))
    }
}
