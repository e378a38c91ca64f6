//! `endpoint health|status|hashkv`.

mod health;

use etcd_api::etcdserverpb::HashKvRequest;
use etcd_api::etcdserverpb::maintenance_client::MaintenanceClient;

use super::{Ctl, Run, run};
use crate::client::Policy;
use crate::cobra::{Command, Flag};
use crate::ctlv3::global::connect;
use crate::exit::{Exit, code};
use crate::printer::Reply;
use crate::unary;

const STATUS_LONG: &str = "When --write-out is set to simple, this command prints out comma-separated status lists for each endpoint.
The items in the lists are endpoint, ID, version, db size, is leader, is learner, raft term, raft index, raft applied index, errors.
";

pub fn command() -> Command<Run> {
    let health = "Checks the healthiness of endpoints specified in `--endpoints` flag";
    let status = "Prints out the status of endpoints specified in `--endpoints` flag";
    let hashkv = "Prints the KV history hash for each endpoint in --endpoints";
    let revision = Flag::int("rev", "0", "maximum revision to hash (default: latest revision)");
    let subcommands = vec![
        Command::new("hashkv", hashkv, run!(hash_kv)).persistent(vec![revision]),
        Command::new("health", health, run!(health::health)),
        Command::new("status", status, run!(self::status)).long(STATUS_LONG),
    ];
    Command::group("endpoint <subcommand>", "Endpoint related commands", subcommands).persistent(vec![
        Flag::bool("cluster", "use all endpoints from the cluster member list"),
    ])
}

async fn status(ctl: &mut Ctl) -> Result<(), Exit> {
    let config = ctl.config().await?;
    let (mut list, mut failed) = (Vec::new(), false);
    for endpoint in ctl.cluster_endpoints().await? {
        let client = connect(config.for_endpoint(&endpoint)).await?;
        match client.status(&ctl.context()).await {
            Ok(answer) => list.push((endpoint, answer)),
            Err(error) => {
                eprintln!("Failed to get the status of endpoint {endpoint} ({error})");
                failed = true;
            }
        }
    }
    ctl.print(&Reply::EndpointStatus(list))?;
    if failed {
        Err(Exit::silent(code::ERROR))
    } else {
        Ok(())
    }
}

async fn hash_kv(ctl: &mut Ctl) -> Result<(), Exit> {
    let config = ctl.config().await?;
    let revision = ctl.flags.int("rev");
    let (mut list, mut failure) = (Vec::new(), None);
    for endpoint in ctl.cluster_endpoints().await? {
        let client = connect(config.for_endpoint(&endpoint)).await?;
        let (context, request) = (ctl.context(), HashKvRequest { revision });
        let policy = Policy::Repeatable;
        let answer = unary!(
            client,
            context,
            policy,
            MaintenanceClient,
            hash_kv,
            "/etcdserverpb.Maintenance/HashKV",
            request
        );
        match answer {
            Ok(answer) => list.push((endpoint, answer)),
            Err(error) => {
                eprintln!("Failed to get the hash of endpoint {endpoint} ({error})");
                failure = Some(error);
            }
        }
    }
    ctl.print(&Reply::EndpointHashKv(list))?;
    failure.map_or(Ok(()), |error| Err(Exit::error(error)))
}
