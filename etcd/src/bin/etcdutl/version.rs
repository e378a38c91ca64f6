//! `etcdutl version`.

use component_base::flags::Flags;
use component_base::version::ETCD_VERSION;

use crate::command::{Command, Failure};

pub const COMMAND: Command = Command {
    path: &["version"],
    usage: "",
    about: "Prints the version of etcdutl",
    flags: |set| set,
    required: &[],
    run,
};

fn run(_: &Flags) -> Result<(), Failure> {
    let api: Vec<&str> = ETCD_VERSION.split('.').take(2).collect();
    println!("etcdutl version: {ETCD_VERSION}\nAPI version: {}", api.join("."));
    Ok(())
}
