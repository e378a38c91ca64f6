//! Watching: every event once, in order, to everyone who asked, and nobody slowed down by anybody else.
//!
//! The apply thread hands each frame to the [`hub`], whose thread owns all watchers. Watchers of the same range form a group
//! ([`groups`]); the events of a frame are encoded once ([`encode`]) and their bytes put into each stream's bounded [`outbox`].
//! A stream that does not keep up gets nothing until it has drained; then [`catch_up`], on a thread of its own, reads what it missed from
//! history, and so does a watcher that begins in the past. Every watcher carries the next revision it has to see: that is what makes
//! loss, repetition and reordering impossible, whichever way an event takes.

pub mod catch_up;
pub mod encode;
pub mod groups;
pub mod hub;
mod interest;
pub mod outbox;

use bytes::Bytes;

use crate::mvcc::txn::Change;
use crate::storage::Segments;
use crate::storage::record::Loc;
pub use hub::Hub;
pub use interest::{Interest, range_of};

/// One written frame, for watchers.
pub struct Batch {
    /// The revision after it.
    pub revision: i64,
    /// None when nobody watched when it was made: whoever came meanwhile reads history.
    pub changes: Option<Vec<Change>>,
    /// Where `bytes` lie; the changes of this frame are inside.
    pub place: Loc,
    pub bytes: Bytes,
    pub segments: Segments,
}
