//! `ETCDCTL_API=3`.

mod command;
mod environment;
mod global;

use crate::cobra::{self, Command, Version};
use crate::exit::Exit;
use command::Run;
use global::Ctl;
pub use global::arg_or_stdin;

const VERSION: Version = Version {
    binary: component_base::version::ETCD_VERSION,
    api: "3.6",
};

pub async fn start(args: &[String]) -> Result<(), Exit> {
    let root = root();
    if let Some(answered) = cobra::complete::answer(&root, args.get(1..).unwrap_or_default()) {
        return answered;
    }
    let invocation = match cobra::parse(&root, &VERSION, args.get(1..).unwrap_or_default()) {
        Ok(invocation) => invocation,
        Err(exit) if exit.code == 0 => return Ok(()),
        Err(exit) => return Err(exit),
    };
    let run = *invocation.run;
    run(&mut Ctl::new(invocation, args.to_vec())).await
}

fn root() -> Command<Run> {
    Command::group(
        "etcdctl",
        "A simple command line client for etcd3.",
        command::all(),
    )
    .persistent(global::flags())
}
