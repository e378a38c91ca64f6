//! What a request must look like before it is proposed; etcd's rules and order.

use std::collections::HashSet;

use bytes::Bytes;
use etcd_api::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, range_request::SortOrder,
    range_request::SortTarget, request_op::Request,
};

use super::key::KeyRange;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    #[error("etcdserver: key not found")]
    KeyNotFound,
    #[error("etcdserver: value is provided")]
    ValueProvided,
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
}

pub fn range(request: &RangeRequest) -> Result<(), Invalid> {
    if request.key.is_empty() {
        return Err(Invalid::EmptyKey);
    }
    if SortOrder::try_from(request.sort_order).is_err() || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(Invalid::InvalidSortOption);
    }
    Ok(())
}

pub fn put(request: &PutRequest) -> Result<(), Invalid> {
    if request.key.is_empty() {
        return Err(Invalid::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Invalid::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Invalid::LeaseProvided);
    }
    Ok(())
}

pub fn delete_range(request: &DeleteRangeRequest) -> Result<(), Invalid> {
    if request.key.is_empty() {
        Err(Invalid::EmptyKey)
    } else {
        Ok(())
    }
}

pub fn txn(request: &TxnRequest, max_ops: usize) -> Result<(), Invalid> {
    operations(request, max_ops)?;
    intervals(&request.success)?;
    intervals(&request.failure)?;
    Ok(())
}

fn operations(request: &TxnRequest, max_ops: usize) -> Result<(), Invalid> {
    let count = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    let Some(left) = max_ops.checked_sub(count) else {
        return Err(Invalid::TooManyOps);
    };
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Invalid::EmptyKey);
    }
    request
        .success
        .iter()
        .chain(&request.failure)
        .try_for_each(|op| operation(op, left))
}

/// Each level of nesting takes at least one operation, so recursion is bounded by `max_ops`.
fn operation(op: &RequestOp, left: usize) -> Result<(), Invalid> {
    match &op.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete_range(request),
        Some(Request::RequestTxn(request)) => operations(request, left),
        None => Err(Invalid::KeyNotFound),
    }
}

#[derive(Default)]
struct Touched {
    puts: HashSet<Bytes>,
    deletes: Vec<KeyRange>,
}

impl Touched {
    fn deletes_key(&self, key: &Bytes) -> bool {
        self.deletes.iter().any(|range| range.contains(key))
    }

    fn put(&mut self, key: &Bytes, allowed: impl Fn(&Bytes) -> bool) -> Result<(), Invalid> {
        if (self.puts.contains(key) && !allowed(key)) || self.deletes_key(key) {
            return Err(Invalid::DuplicateKey);
        }
        self.puts.insert(key.clone());
        Ok(())
    }
}

/// No key may be put twice, or put and deleted, on one path.
fn intervals(ops: &[RequestOp]) -> Result<Touched, Invalid> {
    let mut touched = Touched::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(request)) = &op.request {
            touched
                .deletes
                .push(KeyRange::new(&request.key, &request.range_end));
        }
    }
    for op in ops {
        if let Some(Request::RequestTxn(request)) = &op.request {
            nested(&mut touched, request)?;
        }
    }
    for op in ops {
        if let Some(Request::RequestPut(request)) = &op.request {
            touched.put(&request.key, |_| false)?;
        }
    }
    Ok(touched)
}

/// Then and else exclude each other: both may put the same key.
fn nested(touched: &mut Touched, request: &TxnRequest) -> Result<(), Invalid> {
    let then = intervals(&request.success)?;
    let otherwise = intervals(&request.failure)?;
    for key in &then.puts {
        touched.put(key, |_| false)?;
    }
    for key in &otherwise.puts {
        touched.put(key, |key| then.puts.contains(key))?;
    }
    touched.deletes.extend(then.deletes);
    touched.deletes.extend(otherwise.deletes);
    Ok(())
}

/// Whether a transaction changes nothing, whichever path it takes.
pub fn is_read_only(request: &TxnRequest) -> bool {
    request
        .success
        .iter()
        .chain(&request.failure)
        .all(|op| match &op.request {
            Some(Request::RequestRange(_)) => true,
            Some(Request::RequestTxn(nested)) => is_read_only(nested),
            _ => false,
        })
}

/// Whether it may be answered without the leader: every range in it is serializable.
pub fn is_serializable(request: &TxnRequest) -> bool {
    request
        .success
        .iter()
        .chain(&request.failure)
        .all(|op| match &op.request {
            Some(Request::RequestRange(range)) => range.serializable,
            Some(Request::RequestTxn(nested)) => is_serializable(nested),
            _ => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_op(key: &'static str) -> RequestOp {
        RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                key: key.into(),
                ..Default::default()
            })),
        }
    }

    fn delete_op(key: &'static str, end: &'static str) -> RequestOp {
        RequestOp {
            request: Some(Request::RequestDeleteRange(DeleteRangeRequest {
                key: key.into(),
                range_end: end.into(),
                ..Default::default()
            })),
        }
    }

    fn txn_op(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        RequestOp {
            request: Some(Request::RequestTxn(TxnRequest {
                success,
                failure,
                ..Default::default()
            })),
        }
    }

    fn check(success: Vec<RequestOp>) -> Result<(), Invalid> {
        txn(
            &TxnRequest {
                success,
                ..Default::default()
            },
            128,
        )
    }

    #[test]
    fn a_key_is_written_once_on_a_path() {
        assert_eq!(check(vec![put_op("a"), put_op("b")]), Ok(()));
        assert_eq!(check(vec![put_op("a"), put_op("a")]), Err(Invalid::DuplicateKey));
        assert_eq!(
            check(vec![put_op("b"), delete_op("a", "c")]),
            Err(Invalid::DuplicateKey)
        );
        assert_eq!(check(vec![delete_op("a", "c"), delete_op("b", "d")]), Ok(()));
        assert_eq!(check(vec![txn_op(vec![put_op("a")], vec![put_op("a")])]), Ok(()));
        assert_eq!(
            check(vec![txn_op(vec![put_op("a")], vec![]), put_op("a")]),
            Err(Invalid::DuplicateKey)
        );
        assert_eq!(
            check(vec![txn_op(vec![delete_op("a", "")], vec![]), put_op("a")]),
            Err(Invalid::DuplicateKey)
        );
    }

    #[test]
    fn operations_are_counted_over_the_nesting() {
        let many = |count: usize| (0..count).map(|_| delete_op("a", "")).collect::<Vec<_>>();
        assert_eq!(check(many(128)), Ok(()));
        assert_eq!(check(many(129)), Err(Invalid::TooManyOps));
        let mut deep = put_op("a");
        for _ in 0..200 {
            deep = txn_op(vec![deep], vec![]);
        }
        assert_eq!(check(vec![deep]), Err(Invalid::TooManyOps));
        assert_eq!(
            check(vec![RequestOp { request: None }]),
            Err(Invalid::KeyNotFound)
        );
        assert_eq!(check(vec![put_op("")]), Err(Invalid::EmptyKey));
    }
}
