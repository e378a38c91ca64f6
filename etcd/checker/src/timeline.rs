//! All that ever happened, revision by revision.

use std::collections::BTreeMap;

use bytes::Bytes;
use etcd_api::mvccpb::event::EventType;
use etcd_api::mvccpb::{Event, KeyValue};

/// The revision of an empty store.
pub const FIRST: i64 = 1;

pub type Keys = BTreeMap<Bytes, KeyValue>;

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Untrue {
    #[error("revision {found} follows {after}: changes are missing in between, or came again")]
    Order { after: i64, found: i64 },
    #[error("revision {revision} changes {key:?} twice")]
    Twice { revision: i64, key: Bytes },
    #[error("revision {revision} deletes {key:?}, which was not there")]
    DeletedNothing { revision: i64, key: Bytes },
    #[error("revision {revision} of {key:?} does not follow from what was there: {found:?} after {before:?}")]
    Version {
        revision: i64,
        key: Bytes,
        found: Box<KeyValue>,
        before: Option<Box<KeyValue>>,
    },
}

/// Events that are known to be consistent with themselves.
#[derive(Debug, Default)]
pub struct Timeline {
    revisions: BTreeMap<i64, Vec<Event>>,
}

impl Timeline {
    /// From the events since the first revision, in the order in which they came.
    pub fn new(events: impl IntoIterator<Item = Event>) -> Result<Timeline, Untrue> {
        let (mut timeline, mut keys, mut last) = (Timeline::default(), Keys::new(), FIRST);
        for event in events {
            let (revision, key) = (revision_of(&event), key_of(&event).clone());
            if revision != last && revision != last + 1 || revision == FIRST {
                return Err(Untrue::Order {
                    after: last,
                    found: revision,
                });
            }
            last = revision;
            let at = timeline.revisions.entry(revision).or_default();
            if at.iter().any(|other| *key_of(other) == key) {
                return Err(Untrue::Twice { revision, key });
            }
            check_version(&event, keys.get(&key))?;
            at.push(event.clone());
            apply(&event, &mut keys);
        }
        Ok(timeline)
    }

    pub fn last(&self) -> i64 {
        self.revisions
            .last_key_value()
            .map_or(FIRST, |(revision, _)| *revision)
    }

    pub fn at(&self, revision: i64) -> &[Event] {
        self.revisions.get(&revision).map_or(&[], Vec::as_slice)
    }

    pub fn revisions(&self) -> impl Iterator<Item = (i64, &[Event])> {
        self.revisions
            .iter()
            .map(|(revision, events)| (*revision, events.as_slice()))
    }
}

/// Walks the revisions upwards and knows what was there.
pub struct Cursor<'a> {
    timeline: &'a Timeline,
    revision: i64,
    pub keys: Keys,
}

impl<'a> Cursor<'a> {
    pub fn new(timeline: &'a Timeline) -> Self {
        Cursor {
            timeline,
            revision: FIRST,
            keys: Keys::new(),
        }
    }

    /// `revision` must not lie before that of the last call.
    pub fn forward_to(&mut self, revision: i64) {
        while self.revision < revision {
            self.revision += 1;
            self.timeline
                .at(self.revision)
                .iter()
                .for_each(|event| apply(event, &mut self.keys));
        }
    }
}

pub fn is_delete(event: &Event) -> bool {
    event.r#type == EventType::Delete as i32
}

pub fn revision_of(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

pub fn key_of(event: &Event) -> &Bytes {
    static NONE: Bytes = Bytes::new();
    event.kv.as_ref().map_or(&NONE, |kv| &kv.key)
}

fn apply(event: &Event, keys: &mut Keys) {
    match (&event.kv, is_delete(event)) {
        (Some(kv), true) => drop(keys.remove(&kv.key)),
        (Some(kv), false) => drop(keys.insert(kv.key.clone(), kv.clone())),
        (None, _) => {}
    }
}

fn check_version(event: &Event, before: Option<&KeyValue>) -> Result<(), Untrue> {
    let (revision, key) = (revision_of(event), key_of(event));
    if is_delete(event) {
        return match before {
            Some(_) => Ok(()),
            None => Err(Untrue::DeletedNothing {
                revision,
                key: key.clone(),
            }),
        };
    }
    let kv = event.kv.clone().unwrap_or_default();
    let (created, version) = before.map_or((revision, 1), |before| {
        (before.create_revision, before.version + 1)
    });
    if (kv.create_revision, kv.version) == (created, version) {
        return Ok(());
    }
    Err(Untrue::Version {
        revision,
        key: key.clone(),
        found: Box::new(kv),
        before: before.cloned().map(Box::new),
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn put(key: &str, value: &str, revision: i64, created: i64, version: i64) -> Event {
        Event {
            kv: Some(KeyValue {
                key: Bytes::copy_from_slice(key.as_bytes()),
                value: Bytes::copy_from_slice(value.as_bytes()),
                mod_revision: revision,
                create_revision: created,
                version,
                ..KeyValue::default()
            }),
            ..Event::default()
        }
    }

    pub fn delete(key: &str, revision: i64) -> Event {
        Event {
            r#type: EventType::Delete as i32,
            kv: Some(KeyValue {
                key: Bytes::copy_from_slice(key.as_bytes()),
                mod_revision: revision,
                ..KeyValue::default()
            }),
            ..Event::default()
        }
    }

    #[test]
    fn a_true_timeline_is_accepted() {
        let events = [
            put("a", "1", 2, 2, 1),
            put("a", "2", 3, 2, 2),
            delete("a", 4),
            put("a", "3", 5, 5, 1),
        ];
        assert_eq!(Timeline::new(events).unwrap().last(), 5);
    }

    #[test]
    fn gaps_repeats_and_wrong_versions_are_found() {
        let gap = Timeline::new([put("a", "1", 2, 2, 1), put("a", "2", 4, 2, 2)]);
        assert_eq!(gap.unwrap_err(), Untrue::Order { after: 2, found: 4 });
        let back = Timeline::new([
            put("a", "1", 2, 2, 1),
            put("a", "2", 3, 2, 2),
            put("b", "3", 2, 2, 1),
        ]);
        assert_eq!(back.unwrap_err(), Untrue::Order { after: 3, found: 2 });
        let twice = Timeline::new([put("a", "1", 2, 2, 1), put("a", "1", 2, 2, 2)]);
        assert!(matches!(twice.unwrap_err(), Untrue::Twice { revision: 2, .. }));
        let nothing = Timeline::new([delete("a", 2)]);
        assert!(matches!(nothing.unwrap_err(), Untrue::DeletedNothing { .. }));
        let version = Timeline::new([put("a", "1", 2, 2, 1), put("a", "2", 3, 2, 3)]);
        assert!(matches!(
            version.unwrap_err(),
            Untrue::Version { revision: 3, .. }
        ));
    }
}
