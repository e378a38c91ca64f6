//! The keeper's thread: it makes the store durable and smaller whenever it is asked.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use component_base::allocator;
use parking_lot::Mutex;
use tracing::{info, warn};

use super::applying::ApplyJob;
use crate::clock::unix_seconds;
use crate::disk;
use crate::metrics;
use crate::mvcc::Store;
use crate::raft::driver::Event;
use crate::raft::inbox::Inbox;
use crate::raft::log_thread::fatal;
use crate::server::EtcdServer;
use crate::storage::keeper::{Keeper, Request};

/// After the store could not be made durable.
const KEEP_RETRY: Duration = Duration::from_millis(500);

/// Checkpoints, sweeps and reclaims, one after the other, until it is asked to stop.
pub fn run(mut keeper: Keeper, server: &Arc<EtcdServer>, compactions: &Mutex<Vec<i64>>) {
    loop {
        let asked = server.keeper.wait();
        let swept = |revision| {
            server.swept.send_replace(revision);
        };
        let kept = keep(
            &mut keeper,
            server.store(),
            &server.events,
            compactions,
            asked,
            swept,
            fatal,
        );
        if let Err(again) = kept {
            std::thread::sleep(KEEP_RETRY);
            server.keeper.ask(again);
        }
        server.apply_jobs.push(ApplyJob::Reserve);
        server.look_for_space();
        allocator::collect();
        if asked.stop {
            return;
        }
    }
}

/// One round of the keeper; `swept` hears of every sweep. On an error, what is to be asked again: somebody may wait for a checkpoint, as the log
/// of a store that was replaced does not go on before it.
pub fn keep(
    keeper: &mut Keeper,
    store: &Store,
    events: &Inbox<Event>,
    compactions: &Mutex<Vec<i64>>,
    asked: Request,
    swept: impl Fn(i64),
    fatal: fn(&dyn std::fmt::Display) -> !,
) -> Result<(), Request> {
    let sweeps = std::mem::take(&mut *compactions.lock());
    for revision in sweeps {
        let start = Instant::now();
        let dropped = store.compact_index(revision);
        metrics::COMPACTED.add(dropped as f64);
        metrics::COMPACTION_MS.observe(start.elapsed().as_secs_f64() * 1000.0);
        metrics::LAST_COMPACTION.set(unix_seconds() as f64);
        swept(revision);
        info!("compact-revision" = revision, dropped, took = ?start.elapsed(), "finished scheduled compaction");
    }
    if asked.checkpoint || asked.reclaim {
        let start = Instant::now();
        let durable = keeper.checkpoint();
        metrics::BACKEND_COMMIT.observe_since(start);
        match durable {
            Ok(frame) => events.push(Event::Durable(frame.index, frame.term)),
            Err(error) if disk::is_full(&error) => {
                warn!(error = %error, "there is no space to make the store durable; it will be tried again");
                return Err(Request { stop: false, ..asked });
            }
            // A sync that failed once may succeed the next time without having written anything.
            Err(error) => fatal(&error),
        }
    }
    if asked.reclaim
        && let Err(error) = reclaim(keeper)
    {
        warn!(error = %error, "failed to make the store smaller");
        if disk::is_full(&error) {
            return Err(Request::RECLAIM);
        }
    }
    Ok(())
}

/// What etcd calls a defragmentation, asked for or not.
fn reclaim(keeper: &mut Keeper) -> io::Result<u64> {
    let start = Instant::now();
    metrics::DEFRAGGING.set(1.0);
    let reclaimed = keeper.reclaim();
    metrics::DEFRAGGING.set(0.0);
    metrics::DEFRAG.observe_since(start);
    reclaimed
}
