//! `del`: a key or a range of keys.

use std::time::Duration;

use etcd_api::etcdserverpb::DeleteRangeRequest;

use super::{BOTH_PREFIX_AND_FROM_KEY, Ctl, Run, TOO_MANY_FOR_PREFIX, get, run};
use crate::cobra::{Command, Flag, Flags};
use crate::exit::Exit;
use crate::go::quote::quote;
use crate::printer::Reply;

/// Time to think again before a range goes without `--range`.
const GRACE: Duration = Duration::from_secs(2);

pub fn command() -> Command<Run> {
    let short = "Removes the specified key or range of keys [key, range_end)";
    Command::new("del [options] <key> [range_end]", short, run!(del)).flags(flags())
}

pub fn flags() -> Vec<Flag> {
    vec![
        Flag::bool("prefix", "delete keys with matching prefix"),
        Flag::bool("prev-kv", "return deleted key-value pairs"),
        Flag::bool(
            "from-key",
            "delete keys that are greater than or equal to the given key using byte compare",
        ),
        Flag::bool("range", "delete range of keys"),
    ]
}

async fn del(ctl: &mut Ctl) -> Result<(), Exit> {
    let request = request(&ctl.flags, &ctl.args).await?;
    let context = ctl.context();
    let client = ctl.client().await?;
    let answer = client.delete(&context, request).await.map_err(Exit::error)?;
    ctl.print(&Reply::Del(answer))
}

pub async fn request(flags: &Flags, args: &[String]) -> Result<DeleteRangeRequest, Exit> {
    let (Some(key), true) = (args.first(), args.len() <= 2) else {
        return Err(Exit::bad_args(
            "del command needs one argument as key and an optional argument as range_end",
        ));
    };
    let (prefix, from_key) = (flags.bool("prefix"), flags.bool("from-key"));
    if prefix && from_key {
        return Err(Exit::bad_args(BOTH_PREFIX_AND_FROM_KEY));
    }
    if let Some(end) = args.get(1) {
        if prefix || from_key {
            return Err(Exit::bad_args(TOO_MANY_FOR_PREFIX));
        }
        if !flags.bool("range") {
            let (key, end) = (quote(key.as_bytes()), quote(end.as_bytes()));
            eprintln!(
                "Warning: Keys between {key} and {end} will be deleted. Please interrupt the command within next 2 seconds to cancel. \
                 You can provide `--range` flag to avoid the delay."
            );
            tokio::time::sleep(GRACE).await;
        }
    }
    let (key, range_end) = get::range(key, args.get(1), prefix, from_key);
    Ok(DeleteRangeRequest {
        key,
        range_end,
        prev_kv: flags.bool("prev-kv"),
    })
}
