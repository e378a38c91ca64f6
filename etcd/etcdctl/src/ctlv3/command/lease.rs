//! `lease grant|revoke|timetolive|list|keep-alive`.

use super::{Ctl, Run, lease_id, run};
use crate::client::Context;
use crate::cobra::{Command, Flag};
use crate::exit::{Exit, code};
use crate::go::strconv::parse_int;
use crate::printer::Reply;

const ONCE: &str = "Resets the keep-alive time to its original value and cobrautl.Exits immediately";

pub fn command() -> Command<Run> {
    let subcommands = vec![
        Command::new("grant <ttl>", "Creates leases", run!(grant)),
        Command::new(
            "keep-alive [options] <leaseID>",
            "Keeps leases alive (renew)",
            run!(keep_alive),
        )
        .flags(vec![Flag::bool("once", ONCE)]),
        Command::new("list", "List all active leases", run!(list)),
        Command::new("revoke <leaseID>", "Revokes leases", run!(revoke)),
        Command::new(
            "timetolive <leaseID> [options]",
            "Get lease information",
            run!(time_to_live),
        )
        .flags(vec![Flag::bool("keys", "Get keys attached to this lease")]),
    ];
    Command::group("lease <subcommand>", "Lease related commands", subcommands)
}

fn id(ctl: &Ctl, needs: &str) -> Result<i64, Exit> {
    if ctl.args.len() != 1 {
        return Err(Exit::bad_args(needs));
    }
    lease_id(ctl.arg(0), "lease ID arg")
}

async fn grant(ctl: &mut Ctl) -> Result<(), Exit> {
    if ctl.args.len() != 1 {
        return Err(Exit::bad_args("lease grant command needs TTL argument"));
    }
    let ttl = parse_int(ctl.arg(0), 10).map_err(|error| Exit::bad_args(format!("bad TTL ({error})")))?;
    let context = ctl.context();
    let client = ctl.client().await?;
    let failed = |error| Exit::error(format!("failed to grant lease ({error})"));
    let answer = client.lease_grant(&context, ttl).await.map_err(failed)?;
    ctl.print(&Reply::Grant(answer))
}

async fn revoke(ctl: &mut Ctl) -> Result<(), Exit> {
    let id = id(ctl, "lease revoke command needs 1 argument")?;
    let context = ctl.context();
    let client = ctl.client().await?;
    let failed = |error| Exit::error(format!("failed to revoke lease ({error})"));
    let answer = client.lease_revoke(&context, id).await.map_err(failed)?;
    ctl.print(&Reply::Revoke(id, answer))
}

async fn time_to_live(ctl: &mut Ctl) -> Result<(), Exit> {
    if ctl.args.len() != 1 {
        return Err(Exit::bad_args(
            "lease timetolive command needs lease ID as argument",
        ));
    }
    let keys = ctl.flags.bool("keys");
    let client = ctl.client().await?;
    let id = lease_id(ctl.arg(0), "lease ID arg")?;
    let answer = client
        .time_to_live(&Context::background(), id, keys)
        .await
        .map_err(bad_connection)?;
    ctl.print(&Reply::TimeToLive(answer, keys))
}

async fn list(ctl: &mut Ctl) -> Result<(), Exit> {
    let client = ctl.client().await?;
    let answer = client
        .leases(&Context::background())
        .await
        .map_err(bad_connection)?;
    ctl.print(&Reply::Leases(answer))
}

async fn keep_alive(ctl: &mut Ctl) -> Result<(), Exit> {
    let id = id(ctl, "lease keep-alive command needs lease ID as argument")?;
    let client = ctl.client().await?;
    if ctl.flags.bool("once") {
        let answer = client.keep_alive_once(id).await.map_err(bad_connection)?;
        return ctl.print(&Reply::KeepAlive(answer));
    }
    let mut alive = client.keep_alive(id);
    while let Some(answer) = alive.next().await {
        ctl.print(&Reply::KeepAlive(answer))?;
    }
    if ctl.is_simple() {
        ctl.say(&format!("lease {id:016x} expired or revoked."))
    } else {
        Ok(())
    }
}

fn bad_connection(error: crate::client::Error) -> Exit {
    Exit::new(code::BAD_CONNECTION, error)
}
