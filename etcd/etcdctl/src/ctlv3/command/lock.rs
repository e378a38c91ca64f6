//! `lock`: held until a signal comes or a command ends.

use super::{Ctl, Run, run};
use crate::client::concurrency::{Mutex, Session, abandon};
use crate::client::{Client, Context};
use crate::cobra::{Command, Flag};
use crate::exit::Exit;
use crate::printer::Reply;
use crate::process;

/// Seconds; upstream's for a ttl that is none.
const DEFAULT_SESSION_TTL: i64 = 60;

pub fn command() -> Command<Run> {
    Command::new(
        "lock <lockname> [exec-command arg1 arg2 ...]",
        "Acquires a named lock",
        run!(lock),
    )
    .flags(vec![Flag::int("ttl", "10", "timeout for session")])
}

async fn lock(ctl: &mut Ctl) -> Result<(), Exit> {
    if ctl.args.is_empty() {
        return Err(Exit::bad_args(
            "lock takes a lock name argument and an optional command to execute",
        ));
    }
    let client = ctl.client().await?;
    let ttl = Some(ctl.flags.int("ttl"))
        .filter(|ttl| *ttl > 0)
        .unwrap_or(DEFAULT_SESSION_TTL);
    let session = Session::new(&client, ttl).await.map_err(Exit::error)?;
    let name = ctl.arg(0).to_owned();
    let interrupt = process::interrupt()?;
    let mut interrupt = std::pin::pin!(interrupt);
    let mutex = tokio::select! {
        mutex = Mutex::lock(&session, &name) => mutex.map_err(Exit::error)?,
        () = &mut interrupt => {
            // The line moves on when the lease ends, if not now.
            abandon(&session, &name).await.ok();
            return Err(Exit::error("context canceled"));
        }
    };
    if ctl.args.len() > 1 {
        return execute(&ctl.args[1..], &mutex).await;
    }
    print(ctl, &client, &mutex).await?;
    tokio::select! {
        () = interrupt => mutex.unlock().await.map_err(Exit::error),
        () = session.done() => Err(Exit::error("session expired")),
    }
}

async fn execute(words: &[String], mutex: &Mutex) -> Result<(), Exit> {
    let key = String::from_utf8_lossy(&mutex.key()).into_owned();
    let environment = [
        ("ETCD_LOCK_KEY", key),
        ("ETCD_LOCK_REV", mutex.revision.to_string()),
    ];
    let result = process::run(words, &environment).await;
    let unlocked = mutex.unlock().await;
    result.map_err(|failure| Exit::new(failure.code, failure.text))?;
    unlocked.map_err(Exit::error)
}

async fn print(ctl: &Ctl, client: &Client, mutex: &Mutex) -> Result<(), Exit> {
    let answer = client
        .get(&Context::background(), mutex.key())
        .await
        .map_err(Exit::error)?;
    if answer.kvs.is_empty() {
        return Err(Exit::error("lock lost on init"));
    }
    ctl.print(&Reply::Get(answer))
}
