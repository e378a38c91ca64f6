//! A disk that fills up under load: writes are refused, nothing is lost, and space brings everything back.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use etcd_api::etcdserverpb::maintenance_client::MaintenanceClient;
use etcd_api::etcdserverpb::{CompactionRequest, DefragmentRequest, DeleteRangeRequest, RangeRequest};
use tempfile::TempDir;

use crate::harness::{Etcd, PATIENCE, prefix, put};
use crate::members::Cluster;

pub struct Tmpfs {
    path: PathBuf,
    _folder: Option<TempDir>,
}

impl Tmpfs {
    fn mount(megabytes: usize) -> Option<Tmpfs> {
        let folder = TempDir::new().unwrap();
        let mut disk = Tmpfs::mount_at(folder.path(), megabytes)?;
        disk._folder = Some(folder);
        Some(disk)
    }

    /// None when mounting is not permitted here.
    pub fn mount_at(path: &Path, megabytes: usize) -> Option<Tmpfs> {
        std::fs::create_dir_all(path).unwrap();
        let output = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={megabytes}m,mode=700"),
                "tmpfs",
            ])
            .arg(path)
            .output();
        match output {
            Ok(output) if output.status.success() => Some(Tmpfs {
                path: path.to_owned(),
                _folder: None,
            }),
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

    /// Leaves no room: what is written to this file until the disk is full. Removing it makes room again.
    pub fn fill(&self) -> PathBuf {
        let ballast = self.path.join("ballast");
        let mut file = std::fs::File::create(&ballast).unwrap();
        let piece = vec![0; 64 * 1024];
        while file.write_all(&piece).is_ok() {}
        ballast
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.path).status().ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_recovers_without_loss() {
    let Some(disk) = Tmpfs::mount(110) else { return };
    let mut etcd = Etcd::start_in(&disk.path.join("data"), "http", &[]);
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
    let start = Instant::now();
    while let Err(status) = kv.put(put("after", "fits")).await {
        assert!(start.elapsed() < PATIENCE, "{status}\n{}", etcd.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
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

/// The space that each member of three has, and values that fill it soon.
const MEMBER_MEGABYTES: usize = 300;
const VALUE_BYTES: usize = 100_000;

/// Whoever is full, and though nobody writes through it: it says so before it cannot follow any more, and nobody else says that it has space.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_member_of_three_stops_writes_and_no_reads() {
    for leads in [false, true] {
        let Some(cluster) = Cluster::start_on_disks(MEMBER_MEGABYTES, None, &[]).await else {
            return;
        };
        let leader = cluster.leader().await;
        let full = if leads { leader } else { (leader + 1) % 3 };
        let mut kv = cluster.nodes[(full + 1) % 3].kv().await;
        let ballast = cluster.disks[full].fill();
        let start = Instant::now();
        let refused = loop {
            match kv.put(put("k", vec![7; VALUE_BYTES])).await {
                Ok(_) => assert!(start.elapsed() < PATIENCE * 2, "the disk never filled up"),
                Err(status) => break status,
            }
        };
        assert_eq!(refused.message(), "etcdserver: mvcc: database space exceeded");
        // The others checkpoint and reclaim meanwhile, and find that they have space.
        for number in 0..40 {
            let write = kv.put(put("k", vec![7; VALUE_BYTES])).await;
            assert!(write.is_err(), "write {number} was taken");
            for node in &cluster.nodes {
                MaintenanceClient::new(node.channel().await)
                    .defragment(DefragmentRequest {})
                    .await
                    .unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for node in &cluster.nodes {
            let mut kv = node.kv().await;
            let read = tokio::time::timeout(Duration::from_secs(2), kv.range(prefix("k"))).await;
            let read = read.unwrap_or_else(|_| panic!("{} answers no read", node.name));
            assert_eq!(read.unwrap().into_inner().kvs.len(), 1);
        }
        std::fs::remove_file(ballast).unwrap();
        cluster
            .until("there is space again", async || {
                cluster.nodes[full]
                    .kv()
                    .await
                    .put(put("after", "fits"))
                    .await
                    .is_ok()
            })
            .await;
        for node in &cluster.nodes {
            assert!(
                !node
                    .log()
                    .contains("whether the NOSPACE alarm was changed is not known")
            );
        }
    }
}
