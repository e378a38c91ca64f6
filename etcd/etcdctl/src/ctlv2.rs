//! `ETCDCTL_API=2`: the HTTP keys and members API of etcd 3.4 and older, printed as etcdctl 3.4 printed it.
//!
//! [`cli`] reads the command line as urfave's library does, [`http`] walks the endpoints, `keys` and `members` are the two
//! APIs. Not here: v2 users and roles.

mod cli;
mod command;
mod format;
mod http;
mod keys;
mod members;

use std::io::Write as _;

use crate::exit::{Exit, code};

pub async fn start(args: &[String]) -> Result<(), Exit> {
    let program = args.first().map_or("etcdctl", String::as_str);
    let program = program.rsplit('/').next().unwrap_or(program);
    let app = cli::App {
        program,
        commands: command::all(),
    };
    match app.parse(args.get(1..).unwrap_or_default()) {
        Ok(call) => (call.run)(&call).await,
        Err(cli::Stop::Text(text)) => print(&text),
        Err(cli::Stop::Usage { text, error }) => {
            print(&text)?;
            eprintln!("{error}");
            Err(Exit::silent(code::ERROR))
        }
        Err(cli::Stop::UnknownCommand(name)) => {
            eprintln!("No help topic for '{name}'");
            Err(Exit::silent(NO_TOPIC))
        }
    }
}

/// urfave's.
const NO_TOPIC: u8 = 3;

fn print(text: &str) -> Result<(), Exit> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}
