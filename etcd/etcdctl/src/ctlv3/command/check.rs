//! `check perf|datascale`: writes for a while and judges.

mod datascale;
mod load;
mod perf;
mod progress;

use super::{Ctl, Run, run};
use crate::client::kv::prefix_end;
use crate::client::{Client, Config, Context};
use crate::cobra::{Command, Flag};
use crate::ctlv3::global::connect;
use crate::exit::{Exit, code};
use crate::go::quote::quote;
use etcd_api::etcdserverpb::{DeleteRangeRequest, RangeRequest};
use std::time::Duration;

const PERF_LOAD: &str = "The performance check's workload model. Accepted workloads: s(small), m(medium), l(large), xl(xLarge). Different workload models use different configurations in terms of number of clients and expected throughput.";
const DATASCALE_LOAD: &str =
    "The datascale check's workload model. Accepted workloads: s(small), m(medium), l(large), xl(xLarge)";
const DATASCALE_LONG: &str = "If no endpoint is provided, localhost will be used. If multiple endpoints are provided, first endpoint will be used.";
/// For what is done behind the measurement.
const CLEANUP_WITHIN: Duration = Duration::from_secs(30);

pub fn command() -> Command<Run> {
    let datascale =
        "Check the memory usage of holding data for different workloads on a given server endpoint.";
    let subcommands = vec![
        Command::new("datascale [options]", datascale, run!(self::datascale::datascale))
            .long(DATASCALE_LONG)
            .flags(flags(
                DATASCALE_LOAD,
                "/etcdctl-check-datascale/",
                "The prefix for writing the datascale check's keys.",
            )),
        Command::new(
            "perf [options]",
            "Check the performance of the etcd cluster",
            run!(perf::perf),
        )
        .flags(flags(
            PERF_LOAD,
            "/etcdctl-check-perf/",
            "The prefix for writing the performance check's keys.",
        )),
    ];
    Command::group(
        "check <subcommand>",
        "commands for checking properties of the etcd cluster",
        subcommands,
    )
}

fn flags(load: &'static str, prefix: &'static str, usage: &'static str) -> Vec<Flag> {
    vec![
        Flag::string("load", "s", load),
        Flag::string("prefix", prefix, usage),
        Flag::bool(
            "auto-compact",
            "Compact storage with last revision after test is finished.",
        ),
        Flag::bool("auto-defrag", "Defragment storage after test is finished."),
    ]
}

/// Index of the workload in a table from small to xLarge.
fn model(ctl: &Ctl) -> Result<usize, Exit> {
    match ctl.flags.string("load") {
        "s" | "small" => Ok(0),
        "m" | "medium" => Ok(1),
        "l" | "large" => Ok(2),
        "xl" | "xLarge" => Ok(3),
        other => Err(Exit::new(
            code::BAD_FEATURE,
            format!("unknown load option {other}"),
        )),
    }
}

async fn clients(config: &Config, count: usize) -> Result<Vec<Client>, Exit> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(connect(config.clone()).await?);
    }
    Ok(clients)
}

/// Keys of someone else would be deleted in the end. `how` is the remedy as upstream writes it.
async fn refuse_used(client: &Client, prefix: &str, how: &str) -> Result<(), Exit> {
    let (key, range_end) = (prefix.to_owned().into(), prefix_end(prefix.as_bytes()));
    let request = RangeRequest {
        key,
        range_end,
        limit: 1,
        ..Default::default()
    };
    let answer = client
        .range(&Context::background(), request)
        .await
        .map_err(Exit::error)?;
    if answer.kvs.is_empty() {
        return Ok(());
    }
    let quoted = quote(prefix.as_bytes());
    Err(Exit::new(
        code::INVALID_INPUT,
        format!("prefix {quoted} has keys. Delete with {how} first"),
    ))
}

/// The revision of the deletion.
async fn delete_all(client: &Client, context: &Context, prefix: &str) -> Result<i64, crate::client::Error> {
    let (key, range_end) = (prefix.to_owned().into(), prefix_end(prefix.as_bytes()));
    let request = DeleteRangeRequest {
        key,
        range_end,
        prev_kv: false,
    };
    let answer = client.delete(context, request).await?;
    Ok(answer.header.unwrap_or_default().revision)
}

async fn compact(ctl: &Ctl, client: &Client, revision: i64) -> Result<(), Exit> {
    ctl.say(&format!("Compacting with revision {revision}"))?;
    client
        .compact(&Context::timeout(CLEANUP_WITHIN), revision, true)
        .await
        .map_err(Exit::error)?;
    ctl.say(&format!("Compacted with revision {revision}"))
}

async fn defrag(ctl: &Ctl, config: &Config) -> Result<(), Exit> {
    for endpoint in &config.endpoints {
        let quoted = quote(endpoint.as_bytes());
        ctl.say(&format!("Defragmenting {quoted}"))?;
        let client = connect(config.for_endpoint(endpoint)).await?;
        client
            .defragment(&Context::timeout(CLEANUP_WITHIN))
            .await
            .map_err(Exit::error)?;
        ctl.say(&format!("Defragmented {quoted}"))?;
    }
    Ok(())
}
