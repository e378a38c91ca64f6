//! `watch`: events on keys as they come, each also handed to a command.

mod args;

use std::io::BufRead as _;

use etcd_api::etcdserverpb::WatchCreateRequest;
use tokio::sync::mpsc;

use super::{Ctl, Run, run, txn};
use crate::client::Client;
use crate::client::watch::{Progress, WatchReply, Watcher};
use crate::cobra::{Command, Flag};
use crate::exit::{Exit, code};
use crate::go::quote::quote;
use crate::printer::Reply;
use crate::process;
use args::{Question, Settings};

/// Lines typed ahead of the watch that reads them.
const PENDING_LINES: usize = 16;

pub fn command() -> Command<Run> {
    let usage = "watch [options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]";
    Command::new(usage, "Watches events stream on keys or prefixes", run!(watch)).flags(flags())
}

fn flags() -> Vec<Flag> {
    vec![
        Flag::bool("interactive", "Interactive mode").short('i'),
        Flag::bool("prefix", "Watch on a prefix if prefix is set"),
        Flag::int("rev", "0", "Revision to start watching"),
        Flag::bool(
            "prev-kv",
            "get the previous key-value pair before the event happens",
        ),
        Flag::bool(
            "progress-notify",
            "get periodic watch progress notification from server",
        ),
    ]
}

async fn watch(ctl: &mut Ctl) -> Result<(), Exit> {
    let environment = Environment::read()?;
    if ctl.flags.bool("interactive") {
        return interactive(ctl, &environment).await;
    }
    let question = args::parse(&ctl.os_args, &ctl.args, &environment).map_err(Exit::bad_args)?;
    let client = client(ctl).await?;
    let request = args::request(&question, &Settings::of(&ctl.flags)).map_err(Exit::bad_args)?;
    follow(ctl, client.watch(request), &question).await?;
    Err(Exit::new(code::INTERRUPTED, "watch is canceled by the server"))
}

/// `ETCDCTL_WATCH_KEY` and `ETCDCTL_WATCH_RANGE_END`.
pub struct Environment {
    key: String,
    range_end: String,
}

impl Environment {
    fn read() -> Result<Environment, Exit> {
        let variable = |name| std::env::var(name).unwrap_or_default();
        let environment = Environment {
            key: variable("ETCDCTL_WATCH_KEY"),
            range_end: variable("ETCDCTL_WATCH_RANGE_END"),
        };
        if environment.key.is_empty() && !environment.range_end.is_empty() {
            let end = quote(environment.range_end.as_bytes());
            return Err(Exit::bad_args(format!(
                "ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={end}"
            )));
        }
        Ok(environment)
    }
}

async fn client(ctl: &mut Ctl) -> Result<Client, Exit> {
    let config = ctl.config_with(&["watch-key", "watch-range-end"]).await?;
    crate::ctlv3::global::connect(config).await
}

/// Prints until the watch ends. The next message is read only when this one is out.
async fn follow(ctl: &Ctl, mut watcher: Watcher, question: &Question) -> Result<(), Exit> {
    while let Some(reply) = watcher.next().await {
        if let Some(error) = reply.error().filter(|_| reply.canceled) {
            eprintln!("watch was canceled ({error})");
        }
        if reply.is_progress_notify() {
            ctl.say(&format!("progress notify: {}", reply.header.revision))?;
        }
        let commands = question.exec.as_deref().map(|exec| (exec, environments(&reply)));
        ctl.print(&Reply::Watch(reply))?;
        let Some((exec, environments)) = commands else {
            continue;
        };
        for environment in environments {
            execute(exec, &environment).await?;
        }
    }
    Ok(())
}

/// What the command learns of each event.
fn environments(reply: &WatchReply) -> Vec<[(&'static str, String); 4]> {
    let of = |event: &etcd_api::mvccpb::Event| {
        let kv = event.kv.clone().unwrap_or_default();
        [
            ("ETCD_WATCH_REVISION", reply.header.revision.to_string()),
            (
                "ETCD_WATCH_EVENT_TYPE",
                format!("{:?}", event.r#type().as_str_name()),
            ),
            ("ETCD_WATCH_KEY", quote(&kv.key)),
            ("ETCD_WATCH_VALUE", quote(&kv.value)),
        ]
    };
    reply.events.iter().map(of).collect()
}

async fn execute(words: &[String], environment: &[(&str, String)]) -> Result<(), Exit> {
    process::run(words, environment).await.map_err(|failure| {
        let quoted: Vec<String> = words.iter().map(|word| quote(word.as_bytes())).collect();
        eprintln!("command [{}] error ({})", quoted.join(" "), failure.text);
        Exit::silent(code::ERROR)
    })
}

/// Watches are started by lines of stdin and run side by side.
async fn interactive(ctl: &mut Ctl, environment: &Environment) -> Result<(), Exit> {
    let client = client(ctl).await?;
    let ctl: &Ctl = ctl;
    let mut lines = lines();
    let mut progress: Vec<Progress> = Vec::new();
    let mut watches = futures_util::stream::FuturesUnordered::new();
    loop {
        use futures_util::StreamExt as _;
        let line = tokio::select! {
            line = lines.recv() => line,
            Some(ended) = watches.next(), if !watches.is_empty() => {
                let ended: Result<(), Exit> = ended;
                ended?;
                continue;
            }
        };
        let Some(line) = line else {
            return Err(Exit::new(
                code::INVALID_INPUT,
                "error reading watch request line: EOF",
            ));
        };
        let words = txn::argify(&line);
        match words.first().map(String::as_str) {
            None => eprintln!("Invalid command: {line} (watch and progress supported)"),
            Some("watch") if words.len() < 2 && environment.key.is_empty() => {
                eprintln!("Invalid command {line} (command type or key is not provided)");
            }
            Some("watch") => {
                let (question, settings) =
                    args::parse_line(&words, &flags(), environment).map_err(Exit::bad_args)?;
                match args::request(&question, &settings) {
                    Err(error) => eprintln!("Invalid command {line} ({error})"),
                    Ok(request) => {
                        progress.push(start(&client, request, question, ctl, &watches));
                    }
                }
            }
            Some("progress") => {
                progress.retain(|progress| !progress.is_closed());
                for watch in &progress {
                    // A watch that has questions pending will answer those.
                    watch.try_send(()).ok();
                }
            }
            Some(_) => eprintln!("Invalid command {line} (only support watch)"),
        }
    }
}

type Watches<'a> = futures_util::stream::FuturesUnordered<super::Running<'a>>;

fn start<'a>(
    client: &Client,
    request: WatchCreateRequest,
    question: Question,
    ctl: &'a Ctl,
    watches: &Watches<'a>,
) -> Progress {
    let (watcher, progress) = client.watch_with_progress(request);
    watches.push(Box::pin(async move { follow(ctl, watcher, &question).await }));
    progress
}

/// Whole lines only: one that stdin's end cuts off is not carried out, as upstream's are not.
fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(PENDING_LINES);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut line = String::new();
        while stdin.read_line(&mut line).is_ok_and(|read| read > 0) && line.ends_with('\n') {
            let text = line.trim_end_matches('\n').to_owned();
            if sender.blocking_send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    receiver
}
