//! A watch that outlives its stream: when the stream breaks, it goes on behind the last revision it has seen.

use std::time::Duration;

use etcd_api::etcdserverpb::watch_client::WatchClient;
use etcd_api::etcdserverpb::watch_request::RequestUnion;
use etcd_api::etcdserverpb::{
    ResponseHeader, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use etcd_api::mvccpb::Event;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status, Streaming};

use super::error::{COMPACTED, FUTURE_REVISION};
use super::{Client, Context, Error};

/// Between two attempts to open a broken stream again.
const REOPEN_AFTER: Duration = Duration::from_millis(100);
/// Requests waiting for the stream: one create and a few progress requests.
const PENDING_REQUESTS: usize = 16;

/// What a watch tells, as clientv3's `WatchResponse`.
#[derive(Debug, Default)]
pub struct WatchReply {
    pub header: ResponseHeader,
    pub events: Vec<Event>,
    pub compact_revision: i64,
    pub canceled: bool,
    pub created: bool,
    cancel_reason: String,
    failure: Option<Error>,
}

impl WatchReply {
    pub fn error(&self) -> Option<Error> {
        if let Some(failure) = &self.failure {
            return Some(Error::text(failure.to_string()));
        }
        if self.compact_revision != 0 {
            return Some(Error::text(COMPACTED));
        }
        match (self.canceled, self.cancel_reason.as_str()) {
            (false, _) => None,
            (true, "") => Some(Error::text(FUTURE_REVISION)),
            (true, reason) => {
                let status = Status::failed_precondition(reason);
                Some(Error::from_status(status, &Context::background()))
            }
        }
    }

    pub fn is_progress_notify(&self) -> bool {
        let quiet = self.events.is_empty() && !self.canceled && !self.created;
        quiet && self.compact_revision == 0 && self.header.revision != 0
    }
}

pub struct Watcher {
    client: Client,
    request: WatchCreateRequest,
    progress: mpsc::Receiver<()>,
    stream: Option<Stream>,
    ended: bool,
}

struct Stream {
    sender: mpsc::Sender<WatchRequest>,
    messages: Streaming<WatchResponse>,
}

/// Asks a watch to tell how far it is.
pub type Progress = mpsc::Sender<()>;

impl Client {
    pub fn watch(&self, request: WatchCreateRequest) -> Watcher {
        self.watch_with_progress(request).0
    }

    pub fn watch_with_progress(&self, request: WatchCreateRequest) -> (Watcher, Progress) {
        let (sender, progress) = mpsc::channel(PENDING_REQUESTS);
        let watcher = Watcher {
            client: self.clone(),
            request,
            progress,
            stream: None,
            ended: false,
        };
        (watcher, sender)
    }
}

impl Watcher {
    /// None behind the reply that says why the watch ended.
    pub async fn next(&mut self) -> Option<WatchReply> {
        while !self.ended {
            match self.message().await {
                Ok(Some(message)) => {
                    if let Some(reply) = self.accept(message) {
                        return Some(reply);
                    }
                }
                Ok(None) => self.reopen_later().await,
                Err(status) if is_halt(&status) => return Some(self.fail(status)),
                Err(_) => self.reopen_later().await,
            }
        }
        None
    }

    async fn reopen_later(&mut self) {
        self.stream = None;
        tokio::time::sleep(REOPEN_AFTER).await;
    }

    fn fail(&mut self, status: Status) -> WatchReply {
        self.ended = true;
        WatchReply {
            canceled: true,
            failure: Some(Error::from_status(status, &Context::background())),
            ..Default::default()
        }
    }

    async fn message(&mut self) -> Result<Option<WatchResponse>, Status> {
        if self.stream.is_none() {
            self.stream = Some(self.open().await?);
        }
        let Some(stream) = &mut self.stream else {
            return Ok(None);
        };
        loop {
            tokio::select! {
                message = stream.messages.message() => return message,
                Some(()) = self.progress.recv() => {
                    let request = RequestUnion::ProgressRequest(WatchProgressRequest {});
                    // A stream that is gone is opened again; the question is void then.
                    stream.sender.send(WatchRequest { request_union: Some(request) }).await.ok();
                }
            }
        }
    }

    async fn open(&self) -> Result<Stream, Status> {
        let (sender, receiver) = mpsc::channel(PENDING_REQUESTS);
        let create = RequestUnion::CreateRequest(self.request.clone());
        // There is room for one in a new channel.
        sender
            .try_send(WatchRequest {
                request_union: Some(create),
            })
            .ok();
        let limit = self.client.max_receive_bytes();
        let context = Context::background();
        let opening = self
            .client
            .open(&context, ReceiverStream::new(receiver), |channel, request| {
                let request = require_leader(request);
                async move {
                    WatchClient::new(channel)
                        .max_decoding_message_size(limit)
                        .watch(request)
                        .await
                }
            });
        Ok(Stream {
            messages: opening.await?,
            sender,
        })
    }

    fn accept(&mut self, message: WatchResponse) -> Option<WatchReply> {
        let header = message.header.unwrap_or_default();
        if message.canceled || message.compact_revision != 0 {
            self.ended = true;
        } else if message.created {
            if self.request.start_revision == 0 {
                self.request.start_revision = header.revision + 1;
            }
            return None;
        }
        if let Some(last) = message.events.last().and_then(|event| event.kv.as_ref()) {
            self.request.start_revision = last.mod_revision + 1;
        }
        Some(WatchReply {
            header,
            events: message.events,
            compact_revision: message.compact_revision,
            canceled: message.canceled || message.compact_revision != 0,
            created: false,
            cancel_reason: message.cancel_reason,
            failure: None,
        })
    }
}

/// The server ends the stream when it has no leader, instead of keeping it silent.
pub fn require_leader<M>(mut request: Request<M>) -> Request<M> {
    request
        .metadata_mut()
        .insert("hasleader", MetadataValue::from_static("true"));
    request
}

/// Whether trying again is of no use.
pub fn is_halt(status: &Status) -> bool {
    !matches!(status.code(), Code::Unavailable | Code::Internal | Code::Unknown) || is_no_leader(status)
}

fn is_no_leader(status: &Status) -> bool {
    status.message() == "etcdserver: no leader"
}
