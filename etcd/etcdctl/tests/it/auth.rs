//! Users and roles, compared from their making to their end.

use crate::compare::Pair;
use crate::programs::Rival;

const COMMANDS: &[&str] = &[
    "user add root:rootpw",
    "user add root:again",
    "user add alice --new-user-password=pw",
    "user add cert --no-password",
    "user list",
    "user list -w json",
    "role add readers",
    "role add readers",
    "role grant-permission readers read k --prefix",
    "role grant-permission readers readwrite one",
    "role grant-permission readers write a z",
    "role grant-permission readers read '' --from-key",
    "role grant-permission readers read k l --prefix",
    "role get readers",
    "role get readers -w json",
    "role get readers -w fields",
    "role list",
    "role list -w fields",
    "user grant-role alice readers",
    "user grant-role alice nobody",
    "user get alice",
    "user get alice --detail",
    "user get alice -w json",
    "auth enable",
    "get k",
    "put k v --user root:rootpw",
    "get k --user alice:pw",
    "get k --user alice --password pw -w json",
    "get zz --user alice:wrong",
    "del zz --user alice:pw",
    "auth status --user root:rootpw",
    "endpoint health --user alice:pw",
    "role revoke-permission readers k --prefix --user root:rootpw",
    "role revoke-permission readers one --user root:rootpw",
    "role revoke-permission readers a z --user root:rootpw",
    "role revoke-permission readers gone --user root:rootpw",
    "get k --user alice:pw",
    "user revoke-role alice readers --user root:rootpw",
    "user revoke-role alice readers --user root:rootpw",
    "user delete alice --user root:rootpw",
    "role delete readers --user root:rootpw",
    "auth disable --user root:rootpw",
    "user list",
];

#[test]
fn users_and_roles_are_told_the_same() {
    let (Some(server), Some(rival)) = (Rival::V35.etcd(), Rival::V35.etcdctl()) else {
        return;
    };
    let pair = Pair::new(&server, &rival, 3, &[]);
    COMMANDS.iter().for_each(|line| pair.same(line));
    pair.same_with("user add bob --interactive=false", "bobs\n");
    pair.same_with("user passwd bob --interactive=false", "other\n");
    pair.same("user passwd nobody --interactive=false");
    pair.finish();
}
