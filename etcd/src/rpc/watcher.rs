//! A watch from inside: the same hub, the same order, the same permission as a client's.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Buf as _, BytesMut};
use etcd_api::etcdserverpb::{WatchCreateRequest, WatchResponse};
use prost::Message as _;

use super::caller::Caller;
use super::grpc::{PREFIX_BYTES, undecodable};
use super::status::{Code, Status};
use super::watch::may_watch;
use crate::watch::hub::HubEvent;
use crate::watch::outbox::{Next, Outbox};

pub struct Watcher {
    caller: Caller,
    stream: u64,
    outbox: Arc<Outbox>,
    /// Frames that have arrived in part.
    buffer: BytesMut,
}

impl Watcher {
    pub async fn open(caller: &Caller, create: WatchCreateRequest) -> Result<Watcher, Status> {
        may_watch(caller, &create).await?;
        let outbox = Arc::new(Outbox::default());
        let stream = caller.hub.open(outbox.clone());
        caller.hub.send(HubEvent::Create(stream, create));
        Ok(Watcher {
            caller: caller.clone(),
            stream,
            outbox,
            buffer: BytesMut::new(),
        })
    }

    /// The next response with events. A watch that the hub ended is an error.
    pub async fn next(&mut self) -> Result<WatchResponse, Status> {
        loop {
            let response = self.response().await?;
            if response.compact_revision != 0 {
                return Err(crate::mvcc::Error::Compacted.into());
            }
            if response.canceled {
                return Err(Status::new(Code::Cancelled, response.cancel_reason));
            }
            if !response.events.is_empty() {
                return Ok(response);
            }
        }
    }

    async fn response(&mut self) -> Result<WatchResponse, Status> {
        loop {
            if let Some(frame) = self.take_frame() {
                return WatchResponse::decode(frame.freeze()).map_err(undecodable);
            }
            let next = poll_fn(|context| {
                let (next, drained) = self.outbox.poll(context);
                if drained {
                    self.caller.hub.send(HubEvent::Drained(self.stream));
                }
                match next {
                    Poll::Ready(next) => Poll::Ready(next),
                    Poll::Pending => Poll::Pending,
                }
            })
            .await;
            match next {
                Next::Chunk(bytes) => self.buffer.extend_from_slice(&bytes),
                Next::End => return Err(crate::server::ServerError::Stopped.into()),
            }
        }
    }

    fn take_frame(&mut self) -> Option<BytesMut> {
        let mut length = self.buffer.get(1..PREFIX_BYTES)?;
        let length = length.get_u32() as usize;
        if self.buffer.len() < PREFIX_BYTES + length {
            return None;
        }
        self.buffer.advance(PREFIX_BYTES);
        Some(self.buffer.split_to(length))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.caller.hub.send(HubEvent::Close(self.stream));
    }
}
