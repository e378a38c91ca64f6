//! `-w fields`: one field on each line.

use std::io::{self, Write};

use etcd_api::authpb::permission::Type;
use etcd_api::etcdserverpb::response_op::Response;
use etcd_api::etcdserverpb::{
    DeleteRangeResponse, MemberListResponse, PutResponse, RangeResponse, ResponseHeader, StatusResponse,
    TxnResponse,
};
use etcd_api::mvccpb::KeyValue;

use super::simple::{alarm_type, event_type};
use super::{Health, Printed, Reply, Unsupported};
use crate::client::watch::WatchReply;
use crate::go::quote::quote;

pub struct Fields {
    pub hex: bool,
}

type Header = Option<ResponseHeader>;

impl Fields {
    pub fn print(&self, reply: &Reply, out: &mut dyn Write) -> Printed {
        match reply {
            Reply::Del(answer) => self.del(answer, out)?,
            Reply::Get(answer) => self.get(answer, out)?,
            Reply::Put(answer) => self.put(answer, out)?,
            Reply::Txn(answer) => self.txn(answer, out)?,
            Reply::Watch(reply) => self.watch(reply, out)?,
            Reply::Grant(answer) => self.lease(&answer.header, answer.id, answer.ttl, out)?,
            Reply::Revoke(_, answer) => self.header(&answer.header, out)?,
            Reply::KeepAlive(answer) => self.lease(&answer.header, answer.id, answer.ttl, out)?,
            Reply::TimeToLive(answer, _) => {
                self.lease(&answer.header, answer.id, answer.ttl, out)?;
                writeln!(out, "\"GrantedTTL\" : {}", answer.granted_ttl)?;
                answer
                    .keys
                    .iter()
                    .try_for_each(|key| writeln!(out, "\"Key\" : {}", quote(key)))?;
            }
            Reply::Leases(answer) => {
                self.header(&answer.header, out)?;
                answer
                    .leases
                    .iter()
                    .try_for_each(|lease| self.lease_id(lease.id, out))?;
            }
            Reply::MemberList(answer) => self.members(answer, out)?,
            Reply::EndpointHealth(list) => health(list, out)?,
            Reply::EndpointStatus(list) => {
                list.iter()
                    .try_for_each(|(endpoint, status)| self.status(endpoint, status, out))?;
            }
            Reply::EndpointHashKv(list) => {
                for (endpoint, answer) in list {
                    self.header(&answer.header, out)?;
                    writeln!(out, "\"Endpoint\" : {}", quote(endpoint.as_bytes()))?;
                    writeln!(
                        out,
                        "\"Hash\" : {}\n\"HashRevision\" : {}\n",
                        answer.hash, answer.hash_revision
                    )?;
                }
            }
            Reply::Alarm(answer) => {
                self.header(&answer.header, out)?;
                for alarm in &answer.alarms {
                    self.id("MemberID", alarm.member_id, out)?;
                    writeln!(out, "\"AlarmType\" : {}\n", alarm_type(alarm.alarm()))?;
                }
            }
            auth => return self.auth(auth, out),
        }
        Ok(())
    }

    /// Most of these say nothing but their header; some have no form at all.
    fn auth(&self, reply: &Reply, out: &mut dyn Write) -> Printed {
        match reply {
            Reply::RoleAdd(_, answer) => self.header(&answer.header, out)?,
            Reply::RoleGet(_, answer) => {
                self.header(&answer.header, out)?;
                for perm in &answer.perm {
                    // Two blanks: upstream prints a text that ends with one.
                    writeln!(out, "\"PermType\" :  {}", permission_type(perm.perm_type()))?;
                    writeln!(
                        out,
                        "\"Key\" : {}\n\"RangeEnd\" : {}",
                        quote(&perm.key),
                        quote(&perm.range_end)
                    )?;
                }
            }
            Reply::RoleDelete(_, answer) => self.header(&answer.header, out)?,
            Reply::RoleList(answer) => {
                self.header(&answer.header, out)?;
                out.write_all(b"\"Roles\" :")?;
                answer
                    .roles
                    .iter()
                    .try_for_each(|role| write!(out, " {}", quote(role.as_bytes())))?;
                writeln!(out)?;
            }
            Reply::RoleGrantPermission(_, answer) => self.header(&answer.header, out)?,
            Reply::RoleRevokePermission { answer, .. } => self.header(&answer.header, out)?,
            Reply::UserAdd(_, answer) => self.header(&answer.header, out)?,
            Reply::UserChangePassword(answer) => self.header(&answer.header, out)?,
            Reply::UserGrantRole { answer, .. } => self.header(&answer.header, out)?,
            Reply::UserRevokeRole { answer, .. } => self.header(&answer.header, out)?,
            Reply::UserDelete(_, answer) => self.header(&answer.header, out)?,
            _ => return Err(Unsupported::Format("fields")),
        }
        Ok(())
    }

    fn header(&self, header: &Header, out: &mut dyn Write) -> io::Result<()> {
        let header = header.unwrap_or_default();
        self.id("ClusterID", header.cluster_id, out)?;
        self.id("MemberID", header.member_id, out)?;
        if header.revision > 0 {
            writeln!(out, "\"Revision\" : {}", header.revision)?;
        }
        writeln!(out, "\"RaftTerm\" : {}", header.raft_term)
    }

    fn id(&self, name: &str, id: u64, out: &mut dyn Write) -> io::Result<()> {
        if self.hex {
            writeln!(out, "\"{name}\" : {id:x}")
        } else {
            writeln!(out, "\"{name}\" : {id}")
        }
    }

    fn lease_id(&self, id: i64, out: &mut dyn Write) -> io::Result<()> {
        if self.hex {
            writeln!(out, "\"ID\" : {id:016x}")
        } else {
            writeln!(out, "\"ID\" : {id}")
        }
    }

    fn lease(&self, header: &Header, id: i64, ttl: i64, out: &mut dyn Write) -> io::Result<()> {
        self.header(header, out)?;
        self.lease_id(id, out)?;
        writeln!(out, "\"TTL\" : {ttl}")
    }

    fn kv(&self, prefix: &str, kv: &KeyValue, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "\"{prefix}Key\" : {}", quote(&kv.key))?;
        writeln!(out, "\"{prefix}CreateRevision\" : {}", kv.create_revision)?;
        writeln!(out, "\"{prefix}ModRevision\" : {}", kv.mod_revision)?;
        writeln!(out, "\"{prefix}Version\" : {}", kv.version)?;
        writeln!(out, "\"{prefix}Value\" : {}", quote(&kv.value))?;
        if self.hex {
            writeln!(out, "\"{prefix}Lease\" : {:016x}", kv.lease)
        } else {
            writeln!(out, "\"{prefix}Lease\" : {}", kv.lease)
        }
    }

    fn del(&self, answer: &DeleteRangeResponse, out: &mut dyn Write) -> io::Result<()> {
        self.header(&answer.header, out)?;
        writeln!(out, "\"Deleted\" : {}", answer.deleted)?;
        answer.prev_kvs.iter().try_for_each(|kv| self.kv("Prev", kv, out))
    }

    fn get(&self, answer: &RangeResponse, out: &mut dyn Write) -> io::Result<()> {
        self.header(&answer.header, out)?;
        answer.kvs.iter().try_for_each(|kv| self.kv("", kv, out))?;
        writeln!(out, "\"More\" : {}\n\"Count\" : {}", answer.more, answer.count)
    }

    fn put(&self, answer: &PutResponse, out: &mut dyn Write) -> io::Result<()> {
        self.header(&answer.header, out)?;
        answer.prev_kv.iter().try_for_each(|kv| self.kv("Prev", kv, out))
    }

    fn txn(&self, answer: &TxnResponse, out: &mut dyn Write) -> io::Result<()> {
        self.header(&answer.header, out)?;
        writeln!(out, "\"Succeeded\" : {}", answer.succeeded)?;
        for op in &answer.responses {
            match &op.response {
                Some(Response::ResponseDeleteRange(answer)) => self.del(answer, out)?,
                Some(Response::ResponsePut(answer)) => self.put(answer, out)?,
                Some(Response::ResponseRange(answer)) => self.get(answer, out)?,
                other => writeln!(out, "\"Unknown\" : {}", quote(format!("{other:?}").as_bytes()))?,
            }
        }
        Ok(())
    }

    fn watch(&self, reply: &WatchReply, out: &mut dyn Write) -> io::Result<()> {
        self.header(&Some(reply.header), out)?;
        for event in &reply.events {
            writeln!(out, "\"Type\" : {}", event_type(event.r#type()))?;
            event.prev_kv.iter().try_for_each(|kv| self.kv("Prev", kv, out))?;
            event.kv.iter().try_for_each(|kv| self.kv("", kv, out))?;
        }
        Ok(())
    }

    fn members(&self, answer: &MemberListResponse, out: &mut dyn Write) -> io::Result<()> {
        self.header(&answer.header, out)?;
        for member in &answer.members {
            self.id("ID", member.id, out)?;
            writeln!(out, "\"Name\" : {}", quote(member.name.as_bytes()))?;
            for url in &member.peer_ur_ls {
                writeln!(out, "\"PeerURL\" : {}", quote(url.as_bytes()))?;
            }
            for url in &member.client_ur_ls {
                writeln!(out, "\"ClientURL\" : {}", quote(url.as_bytes()))?;
            }
            writeln!(out, "\"IsLearner\" : {}\n", member.is_learner)?;
        }
        Ok(())
    }

    fn status(&self, endpoint: &str, status: &StatusResponse, out: &mut dyn Write) -> io::Result<()> {
        self.header(&status.header, out)?;
        let text = |text: &str| quote(text.as_bytes());
        writeln!(out, "\"Version\" : {}", text(&status.version))?;
        writeln!(out, "\"StorageVersion\" : {}", text(&status.storage_version))?;
        writeln!(out, "\"DBSize\" : {}", status.db_size)?;
        writeln!(out, "\"DBSizeInUse\" : {}", status.db_size_in_use)?;
        writeln!(out, "\"DBSizeQuota\" : {}", status.db_size_quota)?;
        writeln!(out, "\"Leader\" : {}", status.leader)?;
        writeln!(out, "\"IsLearner\" : {}", status.is_learner)?;
        writeln!(out, "\"RaftIndex\" : {}", status.raft_index)?;
        writeln!(out, "\"RaftTerm\" : {}", status.raft_term)?;
        writeln!(out, "\"RaftAppliedIndex\" : {}", status.raft_applied_index)?;
        writeln!(out, "\"Errors\" : [{}]", status.errors.join(" "))?;
        writeln!(out, "\"Endpoint\" : {}", text(endpoint))?;
        let downgrade = status.downgrade_info.clone().unwrap_or_default();
        writeln!(
            out,
            "\"DowngradeTargetVersion\" : {}",
            text(&downgrade.target_version)
        )?;
        writeln!(out, "\"DowngradeEnabled\" : {}\n", downgrade.enabled)
    }
}

fn health(list: &[Health], out: &mut dyn Write) -> io::Result<()> {
    for health in list {
        writeln!(out, "\"Endpoint\" : {}", quote(health.endpoint.as_bytes()))?;
        writeln!(
            out,
            "\"Health\" : {}\n\"Took\" : {}\n\"Error\" : {}\n",
            health.health, health.took, health.error
        )?;
    }
    Ok(())
}

pub fn permission_type(kind: Type) -> &'static str {
    match kind {
        Type::Read => "READ",
        Type::Write => "WRITE",
        Type::Readwrite => "READWRITE",
    }
}
