//! Who waits for changes of which key.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc::{self, Receiver, Sender};

use super::event::Event;
use super::path;

/// Events that wait to be sent to one client; one that falls behind is cut off, as in etcd.
const WAITING_EVENTS: usize = 100;

/// What a client waits for.
#[derive(Clone, Debug)]
pub struct Interest {
    pub key: String,
    pub recursive: bool,
    /// Goes on after the first event.
    pub stream: bool,
    pub since: u64,
}

struct Watcher {
    id: u64,
    interest: Interest,
    events: Sender<Arc<Event>>,
}

/// The client's end.
pub struct Watching {
    /// Has been registered under this id; None when what it waited for had happened already.
    pub id: Option<u64>,
    pub key: String,
    /// What had happened already.
    pub past: VecDeque<Arc<Event>>,
    pub events: Receiver<Arc<Event>>,
    /// The store's index when it began.
    pub index: u64,
}

#[derive(Default)]
pub struct Watchers {
    by_key: HashMap<String, Vec<Watcher>>,
    last_id: u64,
    count: usize,
}

impl Watchers {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn join(&mut self, interest: Interest, past: VecDeque<Arc<Event>>, index: u64) -> Watching {
        let (sender, events) = mpsc::channel(WAITING_EVENTS);
        let key = interest.key.clone();
        let waits = interest.stream || past.is_empty();
        if waits {
            self.last_id += 1;
            self.count += 1;
            self.by_key.entry(key.clone()).or_default().push(Watcher {
                id: self.last_id,
                interest,
                events: sender,
            });
        }
        Watching {
            id: waits.then_some(self.last_id),
            key,
            past,
            events,
            index,
        }
    }

    /// Nobody hears of anything any more.
    pub fn end(&mut self) {
        self.by_key.clear();
        self.count = 0;
    }

    pub fn leave(&mut self, key: &str, id: u64) {
        self.retain(key, |watcher| watcher.id != id);
    }

    /// Tells everybody above the event's key, and at it.
    pub fn notify(&mut self, event: &Arc<Event>) {
        if self.count == 0 {
            return;
        }
        self.notify_at("", event, false);
        for place in path::ancestors_and_self(&event.key) {
            self.notify_at(place, event, false);
        }
    }

    /// Tells who waits at `place`; `gone` when that was taken away by an event further up.
    pub fn notify_at(&mut self, place: &str, event: &Arc<Event>, gone: bool) {
        let own = event.key == place;
        if !own && !gone && path::is_hidden_below(place, &event.key) {
            return;
        }
        self.retain(place, |watcher| {
            let interest = &watcher.interest;
            if !(interest.recursive || own || gone) || event.index < interest.since {
                return true;
            }
            // Full or gone: either way nothing can be sent to it any more.
            watcher.events.try_send(event.clone()).is_ok() && interest.stream
        });
    }

    fn retain(&mut self, key: &str, keep: impl FnMut(&Watcher) -> bool) {
        let Some(watchers) = self.by_key.get_mut(key) else {
            return;
        };
        let before = watchers.len();
        let mut keep = keep;
        watchers.retain(|watcher| keep(watcher));
        self.count -= before - watchers.len();
        if watchers.is_empty() {
            self.by_key.remove(key);
        }
    }
}
