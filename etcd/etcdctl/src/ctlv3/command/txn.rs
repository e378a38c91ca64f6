//! `txn`: comparisons and two lists of requests, read from stdin.

mod parse;

pub use parse::argify;

use std::io::{BufRead as _, stdin};

use etcd_api::etcdserverpb::TxnRequest;

use super::{Ctl, Run, run};
use crate::client::Context;
use crate::cobra::{Command, Flag};
use crate::exit::{Exit, code};
use crate::printer::Reply;

const LONG: &str = r#"Txn reads multiple etcd requests from standard input and applies them as a single atomic transaction.

A transaction consists of three components:
1) a list of conditions,
2) a list of requests to apply if all the conditions are true,
3) a list of requests to apply if any condition is false.

Example interactive stdin usage:

---
etcdctl txn -i
# compares:
mod("key1") > "0"

# success requests (get, put, delete):
put key1 "overwrote-key1"

# failure requests (get, put, delete):
put key1 "created-key1"
put key2 "some extra key"
---

Refer to https://github.com/etcd-io/etcd/blob/main/etcdctl/README.md#txn-options."#;

pub fn command() -> Command<Run> {
    Command::new(
        "txn [options]",
        "Txn processes all the requests in one transaction",
        run!(txn),
    )
    .long(LONG)
    .flags(vec![
        Flag::bool("interactive", "Input transaction in interactive mode").short('i'),
    ])
}

async fn txn(ctl: &mut Ctl) -> Result<(), Exit> {
    if !ctl.args.is_empty() {
        return Err(Exit::bad_args("txn command does not accept argument"));
    }
    let client = ctl.client().await?;
    let mut request = TxnRequest::default();
    prompt(ctl, "compares:")?;
    while let Some(line) = read_line()? {
        request.compare.push(parse::compare(&line).map_err(invalid)?);
    }
    prompt(ctl, "success requests (get, put, del):")?;
    while let Some(line) = read_line()? {
        request.success.push(parse::request(&line).await?);
    }
    prompt(ctl, "failure requests (get, put, del):")?;
    while let Some(line) = read_line()? {
        request.failure.push(parse::request(&line).await?);
    }
    let answer = client
        .txn(&Context::background(), request)
        .await
        .map_err(Exit::error)?;
    ctl.print(&Reply::Txn(answer))
}

fn prompt(ctl: &Ctl, text: &str) -> Result<(), Exit> {
    if ctl.flags.bool("interactive") {
        ctl.say(text)
    } else {
        Ok(())
    }
}

/// None for the empty line that ends a section. A line without its end is no line.
fn read_line() -> Result<Option<String>, Exit> {
    let mut line = String::new();
    stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Exit::new(code::INVALID_INPUT, error))?;
    if !line.ends_with('\n') {
        return Err(Exit::new(code::INVALID_INPUT, "EOF"));
    }
    let line = line.trim();
    Ok((!line.is_empty()).then(|| line.to_owned()))
}

fn invalid(text: String) -> Exit {
    Exit::new(code::INVALID_INPUT, text)
}
