//! `backup`, which is gone.

use super::{Run, required, run};
use crate::ctlv2::cli::{Call, Command, Flag, Kind, flag};
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

async fn backup(_: &Call) -> Result<(), Exit> {
    Err(required(
        "backup is gone with the v2 store: use `ETCDCTL_API=3 etcdctl snapshot save <filename>`",
    ))
}
