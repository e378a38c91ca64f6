//! `-w simple`: what a person reads.

use std::io::{self, Write};

use etcd_api::authpb::Permission;
use etcd_api::authpb::permission::Type;
use etcd_api::etcdserverpb::response_op::Response;
use etcd_api::etcdserverpb::{
    AlarmType, AuthRoleGetResponse, DeleteRangeResponse, LeaseTimeToLiveResponse, PutResponse, RangeResponse,
    TxnResponse,
};
use etcd_api::mvccpb::KeyValue;
use etcd_api::mvccpb::event::EventType;

use super::rows::{self, Rows};
use super::{Health, Printed, Reply};
use crate::client::kv::{OPEN_END, prefix_end};
use crate::client::watch::WatchReply;

const ROOT_ROLE: &str = "root";

pub struct Simple {
    pub hex: bool,
    pub value_only: bool,
}

impl Simple {
    pub fn print(&self, reply: &Reply, out: &mut dyn Write) -> Printed {
        match reply {
            Reply::Del(answer) => self.del(answer, out)?,
            Reply::Get(answer) => self.get(answer, out)?,
            Reply::Put(answer) => self.put(answer, out)?,
            Reply::Txn(answer) => self.txn(answer, out)?,
            Reply::Watch(reply) => self.watch(reply, out)?,
            Reply::Grant(answer) => {
                writeln!(out, "lease {:016x} granted with TTL({}s)", answer.id, answer.ttl)?;
            }
            Reply::Revoke(id, _) => writeln!(out, "lease {id:016x} revoked")?,
            Reply::KeepAlive(answer) => {
                writeln!(
                    out,
                    "lease {:016x} keepalived with TTL({})",
                    answer.id, answer.ttl
                )?;
            }
            Reply::TimeToLive(answer, keys) => time_to_live(answer, *keys, out)?,
            Reply::Leases(answer) => {
                writeln!(out, "found {} leases", answer.leases.len())?;
                answer
                    .leases
                    .iter()
                    .try_for_each(|lease| writeln!(out, "{:016x}", lease.id))?;
            }
            Reply::Alarm(answer) => alarms(&answer.alarms, out)?,
            Reply::EndpointHealth(list) => health(list, out)?,
            Reply::EndpointStatus(list) => lines(&rows::status(list), out)?,
            Reply::EndpointHashKv(list) => lines(&rows::hashes(list), out)?,
            Reply::AuthStatus(answer) => {
                writeln!(out, "Authentication Status: {}", answer.enabled)?;
                writeln!(out, "AuthRevision: {}", answer.auth_revision)?;
            }
            cluster => return cluster_reply(cluster, out),
        }
        Ok(())
    }

    fn kv(&self, kv: &KeyValue, out: &mut dyn Write) -> io::Result<()> {
        if !self.value_only {
            self.bytes(&kv.key, out)?;
        }
        self.bytes(&kv.value, out)
    }

    fn bytes(&self, bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
        if self.hex {
            bytes.iter().try_for_each(|byte| write!(out, "\\x{byte:02x}"))?;
        } else {
            out.write_all(bytes)?;
        }
        out.write_all(b"\n")
    }

    fn kvs(&self, kvs: &[KeyValue], out: &mut dyn Write) -> io::Result<()> {
        kvs.iter().try_for_each(|kv| self.kv(kv, out))
    }

    fn del(&self, answer: &DeleteRangeResponse, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", answer.deleted)?;
        self.kvs(&answer.prev_kvs, out)
    }

    fn get(&self, answer: &RangeResponse, out: &mut dyn Write) -> io::Result<()> {
        self.kvs(&answer.kvs, out)
    }

    fn put(&self, answer: &PutResponse, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "OK")?;
        answer.prev_kv.iter().try_for_each(|kv| self.kv(kv, out))
    }

    fn txn(&self, answer: &TxnResponse, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", if answer.succeeded { "SUCCESS" } else { "FAILURE" })?;
        for op in &answer.responses {
            writeln!(out)?;
            match &op.response {
                Some(Response::ResponseDeleteRange(answer)) => self.del(answer, out)?,
                Some(Response::ResponsePut(answer)) => self.put(answer, out)?,
                Some(Response::ResponseRange(answer)) => self.get(answer, out)?,
                other => writeln!(out, "unexpected response {other:?}")?,
            }
        }
        Ok(())
    }

    fn watch(&self, reply: &WatchReply, out: &mut dyn Write) -> io::Result<()> {
        for event in &reply.events {
            writeln!(out, "{}", event_type(event.r#type()))?;
            event.prev_kv.iter().try_for_each(|kv| self.kv(kv, out))?;
            event.kv.iter().try_for_each(|kv| self.kv(kv, out))?;
        }
        Ok(())
    }
}

pub fn event_type(kind: EventType) -> &'static str {
    match kind {
        EventType::Put => "PUT",
        EventType::Delete => "DELETE",
    }
}

pub fn alarm_type(kind: AlarmType) -> &'static str {
    match kind {
        AlarmType::None => "NONE",
        AlarmType::Nospace => "NOSPACE",
        AlarmType::Corrupt => "CORRUPT",
    }
}

fn time_to_live(answer: &LeaseTimeToLiveResponse, keys: bool, out: &mut dyn Write) -> io::Result<()> {
    let id = answer.id;
    if answer.granted_ttl == 0 && answer.ttl == -1 {
        return writeln!(out, "lease {id:016x} already expired");
    }
    write!(
        out,
        "lease {id:016x} granted with TTL({}s), remaining({}s)",
        answer.granted_ttl, answer.ttl
    )?;
    if keys {
        out.write_all(b", attached keys([")?;
        out.write_all(&answer.keys.join(&b' '))?;
        out.write_all(b"])")?;
    }
    writeln!(out)
}

/// The text form of a protobuf message: fields that are not zero, each with a blank behind it.
fn alarms(alarms: &[etcd_api::etcdserverpb::AlarmMember], out: &mut dyn Write) -> io::Result<()> {
    for alarm in alarms {
        if alarm.member_id != 0 {
            write!(out, "memberID:{} ", alarm.member_id)?;
        }
        if alarm.alarm() != AlarmType::None {
            write!(out, "alarm:{} ", alarm_type(alarm.alarm()))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn health(list: &[Health], out: &mut dyn Write) -> io::Result<()> {
    for health in list {
        let endpoint = &health.endpoint;
        if health.error.is_empty() {
            writeln!(
                out,
                "{endpoint} is healthy: successfully committed proposal: took = {}",
                health.took
            )?;
        } else {
            eprintln!(
                "{endpoint} is unhealthy: failed to commit proposal: {}",
                health.error
            );
        }
    }
    Ok(())
}

fn lines(rows: &Rows, out: &mut dyn Write) -> io::Result<()> {
    rows.rows
        .iter()
        .try_for_each(|row| writeln!(out, "{}", row.join(", ")))
}

/// Members, leadership, downgrades.
fn cluster_reply(reply: &Reply, out: &mut dyn Write) -> Printed {
    match reply {
        Reply::MemberAdd(answer) => {
            let member = answer.member.clone().unwrap_or_default();
            let learner = if member.is_learner { " as learner " } else { " " };
            let cluster = cluster_id(&answer.header);
            writeln!(
                out,
                "Member {:16x} added{learner}to cluster {cluster:16x}",
                member.id
            )?;
        }
        Reply::MemberRemove(id, answer) => {
            writeln!(
                out,
                "Member {id:16x} removed from cluster {:16x}",
                cluster_id(&answer.header)
            )?;
        }
        Reply::MemberUpdate(id, answer) => {
            writeln!(
                out,
                "Member {id:16x} updated in cluster {:16x}",
                cluster_id(&answer.header)
            )?;
        }
        Reply::MemberPromote(id, answer) => {
            writeln!(
                out,
                "Member {id:16x} promoted in cluster {:16x}",
                cluster_id(&answer.header)
            )?;
        }
        Reply::MemberList(answer) => lines(&rows::members(answer), out)?,
        Reply::MoveLeader { leader, target, .. } => {
            writeln!(out, "Leadership transferred from {leader:x} to {target:x}")?;
        }
        Reply::Downgrade(action, answer) => {
            writeln!(
                out,
                "Downgrade {action} success, cluster version {}",
                answer.version
            )?;
        }
        auth => return auth_reply(auth, out),
    }
    Ok(())
}

fn cluster_id(header: &Option<etcd_api::etcdserverpb::ResponseHeader>) -> u64 {
    header.as_ref().map_or(0, |header| header.cluster_id)
}

/// Roles and users.
fn auth_reply(reply: &Reply, out: &mut dyn Write) -> Printed {
    match reply {
        Reply::RoleAdd(role, _) => writeln!(out, "Role {role} created")?,
        Reply::RoleGet(role, answer) => role_get(role, answer, out)?,
        Reply::RoleDelete(role, _) => writeln!(out, "Role {role} deleted")?,
        Reply::RoleList(answer) => answer.roles.iter().try_for_each(|role| writeln!(out, "{role}"))?,
        Reply::RoleGrantPermission(role, _) => writeln!(out, "Role {role} updated")?,
        Reply::RoleRevokePermission { role, key, end, .. } => role_revoke(role, key, end, out)?,
        Reply::UserAdd(user, _) => writeln!(out, "User {user} created")?,
        Reply::UserGet(user, answer) => {
            write!(out, "User: {user}\nRoles:")?;
            answer.roles.iter().try_for_each(|role| write!(out, " {role}"))?;
            writeln!(out)?;
        }
        Reply::UserList(answer) => answer.users.iter().try_for_each(|user| writeln!(out, "{user}"))?,
        Reply::UserChangePassword(_) => writeln!(out, "Password updated")?,
        Reply::UserGrantRole { user, role, .. } => writeln!(out, "Role {role} is granted to user {user}")?,
        Reply::UserRevokeRole { user, role, .. } => writeln!(out, "Role {role} is revoked from user {user}")?,
        Reply::UserDelete(user, _) => writeln!(out, "User {user} deleted")?,
        // Every other reply has been printed by the callers.
        _ => {}
    }
    Ok(())
}

fn role_get(role: &str, answer: &AuthRoleGetResponse, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "Role {role}")?;
    if role == ROOT_ROLE && answer.perm.is_empty() {
        return writeln!(out, "KV Read:\n\t[, <open ended>\nKV Write:\n\t[, <open ended>");
    }
    writeln!(out, "KV Read:")?;
    permissions(&answer.perm, Type::Read, out)?;
    writeln!(out, "KV Write:")?;
    permissions(&answer.perm, Type::Write, out)
}

fn permissions(list: &[Permission], kind: Type, out: &mut dyn Write) -> io::Result<()> {
    let of_kind = |perm: &&Permission| perm.perm_type() == kind || perm.perm_type() == Type::Readwrite;
    list.iter()
        .filter(of_kind)
        .try_for_each(|perm| permission(perm, out))
}

fn permission(perm: &Permission, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(if perm.range_end.is_empty() { b"\t" } else { b"\t[" })?;
    out.write_all(&perm.key)?;
    if perm.range_end.is_empty() {
        return writeln!(out);
    }
    if perm.range_end == OPEN_END {
        out.write_all(b", <open ended>")?;
    } else {
        out.write_all(b", ")?;
        out.write_all(&perm.range_end)?;
        out.write_all(b")")?;
    }
    if !perm.key.is_empty() && prefix_end(&perm.key) == perm.range_end {
        out.write_all(b" (prefix ")?;
        out.write_all(&perm.key)?;
        out.write_all(b")")?;
    }
    writeln!(out)
}

fn role_revoke(role: &str, key: &str, end: &[u8], out: &mut dyn Write) -> io::Result<()> {
    if end.is_empty() {
        return writeln!(out, "Permission of key {key} is revoked from role {role}");
    }
    write!(out, "Permission of range [{key}, ")?;
    if end == OPEN_END {
        out.write_all(b"<open ended>")?;
    } else {
        out.write_all(end)?;
        out.write_all(b")")?;
    }
    writeln!(out, " is revoked from role {role}")
}
