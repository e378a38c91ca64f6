//! One other member: its queues, the streams that we read from it, and whether it is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use component_base::http::Body;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use parking_lot::{Mutex, RwLock};
use prost::Message as _;
use raft::eraftpb::{Message, MessageType};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::client::{Client, ClientError, incoming};
use super::headers::{self, Local};
use super::msgapp::{self, number};
use super::reader::{ReadError, Reader};
use super::stream::{Kind, Lane, NotTaken, StreamBody, is_link_heartbeat, size_of};
use super::{metrics, wire};
use crate::raft::driver::Event;
use crate::raft::inbox::Inbox;

/// etcd's: messages that wait to be posted, and how many are posted at once.
const PIPELINE_MESSAGES: usize = 64;
const PIPELINE_WORKERS: usize = 4;
const PIPELINE_BYTES: usize = 32 * 1024 * 1024;
const POST_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that wait for the raft thread; beyond it what came is dropped, and appends are not read on.
const MAX_WAITING_EVENTS: usize = 4096;
const READ_ON_BELOW: usize = 1024;
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
    /// Told when the cluster says that this member is no part of it any more.
    pub removed: Arc<dyn Fn() + Send + Sync>,
}

impl Shared {
    fn heartbeat(&self) -> Duration {
        self.read_timeout / 3
    }
}

pub struct Peer {
    pub id: u64,
    shared: Arc<Shared>,
    urls: RwLock<Vec<String>>,
    /// Which of the URLs answered last.
    picked: AtomicUsize,
    app: Arc<Lane>,
    other: Arc<Lane>,
    pipeline: mpsc::Sender<Message>,
    pipeline_load: AtomicUsize,
    streams: AtomicU64,
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
            app: Arc::default(),
            other: Arc::default(),
            pipeline,
            pipeline_load: AtomicUsize::new(0),
            streams: AtomicU64::new(0),
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
        self.app.close();
        self.other.close();
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

    /// Never waits. What cannot be taken is reported to raft, which sends it again when the peer answers.
    pub fn send(&self, message: Message) {
        let is_append = message.msg_type == MessageType::MsgAppend as i32;
        let first = if is_append { &self.app } else { &self.other };
        let message = match first.send(message) {
            Ok(()) => return,
            Err(NotTaken::Full) => return self.dropped("its stream"),
            Err(NotTaken::NoStream(message)) => *message,
        };
        let message = match is_append {
            false => message,
            true => match self.other.send(message) {
                Ok(()) => return,
                Err(NotTaken::Full) => return self.dropped("its stream"),
                Err(NotTaken::NoStream(message)) => *message,
            },
        };
        let size = size_of(&message);
        let waiting = self.pipeline_load.fetch_add(size, Ordering::Relaxed);
        if waiting + size > PIPELINE_BYTES || self.pipeline.try_send(message).is_err() {
            self.pipeline_load.fetch_sub(size, Ordering::Relaxed);
            self.dropped("the pipeline");
        }
    }

    fn dropped(&self, what: &str) {
        let (_, remote) = self.labels();
        metrics::SENT_FAILURES.with(&[&remote]).inc();
        debug!("remote-peer-id" = %remote, what, "dropped internal Raft message since sending buffer is full");
        self.unreachable();
    }

    /// The peer has dialed us: what is sent to it goes into the answer.
    pub fn attach(self: &Arc<Self>, kind: Kind) -> Body {
        let (_, remote) = self.labels();
        let lane = match kind {
            Kind::MsgApp => &self.app,
            Kind::Message => &self.other,
        };
        let id = self.streams.fetch_add(1, Ordering::Relaxed);
        let peer = Arc::downgrade(self);
        let ended = move |lost: bool| {
            let Some(peer) = peer.upgrade() else { return };
            if lost {
                peer.unreachable();
            }
            debug!("remote-peer-id" = %format!("{:x}", peer.id), "stream-writer-type" = kind.name(), "lost TCP streaming connection with remote peer");
        };
        info!("remote-peer-id" = %remote, "stream-writer-type" = kind.name(), "established TCP streaming connection with remote peer");
        self.activate();
        let sent = metrics::SENT_BYTES.with(&[&remote]);
        StreamBody::new(id, kind, lane, self.shared.heartbeat(), sent, Box::new(ended)).boxed_unsync()
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
    async fn read_stream(&self, kind: Kind) -> ReadError {
        let mut reader = match self.dial(kind).await {
            Ok(reader) => reader,
            Err(error) => {
                self.url_failed();
                return error;
            }
        };
        self.activate();
        info!("remote-peer-id" = %format!("{:x}", self.id), "stream-reader-type" = kind.name(), "established TCP streaming connection with remote peer");
        let mut decoder = msgapp::Decoder::new(self.shared.local.member, self.id);
        loop {
            let message = match kind {
                Kind::MsgApp => decoder.decode(&mut reader).await,
                Kind::Message => general(&mut reader).await,
            };
            match message {
                Ok(Some(message)) => self.received(kind, message).await,
                Ok(None) => {}
                Err(error) => return error,
            }
        }
    }

    async fn dial(&self, kind: Kind) -> Result<Reader, ReadError> {
        let local = &self.shared.local;
        let path = format!("{}/{:x}", kind.path(), local.member);
        let mut headers = local.headers();
        if let Ok(to) = HeaderValue::try_from(format!("{:x}", self.id)) {
            headers.insert(headers::RAFT_TO, to);
        }
        let answer = self
            .shared
            .client
            .open(
                &self.url(),
                Method::GET,
                &path,
                &headers,
                component_base::http::empty(),
            )
            .await
            .map_err(|error| ReadError::Transport(error.into()))?;
        let (status, body) = (answer.status(), incoming(answer.into_body()));
        if status == StatusCode::OK {
            return Ok(Reader::of(body, MAX_MESSAGE_BYTES).patient(self.shared.read_timeout));
        }
        let said = component_base::http::read_limited(body, 4096)
            .await
            .unwrap_or_default();
        Err(ReadError::Malformed(self.refused(status, &said)))
    }

    async fn received(&self, kind: Kind, message: etcd_api::raftpb::Message) {
        let (_, remote) = self.labels();
        metrics::RECEIVED_BYTES
            .with(&[&remote])
            .add(message.encoded_len() as f64);
        let events = &self.shared.events;
        while kind == Kind::MsgApp && events.len() > READ_ON_BELOW {
            // Appends wait in the socket: their sender is told by its full queue.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let taken = events.len() <= MAX_WAITING_EVENTS;
        match wire::from_raftpb(message) {
            Ok(message) if taken && accepts(&self.shared.local, &message) => {
                events.push(Event::Step(Box::new(message)))
            }
            Ok(_) => metrics::RECEIVED_FAILURES.with(&[&remote]).inc(),
            Err(error) => warn!("remote-peer-id" = %remote, error = %error, "failed to decode Raft message"),
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

/// A message of the general stream; None for a heartbeat of the link.
async fn general(reader: &mut Reader) -> Result<Option<etcd_api::raftpb::Message>, ReadError> {
    let length = number(reader).await?;
    reader.check_length(length)?;
    let message = etcd_api::raftpb::Message::decode(reader.take(length as usize).await?)?;
    Ok((!is_link_heartbeat(&message)).then_some(message))
}

impl From<ClientError> for ReadError {
    fn from(error: ClientError) -> ReadError {
        ReadError::Transport(error.into())
    }
}
