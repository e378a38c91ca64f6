//! `user add|delete|get|list|passwd|grant-role|revoke-role`.

use etcd_api::authpb::UserAddOptions;
use etcd_api::etcdserverpb::auth_client::AuthClient;
use etcd_api::etcdserverpb::{
    AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGetRequest,
    AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest,
};

use super::{Ctl, Run, call, role, run};
use crate::client::{Context, Policy};
use crate::cobra::{Command, Flag, Kind};
use crate::exit::Exit;
use crate::printer::Reply;
use crate::terminal;
use crate::unary;

pub fn command() -> Command<Run> {
    let interactive = |usage| Flag::new(Kind::Bool, "interactive", "true", usage);
    let subcommands = vec![
        Command::new(
            "add <user name or user:password> [options]",
            "Adds a new user",
            run!(add),
        )
        .flags(vec![
            interactive("Read password from stdin instead of interactive terminal"),
            Flag::string(
                "new-user-password",
                "",
                "Supply password from the command line flag",
            ),
            Flag::bool(
                "no-password",
                "Create a user without password (CN based auth only)",
            ),
        ]),
        Command::new("delete <user name>", "Deletes a user", run!(delete)),
        Command::new(
            "get <user name> [options]",
            "Gets detailed information of a user",
            run!(get),
        )
        .flags(vec![Flag::bool(
            "detail",
            "Show permissions of roles granted to the user",
        )]),
        Command::new(
            "grant-role <user name> <role name>",
            "Grants a role to a user",
            run!(grant_role),
        ),
        Command::new("list", "Lists all users", run!(list)),
        Command::new(
            "passwd <user name> [options]",
            "Changes password of user",
            run!(passwd),
        )
        .flags(vec![interactive(
            "If true, read password from stdin instead of interactive terminal",
        )]),
        Command::new(
            "revoke-role <user name> <role name>",
            "Revokes a role from a user",
            run!(revoke_role),
        ),
    ];
    Command::group("user <subcommand>", "User related commands", subcommands)
}

fn name(ctl: &Ctl, command: &str) -> Result<String, Exit> {
    if ctl.args.len() != 1 {
        return Err(Exit::bad_args(format!(
            "user {command} command requires user name as its argument"
        )));
    }
    Ok(ctl.arg(0).to_owned())
}

async fn add(ctl: &mut Ctl) -> Result<(), Exit> {
    let word = name(ctl, "add")?;
    let (name, password) = new_user(ctl, &word)?;
    let no_password = ctl.flags.bool("no-password");
    let request = AuthUserAddRequest {
        name: name.clone(),
        password,
        options: Some(UserAddOptions { no_password }),
        hashed_password: String::new(),
    };
    let answer = call!(
        ctl,
        Context::background(),
        NonRepeatable,
        AuthClient.user_add(request),
        "/etcdserverpb.Auth/UserAdd"
    );
    ctl.print(&Reply::UserAdd(name, answer))
}

/// Name and password, from wherever the flags say.
fn new_user(ctl: &Ctl, word: &str) -> Result<(String, String), Exit> {
    if ctl.flags.bool("no-password") {
        return Ok((word.to_owned(), String::new()));
    }
    let flag = ctl.flags.string("new-user-password");
    if !flag.is_empty() {
        return Ok((word.to_owned(), flag.to_owned()));
    }
    match word.split_once(':') {
        Some(("", _)) => Err(Exit::bad_args("empty user name is not allowed")),
        Some((name, password)) => Ok((name.to_owned(), password.to_owned())),
        None => Ok((word.to_owned(), read_password(ctl, word)?)),
    }
}

fn read_password(ctl: &Ctl, name: &str) -> Result<String, Exit> {
    if !ctl.flags.bool("interactive") {
        return Ok(terminal::word_from_stdin()?);
    }
    let failed = |error| Exit::bad_args(format!("failed to ask password: {error}"));
    let password = terminal::ask_password(&format!("Password of {name}: ")).map_err(failed)?;
    if password.is_empty() {
        return Err(Exit::bad_args("empty password"));
    }
    let prompt = format!("Type password of {name} again for confirmation: ");
    if terminal::ask_password(&prompt).map_err(failed)? != password {
        return Err(Exit::bad_args("given passwords are different"));
    }
    Ok(password)
}

async fn delete(ctl: &mut Ctl) -> Result<(), Exit> {
    let name = name(ctl, "delete")?;
    let request = AuthUserDeleteRequest { name: name.clone() };
    let answer = call!(
        ctl,
        Context::background(),
        NonRepeatable,
        AuthClient.user_delete(request),
        "/etcdserverpb.Auth/UserDelete"
    );
    ctl.print(&Reply::UserDelete(name, answer))
}

async fn get(ctl: &mut Ctl) -> Result<(), Exit> {
    let name = name(ctl, "get")?;
    let client = ctl.client().await?;
    let context = Context::background();
    let (policy, request) = (Policy::Repeatable, AuthUserGetRequest { name: name.clone() });
    let answer = unary!(
        client,
        context,
        policy,
        AuthClient,
        user_get,
        "/etcdserverpb.Auth/UserGet",
        request
    );
    let answer = answer.map_err(Exit::error)?;
    if !ctl.flags.bool("detail") {
        return ctl.print(&Reply::UserGet(name, answer));
    }
    ctl.say(&format!("User: {name}"))?;
    for role in answer.roles {
        ctl.say("")?;
        let detail = role::role_get(&client, &role).await.map_err(Exit::error)?;
        ctl.print(&Reply::RoleGet(role, detail))?;
    }
    Ok(())
}

async fn list(ctl: &mut Ctl) -> Result<(), Exit> {
    if !ctl.args.is_empty() {
        return Err(Exit::bad_args("user list command requires no arguments"));
    }
    let request = AuthUserListRequest {};
    let answer = call!(
        ctl,
        Context::background(),
        Repeatable,
        AuthClient.user_list(request),
        "/etcdserverpb.Auth/UserList"
    );
    ctl.print(&Reply::UserList(answer))
}

async fn passwd(ctl: &mut Ctl) -> Result<(), Exit> {
    let name = name(ctl, "passwd")?;
    let password = read_password(ctl, &name)?;
    let request = AuthUserChangePasswordRequest {
        name,
        password,
        hashed_password: String::new(),
    };
    let answer = call!(
        ctl,
        Context::background(),
        NonRepeatable,
        AuthClient.user_change_password(request),
        "/etcdserverpb.Auth/UserChangePassword"
    );
    ctl.print(&Reply::UserChangePassword(answer))
}

async fn grant_role(ctl: &mut Ctl) -> Result<(), Exit> {
    if ctl.args.len() != 2 {
        return Err(Exit::bad_args(
            "user grant command requires user name and role name as its argument",
        ));
    }
    let (user, role) = (ctl.arg(0).to_owned(), ctl.arg(1).to_owned());
    let request = AuthUserGrantRoleRequest {
        user: user.clone(),
        role: role.clone(),
    };
    let answer = call!(
        ctl,
        Context::background(),
        NonRepeatable,
        AuthClient.user_grant_role(request),
        "/etcdserverpb.Auth/UserGrantRole"
    );
    ctl.print(&Reply::UserGrantRole { user, role, answer })
}

async fn revoke_role(ctl: &mut Ctl) -> Result<(), Exit> {
    if ctl.args.len() != 2 {
        return Err(Exit::bad_args(
            "user revoke-role requires user name and role name as its argument",
        ));
    }
    let (user, role) = (ctl.arg(0).to_owned(), ctl.arg(1).to_owned());
    let request = AuthUserRevokeRoleRequest {
        name: user.clone(),
        role: role.clone(),
    };
    let answer = call!(
        ctl,
        Context::background(),
        NonRepeatable,
        AuthClient.user_revoke_role(request),
        "/etcdserverpb.Auth/UserRevokeRole"
    );
    ctl.print(&Reply::UserRevokeRole { user, role, answer })
}
