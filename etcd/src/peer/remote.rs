//! One other member: its queues, the streams that we read from it, and whether it is there.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use parking_lot::{Mutex, RwLock};
use prost::Message as _;
use raft::eraftpb::{Message, MessageType};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::client::{Client, ClientError};
use super::dial::Dialed;
use super::headers::{self, Local};
use super::incoming::{Body, Reading};
use super::reader::ReadError;
use super::socket::Socket;
use super::stream::{Kind, Writer, size_of};
use super::streams::{End, Opened};
use super::{metrics, msgapp, wire};
use crate::raft::driver::Event;
use crate::raft::inbox::Inbox;

/// etcd's: messages that wait to be posted, and how many are posted at once.
const PIPELINE_MESSAGES: usize = 64;
const PIPELINE_WORKERS: usize = 4;
const PIPELINE_BYTES: usize = 32 * 1024 * 1024;
const POST_TIMEOUT: Duration = Duration::from_secs(10);
/// No member sends an append of more than a few proposals of the largest size.
pub const MAX_MESSAGE_BYTES: u64 = 128 * 1024 * 1024;
/// Between two attempts to reach a peer.
const RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_millis(800);
const PROBE_INTERVAL: Duration = Duration::from_secs(3);

/// What all peers share.
pub struct Shared {
    pub local: Local,
    pub client: Client,
    pub events: Arc<Inbox<Event>>,
    /// `--raft-read-timeout`: a stream that is silent for so long is broken.
    pub read_timeout: Duration,
    /// `--raft-write-timeout`: so is one that takes nothing for so long.
    pub write_timeout: Duration,
    /// Told when the cluster says that this member is no part of it any more.
    pub removed: Arc<dyn Fn() + Send + Sync>,
}

pub struct Peer {
    pub id: u64,
    shared: Arc<Shared>,
    urls: RwLock<Vec<String>>,
    /// Which of the URLs answered last.
    picked: AtomicUsize,
    pipeline: mpsc::Sender<Message>,
    pipeline_load: AtomicUsize,
    stopped: AtomicBool,
    active: Mutex<Option<Instant>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Whether we also read streams from it: one that is only known by the address it gave gets answers and nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquaintance {
    Member,
    Remote,
}

impl Peer {
    pub fn start(shared: &Arc<Shared>, id: u64, urls: Vec<String>, acquaintance: Acquaintance) -> Arc<Peer> {
        let (pipeline, posts) = mpsc::channel(PIPELINE_MESSAGES);
        let peer = Arc::new(Peer {
            id,
            shared: shared.clone(),
            urls: RwLock::new(urls),
            picked: AtomicUsize::new(0),
            pipeline,
            pipeline_load: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            active: Mutex::new(None),
            tasks: Mutex::default(),
        });
        let posts = Arc::new(tokio::sync::Mutex::new(posts));
        let mut tasks: Vec<_> = (0..PIPELINE_WORKERS)
            .map(|_| tokio::spawn(peer.clone().post_all(posts.clone())))
            .collect();
        if acquaintance == Acquaintance::Member {
            info!("remote-peer-id" = %format!("{id:x}"), urls = ?peer.urls.read(), "started remote peer");
            tasks.push(tokio::spawn(peer.clone().read_streams(Kind::MsgApp)));
            tasks.push(tokio::spawn(peer.clone().read_streams(Kind::Message)));
            tasks.push(tokio::spawn(peer.clone().probe()));
        }
        *peer.tasks.lock() = tasks;
        peer
    }

    pub fn stop(&self) {
        self.tasks.lock().drain(..).for_each(|task| task.abort());
        self.stopped.store(true, Ordering::SeqCst);
        self.shared.events.push(Event::PeerStopped);
        let (local, remote) = self.labels();
        metrics::ACTIVE_PEERS.remove(&[&local, &remote]);
        info!("remote-peer-id" = %remote, "stopped remote peer");
    }

    pub fn update(&self, urls: &[String]) {
        let mut known = self.urls.write();
        if *known != urls {
            *known = urls.to_vec();
            info!("remote-peer-id" = %format!("{:x}", self.id), urls = ?urls, "updated remote peer");
        }
    }

    pub fn urls(&self) -> Vec<String> {
        self.urls.read().clone()
    }

    fn url(&self) -> String {
        let urls = self.urls.read();
        let place = self.picked.load(Ordering::Relaxed);
        urls.get(place % urls.len().max(1)).cloned().unwrap_or_default()
    }

    /// The next attempt goes to the next URL.
    fn url_failed(&self) {
        self.picked.fetch_add(1, Ordering::Relaxed);
    }

    fn labels(&self) -> (String, String) {
        (
            format!("{:x}", self.shared.local.member),
            format!("{:x}", self.id),
        )
    }

    pub fn active_since(&self) -> Option<Instant> {
        *self.active.lock()
    }

    pub fn activate(&self) {
        let mut active = self.active.lock();
        if active.is_none() {
            *active = Some(Instant::now());
            let (local, remote) = self.labels();
            metrics::ACTIVE_PEERS.with(&[&local, &remote]).set(1.0);
            info!("peer-id" = %remote, "peer became active");
        }
    }

    pub fn deactivate(&self, doing: &str, reason: &dyn std::fmt::Display) {
        let mut active = self.active.lock();
        let (local, remote) = self.labels();
        if active.take().is_some() {
            metrics::ACTIVE_PEERS.with(&[&local, &remote]).set(0.0);
            metrics::DISCONNECTED_PEERS.with(&[&local, &remote]).inc();
            warn!("peer-id" = %remote, doing, error = %reason, "peer became inactive (message send to peer failed)");
        } else {
            debug!("peer-id" = %remote, doing, error = %reason, "peer is still inactive");
        }
    }

    fn unreachable(&self) {
        self.shared.events.push(Event::Unreachable(self.id));
    }

    /// Posts a message for which there is no stream. Never waits. What cannot be taken is reported to raft, which sends it again when the peer
    /// answers.
    pub fn send(&self, message: Message) {
        let size = size_of(&message);
        let waiting = self.pipeline_load.fetch_add(size, Ordering::Relaxed);
        if waiting + size > PIPELINE_BYTES || self.pipeline.try_send(message).is_err() {
            self.pipeline_load.fetch_sub(size, Ordering::Relaxed);
            self.dropped("the pipeline");
        }
    }

    pub fn dropped(&self, what: &str) {
        let (_, remote) = self.labels();
        metrics::SENT_FAILURES.with(&[&remote]).inc();
        debug!("remote-peer-id" = %remote, what, "dropped internal Raft message since sending buffer is full");
        self.unreachable();
    }

    /// The peer has dialed us: what is sent to it goes into the answer, which begins with `head`.
    pub fn attach(self: &Arc<Self>, kind: Kind, socket: Socket, head: &[u8]) -> io::Result<()> {
        let (_, remote) = self.labels();
        let writer = Writer::new(socket, kind, head, metrics::SENT_BYTES.with(&[&remote]))?;
        info!("remote-peer-id" = %remote, "stream-writer-type" = kind.name(), "established TCP streaming connection with remote peer");
        self.activate();
        self.open(End::Writing(kind, writer));
        Ok(())
    }

    fn open(self: &Arc<Self>, end: End) {
        let peer = self.clone();
        let opened = Box::new(Opened { peer, end });
        self.shared.events.push(Event::Stream(opened));
    }

    pub fn stream_ended(&self, kind: Kind, why: &ReadError, lost: bool) {
        if lost {
            self.unreachable();
        }
        debug!("remote-peer-id" = %format!("{:x}", self.id), "stream-writer-type" = kind.name(), error = %why, "lost TCP streaming connection with remote peer");
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// A stream that is silent for so long is broken.
    pub fn read_timeout(&self) -> Duration {
        self.shared.read_timeout
    }

    pub fn write_timeout(&self) -> Duration {
        self.shared.write_timeout
    }

    async fn post_all(self: Arc<Self>, posts: Arc<tokio::sync::Mutex<mpsc::Receiver<Message>>>) {
        loop {
            let message = posts.lock().await.recv().await;
            let Some(message) = message else { return };
            self.pipeline_load.fetch_sub(size_of(&message), Ordering::Relaxed);
            self.post(message).await;
        }
    }

    async fn post(&self, message: Message) {
        let bytes = Bytes::from(wire::to_raftpb(message).encode_to_vec());
        let mut headers = self.shared.local.headers();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/protobuf"),
        );
        let (_, remote) = self.labels();
        let (url, length) = (self.url(), bytes.len());
        let posted = self
            .shared
            .client
            .call(&url, Method::POST, "/raft", &headers, bytes, POST_TIMEOUT)
            .await;
        let refusal = match posted {
            Ok(answer) if answer.status == StatusCode::NO_CONTENT => {
                self.activate();
                return metrics::SENT_BYTES.with(&[&remote]).add(length as f64);
            }
            Ok(answer) => self.refused(answer.status, &answer.body),
            Err(error) => error.to_string(),
        };
        self.url_failed();
        self.deactivate("pipeline", &refusal);
        metrics::SENT_FAILURES.with(&[&remote]).inc();
        self.unreachable();
    }

    /// Why the other side does not want to hear from us. Being removed is final.
    pub fn refused(&self, status: StatusCode, body: &[u8]) -> String {
        let said = String::from_utf8_lossy(body).trim().to_owned();
        if matches!(status, StatusCode::GONE | StatusCode::FORBIDDEN) && said.contains("removed member") {
            (self.shared.removed)();
        }
        format!("{}: {status}: {said}", self.url())
    }

    /// Reads what the peer sends on one kind of stream, again and again.
    async fn read_streams(self: Arc<Self>, kind: Kind) {
        let mut pause = RETRY;
        loop {
            let opened = Instant::now();
            match self.read_stream(kind).await {
                ReadError::Ended => {
                    debug!("remote-peer-id" = %format!("{:x}", self.id), "stream-reader-type" = kind.name(), "lost TCP streaming connection with remote peer")
                }
                error => self.deactivate(kind.name(), &error),
            }
            pause = match opened.elapsed() > MAX_RETRY {
                true => RETRY,
                false => (pause * 2).min(MAX_RETRY),
            };
            // Two members that fail together must not dial each other in step.
            tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        }
    }

    /// Until it breaks, and why it did.
    async fn read_stream(self: &Arc<Self>, kind: Kind) -> ReadError {
        let (socket, body, rest) = match self.dial(kind).await {
            Ok(dialed) => dialed,
            Err(error) => {
                self.url_failed();
                return error;
            }
        };
        self.activate();
        info!("remote-peer-id" = %format!("{:x}", self.id), "stream-reader-type" = kind.name(), "established TCP streaming connection with remote peer");
        let decoder = msgapp::Decoder::new(self.shared.local.member, self.id);
        let (ended, end) = oneshot::channel();
        self.open(End::Reading(Reading::new(
            socket, body, rest, kind, decoder, ended,
        )));
        end.await.unwrap_or(ReadError::Ended)
    }

    async fn dial(&self, kind: Kind) -> Result<(Socket, Body, BytesMut), ReadError> {
        let local = &self.shared.local;
        let path = format!("{}/{:x}", kind.path(), local.member);
        let mut headers = local.headers();
        if let Ok(to) = HeaderValue::try_from(format!("{:x}", self.id)) {
            headers.insert(headers::RAFT_TO, to);
        }
        match self.shared.client.dial(&self.url(), &path, &headers).await? {
            Dialed::Stream(socket, body, rest) => Ok((socket, body, rest)),
            Dialed::Refused(status, said) => Err(ReadError::Malformed(self.refused(status, &said))),
        }
    }

    async fn probe(self: Arc<Self>) {
        let (_, remote) = self.labels();
        let headers = HeaderMap::new();
        loop {
            tokio::time::sleep(PROBE_INTERVAL).await;
            let (start, url) = (Instant::now(), self.url());
            let probe = self.shared.client.call(
                &url,
                Method::GET,
                "/raft/probing",
                &headers,
                Bytes::new(),
                PROBE_INTERVAL,
            );
            if let Ok(answer) = probe.await
                && answer.status == StatusCode::OK
            {
                metrics::ROUND_TRIP_SECONDS.with(&[&remote]).observe_since(start);
            }
        }
    }

    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    pub fn local(&self) -> &Local {
        &self.shared.local
    }

    pub fn report_snapshot(&self, arrived: bool) {
        self.shared.events.push(Event::Snapshot(self.id, arrived));
        if !arrived {
            self.unreachable();
        }
    }
}

/// Meant for us, no snapshot (one comes with its store, by its own way), and nothing that raft would take for a bug.
pub fn accepts(local: &Local, message: &Message) -> bool {
    message.to == local.member
        && message.from != 0
        && message.msg_type != MessageType::MsgSnapshot as i32
        && wire::is_sound(message)
}

impl From<ClientError> for ReadError {
    fn from(error: ClientError) -> ReadError {
        ReadError::Transport(error.into())
    }
}
