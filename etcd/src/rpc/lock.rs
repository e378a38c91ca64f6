//! The v3lock service.

use bytes::Bytes;
use etcd_api::etcdserverpb::{DeleteRangeRequest, DeleteRangeResponse, RangeRequest};
use etcd_api::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};

use super::caller::Caller;
use super::concurrency::{
    Place, first_created, found, get, get_op, if_created, key_of, prefix_of, put_op, range_op, session,
    wait_deletes,
};
use super::grpc::{Answer, decoded, message};
use super::kv;
use super::status::{Code, Status};

pub async fn lock(caller: Caller, request: LockRequest) -> Answer {
    let lease = session(&caller, request.lease).await?;
    let prefix = prefix_of(&request.name);
    let key = key_of(&prefix, lease);
    let owner = range_op(first_created(&prefix));
    let response = if_created(
        &caller,
        &key,
        0,
        vec![put_op(&key, &Bytes::new(), lease), owner.clone()],
        vec![get_op(&key), owner],
    )
    .await?;
    let header = response.header.unwrap_or_default();
    // The session may stand in the queue already.
    let revision = match found(&response, 0) {
        Some(own) => own.create_revision,
        None => header.revision,
    };
    if found(&response, 1).is_none_or(|owner| owner.create_revision == revision) {
        let header = Some(header);
        return message(&LockResponse { header, key });
    }
    let place = Place::take(&caller, &key, revision);
    wait_deletes(&caller, &prefix, revision - 1).await?;
    let own = RangeRequest {
        key: key.clone(),
        ..Default::default()
    };
    let (header, Some(_)) = get(&caller, own).await? else {
        return Err(Status::new(Code::Unknown, "mutex: session is expired"));
    };
    place.keep();
    let header = Some(header);
    message(&LockResponse { header, key })
}

pub async fn unlock(caller: Caller, request: UnlockRequest) -> Answer {
    let delete = DeleteRangeRequest {
        key: request.key,
        ..Default::default()
    };
    let deleted: DeleteRangeResponse = decoded(kv::delete_range(caller, delete).await).await?;
    message(&UnlockResponse {
        header: deleted.header,
    })
}
