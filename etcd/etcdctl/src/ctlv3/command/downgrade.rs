//! `downgrade validate|enable|cancel`.

use etcd_api::etcdserverpb::DowngradeRequest;
use etcd_api::etcdserverpb::downgrade_request::DowngradeAction;
use etcd_api::etcdserverpb::maintenance_client::MaintenanceClient;

use super::{Ctl, Run, run};
use crate::client::Policy;
use crate::cobra::Command;
use crate::exit::Exit;
use crate::printer::Reply;
use crate::unary;

pub fn command() -> Command<Run> {
    let validate = "Validate downgrade capability before starting downgrade";
    let subcommands = vec![
        Command::new(
            "cancel",
            "Cancel the ongoing downgrade action to cluster",
            run!(cancel),
        ),
        Command::new(
            "enable <TARGET_VERSION>",
            "Start a downgrade action to cluster",
            run!(enable),
        ),
        Command::new("validate <TARGET_VERSION>", validate, run!(self::validate)),
    ];
    Command::group(
        "downgrade <TARGET_VERSION>",
        "Downgrade related commands",
        subcommands,
    )
}

async fn validate(ctl: &mut Ctl) -> Result<(), Exit> {
    let version = target(ctl)?;
    send(ctl, "validate", DowngradeAction::Validate, version).await
}

async fn enable(ctl: &mut Ctl) -> Result<(), Exit> {
    let version = target(ctl)?;
    send(ctl, "enable", DowngradeAction::Enable, version).await
}

async fn cancel(ctl: &mut Ctl) -> Result<(), Exit> {
    send(ctl, "cancel", DowngradeAction::Cancel, String::new()).await
}

fn target(ctl: &Ctl) -> Result<String, Exit> {
    match ctl.args.as_slice() {
        [] => Err(Exit::bad_args("TARGET_VERSION not provided")),
        [version] if version.is_empty() => Err(Exit::bad_args("target version not provided")),
        [version] => Ok(version.clone()),
        _ => Err(Exit::bad_args("too many arguments")),
    }
}

async fn send(
    ctl: &mut Ctl,
    name: &'static str,
    action: DowngradeAction,
    version: String,
) -> Result<(), Exit> {
    let context = ctl.context();
    let client = ctl.client().await?;
    let request = DowngradeRequest {
        action: action.into(),
        version,
    };
    let policy = Policy::NonRepeatable;
    let answer = unary!(
        client,
        context,
        policy,
        MaintenanceClient,
        downgrade,
        "/etcdserverpb.Maintenance/Downgrade",
        request
    );
    ctl.print(&Reply::Downgrade(name, answer.map_err(Exit::error)?))
}
