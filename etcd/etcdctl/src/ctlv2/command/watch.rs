//! `watch` and `exec-watch`.

use std::process::Stdio;

use super::{key, required, run};
use crate::client::Context;
use crate::ctlv2::cli::{Call, Command, Flag, Kind, flag};
use crate::ctlv2::format;
use crate::ctlv2::http::{Client, code};
use crate::ctlv2::keys::{Action, Response};
use crate::exit::Exit;

const AFTER: Flag = flag(Kind::Int, &["after-index"], "0", "watch after the given index");
const WATCH: &[Flag] = &[
    flag(
        Kind::Bool,
        &["forever", "f"],
        "",
        "forever watch a key until CTRL+C",
    ),
    AFTER,
    flag(
        Kind::Bool,
        &["recursive", "r"],
        "",
        "returns all values for key and child keys",
    ),
];
const EXEC: &[Flag] = &[
    AFTER,
    flag(
        Kind::Bool,
        &["recursive", "r"],
        "",
        "watch all values for key and child keys",
    ),
];

pub fn watch() -> Command {
    Command::new(
        "watch",
        "watch a key for changes",
        "<key>",
        WATCH,
        run!(run_watch),
    )
}

pub fn exec_watch() -> Command {
    let usage = "watch a key for changes and exec an executable";
    Command::new(
        "exec-watch",
        usage,
        "<key> <command> [args...]",
        EXEC,
        run!(run_exec),
    )
}

/// Change after change of one key.
struct Watcher<'a> {
    client: Client,
    key: &'a str,
    index: u64,
    recursive: bool,
}

impl<'a> Watcher<'a> {
    async fn new(call: &'a Call, key: &'a str) -> Result<Watcher<'a>, Exit> {
        let after = u64::try_from(call.int("after-index")).unwrap_or_default();
        let index = if after > 0 { after + 1 } else { 0 };
        Ok(Watcher {
            client: Client::synced(call).await?,
            key,
            index,
            recursive: call.bool("recursive"),
        })
    }

    async fn next(&mut self) -> Result<Response, Exit> {
        let action = Action::watch(self.key, self.index, self.recursive);
        let response = action.send(&mut self.client, &Context::background()).await;
        let response = response.map_err(|error| error.exit(code::SERVER_ERROR))?;
        self.index = response.node.modified_index + 1;
        Ok(response)
    }
}

async fn run_watch(call: &Call) -> Result<(), Exit> {
    let key = key(call)?;
    let mut watcher = Watcher::new(call, key).await?;
    tokio::select! {
        result = print_changes(call, &mut watcher) => result,
        // An interrupt is how it is meant to end.
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn print_changes(call: &Call, watcher: &mut Watcher<'_>) -> Result<(), Exit> {
    loop {
        let response = watcher.next().await?;
        if response.node.dir {
            continue;
        }
        if watcher.recursive {
            use std::io::Write as _;
            writeln!(std::io::stdout(), "[{}] {}", response.action, response.node.key)?;
        }
        format::print(&response, call.global("output"))?;
        if !call.bool("forever") {
            return Ok(());
        }
    }
}

async fn run_exec(call: &Call) -> Result<(), Exit> {
    let (key, words) = split(&call.args).ok_or_else(|| required("key and command to exec required"))?;
    let mut watcher = Watcher::new(call, key).await?;
    tokio::select! {
        result = execute_changes(&mut watcher, words) => result,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

/// The key first and the command behind `--`; else the key is the last word, since flags before it turned the order.
fn split(args: &[String]) -> Option<(&str, &[String])> {
    if args.len() < 2 {
        return None;
    }
    match args.iter().skip(1).any(|word| word == "--") {
        true => args
            .get(2..)
            .filter(|words| !words.is_empty())
            .map(|words| (args[0].as_str(), words)),
        false => args.split_last().map(|(key, words)| (key.as_str(), words)),
    }
}

/// Commands run side by side; a change does not wait for the one before.
async fn execute_changes(watcher: &mut Watcher<'_>, words: &[String]) -> Result<(), Exit> {
    loop {
        let response = watcher.next().await?;
        if response.node.dir {
            eprintln!("Ignored dir {} change", response.node.key);
            continue;
        }
        let mut command = tokio::process::Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        command.env("ETCD_WATCH_ACTION", &response.action);
        command.env(
            "ETCD_WATCH_MODIFIED_INDEX",
            response.node.modified_index.to_string(),
        );
        command
            .env("ETCD_WATCH_KEY", &response.node.key)
            .env("ETCD_WATCH_VALUE", &response.node.value);
        match command.spawn() {
            // How it ends is nobody's business, as upstream has it.
            Ok(mut child) => drop(tokio::spawn(async move { drop(child.wait().await) })),
            Err(error) => {
                eprint!("exec: {:?}: {error}", words[0]);
                return Err(Exit::silent(1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn the_key_stands_first_or_last() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let args = words("/k -- sh -c x");
        let (key, command) = split(&args).unwrap();
        assert_eq!((key, command.join(" ")), ("/k", "sh -c x".to_owned()));
        let args = words("echo x /k");
        let (key, command) = split(&args).unwrap();
        assert_eq!((key, command.join(" ")), ("/k", "echo x".to_owned()));
        assert!(split(&words("/k")).is_none() && split(&words("/k --")).is_none());
    }
}
