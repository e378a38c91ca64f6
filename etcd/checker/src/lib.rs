//! Whether what clients saw of an etcd is what etcd promises: strict serializability of its keys, and the eight guarantees of its watches.
//!
//! etcd numbers every change, so there is nothing to search: the revisions *are* the order, and the question is whether that order explains
//! everything that was seen.
//!
//! 1. [`timeline`] takes the events of all revisions and replays them: no gap, and every version, creation and previous value follows from
//!    what came before.
//! 2. [`history`] is what clients asked and heard, with the times of call and return on one clock. A request without an answer may have
//!    happened at any later time, or never. [`requests`] puts it to etcd and reads the answers.
//! 3. [`serializable`] puts every answer at its revision and asks whether it is true there, and whether an operation that began after another had
//!    ended is ordered behind it.
//! 4. [`lease`] tells a change that nobody asked for from one that was a lease's end.
//! 5. [`watch`] holds the responses of one watch against the timeline: ordered, unique, atomic, reliable, resumable, bookmarkable, with true
//!    previous values and creations.
//!
//! No IO and no clock: real processes and the simulation are judged by the same code.

pub mod history;
pub mod lease;
pub mod requests;
pub mod serializable;
pub mod timeline;
pub mod watch;

pub use history::{Operation, Request, Response};
pub use timeline::Timeline;
