//! The etcd v3 client: what the store needs of KV, Watch, Lease and Maintenance, over one or several endpoints.
//!
//! Unary calls and the watch have a connection each, so that a large list does not hold up events. A connection that breaks
//! is made again on next use, trying the endpoints in turn.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::status;
use bytes::Bytes;
use etcd_api::etcdserverpb as pb;
use etcd_api::mvccpb::KeyValue;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request as Op;
use pb::response_op::Response as OpResponse;
use tonic::transport::Channel;

pub mod connect;
pub mod lease;

pub use connect::Config;

/// Longest a unary call may take before the request fails with a timeout.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest answer taken from etcd: a page of objects at etcd's request limit of 1.5 MiB stays far below it.
const MAX_ANSWER_BYTES: usize = 1 << 30;

#[derive(Clone)]
pub struct Client {
    kv: pb::kv_client::KvClient<Channel>,
    pub(super) watch: pb::watch_client::WatchClient<Channel>,
    lease: pb::lease_client::LeaseClient<Channel>,
    maintenance: pb::maintenance_client::MaintenanceClient<Channel>,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("etcdserver: request timed out")]
    Timeout,
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error("{0}")]
    Failed(Arc<tonic::Status>),
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Error {
        match status.code() {
            tonic::Code::OutOfRange if status.message().contains("compacted") => Error::Compacted,
            tonic::Code::DeadlineExceeded => Error::Timeout,
            _ => Error::Failed(Arc::new(status)),
        }
    }
}

impl From<Error> for status::StatusError {
    fn from(error: Error) -> Self {
        match &error {
            Error::Compacted => status::expired(
                "The provided continue parameter is too old to display a consistent list result.",
            ),
            Error::Timeout => status::internal(&error),
            Error::Failed(failure) => status::internal(failure.message()),
        }
    }
}

/// What a guarded write came to.
#[derive(Debug)]
pub enum Outcome {
    /// The store's revision, which is now the key's mod revision.
    Done(i64),
    /// The guard did not hold: what is there instead.
    Lost(Option<KeyValue>),
}

pub struct Page {
    pub kvs: Vec<KeyValue>,
    pub revision: i64,
    pub more: bool,
}

impl Client {
    pub fn new(config: &Config) -> anyhow::Result<Client> {
        let (unary, streams) = (config.channel()?, config.channel()?);
        Ok(Client {
            kv: pb::kv_client::KvClient::new(unary.clone()).max_decoding_message_size(MAX_ANSWER_BYTES),
            watch: pb::watch_client::WatchClient::new(streams).max_decoding_message_size(MAX_ANSWER_BYTES),
            lease: pb::lease_client::LeaseClient::new(unary.clone()),
            maintenance: pb::maintenance_client::MaintenanceClient::new(unary),
        })
    }

    /// A page of keys from `start` on, below `end`, as of `revision` (0 = now, linearizable).
    pub async fn page(&self, start: Bytes, end: Bytes, limit: i64, revision: i64) -> Result<Page, Error> {
        let request = pb::RangeRequest {
            key: start,
            range_end: end,
            limit,
            revision,
            ..Default::default()
        };
        let answer = within(self.kv.clone().range(request)).await?;
        Ok(Page {
            revision: revision_of(&answer.header),
            kvs: answer.kvs,
            more: answer.more,
        })
    }

    pub async fn get(&self, key: Bytes) -> Result<Option<KeyValue>, Error> {
        Ok(self.page(key, Bytes::new(), 1, 0).await?.kvs.into_iter().next())
    }

    /// The revision every read that starts now must see. Touches no data.
    pub async fn revision(&self) -> Result<i64, Error> {
        let request = pb::RangeRequest {
            key: Bytes::from_static(b"\0"),
            count_only: true,
            ..Default::default()
        };
        Ok(revision_of(&within(self.kv.clone().range(request)).await?.header))
    }

    /// Puts `key` if its mod revision is still `guard` (0 = it must not exist).
    pub async fn put(&self, key: Bytes, value: Bytes, guard: i64, lease: i64) -> Result<Outcome, Error> {
        let put = Op::RequestPut(pb::PutRequest {
            key: key.clone(),
            value,
            lease,
            ..Default::default()
        });
        self.guarded(key, guard, put).await
    }

    /// Deletes `key` if its mod revision is still `guard`.
    pub async fn delete(&self, key: Bytes, guard: i64) -> Result<Outcome, Error> {
        let delete = Op::RequestDeleteRange(pb::DeleteRangeRequest {
            key: key.clone(),
            ..Default::default()
        });
        self.guarded(key, guard, delete).await
    }

    async fn guarded(&self, key: Bytes, guard: i64, then: Op) -> Result<Outcome, Error> {
        let look = Op::RequestRange(pb::RangeRequest {
            key: key.clone(),
            ..Default::default()
        });
        let compare = pb::Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Mod as i32,
            key,
            target_union: Some(TargetUnion::ModRevision(guard)),
            ..Default::default()
        };
        let request = pb::TxnRequest {
            compare: vec![compare],
            success: vec![pb::RequestOp { request: Some(then) }],
            failure: vec![pb::RequestOp { request: Some(look) }],
        };
        let answer = within(self.kv.clone().txn(request)).await?;
        if answer.succeeded {
            return Ok(Outcome::Done(revision_of(&answer.header)));
        }
        Ok(Outcome::Lost(found(answer)))
    }

    pub async fn compact(&self, revision: i64) -> Result<(), Error> {
        within(self.kv.clone().compact(pb::CompactionRequest {
            revision,
            physical: false,
        }))
        .await
        .map(drop)
    }

    /// The version of the member that answers, e.g. `3.6.8`.
    pub async fn version(&self) -> Result<String, Error> {
        Ok(within(self.maintenance.clone().status(pb::StatusRequest {}))
            .await?
            .version)
    }

    async fn grant(&self, ttl_s: i64) -> Result<i64, Error> {
        Ok(within(
            self.lease
                .clone()
                .lease_grant(pb::LeaseGrantRequest { ttl: ttl_s, id: 0 }),
        )
        .await?
        .id)
    }
}

fn found(answer: pb::TxnResponse) -> Option<KeyValue> {
    match answer.responses.into_iter().next()?.response? {
        OpResponse::ResponseRange(range) => range.kvs.into_iter().next(),
        _ => None,
    }
}

pub fn revision_of(header: &Option<pb::ResponseHeader>) -> i64 {
    header.as_ref().map_or(0, |h| h.revision)
}

async fn within<T>(
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, Error> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Error::Timeout),
    }
}

/// The end of the range of all keys that begin with `prefix`.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Bytes::from(end);
        }
    }
    Bytes::from_static(b"\0")
}
