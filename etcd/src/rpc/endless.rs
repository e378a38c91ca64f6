//! Streams without an end of their own: they end when this member stops, and for clients that require a leader (`hasleader: true`) when there
//! was none for a while. Such clients are refused as long as there is none.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use component_base::http::{Body, BoxError};
use http::Request;
use http_body::Frame;
use http_body_util::BodyExt as _;

use super::grpc::trailers;
use super::serve::Handling;
use super::status::{Code, Status};
use crate::server::{EtcdServer, ServerError};

/// A stream that breaks costs more than a request that is refused: etcd waits for so many election timeouts without a leader.
const MAX_NO_LEADER: u32 = 3;

/// All others end by themselves.
const METHODS: &[&str] = &[
    "etcdserverpb.Watch/Watch",
    "etcdserverpb.Lease/LeaseKeepAlive",
    "v3electionpb.Election/Observe",
    "grpc.health.v1.Health/Watch",
];

pub fn is_endless(method: &str) -> bool {
    METHODS.contains(&method)
}

pub fn requires_leader<B>(request: &Request<B>) -> bool {
    let value = request.headers().get("hasleader");
    value.is_some_and(|value| value == "true")
}

impl EtcdServer {
    /// Cancels the streams that require a leader whenever there has been none for too long.
    pub async fn monitor_leader(self: Arc<Self>) {
        let mut without = 0;
        loop {
            tokio::time::sleep(self.limits.election).await;
            without = match self.leader() {
                0 => without + 1,
                _ => 0,
            };
            if without >= MAX_NO_LEADER {
                self.leader_lost.send_replace(());
            }
        }
    }

    /// Nobody has to wait for the end of what has none.
    pub fn end_streams(&self) {
        self.stopping.send_replace(true);
        self.state.v2.write().end_watches();
    }
}

/// The same stream until it is told to end.
pub fn until_told(server: &EtcdServer, body: Body, requires_leader: bool, handling: Handling) -> Body {
    let mut stopping = server.stopping.subscribe();
    let mut lost = requires_leader.then(|| server.leader_lost.subscribe());
    // Their senders are the server's own.
    let end = async move {
        let lost = async {
            match &mut lost {
                Some(lost) => drop(lost.changed().await),
                None => pending().await,
            }
        };
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => ServerError::Stopped,
            () = lost => ServerError::NoLeader,
        }
    };
    let body = UntilTold {
        body: Some(body),
        end: Box::pin(end),
        handling,
    };
    body.boxed_unsync()
}

struct UntilTold {
    /// None after the end: who writes into it learns that nobody reads any more.
    body: Option<Body>,
    end: Pin<Box<dyn Future<Output = ServerError> + Send>>,
    handling: Handling,
}

impl http_body::Body for UntilTold {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let next = Pin::new(body).poll_frame(context);
        if let Poll::Ready(next) = next {
            let trailers = next
                .as_ref()
                .and_then(|frame| frame.as_ref().ok()?.trailers_ref());
            if let Some(code) = trailers.and_then(Code::of) {
                self.handling.code = code;
            }
            return Poll::Ready(next);
        }
        let error = std::task::ready!(self.end.as_mut().poll(context));
        self.body = None;
        let status = Status::from(error);
        self.handling.code = status.code;
        Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }
}
