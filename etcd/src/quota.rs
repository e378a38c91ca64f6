//! How much may be stored: live bytes, not file sizes.

use etcd_api::etcdserverpb::{RequestOp, TxnRequest, request_op::Request};

/// etcd's default of `--quota-backend-bytes`.
pub const DEFAULT_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// Whether some path of a transaction puts.
pub fn takes_space(request: &TxnRequest) -> bool {
    let puts = |op: &RequestOp| match &op.request {
        Some(Request::RequestPut(_)) => true,
        Some(Request::RequestTxn(nested)) => takes_space(nested),
        _ => false,
    };
    request.success.iter().chain(&request.failure).any(puts)
}
