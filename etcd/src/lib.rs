//! etcd v3 in one process: raft, a write-ahead log, multi-version keys, watches, leases.
//!
//! A put's way, which is also the reading order:
//!
//! 1. [`config`] read the flags, [`bootstrap`] opened the data directory and started the threads; [`http`] tells gRPC from the rest.
//! 2. [`rpc`] reads the frame and checks the request; [`server`] wraps it into an `InternalRaftRequest` with an id and waits for that id.
//! 3. [`raft`] decides: the entry goes to the thread of the [`wal`], where all that wait share one fdatasync, and comes back committed.
//! 4. [`apply`] runs it in order on one thread: [`mvcc`] looks at its index (in [`runs`] of neighbouring keys), and appends records to a frame of the [`storage`].
//! 5. The frame is written, the revision published, the [`watch`] hub told, and the request answered.
//! 6. Later [`storage::keeper`] makes the segment durable, releases the log, and reclaims what compactions left dead.
//!
//! [`lease`], [`membership`], alarms and the [`quota`] change by entries too, and lie in the store's [`meta`] records, in the same frames.
//! [`compactor`] compacts by itself when flags say so. [`snapshot`] writes and reads etcd's snapshot files.
//! [`gateway`] speaks the v3 API in JSON, over the table of [`rpc`]; [`v2`] is the v2 keys API, a store of its own that changes by entries as well.
//! [`traces`] are of clients' calls. [`descriptors`] limits how many connections there are. [`clock`] and [`disk`] are the two outside things that deciding code would otherwise touch; both have fakes.
//!
//! [`peer`] carries raft's messages and snapshots between members as etcd's rafthttp does.
//! [`auth`] stands beside all of this: who a request is from is read by [`rpc::caller`], and what that user may do is asked in [`apply`],
//! or around the read of what does not go through the log.
//!
//! The byte layout is in `docs/format.md`.

pub mod apply;
pub mod auth;
pub mod bootstrap;
pub mod clock;
pub mod compactor;
pub mod config;
pub mod descriptors;
pub mod disk;
pub mod gateway;
pub mod http;
pub mod lease;
pub mod membership;
pub mod meta;
pub mod metrics;
pub mod mvcc;
pub mod peer;
pub mod quota;
pub mod raft;
pub mod rpc;
pub mod runs;
pub mod server;
pub mod snapshot;
pub mod storage;
pub mod traces;
pub mod v2;
pub mod wal;
pub mod watch;
