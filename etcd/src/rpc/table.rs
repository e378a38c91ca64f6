//! Every method of every service, and how its requests are read.

use std::sync::Arc;

use component_base::serve::BoxFuture;
use http::Request;

use super::concurrency::made_of_others;
use super::grpc::{Answer, Inbound, lasting, unary};
use super::{
    auth, cluster, downgrade, election, health, kv, lease, lock, maintenance, range_stream, snapshot, watch,
};
use crate::server::EtcdServer;

pub type Call = fn(Arc<EtcdServer>, Request<Inbound>) -> BoxFuture<'static, Answer>;

pub struct Method {
    /// Without the leading slash.
    pub path: &'static str,
    pub kind: &'static str,
    pub call: Call,
}

const UNARY: &str = "unary";
const SERVER_STREAM: &str = "server_stream";
pub const BIDI_STREAM: &str = "bidi_stream";

/// A row: the path, the kind, who reads the request, and what answers it. What is of many requests reads them itself.
macro_rules! methods {
    ($($path:literal $kind:ident $read:ident $service:ident::$name:ident;)*) => {
        &[$(Method { path: $path, kind: $kind, call: call!($read $service::$name) }),*]
    };
}

macro_rules! call {
    (itself $service:ident::$name:ident) => {
        $service::$name
    };
    (unary_of_others $service:ident::$name:ident) => {
        |server, request| {
            unary(server, request, |caller, request| {
                made_of_others($service::$name(caller, request))
            })
        }
    };
    (lasting_of_others $service:ident::$name:ident) => {
        |server, request| {
            lasting(server, request, |caller, request| {
                made_of_others($service::$name(caller, request))
            })
        }
    };
    ($read:ident $service:ident::$name:ident) => {
        |server, request| $read(server, request, $service::$name)
    };
}

/// The hot ones first.
pub static METHODS: &[Method] = methods! {
    "etcdserverpb.KV/Txn" UNARY unary kv::txn;
    "etcdserverpb.KV/Range" UNARY unary kv::range;
    "etcdserverpb.KV/Put" UNARY unary kv::put;
    "etcdserverpb.KV/DeleteRange" UNARY unary kv::delete_range;
    "etcdserverpb.KV/RangeStream" SERVER_STREAM unary range_stream::range_stream;
    "etcdserverpb.KV/Compact" UNARY unary kv::compact;
    "etcdserverpb.Watch/Watch" BIDI_STREAM itself watch::watch;
    "etcdserverpb.Lease/LeaseGrant" UNARY unary lease::grant;
    "etcdserverpb.Lease/LeaseRevoke" UNARY unary lease::revoke;
    "etcdserverpb.Lease/LeaseKeepAlive" BIDI_STREAM itself lease::keep_alive;
    "etcdserverpb.Lease/LeaseTimeToLive" UNARY unary lease::time_to_live;
    "etcdserverpb.Lease/LeaseLeases" UNARY unary lease::leases;
    "etcdserverpb.Cluster/MemberAdd" UNARY unary cluster::add;
    "etcdserverpb.Cluster/MemberRemove" UNARY unary cluster::remove;
    "etcdserverpb.Cluster/MemberUpdate" UNARY unary cluster::update;
    "etcdserverpb.Cluster/MemberList" UNARY unary cluster::list;
    "etcdserverpb.Cluster/MemberPromote" UNARY unary cluster::promote;
    "etcdserverpb.Maintenance/Alarm" UNARY unary maintenance::alarm;
    "etcdserverpb.Maintenance/Status" UNARY unary maintenance::status;
    "etcdserverpb.Maintenance/Defragment" UNARY unary maintenance::defragment;
    "etcdserverpb.Maintenance/Hash" UNARY unary maintenance::hash;
    "etcdserverpb.Maintenance/HashKV" UNARY unary maintenance::hash_kv;
    "etcdserverpb.Maintenance/Snapshot" SERVER_STREAM unary snapshot::snapshot;
    "etcdserverpb.Maintenance/MoveLeader" UNARY unary maintenance::move_leader;
    "etcdserverpb.Maintenance/Downgrade" UNARY unary downgrade::downgrade;
    "etcdserverpb.Auth/AuthEnable" UNARY unary auth::enable;
    "etcdserverpb.Auth/AuthDisable" UNARY unary auth::disable;
    "etcdserverpb.Auth/AuthStatus" UNARY unary auth::status;
    "etcdserverpb.Auth/Authenticate" UNARY unary auth::authenticate;
    "etcdserverpb.Auth/UserAdd" UNARY unary auth::user_add;
    "etcdserverpb.Auth/UserGet" UNARY unary auth::user_get;
    "etcdserverpb.Auth/UserList" UNARY unary auth::user_list;
    "etcdserverpb.Auth/UserDelete" UNARY unary auth::user_delete;
    "etcdserverpb.Auth/UserChangePassword" UNARY unary auth::user_change_password;
    "etcdserverpb.Auth/UserGrantRole" UNARY unary auth::user_grant_role;
    "etcdserverpb.Auth/UserRevokeRole" UNARY unary auth::user_revoke_role;
    "etcdserverpb.Auth/RoleAdd" UNARY unary auth::role_add;
    "etcdserverpb.Auth/RoleGet" UNARY unary auth::role_get;
    "etcdserverpb.Auth/RoleList" UNARY unary auth::role_list;
    "etcdserverpb.Auth/RoleDelete" UNARY unary auth::role_delete;
    "etcdserverpb.Auth/RoleGrantPermission" UNARY unary auth::role_grant_permission;
    "etcdserverpb.Auth/RoleRevokePermission" UNARY unary auth::role_revoke_permission;
    "v3lockpb.Lock/Lock" UNARY lasting_of_others lock::lock;
    "v3lockpb.Lock/Unlock" UNARY unary_of_others lock::unlock;
    "v3electionpb.Election/Campaign" UNARY lasting_of_others election::campaign;
    "v3electionpb.Election/Proclaim" UNARY unary_of_others election::proclaim;
    "v3electionpb.Election/Leader" UNARY unary_of_others election::leader;
    "v3electionpb.Election/Observe" SERVER_STREAM lasting_of_others election::observe;
    "v3electionpb.Election/Resign" UNARY unary_of_others election::resign;
    "grpc.health.v1.Health/Check" UNARY unary health::check;
    "grpc.health.v1.Health/Watch" SERVER_STREAM unary health::watch;
};

impl Method {
    /// Its service, and its name there.
    pub fn names(&self) -> (&'static str, &'static str) {
        self.path.split_once('/').unwrap_or((self.path, ""))
    }

    pub fn is_stream(&self) -> bool {
        self.kind != UNARY
    }

    /// Whether its client may send more than one message.
    pub fn reads_stream(&self) -> bool {
        self.kind == BIDI_STREAM
    }
}
