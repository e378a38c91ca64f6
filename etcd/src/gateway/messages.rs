//! The messages of etcd's protos as rows: field numbers, names as they are declared, kinds; in the order of their declaration, which is the order of
//! the fields in JSON. Every field has proto3's presence but those of a oneof.

use super::descriptor::{Enum, Kind::*, Message, either, enumeration, many, message, one};

static EVENT_EVENT_TYPE: Enum = enumeration(&[("PUT", 0), ("DELETE", 1)]);

static PERMISSION_TYPE: Enum = enumeration(&[("READ", 0), ("WRITE", 1), ("READWRITE", 2)]);

static RANGE_REQUEST_SORT_ORDER: Enum = enumeration(&[("NONE", 0), ("ASCEND", 1), ("DESCEND", 2)]);

static RANGE_REQUEST_SORT_TARGET: Enum = enumeration(&[
    ("KEY", 0),
    ("VERSION", 1),
    ("CREATE", 2),
    ("MOD", 3),
    ("VALUE", 4),
]);

static COMPARE_COMPARE_RESULT: Enum =
    enumeration(&[("EQUAL", 0), ("GREATER", 1), ("LESS", 2), ("NOT_EQUAL", 3)]);

static COMPARE_COMPARE_TARGET: Enum = enumeration(&[
    ("VERSION", 0),
    ("CREATE", 1),
    ("MOD", 2),
    ("VALUE", 3),
    ("LEASE", 4),
]);

static WATCH_CREATE_REQUEST_FILTER_TYPE: Enum = enumeration(&[("NOPUT", 0), ("NODELETE", 1)]);

static ALARM_TYPE: Enum = enumeration(&[("NONE", 0), ("NOSPACE", 1), ("CORRUPT", 2)]);

static ALARM_REQUEST_ALARM_ACTION: Enum = enumeration(&[("GET", 0), ("ACTIVATE", 1), ("DEACTIVATE", 2)]);

static DOWNGRADE_REQUEST_DOWNGRADE_ACTION: Enum =
    enumeration(&[("VALIDATE", 0), ("ENABLE", 1), ("CANCEL", 2)]);

pub static KEY_VALUE: Message = message(
    "mvccpb.KeyValue",
    &[
        one(1, "key", Bytes),
        one(2, "create_revision", Int64),
        one(3, "mod_revision", Int64),
        one(4, "version", Int64),
        one(5, "value", Bytes),
        one(6, "lease", Int64),
    ],
);

pub static EVENT: Message = message(
    "mvccpb.Event",
    &[
        one(1, "type", Choice(&EVENT_EVENT_TYPE)),
        one(2, "kv", Nested(&KEY_VALUE)),
        one(3, "prev_kv", Nested(&KEY_VALUE)),
    ],
);

pub static USER_ADD_OPTIONS: Message = message("authpb.UserAddOptions", &[one(1, "no_password", Bool)]);

pub static PERMISSION: Message = message(
    "authpb.Permission",
    &[
        one(1, "permType", Choice(&PERMISSION_TYPE)),
        one(2, "key", Bytes),
        one(3, "range_end", Bytes),
    ],
);

pub static RESPONSE_HEADER: Message = message(
    "etcdserverpb.ResponseHeader",
    &[
        one(1, "cluster_id", Uint64),
        one(2, "member_id", Uint64),
        one(3, "revision", Int64),
        one(4, "raft_term", Uint64),
    ],
);

pub static RANGE_REQUEST: Message = message(
    "etcdserverpb.RangeRequest",
    &[
        one(1, "key", Bytes),
        one(2, "range_end", Bytes),
        one(3, "limit", Int64),
        one(4, "revision", Int64),
        one(5, "sort_order", Choice(&RANGE_REQUEST_SORT_ORDER)),
        one(6, "sort_target", Choice(&RANGE_REQUEST_SORT_TARGET)),
        one(7, "serializable", Bool),
        one(8, "keys_only", Bool),
        one(9, "count_only", Bool),
        one(10, "min_mod_revision", Int64),
        one(11, "max_mod_revision", Int64),
        one(12, "min_create_revision", Int64),
        one(13, "max_create_revision", Int64),
    ],
);

pub static RANGE_RESPONSE: Message = message(
    "etcdserverpb.RangeResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        many(2, "kvs", Nested(&KEY_VALUE)),
        one(3, "more", Bool),
        one(4, "count", Int64),
    ],
);

pub static PUT_REQUEST: Message = message(
    "etcdserverpb.PutRequest",
    &[
        one(1, "key", Bytes),
        one(2, "value", Bytes),
        one(3, "lease", Int64),
        one(4, "prev_kv", Bool),
        one(5, "ignore_value", Bool),
        one(6, "ignore_lease", Bool),
    ],
);

pub static PUT_RESPONSE: Message = message(
    "etcdserverpb.PutResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        one(2, "prev_kv", Nested(&KEY_VALUE)),
    ],
);

pub static DELETE_RANGE_REQUEST: Message = message(
    "etcdserverpb.DeleteRangeRequest",
    &[
        one(1, "key", Bytes),
        one(2, "range_end", Bytes),
        one(3, "prev_kv", Bool),
    ],
);

pub static DELETE_RANGE_RESPONSE: Message = message(
    "etcdserverpb.DeleteRangeResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        one(2, "deleted", Int64),
        many(3, "prev_kvs", Nested(&KEY_VALUE)),
    ],
);

pub static REQUEST_OP: Message = message(
    "etcdserverpb.RequestOp",
    &[
        either(1, "request_range", Nested(&RANGE_REQUEST)),
        either(2, "request_put", Nested(&PUT_REQUEST)),
        either(3, "request_delete_range", Nested(&DELETE_RANGE_REQUEST)),
        either(4, "request_txn", Nested(&TXN_REQUEST)),
    ],
);

pub static RESPONSE_OP: Message = message(
    "etcdserverpb.ResponseOp",
    &[
        either(1, "response_range", Nested(&RANGE_RESPONSE)),
        either(2, "response_put", Nested(&PUT_RESPONSE)),
        either(3, "response_delete_range", Nested(&DELETE_RANGE_RESPONSE)),
        either(4, "response_txn", Nested(&TXN_RESPONSE)),
    ],
);

pub static COMPARE: Message = message(
    "etcdserverpb.Compare",
    &[
        one(1, "result", Choice(&COMPARE_COMPARE_RESULT)),
        one(2, "target", Choice(&COMPARE_COMPARE_TARGET)),
        one(3, "key", Bytes),
        either(4, "version", Int64),
        either(5, "create_revision", Int64),
        either(6, "mod_revision", Int64),
        either(7, "value", Bytes),
        either(8, "lease", Int64),
        one(64, "range_end", Bytes),
    ],
);

pub static TXN_REQUEST: Message = message(
    "etcdserverpb.TxnRequest",
    &[
        many(1, "compare", Nested(&COMPARE)),
        many(2, "success", Nested(&REQUEST_OP)),
        many(3, "failure", Nested(&REQUEST_OP)),
    ],
);

pub static TXN_RESPONSE: Message = message(
    "etcdserverpb.TxnResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        one(2, "succeeded", Bool),
        many(3, "responses", Nested(&RESPONSE_OP)),
    ],
);

pub static COMPACTION_REQUEST: Message = message(
    "etcdserverpb.CompactionRequest",
    &[one(1, "revision", Int64), one(2, "physical", Bool)],
);

pub static COMPACTION_RESPONSE: Message = message(
    "etcdserverpb.CompactionResponse",
    &[one(1, "header", Nested(&RESPONSE_HEADER))],
);

pub static HASH_REQUEST: Message = message("etcdserverpb.HashRequest", &[]);

pub static HASH_KV_REQUEST: Message = message("etcdserverpb.HashKVRequest", &[one(1, "revision", Int64)]);

pub static HASH_KV_RESPONSE: Message = message(
    "etcdserverpb.HashKVResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        one(2, "hash", Uint32),
        one(3, "compact_revision", Int64),
        one(4, "hash_revision", Int64),
    ],
);

pub static HASH_RESPONSE: Message = message(
    "etcdserverpb.HashResponse",
    &[one(1, "header", Nested(&RESPONSE_HEADER)), one(2, "hash", Uint32)],
);

pub static SNAPSHOT_REQUEST: Message = message("etcdserverpb.SnapshotRequest", &[]);

pub static SNAPSHOT_RESPONSE: Message = message(
    "etcdserverpb.SnapshotResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        one(2, "remaining_bytes", Uint64),
        one(3, "blob", Bytes),
        one(4, "version", String),
    ],
);

pub static WATCH_REQUEST: Message = message(
    "etcdserverpb.WatchRequest",
    &[
        either(1, "create_request", Nested(&WATCH_CREATE_REQUEST)),
        either(2, "cancel_request", Nested(&WATCH_CANCEL_REQUEST)),
        either(3, "progress_request", Nested(&WATCH_PROGRESS_REQUEST)),
    ],
);

pub static WATCH_CREATE_REQUEST: Message = message(
    "etcdserverpb.WatchCreateRequest",
    &[
        one(1, "key", Bytes),
        one(2, "range_end", Bytes),
        one(3, "start_revision", Int64),
        one(4, "progress_notify", Bool),
        many(5, "filters", Choice(&WATCH_CREATE_REQUEST_FILTER_TYPE)),
        one(6, "prev_kv", Bool),
        one(7, "watch_id", Int64),
        one(8, "fragment", Bool),
    ],
);

pub static WATCH_CANCEL_REQUEST: Message =
    message("etcdserverpb.WatchCancelRequest", &[one(1, "watch_id", Int64)]);

pub static WATCH_PROGRESS_REQUEST: Message = message("etcdserverpb.WatchProgressRequest", &[]);

pub static WATCH_RESPONSE: Message = message(
    "etcdserverpb.WatchResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        one(2, "watch_id", Int64),
        one(3, "created", Bool),
        one(4, "canceled", Bool),
        one(5, "compact_revision", Int64),
        one(6, "cancel_reason", String),
        one(7, "fragment", Bool),
        many(11, "events", Nested(&EVENT)),
    ],
);

pub static LEASE_GRANT_REQUEST: Message = message(
    "etcdserverpb.LeaseGrantRequest",
    &[one(1, "TTL", Int64), one(2, "ID", Int64)],
);

pub static LEASE_GRANT_RESPONSE: Message = message(
    "etcdserverpb.LeaseGrantResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        one(2, "ID", Int64),
        one(3, "TTL", Int64),
        one(4, "error", String),
    ],
);

pub static LEASE_REVOKE_REQUEST: Message = message("etcdserverpb.LeaseRevokeRequest", &[one(1, "ID", Int64)]);

pub static LEASE_REVOKE_RESPONSE: Message = message(
    "etcdserverpb.LeaseRevokeResponse",
    &[one(1, "header", Nested(&RESPONSE_HEADER))],
);

pub static LEASE_KEEP_ALIVE_REQUEST: Message =
    message("etcdserverpb.LeaseKeepAliveRequest", &[one(1, "ID", Int64)]);

pub static LEASE_KEEP_ALIVE_RESPONSE: Message = message(
    "etcdserverpb.LeaseKeepAliveResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        one(2, "ID", Int64),
        one(3, "TTL", Int64),
    ],
);

pub static LEASE_TIME_TO_LIVE_REQUEST: Message = message(
    "etcdserverpb.LeaseTimeToLiveRequest",
    &[one(1, "ID", Int64), one(2, "keys", Bool)],
);

pub static LEASE_TIME_TO_LIVE_RESPONSE: Message = message(
    "etcdserverpb.LeaseTimeToLiveResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        one(2, "ID", Int64),
        one(3, "TTL", Int64),
        one(4, "grantedTTL", Int64),
        many(5, "keys", Bytes),
    ],
);

pub static LEASE_LEASES_REQUEST: Message = message("etcdserverpb.LeaseLeasesRequest", &[]);

pub static LEASE_STATUS: Message = message("etcdserverpb.LeaseStatus", &[one(1, "ID", Int64)]);

pub static LEASE_LEASES_RESPONSE: Message = message(
    "etcdserverpb.LeaseLeasesResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        many(2, "leases", Nested(&LEASE_STATUS)),
    ],
);

pub static MEMBER: Message = message(
    "etcdserverpb.Member",
    &[
        one(1, "ID", Uint64),
        one(2, "name", String),
        many(3, "peerURLs", String),
        many(4, "clientURLs", String),
        one(5, "isLearner", Bool),
    ],
);

pub static MEMBER_ADD_REQUEST: Message = message(
    "etcdserverpb.MemberAddRequest",
    &[many(1, "peerURLs", String), one(2, "isLearner", Bool)],
);

pub static MEMBER_ADD_RESPONSE: Message = message(
    "etcdserverpb.MemberAddResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        one(2, "member", Nested(&MEMBER)),
        many(3, "members", Nested(&MEMBER)),
    ],
);

pub static MEMBER_REMOVE_REQUEST: Message =
    message("etcdserverpb.MemberRemoveRequest", &[one(1, "ID", Uint64)]);

pub static MEMBER_REMOVE_RESPONSE: Message = message(
    "etcdserverpb.MemberRemoveResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        many(2, "members", Nested(&MEMBER)),
    ],
);

pub static MEMBER_UPDATE_REQUEST: Message = message(
    "etcdserverpb.MemberUpdateRequest",
    &[one(1, "ID", Uint64), many(2, "peerURLs", String)],
);

pub static MEMBER_UPDATE_RESPONSE: Message = message(
    "etcdserverpb.MemberUpdateResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        many(2, "members", Nested(&MEMBER)),
    ],
);

pub static MEMBER_LIST_REQUEST: Message =
    message("etcdserverpb.MemberListRequest", &[one(1, "linearizable", Bool)]);

pub static MEMBER_LIST_RESPONSE: Message = message(
    "etcdserverpb.MemberListResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        many(2, "members", Nested(&MEMBER)),
    ],
);

pub static MEMBER_PROMOTE_REQUEST: Message =
    message("etcdserverpb.MemberPromoteRequest", &[one(1, "ID", Uint64)]);

pub static MEMBER_PROMOTE_RESPONSE: Message = message(
    "etcdserverpb.MemberPromoteResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        many(2, "members", Nested(&MEMBER)),
    ],
);

pub static DEFRAGMENT_REQUEST: Message = message("etcdserverpb.DefragmentRequest", &[]);

pub static DEFRAGMENT_RESPONSE: Message = message(
    "etcdserverpb.DefragmentResponse",
    &[one(1, "header", Nested(&RESPONSE_HEADER))],
);

pub static MOVE_LEADER_REQUEST: Message =
    message("etcdserverpb.MoveLeaderRequest", &[one(1, "targetID", Uint64)]);

pub static MOVE_LEADER_RESPONSE: Message = message(
    "etcdserverpb.MoveLeaderResponse",
    &[one(1, "header", Nested(&RESPONSE_HEADER))],
);

pub static ALARM_REQUEST: Message = message(
    "etcdserverpb.AlarmRequest",
    &[
        one(1, "action", Choice(&ALARM_REQUEST_ALARM_ACTION)),
        one(2, "memberID", Uint64),
        one(3, "alarm", Choice(&ALARM_TYPE)),
    ],
);

pub static ALARM_MEMBER: Message = message(
    "etcdserverpb.AlarmMember",
    &[one(1, "memberID", Uint64), one(2, "alarm", Choice(&ALARM_TYPE))],
);

pub static ALARM_RESPONSE: Message = message(
    "etcdserverpb.AlarmResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        many(2, "alarms", Nested(&ALARM_MEMBER)),
    ],
);

pub static DOWNGRADE_REQUEST: Message = message(
    "etcdserverpb.DowngradeRequest",
    &[
        one(1, "action", Choice(&DOWNGRADE_REQUEST_DOWNGRADE_ACTION)),
        one(2, "version", String),
    ],
);

pub static DOWNGRADE_RESPONSE: Message = message(
    "etcdserverpb.DowngradeResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        one(2, "version", String),
    ],
);

pub static STATUS_REQUEST: Message = message("etcdserverpb.StatusRequest", &[]);

pub static STATUS_RESPONSE: Message = message(
    "etcdserverpb.StatusResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        one(2, "version", String),
        one(3, "dbSize", Int64),
        one(4, "leader", Uint64),
        one(5, "raftIndex", Uint64),
        one(6, "raftTerm", Uint64),
        one(7, "raftAppliedIndex", Uint64),
        many(8, "errors", String),
        one(9, "dbSizeInUse", Int64),
        one(10, "isLearner", Bool),
        one(11, "storageVersion", String),
        one(12, "dbSizeQuota", Int64),
        one(13, "downgradeInfo", Nested(&DOWNGRADE_INFO)),
    ],
);

pub static DOWNGRADE_INFO: Message = message(
    "etcdserverpb.DowngradeInfo",
    &[one(1, "enabled", Bool), one(2, "targetVersion", String)],
);

pub static AUTH_ENABLE_REQUEST: Message = message("etcdserverpb.AuthEnableRequest", &[]);

pub static AUTH_DISABLE_REQUEST: Message = message("etcdserverpb.AuthDisableRequest", &[]);

pub static AUTH_STATUS_REQUEST: Message = message("etcdserverpb.AuthStatusRequest", &[]);

pub static AUTHENTICATE_REQUEST: Message = message(
    "etcdserverpb.AuthenticateRequest",
    &[one(1, "name", String), one(2, "password", String)],
);

pub static AUTH_USER_ADD_REQUEST: Message = message(
    "etcdserverpb.AuthUserAddRequest",
    &[
        one(1, "name", String),
        one(2, "password", String),
        one(3, "options", Nested(&USER_ADD_OPTIONS)),
        one(4, "hashedPassword", String),
    ],
);

pub static AUTH_USER_GET_REQUEST: Message =
    message("etcdserverpb.AuthUserGetRequest", &[one(1, "name", String)]);

pub static AUTH_USER_DELETE_REQUEST: Message =
    message("etcdserverpb.AuthUserDeleteRequest", &[one(1, "name", String)]);

pub static AUTH_USER_CHANGE_PASSWORD_REQUEST: Message = message(
    "etcdserverpb.AuthUserChangePasswordRequest",
    &[
        one(1, "name", String),
        one(2, "password", String),
        one(3, "hashedPassword", String),
    ],
);

pub static AUTH_USER_GRANT_ROLE_REQUEST: Message = message(
    "etcdserverpb.AuthUserGrantRoleRequest",
    &[one(1, "user", String), one(2, "role", String)],
);

pub static AUTH_USER_REVOKE_ROLE_REQUEST: Message = message(
    "etcdserverpb.AuthUserRevokeRoleRequest",
    &[one(1, "name", String), one(2, "role", String)],
);

pub static AUTH_ROLE_ADD_REQUEST: Message =
    message("etcdserverpb.AuthRoleAddRequest", &[one(1, "name", String)]);

pub static AUTH_ROLE_GET_REQUEST: Message =
    message("etcdserverpb.AuthRoleGetRequest", &[one(1, "role", String)]);

pub static AUTH_USER_LIST_REQUEST: Message = message("etcdserverpb.AuthUserListRequest", &[]);

pub static AUTH_ROLE_LIST_REQUEST: Message = message("etcdserverpb.AuthRoleListRequest", &[]);

pub static AUTH_ROLE_DELETE_REQUEST: Message =
    message("etcdserverpb.AuthRoleDeleteRequest", &[one(1, "role", String)]);

pub static AUTH_ROLE_GRANT_PERMISSION_REQUEST: Message = message(
    "etcdserverpb.AuthRoleGrantPermissionRequest",
    &[one(1, "name", String), one(2, "perm", Nested(&PERMISSION))],
);

pub static AUTH_ROLE_REVOKE_PERMISSION_REQUEST: Message = message(
    "etcdserverpb.AuthRoleRevokePermissionRequest",
    &[
        one(1, "role", String),
        one(2, "key", Bytes),
        one(3, "range_end", Bytes),
    ],
);

pub static AUTH_ENABLE_RESPONSE: Message = message(
    "etcdserverpb.AuthEnableResponse",
    &[one(1, "header", Nested(&RESPONSE_HEADER))],
);

pub static AUTH_DISABLE_RESPONSE: Message = message(
    "etcdserverpb.AuthDisableResponse",
    &[one(1, "header", Nested(&RESPONSE_HEADER))],
);

pub static AUTH_STATUS_RESPONSE: Message = message(
    "etcdserverpb.AuthStatusResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        one(2, "enabled", Bool),
        one(3, "authRevision", Uint64),
    ],
);

pub static AUTHENTICATE_RESPONSE: Message = message(
    "etcdserverpb.AuthenticateResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        one(2, "token", String),
    ],
);

pub static AUTH_USER_ADD_RESPONSE: Message = message(
    "etcdserverpb.AuthUserAddResponse",
    &[one(1, "header", Nested(&RESPONSE_HEADER))],
);

pub static AUTH_USER_GET_RESPONSE: Message = message(
    "etcdserverpb.AuthUserGetResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        many(2, "roles", String),
    ],
);

pub static AUTH_USER_DELETE_RESPONSE: Message = message(
    "etcdserverpb.AuthUserDeleteResponse",
    &[one(1, "header", Nested(&RESPONSE_HEADER))],
);

pub static AUTH_USER_CHANGE_PASSWORD_RESPONSE: Message = message(
    "etcdserverpb.AuthUserChangePasswordResponse",
    &[one(1, "header", Nested(&RESPONSE_HEADER))],
);

pub static AUTH_USER_GRANT_ROLE_RESPONSE: Message = message(
    "etcdserverpb.AuthUserGrantRoleResponse",
    &[one(1, "header", Nested(&RESPONSE_HEADER))],
);

pub static AUTH_USER_REVOKE_ROLE_RESPONSE: Message = message(
    "etcdserverpb.AuthUserRevokeRoleResponse",
    &[one(1, "header", Nested(&RESPONSE_HEADER))],
);

pub static AUTH_ROLE_ADD_RESPONSE: Message = message(
    "etcdserverpb.AuthRoleAddResponse",
    &[one(1, "header", Nested(&RESPONSE_HEADER))],
);

pub static AUTH_ROLE_GET_RESPONSE: Message = message(
    "etcdserverpb.AuthRoleGetResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        many(2, "perm", Nested(&PERMISSION)),
    ],
);

pub static AUTH_ROLE_LIST_RESPONSE: Message = message(
    "etcdserverpb.AuthRoleListResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        many(2, "roles", String),
    ],
);

pub static AUTH_USER_LIST_RESPONSE: Message = message(
    "etcdserverpb.AuthUserListResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        many(2, "users", String),
    ],
);

pub static AUTH_ROLE_DELETE_RESPONSE: Message = message(
    "etcdserverpb.AuthRoleDeleteResponse",
    &[one(1, "header", Nested(&RESPONSE_HEADER))],
);

pub static AUTH_ROLE_GRANT_PERMISSION_RESPONSE: Message = message(
    "etcdserverpb.AuthRoleGrantPermissionResponse",
    &[one(1, "header", Nested(&RESPONSE_HEADER))],
);

pub static AUTH_ROLE_REVOKE_PERMISSION_RESPONSE: Message = message(
    "etcdserverpb.AuthRoleRevokePermissionResponse",
    &[one(1, "header", Nested(&RESPONSE_HEADER))],
);

pub static LOCK_REQUEST: Message = message(
    "v3lockpb.LockRequest",
    &[one(1, "name", Bytes), one(2, "lease", Int64)],
);

pub static LOCK_RESPONSE: Message = message(
    "v3lockpb.LockResponse",
    &[one(1, "header", Nested(&RESPONSE_HEADER)), one(2, "key", Bytes)],
);

pub static UNLOCK_REQUEST: Message = message("v3lockpb.UnlockRequest", &[one(1, "key", Bytes)]);

pub static UNLOCK_RESPONSE: Message = message(
    "v3lockpb.UnlockResponse",
    &[one(1, "header", Nested(&RESPONSE_HEADER))],
);

pub static ELECTION_CAMPAIGN_REQUEST: Message = message(
    "v3electionpb.CampaignRequest",
    &[
        one(1, "name", Bytes),
        one(2, "lease", Int64),
        one(3, "value", Bytes),
    ],
);

pub static ELECTION_CAMPAIGN_RESPONSE: Message = message(
    "v3electionpb.CampaignResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        one(2, "leader", Nested(&ELECTION_LEADER_KEY)),
    ],
);

pub static ELECTION_LEADER_KEY: Message = message(
    "v3electionpb.LeaderKey",
    &[
        one(1, "name", Bytes),
        one(2, "key", Bytes),
        one(3, "rev", Int64),
        one(4, "lease", Int64),
    ],
);

pub static ELECTION_LEADER_REQUEST: Message = message("v3electionpb.LeaderRequest", &[one(1, "name", Bytes)]);

pub static ELECTION_LEADER_RESPONSE: Message = message(
    "v3electionpb.LeaderResponse",
    &[
        one(1, "header", Nested(&RESPONSE_HEADER)),
        one(2, "kv", Nested(&KEY_VALUE)),
    ],
);

pub static ELECTION_RESIGN_REQUEST: Message = message(
    "v3electionpb.ResignRequest",
    &[one(1, "leader", Nested(&ELECTION_LEADER_KEY))],
);

pub static ELECTION_RESIGN_RESPONSE: Message = message(
    "v3electionpb.ResignResponse",
    &[one(1, "header", Nested(&RESPONSE_HEADER))],
);

pub static ELECTION_PROCLAIM_REQUEST: Message = message(
    "v3electionpb.ProclaimRequest",
    &[
        one(1, "leader", Nested(&ELECTION_LEADER_KEY)),
        one(2, "value", Bytes),
    ],
);

pub static ELECTION_PROCLAIM_RESPONSE: Message = message(
    "v3electionpb.ProclaimResponse",
    &[one(1, "header", Nested(&RESPONSE_HEADER))],
);
