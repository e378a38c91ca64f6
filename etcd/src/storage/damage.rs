//! What cannot be read back as it was written. Whoever meets it (a range, a watch, a hash, a snapshot, applying, reclaiming) reads through
//! [`Segment::read_at`] and [`Segment::check`], so it is told in one place: to the log and the metric once for each segment, to the checks of
//! health for as long as the segment is in use, and to whoever asked as an [`io::Error`] that bears the [`Damage`].
//!
//! [`Segment::read_at`]: super::segment::Segment::read_at
//! [`Segment::check`]: super::segment::Segment::check

use std::io;
use std::path::PathBuf;
use std::sync::LazyLock;

use component_base::metrics::{self, Counter};
use tracing::error;

use super::record::{RECORD_HEADER_BYTES, key_of};

pub const REMEDY: &str = "with other members: remove this one from the cluster, empty its data directory and add it again; alone: delete the key and compact, or restore a snapshot into a new data directory";

/// Of a key that is named in the log.
const SHOWN_KEY_BYTES: usize = 256;

pub static DAMAGED_SEGMENTS: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "etcd_disk_damaged_segments_total",
        "The total number of segments of the store in which something was found that does not check.",
        &[],
    )
});

#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: corrupt at offset {offset}: {what}", file.display())]
pub struct Damage {
    pub file: PathBuf,
    pub offset: u64,
    pub what: String,
}

impl Damage {
    /// What an error of a read was about, if it was about this.
    pub fn of(error: &io::Error) -> Option<&Damage> {
        error.get_ref()?.downcast_ref()
    }

    /// `record` is what was read: its key may be what it was.
    pub(super) fn report(&self, record: &[u8]) {
        DAMAGED_SEGMENTS.with(&[]).inc();
        let body = record.get(RECORD_HEADER_BYTES..).unwrap_or_default();
        let key = key_of(body).map(|key| String::from_utf8_lossy(&key[..key.len().min(SHOWN_KEY_BYTES)]));
        error!(
            file = %self.file.display(),
            offset = self.offset,
            reason = %self.what,
            "key-as-read" = %key.unwrap_or_default(),
            remedy = REMEDY,
            "the store is damaged: what cannot be read is answered with DataLoss, and this member is not ready"
        );
    }
}

impl From<Damage> for io::Error {
    fn from(damage: Damage) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, damage)
    }
}

/// The disk does not give back what was written; anything else may be over by the next read.
pub(super) fn is_lost(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    error.raw_os_error() == Some(EIO) || error.kind() == io::ErrorKind::UnexpectedEof
}
