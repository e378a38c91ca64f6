//! The `google.api.http` annotations of etcd's protos.

use super::descriptor::Message;
use super::messages::*;

pub struct Route {
    pub path: &'static str,
    /// The method's path in gRPC.
    pub method: &'static str,
    pub input: &'static Message,
    pub output: &'static Message,
    pub client_streams: bool,
    pub server_streams: bool,
}

const fn unary(
    path: &'static str,
    method: &'static str,
    input: &'static Message,
    output: &'static Message,
) -> Route {
    Route {
        path,
        method,
        input,
        output,
        client_streams: false,
        server_streams: false,
    }
}

const fn server_stream(
    path: &'static str,
    method: &'static str,
    input: &'static Message,
    output: &'static Message,
) -> Route {
    Route {
        server_streams: true,
        ..unary(path, method, input, output)
    }
}

const fn bidi_stream(
    path: &'static str,
    method: &'static str,
    input: &'static Message,
    output: &'static Message,
) -> Route {
    Route {
        client_streams: true,
        ..server_stream(path, method, input, output)
    }
}

static ROUTES: &[Route] = &[
    unary(
        "/v3/kv/range",
        "/etcdserverpb.KV/Range",
        &RANGE_REQUEST,
        &RANGE_RESPONSE,
    ),
    unary("/v3/kv/put", "/etcdserverpb.KV/Put", &PUT_REQUEST, &PUT_RESPONSE),
    unary(
        "/v3/kv/deleterange",
        "/etcdserverpb.KV/DeleteRange",
        &DELETE_RANGE_REQUEST,
        &DELETE_RANGE_RESPONSE,
    ),
    unary("/v3/kv/txn", "/etcdserverpb.KV/Txn", &TXN_REQUEST, &TXN_RESPONSE),
    unary(
        "/v3/kv/compaction",
        "/etcdserverpb.KV/Compact",
        &COMPACTION_REQUEST,
        &COMPACTION_RESPONSE,
    ),
    bidi_stream(
        "/v3/watch",
        "/etcdserverpb.Watch/Watch",
        &WATCH_REQUEST,
        &WATCH_RESPONSE,
    ),
    unary(
        "/v3/lease/grant",
        "/etcdserverpb.Lease/LeaseGrant",
        &LEASE_GRANT_REQUEST,
        &LEASE_GRANT_RESPONSE,
    ),
    unary(
        "/v3/lease/revoke",
        "/etcdserverpb.Lease/LeaseRevoke",
        &LEASE_REVOKE_REQUEST,
        &LEASE_REVOKE_RESPONSE,
    ),
    unary(
        "/v3/kv/lease/revoke",
        "/etcdserverpb.Lease/LeaseRevoke",
        &LEASE_REVOKE_REQUEST,
        &LEASE_REVOKE_RESPONSE,
    ),
    bidi_stream(
        "/v3/lease/keepalive",
        "/etcdserverpb.Lease/LeaseKeepAlive",
        &LEASE_KEEP_ALIVE_REQUEST,
        &LEASE_KEEP_ALIVE_RESPONSE,
    ),
    unary(
        "/v3/lease/timetolive",
        "/etcdserverpb.Lease/LeaseTimeToLive",
        &LEASE_TIME_TO_LIVE_REQUEST,
        &LEASE_TIME_TO_LIVE_RESPONSE,
    ),
    unary(
        "/v3/kv/lease/timetolive",
        "/etcdserverpb.Lease/LeaseTimeToLive",
        &LEASE_TIME_TO_LIVE_REQUEST,
        &LEASE_TIME_TO_LIVE_RESPONSE,
    ),
    unary(
        "/v3/lease/leases",
        "/etcdserverpb.Lease/LeaseLeases",
        &LEASE_LEASES_REQUEST,
        &LEASE_LEASES_RESPONSE,
    ),
    unary(
        "/v3/kv/lease/leases",
        "/etcdserverpb.Lease/LeaseLeases",
        &LEASE_LEASES_REQUEST,
        &LEASE_LEASES_RESPONSE,
    ),
    unary(
        "/v3/cluster/member/add",
        "/etcdserverpb.Cluster/MemberAdd",
        &MEMBER_ADD_REQUEST,
        &MEMBER_ADD_RESPONSE,
    ),
    unary(
        "/v3/cluster/member/remove",
        "/etcdserverpb.Cluster/MemberRemove",
        &MEMBER_REMOVE_REQUEST,
        &MEMBER_REMOVE_RESPONSE,
    ),
    unary(
        "/v3/cluster/member/update",
        "/etcdserverpb.Cluster/MemberUpdate",
        &MEMBER_UPDATE_REQUEST,
        &MEMBER_UPDATE_RESPONSE,
    ),
    unary(
        "/v3/cluster/member/list",
        "/etcdserverpb.Cluster/MemberList",
        &MEMBER_LIST_REQUEST,
        &MEMBER_LIST_RESPONSE,
    ),
    unary(
        "/v3/cluster/member/promote",
        "/etcdserverpb.Cluster/MemberPromote",
        &MEMBER_PROMOTE_REQUEST,
        &MEMBER_PROMOTE_RESPONSE,
    ),
    unary(
        "/v3/maintenance/alarm",
        "/etcdserverpb.Maintenance/Alarm",
        &ALARM_REQUEST,
        &ALARM_RESPONSE,
    ),
    unary(
        "/v3/maintenance/status",
        "/etcdserverpb.Maintenance/Status",
        &STATUS_REQUEST,
        &STATUS_RESPONSE,
    ),
    unary(
        "/v3/maintenance/defragment",
        "/etcdserverpb.Maintenance/Defragment",
        &DEFRAGMENT_REQUEST,
        &DEFRAGMENT_RESPONSE,
    ),
    unary(
        "/v3/maintenance/hash",
        "/etcdserverpb.Maintenance/Hash",
        &HASH_REQUEST,
        &HASH_RESPONSE,
    ),
    unary(
        "/v3/maintenance/hashkv",
        "/etcdserverpb.Maintenance/HashKV",
        &HASH_KV_REQUEST,
        &HASH_KV_RESPONSE,
    ),
    server_stream(
        "/v3/maintenance/snapshot",
        "/etcdserverpb.Maintenance/Snapshot",
        &SNAPSHOT_REQUEST,
        &SNAPSHOT_RESPONSE,
    ),
    unary(
        "/v3/maintenance/transfer-leadership",
        "/etcdserverpb.Maintenance/MoveLeader",
        &MOVE_LEADER_REQUEST,
        &MOVE_LEADER_RESPONSE,
    ),
    unary(
        "/v3/maintenance/downgrade",
        "/etcdserverpb.Maintenance/Downgrade",
        &DOWNGRADE_REQUEST,
        &DOWNGRADE_RESPONSE,
    ),
    unary(
        "/v3/auth/enable",
        "/etcdserverpb.Auth/AuthEnable",
        &AUTH_ENABLE_REQUEST,
        &AUTH_ENABLE_RESPONSE,
    ),
    unary(
        "/v3/auth/disable",
        "/etcdserverpb.Auth/AuthDisable",
        &AUTH_DISABLE_REQUEST,
        &AUTH_DISABLE_RESPONSE,
    ),
    unary(
        "/v3/auth/status",
        "/etcdserverpb.Auth/AuthStatus",
        &AUTH_STATUS_REQUEST,
        &AUTH_STATUS_RESPONSE,
    ),
    unary(
        "/v3/auth/authenticate",
        "/etcdserverpb.Auth/Authenticate",
        &AUTHENTICATE_REQUEST,
        &AUTHENTICATE_RESPONSE,
    ),
    unary(
        "/v3/auth/user/add",
        "/etcdserverpb.Auth/UserAdd",
        &AUTH_USER_ADD_REQUEST,
        &AUTH_USER_ADD_RESPONSE,
    ),
    unary(
        "/v3/auth/user/get",
        "/etcdserverpb.Auth/UserGet",
        &AUTH_USER_GET_REQUEST,
        &AUTH_USER_GET_RESPONSE,
    ),
    unary(
        "/v3/auth/user/list",
        "/etcdserverpb.Auth/UserList",
        &AUTH_USER_LIST_REQUEST,
        &AUTH_USER_LIST_RESPONSE,
    ),
    unary(
        "/v3/auth/user/delete",
        "/etcdserverpb.Auth/UserDelete",
        &AUTH_USER_DELETE_REQUEST,
        &AUTH_USER_DELETE_RESPONSE,
    ),
    unary(
        "/v3/auth/user/changepw",
        "/etcdserverpb.Auth/UserChangePassword",
        &AUTH_USER_CHANGE_PASSWORD_REQUEST,
        &AUTH_USER_CHANGE_PASSWORD_RESPONSE,
    ),
    unary(
        "/v3/auth/user/grant",
        "/etcdserverpb.Auth/UserGrantRole",
        &AUTH_USER_GRANT_ROLE_REQUEST,
        &AUTH_USER_GRANT_ROLE_RESPONSE,
    ),
    unary(
        "/v3/auth/user/revoke",
        "/etcdserverpb.Auth/UserRevokeRole",
        &AUTH_USER_REVOKE_ROLE_REQUEST,
        &AUTH_USER_REVOKE_ROLE_RESPONSE,
    ),
    unary(
        "/v3/auth/role/add",
        "/etcdserverpb.Auth/RoleAdd",
        &AUTH_ROLE_ADD_REQUEST,
        &AUTH_ROLE_ADD_RESPONSE,
    ),
    unary(
        "/v3/auth/role/get",
        "/etcdserverpb.Auth/RoleGet",
        &AUTH_ROLE_GET_REQUEST,
        &AUTH_ROLE_GET_RESPONSE,
    ),
    unary(
        "/v3/auth/role/list",
        "/etcdserverpb.Auth/RoleList",
        &AUTH_ROLE_LIST_REQUEST,
        &AUTH_ROLE_LIST_RESPONSE,
    ),
    unary(
        "/v3/auth/role/delete",
        "/etcdserverpb.Auth/RoleDelete",
        &AUTH_ROLE_DELETE_REQUEST,
        &AUTH_ROLE_DELETE_RESPONSE,
    ),
    unary(
        "/v3/auth/role/grant",
        "/etcdserverpb.Auth/RoleGrantPermission",
        &AUTH_ROLE_GRANT_PERMISSION_REQUEST,
        &AUTH_ROLE_GRANT_PERMISSION_RESPONSE,
    ),
    unary(
        "/v3/auth/role/revoke",
        "/etcdserverpb.Auth/RoleRevokePermission",
        &AUTH_ROLE_REVOKE_PERMISSION_REQUEST,
        &AUTH_ROLE_REVOKE_PERMISSION_RESPONSE,
    ),
    unary(
        "/v3/lock/lock",
        "/v3lockpb.Lock/Lock",
        &LOCK_REQUEST,
        &LOCK_RESPONSE,
    ),
    unary(
        "/v3/lock/unlock",
        "/v3lockpb.Lock/Unlock",
        &UNLOCK_REQUEST,
        &UNLOCK_RESPONSE,
    ),
    unary(
        "/v3/election/campaign",
        "/v3electionpb.Election/Campaign",
        &ELECTION_CAMPAIGN_REQUEST,
        &ELECTION_CAMPAIGN_RESPONSE,
    ),
    unary(
        "/v3/election/proclaim",
        "/v3electionpb.Election/Proclaim",
        &ELECTION_PROCLAIM_REQUEST,
        &ELECTION_PROCLAIM_RESPONSE,
    ),
    unary(
        "/v3/election/leader",
        "/v3electionpb.Election/Leader",
        &ELECTION_LEADER_REQUEST,
        &ELECTION_LEADER_RESPONSE,
    ),
    server_stream(
        "/v3/election/observe",
        "/v3electionpb.Election/Observe",
        &ELECTION_LEADER_REQUEST,
        &ELECTION_LEADER_RESPONSE,
    ),
    unary(
        "/v3/election/resign",
        "/v3electionpb.Election/Resign",
        &ELECTION_RESIGN_REQUEST,
        &ELECTION_RESIGN_RESPONSE,
    ),
];

/// All are POST with the message as the body.
pub fn find(path: &str) -> Option<&'static Route> {
    let name = path
        .strip_prefix(super::PREFIX)
        .or_else(|| path.strip_prefix(super::LEGACY_PREFIX))?;
    ROUTES
        .iter()
        .find(|route| route.path[super::PREFIX.len()..] == *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_is_found_under_both_prefixes() {
        for route in ROUTES {
            let old = route.path.replacen("/v3/", "/v3beta/", 1);
            for path in [route.path, &old] {
                assert!(std::ptr::eq(find(path).unwrap(), route), "{path}");
            }
        }
        assert!(find("/v3/kv/nothing").is_none());
    }

    #[test]
    fn methods_begin_with_a_slash_as_paths_do() {
        for route in ROUTES {
            assert!(route.method.parse::<http::Uri>().is_ok() && route.method.starts_with('/'));
        }
    }
}
