//! One file for each command; [`all`] is the table.

mod alarm;
mod auth;
mod check;
mod compaction;
mod completion;
mod defrag;
mod del;
mod downgrade;
mod elect;
mod endpoint;
mod get;
mod lease;
mod lock;
mod make_mirror;
mod member;
mod move_leader;
mod put;
mod role;
mod snapshot;
mod txn;
mod user;
mod version;
mod watch;

use std::pin::Pin;

use super::global::Ctl;
use crate::cobra::Command;
use crate::exit::Exit;
use crate::go::strconv::{parse_int, parse_uint};

pub type Running<'a> = Pin<Box<dyn Future<Output = Result<(), Exit>> + 'a>>;
pub type Run = for<'a> fn(&'a mut Ctl) -> Running<'a>;

/// Makes a [`Run`] of an `async fn(&mut Ctl) -> Result<(), Exit>`.
macro_rules! run {
    ($function:path) => {{
        let run: $crate::ctlv3::command::Run = |ctl| Box::pin($function(ctl));
        run
    }};
}
use run;

/// One call of a service on the command's connection. What fails ends the command.
macro_rules! call {
    ($ctl:ident, $context:expr, $policy:ident, $stub:ident.$method:ident($request:expr), $path:literal) => {{
        let (context, policy) = ($context, $crate::client::Policy::$policy);
        let client = $ctl.client().await?;
        let answer = $crate::unary!(client, context, policy, $stub, $method, $path, $request);
        answer.map_err($crate::exit::Exit::error)?
    }};
}
use call;

pub fn all() -> Vec<Command<Run>> {
    vec![
        get::command(),
        put::command(),
        del::command(),
        txn::command(),
        compaction::command(),
        alarm::command(),
        defrag::command(),
        endpoint::command(),
        move_leader::command(),
        watch::command(),
        version::command(),
        lease::command(),
        member::command(),
        snapshot::command(),
        make_mirror::command(),
        lock::command(),
        elect::command(),
        auth::command(),
        user::command(),
        role::command(),
        check::command(),
        downgrade::command(),
        completion::command(),
    ]
}

/// A lease or member ID, in hexadecimal; `what` is how the error names it.
fn lease_id(text: &str, what: &str) -> Result<i64, Exit> {
    parse_int(text, 16).map_err(|error| Exit::bad_args(format!("bad {what} ({error}), expecting ID in Hex")))
}

fn member_id(text: &str) -> Result<u64, Exit> {
    parse_uint(text, 16)
        .map_err(|error| Exit::bad_args(format!("bad member ID arg ({error}), expecting ID in Hex")))
}

/// `--consistency`: whether reads may come from one member's own state.
fn is_serializable(option: &str) -> Result<bool, Exit> {
    use crate::exit::code::BAD_FEATURE;
    match option {
        "s" => Ok(true),
        "l" => Ok(false),
        // Upstream's text names the flag of `get` here, whose value it then is.
        other => Err(Exit::new(
            BAD_FEATURE,
            format!("unknown consistency flag {other:?}"),
        )),
    }
}

const BOTH_PREFIX_AND_FROM_KEY: &str =
    "`--prefix` and `--from-key` cannot be set at the same time, choose one";
const TOO_MANY_FOR_PREFIX: &str =
    "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";
