//! Dropping history, in steps that no write waits for.

use std::time::Instant;

use super::Store;
use crate::metrics;

/// Keys compacted under one lock of the index.
const STEP: usize = 256;

impl Store {
    /// Drops what a compaction at `revision` drops. [`Store::set_compacted`] must have been called before. Returns the dropped versions.
    pub fn compact_index(&self, revision: i64) -> u64 {
        let _sweeping = self.sweeping.write();
        self.plan_compaction_hash(revision);
        let mut dropped = 0;
        let mut fence: Box<[u8]> = Box::default();
        loop {
            let segments = self.storage.segments();
            let start = Instant::now();
            let next = self
                .index
                .write()
                .compact_step(&fence, STEP, revision, |version| {
                    dropped += 1;
                    if let Ok(segment) = self.storage.find(&segments, version.loc.segment) {
                        segment.discount(version);
                    }
                });
            metrics::INDEX_PAUSE_MS.observe(start.elapsed().as_secs_f64() * 1000.0);
            match next {
                Some(next) => fence = next,
                None => return dropped,
            }
            // Others want the lock too; it is not a fair one.
            std::thread::yield_now();
        }
    }
}
