//! `-w json`: the server's answer as Go's `encoding/json` writes its struct.

use std::io::Write;

use etcd_api::authpb::Permission;
use etcd_api::etcdserverpb::response_op::Response;
use etcd_api::etcdserverpb::{
    DeleteRangeResponse, HashKvResponse, LeaseTimeToLiveResponse, Member, MemberListResponse, PutResponse,
    RangeResponse, ResponseHeader, ResponseOp, StatusResponse, TxnResponse,
};
use etcd_api::mvccpb::{Event, KeyValue};

use super::{Health, Printed, Reply};
use crate::client::watch::WatchReply;
use crate::go::json::{Object, array, bytes, string, strings};

type Header = Option<ResponseHeader>;

pub fn print(reply: &Reply, hex: bool, out: &mut dyn Write) -> Printed {
    let text = match reply {
        Reply::Del(answer) => del(answer),
        Reply::Get(answer) => get(answer),
        Reply::Put(answer) => put(answer),
        Reply::Txn(answer) => txn(answer),
        Reply::Watch(reply) => watch(reply),
        Reply::MemberList(answer) if hex => members_hex(answer),
        Reply::MemberList(answer) => members(&answer.header, None, &answer.members),
        Reply::MemberAdd(answer) => members(&answer.header, answer.member.as_ref(), &answer.members),
        Reply::MemberRemove(_, answer) => members(&answer.header, None, &answer.members),
        Reply::MemberUpdate(_, answer) => members(&answer.header, None, &answer.members),
        Reply::MemberPromote(_, answer) => members(&answer.header, None, &answer.members),
        Reply::EndpointHealth(list) => list_of(list.iter().map(health)),
        Reply::EndpointStatus(list) => list_of(
            list.iter()
                .map(|(name, answer)| endpoint(name, "Status", status(answer))),
        ),
        Reply::EndpointHashKv(list) => list_of(
            list.iter()
                .map(|(name, answer)| endpoint(name, "HashKV", hash_kv(answer))),
        ),
        leases => lease(leases),
    };
    Ok(writeln!(out, "{text}")?)
}

/// A nil slice is null.
fn list_of(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() {
        "null".to_owned()
    } else {
        array(items)
    }
}

fn headed(header: &Header) -> Object {
    Object::new().some(
        "header",
        header
            .as_ref()
            .map(|header| header_fields(Object::new(), header).end()),
    )
}

fn header_fields(object: Object, header: &ResponseHeader) -> Object {
    object
        .number("cluster_id", header.cluster_id)
        .number("member_id", header.member_id)
        .number("revision", header.revision)
        .number("raft_term", header.raft_term)
}

/// clientv3's lease answers embed the header: its fields stand beside theirs.
fn embedded(header: &Header) -> Object {
    match header {
        Some(header) => header_fields(Object::new(), header),
        None => Object::new(),
    }
}

fn kv(kv: &KeyValue) -> String {
    Object::new()
        .bytes("key", &kv.key)
        .number("create_revision", kv.create_revision)
        .number("mod_revision", kv.mod_revision)
        .number("version", kv.version)
        .bytes("value", &kv.value)
        .number("lease", kv.lease)
        .end()
}

fn kvs(list: &[KeyValue]) -> Vec<String> {
    list.iter().map(kv).collect()
}

fn del(answer: &DeleteRangeResponse) -> String {
    headed(&answer.header)
        .number("deleted", answer.deleted)
        .list("prev_kvs", kvs(&answer.prev_kvs))
        .end()
}

fn get(answer: &RangeResponse) -> String {
    let object = headed(&answer.header).list("kvs", kvs(&answer.kvs));
    object
        .flag("more", answer.more)
        .number("count", answer.count)
        .end()
}

fn put(answer: &PutResponse) -> String {
    headed(&answer.header)
        .some("prev_kv", answer.prev_kv.as_ref().map(kv))
        .end()
}

fn txn(answer: &TxnResponse) -> String {
    let responses = answer.responses.iter().map(response_op).collect();
    headed(&answer.header)
        .flag("succeeded", answer.succeeded)
        .list("responses", responses)
        .end()
}

/// A oneof is an interface field without a tag.
fn response_op(op: &ResponseOp) -> String {
    let inner = match &op.response {
        Some(Response::ResponseRange(answer)) => Object::new().always("response_range", get(answer)).end(),
        Some(Response::ResponsePut(answer)) => Object::new().always("response_put", put(answer)).end(),
        Some(Response::ResponseDeleteRange(answer)) => {
            Object::new().always("response_delete_range", del(answer)).end()
        }
        Some(Response::ResponseTxn(answer)) => Object::new().always("response_txn", txn(answer)).end(),
        None => "null".to_owned(),
    };
    Object::new().always("Response", inner).end()
}

fn watch(reply: &WatchReply) -> String {
    Object::new()
        .always("Header", header_fields(Object::new(), &reply.header).end())
        .always("Events", array(reply.events.iter().map(event).collect()))
        .always("CompactRevision", reply.compact_revision.to_string())
        .always("Canceled", reply.canceled.to_string())
        .always("Created", reply.created.to_string())
        .end()
}

fn event(event: &Event) -> String {
    Object::new()
        .number("type", event.r#type)
        .some("kv", event.kv.as_ref().map(kv))
        .some("prev_kv", event.prev_kv.as_ref().map(kv))
        .end()
}

fn members(header: &Header, member: Option<&Member>, list: &[Member]) -> String {
    let list = list.iter().map(member_fields).collect();
    headed(header)
        .some("member", member.map(member_fields))
        .list("members", list)
        .end()
}

fn member_fields(member: &Member) -> String {
    Object::new()
        .number("ID", member.id)
        .text("name", &member.name)
        .list("peerURLs", strings(&member.peer_ur_ls))
        .list("clientURLs", strings(&member.client_ur_ls))
        .flag("isLearner", member.is_learner)
        .end()
}

/// Written by hand upstream: numbers in hexadecimal as strings, and not every field.
fn members_hex(answer: &MemberListResponse) -> String {
    let header = answer.header.unwrap_or_default();
    let mut text = format!(
        "{{\"header\":{{\"cluster_id\":\"{:x}\",\"member_id\":\"{:x}\",\"raft_term\":{}}}",
        header.cluster_id, header.member_id, header.raft_term
    );
    let urls = |urls: &[String]| {
        if urls.is_empty() {
            "null".to_owned()
        } else {
            array(strings(urls))
        }
    };
    let member = |member: &Member| {
        format!(
            "{{\"ID\":\"{:x}\",\"name\":\"{}\",\"peerURLs\":{},\"clientURLs\":{}}}",
            member.id,
            member.name,
            urls(&member.peer_ur_ls),
            urls(&member.client_ur_ls)
        )
    };
    if !answer.members.is_empty() {
        let members: Vec<String> = answer.members.iter().map(member).collect();
        text.push_str(&format!(",\"members\":{}", array(members)));
    }
    text + "}"
}

fn health(health: &Health) -> String {
    Object::new()
        .always("endpoint", string(&health.endpoint))
        .always("health", health.health.to_string())
        .always("took", string(&health.took))
        .text("error", &health.error)
        .end()
}

fn endpoint(name: &str, what: &str, answer: String) -> String {
    Object::new()
        .always("Endpoint", string(name))
        .always(what, answer)
        .end()
}

fn status(status: &StatusResponse) -> String {
    let downgrade = status.downgrade_info.as_ref().map(|info| {
        Object::new()
            .flag("enabled", info.enabled)
            .text("targetVersion", &info.target_version)
            .end()
    });
    headed(&status.header)
        .text("version", &status.version)
        .number("dbSize", status.db_size)
        .number("leader", status.leader)
        .number("raftIndex", status.raft_index)
        .number("raftTerm", status.raft_term)
        .number("raftAppliedIndex", status.raft_applied_index)
        .list("errors", strings(&status.errors))
        .number("dbSizeInUse", status.db_size_in_use)
        .flag("isLearner", status.is_learner)
        .text("storageVersion", &status.storage_version)
        .number("dbSizeQuota", status.db_size_quota)
        .some("downgradeInfo", downgrade)
        .end()
}

fn hash_kv(answer: &HashKvResponse) -> String {
    headed(&answer.header)
        .number("hash", answer.hash)
        .number("compact_revision", answer.compact_revision)
        .number("hash_revision", answer.hash_revision)
        .end()
}

fn lease(reply: &Reply) -> String {
    match reply {
        Reply::Grant(answer) => embedded(&answer.header)
            .always("ID", answer.id.to_string())
            .always("TTL", answer.ttl.to_string())
            .always("Error", string(&answer.error))
            .end(),
        Reply::Revoke(_, answer) => headed(&answer.header).end(),
        Reply::KeepAlive(answer) => embedded(&answer.header)
            .always("ID", answer.id.to_string())
            .always("TTL", answer.ttl.to_string())
            .end(),
        Reply::TimeToLive(answer, _) => time_to_live(answer),
        Reply::Leases(answer) => {
            let id = |id: i64| Object::new().always("id", id.to_string()).end();
            // clientv3 makes the slice even for no leases.
            let leases = answer.leases.iter().map(|lease| id(lease.id)).collect();
            embedded(&answer.header).always("leases", array(leases)).end()
        }
        administration => administration_reply(administration),
    }
}

fn time_to_live(answer: &LeaseTimeToLiveResponse) -> String {
    embedded(&answer.header)
        .always("id", answer.id.to_string())
        .always("ttl", answer.ttl.to_string())
        .always("granted-ttl", answer.granted_ttl.to_string())
        .always("keys", list_of(answer.keys.iter().map(|key| bytes(key))))
        .end()
}

fn administration_reply(reply: &Reply) -> String {
    let object = match reply {
        Reply::MoveLeader { answer, .. } => headed(&answer.header),
        Reply::Downgrade(_, answer) => headed(&answer.header).text("version", &answer.version),
        Reply::Alarm(answer) => {
            let alarm = |alarm: &etcd_api::etcdserverpb::AlarmMember| {
                Object::new()
                    .number("memberID", alarm.member_id)
                    .number("alarm", alarm.alarm)
                    .end()
            };
            headed(&answer.header).list("alarms", answer.alarms.iter().map(alarm).collect())
        }
        Reply::AuthStatus(answer) => headed(&answer.header)
            .flag("enabled", answer.enabled)
            .number("authRevision", answer.auth_revision),
        Reply::RoleAdd(_, answer) => headed(&answer.header),
        Reply::RoleGet(_, answer) => {
            headed(&answer.header).list("perm", answer.perm.iter().map(permission).collect())
        }
        Reply::RoleDelete(_, answer) => headed(&answer.header),
        Reply::RoleList(answer) => headed(&answer.header).list("roles", strings(&answer.roles)),
        Reply::RoleGrantPermission(_, answer) => headed(&answer.header),
        Reply::RoleRevokePermission { answer, .. } => headed(&answer.header),
        Reply::UserAdd(_, answer) => headed(&answer.header),
        Reply::UserGet(_, answer) => headed(&answer.header).list("roles", strings(&answer.roles)),
        Reply::UserList(answer) => headed(&answer.header).list("users", strings(&answer.users)),
        Reply::UserChangePassword(answer) => headed(&answer.header),
        Reply::UserGrantRole { answer, .. } => headed(&answer.header),
        Reply::UserRevokeRole { answer, .. } => headed(&answer.header),
        Reply::UserDelete(_, answer) => headed(&answer.header),
        // Every other reply has been written by the callers.
        _ => Object::new(),
    };
    object.end()
}

fn permission(perm: &Permission) -> String {
    Object::new()
        .number("permType", perm.perm_type)
        .bytes("key", &perm.key)
        .bytes("range_end", &perm.range_end)
        .end()
}
