//! Only the leader knows how long a lease still has: a follower asks it, as etcd's members do, at `/leases` and `/leases/internal`.
//! Where the leader is of ours, renewals that come together are asked for together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use etcd_api::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
    ResponseHeader,
};
use etcd_api::leasepb::{LeaseInternalRequest, LeaseInternalResponse};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::oneshot;

use super::client::Client;
use super::transport::Transport;
use crate::lease::{LeaseError, TimeToLive, primary};
use crate::raft::read;
use crate::server::{EtcdServer, ServerError};

const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Not etcd's: who does not know it says so.
pub const MANY: &str = "/leases/many";
const MAX_AT_ONCE: usize = 1000;
/// A member may be replaced by one of ours.
const SINGLE: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("error unmarshalling request")]
    Undecodable,
    #[error("waiting for node to catch up its applied index has timed out")]
    Behind,
    #[error("lease not found")]
    NotFound,
    #[error("not a primary lessor")]
    NotPrimary,
    #[error("{0}")]
    Other(String),
}

impl Refusal {
    pub fn status(&self) -> StatusCode {
        match self {
            Refusal::Undecodable | Refusal::Other(_) => StatusCode::BAD_REQUEST,
            Refusal::Behind => StatusCode::REQUEST_TIMEOUT,
            Refusal::NotFound => StatusCode::NOT_FOUND,
            Refusal::NotPrimary => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<ServerError> for Refusal {
    fn from(error: ServerError) -> Refusal {
        match error {
            ServerError::Lease(LeaseError::NotFound) => Refusal::NotFound,
            ServerError::Lease(LeaseError::NotPrimary) | ServerError::NotLeader => Refusal::NotPrimary,
            ServerError::Timeout => Refusal::Behind,
            other => Refusal::Other(other.to_string()),
        }
    }
}

pub async fn serve_renew(server: &Arc<EtcdServer>, bytes: Bytes) -> Result<Vec<u8>, Refusal> {
    let request = LeaseKeepAliveRequest::decode(bytes).map_err(|_| Refusal::Undecodable)?;
    let ttl = primary::renew(&**server, request.id).await?;
    Ok(LeaseKeepAliveResponse {
        header: None,
        id: request.id,
        ttl,
    }
    .encode_to_vec())
}

/// Renewals of many leases: those that need more than a look are left out, to be asked for one by one.
pub async fn serve_renew_many(server: &Arc<EtcdServer>, mut bytes: Bytes) -> Result<Vec<u8>, Refusal> {
    let mut ids = Vec::new();
    while !bytes.is_empty() {
        let request = LeaseKeepAliveRequest::decode_length_delimited(&mut bytes);
        ids.push(request.map_err(|_| Refusal::Undecodable)?.id);
    }
    let mut answer = Vec::new();
    for (id, ttl) in primary::renew_many(&**server, ids).await? {
        let response = LeaseKeepAliveResponse {
            header: None,
            id,
            ttl,
        };
        response
            .encode_length_delimited(&mut answer)
            .map_err(|error| Refusal::Other(error.to_string()))?;
    }
    Ok(answer)
}

pub async fn serve_time_to_live(server: &Arc<EtcdServer>, bytes: Bytes) -> Result<Vec<u8>, Refusal> {
    let request = LeaseInternalRequest::decode(bytes).map_err(|_| Refusal::Undecodable)?;
    let request = request.lease_time_to_live_request.ok_or(Refusal::Undecodable)?;
    read::wait_applied(&**server, primary::APPLY_TIMEOUT).await?;
    let found = server.time_to_live_here(request.id)?.ok_or(Refusal::NotFound)?;
    let response = LeaseTimeToLiveResponse {
        header: Some(ResponseHeader::default()),
        id: request.id,
        ttl: found.remaining_seconds,
        granted_ttl: found.granted_seconds,
        keys: if request.keys { found.keys } else { Vec::new() },
    };
    Ok(LeaseInternalResponse {
        lease_time_to_live_response: Some(response),
    }
    .encode_to_vec())
}

/// Renewals that wait for a leader, by its URL: what comes while a question is on its way becomes the next one.
#[derive(Default)]
pub struct Renewals(Mutex<HashMap<String, Leader>>);

#[derive(Default)]
struct Leader {
    waiting: Vec<(i64, oneshot::Sender<i64>)>,
    asking: bool,
    /// It does not know the question: the Go etcd's members are asked for one lease at a time.
    single_until: Option<Instant>,
}

impl Renewals {
    /// Renews a lease at the leader.
    pub async fn renew(self: &Arc<Self>, transport: &Arc<Transport>, url: &str, id: i64) -> Asked<i64> {
        if let Some(answer) = self.wait(transport, url, id)
            && let Ok(ttl) = answer.await
        {
            return Asked::Answered(ttl);
        }
        renew(transport.client(), url, id).await
    }

    /// None where it is to be asked for by itself.
    fn wait(
        self: &Arc<Self>,
        transport: &Arc<Transport>,
        url: &str,
        id: i64,
    ) -> Option<oneshot::Receiver<i64>> {
        let mut leaders = self.0.lock();
        let leader = leaders.entry(url.to_owned()).or_default();
        if leader.single_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        leader.waiting.push((id, sender));
        if !std::mem::replace(&mut leader.asking, true) {
            tokio::spawn(self.clone().ask_all(transport.clone(), url.to_owned()));
        }
        Some(receiver)
    }

    async fn ask_all(self: Arc<Self>, transport: Arc<Transport>, url: String) {
        while let Some(waiting) = self.next(&url) {
            let mut body = Vec::new();
            for (id, _) in &waiting {
                // A vector takes all of it.
                LeaseKeepAliveRequest { id: *id }
                    .encode_length_delimited(&mut body)
                    .ok();
            }
            match post(transport.client(), &url, MANY, body).await {
                Asked::Answered(body) => answer(waiting, body),
                Asked::NotFound => {
                    if let Some(leader) = self.0.lock().get_mut(&url) {
                        leader.single_until = Some(Instant::now() + SINGLE);
                    }
                }
                // Each of them asks again by itself.
                Asked::Again => {}
            }
        }
    }

    fn next(&self, url: &str) -> Option<Vec<(i64, oneshot::Sender<i64>)>> {
        let mut leaders = self.0.lock();
        let leader = leaders.get_mut(url)?;
        let count = leader.waiting.len().min(MAX_AT_ONCE);
        leader.asking = count > 0;
        leader.asking.then(|| leader.waiting.drain(..count).collect())
    }
}

/// Who is not answered asks by itself.
fn answer(waiting: Vec<(i64, oneshot::Sender<i64>)>, mut body: Bytes) {
    let mut renewed = HashMap::new();
    while !body.is_empty()
        && let Ok(response) = LeaseKeepAliveResponse::decode_length_delimited(&mut body)
    {
        renewed.insert(response.id, response.ttl);
    }
    for (id, sender) in waiting {
        if let Some(ttl) = renewed.get(&id) {
            // Who left meanwhile does not need the answer.
            sender.send(*ttl).ok();
        }
    }
}

/// What came of asking one member.
pub enum Asked<T> {
    Answered(T),
    NotFound,
    /// Not the leader any more, or not there: ask again.
    Again,
}

async fn post(client: &Client, url: &str, path: &str, body: Vec<u8>) -> Asked<Bytes> {
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/protobuf"),
    );
    let answer = client
        .call(url, Method::POST, path, &headers, body.into(), CALL_TIMEOUT)
        .await;
    match answer {
        Ok(answer) if answer.status == StatusCode::OK => Asked::Answered(answer.body),
        Ok(answer) if answer.status == StatusCode::NOT_FOUND => Asked::NotFound,
        _ => Asked::Again,
    }
}

pub async fn renew(client: &Client, url: &str, id: i64) -> Asked<i64> {
    let request = LeaseKeepAliveRequest { id };
    match post(client, url, "/leases", request.encode_to_vec()).await {
        Asked::NotFound => Asked::NotFound,
        Asked::Again => Asked::Again,
        Asked::Answered(body) => match LeaseKeepAliveResponse::decode(body) {
            Ok(response) if response.id == id => Asked::Answered(response.ttl),
            _ => Asked::Again,
        },
    }
}

pub async fn time_to_live(client: &Client, url: &str, id: i64, keys: bool) -> Asked<TimeToLive> {
    let request = LeaseInternalRequest {
        lease_time_to_live_request: Some(LeaseTimeToLiveRequest { id, keys }),
    };
    let body = match post(client, url, "/leases/internal", request.encode_to_vec()).await {
        Asked::NotFound => return Asked::NotFound,
        Asked::Again => return Asked::Again,
        Asked::Answered(body) => body,
    };
    let response = LeaseInternalResponse::decode(body)
        .ok()
        .and_then(|response| response.lease_time_to_live_response);
    match response {
        Some(found) if found.id == id => Asked::Answered(TimeToLive {
            remaining_seconds: found.ttl,
            granted_seconds: found.granted_ttl,
            keys: found.keys,
        }),
        _ => Asked::Again,
    }
}
