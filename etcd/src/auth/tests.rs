//! Transcripts: what is asked, one line after the other, and what comes of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use etcd_api::authpb::UserAddOptions;
use etcd_api::authpb::permission::Type;
use etcd_api::etcdserverpb::{
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest, request_op::Request,
};

use super::check::Check;
use super::range_perm_cache::Kind;
use super::rules::Decision;
use super::*;
use crate::clock::Millis;
use crate::mvcc::key::KeyRange;

fn store() -> AuthStore {
    AuthStore::new(Rules::default(), &Options::default()).unwrap()
}

/// A permission's range as a transcript writes it: `-` is one key, `*` is everything from the key on.
fn end(text: &str) -> Bytes {
    match text {
        "-" => Bytes::new(),
        "*" => Bytes::from_static(&[0]),
        end => end.to_owned().into(),
    }
}

fn key(text: &str) -> Bytes {
    text.to_owned().into()
}

fn decide(rules: &Rules, words: &[&str]) -> Decision {
    let hashed = |word: &str| STANDARD.encode(word);
    match words {
        ["enable"] => rules.enable(),
        ["disable"] => rules.disable(),
        ["user-add", name, "nopassword"] => rules.user_add(&AuthUserAddRequest {
            name: (*name).to_owned(),
            options: Some(UserAddOptions { no_password: true }),
            ..Default::default()
        }),
        ["user-add", name, word] => rules.user_add(&AuthUserAddRequest {
            name: (*name).to_owned(),
            hashed_password: hashed(word),
            ..Default::default()
        }),
        ["user-add"] => rules.user_add(&AuthUserAddRequest::default()),
        ["user-delete", name] => rules.user_delete(name),
        ["passwd", name, word] => rules.user_change_password(&AuthUserChangePasswordRequest {
            name: (*name).to_owned(),
            hashed_password: hashed(word),
            ..Default::default()
        }),
        ["grant-role", name, role] => rules.user_grant_role(name, role),
        ["revoke-role", name, role] => rules.user_revoke_role(name, role),
        ["role-add"] => rules.role_add(""),
        ["role-add", name] => rules.role_add(name),
        ["role-delete", name] => rules.role_delete(name),
        ["grant", name] => rules.role_grant_permission(&AuthRoleGrantPermissionRequest {
            name: (*name).to_owned(),
            perm: None,
        }),
        ["grant", name, kind, start, range_end] => {
            rules.role_grant_permission(&AuthRoleGrantPermissionRequest {
                name: (*name).to_owned(),
                perm: Some(Permission {
                    perm_type: Type::from_str_name(kind).unwrap() as i32,
                    key: key(start),
                    range_end: end(range_end),
                }),
            })
        }
        ["revoke", name, start, range_end] => {
            rules.role_revoke_permission(&AuthRoleRevokePermissionRequest {
                role: (*name).to_owned(),
                key: key(start),
                range_end: end(range_end),
            })
        }
        other => panic!("what is {other:?}"),
    }
}

fn show(permissions: &[Permission]) -> String {
    let one = |permission: &Permission| {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).replace('\0', "*");
        format!(
            "{} {}..{}",
            permission.perm_type().as_str_name(),
            text(&permission.key),
            text(&permission.range_end)
        )
    };
    permissions.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The answer to one line: the revision after a change, what was asked for, or the refusal.
fn run(store: &AuthStore, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let who = |name: &str| AuthInfo {
        username: name.to_owned(),
        revision: store.revision(),
    };
    let asked = match &words[..] {
        ["users"] => Ok(store.rules().user_list().join(" ")),
        ["roles"] => Ok(store.rules().role_list().join(" ")),
        ["user", name] => store.rules().user_get(name).map(|roles| roles.join(" ")),
        ["role", name] => store.rules().role_get(name).map(|permissions| show(&permissions)),
        ["read", name, start, range_end] => store
            .rules()
            .permits(
                &who(name),
                &KeyRange::new(&key(start), &end(range_end)),
                Kind::Read,
            )
            .map(|()| "yes".to_owned()),
        ["write", name, start, range_end] => store
            .rules()
            .permits(
                &who(name),
                &KeyRange::new(&key(start), &end(range_end)),
                Kind::Write,
            )
            .map(|()| "yes".to_owned()),
        ["admin", name] => store.rules().permits_admin(&who(name)).map(|()| "yes".to_owned()),
        _ => {
            let decision = decide(&store.rules(), &words);
            decision.map(|records| {
                store.install(&records);
                store.revision().to_string()
            })
        }
    };
    asked.unwrap_or_else(|error| error.to_string().replace("etcdserver: ", ""))
}

/// Lines of the form `asked -> answered`.
fn transcript(text: &str) {
    let store = store();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (asked, expected) = line.split_once(" ->").unwrap_or_else(|| panic!("{line:?}"));
        let expected = expected.trim_start();
        assert_eq!(run(&store, asked), expected, "{line}\nafter {:?}", store.rules());
    }
}

#[test]
fn auth_is_enabled_when_root_can_disable_it_again() {
    transcript(
        "enable -> root user does not exist
         user-add root secret -> 2
         enable -> root user does not have root role
         grant-role root root -> 3
         enable -> 3
         enable -> 3
         user-delete root -> invalid auth management
         revoke-role root root -> invalid auth management
         role-delete root -> invalid auth management
         role-add root -> 4
         role root -> READWRITE ..*
         role-delete root -> invalid auth management
         admin root -> yes
         admin nobody -> user name not found
         disable -> 5
         disable -> 5
         admin nobody -> yes
         revoke-role root root -> 6
         role-delete root -> 7
         user-delete root -> 8",
    );
}

#[test]
fn users_and_roles_are_changed_as_etcd_changes_them() {
    transcript(
        "user-add -> user name is empty
         user-add alice a -> 2
         user-add alice a -> user name already exists
         user-add robot nopassword -> 3
         users -> alice robot
         user nobody -> user name not found
         passwd nobody x -> user name not found
         passwd alice b -> 4
         passwd robot b -> 5
         role-add -> role name is empty
         role-add reader -> 6
         role-add reader -> role name already exists
         role-add writer -> 7
         roles -> reader writer
         role nothing -> role name not found
         grant-role nobody reader -> user name not found
         grant-role alice nothing -> role name not found
         grant-role alice writer -> 8
         grant-role alice reader -> 9
         grant-role alice reader -> 9
         user alice -> reader writer
         revoke-role alice nothing -> role is not granted to the user
         revoke-role nobody reader -> user name not found
         revoke-role alice reader -> 10
         revoke-role alice reader -> role is not granted to the user
         role-delete writer -> 11
         role-delete writer -> role name not found
         user alice -> ",
    );
}

#[test]
fn permissions_are_granted_replaced_and_revoked() {
    transcript(
        "role-add r -> 2
         grant r -> permission not given
         grant nothing READ a - -> role name not found
         grant r READ b a -> invalid auth management
         grant r READ  - -> invalid auth management
         grant r READ b d -> 3
         grant r WRITE a - -> 4
         role r -> WRITE a.., READ b..d
         grant r READWRITE b d -> 5
         grant r READ b * -> 6
         role r -> WRITE a.., READWRITE b..d, READ b..*
         revoke r b c -> permission is not granted to the role
         revoke nothing b d -> role name not found
         revoke r b * -> 7
         role r -> WRITE a.., READWRITE b..d",
    );
}

#[test]
fn what_is_granted_counts_at_once_and_no_longer_than_it_is_granted() {
    transcript(
        "user-add root x -> 2
         grant-role root root -> 3
         user-add alice x -> 4
         role-add r -> 5
         grant r READ a c -> 6
         grant-role alice r -> 7
         read bob z - -> yes
         enable -> 7
         read root a * -> yes
         write root z - -> yes
         read alice a c -> yes
         read alice b - -> yes
         read alice a d -> permission denied
         read alice a * -> permission denied
         write alice a - -> permission denied
         read nobody a - -> permission denied
         grant r READWRITE c e -> 8
         read alice a e -> yes
         write alice c - -> yes
         write alice c e -> yes
         write alice b e -> permission denied
         revoke r a c -> 9
         read alice a c -> permission denied
         read alice c e -> yes
         revoke-role alice r -> 10
         read alice c e -> permission denied
         grant-role alice r -> 11
         read alice c e -> yes
         role-delete r -> 12
         read alice c e -> permission denied
         user-delete alice -> 13
         read alice c - -> permission denied
         user-add alice x -> 14
         read alice c - -> permission denied",
    );
}

#[test]
fn an_old_revision_is_refused_and_no_revision_is_nobody() {
    let store = store();
    for line in ["user-add root x", "grant-role root root", "enable"] {
        run(&store, line);
    }
    let range = KeyRange::Single("a".into());
    let at = |username: &str, revision| {
        let who = AuthInfo {
            username: username.to_owned(),
            revision,
        };
        store.rules().permits(&who, &range, Kind::Read)
    };
    assert_eq!(at("root", 3), Ok(()));
    assert_eq!(at("root", 2), Err(AuthError::AuthOldRevision));
    assert_eq!(at("root", 0), Err(AuthError::UserEmpty));
    assert_eq!(
        store.rules().permits_admin(&AuthInfo::default()),
        Err(AuthError::UserEmpty)
    );
}

#[test]
fn tokens_end_with_the_user_the_password_and_auth_itself() {
    let store = store();
    for line in [
        "user-add root x",
        "grant-role root root",
        "user-add alice x",
        "user-add bob x",
        "enable",
    ] {
        run(&store, line);
    }
    let TokenProvider::Simple(tokens) = &store.tokens else {
        panic!("simple tokens are the default")
    };
    let known = |token: &str| tokens.user(token, Millis(1)).is_some();
    let assign = || {
        for (user, token) in [("root", "r.1"), ("alice", "a.1"), ("bob", "b.1")] {
            tokens.assign(user, token, Millis(0));
        }
    };
    assign();
    run(&store, "grant-role alice root");
    assert!(known("a.1"), "roles are no reason");
    run(&store, "passwd alice y");
    assert!(!known("a.1") && known("b.1"));
    run(&store, "user-delete bob");
    assert!(!known("b.1") && known("r.1"));
    run(&store, "disable");
    assert!(!known("r.1"));
}

fn put(text: &str) -> PutRequest {
    PutRequest {
        key: key(text),
        ..Default::default()
    }
}

fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

/// Alice reads r, writes w, and does both on b; lease 1 has the key b, lease 2 the key z, and lease 3 has none.
#[test]
fn requests_are_checked_in_every_part() {
    let store = store();
    for line in [
        "user-add root x",
        "grant-role root root",
        "user-add alice x",
        "role-add a",
        "grant a READ r s",
        "grant a WRITE w -",
        "grant a READWRITE b -",
        "grant-role alice a",
        "enable",
    ] {
        run(&store, line);
    }
    let who = AuthInfo {
        username: "alice".to_owned(),
        revision: store.revision(),
    };
    let keys_of = |lease| match lease {
        1 => vec![key("b")],
        2 => vec![key("b"), key("z")],
        _ => Vec::new(),
    };
    let rules = store.rules();
    let check = Check {
        rules: &rules,
        who: &who,
        keys_of: &keys_of,
    };
    let range = |start: &str, range_end: &str| RangeRequest {
        key: key(start),
        range_end: end(range_end),
        ..Default::default()
    };
    let delete = |start: &str, prev_kv| DeleteRangeRequest {
        key: key(start),
        prev_kv,
        ..Default::default()
    };
    let with_prev = |text| PutRequest {
        prev_kv: true,
        ..put(text)
    };
    let leased = |text, lease| PutRequest { lease, ..put(text) };
    let compare = |text: &str, range_end: &str| TxnRequest {
        compare: vec![Compare {
            key: key(text),
            range_end: end(range_end),
            ..Default::default()
        }],
        ..Default::default()
    };
    let then = |request: Request| TxnRequest {
        success: vec![op(request)],
        ..Default::default()
    };
    let otherwise = |request: Request| TxnRequest {
        failure: vec![op(request)],
        ..Default::default()
    };
    let nested = |txn: TxnRequest| then(Request::RequestTxn(otherwise(Request::RequestTxn(txn))));
    let mut wrong = Vec::new();
    let cases: Vec<(&str, Result<(), AuthError>, bool)> = vec![
        ("range", check.range(&range("r", "-")), true),
        ("range to the end", check.range(&range("r", "*")), false),
        (
            "range of what is only written",
            check.range(&range("w", "-")),
            false,
        ),
        ("put", check.put(&put("w")), true),
        ("put of what is only read", check.put(&put("r")), false),
        ("put with what was there", check.put(&with_prev("w")), false),
        (
            "put with what was there, readable",
            check.put(&with_prev("b")),
            true,
        ),
        ("put with a lease of own keys", check.put(&leased("w", 1)), true),
        (
            "put with a lease of others' keys",
            check.put(&leased("w", 2)),
            false,
        ),
        ("put with a new lease", check.put(&leased("w", 3)), true),
        ("delete", check.delete_range(&delete("w", false)), true),
        (
            "delete with what was there",
            check.delete_range(&delete("w", true)),
            false,
        ),
        (
            "delete with what was there, readable",
            check.delete_range(&delete("b", true)),
            true,
        ),
        (
            "delete of what is only read",
            check.delete_range(&delete("r", false)),
            false,
        ),
        ("condition", check.txn(&compare("r", "-")), true),
        (
            "condition on what is only written",
            check.txn(&compare("w", "-")),
            false,
        ),
        ("condition on a range", check.txn(&compare("r", "z")), false),
        (
            "then range",
            check.txn(&then(Request::RequestRange(range("r", "-")))),
            true,
        ),
        (
            "then forbidden range",
            check.txn(&then(Request::RequestRange(range("w", "-")))),
            false,
        ),
        (
            "else forbidden put",
            check.txn(&otherwise(Request::RequestPut(put("r")))),
            false,
        ),
        (
            "else put with what was there",
            check.txn(&otherwise(Request::RequestPut(with_prev("w")))),
            false,
        ),
        (
            "then put with others' lease",
            check.txn(&then(Request::RequestPut(leased("w", 2)))),
            false,
        ),
        (
            "then forbidden delete",
            check.txn(&then(Request::RequestDeleteRange(delete("r", false)))),
            false,
        ),
        (
            "then delete with what was there",
            check.txn(&then(Request::RequestDeleteRange(delete("w", true)))),
            false,
        ),
        (
            "nested put",
            check.txn(&nested(then(Request::RequestPut(put("w"))))),
            true,
        ),
        (
            "nested forbidden put",
            check.txn(&nested(then(Request::RequestPut(put("r"))))),
            false,
        ),
        (
            "nested put with what was there",
            check.txn(&nested(then(Request::RequestPut(with_prev("w"))))),
            false,
        ),
        (
            "nested put with others' lease",
            check.txn(&nested(then(Request::RequestPut(leased("w", 2))))),
            false,
        ),
        (
            "nested forbidden condition",
            check.txn(&nested(compare("w", "-"))),
            false,
        ),
        (
            "nested forbidden delete",
            check.txn(&nested(then(Request::RequestDeleteRange(delete("r", false))))),
            false,
        ),
        ("ending a lease of own keys", check.lease_write(1), true),
        ("ending a lease of others' keys", check.lease_write(2), false),
        ("names of own keys", check.lease_read(1), true),
        ("names of others' keys", check.lease_read(2), false),
        ("admin", check.admin(), false),
    ];
    for (what, result, allowed) in cases {
        let expected = if allowed {
            Ok(())
        } else {
            Err(AuthError::PermissionDenied)
        };
        if result != expected {
            wrong.push((what, result));
        }
    }
    assert_eq!(wrong, []);
}

#[test]
fn a_restored_store_permits_what_the_stored_one_did() {
    let store = store();
    let mut records = Vec::new();
    for line in [
        "user-add root x",
        "grant-role root root",
        "user-add alice x",
        "role-add a",
        "grant a READ r s",
        "grant-role alice a",
        "enable",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let decided = decide(&store.rules(), &words).unwrap();
        store.install(&decided);
        records.extend(decided);
    }
    // As they are stored: by kind, not by time; a later record of the same thing replaces an earlier one.
    let again = self::store();
    again.restore(Rules::restore(records));
    assert!(again.is_enabled());
    assert_eq!(again.revision(), store.revision());
    assert_eq!(run(&again, "read alice r s"), "yes");
    assert_eq!(run(&again, "write alice r -"), "permission denied");
    assert_eq!(run(&again, "admin root"), "yes");
}
