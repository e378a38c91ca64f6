//! Snapshots over the wire and through etcdutl; [`upstream`] takes them to the real etcd and back.

mod upstream;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use etcd_api::etcdserverpb::maintenance_client::MaintenanceClient;
use etcd_api::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, HashKvRequest, LeaseGrantRequest, SnapshotRequest,
};
use free_port::free_port;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::harness::{Etcd, PATIENCE, prefix, put, revision_of};

fn etcdutl(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_etcdutl"))
        .args(args)
        .output()
        .unwrap()
}

fn stdout(output: Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The messages of a snapshot: what remained after each, and its bytes.
async fn snapshot(etcd: &Etcd) -> Vec<(u64, Vec<u8>)> {
    let mut client = MaintenanceClient::new(etcd.channel().await);
    let mut stream = client.snapshot(SnapshotRequest {}).await.unwrap().into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        assert_eq!(message.version, "3.6.0");
        messages.push((message.remaining_bytes, message.blob.to_vec()));
    }
    messages
}

async fn save(etcd: &Etcd, file: &Path) {
    let bytes: Vec<u8> = snapshot(etcd)
        .await
        .into_iter()
        .flat_map(|(_, blob)| blob)
        .collect();
    std::fs::write(file, bytes).unwrap();
}

/// Keys with history, tombstones, a lease and a compaction.
async fn fill(etcd: &Etcd) -> i64 {
    let mut kv = etcd.kv().await;
    for number in 0..300 {
        let value = vec![b'x'; 50 + number * 7];
        kv.put(put(format!("key{:03}", number % 200), value))
            .await
            .unwrap();
    }
    // Over many pages.
    kv.put(put("big", vec![b'y'; 100_000])).await.unwrap();
    let delete = |key: &'static str| DeleteRangeRequest {
        key: key.into(),
        ..Default::default()
    };
    kv.delete_range(delete("key007")).await.unwrap();
    let grant = LeaseGrantRequest { ttl: 3600, id: 4711 };
    etcd.lease().await.lease_grant(grant).await.unwrap();
    let mut leased = put("leased", "value");
    leased.lease = 4711;
    kv.put(leased).await.unwrap();
    let revision = kv.delete_range(delete("key008")).await.unwrap().into_inner();
    let revision = revision.header.unwrap().revision;
    let compaction = CompactionRequest {
        revision: revision - 2,
        physical: true,
    };
    kv.compact(compaction).await.unwrap();
    kv.put(put("last", "value")).await.unwrap();
    revision + 1
}

async fn keys(etcd: &Etcd) -> Vec<etcd_api::mvccpb::KeyValue> {
    etcd.kv().await.range(prefix("k")).await.unwrap().into_inner().kvs
}

async fn hash(etcd: &Etcd) -> (u32, i64, i64) {
    let mut client = MaintenanceClient::new(etcd.channel().await);
    let hash = client
        .hash_kv(HashKvRequest { revision: 0 })
        .await
        .unwrap()
        .into_inner();
    (hash.hash, hash.hash_revision, hash.compact_revision)
}

fn restore(file: &Path, dir: &Path, extra: &[&str]) -> Output {
    let data_dir = format!("--data-dir={}", dir.display());
    let args = [
        "snapshot",
        "restore",
        path(file),
        &data_dir,
        "--name=it",
        "--initial-cluster=it=http://localhost:2380",
    ];
    etcdutl(&[&args[..], extra].concat())
}

/// The flags that make it the same member as [`Etcd::start_in`] makes of ports.
fn cluster_flags(peer_port: u16) -> [String; 2] {
    [
        format!("--initial-cluster=it=http://127.0.0.1:{peer_port}"),
        format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_counts_down_and_ends_with_the_hash() {
    let etcd = Etcd::start();
    fill(&etcd).await;
    let mut messages = snapshot(&etcd).await;
    let (remaining, sum) = messages.pop().unwrap();
    assert_eq!((remaining, sum.len()), (0, 32));
    let database: Vec<u8> = messages.iter().flat_map(|(_, blob)| blob.clone()).collect();
    assert_eq!(Sha256::digest(&database).to_vec(), sum);
    let mut left = database.len() as u64;
    for (remaining, blob) in &messages {
        left -= blob.len() as u64;
        assert!(
            *remaining == left && blob.len() <= 32 * 1024,
            "{remaining} {left}"
        );
    }
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn etcdutl_tells_status_and_hash_in_every_format() {
    let etcd = Etcd::start();
    let revision = fill(&etcd).await;
    let file = etcd.dir.with_file_name("snapshot.db");
    save(&etcd, &file).await;
    let json: serde_json::Value = serde_json::from_str(&stdout(etcdutl(&[
        "snapshot",
        "status",
        path(&file),
        "-w",
        "json",
    ])))
    .unwrap();
    assert_eq!(
        (&json["revision"], &json["totalKey"]),
        (&revision.into(), &201.into())
    );
    assert_eq!(
        (&json["version"], json["totalSize"].as_u64().unwrap() % 4096),
        (&"3.6.0".into(), 0)
    );
    let fields = stdout(etcdutl(&["-w=fields", "snapshot", "status", path(&file)]));
    assert!(
        fields.contains(&format!("\"Revision\" : {revision}\n")),
        "{fields}"
    );
    let table = stdout(etcdutl(&["snapshot", "status", path(&file), "--write-out=table"]));
    assert!(
        table.contains("| REVISION | TOTAL KEYS | TOTAL SIZE | VERSION |"),
        "{table}"
    );
    let (hash, at, compacted) = hash(&etcd).await;
    assert_eq!(
        stdout(etcdutl(&["hashkv", path(&file)])),
        format!("{hash}, {at}, {compacted}\n")
    );
    assert_eq!(
        stdout(etcdutl(&[
            "hashkv",
            path(&file),
            "--rev",
            &at.to_string(),
            "-wjson"
        ])),
        format!("{{\"hash\":{hash},\"hashRevision\":{at},\"compactRevision\":{compacted}}}\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_taken_under_writes_is_one_revision() {
    let etcd = Etcd::start();
    fill(&etcd).await;
    let stop = Arc::new(AtomicBool::new(false));
    let file = etcd.dir.with_file_name("snapshot.db");
    // Both keys change in every transaction: a snapshot between two of them would show.
    let (mut kv, stopped) = (etcd.kv().await, stop.clone());
    let writing = tokio::spawn(async move {
        let mut count = 0u32;
        while !stopped.load(Ordering::SeqCst) {
            kv.txn(both(count)).await.unwrap();
            count += 1;
        }
        count
    });
    for _ in 0..5 {
        save(&etcd, &file).await;
        stdout(etcdutl(&["snapshot", "status", path(&file)]));
    }
    stop.store(true, Ordering::SeqCst);
    assert!(writing.await.unwrap() > 10, "writes stood still");
    let dir = etcd.dir.with_file_name("copy");
    stdout(restore(&file, &dir, &[]));
    let copy = Etcd::start_in(&dir, "http", &[]);
    let mut kv = copy.kv().await;
    let value = |kvs: Vec<etcd_api::mvccpb::KeyValue>| (kvs[0].value.clone(), kvs[0].mod_revision);
    let left = value(kv.range(prefix("left")).await.unwrap().into_inner().kvs);
    let right = value(kv.range(prefix("right")).await.unwrap().into_inner().kvs);
    assert_eq!(left, right);
}

fn both(count: u32) -> etcd_api::etcdserverpb::TxnRequest {
    use etcd_api::etcdserverpb::{RequestOp, TxnRequest, request_op::Request};
    let op = |key: &str| RequestOp {
        request: Some(Request::RequestPut(put(key, count.to_string()))),
    };
    TxnRequest {
        success: vec![op("left"), op("right")],
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_take_nothing_hold_up_nobody_and_are_few() {
    let etcd = Etcd::start();
    let mut kv = etcd.kv().await;
    for number in 0..8 {
        kv.put(put(format!("k{number}"), vec![b'x'; 1_000_000]))
            .await
            .unwrap();
    }
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let mut client = MaintenanceClient::new(etcd.channel().await);
        stalled.push(client.snapshot(SnapshotRequest {}).await.unwrap());
    }
    let mut client = MaintenanceClient::new(etcd.channel().await);
    let refused = client.snapshot(SnapshotRequest {}).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: too many requests");
    let revision = revision_of(&mut kv, put("k0", "smaller")).await;
    let compaction = CompactionRequest {
        revision,
        physical: true,
    };
    kv.compact(compaction).await.unwrap();
    stalled.clear();
    let start = Instant::now();
    // They are noticed to be gone when the next piece finds nobody.
    while client.snapshot(SnapshotRequest {}).await.is_err() {
        assert!(
            start.elapsed() < PATIENCE,
            "a client that has gone keeps its place"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_member_serves_the_same_and_starts_again() {
    let etcd = Etcd::start();
    let revision = fill(&etcd).await;
    let file = etcd.dir.with_file_name("snapshot.db");
    save(&etcd, &file).await;
    let dir = etcd.dir.with_file_name("copy");
    stdout(restore(&file, &dir, &[]));
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(dir.clone()), 0o700);
    assert_eq!(mode(dir.join("member/store/MANIFEST")), 0o600);
    let mut copy = Etcd::start_in(&dir, "http", &[]);
    for _ in 0..2 {
        assert_eq!(hash(&copy).await, hash(&etcd).await);
        assert_eq!(keys(&copy).await, keys(&etcd).await);
        copy.restart();
    }
    let written = revision_of(&mut copy.kv().await, put("new", "value")).await;
    assert_eq!(written, revision + 1);
    let again = restore(&file, &dir, &[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("not empty or could not be read"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bumped_revision_counts_as_compacted() {
    let etcd = Etcd::start();
    let revision = fill(&etcd).await;
    let file = etcd.dir.with_file_name("snapshot.db");
    save(&etcd, &file).await;
    let (dir, wal) = (etcd.dir.with_file_name("copy"), etcd.dir.with_file_name("wal"));
    let wal_dir = format!("--wal-dir={}", wal.display());
    stdout(restore(
        &file,
        &dir,
        &["--bump-revision=1000000", "--mark-compacted", &wal_dir],
    ));
    let copy = Etcd::start_in(&dir, "http", &[&wal_dir]);
    let mut kv = copy.kv().await;
    let answer = kv.range(prefix("leased")).await.unwrap().into_inner();
    assert_eq!(answer.header.unwrap().revision, revision + 1_000_000);
    assert_eq!(answer.kvs[0].value, "value");
    let mut old = prefix("leased");
    old.revision = revision;
    let error = kv.range(old).await.unwrap_err();
    assert!(
        error.message().contains("required revision has been compacted"),
        "{error}"
    );
}

#[test]
fn bad_usage_is_told_with_etcds_exit_codes() {
    for (args, code, text) in [
        (
            &["snapshot", "status"][..],
            128,
            "snapshot status requires exactly one argument",
        ),
        (
            &["snapshot", "restore", "x", "--bump-revision=1"],
            128,
            "--mark-compacted required if --revision-bump > 0",
        ),
        (
            &["snapshot", "status", "x", "-w", "yaml"],
            4,
            "unsupported output format",
        ),
        (&["snapshot", "status", "/nonexistent"], 1, "/nonexistent"),
        (&["defrag"], 1, "required flag(s) \"data-dir\" not set"),
        (
            &["migrate", "--data-dir=x", "--target-version=3"],
            128,
            "wrong target version format",
        ),
        (&["snapshot", "restore", "x", "--nme=y"], 1, "unknown flag: --nme"),
        (
            &["frobnicate"],
            1,
            "unknown command \"frobnicate\" for \"etcdutl\"",
        ),
    ] {
        let output = etcdutl(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(
            said.starts_with("Error: ") && said.contains(text),
            "{args:?}: {said}"
        );
    }
    assert!(stdout(etcdutl(&["version"])).starts_with("etcdutl version: 3.6."));
    assert!(stdout(etcdutl(&["--help"])).contains("snapshot restore"));
}

#[tokio::test(flavor = "multi_thread")]
async fn defrag_works_on_a_stopped_member_only() {
    let mut etcd = Etcd::start();
    fill(&etcd).await;
    let before = hash(&etcd).await;
    let data_dir = format!("--data-dir={}", etcd.dir.display());
    let running = etcdutl(&["defrag", &data_dir]);
    assert_eq!(running.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&running.stderr).contains("gives space back by itself"));
    etcd.kill();
    stdout(etcdutl(&["defrag", &data_dir]));
    stdout(etcdutl(&["migrate", &data_dir, "--target-version=3.6"]));
    etcd.start_again();
    assert_eq!(hash(&etcd).await, before);
}
