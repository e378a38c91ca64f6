//! A damaged log does not start, and says which file and where.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use etcd::wal::format::{GROUP_HEADER_BYTES, Group, GroupHeader, SEGMENT_HEADER_BYTES};

use crate::harness::{Etcd, put};

fn only_file(dir: &Path, extension: &str) -> PathBuf {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    files.remove(0)
}

fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

async fn written() -> Etcd {
    let mut etcd = Etcd::start();
    let mut kv = etcd.kv().await;
    for number in 0..20 {
        kv.put(put(format!("k{number}"), vec![7; 2000])).await.unwrap();
    }
    etcd.kill();
    etcd
}

#[tokio::test]
async fn a_corrupt_log_record_refuses_to_start_and_names_file_and_offset() {
    let etcd = written().await;
    let wal = only_file(&etcd.dir.join("member/wal"), "wal");
    flip(&wal, 12_000);
    let (code, text) = etcd.start_refused();
    assert_eq!(code, Some(1));
    assert!(
        text.contains(wal.file_name().unwrap().to_str().unwrap()),
        "{text}"
    );
    assert!(
        text.contains("corrupt at offset") && text.contains("restore a snapshot"),
        "{text}"
    );
}

#[tokio::test]
async fn a_torn_tail_is_repaired() {
    let mut etcd = written().await;
    let wal = only_file(&etcd.dir.join("member/wal"), "wal");
    let bytes = std::fs::read(&wal).unwrap();
    let mut start = SEGMENT_HEADER_BYTES;
    let mut last = GroupHeader::decode(&bytes[start..]).unwrap();
    while let Some(header) = GroupHeader::decode(&bytes[start..]) {
        last = header;
        start += GROUP_HEADER_BYTES + header.length as usize;
    }
    // A group that was never acknowledged: its first sector arrived, the rest did not.
    let mut group = Group::default();
    group.entry(&raft::eraftpb::Entry {
        index: 1000,
        data: vec![9; 4000].into(),
        ..Default::default()
    });
    group.seal(last.sequence + 1, last.chain);
    let arrived = start.next_multiple_of(512) + 512 - start;
    File::options()
        .write(true)
        .open(&wal)
        .unwrap()
        .write_all_at(&group.bytes()[..arrived], start as u64)
        .unwrap();
    etcd.start_again();
    assert!(etcd.log().contains("repaired the torn tail"));
    let response = etcd
        .kv()
        .await
        .range(crate::harness::prefix("k"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(response.kvs.len(), 20);
}

#[tokio::test]
async fn a_missing_store_segment_is_named() {
    let mut etcd = written().await;
    etcd.start_again();
    // A graceful stop writes MANIFEST.
    std::process::Command::new("kill")
        .arg(etcd.child.id().to_string())
        .status()
        .unwrap();
    etcd.child.wait().unwrap();
    let segment = only_file(&etcd.dir.join("member/store"), "seg");
    std::fs::remove_file(&segment).unwrap();
    let (code, text) = etcd.start_refused();
    assert_eq!(code, Some(1));
    assert!(
        text.contains(segment.file_name().unwrap().to_str().unwrap()) && text.contains("missing"),
        "{text}"
    );
}
