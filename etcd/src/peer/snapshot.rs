//! A store on its way to a member that lags: etcd's own database file behind the raft message that announces it, in one request.

use std::io::{self, Write};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bbolt::Database;
use bytes::{Bytes, BytesMut};
use component_base::http::{Body, BoxError};
use etcd_api::raftpb;
use http::{HeaderValue, Method, StatusCode, header};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use prost::Message as _;
use raft::eraftpb::{self, MessageType, SnapshotMetadata};
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::{info, warn};

use super::client::incoming;
use super::handler::decode_head;
use super::reader::{ReadError, Reader};
use super::remote::Peer;
use super::stream::length_delimited;
use super::{metrics, wire};
use crate::apply::Arrived;
use crate::lease::Lessor;
use crate::meta;
use crate::mvcc::Store;
use crate::raft::conf_change::raft_conf_state;
use crate::raft::driver::Event;
use crate::server::EtcdServer;
use crate::snapshot::{Export, SnapshotError, View, read};
use crate::storage::import::Import;
use crate::storage::record::{FrameHeader, Loc, Version};

/// The raft message before the database holds no entries.
const MAX_HEAD_BYTES: u64 = 64 * 1024 * 1024;
/// Stores that are sent at once.
const SENDS: usize = 4;
const PIECE_BYTES: usize = 64 * 1024;
const QUEUED_PIECES: usize = 8;
/// Either side gives up when the other moves nothing for so long.
const STALLED: Duration = Duration::from_secs(30);
/// For what the receiver does once it has everything.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Raft asks again as soon as it hears of a failure: a receiver without room would be sent the store over and over.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
const THREAD_STACK: usize = 512 * 1024;

static SENDING: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(SENDS));
static RECEIVING: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(1));

/// Sends the store as it is now, which is at least as new as raft asked for, and tells raft how that went.
pub async fn send(server: Arc<EtcdServer>, peer: Arc<Peer>, message: eraftpb::Message) {
    let to = format!("{:x}", peer.id);
    let Ok(_permit) = SENDING.try_acquire() else {
        tokio::time::sleep(FAILURE_PAUSE).await;
        return peer.report_snapshot(false);
    };
    metrics::SNAPSHOT_SENDING.with(&[&to]).inc();
    let start = Instant::now();
    let sent = send_now(&server, &peer, message).await;
    metrics::SNAPSHOT_SENDING.with(&[&to]).dec();
    match sent {
        Ok(index) => {
            info!("snapshot-index" = index, "remote-peer-id" = %to, took = ?start.elapsed(), "sent database snapshot");
            metrics::SNAPSHOT_SENT.with(&[&to]).inc();
            metrics::SNAPSHOT_SEND_SECONDS.with(&[&to]).observe_since(start);
            peer.activate();
            peer.report_snapshot(true);
        }
        Err(error) => {
            warn!("remote-peer-id" = %to, error = %error, "failed to send database snapshot");
            metrics::SNAPSHOT_SEND_FAILURES.with(&[&to]).inc();
            metrics::SENT_FAILURES.with(&[&to]).inc();
            peer.deactivate("sendMsgSnap", &error);
            tokio::time::sleep(FAILURE_PAUSE).await;
            peer.report_snapshot(false);
        }
    }
}

async fn send_now(
    server: &Arc<EtcdServer>,
    peer: &Arc<Peer>,
    message: eraftpb::Message,
) -> Result<u64, BoxError> {
    let (pieces, receiver) = mpsc::channel(QUEUED_PIECES);
    let (announce, announced) = oneshot::channel();
    let (server, handle) = (server.clone(), Handle::current());
    let write = move || {
        let failed = pieces.clone();
        if let Err(error) = write(&server, message, pieces, &handle, announce) {
            // The receiver must not take half a database for a whole one.
            handle.block_on(failed.send(Err(error))).ok();
        }
    };
    std::thread::Builder::new()
        .name("etcd-send-snapshot".into())
        .stack_size(THREAD_STACK)
        .spawn(write)?;
    let index = announced.await.map_err(|_| "the store cannot be read")?;
    let mut headers = peer.local().headers();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    let (done, mut finished) = oneshot::channel();
    let body: Body = PiecesBody {
        pieces: receiver,
        done: Some(done),
    }
    .boxed_unsync();
    let url = peer.urls().into_iter().next().unwrap_or_default();
    let mut post = std::pin::pin!(
        peer.client()
            .open(&url, Method::POST, "/raft/snapshot", &headers, body)
    );
    let response = tokio::select! {
        response = &mut post => response,
        _ = &mut finished => tokio::time::timeout(ANSWER_TIMEOUT, post).await?,
    }?;
    let (status, answer) = (response.status(), incoming(response.into_body()));
    if status == StatusCode::NO_CONTENT {
        return Ok(index);
    }
    let said = component_base::http::read_limited(answer, 4096)
        .await
        .unwrap_or_default();
    Err(peer.refused(status, &said).into())
}

type Piece = Result<Bytes, BoxError>;

/// The pieces as a request's body.
struct PiecesBody {
    pieces: mpsc::Receiver<Piece>,
    /// Dropped with the last piece.
    done: Option<oneshot::Sender<()>>,
}

impl http_body::Body for PiecesBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let next = std::task::ready!(self.pieces.poll_recv(context));
        if next.is_none() {
            self.done = None;
        }
        Poll::Ready(next.map(|piece| piece.map(Frame::data)))
    }
}

/// The store as `ask` finds it, and what raft is to be told of it.
pub fn export(
    store: &Arc<Store>,
    ask: impl FnOnce() -> Option<View>,
) -> Result<(Export, SnapshotMetadata), SnapshotError> {
    let mut conf_state = raftpb::ConfState::default();
    let export = Export::take(store, || {
        let view = ask()?;
        let place = (meta::CLUSTER, Bytes::from_static(meta::CONF_STATE));
        conf_state = raftpb::ConfState::decode(view.meta.get(&place)?.clone()).ok()?;
        Some(view)
    })?;
    let metadata = SnapshotMetadata {
        conf_state: Some(raft_conf_state(&conf_state)),
        index: export.index,
        term: export.term,
    };
    Ok((export, metadata))
}

/// On a thread of its own: the message with the index that the store really has, then the database.
fn write(
    server: &EtcdServer,
    message: eraftpb::Message,
    pieces: mpsc::Sender<Piece>,
    handle: &Handle,
    announce: oneshot::Sender<u64>,
) -> Result<(), BoxError> {
    let (export, metadata) = export(server.store(), || server.view())?;
    let mut message = message;
    message.snapshot = Some(eraftpb::Snapshot {
        data: server.state.membership.read().v2_store().into(),
        metadata: Some(metadata),
    });
    info!("snapshot-index" = export.index, "remote-peer-id" = %format!("{:x}", message.to), bytes = export.bytes(), "sending database snapshot");
    announce.send(export.index).ok();
    let mut out = Pieces {
        sender: pieces,
        handle: handle.clone(),
        buffer: BytesMut::with_capacity(PIECE_BYTES),
    };
    length_delimited(&wire::to_raftpb(message), &mut out.buffer);
    let mut out = export.write_database(out)?;
    Ok(out.send()?)
}

struct Pieces {
    sender: mpsc::Sender<Piece>,
    handle: Handle,
    buffer: BytesMut,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = self.buffer.split().freeze();
        let send = async { tokio::time::timeout(STALLED, self.sender.send(Ok(piece))).await };
        match self.handle.block_on(send) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the receiver has gone")),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the receiver takes nothing",
            )),
        }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error("failed to decode raft message ({0})")]
    Head(String),
    #[error("wrong raft message type")]
    Kind,
    #[error("cannot process message to mismatch member")]
    Mismatch,
    #[error("cannot process message from removed member")]
    Removed,
    #[error("another snapshot is being received")]
    Busy,
    #[error("failed to save KV snapshot ({0})")]
    Store(String),
}

impl ReceiveError {
    pub fn status(&self) -> StatusCode {
        match self {
            ReceiveError::Head(_) | ReceiveError::Kind => StatusCode::BAD_REQUEST,
            ReceiveError::Mismatch | ReceiveError::Removed => StatusCode::FORBIDDEN,
            ReceiveError::Busy => StatusCode::SERVICE_UNAVAILABLE,
            ReceiveError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

fn store_error(error: impl ToString) -> ReceiveError {
    ReceiveError::Store(error.to_string())
}

/// Takes a store in, beside the one that is in use, and tells raft that it is here.
pub async fn receive(server: &Arc<EtcdServer>, body: Incoming) -> Result<(), ReceiveError> {
    let start = Instant::now();
    let mut reader = Reader::of(incoming(body), MAX_HEAD_BYTES).patient(STALLED);
    let message = head(&mut reader)
        .await
        .map_err(|error| ReceiveError::Head(error.to_string()))?;
    let message = wire::from_raftpb(message).map_err(|error| ReceiveError::Head(error.to_string()))?;
    if message.msg_type != MessageType::MsgSnapshot as i32 || !wire::is_sound(&message) {
        return Err(ReceiveError::Kind);
    }
    if message.to != server.member {
        return Err(ReceiveError::Mismatch);
    }
    if server.state.membership.read().is_removed(message.from) {
        return Err(ReceiveError::Removed);
    }
    let Ok(_permit) = RECEIVING.try_acquire() else {
        return Err(ReceiveError::Busy);
    };
    let from = format!("{:x}", message.from);
    metrics::SNAPSHOT_RECEIVING.with(&[&from]).inc();
    let received = take_in(server, &mut reader, message).await;
    metrics::SNAPSHOT_RECEIVING.with(&[&from]).dec();
    match &received {
        Ok(bytes) => {
            info!("remote-snapshot-sender-id" = %from, bytes, "download-took" = ?start.elapsed(), "received and saved database snapshot");
            metrics::RECEIVED_BYTES.with(&[&from]).add(*bytes as f64);
            metrics::SNAPSHOT_RECEIVED.with(&[&from]).inc();
            metrics::SNAPSHOT_RECEIVE_SECONDS
                .with(&[&from])
                .observe_since(start);
            crate::metrics::SNAPSHOT_SAVE.observe_since(start);
        }
        Err(_) => metrics::SNAPSHOT_RECEIVE_FAILURES.with(&[&from]).inc(),
    }
    received.map(|_| ())
}

async fn head(reader: &mut Reader) -> Result<raftpb::Message, ReadError> {
    let length = reader.number().await?;
    reader.check_length(length)?;
    Ok(decode_head(reader.take(length as usize).await?)?)
}

async fn take_in(
    server: &Arc<EtcdServer>,
    reader: &mut Reader,
    message: eraftpb::Message,
) -> Result<u64, ReceiveError> {
    let metadata = message
        .snapshot
        .as_ref()
        .and_then(|snapshot| snapshot.metadata.clone())
        .unwrap_or_default();
    let index = metadata.index;
    info!("remote-snapshot-sender-id" = %format!("{:x}", message.from), "incoming-snapshot-index" = index, "receiving database snapshot");
    let path = server.store().storage.dir.join(format!("{index:016x}.snap.tmp"));
    let file = Leftover(path);
    let bytes = download(reader, &file).await?;
    let blocking = server.clone();
    let arrived = tokio::task::spawn_blocking(move || import_for(&blocking, &file, &metadata))
        .await
        .map_err(store_error)??;
    server
        .events
        .push(Event::Arrived(Box::new(message), Box::new(arrived)));
    Ok(bytes)
}

/// The database on its way into the store; removed at last.
struct Leftover(std::path::PathBuf);

impl Drop for Leftover {
    fn drop(&mut self) {
        // A leftover goes at the next start.
        std::fs::remove_file(&self.0).ok();
    }
}

async fn download(reader: &mut Reader, file: &Leftover) -> Result<u64, ReceiveError> {
    let mut out = tokio::fs::File::create(&file.0).await.map_err(store_error)?;
    let mut bytes = 0;
    while let Some(piece) = reader.next().await.map_err(store_error)? {
        out.write_all(&piece).await.map_err(store_error)?;
        bytes += piece.len() as u64;
    }
    out.flush().await.map_err(store_error)?;
    Ok(bytes)
}

fn import_for(
    server: &EtcdServer,
    file: &Leftover,
    metadata: &SnapshotMetadata,
) -> Result<Arrived, ReceiveError> {
    import(server.store(), server.limits.min_lease_ttl, &file.0, metadata)
}

/// Makes a store of the database at `path`, beside the one that is in use.
pub fn import(
    store: &Store,
    min_lease_ttl: i64,
    path: &Path,
    metadata: &SnapshotMetadata,
) -> Result<Arrived, ReceiveError> {
    let database = read::open(path, true).map_err(store_error)?;
    let contents = read::contents(&database).map_err(store_error)?;
    if contents.index > metadata.index {
        return Err(ReceiveError::Store(format!(
            "the database is at index {}, beyond its message's {}",
            contents.index, metadata.index
        )));
    }
    let storage = store.storage.clone();
    let mut import = Import::new(storage.clone());
    let newest = import_keys(&database, &storage.dir, &mut import).map_err(store_error)?;
    let mut small = contents.meta;
    small.insert(
        (meta::CLUSTER, Bytes::from_static(meta::CONF_STATE)),
        crate::raft::conf_change::wal_conf_state(&metadata.conf_state.clone().unwrap_or_default())
            .encode_to_vec()
            .into(),
    );
    if contents.compacted > 0 {
        meta::set_compacted(&mut small, contents.compacted);
    }
    let mut lessor = Lessor::new(min_lease_ttl);
    let state = meta::read_from(storage.cluster, &small, &mut lessor).map_err(store_error)?;
    let frame = FrameHeader {
        index: metadata.index,
        term: metadata.term,
        revision: newest.max(contents.compacted).max(1),
    };
    let imported = import.finish(small, frame).map_err(store_error)?;
    Ok(Arrived {
        imported,
        state,
        lessor,
    })
}

/// Every version of every key; returns the newest revision.
fn import_keys(database: &Database, dir: &Path, import: &mut Import) -> Result<i64, SnapshotError> {
    let mut newest = 0;
    read::each_key(database, |_, value, row| {
        newest = newest.max(row.main);
        // One without a key says only what the newest revision is.
        if row.kv.key.is_empty() {
            return Ok(());
        }
        let version = Version {
            main: row.main,
            create: row.kv.create_revision,
            version: if row.is_tombstone { 0 } else { row.kv.version },
            lease: row.kv.lease,
            sub: row.sub as u32,
            loc: Loc::default(),
        };
        let put = import.put(&row.kv.key, version, value);
        put.map_err(|source| SnapshotError::Io {
            path: dir.to_owned(),
            source,
        })
    })?;
    Ok(newest)
}
