//! The messages of the `raft` crate, as plain Rust: the registry's crate of this name generates them in a build script that needs
//! `protoc`, which a user who builds etcd would have to install first.
//!
//! [`eraftpb`] holds the messages, with the tags of etcd's `raftpb`; [`accessors`] the getters and setters that the `raft` crate calls;
//! [`codec`] the trait through which it measures them; [`conf_change`] what configuration changes mean to it.
//!
//! An entry's bytes are [`bytes::Bytes`]: the log, the WAL, every peer and the apply thread share one copy.

mod accessors;
mod codec;
mod conf_change;
pub mod eraftpb;

pub use conf_change::{ConfChangeI, conf_state_eq, new_conf_change_single};

pub mod prelude {
    pub use crate::eraftpb::{
        ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry,
        EntryType, HardState, Message, MessageType, Snapshot, SnapshotMetadata,
    };
}
