//! The Lease service.

use std::sync::{Arc, LazyLock};

use component_base::metrics::CounterValue;
use component_base::serve::BoxFuture;
use etcd_api::etcdserverpb::{
    InternalRaftRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest,
    LeaseKeepAliveResponse, LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use http::Request;
use prost::Message as _;

use super::caller::Caller;
use super::grpc::{Answer, Channel, Inbound, Reader, Reply, message, undecodable};
use super::serve;
use super::status::Status;
use crate::apply;
use crate::auth::check::Check;
use crate::lease::{LeaseError, MAX_TTL_SECONDS};
use crate::metrics::clients;
use crate::server::{EtcdServer, ServerError};

/// Answers of one keep-alive stream that wait to be sent; a client that does not read them is not read from.
const KEEP_ALIVE_ANSWERS: usize = 32;
/// What etcd counts a lease as against the quota.
const LEASE_BYTES: usize = 64;

pub async fn grant(server: Caller, mut request: LeaseGrantRequest) -> Answer {
    server.known().await?;
    if request.ttl > MAX_TTL_SECONDS {
        return Err(ServerError::from(LeaseError::TtlTooLarge).into());
    }
    server.check_space(LEASE_BYTES)?;
    while request.id == 0 {
        // etcd's ids are positive.
        request.id = (rand::random::<u64>() >> 1) as i64;
    }
    let applied = server
        .propose(InternalRaftRequest {
            lease_grant: Some(request),
            ..Default::default()
        })
        .await?;
    let apply::Answer::LeaseGrant { id, ttl_seconds } = applied.result? else {
        return Err(ServerError::Stopped.into());
    };
    message(&LeaseGrantResponse {
        header: Some(server.header(applied.revision)),
        id,
        ttl: ttl_seconds,
        error: String::new(),
    })
}

pub async fn revoke(server: Caller, request: LeaseRevokeRequest) -> Answer {
    server.known().await?;
    let applied = server
        .propose(InternalRaftRequest {
            lease_revoke: Some(request),
            ..Default::default()
        })
        .await?;
    applied.result?;
    message(&LeaseRevokeResponse {
        header: Some(server.header(applied.revision)),
    })
}

pub async fn time_to_live(server: Caller, request: LeaseTimeToLiveRequest) -> Answer {
    server.known().await?;
    // Only the names of the keys tell something that is not the lease's own.
    let names = |check: &Check<'_>| match request.keys {
        true => check.lease_read(request.id),
        false => Ok(()),
    };
    let found = server.time_to_live(request.id, request.keys).await?;
    // After the leader was asked: a rule that changed meanwhile counts.
    server.reading(names, || Ok(())).await?;
    let header = Some(server.header(server.store().current()));
    let response = match found {
        None => LeaseTimeToLiveResponse {
            header,
            id: request.id,
            ttl: -1,
            ..Default::default()
        },
        Some(found) => LeaseTimeToLiveResponse {
            header,
            id: request.id,
            ttl: found.remaining_seconds,
            granted_ttl: found.granted_seconds,
            keys: if request.keys { found.keys } else { Vec::new() },
        },
    };
    message(&response)
}

pub async fn leases(server: Caller, _: LeaseLeasesRequest) -> Answer {
    server.linearizable().await?;
    server.known().await?;
    let ids = || server.state.lessor.lock().ids();
    let all_keys = |check: &Check<'_>| match check.admin() {
        Ok(()) => Ok(()),
        Err(_) => ids().into_iter().try_for_each(|id| check.lease_read(id)),
    };
    server.reading(all_keys, || leases_now(&server)).await
}

fn leases_now(server: &EtcdServer) -> Answer {
    let leases = server
        .state
        .lessor
        .lock()
        .ids()
        .into_iter()
        .map(|id| LeaseStatus { id })
        .collect();
    message(&LeaseLeasesResponse {
        header: Some(server.header(server.store().current())),
        leases,
    })
}

static RECEIVED: LazyLock<Arc<CounterValue>> =
    LazyLock::new(|| serve::received("etcdserverpb.Lease/LeaseKeepAlive"));

pub fn keep_alive(server: Arc<EtcdServer>, request: Request<Inbound>) -> BoxFuture<'static, Answer> {
    Box::pin(async move {
        let caller = Caller::lasting(server.clone(), &request);
        let (sender, body) = Channel::open(KEEP_ALIVE_ANSWERS);
        let mut reader = Reader::new(&server, request.into_body());
        tokio::spawn(async move {
            loop {
                let frame = tokio::select! {
                    frame = reader.frame() => frame,
                    () = sender.closed() => return,
                };
                let answer = match frame {
                    Ok(Some(bytes)) => {
                        RECEIVED.inc();
                        renew(&caller, bytes).await
                    }
                    Ok(None) => return,
                    Err(status) => {
                        clients::stream_failed("lease-keepalive", &status);
                        Err(status)
                    }
                };
                let failed = answer.is_err();
                let answer = answer.map(|reply| match reply {
                    Reply::Message(bytes) => bytes,
                    Reply::Stream(_) => bytes::Bytes::new(),
                });
                if sender.send(answer).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Reply::Stream(body))
    })
}

/// A lease that is gone is an answer with no time left, not an error of the stream.
async fn renew(server: &Caller, bytes: bytes::Bytes) -> Answer {
    let request = LeaseKeepAliveRequest::decode(bytes).map_err(undecodable)?;
    server.known().await?;
    server
        .reading(|check| check.lease_write(request.id), || Ok(()))
        .await?;
    let header = Some(server.header(server.store().current()));
    let ttl = match server.renew(request.id).await {
        Ok(ttl) => ttl,
        Err(ServerError::Lease(LeaseError::NotFound)) => 0,
        Err(error) => return Err(Status::from(error)),
    };
    message(&LeaseKeepAliveResponse {
        header,
        id: request.id,
        ttl,
    })
}
