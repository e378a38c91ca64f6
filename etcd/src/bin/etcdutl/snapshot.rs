//! `etcdutl snapshot status` and `restore`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use component_base::flags::{FlagSet, Flags};
use etcd::disk::Disk;
use etcd::disk::real::RealDisk;
use etcd::snapshot::read::{self, Status};
use etcd::snapshot::restore::Restore;
use serde_json::json;

use crate::command::{Command, Failure, one_argument};
use crate::printer::{self, Answer, human_bytes};

pub const STATUS: Command = Command {
    path: &["snapshot", "status"],
    usage: " <filename>",
    about: "Gets backend snapshot status of a given file",
    flags: |set| set,
    required: &[],
    run: status,
};

pub const RESTORE: Command = Command {
    path: &["snapshot", "restore"],
    usage: " <filename> --data-dir {output dir} [options]",
    about: "Restores an etcd member snapshot to an etcd directory",
    flags: restore_flags,
    required: &[],
    run: restore,
};

fn restore_flags(set: FlagSet) -> FlagSet {
    set.string("data-dir", "", "Path to the output data directory")
        .string("wal-dir", "", "Path to the WAL directory (use --data-dir if none given)")
        .string("initial-cluster", "default=http://localhost:2380", "Initial cluster configuration for restore bootstrap")
        .string("initial-cluster-token", "etcd-cluster", "Initial cluster token for the etcd cluster during restore bootstrap")
        .string("initial-advertise-peer-urls", "http://localhost:2380", "List of this member's peer URLs to advertise to the rest of the cluster")
        .string("name", "default", "Human-readable name for this member")
        .bool("skip-hash-check", false, "Ignore snapshot integrity hash value (required if copied from data directory)")
        .int("initial-memory-map-size", 0, "Accepted and ignored: nothing is mapped into memory")
        .int("bump-revision", 0, "How much to increase the latest revision after restore")
        .bool("mark-compacted", false, "Mark the latest revision after restore as the point of scheduled compaction (required if --bump-revision > 0, disallowed otherwise)")
}

/// As etcd's, a hash at the end is neither needed nor looked at.
fn status(flags: &Flags) -> Result<(), Failure> {
    let file = one_argument(flags, "snapshot status")?;
    printer::check(flags)?;
    let database = read::open(Path::new(file), true)?;
    printer::print(flags, &answer(&read::status(&database)?));
    Ok(())
}

fn answer(status: &Status) -> Answer {
    Answer {
        headers: &["hash", "revision", "total keys", "total size", "version"],
        cells: vec![
            format!("{:x}", status.hash),
            status.revision.to_string(),
            status.total_key.to_string(),
            human_bytes(status.total_size),
            status.version.clone(),
        ],
        fields: vec![
            ("Hash", status.hash.to_string()),
            ("Revision", status.revision.to_string()),
            ("Keys", status.total_key.to_string()),
            ("Size", status.total_size.to_string()),
            ("Version", status.version.clone()),
        ],
        json: vec![
            ("hash", json!(status.hash)),
            ("revision", json!(status.revision)),
            ("totalKey", json!(status.total_key)),
            ("totalSize", json!(status.total_size)),
            ("version", json!(status.version)),
        ],
    }
}

fn restore(flags: &Flags) -> Result<(), Failure> {
    let file = one_argument(flags, "snapshot restore")?;
    let bump = flags.int("bump-revision");
    if (bump > 0) != flags.bool("mark-compacted") || bump < 0 {
        return Err(Failure::bad_arguments(
            "--mark-compacted required if --revision-bump > 0",
        ));
    }
    let name = flags.string("name");
    let data_dir = match flags.string("data-dir") {
        "" => PathBuf::from(format!("{name}.etcd")),
        given => PathBuf::from(given),
    };
    let wal_dir = Some(flags.string("wal-dir"))
        .filter(|dir| !dir.is_empty())
        .map(Path::new);
    let advertised: Vec<String> = flags
        .string("initial-advertise-peer-urls")
        .split(',')
        .map(str::to_owned)
        .collect();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    Restore {
        snapshot: Path::new(file),
        name,
        data_dir: &data_dir,
        wal_dir: wal_dir.filter(|dir| *dir != data_dir.join("member/wal")),
        initial_cluster: flags.string("initial-cluster"),
        initial_cluster_token: flags.string("initial-cluster-token"),
        advertise_peer_urls: &advertised,
        skip_hash_check: flags.bool("skip-hash-check"),
        bump_revision: bump as u64,
    }
    .run(&disk)?;
    Ok(())
}
