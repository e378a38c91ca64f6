//! `compaction`: history up to a revision goes.

use super::{Ctl, Run, run};
use crate::cobra::{Command, Flag};
use crate::exit::Exit;
use crate::go::strconv::parse_int;

pub fn command() -> Command<Run> {
    Command::new(
        "compaction [options] <revision>",
        "Compacts the event history in etcd",
        run!(compaction),
    )
    .flags(vec![Flag::bool(
        "physical",
        "'true' to wait for compaction to physically remove all old revisions",
    )])
}

async fn compaction(ctl: &mut Ctl) -> Result<(), Exit> {
    if ctl.args.len() != 1 {
        return Err(Exit::bad_args("compaction command needs 1 argument"));
    }
    let revision = parse_int(ctl.arg(0), 10).map_err(Exit::error)?;
    let client = ctl.client().await?;
    let physical = ctl.flags.bool("physical");
    client
        .compact(&ctl.context(), revision, physical)
        .await
        .map_err(Exit::error)?;
    ctl.say(&format!("compacted revision {revision}"))
}
