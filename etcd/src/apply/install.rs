//! A store that takes the place of this one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::Applier;
use crate::lease::Lessor;
use crate::meta;
use crate::storage::import::Imported;
use crate::storage::record::Loc;
use crate::storage::segment::Segment;
use crate::watch::Batch;

/// A store that arrived from the leader, with what its small buckets say.
pub struct Arrived {
    pub imported: Imported,
    pub state: meta::State,
    pub lessor: Lessor,
}

impl Applier {
    /// Puts a store that arrived from the leader in the place of this one. Call between batches. It counts once a checkpoint has written
    /// down its segments.
    pub fn install(&mut self, arrived: Arrived) {
        let Arrived {
            imported,
            state,
            lessor,
        } = arrived;
        let Some(active) = imported.active.clone() else {
            return;
        };
        let store = self.state.store.clone();
        self.replace_segments(imported, active, state.compacted);
        self.revision = self.frame.revision.max(store.current());
        let learned = state.membership.is_removed(self.member);
        *self.state.lessor.lock() = lessor.attached_to(&store);
        *self.state.alarms.write() = state.alarms;
        self.effects.alarms_changed();
        *self.state.membership.write() = state.membership;
        self.state.auth.restore(state.auth);
        *self.state.v2.write() = state.v2;
        self.effects.members_changed();
        self.effects.leases_changed();
        // Whoever watches reads what it has missed from the new history.
        self.hub.publish(Batch {
            revision: self.revision,
            changes: None,
            place: Loc::default(),
            bytes: Bytes::new(),
            segments: store.storage.segments(),
        });
        if learned {
            self.effects.removed();
        }
        self.state.waits.abandon();
        self.effects.checkpoint();
        self.reserve();
    }

    fn replace_segments(&mut self, mut imported: Imported, active: Arc<Segment>, compacted: i64) {
        let store = &self.state.store;
        let storage = &store.storage;
        let _structure = storage.structure.lock();
        let old = storage.segments();
        imported
            .all_segments()
            .for_each(|segment| storage.add(segment.clone()));
        let versions = std::mem::take(&mut imported.versions);
        self.frame = imported.frame;
        store.replace(versions, self.frame.revision, compacted);
        self.writer
            .replace(active, std::mem::take(&mut imported.meta), self.frame);
        storage.remove(&old.iter().map(|segment| segment.number).collect::<Vec<_>>());
        storage.doomed.lock().extend(old.iter().cloned());
        storage.installed.store(self.frame.index, Ordering::SeqCst);
        imported.keep();
    }
}
