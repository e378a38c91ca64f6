//! The end of a frame: written, published, told to who watches, and only then answered.

use std::io;

use bytes::Bytes;
use tracing::warn;

use super::Applier;
use crate::disk;
use crate::mvcc::txn::Change;
use crate::storage::held::Held;
use crate::storage::record::{FrameHeader, Loc};
use crate::storage::{Segments, Writer};
use crate::watch::Batch;

impl Applier {
    pub(super) fn finish_frame(&mut self) {
        self.frame.revision = self.revision;
        let (place, bytes) = self.flush();
        let before = self.state.store.current();
        self.state.store.publish(self.revision);
        self.effects.frame_written(self.frame.index, bytes.len() as u64);
        // Asked again: whoever came after the first asking has seen the revision before this frame, and catches up.
        if self.revision > before && (self.watched || self.hub.is_watched()) {
            let (changes, segments) = self.readable();
            self.hub.publish(Batch {
                revision: self.revision,
                changes,
                place,
                bytes,
                segments,
            });
        } else {
            self.writer.reuse(bytes);
        }
        self.before = None;
        self.changes.clear();
        if std::mem::take(&mut self.members_changed) {
            self.effects.members_changed();
            // Who was removed takes its vote along, and the log may not say that this was committed: the store must.
            self.effects.checkpoint();
        }
        self.state.waits.complete(&mut self.done);
        for revision in self.compactions.drain(..) {
            self.effects.compacted(revision);
        }
        self.roll();
    }

    /// The changes of this frame with the segments that their previous values lie in, whatever was reclaimed since they were found. None when
    /// one of them is gone all the same: whoever watches reads history, which says where it is now.
    fn readable(&mut self) -> (Option<Vec<Change>>, Segments) {
        let storage = &self.state.store.storage;
        let mut held = Held::since(self.before.take().unwrap_or_default());
        let changes = self.watched.then(|| std::mem::take(&mut self.changes));
        for prev in changes.iter().flatten().filter_map(|change| change.prev) {
            held.hold(storage, prev.loc.segment);
        }
        match held.list() {
            Ok(segments) => (changes, segments),
            Err(_) => (None, storage.segments()),
        }
    }

    /// A full disk holds everything up until there is space: what is applied is in the log, and nothing is lost.
    fn flush(&mut self) -> (Loc, Bytes) {
        self.persistently(|writer, frame| writer.flush(frame))
    }

    fn roll(&mut self) {
        if self.persistently(|writer, _| writer.roll_if_full()) {
            self.effects.checkpoint();
        }
        self.reserve();
    }

    /// Keeps the next segment reserved; while that fails, the server refuses what takes space.
    pub fn reserve(&mut self) {
        let result = self.writer.reserve_next();
        let full = match &result {
            Ok(()) => false,
            Err(source) if disk::is_full(source) => true,
            Err(source) => self.effects.fatal(source),
        };
        if full != self.full {
            self.full = full;
            self.effects.store_full(full);
        }
    }

    pub fn is_full(&self) -> bool {
        self.full
    }

    fn persistently<T>(&mut self, mut attempt: impl FnMut(&mut Writer, FrameHeader) -> io::Result<T>) -> T {
        loop {
            match attempt(&mut self.writer, self.frame) {
                Ok(value) => return value,
                Err(source) if disk::is_full(&source) => {
                    if !std::mem::replace(&mut self.full, true) {
                        warn!("the disk is full: applied entries wait for space");
                        self.effects.store_full(true);
                    }
                    self.effects.wait_for_space();
                }
                Err(source) => self.effects.fatal(&source),
            }
        }
    }
}
