//! `rm`.

use super::{key, run};
use crate::ctlv2::cli::{Call, Command, Flag, Kind, flag};
use crate::ctlv2::format;
use crate::ctlv2::http::{Client, code, total_timeout};
use crate::ctlv2::keys::Action;
use crate::exit::Exit;

const FLAGS: &[Flag] = &[
    flag(
        Kind::Bool,
        &["dir"],
        "",
        "removes the key if it is an empty directory or a key-value pair",
    ),
    flag(
        Kind::Bool,
        &["recursive", "r"],
        "",
        "removes the key and all child keys(if it is a directory)",
    ),
    flag(Kind::String, &["with-value"], "", "previous value"),
    flag(Kind::Int, &["with-index"], "0", "previous index"),
];

pub fn rm() -> Command {
    Command::new("rm", "remove a key or a directory", "<key>", FLAGS, run!(run))
}

async fn run(call: &Call) -> Result<(), Exit> {
    let mut client = Client::synced(call).await?;
    let mut action = Action::delete(key(call)?);
    for name in ["dir", "recursive"] {
        if call.bool(name) {
            action = action.query(name, "true".to_owned());
        }
    }
    if !call.string("with-value").is_empty() {
        action = action.query("prevValue", call.string("with-value").to_owned());
    }
    if call.int("with-index") != 0 {
        action = action.query("prevIndex", call.int("with-index").to_string());
    }
    let response = action.send(&mut client, &total_timeout(call)).await;
    let response = response.map_err(|error| error.exit(code::SERVER_ERROR))?;
    if response.node.dir && call.global("output") == "simple" {
        return Ok(());
    }
    format::print(&response, call.global("output"))
}
