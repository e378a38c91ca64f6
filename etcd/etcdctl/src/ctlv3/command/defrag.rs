//! `defrag`: endpoint after endpoint.

use std::time::Instant;

use component_base::flags::format_duration;

use super::{Ctl, Run, run};
use crate::cobra::{Command, Flag};
use crate::ctlv3::global::connect;
use crate::exit::{Exit, code};

pub fn command() -> Command<Run> {
    let short = "Defragments the storage of the etcd members with given endpoints";
    Command::new("defrag", short, run!(defrag)).persistent(vec![Flag::bool(
        "cluster",
        "use all endpoints from the cluster member list",
    )])
}

async fn defrag(ctl: &mut Ctl) -> Result<(), Exit> {
    let config = ctl.config().await?;
    let mut failed = false;
    for endpoint in ctl.cluster_endpoints().await? {
        let client = connect(config.for_endpoint(&endpoint)).await?;
        let context = ctl.context();
        let start = Instant::now();
        let answer = client.defragment(&context).await;
        let took = format_duration(start.elapsed());
        match answer {
            Ok(_) => ctl.say(&format!(
                "Finished defragmenting etcd member[{endpoint}]. took {took}"
            ))?,
            Err(error) => {
                eprintln!("Failed to defragment etcd member[{endpoint}]. took {took}. ({error})");
                failed = true;
            }
        }
    }
    if failed {
        Err(Exit::silent(code::ERROR))
    } else {
        Ok(())
    }
}
