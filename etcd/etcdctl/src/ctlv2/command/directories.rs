//! `mkdir`, `setdir`, `updatedir` and `rmdir`.

use super::{key, run};
use crate::ctlv2::cli::{Call, Command, Flag, Kind, flag};
use crate::ctlv2::format;
use crate::ctlv2::http::{Client, code, total_timeout};
use crate::ctlv2::keys::Action;
use crate::exit::Exit;

const TTL: &[Flag] = &[flag(Kind::Int, &["ttl"], "0", "key time-to-live in seconds")];
const RMDIR: &str = "removes the key if it is an empty directory or a key-value pair";

pub fn mkdir() -> Command {
    Command::new("mkdir", "make a new directory", "<key>", TTL, run!(run_mkdir))
}

pub fn setdir() -> Command {
    let usage = "create a new directory or update an existing directory TTL";
    Command::new("setdir", usage, "<key>", TTL, run!(run_setdir))
}

pub fn updatedir() -> Command {
    Command::new(
        "updatedir",
        "update an existing directory",
        "<key> <value>",
        TTL,
        run!(run_updatedir),
    )
}

pub fn rmdir() -> Command {
    Command::new("rmdir", RMDIR, "<key>", &[], run!(run_rmdir))
}

async fn run_mkdir(call: &Call) -> Result<(), Exit> {
    put(call, Some(false)).await
}

async fn run_setdir(call: &Call) -> Result<(), Exit> {
    put(call, None).await
}

async fn run_updatedir(call: &Call) -> Result<(), Exit> {
    put(call, Some(true)).await
}

async fn put(call: &Call, exists: Option<bool>) -> Result<(), Exit> {
    let mut client = Client::synced(call).await?;
    let mut action = Action::set_dir(key(call)?).ttl(call.int("ttl"));
    if let Some(exists) = exists {
        action = action.prev_exist(exists);
    }
    let response = action.send(&mut client, &total_timeout(call)).await;
    let response = response.map_err(|error| error.exit(code::SERVER_ERROR))?;
    if call.global("output") == "simple" {
        Ok(())
    } else {
        format::print(&response, call.global("output"))
    }
}

async fn run_rmdir(call: &Call) -> Result<(), Exit> {
    let mut client = Client::synced(call).await?;
    let action = Action::delete(key(call)?).query("dir", "true".to_owned());
    let response = action.send(&mut client, &total_timeout(call)).await;
    let response = response.map_err(|error| error.exit(code::SERVER_ERROR))?;
    if response.node.dir && call.global("output") == "simple" {
        return Ok(());
    }
    format::print(&response, call.global("output"))
}
