//! The HTTP paths that probes, dashboards and kubeadm use.

use etcd_api::etcdserverpb::WatchRequest;
use free_port::free_port;

use crate::etcdctl::wait_for;
use crate::harness::{Etcd, http, http_get, http_get_as};

#[test]
fn probes_get_what_etcd_answers() {
    let etcd = Etcd::start();
    for path in ["/health", "/health?serializable=true"] {
        assert_eq!(
            etcd.get(path),
            (200, "{\"health\":\"true\",\"reason\":\"\"}".to_owned())
        );
    }
    assert_eq!(etcd.get("/livez"), (200, "ok\n".to_owned()));
    assert_eq!(
        etcd.get("/livez?verbose"),
        (200, "[+]serializable_read ok\nok\n".to_owned())
    );
    assert_eq!(etcd.get("/livez/linearizable_read").0, 404);
    let checks = [
        "data_corruption",
        "serializable_read",
        "linearizable_read",
        "non_learner",
    ];
    let all: String = checks.iter().map(|check| format!("[+]{check} ok\n")).collect();
    assert_eq!(etcd.get("/readyz?verbose"), (200, format!("{all}ok\n")));
    for check in checks {
        assert_eq!(etcd.get(&format!("/readyz/{check}")), (200, "ok\n".to_owned()));
    }
    let alarm = r#"{"action":"ACTIVATE","alarm":"CORRUPT","memberID":"7"}"#;
    http(etcd.port, "POST", "/v3/maintenance/alarm", &[], alarm);
    let failed = "[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n";
    let (status, body) = etcd.get("/readyz?exclude=linearizable_read&exclude=non_learner");
    assert_eq!((status, body.trim_end()), (503, failed.trim_end()));
    assert_eq!(etcd.get("/readyz?exclude=data_corruption").0, 200);
    assert_eq!(etcd.get("/health").0, 503);
    assert_eq!(etcd.get("/health?exclude=CORRUPT").0, 200);
    let metrics = etcd.get("/metrics").1;
    for line in [
        r#"etcd_server_healthcheck{type="readyz",name="data_corruption"} 0"#,
        r#"etcd_server_healthchecks_total{type="readyz",name="data_corruption",status="error"} 1"#,
        "etcd_server_health_failures 1",
        "etcd_server_health_success 3",
    ] {
        assert!(metrics.contains(line), "{line} is missing");
    }
    let version: serde_json::Value = serde_json::from_str(&etcd.get("/version").1).unwrap();
    assert_eq!(
        (&version["etcdserver"], &version["etcdcluster"]),
        (&"3.6.8".into(), &"3.6.0".into())
    );
    assert_eq!(etcd.get("/nothing").0, 404);
    assert_eq!(http_get(etcd.peer_port, "/version").0, 200);
}

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
        "etcd_server_quota_backend_bytes 2147483648",
        "process_resident_memory_bytes",
    ] {
        assert!(metrics.contains(name), "{name} is missing");
    }
}

#[test]
fn another_host_name_is_refused_when_names_are_given() {
    let etcd = Etcd::start_with(&["--host-whitelist=etcd.example"]);
    let (status, hint) = http_get_as(etcd.port, "/version", "evil.example");
    assert_eq!(status, 421);
    assert!(hint.contains("--host-whitelist"), "{hint}");
    assert_eq!(http_get_as(etcd.port, "/version", "etcd.example:2379").0, 200);
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
