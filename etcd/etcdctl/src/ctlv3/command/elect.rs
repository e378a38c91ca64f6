//! `elect`: leads an election until a signal comes, or watches one.

use super::{Ctl, Run, run};
use crate::client::concurrency::{Election, Observer, Session, abandon};
use crate::client::{Client, Context};
use crate::cobra::{Command, Flag};
use crate::exit::Exit;
use crate::printer::Reply;
use crate::process;

/// Seconds.
const SESSION_TTL: i64 = 60;

pub fn command() -> Command<Run> {
    let short = "Observes and participates in leader election";
    Command::new("elect <election-name> [proposal]", short, run!(elect))
        .flags(vec![Flag::bool("listen", "observation mode").short('l')])
}

async fn elect(ctl: &mut Ctl) -> Result<(), Exit> {
    if ctl.args.is_empty() || ctl.args.len() > 2 {
        let takes = "elect takes one election name argument and an optional proposal argument";
        return Err(Exit::bad_args(takes));
    }
    let client = ctl.client().await?;
    match (ctl.args.len(), ctl.flags.bool("listen")) {
        (1, true) => observe(ctl, &client).await,
        (1, false) => Err(Exit::bad_args("no proposal argument but -l not set")),
        (_, true) => Err(Exit::bad_args("proposal given but -l is set")),
        (_, false) => campaign(ctl, &client).await,
    }
}

async fn observe(ctl: &Ctl, client: &Client) -> Result<(), Exit> {
    let interrupt = process::interrupt()?;
    let mut interrupt = std::pin::pin!(interrupt);
    let mut observer = Observer::new(client, ctl.arg(0));
    loop {
        tokio::select! {
            reply = observer.next() => match reply {
                Some(reply) => ctl.print(&Reply::Get(reply))?,
                None => return Err(Exit::error("elect: observer lost")),
            },
            () = &mut interrupt => return Ok(()),
        }
    }
}

async fn campaign(ctl: &Ctl, client: &Client) -> Result<(), Exit> {
    let session = Session::new(client, SESSION_TTL).await.map_err(Exit::error)?;
    let interrupt = process::interrupt()?;
    let mut interrupt = std::pin::pin!(interrupt);
    let election = tokio::select! {
        election = Election::campaign(&session, ctl.arg(0), ctl.arg(1)) => election.map_err(Exit::error)?,
        () = &mut interrupt => {
            // The line moves on when the lease ends, if not now.
            abandon(&session, ctl.arg(0)).await.ok();
            return Err(Exit::error("context canceled"));
        }
    };
    let answer = client
        .get(&Context::background(), election.key())
        .await
        .map_err(Exit::error)?;
    ctl.print(&Reply::Get(answer))?;
    tokio::select! {
        () = interrupt => election.resign().await.map_err(Exit::error),
        () = session.done() => Err(Exit::error("elect: session expired")),
    }
}
