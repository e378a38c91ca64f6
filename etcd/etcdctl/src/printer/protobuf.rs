//! `-w protobuf`: the server's answer as it came over the wire.

use std::io::Write;

use etcd_api::etcdserverpb::{ResponseHeader, WatchResponse};
use prost::Message;

use super::{Printed, Reply, Unsupported};
use crate::client::watch::WatchReply;

pub fn print(reply: &Reply, out: &mut dyn Write) -> Printed {
    let bytes = match reply {
        Reply::Del(answer) => answer.encode_to_vec(),
        Reply::Get(answer) => answer.encode_to_vec(),
        Reply::Put(answer) => answer.encode_to_vec(),
        Reply::Txn(answer) => answer.encode_to_vec(),
        Reply::Watch(reply) => watch(reply),
        // clientv3 wraps these around a header and marshals only that.
        Reply::Grant(answer) => header(&answer.header),
        Reply::KeepAlive(answer) => header(&answer.header),
        Reply::TimeToLive(answer, _) => header(&answer.header),
        Reply::Leases(answer) => header(&answer.header),
        Reply::Revoke(..) => return Err(Unsupported::Marshal("clientv3.LeaseRevokeResponse".to_owned())),
        Reply::EndpointHealth(_) | Reply::EndpointStatus(_) | Reply::EndpointHashKv(_) => {
            return Err(Unsupported::Format("protobuf"));
        }
        others => administration(others),
    };
    Ok(out.write_all(&bytes)?)
}

fn administration(reply: &Reply) -> Vec<u8> {
    match reply {
        Reply::MemberAdd(answer) => answer.encode_to_vec(),
        Reply::MemberRemove(_, answer) => answer.encode_to_vec(),
        Reply::MemberUpdate(_, answer) => answer.encode_to_vec(),
        Reply::MemberPromote(_, answer) => answer.encode_to_vec(),
        Reply::MemberList(answer) => answer.encode_to_vec(),
        Reply::MoveLeader { answer, .. } => answer.encode_to_vec(),
        Reply::Downgrade(_, answer) => answer.encode_to_vec(),
        Reply::Alarm(answer) => answer.encode_to_vec(),
        Reply::RoleAdd(_, answer) => answer.encode_to_vec(),
        Reply::RoleGet(_, answer) => answer.encode_to_vec(),
        Reply::RoleDelete(_, answer) => answer.encode_to_vec(),
        Reply::RoleList(answer) => answer.encode_to_vec(),
        Reply::RoleGrantPermission(_, answer) => answer.encode_to_vec(),
        Reply::RoleRevokePermission { answer, .. } => answer.encode_to_vec(),
        Reply::UserAdd(_, answer) => answer.encode_to_vec(),
        Reply::UserGet(_, answer) => answer.encode_to_vec(),
        Reply::UserList(answer) => answer.encode_to_vec(),
        Reply::UserChangePassword(answer) => answer.encode_to_vec(),
        Reply::UserGrantRole { answer, .. } => answer.encode_to_vec(),
        Reply::UserRevokeRole { answer, .. } => answer.encode_to_vec(),
        Reply::UserDelete(_, answer) => answer.encode_to_vec(),
        Reply::AuthStatus(answer) => answer.encode_to_vec(),
        // Every other reply has been encoded by the caller.
        _ => Vec::new(),
    }
}

fn header(header: &Option<ResponseHeader>) -> Vec<u8> {
    header.as_ref().map(Message::encode_to_vec).unwrap_or_default()
}

fn watch(reply: &WatchReply) -> Vec<u8> {
    let message = WatchResponse {
        header: Some(reply.header),
        events: reply.events.clone(),
        compact_revision: reply.compact_revision,
        canceled: reply.canceled,
        created: reply.created,
        ..Default::default()
    };
    message.encode_to_vec()
}
