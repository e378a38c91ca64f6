//! `snapshot status` and `restore`, which etcd 3.6 has moved to etcdutl.

use super::{Ctl, Run, run};
use crate::cobra::{Command, Flag};
use crate::etcdutl;
use crate::exit::Exit;

const DATA_DIR: &str = "data-dir";

pub fn commands() -> [Command<Run>; 2] {
    let status = "[deprecated] Gets backend snapshot status of a given file";
    let restore = "[deprecated] Restores an etcd member snapshot to an etcd directory";
    let restore_usage = "restore <filename> --data-dir {output dir} [options]";
    [
        Command::new("status <filename>", status, run!(self::status)),
        Command::new(restore_usage, restore, run!(self::restore)).flags(restore_flags()),
    ]
}

/// etcdutl's, which has the defaults too: only what was given is handed over.
fn restore_flags() -> Vec<Flag> {
    vec![
        Flag::string(DATA_DIR, "", "Path to the output data directory"),
        Flag::string(
            "wal-dir",
            "",
            "Path to the WAL directory (use --data-dir if none given)",
        ),
        Flag::string(
            "initial-cluster",
            "default=http://localhost:2380",
            "Initial cluster configuration for restore bootstrap",
        ),
        Flag::string(
            "initial-cluster-token",
            "etcd-cluster",
            "Initial cluster token for the etcd cluster during restore bootstrap",
        ),
        Flag::string(
            "initial-advertise-peer-urls",
            "http://localhost:2380",
            "List of this member's peer URLs to advertise to the rest of the cluster",
        ),
        Flag::string("name", "default", "Human-readable name for this member"),
        Flag::bool(
            "skip-hash-check",
            "Ignore snapshot integrity hash value (required if copied from data directory)",
        ),
        Flag::int(
            "bump-revision",
            "0",
            "How much to increase the latest revision after restore",
        ),
        Flag::bool(
            "mark-compacted",
            "Mark the latest revision after restore as the point of scheduled compaction (required if --bump-revision > 0, disallowed otherwise)",
        ),
    ]
}

async fn status(ctl: &mut Ctl) -> Result<(), Exit> {
    hand_over(ctl, "snapshot status", &[])
}

async fn restore(ctl: &mut Ctl) -> Result<(), Exit> {
    hand_over(ctl, "snapshot restore", &restore_flags())
}

fn hand_over(ctl: &Ctl, command: &str, flags: &[Flag]) -> Result<(), Exit> {
    let names = flags.iter().map(|flag| flag.name).chain(["write-out"]);
    let given = names.filter(|name| ctl.flags.changed(name));
    let words = given.map(|name| format!("--{name}={}", ctl.flags.display(name)));
    let words: Vec<String> = words.chain(ctl.args.iter().cloned()).collect();
    Err(etcdutl::hand_over(command, &words))
}
