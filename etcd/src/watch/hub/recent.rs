//! The last frames, for watchers that are a little behind: history need not be read for them.

use std::collections::VecDeque;
use std::io;

use crate::mvcc::Store;
use crate::watch::encode::{Bodies, Body, events_of};
use crate::watch::{Batch, Interest};

/// Beyond either limit the oldest goes.
const MAX_FRAMES: usize = 64;
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Without a gap: each frame begins where the one before it ends.
pub struct Recent {
    /// Everything up to here went to the watchers that are present.
    pub seen: i64,
    frames: VecDeque<Frame>,
    bytes: usize,
}

struct Frame {
    /// The revision before it.
    before: i64,
    batch: Batch,
}

impl Recent {
    pub fn new(seen: i64) -> Self {
        Recent {
            seen,
            frames: VecDeque::new(),
            bytes: 0,
        }
    }

    pub fn push(&mut self, before: i64, batch: Batch) {
        self.bytes += batch.bytes.len();
        self.frames.push_back(Frame { before, batch });
        while self.frames.len() > MAX_FRAMES || self.bytes > MAX_BYTES {
            let Some(old) = self.frames.pop_front() else {
                return;
            };
            self.bytes -= old.batch.bytes.len();
        }
    }

    pub fn clear(&mut self) {
        self.frames.clear();
        self.bytes = 0;
    }

    /// Frames that were made while nobody watched never came here. From the first watcher on they all do.
    pub fn resume_at(&mut self, current: i64) {
        if current > self.seen {
            self.seen = current;
            self.clear();
        }
    }

    /// Whether they hold everything from this revision on.
    pub fn reach_back_to(&self, revision: i64) -> bool {
        let oldest = self.frames.front();
        oldest.is_some_and(|oldest| oldest.before < revision)
    }

    /// The events from this revision on that somebody wants to see.
    pub fn since(&self, revision: i64, interest: &Interest, store: &Store) -> io::Result<Vec<Body>> {
        let mut bodies = Bodies::default();
        let unseen = self
            .frames
            .iter()
            .filter(|frame| frame.batch.revision >= revision);
        for Frame { batch, .. } in unseen {
            for event in &mut events_of(batch) {
                let main = event.revision();
                let wanted =
                    main >= revision && interest.range.contains(&event.key) && event.is_wanted(interest);
                if wanted {
                    let bytes = event.encoded(interest.prev_kv, &store.storage, &batch.segments)?;
                    bodies.push(main, bytes);
                }
            }
        }
        bodies.close();
        Ok(bodies.done)
    }
}
