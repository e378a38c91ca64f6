//! Snapshots as etcd's: a bbolt database with etcd's buckets, followed by its SHA-256.
//!
//! Out: [`view`] is the store between two frames, as the apply thread knows it; [`export`] finds the revisions that belong to it in the index, plans
//! the file from their lengths, and streams it while writes, compactions and reclaiming go on. `Maintenance.Snapshot`
//! ([`crate::rpc::snapshot`]) puts that into a response; a leader sends the same bytes to a member that lags.
//!
//! In: [`read`] opens a file, checks its hash and contents, and tells its status; [`load`] makes a store of it, whole for a lagging
//! member, or for [`restore`], which begins a new cluster with it.
//!
//! [`schema`] is the one table of which of our meta buckets is which of etcd's; `docs/format.md` says how keys lie in a store.

pub mod export;
pub mod load;
pub mod read;
pub mod restore;
pub mod schema;
pub mod view;

use std::io;
use std::path::{Path, PathBuf};

pub use export::Export;
pub use view::View;

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    File(#[from] bbolt::Error),
    #[error(transparent)]
    Write(#[from] bbolt::WriteError),
    #[error("{}: {what}; the snapshot is damaged: take another one", file.display())]
    Content { file: PathBuf, what: String },
    #[error("{}: snapshot missing hash but --skip-hash-check=false; a database copied from a data directory has none: give --skip-hash-check", file.display())]
    NoHash { file: PathBuf },
    #[error("{}: expected sha256 {expected}, got {found}; the snapshot is damaged: copy it or take it again", file.display())]
    Hash {
        file: PathBuf,
        expected: String,
        found: String,
    },
    #[error("{}: in use by a running etcd; stop it, or take a snapshot with `etcdctl snapshot save`", file.display())]
    InUse { file: PathBuf },
    #[error("{what} in the store cannot be put into a snapshot: it cannot be decoded")]
    Meta { what: String },
    #[error("{}: authentication is enabled in this snapshot, but this version has none; disable it before taking the snapshot (`etcdctl auth disable`)", file.display())]
    Auth { file: PathBuf },
    #[error("etcdserver: server stopped")]
    Stopped,
    #[error(transparent)]
    Mvcc(#[from] crate::mvcc::Error),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl SnapshotError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> SnapshotError + '_ {
        move |source| SnapshotError::Io {
            path: path.to_owned(),
            source,
        }
    }

    fn content(file: &Path, what: impl Into<String>) -> SnapshotError {
        SnapshotError::Content {
            file: file.to_owned(),
            what: what.into(),
        }
    }
}

#[cfg(test)]
mod tests;
