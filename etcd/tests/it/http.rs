//! The HTTP paths that probes, dashboards and kubeadm use.

use free_port::free_port;

use crate::harness::{Etcd, http_get, http_get_as};

#[test]
fn probes_get_what_etcd_answers() {
    let etcd = Etcd::start();
    for path in ["/health", "/health?serializable=true"] {
        assert_eq!(
            etcd.get(path),
            (200, "{\"health\":\"true\",\"reason\":\"\"}".to_owned())
        );
    }
    assert_eq!(etcd.get("/livez"), (200, "ok".to_owned()));
    let (status, body) = etcd.get("/readyz?verbose");
    assert_eq!(status, 200);
    for check in ["data_corruption", "linearizable_read", "serializable_read"] {
        assert!(body.contains(&format!("[+]{check} ok")), "{body}");
        assert_eq!(etcd.get(&format!("/readyz/{check}")).0, 200);
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
    for name in [
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
