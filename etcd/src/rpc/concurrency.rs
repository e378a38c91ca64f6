//! Queues of keys under a prefix, as etcd's client package of this name keeps them: the key that was created first is the owner's, the others
//! wait until those before theirs are gone. Everything here is a request of the caller's like any other.

use bytes::Bytes;
use etcd_api::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseGrantResponse, PutRequest, RangeRequest,
    RangeResponse, RequestOp, ResponseHeader, TxnRequest, TxnResponse, WatchCreateRequest,
    compare::CompareResult, compare::CompareTarget, compare::TargetUnion, range_request::SortOrder,
    range_request::SortTarget, request_op::Request, response_op,
};
use etcd_api::mvccpb::{KeyValue, event::EventType};
use tracing::warn;

use super::caller::Caller;
use super::grpc::{Answer, decoded};
use super::status::{Code, Status};
use super::watcher::Watcher;
use super::{kv, lease};

/// Seconds, of the lease that whoever brings none is given.
const SESSION_TTL: i64 = 60;

/// The answer of a method of these services.
pub async fn made_of_others(answer: impl Future<Output = Answer>) -> Answer {
    answer.await.map_err(uncoded)
}

/// etcd's reach its other services as a client does, whose errors bear no code.
pub fn uncoded(status: Status) -> Status {
    Status::new(Code::Unknown, status.message)
}

/// The given lease, or a new one.
pub async fn session(caller: &Caller, lease: i64) -> Result<i64, Status> {
    if lease != 0 {
        return Ok(lease);
    }
    let request = LeaseGrantRequest {
        ttl: SESSION_TTL,
        id: 0,
    };
    let granted: LeaseGrantResponse = decoded(lease::grant(caller.clone(), request).await).await?;
    Ok(granted.id)
}

/// Under a name, whatever it is; keys are the leases in hexadecimal.
pub fn prefix_of(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

pub fn key_of(prefix: &[u8], lease: i64) -> Bytes {
    let digits = match lease {
        // As Go prints it.
        ..0 => format!("-{:x}", lease.unsigned_abs()),
        _ => format!("{lease:x}"),
    };
    [prefix, digits.as_bytes()].concat().into()
}

/// The first key behind all that begin with `prefix`.
fn end_of(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(&[0])
}

/// The key under `prefix` that was created first.
pub fn first_created(prefix: &Bytes) -> RangeRequest {
    by_creation(prefix, SortOrder::Ascend)
}

fn by_creation(prefix: &Bytes, order: SortOrder) -> RangeRequest {
    RangeRequest {
        key: prefix.clone(),
        range_end: end_of(prefix),
        limit: 1,
        sort_order: order as i32,
        sort_target: SortTarget::Create as i32,
        ..Default::default()
    }
}

pub fn watch_prefix(prefix: &Bytes, start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: prefix.clone(),
        range_end: end_of(prefix),
        start_revision,
        ..Default::default()
    }
}

pub fn watch_key(key: &Bytes, start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: key.clone(),
        start_revision,
        ..Default::default()
    }
}

pub fn get_op(key: &Bytes) -> RequestOp {
    range_op(RangeRequest {
        key: key.clone(),
        ..Default::default()
    })
}

pub fn range_op(request: RangeRequest) -> RequestOp {
    RequestOp {
        request: Some(Request::RequestRange(request)),
    }
}

pub fn put_op(key: &Bytes, value: &Bytes, lease: i64) -> RequestOp {
    let put = PutRequest {
        key: key.clone(),
        value: value.clone(),
        lease,
        ..Default::default()
    };
    RequestOp {
        request: Some(Request::RequestPut(put)),
    }
}

pub async fn get(
    caller: &Caller,
    request: RangeRequest,
) -> Result<(ResponseHeader, Option<KeyValue>), Status> {
    let found: RangeResponse = decoded(kv::range(caller.clone(), request).await).await?;
    Ok((found.header.unwrap_or_default(), found.kvs.into_iter().next()))
}

/// A transaction on the condition that `key` was created at `revision`; 0 for a key that does not exist.
pub async fn if_created(
    caller: &Caller,
    key: &Bytes,
    revision: i64,
    success: Vec<RequestOp>,
    failure: Vec<RequestOp>,
) -> Result<TxnResponse, Status> {
    let request = TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Create as i32,
            key: key.clone(),
            range_end: Bytes::new(),
            target_union: Some(TargetUnion::CreateRevision(revision)),
        }],
        success,
        failure,
    };
    decoded(kv::txn(caller.clone(), request).await).await
}

/// The key that the range at `place` of a transaction found.
pub fn found(response: &TxnResponse, place: usize) -> Option<&KeyValue> {
    match response.responses.get(place)?.response.as_ref()? {
        response_op::Response::ResponseRange(range) => range.kvs.first(),
        _ => None,
    }
}

pub async fn delete_if_created(caller: &Caller, key: &Bytes, revision: i64) -> Result<TxnResponse, Status> {
    let delete = DeleteRangeRequest {
        key: key.clone(),
        ..Default::default()
    };
    let op = RequestOp {
        request: Some(Request::RequestDeleteRange(delete)),
    };
    if_created(caller, key, revision, vec![op], Vec::new()).await
}

/// Waits until no key under `prefix` was created at or before `revision`: for one at a time, the last of them.
pub async fn wait_deletes(caller: &Caller, prefix: &Bytes, revision: i64) -> Result<(), Status> {
    loop {
        let last = RangeRequest {
            max_create_revision: revision,
            ..by_creation(prefix, SortOrder::Descend)
        };
        let (header, Some(kv)) = get(caller, last).await? else {
            return Ok(());
        };
        wait_delete(caller, &kv.key, header.revision).await?;
    }
}

async fn wait_delete(caller: &Caller, key: &Bytes, revision: i64) -> Result<(), Status> {
    let mut watcher = Watcher::open(caller, watch_key(key, revision)).await?;
    loop {
        let response = watcher.next().await?;
        if response
            .events
            .iter()
            .any(|event| event.r#type() == EventType::Delete)
        {
            return Ok(());
        }
    }
}

/// A place in a queue: given up when the call that took it ends without having got to the front, however it ends.
pub struct Place {
    caller: Caller,
    key: Bytes,
    revision: i64,
    kept: bool,
}

impl Place {
    pub fn take(caller: &Caller, key: &Bytes, revision: i64) -> Place {
        Place {
            caller: caller.clone(),
            key: key.clone(),
            revision,
            kept: false,
        }
    }

    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let (caller, key, revision) = (self.caller.clone(), self.key.clone(), self.revision);
        // Without a runtime the process is ending, and the key ends with its lease.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            if let Err(status) = delete_if_created(&caller, &key, revision).await {
                warn!(key = %String::from_utf8_lossy(&key), error = %status, "failed to give up a place in a queue; it ends with its lease");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_etcds_clients_name_them() {
        let prefix = prefix_of(b"lock");
        assert_eq!(prefix, "lock/");
        assert_eq!(key_of(&prefix, 0x694d_7a1b), "lock/694d7a1b");
        assert_eq!(key_of(&prefix, -1), "lock/-1");
        assert_eq!(end_of(b"lock/"), "lock0");
        assert_eq!(end_of(&[b'a', 0xff]), "b");
        assert_eq!(end_of(&[0xff]), Bytes::from_static(&[0]));
    }
}
