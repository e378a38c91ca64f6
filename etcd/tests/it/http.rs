//! The HTTP paths that probes, dashboards and kubeadm use.

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
fn another_host_name_is_refused_when_names_are_given() {
    let etcd = Etcd::start_with(&["--host-whitelist=etcd.example"]);
    let (status, hint) = http_get_as(etcd.port, "/version", "evil.example");
    assert_eq!(status, 421);
    assert!(hint.contains("--host-whitelist"), "{hint}");
    assert_eq!(http_get_as(etcd.port, "/version", "etcd.example:2379").0, 200);
}

#[test]
fn variables_say_what_raft_does() {
    let etcd = Etcd::start();
    let (status, vars) = etcd.get("/debug/vars");
    let vars: serde_json::Value = serde_json::from_str(&vars).unwrap();
    assert_eq!(status, 200);
    let command = vars["cmdline"].as_array().unwrap();
    assert!(
        command[0].as_str().unwrap().ends_with("etcd") && command.len() > 5,
        "{command:?}"
    );
    assert!(vars["file_descriptor_limit"].as_u64() > Some(0));
    assert!(vars["raft.last_tick_ms_ago"].as_u64() < Some(5000), "{vars}");
    let raft = &vars["raft.status"];
    let id = raft["id"].as_str().unwrap();
    assert_eq!(
        (&raft["lead"], &raft["vote"], &raft["leadtransferee"]),
        (&raft["id"], &raft["id"], &"0".into())
    );
    assert_eq!(
        (&raft["raftState"], &raft["term"]),
        (&"StateLeader".into(), &2.into())
    );
    let own = &raft["progress"][id];
    assert_eq!(
        (&own["match"], &own["state"]),
        (&raft["commit"], &"StateReplicate".into())
    );
    assert!(own["next"].as_u64() > own["match"].as_u64());
    assert_eq!(http_get(etcd.peer_port, "/debug/vars").0, 404, "for clients only");
}
