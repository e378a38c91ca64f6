//! `/metrics`: the names that dashboards ask for, and that each is counted where it says.

use std::collections::HashMap;

use etcd_api::etcdserverpb::Compare;
use etcd_api::etcdserverpb::maintenance_client::MaintenanceClient;
use etcd_api::etcdserverpb::{
    CompactionRequest, DefragmentRequest, DeleteRangeRequest, HashKvRequest, LeaseGrantRequest,
    LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, SnapshotRequest,
    TxnRequest, WatchCreateRequest, WatchRequest, compare, request_op, watch_request,
};
use free_port::free_port;
use tonic::Request;

use crate::etcdctl::wait_for;
use crate::harness::{Etcd, http_get, prefix, put};

#[test]
fn metrics_have_the_mixins_names() {
    let port = free_port();
    let etcd = Etcd::start_with(&[&format!("--listen-metrics-urls=http://127.0.0.1:{port}")]);
    etcd.ctl(&["put", "a", "1"]);
    let (status, metrics) = http_get(port, "/metrics");
    assert_eq!(status, 200);
    for counted in [
        "etcd_network_client_grpc_received_bytes_total",
        "etcd_network_client_grpc_sent_bytes_total",
    ] {
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{counted} ")));
        assert!(value.is_some_and(|value| value != "0"), "{counted}: {value:?}");
    }
    for name in [
        "etcd_disk_backend_commit_duration_seconds_bucket",
        "etcd_server_slow_apply_total 0",
        "etcd_cluster_version{cluster_version=\"3.6\"} 1",
        r#"grpc_server_started_total{grpc_type="bidi_stream",grpc_service="etcdserverpb.Watch",grpc_method="Watch"} 0"#,
        r#"grpc_server_handled_total{grpc_type="unary",grpc_service="etcdserverpb.KV",grpc_method="Put",grpc_code="OK"} 1"#,
        "grpc_server_handling_seconds_bucket",
        "etcd_server_has_leader 1",
        "etcd_server_leader_changes_seen_total 1",
        "etcd_server_proposals_failed_total 0",
        "etcd_disk_wal_fsync_duration_seconds_bucket",
        "etcd_mvcc_db_total_size_in_bytes",
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "etcd_server_quota_backend_bytes 2.147483648e+09",
        "process_resident_memory_bytes",
    ] {
        assert!(metrics.contains(name), "{name} is missing");
    }
}

/// Dashboards show what is started and not yet handled as open streams.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_handled_when_it_ends() {
    let etcd = Etcd::start();
    let mut watches = etcd.watch().await;
    let requests = tokio_stream::iter([WatchRequest::default()]);
    let stream = watches.watch(requests).await.unwrap();
    let handled = || {
        let metrics = etcd.get("/metrics").1;
        let ended = "grpc_server_handled_total{grpc_type=\"bidi_stream\",grpc_service=\"etcdserverpb.Watch\"";
        let line = |line: &&str| line.starts_with(ended) && !line.ends_with(" 0");
        metrics.lines().find(line).map(str::to_owned)
    };
    assert_eq!(handled(), None);
    drop(stream);
    wait_for(|| handled().is_some());
    let line = handled().unwrap();
    assert!(line.ends_with("grpc_code=\"Canceled\"} 1"), "{line}");
}

/// Each series without its histogram's buckets, by how it is written.
fn series(etcd: &Etcd) -> HashMap<String, f64> {
    let metrics = etcd.get("/metrics").1;
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    let parse = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    lines.map(parse).collect()
}

fn op(request: request_op::Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

/// What happens to a fresh member here is counted by etcd 3.6 with the same numbers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_counted_where_it_happens() {
    let etcd = Etcd::start();
    let (mut kv, mut lease) = (etcd.kv().await, etcd.lease().await);
    let mut maintenance = MaintenanceClient::new(etcd.channel().await);

    let create = WatchCreateRequest {
        key: b"k".to_vec().into(),
        range_end: b"l".to_vec().into(),
        ..Default::default()
    };
    let create = WatchRequest {
        request_union: Some(watch_request::RequestUnion::CreateRequest(create)),
    };
    let requests = tokio_stream::StreamExt::chain(tokio_stream::iter([create]), tokio_stream::pending());
    let mut watch = etcd.watch().await.watch(requests).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().unwrap().created);

    let mut first = Request::new(put("k1", "one"));
    first
        .metadata_mut()
        .insert("client-api-version", "3.5".parse().unwrap());
    kv.put(first).await.unwrap();
    let with_prev = |value: &str| PutRequest {
        prev_kv: true,
        ..put("k2", value)
    };
    kv.put(with_prev("two")).await.unwrap();
    kv.put(with_prev("three")).await.unwrap();
    kv.put(PutRequest {
        ignore_value: true,
        ..put("k1", "")
    })
    .await
    .unwrap();
    kv.range(prefix("k")).await.unwrap();
    let delete = |key: &str| DeleteRangeRequest {
        key: key.to_owned().into(),
        ..Default::default()
    };
    kv.delete_range(delete("k2")).await.unwrap();
    kv.delete_range(delete("nothing")).await.unwrap();
    let get = |key: &str| RangeRequest {
        key: key.to_owned().into(),
        ..Default::default()
    };
    let is_there = Compare {
        result: compare::CompareResult::Greater as i32,
        target: compare::CompareTarget::Version as i32,
        key: b"k1".to_vec().into(),
        ..Default::default()
    };
    let three = TxnRequest {
        compare: vec![is_there],
        success: vec![
            op(request_op::Request::RequestPut(put("k3", "x"))),
            op(request_op::Request::RequestRange(get("k3"))),
            op(request_op::Request::RequestDeleteRange(delete("k1"))),
        ],
        failure: vec![],
    };
    kv.txn(three).await.unwrap();
    let read = TxnRequest {
        success: vec![op(request_op::Request::RequestRange(get("k1")))],
        ..Default::default()
    };
    kv.txn(read).await.unwrap();

    let grant = |id| LeaseGrantRequest { id, ttl: 100 };
    for id in [1, 2] {
        lease.lease_grant(grant(id)).await.unwrap();
        kv.put(PutRequest {
            lease: id,
            ..put(format!("l{id}"), "v")
        })
        .await
        .unwrap();
    }
    assert!(lease.lease_grant(grant(2)).await.is_err());
    let renew = tokio_stream::iter([1, 1].map(|id| LeaseKeepAliveRequest { id }));
    let mut renewed = lease.lease_keep_alive(renew).await.unwrap().into_inner();
    while renewed.message().await.unwrap().is_some() {}
    lease.lease_revoke(LeaseRevokeRequest { id: 1 }).await.unwrap();

    let compaction = CompactionRequest {
        revision: 6,
        physical: true,
    };
    kv.compact(compaction).await.unwrap();
    maintenance.hash_kv(HashKvRequest::default()).await.unwrap();
    maintenance.defragment(DefragmentRequest {}).await.unwrap();
    let mut snapshot = maintenance
        .snapshot(SnapshotRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut pieces = 0;
    while snapshot.message().await.unwrap().is_some() {
        pieces += 1;
    }
    for _ in 0..6 {
        watch.message().await.unwrap().unwrap();
    }
    wait_for(|| series(&etcd)["etcd_disk_backend_defrag_duration_seconds_count"] > 0.0);

    let stream = |service, method| {
        format!(
            "{{grpc_type=\"bidi_stream\",grpc_service=\"etcdserverpb.{service}\",grpc_method=\"{method}\"}}"
        )
    };
    let unary =
        |method| format!("{{grpc_type=\"unary\",grpc_service=\"etcdserverpb.KV\",grpc_method=\"{method}\"}}");
    let now = series(&etcd);
    let expected = [
        ("etcd_mvcc_put_total", 7.0),
        ("etcd_mvcc_delete_total", 4.0),
        ("etcd_mvcc_range_total", 8.0),
        ("etcd_mvcc_txn_total", 4.0),
        ("etcd_debugging_mvcc_total_put_size_in_bytes", 31.0),
        ("etcd_debugging_mvcc_keys_total", 2.0),
        ("etcd_debugging_mvcc_events_total", 7.0),
        ("etcd_debugging_mvcc_pending_events_total", 0.0),
        ("etcd_debugging_mvcc_slow_watcher_total", 0.0),
        ("etcd_debugging_mvcc_watcher_total", 1.0),
        ("etcd_debugging_mvcc_watch_stream_total", 1.0),
        ("etcd_debugging_mvcc_db_compaction_keys_total", 3.0),
        (
            "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count",
            1.0,
        ),
        (
            "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds_count",
            1.0,
        ),
        ("etcd_mvcc_hash_rev_duration_seconds_count", 1.0),
        ("etcd_debugging_lease_granted_total", 2.0),
        ("etcd_debugging_lease_ttl_total_sum", 200.0),
        ("etcd_debugging_lease_renewed_total", 2.0),
        ("etcd_debugging_lease_revoked_total", 1.0),
        ("etcd_debugging_server_lease_expired_total", 0.0),
        ("etcd_disk_backend_snapshot_duration_seconds_count", 1.0),
        ("etcd_disk_defrag_inflight", 0.0),
        ("etcd_server_range_duration_seconds_count{success=\"true\"}", 1.0),
        (
            "etcd_server_apply_duration_seconds_count{version=\"v3\",op=\"Put\",success=\"true\"}",
            6.0,
        ),
        (
            "etcd_server_apply_duration_seconds_count{version=\"v3\",op=\"Txn\",success=\"true\"}",
            1.0,
        ),
        (
            "etcd_server_apply_duration_seconds_count{version=\"v3\",op=\"LeaseGrant\",success=\"false\"}",
            1.0,
        ),
        (
            "etcd_server_client_requests_total{type=\"unary\",client_api_version=\"3.5\"}",
            1.0,
        ),
        (
            "etcd_server_client_requests_total{type=\"stream\",client_api_version=\"unknown\"}",
            3.0,
        ),
        ("etcd_server_snapshot_apply_in_progress_total", 0.0),
        ("etcd_server_read_indexes_failed_total", 0.0),
        (
            "etcd_server_feature_enabled{name=\"LeaseCheckpoint\",stage=\"ALPHA\"}",
            0.0,
        ),
        (
            &format!("grpc_server_msg_received_total{}", stream("Watch", "Watch")),
            1.0,
        ),
        (
            &format!("grpc_server_msg_sent_total{}", stream("Watch", "Watch")),
            7.0,
        ),
        (
            &format!(
                "grpc_server_msg_received_total{}",
                stream("Lease", "LeaseKeepAlive")
            ),
            2.0,
        ),
        (
            &format!("grpc_server_msg_sent_total{}", stream("Lease", "LeaseKeepAlive")),
            2.0,
        ),
        (&format!("grpc_server_msg_received_total{}", unary("Put")), 6.0),
        (&format!("grpc_server_msg_sent_total{}", unary("Put")), 6.0),
        (
            "grpc_server_msg_sent_total{grpc_type=\"server_stream\",grpc_service=\"etcdserverpb.Maintenance\",grpc_method=\"Snapshot\"}",
            f64::from(pieces),
        ),
        (
            "grpc_server_handled_total{grpc_type=\"server_stream\",grpc_service=\"etcdserverpb.Maintenance\",grpc_method=\"Snapshot\",grpc_code=\"OK\"}",
            1.0,
        ),
    ];
    let differs = |(name, expected): &(&str, f64)| now.get(*name) != Some(expected);
    let wrong = expected.into_iter().filter(differs);
    let wrong: Vec<_> = wrong
        .map(|(name, expected)| (name.to_owned(), now.get(name), expected))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    for name in [
        "etcd_debugging_mvcc_db_compaction_last",
        "etcd_disk_wal_write_duration_seconds_count",
        "etcd_disk_wal_fsync_duration_seconds_count",
        "os_fd_used",
        "os_fd_limit",
        "promhttp_metric_handler_requests_total{code=\"200\"}",
        "process_network_receive_bytes_total",
    ] {
        assert!(
            now.get(name).is_some_and(|value| *value > 0.0),
            "{name}: {:?}",
            now.get(name)
        );
    }
    let logged = |now: &HashMap<String, f64>| now["etcd_disk_wal_write_bytes_total"];
    kv.put(put("another", "x".repeat(100))).await.unwrap();
    assert!(
        logged(&series(&etcd)) > logged(&now) + 100.0,
        "bytes are added up"
    );
}
