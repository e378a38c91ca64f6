//! Answers in five formats. Every command hands over a [`Reply`]; a format that has no form for it says so.

mod fields;
mod json;
mod protobuf;
mod rows;
mod simple;
mod table;

use std::io::{self, Write};

use etcd_api::etcdserverpb::{
    AlarmResponse, AuthRoleAddResponse, AuthRoleDeleteResponse, AuthRoleGetResponse,
    AuthRoleGrantPermissionResponse, AuthRoleListResponse, AuthRoleRevokePermissionResponse,
    AuthStatusResponse, AuthUserAddResponse, AuthUserChangePasswordResponse, AuthUserDeleteResponse,
    AuthUserGetResponse, AuthUserGrantRoleResponse, AuthUserListResponse, AuthUserRevokeRoleResponse,
    DeleteRangeResponse, DowngradeResponse, HashKvResponse, LeaseGrantResponse, LeaseKeepAliveResponse,
    LeaseLeasesResponse, LeaseRevokeResponse, LeaseTimeToLiveResponse, MemberAddResponse, MemberListResponse,
    MemberPromoteResponse, MemberRemoveResponse, MemberUpdateResponse, MoveLeaderResponse, PutResponse,
    RangeResponse, StatusResponse, TxnResponse,
};

use crate::client::watch::WatchReply;
use crate::exit::{Exit, code};

/// What there is to print, with what the command knows beyond the server's answer.
pub enum Reply {
    Del(DeleteRangeResponse),
    Get(RangeResponse),
    Put(PutResponse),
    Txn(TxnResponse),
    Watch(WatchReply),
    Grant(LeaseGrantResponse),
    Revoke(i64, LeaseRevokeResponse),
    KeepAlive(LeaseKeepAliveResponse),
    /// Whether the keys were asked for.
    TimeToLive(LeaseTimeToLiveResponse, bool),
    Leases(LeaseLeasesResponse),
    MemberAdd(MemberAddResponse),
    MemberRemove(u64, MemberRemoveResponse),
    MemberUpdate(u64, MemberUpdateResponse),
    MemberPromote(u64, MemberPromoteResponse),
    MemberList(MemberListResponse),
    EndpointHealth(Vec<Health>),
    EndpointStatus(Vec<(String, StatusResponse)>),
    EndpointHashKv(Vec<(String, HashKvResponse)>),
    MoveLeader {
        leader: u64,
        target: u64,
        answer: MoveLeaderResponse,
    },
    /// `validate`, `enable` or `cancel`.
    Downgrade(&'static str, DowngradeResponse),
    Alarm(AlarmResponse),
    RoleAdd(String, AuthRoleAddResponse),
    RoleGet(String, AuthRoleGetResponse),
    RoleDelete(String, AuthRoleDeleteResponse),
    RoleList(AuthRoleListResponse),
    RoleGrantPermission(String, AuthRoleGrantPermissionResponse),
    RoleRevokePermission {
        role: String,
        key: String,
        end: Vec<u8>,
        answer: AuthRoleRevokePermissionResponse,
    },
    UserAdd(String, AuthUserAddResponse),
    UserGet(String, AuthUserGetResponse),
    UserList(AuthUserListResponse),
    UserChangePassword(AuthUserChangePasswordResponse),
    UserGrantRole {
        user: String,
        role: String,
        answer: AuthUserGrantRoleResponse,
    },
    UserRevokeRole {
        user: String,
        role: String,
        answer: AuthUserRevokeRoleResponse,
    },
    UserDelete(String, AuthUserDeleteResponse),
    AuthStatus(AuthStatusResponse),
}

/// One endpoint's health.
pub struct Health {
    pub endpoint: String,
    pub health: bool,
    pub took: String,
    /// Empty when healthy.
    pub error: String,
}

/// The format has no form for the reply.
#[derive(Debug)]
pub enum Unsupported {
    Format(&'static str),
    /// Upstream's protobuf printer meets a type that it cannot marshal.
    Marshal(String),
    Io(io::Error),
}

impl Unsupported {
    pub fn exit(self) -> Exit {
        match self {
            Unsupported::Format(name) => Exit::new(
                code::BAD_FEATURE,
                format!("{name} not supported as output format"),
            ),
            Unsupported::Marshal(what) => {
                Exit::new(code::BAD_FEATURE, format!("marshal unsupported for type {what}"))
            }
            Unsupported::Io(error) => error.into(),
        }
    }
}

impl From<io::Error> for Unsupported {
    fn from(error: io::Error) -> Self {
        Unsupported::Io(error)
    }
}

pub type Printed = Result<(), Unsupported>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Simple,
    Fields,
    Json,
    Protobuf,
    Table,
}

pub struct Printer {
    format: Format,
    hex: bool,
    /// Only the simple format prints values alone.
    pub value_only: bool,
}

impl Printer {
    pub fn simple() -> Self {
        Printer {
            format: Format::Simple,
            hex: false,
            value_only: false,
        }
    }

    pub fn named(name: &str, hex: bool) -> Option<Self> {
        let format = match name {
            "simple" => Format::Simple,
            "fields" => Format::Fields,
            "json" => Format::Json,
            "protobuf" => Format::Protobuf,
            "table" => Format::Table,
            _ => return None,
        };
        Some(Printer {
            format,
            hex,
            value_only: false,
        })
    }

    pub fn is_simple(&self) -> bool {
        self.format == Format::Simple
    }

    pub fn is_fields(&self) -> bool {
        self.format == Format::Fields
    }

    pub fn print(&self, reply: &Reply, out: &mut dyn Write) -> Printed {
        match self.format {
            Format::Simple => simple::Simple {
                hex: self.hex,
                value_only: self.value_only,
            }
            .print(reply, out),
            Format::Fields => fields::Fields { hex: self.hex }.print(reply, out),
            Format::Json => json::print(reply, self.hex, out),
            Format::Protobuf => protobuf::print(reply, out),
            Format::Table => table::print(reply, out),
        }
    }
}

#[cfg(test)]
mod tests;
