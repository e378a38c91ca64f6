//! Strict serializability: every answer is true at its revision, and revisions do not contradict the clock.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use etcd_api::mvccpb::{Event, KeyValue};

use crate::history::{Answer, Change, Operation, Request, Response};
use crate::lease;
use crate::timeline::{Cursor, Keys, Timeline, is_delete, key_of};

#[derive(Debug, thiserror::Error)]
pub enum Violation {
    #[error("{operation:?} was answered with revision {revision}, which the timeline does not have")]
    NoSuchRevision {
        operation: Box<Operation>,
        revision: i64,
    },
    #[error("{operation:?} is not what revision {revision} did: {did:?}")]
    Lost {
        operation: Box<Operation>,
        revision: i64,
        did: Vec<Event>,
    },
    #[error("{operation:?} is not true at its revision: there was {there:?}")]
    Untrue {
        operation: Box<Operation>,
        there: Vec<KeyValue>,
    },
    #[error(
        "{operation:?} began after an operation of revision {before} had ended, and is ordered before it"
    )]
    Stale { operation: Box<Operation>, before: i64 },
    #[error("revision {revision} changes {key:?} as nobody asked, or twice for one request")]
    Unasked { revision: i64, key: Bytes },
    #[error("revision {revision} changes {key:?} before the request for it was made")]
    Early { revision: i64, key: Bytes },
    #[error("revision {revision} hangs a key on lease {lease}, which had ended")]
    OfTheDead { revision: i64, lease: i64 },
}

/// Reads that need not be new: true at the revision that their answer names, whatever the clock says.
pub fn check_reads(operations: &[Operation], timeline: &Timeline) -> Result<(), Violation> {
    answers_are_true(operations, timeline)
}

/// The first contradiction, if there is one.
pub fn check(operations: &[Operation], timeline: &Timeline) -> Result<(), Violation> {
    answers_are_true(operations, timeline)?;
    clock_agrees(operations)?;
    changes_were_asked_for(operations, timeline)
}

fn answers_are_true(operations: &[Operation], timeline: &Timeline) -> Result<(), Violation> {
    let mut answered: Vec<(&Operation, &Answer)> = operations
        .iter()
        .filter_map(|operation| Some((operation, operation.answer.as_ref()?)))
        .collect();
    answered.sort_by_key(|(_, answer)| answer.revision);
    let (mut before, mut after) = (Cursor::new(timeline), Cursor::new(timeline));
    for (operation, answer) in answered {
        if answer.revision > timeline.last() {
            return Err(Violation::NoSuchRevision {
                operation: Box::new(operation.clone()),
                revision: answer.revision,
            });
        }
        before.forward_to(answer.revision - 1);
        after.forward_to(answer.revision);
        match changed(&answer.response) {
            true => change_is_there(operation, answer, timeline, &before.keys)?,
            false => read_is_true(operation, answer, &after.keys)?,
        }
    }
    Ok(())
}

/// Whether the answer says that a revision was made.
fn changed(response: &Response) -> bool {
    match response {
        Response::Put | Response::Changed => true,
        Response::Deleted(count) => *count > 0,
        Response::Found(_) | Response::Listed(_) | Response::Refused(_) => false,
    }
}

fn change_is_there(
    operation: &Operation,
    answer: &Answer,
    timeline: &Timeline,
    before: &Keys,
) -> Result<(), Violation> {
    let events = timeline.at(answer.revision);
    let (key, change) = (operation.request.key(), operation.request.change());
    let done = events
        .iter()
        .any(|event| Some(key_of(event)) == key && change_of(event) == change);
    if !done || events.len() != 1 {
        return Err(Violation::Lost {
            operation: Box::new(operation.clone()),
            revision: answer.revision,
            did: events.to_vec(),
        });
    }
    if let Request::Guarded { key, expected, .. } = &operation.request
        && before.get(key).map_or(0, |kv| kv.mod_revision) != *expected
    {
        return Err(untrue(operation, before));
    }
    Ok(())
}

fn read_is_true(operation: &Operation, answer: &Answer, keys: &Keys) -> Result<(), Violation> {
    let there = |key: &Bytes| keys.get(key).cloned();
    let is_true = match (&operation.request, &answer.response) {
        (Request::Get { key }, Response::Found(found)) => *found == there(key),
        (Request::List, Response::Listed(found)) => found.iter().eq(keys.values()),
        (Request::Delete { key }, Response::Deleted(_)) => there(key).is_none(),
        (Request::Guarded { key, expected, .. }, Response::Refused(found)) => {
            *found == there(key) && there(key).map_or(0, |kv| kv.mod_revision) != *expected
        }
        // An absent key that is to be deleted only if absent: the guard holds, and nothing changes.
        _ => false,
    };
    match is_true {
        true => Ok(()),
        false => Err(untrue(operation, keys)),
    }
}

fn untrue(operation: &Operation, keys: &Keys) -> Violation {
    Violation::Untrue {
        operation: Box::new(operation.clone()),
        there: keys.values().cloned().collect(),
    }
}

/// 0 for none.
fn lease_of(event: &Event) -> i64 {
    match (is_delete(event), &event.kv) {
        (false, Some(kv)) => kv.lease,
        _ => 0,
    }
}

fn change_of(event: &Event) -> Option<Change> {
    match is_delete(event) {
        true => Some(Change::Delete),
        false => event.kv.as_ref().map(|kv| Change::Put(kv.value.clone())),
    }
}

/// What had ended before an operation began is ordered before it: a read sees at least its revision, a change lies behind it.
fn clock_agrees(operations: &[Operation]) -> Result<(), Violation> {
    let mut ends: Vec<(u64, i64)> = operations
        .iter()
        .filter_map(|operation| operation.answer.as_ref())
        .map(|answer| (answer.returned, answer.revision))
        .collect();
    ends.sort_unstable();
    let mut begun: Vec<&Operation> = operations
        .iter()
        .filter(|operation| operation.answer.is_some())
        .collect();
    begun.sort_by_key(|operation| operation.called);
    let (mut ended, mut newest) = (ends.into_iter().peekable(), 0);
    for operation in begun {
        while let Some((_, revision)) = ended.next_if(|(returned, _)| *returned < operation.called) {
            newest = newest.max(revision);
        }
        let Some(answer) = &operation.answer else { continue };
        let least = newest + i64::from(changed(&answer.response) && newest > 0);
        if answer.revision < least {
            return Err(Violation::Stale {
                operation: Box::new(operation.clone()),
                before: newest,
            });
        }
    }
    Ok(())
}

/// Each change has one request that asked for it, and asked before anybody heard of it; or a lease has ended.
fn changes_were_asked_for(operations: &[Operation], timeline: &Timeline) -> Result<(), Violation> {
    let mut asked = Asked::new(operations);
    let heard = first_heard(operations);
    let (mut before, mut ended) = (Cursor::new(timeline), BTreeSet::new());
    for (revision, events) in timeline.revisions() {
        before.forward_to(revision - 1);
        if let Some(event) = events.iter().find(|event| ended.contains(&lease_of(event))) {
            return Err(Violation::OfTheDead {
                revision,
                lease: lease_of(event),
            });
        }
        let mine = |event: &Event| asked.knows(event, revision);
        if let Some(lease) = lease::ended(events, &before.keys)
            && !events.iter().any(mine)
        {
            ended.insert(lease);
            continue;
        }
        for event in events {
            let Some(called) = asked.take(event, revision) else {
                return Err(Violation::Unasked {
                    revision,
                    key: key_of(event).clone(),
                });
            };
            if heard
                .range(revision..)
                .next()
                .is_some_and(|(_, returned)| *returned < called)
            {
                return Err(Violation::Early {
                    revision,
                    key: key_of(event).clone(),
                });
            }
        }
    }
    Ok(())
}

/// The earliest return of an answer at a revision or beyond it.
fn first_heard(operations: &[Operation]) -> BTreeMap<i64, u64> {
    let mut heard = BTreeMap::new();
    for answer in operations
        .iter()
        .filter_map(|operation| operation.answer.as_ref())
    {
        let returned = heard.entry(answer.revision).or_insert(answer.returned);
        *returned = answer.returned.min(*returned);
    }
    let mut earliest = u64::MAX;
    for returned in heard.values_mut().rev() {
        earliest = earliest.min(*returned);
        *returned = earliest;
    }
    heard
}

/// Requests for changes that no revision has been found for yet.
struct Asked {
    puts: BTreeMap<Bytes, u64>,
    /// Deletions look alike: those that were answered are known by their revision, the others by their key and time.
    deletes: BTreeMap<i64, u64>,
    unanswered: BTreeMap<Bytes, Vec<u64>>,
}

impl Asked {
    fn new(operations: &[Operation]) -> Asked {
        let mut asked = Asked {
            puts: BTreeMap::new(),
            deletes: BTreeMap::new(),
            unanswered: BTreeMap::new(),
        };
        for operation in operations {
            match (
                operation.request.change(),
                operation.request.key(),
                &operation.answer,
            ) {
                (Some(Change::Put(value)), ..) => drop(asked.puts.insert(value, operation.called)),
                (Some(Change::Delete), _, Some(answer)) if changed(&answer.response) => {
                    asked.deletes.insert(answer.revision, operation.called);
                }
                (Some(Change::Delete), Some(key), None) => asked
                    .unanswered
                    .entry(key.clone())
                    .or_default()
                    .push(operation.called),
                _ => {}
            }
        }
        // The earliest is taken last: `pop` takes from the end.
        asked
            .unanswered
            .values_mut()
            .for_each(|times| times.sort_unstable_by(|a, b| b.cmp(a)));
        asked
    }

    /// Whether somebody asked for this.
    fn knows(&self, event: &Event, revision: i64) -> bool {
        let waits = |times: &Vec<u64>| !times.is_empty();
        is_delete(event)
            && (self.deletes.contains_key(&revision) || self.unanswered.get(key_of(event)).is_some_and(waits))
    }

    fn take(&mut self, event: &Event, revision: i64) -> Option<u64> {
        match change_of(event)? {
            Change::Put(value) => self.puts.remove(&value),
            Change::Delete => self
                .deletes
                .remove(&revision)
                .or_else(|| self.unanswered.get_mut(key_of(event))?.pop()),
        }
    }
}

#[cfg(test)]
mod tests;
