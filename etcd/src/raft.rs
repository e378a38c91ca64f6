//! The raft group: one owner of the node, one loop, etcd's order of steps.
//!
//! [`node`] decides: events in ([`node::Node::propose`], ticks, messages, "persisted"), [`node::Work`] out. [`driver`] does: it
//! hands entries to the log's thread, committed entries to the apply thread, and answers read requests. The log's thread
//! ([`log_thread`]) syncs all that waits with one fdatasync, so that neither ticks nor messages ever stand behind the disk. [`log`] is
//! what raft needs to read of its log; what a member that is far behind needs is read back from the files ([`older`]). [`conf_change`] keeps etcd's configuration changes and raft's apart.
//!
//! Each of the three threads has a `turn` that never waits: a test runs whole clusters in one thread. A member without peers does what is
//! little on the raft thread itself, down to the answer ([`stage`]).

pub mod conf_change;
pub mod driver;
pub mod inbox;
pub mod log;
pub mod log_thread;
pub mod node;
pub mod older;
pub mod read;
pub mod run;
pub mod stage;
