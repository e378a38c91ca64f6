//! `role add|delete|get|list|grant-permission|revoke-permission`.

use bytes::Bytes;
use etcd_api::authpb::Permission;
use etcd_api::authpb::permission::Type;
use etcd_api::etcdserverpb::auth_client::AuthClient;
use etcd_api::etcdserverpb::{
    AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest, AuthRoleGetResponse,
    AuthRoleGrantPermissionRequest, AuthRoleListRequest, AuthRoleRevokePermissionRequest,
};

use super::{Ctl, Run, call, run};
use crate::client::kv::{OPEN_END, prefix_end};
use crate::client::{Client, Context, Error, Policy};
use crate::cobra::{Command, Flag, Flags};
use crate::exit::Exit;
use crate::printer::Reply;
use crate::unary;

const EXCLUSIVE: &str = "--from-key and --prefix flags are mutually exclusive";

pub fn command() -> Command<Run> {
    let grant = "grant-permission [options] <role name> <permission type> <key> [endkey]";
    let revoke = "revoke-permission <role name> <key> [endkey]";
    let subcommands = vec![
        Command::new("add <role name>", "Adds a new role", run!(add)),
        Command::new("delete <role name>", "Deletes a role", run!(delete)),
        Command::new("get <role name>", "Gets detailed information of a role", run!(get)),
        Command::new(grant, "Grants a key to a role", run!(grant_permission)).flags(vec![
            Flag::bool("prefix", "grant a prefix permission"),
            Flag::bool("from-key", "grant a permission of keys that are greater than or equal to the given key using byte compare"),
        ]),
        Command::new("list", "Lists all roles", run!(list)),
        Command::new(revoke, "Revokes a key from a role", run!(revoke_permission)).flags(vec![
            Flag::bool("prefix", "revoke a prefix permission"),
            Flag::bool("from-key", "revoke a permission of keys that are greater than or equal to the given key using byte compare"),
        ]),
    ];
    Command::group("role <subcommand>", "Role related commands", subcommands)
}

fn name(ctl: &Ctl, command: &str) -> Result<String, Exit> {
    if ctl.args.len() != 1 {
        return Err(Exit::bad_args(format!(
            "role {command} command requires role name as its argument"
        )));
    }
    Ok(ctl.arg(0).to_owned())
}

async fn add(ctl: &mut Ctl) -> Result<(), Exit> {
    let name = name(ctl, "add")?;
    let request = AuthRoleAddRequest { name: name.clone() };
    let answer = call!(
        ctl,
        Context::background(),
        NonRepeatable,
        AuthClient.role_add(request),
        "/etcdserverpb.Auth/RoleAdd"
    );
    ctl.print(&Reply::RoleAdd(name, answer))
}

async fn delete(ctl: &mut Ctl) -> Result<(), Exit> {
    let role = name(ctl, "delete")?;
    let request = AuthRoleDeleteRequest { role: role.clone() };
    let answer = call!(
        ctl,
        Context::background(),
        NonRepeatable,
        AuthClient.role_delete(request),
        "/etcdserverpb.Auth/RoleDelete"
    );
    ctl.print(&Reply::RoleDelete(role, answer))
}

async fn get(ctl: &mut Ctl) -> Result<(), Exit> {
    let role = name(ctl, "get")?;
    let client = ctl.client().await?;
    let answer = role_get(&client, &role).await.map_err(Exit::error)?;
    ctl.print(&Reply::RoleGet(role, answer))
}

pub async fn role_get(client: &Client, role: &str) -> Result<AuthRoleGetResponse, Error> {
    let context = Context::background();
    let (policy, request) = (
        Policy::Repeatable,
        AuthRoleGetRequest {
            role: role.to_owned(),
        },
    );
    unary!(
        client,
        context,
        policy,
        AuthClient,
        role_get,
        "/etcdserverpb.Auth/RoleGet",
        request
    )
}

async fn list(ctl: &mut Ctl) -> Result<(), Exit> {
    if !ctl.args.is_empty() {
        return Err(Exit::bad_args("role list command requires no arguments"));
    }
    let request = AuthRoleListRequest {};
    let answer = call!(
        ctl,
        Context::background(),
        Repeatable,
        AuthClient.role_list(request),
        "/etcdserverpb.Auth/RoleList"
    );
    ctl.print(&Reply::RoleList(answer))
}

async fn grant_permission(ctl: &mut Ctl) -> Result<(), Exit> {
    if ctl.args.len() < 3 {
        let needs =
            "role grant command requires role name, permission type, and key [endkey] as its argument";
        return Err(Exit::bad_args(needs));
    }
    let perm_type = permission_type(ctl.arg(1))?.into();
    let (key, range_end) = range(&ctl.flags, &ctl.args[2..])?;
    let role = ctl.arg(0).to_owned();
    let request = AuthRoleGrantPermissionRequest {
        name: role.clone(),
        perm: Some(Permission {
            perm_type,
            key,
            range_end,
        }),
    };
    let answer = call!(
        ctl,
        Context::background(),
        NonRepeatable,
        AuthClient.role_grant_permission(request),
        "/etcdserverpb.Auth/RoleGrantPermission"
    );
    ctl.print(&Reply::RoleGrantPermission(role, answer))
}

fn permission_type(text: &str) -> Result<Type, Exit> {
    Type::from_str_name(&text.to_uppercase())
        .ok_or_else(|| Exit::bad_args(format!("invalid permission type: {text}")))
}

async fn revoke_permission(ctl: &mut Ctl) -> Result<(), Exit> {
    if ctl.args.len() < 2 {
        let needs = "role revoke-permission command requires role name and key [endkey] as its argument";
        return Err(Exit::bad_args(needs));
    }
    let (key, range_end) = range(&ctl.flags, &ctl.args[1..])?;
    let role = ctl.arg(0).to_owned();
    let end = range_end.to_vec();
    let request = AuthRoleRevokePermissionRequest {
        role: role.clone(),
        key,
        range_end,
    };
    let answer = call!(
        ctl,
        Context::background(),
        NonRepeatable,
        AuthClient.role_revoke_permission(request),
        "/etcdserverpb.Auth/RoleRevokePermission"
    );
    ctl.print(&Reply::RoleRevokePermission {
        role,
        key: ctl.arg(1).to_owned(),
        end,
        answer,
    })
}

/// Key and end of a permission. The server takes `\0` for an open end, and no empty key.
fn range(flags: &Flags, args: &[String]) -> Result<(Bytes, Bytes), Exit> {
    let (prefix, from_key) = (flags.bool("prefix"), flags.bool("from-key"));
    let open = Bytes::from_static(OPEN_END);
    let key = args.first().cloned().unwrap_or_default();
    if prefix && from_key && (key.is_empty() || args.len() == 1) {
        return Err(Exit::bad_args(EXCLUSIVE));
    }
    if key.is_empty() {
        let end = if prefix || from_key { open } else { Bytes::new() };
        return Ok((Bytes::from_static(b"\0"), end));
    }
    let end = match args.get(1) {
        Some(_) if prefix => return Err(Exit::bad_args("unexpected endkey argument with --prefix flag")),
        Some(_) if from_key => return Err(Exit::bad_args("unexpected endkey argument with --from-key flag")),
        Some(end) => Bytes::from(end.clone()),
        None if prefix => prefix_end(key.as_bytes()),
        None if from_key => open,
        None => Bytes::new(),
    };
    Ok((key.into(), end))
}
