//! The bugs that etcd itself has had, each with the schedules in which it would show. The numbers are those of etcd's issues.
//!
//! None of these bugs is in our code. Each scenario was seen to fail when the line that keeps its kind of bug out was broken:
//!
//! | issue | what was broken |
//! | --- | --- |
//! | 13766 | `Applier::flush` writes the index before that of the frame |
//! | 14370 | `Driver::persist` tells raft that it is done before the log's thread has it |
//! | 14571 | `Applier::install` leaves the rules as they were |
//! | 14685 | `Keeper::reclaim_some` removes the old segments before MANIFEST says so |
//! | 15220 | `HubThread::answer_progress` does not wait for watchers that are behind |
//! | 15271 | `Applier::install` publishes an empty batch in place of an unknown one |
//! | 17247 | `HubThread::dispatch_group` does not move `next` |
//! | 17529 | `HubThread::caught_up` goes on behind a compaction in place of a cancellation |
//! | 17780 | `Store::open` takes the newest key that lives for the revision |
//! | 18055 | `Driver::arrived` does not let raft decide at once |
//! | 18089 | `index::dropped_by` drops a tombstone at the compacted revision |
//! | 18667, 21432 | `Applier::txn` leaves the ranges out where nobody waits for the answer |
//! | 19179 | `Store::still_there` refuses the compacted revision itself |
//! | 20221 | `HubThread::answer_progress` does not ask whether a watcher has begun |
//! | 20271 | `Storage::find` looks into the present segments only |
//! | 20418 | `Driver::publish` takes every leader for the only voter |
//!
//! [`found`] is what the simulation has found in ours.

mod cluster;
mod data;
mod found;
mod leases;
mod scenario;
mod watch;
