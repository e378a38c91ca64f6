//! `alarm list` and `alarm disarm`.

use etcd_api::etcdserverpb::alarm_request::AlarmAction;
use etcd_api::etcdserverpb::{AlarmMember, AlarmRequest, AlarmResponse};

use super::{Ctl, Run, run};
use crate::client::{Client, Context, Error};
use crate::cobra::Command;
use crate::exit::Exit;
use crate::printer::Reply;

pub fn command() -> Command<Run> {
    let subcommands = vec![
        Command::new("disarm", "Disarms all alarms", run!(disarm)),
        Command::new("list", "Lists all alarms", run!(list)),
    ];
    Command::group("alarm <subcommand>", "Alarm related commands", subcommands)
}

async fn list(ctl: &mut Ctl) -> Result<(), Exit> {
    if !ctl.args.is_empty() {
        return Err(Exit::bad_args("alarm list command accepts no arguments"));
    }
    let context = ctl.context();
    let client = ctl.client().await?;
    let answer = client.alarm_list(&context).await.map_err(Exit::error)?;
    ctl.print(&Reply::Alarm(answer))
}

async fn disarm(ctl: &mut Ctl) -> Result<(), Exit> {
    if !ctl.args.is_empty() {
        return Err(Exit::bad_args("alarm disarm command accepts no arguments"));
    }
    let context = ctl.context();
    let client = ctl.client().await?;
    let answer = disarm_all(&client, &context).await.map_err(Exit::error)?;
    ctl.print(&Reply::Alarm(answer))
}

/// The server disarms one alarm of one member at a time.
async fn disarm_all(client: &Client, context: &Context) -> Result<AlarmResponse, Error> {
    let listed = client.alarm_list(context).await?;
    let mut disarmed = AlarmResponse {
        header: None,
        alarms: Vec::new(),
    };
    for AlarmMember { member_id, alarm } in listed.alarms {
        let request = AlarmRequest {
            action: AlarmAction::Deactivate.into(),
            member_id,
            alarm,
        };
        let answer = client.alarm(context, request).await?;
        disarmed.alarms.extend(answer.alarms);
    }
    Ok(disarmed)
}
