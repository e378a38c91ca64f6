//! Everything between the registry and etcd.
//!
//! A write goes `registry::store` -> `etcd` (one transaction guarded by mod-revision). What comes back on the watch goes
//! `feed` (one ordered stream for the whole prefix) -> `object` (header scanned out of the stored bytes, body untouched)
//! -> `watch_cache` (persistent map, ring of events, indexed dispatch) -> readers and watchers.
//!
//! Invariants: a cache's revision never goes back; an event is in the map before anyone is told of the revision;
//! `feed::Feed::revision` is published only after every event up to it was dispatched.

pub mod encryption;
pub mod etcd;
pub mod feed;
pub mod header;
pub mod object;
pub mod watch_cache;
pub mod watcher;
