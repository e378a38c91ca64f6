//! Maintenance.Snapshot: the database in pieces, read when the client is ready for them, and its hash as the last one.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use etcd_api::etcdserverpb::{SnapshotRequest, SnapshotResponse};
use prost::Message as _;
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{info, warn};

use super::caller::Caller;
use super::grpc::{Answer, Channel, PREFIX_BYTES, Reply, seal};
use super::status::{Code, Status};
use crate::membership::storage_version;
use crate::mvcc;
use crate::server::{EtcdServer, ServerError};
use crate::snapshot::{Export, SnapshotError};

/// etcd's size of a piece.
const PIECE_BYTES: usize = 32 * 1024;
/// Pieces that wait for a slow client.
const QUEUED_PIECES: usize = 8;
/// Snapshots that are sent at once; each holds the places of all revisions.
const AT_ONCE: usize = 4;
/// A client that takes nothing for so long is given up.
const STALLED: Duration = Duration::from_secs(60);
const THREAD_STACK: usize = 512 * 1024;

static SENDING: std::sync::LazyLock<Arc<Semaphore>> =
    std::sync::LazyLock::new(|| Arc::new(Semaphore::new(AT_ONCE)));

pub async fn snapshot(server: Caller, _: SnapshotRequest) -> Answer {
    server.admin().await?;
    let Ok(permit) = SENDING.clone().try_acquire_owned() else {
        return Err(ServerError::TooManyRequests.into());
    };
    let (sender, body) = Channel::open(QUEUED_PIECES);
    let handle = Handle::current();
    let run = move || send(&server, sender, handle, permit);
    std::thread::Builder::new()
        .name("etcd-snapshot".into())
        .stack_size(THREAD_STACK)
        .spawn(run)
        .map_err(|error| Status::new(Code::ResourceExhausted, error.to_string()))?;
    Ok(Reply::Stream(body))
}

fn send(
    server: &EtcdServer,
    sender: Sender<Result<Bytes, Status>>,
    handle: Handle,
    _permit: OwnedSemaphorePermit,
) {
    let result = Export::take(server.store(), || server.view()).and_then(|export| {
        info!(
            "total-bytes" = export.bytes(),
            revision = export.revision,
            "sending database snapshot to client"
        );
        let mut pieces = Pieces {
            sender: &sender,
            handle: &handle,
            remaining: export.bytes(),
            piece: Vec::with_capacity(PIECE_BYTES),
            version: storage_version(&server.state.membership.read().version),
        };
        export.write(&mut pieces)?;
        pieces.send().map_err(bbolt::WriteError::Io)?;
        Ok(export.bytes())
    });
    match result {
        Ok(bytes) => info!(
            "total-bytes" = bytes,
            "successfully sent database snapshot to client"
        ),
        Err(error) => {
            warn!(error = %error, "failed to send database snapshot to client");
            // A client that has gone, or stalls, does not hear it.
            sender.try_send(Err(status(&error))).ok();
        }
    }
}

fn status(error: &SnapshotError) -> Status {
    match error {
        SnapshotError::Stopped => ServerError::Stopped.into(),
        SnapshotError::Mvcc(mvcc::Error::Io(source)) => Status::new(Code::DataLoss, source.to_string()),
        error => Status::new(Code::Internal, error.to_string()),
    }
}

/// Messages of [`PIECE_BYTES`]; what follows the database is its hash, in a message of its own.
struct Pieces<'a> {
    sender: &'a Sender<Result<Bytes, Status>>,
    handle: &'a Handle,
    /// Of the database.
    remaining: u64,
    piece: Vec<u8>,
    /// Of the storage.
    version: String,
}

impl Pieces<'_> {
    fn send(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let response = SnapshotResponse {
            header: None,
            remaining_bytes: self.remaining,
            blob: Bytes::from(std::mem::take(&mut self.piece)),
            version: self.version.clone(),
        };
        let mut frame = BytesMut::with_capacity(PREFIX_BYTES + response.encoded_len());
        frame.put_bytes(0, PREFIX_BYTES);
        response.encode_raw(&mut frame);
        self.handle
            .block_on(self.sender.send_timeout(Ok(seal(frame)), STALLED))
            .map_err(|error| io::Error::new(io::ErrorKind::BrokenPipe, error.to_string()))
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE_BYTES - self.piece.len();
        let taken = match self.remaining {
            0 => bytes.len().min(room),
            remaining => bytes.len().min(room).min(remaining as usize),
        };
        self.piece.extend_from_slice(&bytes[..taken]);
        let before = self.remaining;
        self.remaining -= (taken as u64).min(before);
        if self.piece.len() == PIECE_BYTES || (before > 0 && self.remaining == 0) {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
