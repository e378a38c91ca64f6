//! `set`, `mk` and `update`.

use super::{key, required, run};
use crate::ctlv2::cli::{Call, Command, Flag, Kind, flag};
use crate::ctlv2::format;
use crate::ctlv2::http::{Client, code, total_timeout};
use crate::ctlv2::keys::Action;
use crate::ctlv3::arg_or_stdin;
use crate::exit::Exit;

const TTL: Flag = flag(Kind::Int, &["ttl"], "0", "key time-to-live in seconds");
const SET: &[Flag] = &[
    TTL,
    flag(Kind::String, &["swap-with-value"], "", "previous value"),
    flag(Kind::Int, &["swap-with-index"], "0", "previous index"),
];
const MK: &[Flag] = &[
    flag(
        Kind::Bool,
        &["in-order"],
        "",
        "create in-order key under directory <key>",
    ),
    TTL,
];
const UPDATE: &[Flag] = &[TTL];
const DESCRIPTION: &str = "Set sets the value of a key.

   When <value> begins with '-', <value> is interpreted as a flag.
   Insert '--' for workaround:

   $ set -- <key> <value>";

pub fn set() -> Command {
    let command = Command::new(
        "set",
        "set the value of a key",
        "<key> <value>",
        SET,
        run!(run_set),
    );
    Command {
        description: DESCRIPTION,
        ..command
    }
}

pub fn mk() -> Command {
    Command::new(
        "mk",
        "make a new key with a given value",
        "<key> <value>",
        MK,
        run!(run_mk),
    )
}

pub fn update() -> Command {
    Command::new(
        "update",
        "update an existing key with a given value",
        "<key> <value>",
        UPDATE,
        run!(run_update),
    )
}

fn value(call: &Call) -> Result<String, Exit> {
    let bytes = arg_or_stdin(&call.args, 1).ok_or_else(|| required("value required"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn run_set(call: &Call) -> Result<(), Exit> {
    let mut client = Client::synced(call).await?;
    let mut action = Action::set(key(call)?, &value(call)?).ttl(call.int("ttl"));
    let before = call.string("swap-with-value");
    if !before.is_empty() {
        action = action.query("prevValue", before.to_owned());
    }
    if call.int("swap-with-index") != 0 {
        action = action.query("prevIndex", call.int("swap-with-index").to_string());
    }
    send(call, &mut client, action).await
}

async fn run_mk(call: &Call) -> Result<(), Exit> {
    let mut client = Client::synced(call).await?;
    let (key, value) = (key(call)?, value(call)?);
    let action = match call.bool("in-order") {
        true => Action::create_in_order(key, &value),
        false => Action::set(key, &value).prev_exist(false),
    };
    send(call, &mut client, action.ttl(call.int("ttl"))).await
}

async fn run_update(call: &Call) -> Result<(), Exit> {
    let mut client = Client::synced(call).await?;
    let action = Action::set(key(call)?, &value(call)?)
        .ttl(call.int("ttl"))
        .prev_exist(true);
    send(call, &mut client, action).await
}

async fn send(call: &Call, client: &mut Client, action: Action) -> Result<(), Exit> {
    let response = action.send(client, &total_timeout(call)).await;
    let response = response.map_err(|error| error.exit(code::SERVER_ERROR))?;
    format::print(&response, call.global("output"))
}
