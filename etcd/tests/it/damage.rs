//! A byte of the store changes under a running member: who hears of it, what goes on, and what ends it.

use std::path::Path;

use etcd_api::etcdserverpb::kv_client::KvClient;
use etcd_api::etcdserverpb::maintenance_client::MaintenanceClient;
use etcd_api::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, CompactionRequest, Compare, DeleteRangeRequest, PutRequest,
    RangeRequest, RequestOp, SnapshotRequest, StatusRequest, TxnRequest, compare::CompareResult,
    compare::CompareTarget, compare::TargetUnion, request_op::Request,
};
use tonic::Code;
use tonic::transport::Channel;

use crate::etcdctl::wait_for;
use crate::harness::{Etcd, http_get, prefix, put, revision_of};
use crate::members::Cluster;
use crate::records;

const TOLD: &str = "the store is damaged";

fn get(key: &'static str) -> RangeRequest {
    RangeRequest {
        key: key.into(),
        ..Default::default()
    }
}

fn if_value_is(key: &'static str, value: &'static str, then: PutRequest) -> TxnRequest {
    TxnRequest {
        compare: vec![Compare {
            key: key.into(),
            result: CompareResult::Equal as i32,
            target: CompareTarget::Value as i32,
            target_union: Some(TargetUnion::Value(value.into())),
            ..Default::default()
        }],
        success: vec![RequestOp {
            request: Some(Request::RequestPut(then)),
        }],
        failure: Vec::new(),
    }
}

/// Fills the segment that the key lies in, and damages it there. Returns the file.
async fn damage(kv: &mut KvClient<Channel>, dir: &Path, key: &str) -> String {
    let place = records::find(dir, key);
    for _ in 0..30 {
        kv.put(put("filler", vec![7; 1_000_000])).await.unwrap();
    }
    wait_for(|| place.is_sealed());
    place.flip();
    place.path.display().to_string()
}

/// A member alone, of whose keys one cannot be read.
async fn alone() -> (Etcd, String) {
    let etcd = Etcd::start();
    let mut kv = etcd.kv().await;
    for key in ["k1", "k2", "k3"] {
        kv.put(put(key, "value")).await.unwrap();
    }
    let file = damage(&mut kv, &etcd.dir, "k2").await;
    (etcd, file)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_record_is_told_everywhere_and_stops_nothing_else() {
    let (etcd, file) = alone().await;
    let mut kv = etcd.kv().await;
    assert_eq!(etcd.get("/readyz").0, 200);
    for _ in 0..3 {
        let refused = kv.range(get("k2")).await.unwrap_err();
        assert_eq!(refused.code(), Code::DataLoss, "{refused}");
        assert!(refused.message().contains(&file), "{refused}");
    }
    // Once, with what to do.
    let log = etcd.log();
    assert_eq!(log.matches(TOLD).count(), 1, "{log}");
    let line = log.lines().find(|line| line.contains(TOLD)).unwrap();
    for part in [
        &file,
        "offset",
        "k2",
        "remove this one from the cluster",
        "restore a snapshot",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    for (path, failed) in [
        ("/readyz", "[-]data_corruption failed"),
        ("/readyz/data_corruption", "[-]data_corruption failed"),
        ("/health", "DATA CORRUPTION"),
    ] {
        let (status, body) = etcd.get(path);
        assert_eq!(status, 503, "{path}: {body}");
        assert!(body.contains(failed) && body.contains(&file), "{path}: {body}");
    }
    // It is no reason to start the process again, nor to keep anybody from writing.
    for path in [
        "/livez",
        "/health?exclude=CORRUPT",
        "/readyz?exclude=data_corruption",
    ] {
        assert_eq!(etcd.get(path).0, 200, "{path}");
    }
    assert!(
        etcd.get("/metrics")
            .1
            .contains("etcd_disk_damaged_segments_total 1")
    );
    kv.put(put("k4", "value")).await.unwrap();
    assert_eq!(kv.range(get("k3")).await.unwrap().into_inner().kvs.len(), 1);

    let mut maintenance = MaintenanceClient::new(etcd.channel().await);
    let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
    assert!(
        status.errors.iter().any(|error| error.contains(&file)),
        "{:?}",
        status.errors
    );
    let alarms = maintenance.alarm(AlarmRequest::default()).await.unwrap();
    let expected = AlarmMember {
        member_id: status.header.unwrap().member_id,
        alarm: AlarmType::Corrupt as i32,
    };
    assert_eq!(alarms.into_inner().alarms, [expected]);
    let mut snapshot = maintenance
        .snapshot(SnapshotRequest {})
        .await
        .unwrap()
        .into_inner();
    let refused = loop {
        match snapshot.message().await {
            Ok(piece) => assert!(piece.is_some(), "half a snapshot looks like a whole one"),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.code(), Code::DataLoss, "{refused}");
    if let Some(text) = etcd.ctl(&["endpoint", "status", "-w", "json"]) {
        assert!(text.contains(&file), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_a_member_outlives_what_it_cannot_decide_and_heals_with_its_key() {
    let (mut etcd, file) = alone().await;
    let mut kv = etcd.kv().await;
    let swap = if_value_is("k2", "value", put("k1", "swapped"));
    let keep_value = PutRequest {
        ignore_value: true,
        ..put("k2", "")
    };
    for refused in [
        kv.txn(swap).await.unwrap_err(),
        kv.put(keep_value).await.unwrap_err(),
    ] {
        assert_eq!(refused.code(), Code::DataLoss, "{refused}");
        assert!(refused.message().contains(&file), "{refused}");
    }
    assert!(etcd.child.try_wait().unwrap().is_none(), "{}", etcd.log());
    let with_prev = PutRequest {
        prev_kv: true,
        ..put("k2", "new")
    };
    let refused = kv.put(with_prev).await.unwrap_err();
    assert_eq!(refused.code(), Code::DataLoss, "{refused}");
    assert!(refused.message().contains("is written"), "{refused}");
    let read = kv.range(get("k2")).await.unwrap().into_inner();
    assert_eq!(&read.kvs[0].value[..], b"new");
    // The old value is history, until that is compacted and the segment copied without it.
    assert_eq!(etcd.get("/readyz").0, 503);
    let revision = revision_of(&mut kv, put("k4", "value")).await;
    kv.compact(CompactionRequest {
        revision,
        physical: true,
    })
    .await
    .unwrap();
    wait_for(|| etcd.get("/readyz").0 == 200);
    etcd.restart();
    let read = etcd.kv().await.range(prefix("k")).await.unwrap().into_inner();
    assert_eq!(read.kvs.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_follower_is_found_by_the_check_and_marks_nobody() {
    let mut cluster = Cluster::start(3, None, &["--corrupt-check-time=300ms"]).await;
    let leader = cluster.leader().await;
    let mut kv = cluster.nodes[leader].kv().await;
    for number in 0..20 {
        kv.put(put(format!("k{number}"), "value")).await.unwrap();
    }
    cluster.agree().await;
    let victim = (leader + 1) % 3;
    damage(&mut kv, &cluster.nodes[victim].dir, "k7").await;
    let port = cluster.nodes[victim].port;
    cluster
        .until("the follower is not ready", async || {
            http_get(port, "/readyz/data_corruption").0 == 503
        })
        .await;
    assert_eq!(cluster.nodes[victim].log().matches(TOLD).count(), 1);
    // The others are as they were: they write, compact, and have no alarm.
    kv.put(put("more", "value")).await.unwrap();
    for place in [leader, (leader + 2) % 3] {
        let (status, body) = http_get(cluster.nodes[place].port, "/health");
        assert_eq!(status, 200, "{body}");
    }
    assert!(
        !cluster.nodes[leader]
            .log()
            .contains("same compact revision then hashes must match")
    );
    // The victim's own copy of an entry cannot be decided upon, whoever proposed it.
    let swapped = kv
        .txn(if_value_is("k7", "value", put("k7", "swapped")))
        .await
        .unwrap();
    assert!(swapped.into_inner().succeeded);
    cluster.nodes[victim].ends();
    let log = cluster.nodes[victim].log();
    assert!(
        log.contains("an entry cannot be applied") && log.contains("k7"),
        "{log}"
    );
    assert!(!log.contains("failed to write"), "{log}");
    cluster.spawn(victim, "new", &[]);
    cluster.nodes[victim].ends();
    let again = cluster.nodes[victim].log().split_off(log.len());
    assert!(
        again.contains("corrupt at offset") && again.contains("remove this one"),
        "{again}"
    );
    let delete = DeleteRangeRequest {
        key: "k7".into(),
        ..Default::default()
    };
    kv.delete_range(delete).await.unwrap();
}
