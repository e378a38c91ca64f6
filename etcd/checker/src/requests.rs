//! How a history's requests are put to etcd, and what its answers mean.

use bytes::Bytes;
use etcd_api::etcdserverpb::request_op::Request as Op;
use etcd_api::etcdserverpb::response_op::Response as OpResponse;
use etcd_api::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse, compare,
};

use crate::history::{Change, Response};

pub fn range(key: &Bytes) -> RangeRequest {
    RangeRequest {
        key: key.clone(),
        ..RangeRequest::default()
    }
}

pub fn put(key: &Bytes, value: &Bytes) -> PutRequest {
    PutRequest {
        key: key.clone(),
        value: value.clone(),
        ..PutRequest::default()
    }
}

pub fn delete(key: &Bytes) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: key.clone(),
        ..DeleteRangeRequest::default()
    }
}

/// The change if the key was last changed at `expected`, otherwise a read of it.
pub fn guarded(key: &Bytes, expected: i64, change: &Change) -> TxnRequest {
    let op = |op: Op| RequestOp { request: Some(op) };
    let change = match change {
        Change::Put(value) => Op::RequestPut(put(key, value)),
        Change::Delete => Op::RequestDeleteRange(delete(key)),
    };
    TxnRequest {
        compare: vec![Compare {
            result: compare::CompareResult::Equal as i32,
            target: compare::CompareTarget::Mod as i32,
            key: key.clone(),
            target_union: Some(compare::TargetUnion::ModRevision(expected)),
            ..Compare::default()
        }],
        success: vec![op(change)],
        failure: vec![op(Op::RequestRange(range(key)))],
    }
}

/// What [`guarded`] was answered.
pub fn guarded_response(response: TxnResponse) -> Response {
    let found = response.responses.into_iter().next().and_then(|op| op.response);
    match (response.succeeded, found) {
        (true, _) => Response::Changed,
        (false, Some(OpResponse::ResponseRange(range))) => Response::Refused(range.kvs.into_iter().next()),
        (false, _) => Response::Refused(None),
    }
}
