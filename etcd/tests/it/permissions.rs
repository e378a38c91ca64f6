//! Every method for everybody: nobody, a user without a grant, a user with one, and root.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;

use etcd_api::authpb::{Permission, UserAddOptions};
use etcd_api::etcdserverpb::*;
use etcd_api::health::HealthCheckRequest;
use etcd_api::v3electionpb::{CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest};
use etcd_api::v3lockpb::{LockRequest, UnlockRequest};
use prost::Message;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use crate::auth::{CHEAP, authenticate, enable, with_token};
use crate::harness::{Etcd, PATIENCE, put};

#[derive(Clone, Copy, Debug, PartialEq)]
enum May {
    Everybody,
    /// Whoever says who it is.
    Known,
    /// Alice, who has a grant for the keys that begin with k, and for her own name and role.
    Granted,
    Root,
}

const NOBODY: &str = "nobody";
const USERS: [&str; 4] = [NOBODY, "bob", "alice", "root"];

type Called = Pin<Box<dyn Future<Output = Result<(), String>>>>;

struct Row {
    path: &'static str,
    may: May,
    call: Box<dyn Fn(Client, &str) -> Called>,
}

#[derive(Clone)]
struct Client {
    channel: Channel,
    token: Option<String>,
}

/// The first message of the answer; its refusal if it has one.
async fn first<R, A>(client: Client, path: &'static str, request: R) -> Result<A, String>
where
    R: Message + 'static,
    A: Message + Default + 'static,
{
    let mut grpc = tonic::client::Grpc::new(client.channel);
    grpc.ready().await.unwrap();
    // The client's half stays open, as that of a real stream.
    let messages = tokio_stream::once(request).chain(tokio_stream::pending());
    let mut request = tonic::Request::new(messages);
    if let Some(token) = &client.token {
        request.metadata_mut().insert("token", token.parse().unwrap());
    }
    let path = format!("/{path}").parse().unwrap();
    let codec = ProstCodec::<R, A>::default();
    let answer = async {
        let mut answers = grpc.streaming(request, path, codec).await?.into_inner();
        answers.message().await
    };
    let answer = tokio::time::timeout(PATIENCE, answer)
        .await
        .expect("no answer came");
    match answer {
        Ok(message) => Ok(message.unwrap_or_default()),
        Err(status) => Err(format!("{:?}: {}", status.code(), status.message())),
    }
}

fn row<R: Message + 'static>(path: &'static str, may: May, request: fn(&str) -> R) -> Row {
    let call = move |client: Client, who: &str| -> Called {
        let request = request(who);
        Box::pin(async move { first::<R, ()>(client, path, request).await })
    };
    Row {
        path,
        may,
        call: Box::new(call),
    }
}

/// A watch's refusal is an answer.
fn watch(may: May, key: &'static str, range_end: &'static str) -> Row {
    let path = "etcdserverpb.Watch/Watch";
    let call = move |client: Client, _: &str| -> Called {
        let create = WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            ..Default::default()
        };
        let request = WatchRequest {
            request_union: Some(watch_request::RequestUnion::CreateRequest(create)),
        };
        Box::pin(async move {
            let response = first::<WatchRequest, WatchResponse>(client, path, request).await?;
            assert!(response.created);
            match response.cancel_reason.strip_prefix("rpc error: code = ") {
                Some(reason) => Err(reason.replace(" desc = ", ": ")),
                None if response.canceled => Err(response.cancel_reason),
                None => Ok(()),
            }
        })
    };
    Row {
        path,
        may,
        call: Box::new(call),
    }
}

fn range(key: &'static str, range_end: &'static str) -> RangeRequest {
    RangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        ..Default::default()
    }
}

fn delete(key: &'static str, range_end: &'static str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        ..Default::default()
    }
}

fn nested(request: request_op::Request) -> TxnRequest {
    let op = |request| RequestOp {
        request: Some(request),
    };
    let inner = TxnRequest {
        failure: vec![op(request)],
        ..Default::default()
    };
    TxnRequest {
        success: vec![op(request_op::Request::RequestTxn(inner))],
        ..Default::default()
    }
}

fn leader_key() -> Option<LeaderKey> {
    Some(LeaderKey {
        name: "kelection".into(),
        key: "kelection/1".into(),
        rev: 1,
        lease: 1,
    })
}

fn ttl(id: i64, keys: bool) -> LeaseTimeToLiveRequest {
    LeaseTimeToLiveRequest { id, keys }
}

/// Requests of those who may are harmless, or fail for another reason than who asks.
fn rows() -> Vec<Row> {
    use May::{Everybody, Granted, Known, Root};
    use request_op::Request;
    vec![
        row("etcdserverpb.KV/Range", Granted, |_| range("k1", "")),
        row("etcdserverpb.KV/Range", Granted, |_| RangeRequest {
            serializable: true,
            ..range("k", "l")
        }),
        row("etcdserverpb.KV/Range", Root, |_| range("k", "\0")),
        row("etcdserverpb.KV/Range", Root, |_| RangeRequest {
            count_only: true,
            ..range("j", "l")
        }),
        row("etcdserverpb.KV/RangeStream", Granted, |_| range("k", "l")),
        row("etcdserverpb.KV/RangeStream", Root, |_| range("\0", "\0")),
        row("etcdserverpb.KV/Put", Granted, |who| put(format!("k-{who}"), "v")),
        row("etcdserverpb.KV/Put", Root, |_| put("l", "v")),
        row("etcdserverpb.KV/Put", Root, |_| PutRequest {
            lease: 2,
            ..put("k2", "v")
        }),
        row("etcdserverpb.KV/DeleteRange", Granted, |_| delete("k-gone", "")),
        row("etcdserverpb.KV/DeleteRange", Root, |_| {
            delete("z-gone", "z-gonf")
        }),
        row("etcdserverpb.KV/Txn", Granted, |_| {
            nested(Request::RequestRange(range("k", "l")))
        }),
        row("etcdserverpb.KV/Txn", Root, |_| {
            nested(Request::RequestRange(range("z", "")))
        }),
        row("etcdserverpb.KV/Txn", Granted, |_| {
            nested(Request::RequestPut(put("k3", "v")))
        }),
        row("etcdserverpb.KV/Txn", Root, |_| {
            nested(Request::RequestPut(PutRequest {
                lease: 2,
                ..put("k3", "v")
            }))
        }),
        row("etcdserverpb.KV/Txn", Root, |_| {
            nested(Request::RequestDeleteRange(delete("z-gone", "")))
        }),
        row("etcdserverpb.KV/Txn", Root, |_| TxnRequest {
            compare: vec![Compare {
                key: "z".into(),
                ..Default::default()
            }],
            ..Default::default()
        }),
        row("etcdserverpb.KV/Compact", Root, |_| CompactionRequest {
            revision: 1,
            physical: false,
        }),
        watch(Granted, "k", "l"),
        watch(Granted, "k1", ""),
        watch(Root, "k", "\0"),
        watch(Root, "", "\0"),
        watch(Root, "", ""),
        row("etcdserverpb.Lease/LeaseGrant", Known, |_| LeaseGrantRequest {
            ttl: 1000,
            id: 0,
        }),
        row("etcdserverpb.Lease/LeaseKeepAlive", Granted, |_| {
            LeaseKeepAliveRequest { id: 1 }
        }),
        row("etcdserverpb.Lease/LeaseKeepAlive", Root, |_| {
            LeaseKeepAliveRequest { id: 2 }
        }),
        row("etcdserverpb.Lease/LeaseKeepAlive", Known, |_| {
            LeaseKeepAliveRequest { id: 3 }
        }),
        row("etcdserverpb.Lease/LeaseTimeToLive", Granted, |_| ttl(1, true)),
        row("etcdserverpb.Lease/LeaseTimeToLive", Root, |_| ttl(2, true)),
        row("etcdserverpb.Lease/LeaseTimeToLive", Known, |_| ttl(2, false)),
        // Lease 2 has a key that alice may not read.
        row("etcdserverpb.Lease/LeaseLeases", Root, |_| LeaseLeasesRequest {}),
        row("etcdserverpb.Lease/LeaseRevoke", Granted, |_| {
            LeaseRevokeRequest { id: 1 }
        }),
        row("etcdserverpb.Lease/LeaseRevoke", Root, |_| LeaseRevokeRequest {
            id: 2,
        }),
        row("etcdserverpb.Cluster/MemberAdd", Root, |_| {
            MemberAddRequest::default()
        }),
        row("etcdserverpb.Cluster/MemberRemove", Root, |_| {
            MemberRemoveRequest { id: 1 }
        }),
        row("etcdserverpb.Cluster/MemberUpdate", Root, |_| {
            MemberUpdateRequest {
                id: 1,
                ..Default::default()
            }
        }),
        row("etcdserverpb.Cluster/MemberList", Known, |_| MemberListRequest {
            linearizable: true,
        }),
        row("etcdserverpb.Cluster/MemberPromote", Root, |_| {
            MemberPromoteRequest { id: 1 }
        }),
        row("etcdserverpb.Maintenance/Alarm", Known, |_| {
            AlarmRequest::default()
        }),
        row("etcdserverpb.Maintenance/Alarm", Root, |_| AlarmRequest {
            action: alarm_request::AlarmAction::Deactivate as i32,
            member_id: 1,
            alarm: AlarmType::Nospace as i32,
        }),
        row("etcdserverpb.Maintenance/Status", Known, |_| StatusRequest {}),
        row("etcdserverpb.Maintenance/Defragment", Root, |_| {
            DefragmentRequest {}
        }),
        row("etcdserverpb.Maintenance/Hash", Root, |_| HashRequest {}),
        row("etcdserverpb.Maintenance/HashKV", Root, |_| HashKvRequest {
            revision: 0,
        }),
        row("etcdserverpb.Maintenance/Snapshot", Root, |_| SnapshotRequest {}),
        row("etcdserverpb.Maintenance/MoveLeader", Root, |_| {
            MoveLeaderRequest { target_id: 1 }
        }),
        row("etcdserverpb.Maintenance/Downgrade", Root, |_| DowngradeRequest {
            version: "3.5".to_owned(),
            ..Default::default()
        }),
        row("etcdserverpb.Auth/AuthStatus", Root, |_| AuthStatusRequest {}),
        row("etcdserverpb.Auth/Authenticate", Everybody, |_| {
            AuthenticateRequest::default()
        }),
        row("etcdserverpb.Auth/AuthEnable", Root, |_| AuthEnableRequest {}),
        row("etcdserverpb.Auth/UserAdd", Root, |_| AuthUserAddRequest {
            name: "new".to_owned(),
            password: "new".to_owned(),
            ..Default::default()
        }),
        row("etcdserverpb.Auth/UserAdd", Root, |_| AuthUserAddRequest {
            name: "machine".to_owned(),
            options: Some(UserAddOptions { no_password: true }),
            ..Default::default()
        }),
        row("etcdserverpb.Auth/UserGet", Granted, |_| AuthUserGetRequest {
            name: "alice".to_owned(),
        }),
        row("etcdserverpb.Auth/UserGet", Root, |_| AuthUserGetRequest {
            name: "root".to_owned(),
        }),
        row("etcdserverpb.Auth/UserList", Root, |_| AuthUserListRequest {}),
        row("etcdserverpb.Auth/UserDelete", Root, |_| AuthUserDeleteRequest {
            name: "ghost".to_owned(),
        }),
        row("etcdserverpb.Auth/UserChangePassword", Root, |_| {
            AuthUserChangePasswordRequest {
                name: "ghost".to_owned(),
                password: "x".to_owned(),
                ..Default::default()
            }
        }),
        row("etcdserverpb.Auth/UserGrantRole", Root, |_| {
            AuthUserGrantRoleRequest {
                user: "ghost".to_owned(),
                role: "root".to_owned(),
            }
        }),
        row("etcdserverpb.Auth/UserRevokeRole", Root, |_| {
            AuthUserRevokeRoleRequest {
                name: "ghost".to_owned(),
                role: "root".to_owned(),
            }
        }),
        row("etcdserverpb.Auth/RoleAdd", Root, |_| AuthRoleAddRequest {
            name: "new".to_owned(),
        }),
        row("etcdserverpb.Auth/RoleGet", Granted, |_| AuthRoleGetRequest {
            role: "k-role".to_owned(),
        }),
        row("etcdserverpb.Auth/RoleGet", Root, |_| AuthRoleGetRequest {
            role: "root".to_owned(),
        }),
        row("etcdserverpb.Auth/RoleList", Root, |_| AuthRoleListRequest {}),
        row("etcdserverpb.Auth/RoleDelete", Root, |_| AuthRoleDeleteRequest {
            role: "ghost".to_owned(),
        }),
        row("etcdserverpb.Auth/RoleGrantPermission", Root, |_| {
            AuthRoleGrantPermissionRequest {
                name: "ghost".to_owned(),
                perm: Some(Permission {
                    key: "k".into(),
                    ..Default::default()
                }),
            }
        }),
        row("etcdserverpb.Auth/RoleRevokePermission", Root, |_| {
            AuthRoleRevokePermissionRequest {
                role: "ghost".to_owned(),
                ..Default::default()
            }
        }),
        row("v3lockpb.Lock/Lock", Granted, |who| LockRequest {
            name: format!("klock-{who}").into(),
            lease: 0,
        }),
        row("v3lockpb.Lock/Lock", Root, |who| LockRequest {
            name: format!("zlock-{who}").into(),
            lease: 0,
        }),
        row("v3lockpb.Lock/Unlock", Granted, |_| UnlockRequest {
            key: "klock/gone".into(),
        }),
        row("v3electionpb.Election/Campaign", Granted, |who| CampaignRequest {
            name: format!("kcampaign-{who}").into(),
            ..Default::default()
        }),
        row("v3electionpb.Election/Proclaim", Granted, |_| ProclaimRequest {
            leader: leader_key(),
            value: "v".into(),
        }),
        row("v3electionpb.Election/Leader", Granted, |_| LeaderRequest {
            name: "kelection".into(),
        }),
        row("v3electionpb.Election/Observe", Granted, |_| LeaderRequest {
            name: "kobserved".into(),
        }),
        row("v3electionpb.Election/Resign", Granted, |_| ResignRequest {
            leader: leader_key(),
        }),
        row("grpc.health.v1.Health/Check", Everybody, |_| {
            HealthCheckRequest::default()
        }),
        row("grpc.health.v1.Health/Watch", Everybody, |_| {
            HealthCheckRequest::default()
        }),
        // The last: nothing is refused afterwards.
        row("etcdserverpb.Auth/AuthDisable", Root, |_| AuthDisableRequest {}),
    ]
}

fn expected(row: &Row, who: &str) -> Option<String> {
    let (code, text) = match (row.may, who) {
        (May::Everybody, _) | (_, "root") => return None,
        (_, NOBODY) => ("InvalidArgument", "etcdserver: user name is empty"),
        (May::Known, _) | (May::Granted, "alice") => return None,
        (May::Granted | May::Root, _) => ("PermissionDenied", "etcdserver: permission denied"),
    };
    // These two reach the others as a client, whose errors bear no code.
    let is_made_of_others = ["v3lockpb.", "v3electionpb."]
        .iter()
        .any(|package| row.path.starts_with(package));
    let code = if is_made_of_others { "Unknown" } else { code };
    Some(format!("{code}: {text}"))
}

fn is_about_who_asks(refusal: &str) -> bool {
    [
        "user name is empty",
        "permission denied",
        "invalid auth token",
        "revision of auth store is old",
    ]
    .iter()
    .any(|text| refusal.contains(text))
}

async fn clients(etcd: &Etcd) -> Vec<(&'static str, Client)> {
    let mut clients = Vec::new();
    for who in USERS {
        let token = match who {
            NOBODY => None,
            user => Some(
                authenticate(etcd, user, &format!("{user}-password"))
                    .await
                    .unwrap(),
            ),
        };
        let channel = etcd.channel().await;
        clients.push((who, Client { channel, token }));
    }
    clients
}

#[tokio::test]
async fn everybody_may_what_is_his_and_nothing_else() {
    let etcd = Etcd::start_with(&[CHEAP]);
    enable(&etcd).await;
    let clients = clients(&etcd).await;
    let root = clients[3].1.token.clone().unwrap();
    let mut kv = etcd.kv().await;
    for (id, key) in [(1, "k1"), (2, "z1"), (3, "")] {
        let grant = LeaseGrantRequest { ttl: 1000, id };
        etcd.lease()
            .await
            .lease_grant(with_token(grant, &root))
            .await
            .unwrap();
        if !key.is_empty() {
            let leased = PutRequest {
                lease: id,
                ..put(key, "v")
            };
            kv.put(with_token(leased, &root)).await.unwrap();
        }
    }
    kv.put(with_token(put("kobserved/1", "v"), &root)).await.unwrap();
    let rows = rows();
    let mut wrong = Vec::new();
    for row in &rows {
        for (who, client) in &clients {
            let refusal = (row.call)(client.clone(), who).await.err();
            let refusal = refusal.filter(|refusal| is_about_who_asks(refusal));
            if refusal != expected(row, who) {
                wrong.push(format!("{} ({:?}) as {who}: {refusal:?}", row.path, row.may));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let asked: BTreeSet<&str> = rows.iter().map(|row| row.path).collect();
    let served: BTreeSet<&str> = etcd::rpc::table::METHODS
        .iter()
        .map(|method| method.path)
        .collect();
    assert_eq!(asked, served, "a method without a row, or a row without a method");
}
