//! Clients that require a leader (`hasleader: true`): refused while there is none, and their streams are cancelled once there was none for a while.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use component_base::http::{Body, BoxError};
use http::Request;
use http_body::Frame;
use http_body_util::BodyExt as _;

use super::grpc::{Answer, Reply, trailers};
use super::status::Status;
use crate::server::{EtcdServer, ServerError};

/// A stream that breaks costs more than a request that is refused: etcd waits for so many election timeouts without a leader.
const MAX_NO_LEADER: u32 = 3;

pub fn is_required<B>(request: &Request<B>) -> bool {
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
}

/// A stream that ends with the server's next loss of its leader.
pub fn while_led(server: &EtcdServer, answer: Answer) -> Answer {
    let Ok(Reply::Stream(body)) = answer else {
        return answer;
    };
    let mut lost = server.leader_lost.subscribe();
    // Its sender is the server's own.
    let lost = async move {
        lost.changed().await.ok();
    };
    let body = WhileLed {
        body: Some(body),
        lost: Box::pin(lost),
    };
    Ok(Reply::Stream(body.boxed_unsync()))
}

struct WhileLed {
    /// None after the end: who writes into it learns that nobody reads any more.
    body: Option<Body>,
    lost: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl http_body::Body for WhileLed {
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
        if next.is_ready() || self.lost.as_mut().poll(context).is_pending() {
            return next;
        }
        self.body = None;
        let status = Status::from(ServerError::NoLeader);
        Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }
}
