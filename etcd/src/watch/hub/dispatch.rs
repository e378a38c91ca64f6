//! A frame's way to the watchers that are present.

use std::collections::BTreeMap;
use std::io;

use tracing::warn;

use super::HubThread;
use super::stream::{Seeing, Watcher};
use crate::mvcc::Store;
use crate::watch::encode::{Bodies, Body, Event, events_of};
use crate::watch::groups::{GroupId, WatcherId};
use crate::watch::{Batch, Interest};

impl HubThread {
    pub(super) fn batch(&mut self, batch: Batch) {
        if batch.revision <= self.recent.seen {
            return;
        }
        let before = std::mem::replace(&mut self.recent.seen, batch.revision);
        let behind = match batch.changes {
            Some(_) => self.dispatch(before, batch),
            None => self.missed(),
        };
        for (stream, id) in behind {
            self.catch_up(stream, id);
        }
        let asking = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.progress.is_some());
        let asking: Vec<u64> = asking.map(|(id, _)| *id).collect();
        asking.into_iter().for_each(|stream| self.answer_progress(stream));
    }

    /// A frame whose changes nobody recorded: who should have seen them reads history.
    fn missed(&mut self) -> Vec<WatcherId> {
        self.recent.clear();
        let mut behind = Vec::new();
        for (stream_id, stream) in &mut self.streams {
            for (id, watcher) in &mut stream.watchers {
                if watcher.awaits(self.recent.seen) {
                    watcher.set_state(Seeing::Behind);
                    behind.push((*stream_id, *id));
                }
            }
        }
        behind
    }

    /// Those that could not be told are behind now.
    fn dispatch(&mut self, before: i64, batch: Batch) -> Vec<WatcherId> {
        let mut events = events_of(&batch);
        let mut wanted: BTreeMap<GroupId, Vec<usize>> = BTreeMap::new();
        for (place, event) in events.iter().enumerate() {
            self.groups
                .matching(&event.key, |group| wanted.entry(group).or_default().push(place));
        }
        let mut behind = Vec::new();
        for (group, places) in wanted {
            self.dispatch_group(group, &places, &mut events, &batch, &mut behind);
        }
        self.recent.push(before, batch);
        behind
    }

    fn dispatch_group(
        &mut self,
        group: GroupId,
        places: &[usize],
        events: &mut [Event],
        batch: &Batch,
        behind: &mut Vec<WatcherId>,
    ) {
        let Some(group) = self.groups.get(group) else {
            return;
        };
        let bodies = match bodies(&group.interest, places, events, batch, &self.store) {
            Ok(bodies) if bodies.is_empty() => return,
            Ok(bodies) => bodies,
            Err(source) => {
                // History says the same, and says it as a cancellation when it cannot be read.
                warn!(error = %source, "failed to read a previous value for watchers");
                Vec::new()
            }
        };
        let first = places.first().map_or(i64::MAX, |place| events[*place].revision());
        for (stream_id, id) in &group.members {
            let Some(stream) = self.streams.get_mut(stream_id) else {
                continue;
            };
            let present = |watcher: &&mut Watcher| watcher.awaits(batch.revision);
            let Some(watcher) = stream.watchers.get_mut(id).filter(present) else {
                continue;
            };
            // One that begins inside this frame is rare enough to be served from history.
            if watcher.next > first || bodies.is_empty() || !stream.outbox.has_room() {
                watcher.set_state(Seeing::Behind);
                behind.push((*stream_id, *id));
                continue;
            }
            watcher.send(*id, &bodies, batch.revision, &self.header, &stream.outbox);
        }
    }
}

fn bodies(
    interest: &Interest,
    places: &[usize],
    events: &mut [Event],
    batch: &Batch,
    store: &Store,
) -> io::Result<Vec<Body>> {
    let mut bodies = Bodies::default();
    for place in places {
        let event = &mut events[*place];
        if event.is_wanted(interest) {
            let revision = event.revision();
            let bytes = event.encoded(interest.prev_kv, &store.storage, &batch.segments)?;
            bodies.push(revision, bytes);
        }
    }
    bodies.close();
    Ok(bodies.done)
}
