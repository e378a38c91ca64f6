//! Reading from history what a watcher has not seen; on a thread of its own, a piece for each in turn.

use std::sync::Arc;

use super::encode::{Bodies, Body, Event, RESPONSE_BYTES};
use super::hub::HubEvent;
use super::{Hub, Interest};
use crate::mvcc::txn::Change;
use crate::mvcc::{Error, Store, index};
use crate::raft::inbox::Inbox;
use crate::storage::held::Held;
use crate::storage::record::Version;

/// A piece of history for one watcher.
pub struct Job {
    pub stream: u64,
    pub watch_id: i64,
    pub interest: Arc<Interest>,
    pub from: i64,
    pub until: i64,
}

pub struct Piece {
    pub stream: u64,
    pub watch_id: i64,
    pub bodies: Vec<Body>,
    /// The next revision that the watcher has to see.
    pub next: i64,
    pub failure: Option<Error>,
}

/// Until there is None among the jobs.
pub fn run(hub: &Hub, store: &Store, jobs: &Inbox<Option<Job>>) {
    let mut batch = Vec::new();
    loop {
        jobs.drain(&mut batch, None);
        for job in batch.drain(..) {
            match job {
                Some(job) => hub.send(HubEvent::CaughtUp(read(store, job))),
                None => return,
            }
        }
    }
}

pub fn read(store: &Store, job: Job) -> Piece {
    let mut piece = Piece {
        stream: job.stream,
        watch_id: job.watch_id,
        bodies: Vec::new(),
        next: job.from,
        failure: None,
    };
    match bodies(store, &job) {
        Ok((bodies, next)) => {
            piece.bodies = bodies;
            piece.next = next;
        }
        Err(error) => piece.failure = Some(error),
    }
    piece
}

fn bodies(store: &Store, job: &Job) -> Result<(Vec<Body>, i64), Error> {
    store.still_there(job.from)?;
    let mut held = Held::since(store.storage.segments());
    let mut changes = changes(store, job, &mut held);
    let segments = held.list()?;
    // A compaction that passed meanwhile may have taken some away.
    store.still_there(job.from)?;
    changes.sort_unstable_by_key(|change| (change.version.main, change.version.sub));
    let mut bodies = Bodies::default();
    let mut next = job.until + 1;
    for change in changes {
        let revision = change.version.main;
        if bodies.bytes() >= RESPONSE_BYTES && revision != next_of(&bodies, job.from) {
            next = revision;
            break;
        }
        let mut event = Event::new(change, store.storage.read(&segments, change.version.loc)?);
        if event.is_wanted(&job.interest) {
            bodies.push(
                revision,
                event.encoded(job.interest.prev_kv, &store.storage, &segments)?,
            );
        }
    }
    bodies.close();
    Ok((bodies.done, next))
}

/// The revision of the last event taken.
fn next_of(bodies: &Bodies, from: i64) -> i64 {
    bodies.last_revision().unwrap_or(from)
}

fn changes(store: &Store, job: &Job, held: &mut Held) -> Vec<Change> {
    let mut changes = Vec::new();
    store.walk_history(&job.interest.range, job.from, |_, history| {
        let start = history.partition_point(|version| version.main < job.from);
        let end = history.partition_point(|version| version.main <= job.until);
        for place in start..end {
            let (version, prev) = (history[place], previous(history, history[place]));
            for found in prev.iter().chain([&version]) {
                held.hold(&store.storage, found.loc.segment);
            }
            changes.push(Change { version, prev });
        }
    });
    changes
}

/// What was live before `version`; a compaction may have taken it.
fn previous(history: &[Version], version: Version) -> Option<Version> {
    index::at(history, version.main - 1).copied()
}
