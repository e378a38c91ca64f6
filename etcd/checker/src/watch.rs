//! The guarantees of a watch: ordered, unique, atomic, reliable, resumable, bookmarkable, true previous values, true creations.

use bytes::Bytes;
use etcd_api::mvccpb::Event;

use crate::timeline::{Cursor, Timeline, is_delete, key_of, revision_of};

/// What was watched.
#[derive(Clone, Debug)]
pub struct Watched {
    /// A key, or with `prefix` all that begin with it.
    pub key: Bytes,
    pub prefix: bool,
    /// The first revision that is wanted.
    pub start: i64,
    pub prev_kv: bool,
}

/// One response of the watch, fragments put together.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The header's revision.
    pub revision: i64,
    pub events: Vec<Event>,
}

impl Seen {
    fn is_progress(&self) -> bool {
        self.events.is_empty()
    }
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Violation {
    #[error("not ordered or not unique: an event of revision {found} came after revision {after}")]
    Order { after: i64, found: i64 },
    #[error("not resumable: an event of revision {found} came to a watch from {start}")]
    BeforeStart { start: i64, found: i64 },
    #[error("not bookmarkable: an event of revision {found} came after progress to {promised}")]
    AfterProgress { promised: i64, found: i64 },
    #[error("not reliable: revision {revision} was skipped: {missing:?}")]
    Missing { revision: i64, missing: Box<Event> },
    #[error("not atomic, or not what happened: revision {revision} came as {seen:?} and was {was:?}")]
    Different {
        revision: i64,
        seen: Vec<Event>,
        was: Vec<Event>,
    },
    #[error("prevKV: the previous value of {key:?} at revision {revision} is not true")]
    Previous { revision: i64, key: Bytes },
}

/// Holds the responses of one watch against what happened. What the watch had not yet got when it ended is not missing.
pub fn check(watched: &Watched, seen: &[Seen], timeline: &Timeline) -> Result<(), Violation> {
    let mut walk = Walk {
        watched,
        timeline,
        cursor: Cursor::new(timeline),
        next: watched.start,
        promised: 0,
    };
    seen.iter().try_for_each(|response| walk.response(response))
}

struct Walk<'a> {
    watched: &'a Watched,
    timeline: &'a Timeline,
    cursor: Cursor<'a>,
    /// The first revision that was not yet accounted for.
    next: i64,
    promised: i64,
}

impl Walk<'_> {
    fn response(&mut self, response: &Seen) -> Result<(), Violation> {
        if response.is_progress() {
            self.nothing_until(response.revision + 1)?;
            self.promised = self.promised.max(response.revision);
            return Ok(());
        }
        response
            .events
            .chunk_by(|one, other| revision_of(one) == revision_of(other))
            .try_for_each(|events| self.revision(events))
    }

    fn revision(&mut self, events: &[Event]) -> Result<(), Violation> {
        let found = events.first().map_or(0, revision_of);
        if found < self.watched.start {
            return Err(Violation::BeforeStart {
                start: self.watched.start,
                found,
            });
        }
        if found <= self.promised {
            return Err(Violation::AfterProgress {
                promised: self.promised,
                found,
            });
        }
        if found < self.next {
            return Err(Violation::Order {
                after: self.next - 1,
                found,
            });
        }
        self.nothing_until(found)?;
        self.next = found + 1;
        self.same(found, events)
    }

    /// Between what was seen last and `revision` nothing happened that the watch should have told.
    fn nothing_until(&mut self, revision: i64) -> Result<(), Violation> {
        while self.next < revision {
            if let Some(missing) = self.wanted(self.next).first() {
                return Err(Violation::Missing {
                    revision: self.next,
                    missing: Box::new((*missing).clone()),
                });
            }
            self.next += 1;
        }
        Ok(())
    }

    fn wanted(&self, revision: i64) -> Vec<&Event> {
        self.timeline
            .at(revision)
            .iter()
            .filter(|event| self.watched.matches(key_of(event)))
            .collect()
    }

    fn same(&mut self, revision: i64, seen: &[Event]) -> Result<(), Violation> {
        let was = self.wanted(revision);
        let same = was.len() == seen.len() && was.iter().zip(seen).all(|(was, seen)| alike(was, seen));
        if !same {
            return Err(Violation::Different {
                revision,
                seen: seen.to_vec(),
                was: was.into_iter().cloned().collect(),
            });
        }
        self.cursor.forward_to(revision - 1);
        match seen.iter().find(|event| !self.previous_is_true(event)) {
            Some(event) => Err(Violation::Previous {
                revision,
                key: key_of(event).clone(),
            }),
            None => Ok(()),
        }
    }

    fn previous_is_true(&self, event: &Event) -> bool {
        !self.watched.prev_kv || event.prev_kv.as_ref() == self.cursor.keys.get(key_of(event))
    }
}

impl Watched {
    fn matches(&self, key: &Bytes) -> bool {
        if self.prefix {
            key.starts_with(&self.key)
        } else {
            *key == self.key
        }
    }
}

/// The same change; creations are in the versions, which the timeline has checked.
fn alike(was: &Event, seen: &Event) -> bool {
    is_delete(was) == is_delete(seen) && was.kv == seen.kv
}

#[cfg(test)]
mod tests;
