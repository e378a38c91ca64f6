//! `backup`: the data directory of a member that is stopped.

use super::{Run, required, run};
use crate::ctlv2::cli::{Call, Command, Flag, Kind, flag};
use crate::etcdutl;
use crate::exit::Exit;

const FLAGS: &[Flag] = &[
    flag(Kind::String, &["data-dir"], "", "Path to the etcd data dir"),
    flag(Kind::String, &["wal-dir"], "", "Path to the etcd wal dir"),
    flag(Kind::String, &["backup-dir"], "", "Path to the backup dir"),
    flag(
        Kind::String,
        &["backup-wal-dir"],
        "",
        "Path to the backup wal dir",
    ),
    flag(Kind::Bool, &["with-v3"], "", "Backup v3 backend data"),
];

pub fn command() -> Command {
    let run: Run = run!(backup);
    Command::new("backup", "backup an etcd directory", " ", FLAGS, run)
}

async fn backup(call: &Call) -> Result<(), Exit> {
    let paths = ["data-dir", "wal-dir", "backup-dir", "backup-wal-dir"];
    let given = paths.map(|name| (name, call.string(name)));
    let given: Vec<_> = given.into_iter().filter(|(_, path)| !path.is_empty()).collect();
    for needed in ["data-dir", "backup-dir"] {
        if !given.iter().any(|(name, _)| *name == needed) {
            return Err(required(&format!("--{needed} is not set")));
        }
    }
    let words: Vec<_> = given
        .iter()
        .map(|(name, path)| format!("--{name}={path}"))
        .collect();
    Err(etcdutl::hand_over("backup", &words))
}
