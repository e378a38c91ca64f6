//! The Watch service: requests to the hub, the outbox to the client.

use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use component_base::http::BoxError;
use component_base::metrics::CounterValue;
use component_base::serve::BoxFuture;
use etcd_api::etcdserverpb::{WatchCreateRequest, WatchRequest, watch_request::RequestUnion};
use http::Request;
use http_body::Frame;
use http_body_util::BodyExt as _;
use prost::Message as _;

use super::caller::Caller;
use super::grpc::{Answer, Inbound, Reader, Reply, ok_trailers, sent, undecodable};
use super::serve;
use super::status::Status;
use crate::metrics::clients;
use crate::server::EtcdServer;
use crate::watch::Hub;
use crate::watch::hub::HubEvent;
use crate::watch::outbox::{Next, Outbox};
use crate::watch::range_of;

static RECEIVED: LazyLock<Arc<CounterValue>> = LazyLock::new(|| serve::received("etcdserverpb.Watch/Watch"));

pub fn watch(server: Arc<EtcdServer>, request: Request<Inbound>) -> BoxFuture<'static, Answer> {
    Box::pin(async move {
        let outbox = Arc::new(Outbox::default());
        let stream = server.hub.open(outbox.clone());
        let caller = Caller::lasting(server.clone(), &request);
        let reader = Reader::new(&server, request.into_body());
        let reading = tokio::spawn(read(caller, stream, reader));
        Ok(Reply::Stream(
            WatchBody {
                hub: server.hub.clone(),
                stream,
                outbox,
                reading,
                done: false,
            }
            .boxed_unsync(),
        ))
    })
}

/// The end of the client's half is not the end of the stream, as in etcd: who has sent all its requests goes on watching. A failure is.
async fn read(caller: Caller, stream: u64, mut reader: Reader) {
    let hub = &caller.hub;
    loop {
        match reader.frame().await.map(|bytes| bytes.map(request)) {
            Ok(None) => return,
            Ok(Some(Ok(union))) => {
                RECEIVED.inc();
                // As etcd: an empty request changes nothing.
                if let Some(union) = union {
                    hub.send(event(&caller, stream, union).await);
                }
            }
            Ok(Some(Err(status))) | Err(status) => {
                clients::stream_failed("watch", &status);
                return hub.send(HubEvent::Close(stream));
            }
        }
    }
}

/// A refusal waits for its turn too: clients tell answers apart by their order.
async fn event(caller: &Caller, stream: u64, union: RequestUnion) -> HubEvent {
    match union {
        RequestUnion::CreateRequest(create) => match may_watch(caller, &create).await {
            Ok(()) => HubEvent::Create(stream, create),
            Err(status) => HubEvent::Refuse(stream, status.to_string()),
        },
        RequestUnion::CancelRequest(cancel) => HubEvent::Cancel(stream, cancel.watch_id),
        RequestUnion::ProgressRequest(_) => HubEvent::Progress(stream),
    }
}

/// What is asked is the range that will be watched, not what the request looks like.
pub async fn may_watch(caller: &Caller, create: &WatchCreateRequest) -> Result<(), Status> {
    // A start before the beginning is the hub's to refuse, with etcd's reason.
    if create.start_revision < 0 {
        return Ok(());
    }
    let range = range_of(create);
    caller.reading(|check| check.read(&range), || Ok(())).await
}

fn request(bytes: Bytes) -> Result<Option<RequestUnion>, Status> {
    WatchRequest::decode(bytes)
        .map(|request| request.request_union)
        .map_err(undecodable)
}

struct WatchBody {
    hub: Arc<Hub>,
    stream: u64,
    outbox: Arc<Outbox>,
    reading: tokio::task::JoinHandle<()>,
    done: bool,
}

impl http_body::Body for WatchBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let (next, drained) = self.outbox.poll(context);
        if drained {
            self.hub.send(HubEvent::Drained(self.stream));
        }
        let frame = match std::task::ready!(next) {
            Next::Chunk(bytes) => sent(bytes),
            Next::End => {
                self.done = true;
                Frame::trailers(ok_trailers())
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }
}

impl Drop for WatchBody {
    fn drop(&mut self) {
        self.reading.abort();
        self.hub.send(HubEvent::Close(self.stream));
    }
}
