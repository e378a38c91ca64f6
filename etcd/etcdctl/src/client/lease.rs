//! Leases and their keep-alive streams.

use std::time::Duration;

use etcd_api::etcdserverpb::lease_client::LeaseClient;
use etcd_api::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::error::LEASE_NOT_FOUND;
use super::watch::{is_halt, require_leader};
use super::{Client, Context, Error, Policy};
use crate::unary;

/// Upstream's `retryConnWait`.
const REOPEN_AFTER: Duration = Duration::from_millis(500);
/// Upstream's `defaultTTL` while no answer has told another.
const FIRST_ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// One call of the service, which may be made again when it fails.
macro_rules! call {
    ($client:ident, $context:ident, $method:ident($request:ident), $path:literal) => {{
        let policy = Policy::Repeatable;
        unary!($client, $context, policy, LeaseClient, $method, $path, $request)
    }};
}

impl Client {
    pub async fn lease_grant(&self, context: &Context, ttl: i64) -> Result<LeaseGrantResponse, Error> {
        let request = LeaseGrantRequest { ttl, id: 0 };
        call!(
            self,
            context,
            lease_grant(request),
            "/etcdserverpb.Lease/LeaseGrant"
        )
    }

    pub async fn lease_revoke(&self, context: &Context, id: i64) -> Result<LeaseRevokeResponse, Error> {
        let request = LeaseRevokeRequest { id };
        call!(
            self,
            context,
            lease_revoke(request),
            "/etcdserverpb.Lease/LeaseRevoke"
        )
    }

    pub async fn time_to_live(
        &self,
        context: &Context,
        id: i64,
        keys: bool,
    ) -> Result<LeaseTimeToLiveResponse, Error> {
        let request = LeaseTimeToLiveRequest { id, keys };
        call!(
            self,
            context,
            lease_time_to_live(request),
            "/etcdserverpb.Lease/LeaseTimeToLive"
        )
    }

    pub async fn leases(&self, context: &Context) -> Result<LeaseLeasesResponse, Error> {
        let request = LeaseLeasesRequest {};
        call!(
            self,
            context,
            lease_leases(request),
            "/etcdserverpb.Lease/LeaseLeases"
        )
    }

    /// One renewal.
    pub async fn keep_alive_once(&self, id: i64) -> Result<LeaseKeepAliveResponse, Error> {
        loop {
            let status = match self.renew_once(id).await {
                Ok(Some(answer)) if answer.ttl > 0 => return Ok(answer),
                Ok(Some(_)) => return Err(Error::text(LEASE_NOT_FOUND)),
                Ok(None) => Status::unavailable("the stream ended"),
                Err(status) => status,
            };
            if is_halt(&status) {
                return Err(Error::from_status(status, &Context::background()));
            }
            tokio::time::sleep(REOPEN_AFTER).await;
        }
    }

    async fn renew_once(&self, id: i64) -> Result<Option<LeaseKeepAliveResponse>, Status> {
        let mut stream = Stream::open(self).await?;
        stream.renew(id).await
    }

    pub fn keep_alive(&self, id: i64) -> KeepAlive {
        KeepAlive {
            client: self.clone(),
            id,
            stream: None,
            next: Instant::now(),
            deadline: Instant::now()
                + FIRST_ANSWER_WITHIN.max(self.0.config.dial_timeout + Duration::from_secs(1)),
        }
    }
}

struct Stream {
    sender: mpsc::Sender<LeaseKeepAliveRequest>,
    /// Opened by the first request: the server says nothing before it.
    requests: Option<mpsc::Receiver<LeaseKeepAliveRequest>>,
    answers: Option<Streaming<LeaseKeepAliveResponse>>,
    client: Client,
}

impl Stream {
    async fn open(client: &Client) -> Result<Stream, Status> {
        let (sender, receiver) = mpsc::channel(1);
        Ok(Stream {
            sender,
            requests: Some(receiver),
            answers: None,
            client: client.clone(),
        })
    }

    async fn renew(&mut self, id: i64) -> Result<Option<LeaseKeepAliveResponse>, Status> {
        let gone = |_| Status::unavailable("the stream ended");
        self.sender
            .send(LeaseKeepAliveRequest { id })
            .await
            .map_err(gone)?;
        if let Some(requests) = self.requests.take() {
            let context = Context::background();
            let opening = self
                .client
                .open(&context, ReceiverStream::new(requests), |channel, request| {
                    let request = require_leader(request);
                    async move { LeaseClient::new(channel).lease_keep_alive(request).await }
                });
            self.answers = Some(opening.await?);
        }
        match &mut self.answers {
            Some(answers) => answers.message().await,
            None => Ok(None),
        }
    }
}

/// Renews three times in a lease's life, and ends when the lease does.
pub struct KeepAlive {
    client: Client,
    id: i64,
    stream: Option<Stream>,
    next: Instant,
    deadline: Instant,
}

impl KeepAlive {
    /// None when the lease is gone, or nobody could be told in time that it should stay.
    pub async fn next(&mut self) -> Option<LeaseKeepAliveResponse> {
        tokio::time::sleep_until(self.next).await;
        loop {
            match tokio::time::timeout_at(self.deadline, self.renew()).await {
                Err(_) => return None,
                Ok(Ok(Some(answer))) => return self.accept(answer),
                Ok(Err(status)) if is_halt(&status) => return None,
                Ok(_) => {
                    self.stream = None;
                    tokio::time::sleep(REOPEN_AFTER).await;
                }
            }
        }
    }

    fn accept(&mut self, answer: LeaseKeepAliveResponse) -> Option<LeaseKeepAliveResponse> {
        let ttl = u64::try_from(answer.ttl)
            .ok()
            .filter(|ttl| *ttl > 0)
            .map(Duration::from_secs)?;
        let now = Instant::now();
        // A lifetime beyond the clock's range never ends here.
        self.next = now.checked_add(ttl / 3).unwrap_or(now);
        self.deadline = now.checked_add(ttl).unwrap_or(now);
        Some(answer)
    }

    async fn renew(&mut self) -> Result<Option<LeaseKeepAliveResponse>, Status> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(Stream::open(&self.client).await?),
        };
        stream.renew(self.id).await
    }
}
