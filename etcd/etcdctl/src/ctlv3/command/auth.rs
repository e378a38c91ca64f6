//! `auth enable|disable|status`.

use etcd_api::etcdserverpb::auth_client::AuthClient;
use etcd_api::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthStatusRequest, AuthUserGrantRoleRequest,
};

use super::{Ctl, Run, call, run};
use crate::client::{Client, Context, Error, Policy};
use crate::cobra::Command;
use crate::exit::Exit;
use crate::printer::Reply;
use crate::unary;

const ROOT: &str = "root";

pub fn command() -> Command<Run> {
    let subcommands = vec![
        Command::new("disable", "Disables authentication", run!(disable)),
        Command::new("enable", "Enables authentication", run!(enable)),
        Command::new("status", "Returns authentication status", run!(status)),
    ];
    Command::group(
        "auth <enable or disable>",
        "Enable or disable authentication",
        subcommands,
    )
}

fn no_arguments(ctl: &Ctl, name: &str) -> Result<(), Exit> {
    match ctl.args.is_empty() {
        true => Ok(()),
        false => Err(Exit::bad_args(format!(
            "auth {name} command does not accept any arguments"
        ))),
    }
}

async fn status(ctl: &mut Ctl) -> Result<(), Exit> {
    no_arguments(ctl, "status")?;
    let context = ctl.context();
    let request = AuthStatusRequest {};
    let answer = call!(
        ctl,
        context,
        NonRepeatable,
        AuthClient.auth_status(request),
        "/etcdserverpb.Auth/AuthStatus"
    );
    ctl.print(&Reply::AuthStatus(answer))
}

async fn enable(ctl: &mut Ctl) -> Result<(), Exit> {
    no_arguments(ctl, "enable")?;
    let context = ctl.context();
    let client = ctl.client().await?;
    loop {
        let (policy, request) = (Policy::NonRepeatable, AuthEnableRequest {});
        let answer = unary!(
            client,
            context,
            policy,
            AuthClient,
            auth_enable,
            "/etcdserverpb.Auth/AuthEnable",
            request
        );
        match answer {
            Ok(_) => return ctl.say("Authentication Enabled"),
            Err(error) if error.is_root_role_not_exist() => {
                make_root(&client, &context).await.map_err(Exit::error)?;
            }
            Err(error) => return Err(Exit::error(error)),
        }
    }
}

async fn make_root(client: &Client, context: &Context) -> Result<(), Error> {
    let (policy, role) = (
        Policy::NonRepeatable,
        AuthRoleAddRequest {
            name: ROOT.to_owned(),
        },
    );
    unary!(
        client,
        context,
        policy,
        AuthClient,
        role_add,
        "/etcdserverpb.Auth/RoleAdd",
        role
    )?;
    let grant = AuthUserGrantRoleRequest {
        user: ROOT.to_owned(),
        role: ROOT.to_owned(),
    };
    unary!(
        client,
        context,
        policy,
        AuthClient,
        user_grant_role,
        "/etcdserverpb.Auth/UserGrantRole",
        grant
    )?;
    Ok(())
}

async fn disable(ctl: &mut Ctl) -> Result<(), Exit> {
    no_arguments(ctl, "disable")?;
    let context = ctl.context();
    let request = AuthDisableRequest {};
    call!(
        ctl,
        context,
        NonRepeatable,
        AuthClient.auth_disable(request),
        "/etcdserverpb.Auth/AuthDisable"
    );
    ctl.say("Authentication Disabled")
}
