//! The KV service.

use std::time::Instant;

use bytes::{BufMut as _, BytesMut};
use etcd_api::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, InternalRaftRequest, PutRequest, RangeRequest, TxnRequest,
};
use prost::Message as _;
use tracing::warn;

use super::caller::Caller;
use super::grpc::{Answer, PREFIX_BYTES, Reply, seal};
use super::range_body;
use super::status::{Code, Status};
use crate::apply::{self, Applied};
use crate::metrics;
use crate::mvcc::compare::depends_on_values;
use crate::mvcc::response::Response;
use crate::mvcc::txn::ReadTxn;
use crate::mvcc::{self, check};
use crate::quota;
use crate::server::{EtcdServer, ServerError};

/// How often a read of the current revision is repeated when compactions keep passing it.
const READ_ATTEMPTS: usize = 8;
/// A request's share of the quota beside its key and value.
const PUT_OVERHEAD_BYTES: usize = 128;

pub async fn put(server: Caller, request: PutRequest) -> Answer {
    check::put(&request)?;
    if request.ignore_value {
        let foresee = || Ok(ReadTxn::new(server.store()).foresee_put(&request)?);
        server.reading(|check| check.put(&request), foresee).await?;
    }
    server.check_space(request.key.len() + request.value.len() + PUT_OVERHEAD_BYTES)?;
    write(
        &server,
        InternalRaftRequest {
            put: Some(request),
            ..Default::default()
        },
    )
    .await
}

pub async fn delete_range(server: Caller, request: DeleteRangeRequest) -> Answer {
    check::delete_range(&request)?;
    write(
        &server,
        InternalRaftRequest {
            delete_range: Some(request),
            ..Default::default()
        },
    )
    .await
}

pub async fn txn(server: Caller, request: TxnRequest) -> Answer {
    check::txn(&request, server.limits.max_txn_ops)?;
    if check::is_read_only(&request) {
        return read_txn(&server, &request).await;
    }
    if depends_on_values(&request) {
        let foresee = || Ok(ReadTxn::new(server.store()).foresee(&request)?);
        server.reading(|check| check.txn(&request), foresee).await?;
    }
    if quota::takes_space(&request) {
        server.check_space(request.encoded_len())?;
    }
    write(
        &server,
        InternalRaftRequest {
            txn: Some(request),
            ..Default::default()
        },
    )
    .await
}

/// Nothing of a transaction that only reads goes through the log.
async fn read_txn(server: &Caller, request: &TxnRequest) -> Answer {
    if !check::is_serializable(request) {
        server.linearizable().await?;
    }
    server
        .reading(|check| check.txn(request), || read_txn_now(server, request))
        .await
}

fn read_txn_now(server: &EtcdServer, request: &TxnRequest) -> Answer {
    let store = server.store();
    for _ in 0..READ_ATTEMPTS {
        let read = ReadTxn::new(store);
        match read.txn(request) {
            Err(mvcc::Error::Compacted) if store.compacted() > read.revision => {}
            result => return reply(server, read.revision, &result?),
        }
    }
    Err(mvcc::Error::Compacted.into())
}

pub async fn compact(server: Caller, request: CompactionRequest) -> Answer {
    server.admin().await?;
    let (revision, physical) = (request.revision, request.physical);
    let answer = write(
        &server,
        InternalRaftRequest {
            compaction: Some(request),
            ..Default::default()
        },
    )
    .await?;
    if physical {
        let mut swept = server.swept.subscribe();
        let done = swept.wait_for(|swept| *swept >= revision);
        tokio::time::timeout(server.request_timeout(), done)
            .await
            .map_err(|_| Status::new(Code::Unavailable, "etcdserver: request timed out"))?
            .map_err(|_| Status::new(Code::Unavailable, "etcdserver: server stopped"))?;
    }
    Ok(answer)
}

fn write(server: &Caller, request: InternalRaftRequest) -> impl Future<Output = Answer> + Send + '_ {
    let applied = server.propose(request);
    async {
        let Applied { revision, result } = applied.await?;
        match result? {
            apply::Answer::Kv(response) => reply(server, revision, &response),
            _ => Err(Status::new(
                Code::Internal,
                "etcdserver: the answer does not fit the request",
            )),
        }
    }
}

fn reply(server: &EtcdServer, revision: i64, response: &Response) -> Answer {
    let header = server.header(revision);
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + response.len(&header));
    out.put_bytes(0, PREFIX_BYTES);
    response.encode(&header, &mut out);
    Ok(Reply::Message(seal(out)))
}

pub async fn range(server: Caller, request: RangeRequest) -> Answer {
    check::range(&request)?;
    if !request.serializable {
        if server.is_learner() {
            return Err(ServerError::Learner.into());
        }
        server.linearizable().await?;
    }
    let start = Instant::now();
    let answer = server
        .reading(|check| check.range(&request), || select(&server, &request))
        .await;
    let took = start.elapsed();
    metrics::RANGES.inc();
    metrics::applied::range(took, answer.is_ok());
    if took > server.limits.warning_unary {
        let range_end = String::from_utf8_lossy(&request.range_end).into_owned();
        warn!(took = ?took, "range_begin" = %String::from_utf8_lossy(&request.key), "range_end" = %range_end, "apply request took too long");
    }
    answer
}

fn select(server: &EtcdServer, request: &RangeRequest) -> Answer {
    let store = server.store();
    for _ in 0..READ_ATTEMPTS {
        let (segments, current) = (store.storage.segments(), store.current());
        let revision = store.revision(request.revision, current)?;
        match store.select(request, revision, &segments, &|segments, locs| {
            store.storage.read_many(segments, locs)
        }) {
            // Without a revision of its own a request is never too old.
            Err(mvcc::Error::Compacted) if request.revision == 0 => {}
            selected => return range_body::reply(store, server.header(current), selected?),
        }
    }
    Err(mvcc::Error::Compacted.into())
}
