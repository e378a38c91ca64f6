//! Users, roles and tokens with Debian's etcdctl, and with a client where etcdctl cannot look.

use std::process::Command;
use std::time::Duration;

use etcd_api::authpb::{Permission, permission::Type};
use etcd_api::etcdserverpb::auth_client::AuthClient;
use etcd_api::etcdserverpb::{
    AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest, AuthStatusRequest,
    AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGrantRoleRequest,
    AuthenticateRequest, LeaseGrantRequest, RangeRequest, WatchCreateRequest, WatchRequest,
    watch_request::RequestUnion,
};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::harness::{Etcd, PATIENCE, put};

/// The cheapest hash there is, for tests.
pub const CHEAP: &str = "--bcrypt-cost=4";

/// The request with a user's token.
pub fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("token", token.parse().unwrap());
    request
}

pub async fn auth_client(etcd: &Etcd) -> AuthClient<Channel> {
    AuthClient::new(etcd.channel().await)
}

pub async fn authenticate(etcd: &Etcd, name: &str, password: &str) -> Result<String, Status> {
    let request = AuthenticateRequest {
        name: name.to_owned(),
        password: password.to_owned(),
    };
    let response = auth_client(etcd).await.authenticate(request).await?;
    Ok(response.into_inner().token)
}

pub async fn add_user(client: &mut AuthClient<Channel>, name: &str, roles: &[&str]) {
    let add = AuthUserAddRequest {
        name: name.to_owned(),
        password: format!("{name}-password"),
        ..Default::default()
    };
    client.user_add(add).await.unwrap();
    for role in roles {
        let grant = AuthUserGrantRoleRequest {
            user: name.to_owned(),
            role: (*role).to_owned(),
        };
        client.user_grant_role(grant).await.unwrap();
    }
}

/// Root; alice, who may do everything with keys that begin with k; bob, who may do nothing. Passwords are "<name>-password".
pub async fn enable(etcd: &Etcd) {
    let mut client = auth_client(etcd).await;
    let role = AuthRoleAddRequest {
        name: "k-role".to_owned(),
    };
    client.role_add(role).await.unwrap();
    let permission = AuthRoleGrantPermissionRequest {
        name: "k-role".to_owned(),
        perm: Some(Permission {
            perm_type: Type::Readwrite as i32,
            key: "k".into(),
            range_end: "l".into(),
        }),
    };
    client.role_grant_permission(permission).await.unwrap();
    add_user(&mut client, "root", &["root"]).await;
    add_user(&mut client, "alice", &["k-role"]).await;
    add_user(&mut client, "bob", &[]).await;
    client.auth_enable(AuthEnableRequest {}).await.unwrap();
}

#[test]
fn etcdctl_sets_up_users_and_roles_and_they_survive_kill_9() {
    let mut etcd = Etcd::start_with(&[CHEAP]);
    if etcd.ctl(&["put", "app/a", "1"]).is_none() {
        return;
    }
    assert!(refused(&etcd, &["auth", "enable"]).contains("etcdserver: root user does not exist"));
    assert_eq!(
        etcd.ctl(&["user", "add", "root:rootpw"]).unwrap(),
        "User root created\n"
    );
    assert_eq!(
        etcd.ctl(&["user", "add", "alice:alicepw"]).unwrap(),
        "User alice created\n"
    );
    assert!(refused(&etcd, &["user", "add", "alice:x"]).contains("etcdserver: user name already exists"));
    assert_eq!(etcd.ctl(&["role", "add", "app"]).unwrap(), "Role app created\n");
    etcd.ctl(&[
        "role",
        "grant-permission",
        "app",
        "--prefix=true",
        "readwrite",
        "app/",
    ]);
    etcd.ctl(&["role", "grant-permission", "app", "read", "b"]);
    assert_eq!(
        etcd.ctl(&["user", "grant-role", "alice", "app"]).unwrap(),
        "Role app is granted to user alice\n"
    );
    // It grants root its role when the server says that it is missing.
    assert!(
        etcd.ctl(&["auth", "enable"])
            .unwrap()
            .contains("Authentication Enabled")
    );
    let (root, alice) = (["--user", "root:rootpw"], ["--user", "alice:alicepw"]);
    let run = |etcd: &Etcd, user: &[&str], args: &[&str]| etcd.ctl(&[user, args].concat()).unwrap();
    let fail = |etcd: &Etcd, user: &[&str], args: &[&str]| refused(etcd, &[user, args].concat());
    for life in ["first", "after kill -9"] {
        assert_eq!(run(&etcd, &alice, &["get", "app/a"]), "app/a\n1\n", "{life}");
        assert_eq!(
            run(&etcd, &alice, &["put", "app/a", "1", "--prev-kv"]),
            "OK\napp/a\n1\n",
            "{life}"
        );
        assert_eq!(
            run(&etcd, &alice, &["get", "app/", "--prefix"]),
            "app/a\n1\n",
            "{life}"
        );
        for args in [
            &["get", "z"][..],
            &["get", "a", "--prefix"],
            &["get", "", "--prefix"],
            &["put", "b", "1"],
            &["del", "app", "--prefix"],
            &["compaction", "1"],
            &["user", "list"],
            &["user", "add", "eve:x"],
            &["role", "grant-permission", "app", "readwrite", "z"],
            &["auth", "disable"],
            &["defrag"],
        ] {
            let said = fail(&etcd, &alice, args);
            assert!(
                said.contains("etcdserver: permission denied"),
                "{life} {args:?}: {said}"
            );
        }
        let anonymous = fail(&etcd, &[], &["get", "app/a"]);
        assert!(
            anonymous.contains("etcdserver: user name is empty"),
            "{life}: {anonymous}"
        );
        let wrong = fail(&etcd, &["--user", "alice:wrong"], &["get", "app/a"]);
        assert!(
            wrong.contains("authentication failed, invalid user ID or password"),
            "{life}: {wrong}"
        );
        let stranger = fail(&etcd, &["--user", "eve:x"], &["get", "app/a"]);
        assert!(
            stranger.contains("authentication failed, invalid user ID or password"),
            "{life}: {stranger}"
        );
        assert_eq!(run(&etcd, &root, &["user", "list"]), "alice\nroot\n", "{life}");
        assert_eq!(run(&etcd, &root, &["role", "list"]), "app\nroot\n", "{life}");
        assert_eq!(
            run(&etcd, &alice, &["user", "get", "alice"]),
            "User: alice\nRoles: app\n",
            "{life}"
        );
        let role = run(&etcd, &alice, &["role", "get", "app"]);
        assert!(
            role.contains("KV Read:\n\t[app/, app0) (prefix app/)\n\tb\n"),
            "{life}: {role}"
        );
        etcd.restart();
    }
    run(&etcd, &root, &["role", "revoke-permission", "app", "b"]);
    assert!(fail(&etcd, &alice, &["get", "b"]).contains("etcdserver: permission denied"));
    run(&etcd, &root, &["user", "revoke-role", "alice", "app"]);
    assert!(fail(&etcd, &alice, &["get", "app/a"]).contains("etcdserver: permission denied"));
    assert!(fail(&etcd, &root, &["user", "delete", "root"]).contains("etcdserver: invalid auth management"));
    assert!(fail(&etcd, &root, &["role", "delete", "nothing"]).contains("etcdserver: role name not found"));
    run(&etcd, &root, &["user", "delete", "alice"]);
    run(&etcd, &root, &["auth", "disable"]);
    assert_eq!(etcd.ctl(&["get", "app/a"]).unwrap(), "app/a\n1\n");
    let metrics = etcd.get("/metrics").1;
    assert!(metrics.contains("etcd_debugging_auth_revision 13\n"), "{metrics}");
}

fn refused(etcd: &Etcd, args: &[&str]) -> String {
    let output = etcd.etcdctl(args).unwrap();
    assert!(!output.status.success(), "{args:?} was not refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_token_follows_the_rules_as_they_change_and_ends_with_the_password() {
    let etcd = Etcd::start_with(&[CHEAP]);
    enable(&etcd).await;
    let (root, alice) = (
        authenticate(&etcd, "root", "root-password").await.unwrap(),
        authenticate(&etcd, "alice", "alice-password").await.unwrap(),
    );
    let mut kv = etcd.kv().await;
    kv.put(with_token(put("k1", "v"), &alice)).await.unwrap();
    let mut client = auth_client(&etcd).await;
    let permission = AuthRoleGrantPermissionRequest {
        name: "k-role".to_owned(),
        perm: Some(Permission {
            perm_type: Type::Read as i32,
            key: "k".into(),
            range_end: "l".into(),
        }),
    };
    client
        .role_grant_permission(with_token(permission, &root))
        .await
        .unwrap();
    let denied = kv.put(with_token(put("k1", "v"), &alice)).await.unwrap_err();
    assert_eq!(
        (denied.code(), denied.message()),
        (Code::PermissionDenied, "etcdserver: permission denied")
    );
    let read = RangeRequest {
        key: "k1".into(),
        ..Default::default()
    };
    assert_eq!(
        kv.range(with_token(read.clone(), &alice))
            .await
            .unwrap()
            .into_inner()
            .count,
        1
    );
    let passwd = AuthUserChangePasswordRequest {
        name: "alice".to_owned(),
        password: "another".to_owned(),
        ..Default::default()
    };
    client
        .user_change_password(with_token(passwd, &root))
        .await
        .unwrap();
    let ended = kv.range(with_token(read.clone(), &alice)).await.unwrap_err();
    assert_eq!(
        (ended.code(), ended.message()),
        (Code::Unauthenticated, "etcdserver: invalid auth token")
    );
    assert!(authenticate(&etcd, "alice", "alice-password").await.is_err());
    let alice = authenticate(&etcd, "alice", "another").await.unwrap();
    kv.range(with_token(read.clone(), &alice)).await.unwrap();
    let delete = AuthUserDeleteRequest {
        name: "alice".to_owned(),
    };
    client.user_delete(with_token(delete, &root)).await.unwrap();
    assert_eq!(
        kv.range(with_token(read, &alice)).await.unwrap_err().code(),
        Code::Unauthenticated
    );
}

#[tokio::test]
async fn passwords_are_neither_in_the_log_nor_in_the_store() {
    let etcd = Etcd::start_with(&[CHEAP]);
    enable(&etcd).await;
    authenticate(&etcd, "alice", "alice-password").await.unwrap();
    let failed = authenticate(&etcd, "alice", "bob-password").await.unwrap_err();
    assert_eq!(
        (failed.code(), failed.message()),
        (
            Code::InvalidArgument,
            "etcdserver: authentication failed, invalid user ID or password"
        )
    );
    let grep = Command::new("grep")
        .args(["-rc", "alice-password"])
        .arg(&etcd.dir)
        .output()
        .unwrap();
    let counts = String::from_utf8_lossy(&grep.stdout).into_owned();
    assert!(
        counts.lines().count() > 1 && counts.lines().all(|line| line.ends_with(":0")),
        "{counts}"
    );
    assert!(!etcd.log().contains("alice-password"));
}

#[tokio::test]
async fn a_lease_of_keys_that_its_user_may_not_write_still_expires() {
    let etcd = Etcd::start_with(&[CHEAP]);
    enable(&etcd).await;
    let root = authenticate(&etcd, "root", "root-password").await.unwrap();
    let grant = LeaseGrantRequest { ttl: 2, id: 7 };
    etcd.lease()
        .await
        .lease_grant(with_token(grant, &root))
        .await
        .unwrap();
    let mut kv = etcd.kv().await;
    let mut leased = put("z1", "v");
    leased.lease = 7;
    kv.put(with_token(leased, &root)).await.unwrap();
    let read = RangeRequest {
        key: "z1".into(),
        ..Default::default()
    };
    tokio::time::timeout(PATIENCE, async {
        while kv
            .range(with_token(read.clone(), &root))
            .await
            .unwrap()
            .into_inner()
            .count
            > 0
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the lease never expired");
}

#[tokio::test]
async fn signed_tokens_are_as_old_as_they_are() {
    let folder = tempfile::TempDir::new().unwrap();
    let key = folder.path().join("jwt.key");
    let made = Command::new("openssl")
        .args([
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-out",
        ])
        .arg(&key)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let flag = format!(
        "--auth-token=jwt,sign-method=ES256,priv-key={},ttl=5m",
        key.display()
    );
    let mut etcd = Etcd::start_with(&[CHEAP, &flag]);
    enable(&etcd).await;
    let alice = authenticate(&etcd, "alice", "alice-password").await.unwrap();
    assert_eq!(alice.matches('.').count(), 2, "{alice}");
    etcd.kv()
        .await
        .put(with_token(put("k1", "v"), &alice))
        .await
        .unwrap();
    etcd.restart();
    // Nobody has to keep a list of them.
    etcd.kv()
        .await
        .put(with_token(put("k1", "v"), &alice))
        .await
        .unwrap();
    let root = authenticate(&etcd, "root", "root-password").await.unwrap();
    let role = AuthRoleAddRequest {
        name: "another".to_owned(),
    };
    auth_client(&etcd)
        .await
        .role_add(with_token(role, &root))
        .await
        .unwrap();
    let old = etcd
        .kv()
        .await
        .put(with_token(put("k1", "v"), &alice))
        .await
        .unwrap_err();
    assert_eq!(
        (old.code(), old.message()),
        (Code::InvalidArgument, "etcdserver: revision of auth store is old")
    );
    let again = authenticate(&etcd, "alice", "alice-password").await.unwrap();
    etcd.kv()
        .await
        .put(with_token(put("k1", "v"), &again))
        .await
        .unwrap();
    let (head, signature) = again.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}", signature.chars().rev().collect::<String>());
    let refused = etcd
        .kv()
        .await
        .put(with_token(put("k1", "v"), &forged))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[test]
fn a_key_that_cannot_be_used_is_named() {
    let etcd = Etcd::start();
    let mut bad = etcd;
    bad.kill();
    bad.extra = vec!["--auth-token=jwt,sign-method=RS256,priv-key=/nowhere/jwt.key".to_owned()];
    let (code, said) = bad.start_refused();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--auth-token: priv-key=/nowhere/jwt.key"), "{said}");
}

#[tokio::test]
async fn changes_under_load_are_never_told_as_old_revisions() {
    let etcd = Etcd::start_with(&[CHEAP]);
    enable(&etcd).await;
    let (root, alice) = (
        authenticate(&etcd, "root", "root-password").await.unwrap(),
        authenticate(&etcd, "alice", "alice-password").await.unwrap(),
    );
    let mut client = auth_client(&etcd).await;
    let kv = etcd.kv().await;
    let writers: Vec<_> = (0..4)
        .map(|number| {
            let (mut kv, alice) = (kv.clone(), alice.clone());
            tokio::spawn(async move {
                for _ in 0..50 {
                    kv.put(with_token(put(format!("k{number}"), "v"), &alice)).await?;
                    let read = RangeRequest {
                        key: "k".into(),
                        range_end: "l".into(),
                        ..Default::default()
                    };
                    kv.range(with_token(read, &alice)).await?;
                }
                Ok::<(), Status>(())
            })
        })
        .collect();
    for number in 0..40 {
        let role = AuthRoleAddRequest {
            name: format!("role{number}"),
        };
        client.role_add(with_token(role, &root)).await.unwrap();
    }
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    let status = client
        .auth_status(with_token(AuthStatusRequest {}, &root))
        .await
        .unwrap()
        .into_inner();
    assert!(status.enabled && status.auth_revision > 40);
}

#[tokio::test]
async fn a_refused_watch_is_answered_in_its_turn_and_the_others_go_on() {
    let etcd = Etcd::start_with(&[CHEAP]);
    enable(&etcd).await;
    let alice = authenticate(&etcd, "alice", "alice-password").await.unwrap();
    let create = |key: &'static str, range_end: &'static [u8]| WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            ..Default::default()
        })),
    };
    let (requests, receiver) = tokio::sync::mpsc::channel(8);
    for request in [create("k1", b""), create("k1", b"\0"), create("k2", b"")] {
        requests.send(request).await.unwrap();
    }
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let answers = etcd
        .watch()
        .await
        .watch(with_token(stream, &alice))
        .await
        .unwrap();
    let mut answers = answers.into_inner();
    let mut next = async || {
        let answer = tokio::time::timeout(PATIENCE, answers.message()).await;
        answer.expect("no answer came").unwrap().unwrap()
    };
    let first = next().await;
    assert_eq!((first.watch_id, first.created, first.canceled), (0, true, false));
    let refused = next().await;
    assert_eq!(
        (refused.watch_id, refused.created, refused.canceled),
        (-1, true, true)
    );
    assert_eq!(
        refused.cancel_reason,
        "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
    );
    let third = next().await;
    assert_eq!((third.watch_id, third.created, third.canceled), (1, true, false));
    etcd.kv()
        .await
        .put(with_token(put("k2", "v"), &alice))
        .await
        .unwrap();
    let event = next().await;
    assert_eq!((event.watch_id, event.events.len()), (1, 1));
}
