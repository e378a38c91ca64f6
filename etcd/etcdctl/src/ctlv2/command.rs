//! The v2 commands; [`all`] is the table, in the original's order.

mod backup;
mod cluster_health;
mod directories;
mod member;
mod read;
mod remove;
mod watch;
mod write;

use std::pin::Pin;

use super::cli::{Call, Command};
use super::http::code;
use crate::exit::Exit;

pub type Running<'a> = Pin<Box<dyn Future<Output = Result<(), Exit>> + 'a>>;
pub type Run = for<'a> fn(&'a Call) -> Running<'a>;

macro_rules! run {
    ($function:path) => {{
        let run: $crate::ctlv2::command::Run = |call| Box::pin($function(call));
        run
    }};
}
use run;

pub fn all() -> Vec<Command> {
    vec![
        backup::command(),
        cluster_health::command(),
        write::mk(),
        directories::mkdir(),
        remove::rm(),
        directories::rmdir(),
        read::get(),
        read::ls(),
        write::set(),
        directories::setdir(),
        write::update(),
        directories::updatedir(),
        watch::watch(),
        watch::exec_watch(),
        member::command(),
    ]
}

/// The first word, or the error that the original prints without it.
fn key(call: &Call) -> Result<&str, Exit> {
    call.args
        .first()
        .map(String::as_str)
        .ok_or_else(|| required("key required"))
}

fn required(text: &str) -> Exit {
    eprintln!("Error:  {text}");
    Exit::silent(code::BAD_ARGS)
}
