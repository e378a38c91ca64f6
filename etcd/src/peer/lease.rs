//! Only the leader knows how long a lease still has: a follower asks it, as etcd's members do, at `/leases` and `/leases/internal`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_api::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
    ResponseHeader,
};
use etcd_api::leasepb::{LeaseInternalRequest, LeaseInternalResponse};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use prost::Message;

use super::client::Client;
use crate::lease::{LeaseError, TimeToLive};
use crate::server::{EtcdServer, ServerError};

/// etcd's: how long the leader waits to have applied what it has committed.
const APPLY_TIMEOUT: Duration = Duration::from_secs(1);
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

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
    server.wait_applied(APPLY_TIMEOUT).await?;
    let ttl = server.renew_here(request.id).await?;
    Ok(LeaseKeepAliveResponse {
        header: None,
        id: request.id,
        ttl,
    }
    .encode_to_vec())
}

pub async fn serve_time_to_live(server: &Arc<EtcdServer>, bytes: Bytes) -> Result<Vec<u8>, Refusal> {
    let request = LeaseInternalRequest::decode(bytes).map_err(|_| Refusal::Undecodable)?;
    let request = request.lease_time_to_live_request.ok_or(Refusal::Undecodable)?;
    server.wait_applied(APPLY_TIMEOUT).await?;
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
