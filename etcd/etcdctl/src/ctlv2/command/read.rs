//! `get` and `ls`.

use std::io::Write as _;

use super::{key, run};
use crate::ctlv2::cli::{Call, Command, Flag, Kind, flag};
use crate::ctlv2::format;
use crate::ctlv2::http::{Client, code, total_timeout};
use crate::ctlv2::keys::{Action, Node};
use crate::exit::Exit;

const SORT: Flag = flag(Kind::Bool, &["sort"], "", "returns result in sorted order");
const QUORUM: Flag = flag(Kind::Bool, &["quorum", "q"], "", "require quorum for get request");
const GET: &[Flag] = &[SORT, QUORUM];
const LS: &[Flag] = &[
    SORT,
    flag(
        Kind::Bool,
        &["recursive", "r"],
        "",
        "returns all key names recursively for the given path",
    ),
    flag(Kind::Bool, &["p"], "", "append slash (/) to directories"),
    QUORUM,
];

pub fn get() -> Command {
    Command::new("get", "retrieve the value of a key", "<key>", GET, run!(run_get))
}

pub fn ls() -> Command {
    Command::new("ls", "retrieve a directory", "[key]", LS, run!(run_ls))
}

async fn run_get(call: &Call) -> Result<(), Exit> {
    let mut client = Client::synced(call).await?;
    let action = Action::get(key(call)?, false, call.bool("sort"), call.bool("quorum"));
    let response = action.send(&mut client, &total_timeout(call)).await;
    let response = response.map_err(|error| error.exit(code::SERVER_ERROR))?;
    if response.node.dir {
        eprintln!("{}: is a directory", response.node.key);
        return Err(Exit::silent(1));
    }
    format::print(&response, call.global("output"))
}

async fn run_ls(call: &Call) -> Result<(), Exit> {
    let mut client = Client::synced(call).await?;
    let key = call.args.first().map_or("/", String::as_str);
    let action = Action::get(
        key,
        call.bool("recursive"),
        call.bool("sort"),
        call.bool("quorum"),
    );
    let response = action.send(&mut client, &total_timeout(call)).await;
    let response = response.map_err(|error| error.exit(code::SERVER_ERROR))?;
    if call.global("output") != "simple" {
        return format::print(&response, call.global("output"));
    }
    let mut names = String::new();
    if !response.node.dir {
        names.push_str(&format!("{}\n", response.node.key));
    }
    let children = response.node.nodes.iter().flatten();
    children.for_each(|node| list(node, call.bool("p"), &mut names));
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(names.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Not deeper than the server nests, which bounds JSON at 128 levels here.
fn list(node: &Node, slash: bool, names: &mut String) {
    let end = if node.dir && slash { "/" } else { "" };
    names.push_str(&format!("{}{end}\n", node.key));
    node.nodes
        .iter()
        .flatten()
        .for_each(|node| list(node, slash, names));
}
