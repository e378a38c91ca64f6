//! The Watch service: requests to the hub, the outbox to the client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use component_base::http::BoxError;
use component_base::serve::BoxFuture;
use etcd_api::etcdserverpb::{WatchRequest, watch_request::RequestUnion};
use http::Request;
use http_body::Frame;
use http_body_util::BodyExt as _;
use prost::Message as _;

use super::grpc::{Answer, Inbound, Reader, Reply, ok_trailers, undecodable};
use super::status::Status;
use crate::server::EtcdServer;
use crate::watch::Hub;
use crate::watch::hub::HubEvent;
use crate::watch::outbox::{Next, Outbox};

pub fn watch(server: Arc<EtcdServer>, request: Request<Inbound>) -> BoxFuture<'static, Answer> {
    Box::pin(async move {
        let outbox = Arc::new(Outbox::default());
        let stream = server.hub.open(outbox.clone());
        let reader = Reader::new(request.into_body(), server.limits.max_request_bytes);
        let reading = tokio::spawn(read(server.hub.clone(), stream, reader));
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
async fn read(hub: Arc<Hub>, stream: u64, mut reader: Reader) {
    loop {
        match reader.frame().await.map(|bytes| bytes.map(request)) {
            Ok(None) => return,
            Ok(Some(Ok(Some(union)))) => hub.send(event(stream, union)),
            // As etcd: an empty request changes nothing.
            Ok(Some(Ok(None))) => {}
            Ok(Some(Err(_))) | Err(_) => return hub.send(HubEvent::Close(stream)),
        }
    }
}

fn event(stream: u64, union: RequestUnion) -> HubEvent {
    match union {
        RequestUnion::CreateRequest(create) => HubEvent::Create(stream, create),
        RequestUnion::CancelRequest(cancel) => HubEvent::Cancel(stream, cancel.watch_id),
        RequestUnion::ProgressRequest(_) => HubEvent::Progress(stream),
    }
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
            Next::Chunk(bytes) => Frame::data(bytes),
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
