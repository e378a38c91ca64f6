//! `version`.

use super::{Ctl, Run, run};
use crate::cobra::Command;
use crate::ctlv3::VERSION;
use crate::exit::Exit;

pub fn command() -> Command<Run> {
    Command::new("version", "Prints the version of etcdctl", run!(version))
}

async fn version(ctl: &mut Ctl) -> Result<(), Exit> {
    ctl.say(&format!("etcdctl version: {}", VERSION.binary))?;
    ctl.say(&format!("API version: {}", VERSION.api))
}
