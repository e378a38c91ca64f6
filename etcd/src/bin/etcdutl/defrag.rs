//! `etcdutl defrag`: a running etcd gives space back by itself; this does it for one that is stopped.

use std::path::Path;
use std::sync::Arc;

use component_base::flags::Flags;
use etcd::disk::Disk;
use etcd::disk::real::{self, RealDisk};
use etcd::lease::Lessor;
use etcd::meta;
use etcd::mvcc::Store;
use etcd::storage::keeper::Keeper;
use etcd::storage::load::{self, Loaded};
use etcd::storage::{self, Writer};
use etcd::wal::Wal;

use crate::command::{Command, Failure};

pub const COMMAND: Command = Command {
    path: &["defrag"],
    usage: "",
    about: "Defragments the storage of the etcd",
    flags: |set| {
        set.string(
            "data-dir",
            "",
            "Required. Defragments a data directory not in use by etcd.",
        )
    },
    required: &["data-dir"],
    run,
};

fn run(flags: &Flags) -> Result<(), Failure> {
    let dir = flags.string("data-dir");
    defragment(Path::new(dir))
        .map_err(|failure| Failure::error(format!("Failed to defragment etcd data[{dir}] ({failure:#})")))
}

fn defragment(dir: &Path) -> anyhow::Result<()> {
    let (member, disk): (_, Arc<dyn Disk>) = (dir.join("member"), Arc::new(RealDisk));
    if member.join("snap/db").exists() {
        anyhow::bail!("written by the Go etcd; defragment it with that etcd's etcdutl");
    }
    let Some(ids) = Wal::identify(&*disk, &member.join("wal"))? else {
        anyhow::bail!("no data directory of etcd");
    };
    let lock = real::lock(&member.join("lock"))?;
    let Some(_lock) = lock else {
        anyhow::bail!("in use by a running etcd, which gives space back by itself: there is nothing to do");
    };
    let mut loaded = load::load(disk, &member.join("store"), ids.cluster, storage::SEGMENT_BYTES)?;
    let compacted = meta::read(&loaded, &mut Lessor::new(0))?.compacted;
    let versions = std::mem::take(&mut loaded.versions);
    let Loaded {
        storage,
        meta,
        frame,
        durable,
        active,
        ..
    } = loaded;
    let before = storage.total_bytes();
    let store = Arc::new(Store::open(storage.clone(), versions, frame.revision, compacted));
    let writer = Writer::new(storage.clone(), active, meta, frame)?;
    let mut keeper = Keeper::new(storage.clone(), ids.member, writer.written(), store, durable);
    keeper.checkpoint()?;
    keeper.reclaim()?;
    let freed = before.saturating_sub(storage.total_bytes());
    tracing::info!(
        bytes = freed,
        "defragmented; a running etcd gives space back by itself"
    );
    Ok(())
}
