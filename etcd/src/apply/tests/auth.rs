//! Auth through the log: kept with the data, asked when an entry takes effect.

use etcd_api::authpb::{Permission, permission::Type};
use etcd_api::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest,
    AuthRoleRevokePermissionRequest, AuthStatusRequest, AuthUserAddRequest, AuthUserGetRequest,
    AuthUserGrantRoleRequest, AuthUserListRequest, InternalAuthenticateRequest, RequestHeader,
};

use super::*;
use crate::auth::{AuthInfo, Reply};

impl Machine {
    fn propose_as(&mut self, who: &AuthInfo, mut request: InternalRaftRequest) -> Result<Answer, ApplyError> {
        self.next_id += 1;
        request.header = Some(RequestHeader {
            id: self.next_id,
            username: who.username.clone(),
            auth_revision: who.revision,
        });
        let mut answer = self.applier.state.waits.register(self.next_id);
        self.node.propose([request.encode_to_vec()]).unwrap();
        self.work().unwrap();
        answer.try_recv().unwrap().result
    }

    fn user(&self, name: &str) -> AuthInfo {
        AuthInfo {
            username: name.to_owned(),
            revision: self.applier.state.auth.revision(),
        }
    }

    fn as_root(&mut self, request: InternalRaftRequest) {
        let root = self.user("root");
        self.propose_as(&root, request).unwrap();
    }

    fn refusal(&mut self, who: &AuthInfo, request: InternalRaftRequest) -> Option<AuthError> {
        match self.propose_as(who, request) {
            Ok(_) => None,
            Err(ApplyError::Auth(error)) => Some(error),
            Err(other) => panic!("{other}"),
        }
    }
}

fn add_user(name: &str) -> InternalRaftRequest {
    InternalRaftRequest {
        auth_user_add: Some(AuthUserAddRequest {
            name: name.to_owned(),
            hashed_password: "eA==".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn grant_role(user: &str, role: &str) -> InternalRaftRequest {
    InternalRaftRequest {
        auth_user_grant_role: Some(AuthUserGrantRoleRequest {
            user: user.to_owned(),
            role: role.to_owned(),
        }),
        ..Default::default()
    }
}

fn put(key: &str, lease: i64) -> InternalRaftRequest {
    InternalRaftRequest {
        put: Some(PutRequest {
            key: key.to_owned().into(),
            value: "v".into(),
            lease,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn revoke_lease(id: i64) -> InternalRaftRequest {
    InternalRaftRequest {
        lease_revoke: Some(LeaseRevokeRequest { id }),
        ..Default::default()
    }
}

/// Root, and alice who may read and write what begins with a; auth is enabled.
fn set_up(machine: &mut Machine) {
    machine.as_root(add_user("root"));
    machine.as_root(grant_role("root", "root"));
    machine.as_root(add_user("alice"));
    machine.as_root(InternalRaftRequest {
        auth_role_add: Some(AuthRoleAddRequest { name: "a".to_owned() }),
        ..Default::default()
    });
    machine.as_root(InternalRaftRequest {
        auth_role_grant_permission: Some(AuthRoleGrantPermissionRequest {
            name: "a".to_owned(),
            perm: Some(Permission {
                perm_type: Type::Readwrite as i32,
                key: "a".into(),
                range_end: "b".into(),
            }),
        }),
        ..Default::default()
    });
    machine.as_root(grant_role("alice", "a"));
    machine.as_root(InternalRaftRequest {
        auth_enable: Some(AuthEnableRequest {}),
        ..Default::default()
    });
}

fn take_from_alice() -> InternalRaftRequest {
    InternalRaftRequest {
        auth_role_revoke_permission: Some(AuthRoleRevokePermissionRequest {
            role: "a".to_owned(),
            key: "a".into(),
            range_end: "b".into(),
        }),
        ..Default::default()
    }
}

#[test]
fn rules_are_there_again_after_power_loss_and_after_reclaiming() {
    let disk = FakeDisk::new();
    for (life, keep) in [false, true, true].into_iter().enumerate() {
        let mut machine = Machine::open(&disk);
        machine.elect().unwrap();
        if life == 0 {
            set_up(&mut machine);
        }
        let (alice, bob) = (machine.user("alice"), machine.user("bob"));
        assert!(machine.applier.state.auth.is_enabled(), "life {life}");
        assert_eq!(alice.revision, 7, "life {life}");
        assert_eq!(machine.refusal(&alice, put("a1", 0)), None);
        assert_eq!(
            machine.refusal(&alice, put("b1", 0)),
            Some(AuthError::PermissionDenied)
        );
        assert_eq!(
            machine.refusal(&bob, put("a1", 0)),
            Some(AuthError::PermissionDenied)
        );
        let nobody = AuthInfo::default();
        assert_eq!(machine.refusal(&nobody, put("a1", 0)), Some(AuthError::UserEmpty));
        if keep {
            machine.keep().unwrap();
        }
        drop(machine);
        disk.crash(life as u64);
    }
}

#[test]
fn what_was_taken_away_before_an_entry_does_not_count_for_it() {
    let disk = FakeDisk::new();
    let mut machine = Machine::open(&disk);
    machine.elect().unwrap();
    set_up(&mut machine);
    let alice = machine.user("alice");
    assert_eq!(machine.refusal(&alice, put("a1", 0)), None);
    machine.as_root(take_from_alice());
    let before = machine.store().current();
    assert_eq!(
        machine.refusal(&alice, put("a1", 0)),
        Some(AuthError::AuthOldRevision)
    );
    let again = machine.user("alice");
    assert_eq!(
        machine.refusal(&again, put("a1", 0)),
        Some(AuthError::PermissionDenied)
    );
    assert_eq!(
        machine.store().current(),
        before,
        "a refused entry changes nothing"
    );
}

#[test]
fn a_lease_ends_for_those_who_may_write_its_keys() {
    let disk = FakeDisk::new();
    let mut machine = Machine::open(&disk);
    machine.elect().unwrap();
    set_up(&mut machine);
    let (root, alice) = (machine.user("root"), machine.user("alice"));
    for id in [1, 2] {
        machine.as_root(InternalRaftRequest {
            lease_grant: Some(LeaseGrantRequest { ttl: 100, id }),
            ..Default::default()
        });
    }
    assert_eq!(machine.refusal(&alice, put("a1", 1)), None);
    assert_eq!(machine.refusal(&root, put("z1", 2)), None);
    assert_eq!(
        machine.refusal(&alice, put("a2", 2)),
        Some(AuthError::PermissionDenied)
    );
    assert_eq!(
        machine.refusal(&alice, revoke_lease(2)),
        Some(AuthError::PermissionDenied)
    );
    assert_eq!(machine.refusal(&alice, revoke_lease(1)), None);
    // The server itself, whose lease has expired.
    let server = AuthInfo {
        username: "root".to_owned(),
        revision: 0,
    };
    assert_eq!(machine.refusal(&server, revoke_lease(2)), None);
}

#[test]
fn only_root_changes_auth_and_everybody_sees_himself() {
    let disk = FakeDisk::new();
    let mut machine = Machine::open(&disk);
    machine.elect().unwrap();
    set_up(&mut machine);
    let (root, alice) = (machine.user("root"), machine.user("alice"));
    let denied = Some(AuthError::PermissionDenied);
    assert_eq!(machine.refusal(&alice, add_user("eve")), denied);
    assert_eq!(machine.refusal(&alice, grant_role("alice", "root")), denied);
    let disable = || InternalRaftRequest {
        auth_disable: Some(AuthDisableRequest {}),
        ..Default::default()
    };
    assert_eq!(machine.refusal(&alice, disable()), denied);
    assert_eq!(
        machine.refusal(&AuthInfo::default(), disable()),
        Some(AuthError::UserEmpty)
    );
    let get = |name: &str| InternalRaftRequest {
        auth_user_get: Some(AuthUserGetRequest {
            name: name.to_owned(),
        }),
        ..Default::default()
    };
    assert_eq!(machine.refusal(&alice, get("root")), denied);
    let Ok(Answer::Auth(Reply::User(roles))) = machine.propose_as(&alice, get("alice")) else {
        panic!("alice may see her roles")
    };
    assert_eq!(roles, ["a"]);
    let list = InternalRaftRequest {
        auth_user_list: Some(AuthUserListRequest {}),
        ..Default::default()
    };
    assert_eq!(machine.refusal(&alice, list.clone()), denied);
    let Ok(Answer::Auth(Reply::Users(users))) = machine.propose_as(&root, list) else {
        panic!("root may see users")
    };
    assert_eq!(users, ["alice", "root"]);
    let status = InternalRaftRequest {
        auth_status: Some(AuthStatusRequest {}),
        ..Default::default()
    };
    let Ok(Answer::Auth(status)) = machine.propose_as(&root, status) else {
        panic!("root may see whether auth is enabled")
    };
    assert_eq!(
        status,
        Reply::Status {
            enabled: true,
            revision: 7
        }
    );
}

#[test]
fn a_token_carries_the_index_of_its_entry() {
    let disk = FakeDisk::new();
    let mut machine = Machine::open(&disk);
    machine.elect().unwrap();
    let ask = |name: &str| InternalRaftRequest {
        authenticate: Some(InternalAuthenticateRequest {
            name: name.to_owned(),
            simple_token: "prefix".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let nobody = AuthInfo::default();
    assert_eq!(
        machine.refusal(&nobody, ask("alice")),
        Some(AuthError::AuthNotEnabled)
    );
    set_up(&mut machine);
    assert_eq!(machine.refusal(&nobody, ask("eve")), Some(AuthError::AuthFailed));
    let Ok(Answer::Auth(Reply::Authenticated { token, revision })) =
        machine.propose_as(&nobody, ask("alice"))
    else {
        panic!("alice has a password")
    };
    assert_eq!(
        (token, revision),
        (format!("prefix.{}", machine.applier.frame.index), 7)
    );
}
