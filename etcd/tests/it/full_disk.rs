//! A disk that fills up under load: writes are refused, nothing is lost, and space brings everything back.

use std::path::Path;
use std::process::Command;

use etcd_api::etcdserverpb::{CompactionRequest, DeleteRangeRequest, RangeRequest};
use tempfile::TempDir;

use crate::harness::{Etcd, PATIENCE, prefix, put};

struct Tmpfs(TempDir);

impl Tmpfs {
    /// None when mounting is not permitted here.
    fn mount(megabytes: usize) -> Option<Tmpfs> {
        let folder = TempDir::new().unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(folder.path())
            .output();
        match output {
            Ok(output) if output.status.success() => Some(Tmpfs(folder)),
            Ok(output) => {
                eprintln!(
                    "skipped: cannot mount a tmpfs: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                );
                None
            }
            Err(error) => {
                eprintln!("skipped: cannot run mount: {error}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0.path()).status().ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_recovers_without_loss() {
    let Some(disk) = Tmpfs::mount(110) else { return };
    let mut etcd = Etcd::start_in(&disk.path().join("data"), "http", &[]);
    let mut kv = etcd.kv().await;
    let mut acknowledged = 0;
    let refused = loop {
        match kv.put(put(format!("k{acknowledged:06}"), vec![7; 100_000])).await {
            Ok(_) => acknowledged += 1,
            Err(status) => break status,
        }
        assert!(acknowledged < 3000, "the disk never filled up");
    };
    assert_eq!(refused.message(), "etcdserver: mvcc: database space exceeded");
    assert_eq!(count(&etcd).await, acknowledged);
    etcd.restart();
    assert_eq!(
        count(&etcd).await,
        acknowledged,
        "after a restart on the full disk"
    );
    let mut kv = etcd.kv().await;
    let range = prefix("k");
    let deleted = kv
        .delete_range(DeleteRangeRequest {
            key: range.key,
            range_end: range.range_end,
            prev_kv: false,
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(deleted.deleted, acknowledged as i64);
    kv.compact(CompactionRequest {
        revision: deleted.header.unwrap().revision,
        physical: true,
    })
    .await
    .unwrap();
    let start = std::time::Instant::now();
    while let Err(status) = kv.put(put("after", "fits")).await {
        assert!(start.elapsed() < PATIENCE, "{status}\n{}", etcd.log());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    etcd.restart();
    let request = RangeRequest {
        key: "after".into(),
        ..Default::default()
    };
    assert_eq!(
        etcd.kv()
            .await
            .range(request)
            .await
            .unwrap()
            .into_inner()
            .kvs
            .len(),
        1
    );
}

async fn count(etcd: &Etcd) -> usize {
    let request = RangeRequest {
        count_only: true,
        ..prefix("k")
    };
    etcd.kv().await.range(request).await.unwrap().into_inner().count as usize
}
