//! `move-leader`: asked of the endpoint that leads.

use etcd_api::etcdserverpb::MoveLeaderRequest;
use etcd_api::etcdserverpb::maintenance_client::MaintenanceClient;

use super::{Ctl, Run, run};
use crate::client::{Client, Config, Context, Policy};
use crate::cobra::Command;
use crate::ctlv3::global::connect;
use crate::exit::Exit;
use crate::go::strconv::parse_uint;
use crate::printer::Reply;
use crate::unary;

pub fn command() -> Command<Run> {
    let short = "Transfers leadership to another etcd cluster member.";
    Command::new("move-leader <transferee-member-id>", short, run!(move_leader))
}

async fn move_leader(ctl: &mut Ctl) -> Result<(), Exit> {
    if ctl.args.len() != 1 {
        return Err(Exit::bad_args("move-leader command needs 1 argument"));
    }
    let target = parse_uint(ctl.arg(0), 16).map_err(Exit::bad_args)?;
    let config = ctl.config().await?;
    let context = ctl.context();
    let (client, leader) = find_leader(&config, &context).await?;
    let (policy, request) = (Policy::Repeatable, MoveLeaderRequest { target_id: target });
    let answer = unary!(
        client,
        context,
        policy,
        MaintenanceClient,
        move_leader,
        "/etcdserverpb.Maintenance/MoveLeader",
        request
    );
    let answer = answer.map_err(Exit::error)?;
    ctl.print(&Reply::MoveLeader {
        leader,
        target,
        answer,
    })
}

async fn find_leader(config: &Config, context: &Context) -> Result<(Client, u64), Exit> {
    for endpoint in &config.endpoints {
        let client = connect(config.for_endpoint(endpoint)).await?;
        let status = client.status(context).await.map_err(Exit::error)?;
        if status
            .header
            .is_some_and(|header| header.member_id == status.leader)
        {
            return Ok((client, status.leader));
        }
    }
    Err(Exit::bad_args(format!(
        "no leader endpoint given at [{}]",
        config.endpoints.join(" ")
    )))
}
