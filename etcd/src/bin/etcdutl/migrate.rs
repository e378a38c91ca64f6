//! `etcdutl migrate`: whether a data directory has the layout of the version that is asked for.

use std::path::Path;

use component_base::flags::Flags;
use etcd::disk::real::RealDisk;
use etcd::wal::Wal;

use crate::command::{Command, Failure};

/// The only layout that this version writes is etcd 3.6's.
const CURRENT: (u32, u32) = (3, 6);
const OLDEST: (u32, u32) = (3, 5);

pub const COMMAND: Command = Command {
    path: &["migrate"],
    usage: "",
    about: "Migrates schema of etcd data dir files to make them compatible with different etcd version",
    flags: |set| {
        set.string("data-dir", "", "Path to the etcd data dir")
            .string("target-version", "", "Target etcd version to migrate contents of data dir. Minimal value 3.5. Format \"X.Y\" for example 3.6.")
            .bool("force", false, "Ignore migration failure and forcefully override storage version. Not recommended.")
    },
    required: &["data-dir", "target-version"],
    run,
};

fn run(flags: &Flags) -> Result<(), Failure> {
    let target = target(flags.string("target-version"))?;
    let dir = Path::new(flags.string("data-dir"));
    if dir.join("member/snap/db").exists() {
        return Err(Failure::error(format!(
            "{}: written by the Go etcd; migrate it with that etcd's etcdutl",
            dir.display()
        )));
    }
    if Wal::identify(&RealDisk, &dir.join("member/wal"))?.is_none() {
        return Err(Failure::error(format!(
            "{}: no data directory of etcd",
            dir.display()
        )));
    }
    if target != CURRENT {
        return Err(Failure::error(format!(
            "cannot create migration plan: the data directory is in the layout of 3.6, and there is no way from it to {}.{}; take a snapshot (`etcdctl snapshot save`) and restore it there",
            target.0, target.1
        )));
    }
    tracing::info!("storage-version" = "3.6", "storage version up-to-date");
    Ok(())
}

fn target(text: &str) -> Result<(u32, u32), Failure> {
    let parts: Vec<&str> = text.split('.').collect();
    let [major, minor] = parts[..] else {
        return Err(Failure::bad_arguments(format!(
            "wrong target version format, expected \"X.Y\", got {text:?}"
        )));
    };
    let number = |part: &str| {
        part.parse::<u32>()
            .map_err(|error| Failure::bad_arguments(format!("failed to parse target version: {error}")))
    };
    let target = (number(major)?, number(minor)?);
    match target < OLDEST {
        true => Err(Failure::bad_arguments(format!(
            "target version {text:?} not supported. Minimal \"3.5\""
        ))),
        false => Ok(target),
    }
}
