//! Ranges of keys and the KV calls.

use bytes::Bytes;
use etcd_api::etcdserverpb::kv_client::KvClient;
use etcd_api::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    TxnRequest, TxnResponse, request_op,
};

use super::{Client, Context, Error, Policy};
use crate::unary;

/// The end of a range that has none.
pub const OPEN_END: &[u8] = b"\0";

/// The first key behind those that begin with `prefix`.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < 0xff {
            *last += 1;
            return end.into();
        }
        end.pop();
    }
    Bytes::from_static(OPEN_END)
}

impl Client {
    pub async fn range(&self, context: &Context, request: RangeRequest) -> Result<RangeResponse, Error> {
        unary!(
            self,
            context,
            Policy::Repeatable,
            KvClient,
            range,
            "/etcdserverpb.KV/Range",
            request
        )
    }

    /// One key.
    pub async fn get(&self, context: &Context, key: impl Into<Bytes>) -> Result<RangeResponse, Error> {
        let key = key.into();
        self.range(
            context,
            RangeRequest {
                key,
                ..Default::default()
            },
        )
        .await
    }

    pub async fn put(&self, context: &Context, request: PutRequest) -> Result<PutResponse, Error> {
        unary!(
            self,
            context,
            Policy::NonRepeatable,
            KvClient,
            put,
            "/etcdserverpb.KV/Put",
            request
        )
    }

    pub async fn delete(
        &self,
        context: &Context,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Error> {
        let policy = Policy::NonRepeatable;
        unary!(
            self,
            context,
            policy,
            KvClient,
            delete_range,
            "/etcdserverpb.KV/DeleteRange",
            request
        )
    }

    /// One that only reads may be repeated.
    pub async fn txn(&self, context: &Context, request: TxnRequest) -> Result<TxnResponse, Error> {
        let ops = request.success.iter().chain(&request.failure);
        let reads = ops
            .clone()
            .all(|op| matches!(op.request, Some(request_op::Request::RequestRange(_))));
        let policy = if reads {
            Policy::Repeatable
        } else {
            Policy::NonRepeatable
        };
        unary!(
            self,
            context,
            policy,
            KvClient,
            txn,
            "/etcdserverpb.KV/Txn",
            request
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_the_next_begins() {
        assert_eq!(prefix_end(b"ab"), &b"ac"[..]);
        assert_eq!(prefix_end(b"a\xff"), &b"b"[..]);
        assert_eq!(prefix_end(b"\xff\xff"), OPEN_END);
    }
}
