//! `etcdutl backup`: the files of a member that is stopped, for a new cluster of one (`etcd --force-new-cluster`).

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use component_base::flags::Flags;
use etcd::disk::real::{self, RealDisk};
use etcd::storage::keeper::BALLAST;
use etcd::wal::{SPARE_NAME, Wal};

use crate::command::{Command, Failure};

pub const COMMAND: Command = Command {
    path: &["backup"],
    usage: " --data-dir={...} --backup-dir={...}",
    about: "Copies the data directory of a member that is stopped",
    flags: |set| {
        set.string(
            "data-dir",
            "",
            "Required. The data directory to copy, not in use by etcd.",
        )
        .string(
            "wal-dir",
            "",
            "Its WAL directory, where that is not in the data directory",
        )
        .string(
            "backup-dir",
            "",
            "Required. Where the copy goes; nothing may be there.",
        )
        .string(
            "backup-wal-dir",
            "",
            "Where the copy of the WAL goes, where not into the copy",
        )
        .bool("with-v3", true, "Accepted: there is no other data than v3's")
    },
    required: &["data-dir", "backup-dir"],
    run,
};

/// Room that was reserved, and holds nothing.
const LEFT_OUT: [&str; 2] = [BALLAST, SPARE_NAME];

fn run(flags: &Flags) -> Result<(), Failure> {
    let from = Member::of(flags, "data-dir", "wal-dir");
    let to = Member::of(flags, "backup-dir", "backup-wal-dir");
    backup(&from, &to)
        .map_err(|error| Failure::error(format!("failed to back up {} ({error:#})", from.member.display())))
}

struct Member {
    member: PathBuf,
    wal: PathBuf,
}

impl Member {
    fn of(flags: &Flags, dir: &str, wal: &str) -> Member {
        let member = Path::new(flags.string(dir)).join("member");
        let wal = match flags.string(wal) {
            "" => member.join("wal"),
            given => PathBuf::from(given),
        };
        Member { member, wal }
    }

    fn store(&self) -> PathBuf {
        self.member.join("store")
    }
}

fn backup(from: &Member, to: &Member) -> Result<()> {
    if Wal::identify(&RealDisk, &from.wal)?.is_none() {
        bail!("no data directory of this etcd");
    }
    let Some(_lock) = real::lock(&from.member.join("lock"))? else {
        bail!("in use by a running etcd: ask that for `etcdctl snapshot save` instead");
    };
    for to in [&to.store(), &to.wal] {
        if to.exists() {
            bail!("{} is there already; name a new --backup-dir", to.display());
        }
    }
    copy(&from.store(), &to.store())?;
    copy(&from.wal, &to.wal)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        if LEFT_OUT.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let target = to.join(entry.file_name());
        fs::copy(entry.path(), &target).with_context(|| format!("cannot write {}", target.display()))?;
        File::open(&target)?.sync_all()?;
    }
    Ok(File::open(to)?.sync_all()?)
}
