//! `etcdutl`: what etcd's own does to files, for ours: snapshots in and out, hashes, and what a data directory needs.
//!
//! [`COMMANDS`] is the table of all of it; [`printer`] has the output formats. No server is asked here.

mod backup;
mod command;
mod defrag;
mod hashkv;
mod migrate;
mod printer;
mod snapshot;
mod version;

use std::process::ExitCode;

use command::Command;

static COMMANDS: &[Command] = &[
    backup::COMMAND,
    defrag::COMMAND,
    hashkv::COMMAND,
    migrate::COMMAND,
    snapshot::RESTORE,
    snapshot::STATUS,
    version::COMMAND,
];

fn main() -> ExitCode {
    component_base::logging::init("etcdutl", component_base::logging::Format::Zap, 0);
    command::run(COMMANDS, std::env::args_os().skip(1).collect())
}
