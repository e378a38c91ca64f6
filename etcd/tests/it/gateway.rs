//! The JSON gateway as curl uses it.

use free_port::free_port;
use serde_json::{Value, json};

use crate::etcdctl::wait_for;
use crate::harness::{Etcd, Streaming, http};

fn post(etcd: &Etcd, path: &str, body: impl ToString) -> (u16, Value) {
    let answer = http(
        etcd.port,
        "POST",
        path,
        &[("Content-Type", "application/json")],
        &body.to_string(),
    );
    (
        answer.status,
        serde_json::from_str(&answer.body).unwrap_or(Value::String(answer.body)),
    )
}

fn ok(etcd: &Etcd, path: &str, body: impl ToString) -> Value {
    let (status, value) = post(etcd, path, body);
    assert_eq!(status, 200, "{path}: {value}");
    value
}

#[test]
fn keys_leases_and_members_speak_json() {
    let etcd = Etcd::start();
    let put = ok(&etcd, "/v3/kv/put", json!({"key": "Zm9v", "value": "YmFy"}));
    assert_eq!(put["header"]["revision"], "2");
    let get = ok(&etcd, "/v3/kv/range", json!({"key": "Zm9v"}));
    assert_eq!(
        get["kvs"],
        json!([{"key": "Zm9v", "create_revision": "2", "mod_revision": "2", "version": "1", "value": "YmFy"}])
    );
    assert_eq!((&get["count"], get.get("more")), (&json!("1"), None));
    let txn = json!({
        "compare": [{"key": "Zm9v", "target": "VALUE", "result": "EQUAL", "value": "YmFy"}],
        "success": [{"requestPut": {"key": "Zm9v", "value": "YmF6", "prev_kv": true}}, {"request_range": {"key": "Zm9v"}}],
    });
    let txn = ok(&etcd, "/v3/kv/txn", txn);
    assert_eq!(txn["succeeded"], true);
    assert_eq!(txn["responses"][0]["response_put"]["prev_kv"]["value"], "YmFy");
    assert_eq!(txn["responses"][1]["response_range"]["kvs"][0]["value"], "YmF6");
    let grant = ok(&etcd, "/v3/lease/grant", json!({"TTL": 100, "ID": "77"}));
    assert_eq!((&grant["ID"], &grant["TTL"]), (&json!("77"), &json!("100")));
    let alive = http(
        etcd.port,
        "POST",
        "/v3/lease/keepalive",
        &[],
        r#"{"ID":77} {"ID":"78"}"#,
    );
    let lines: Vec<Value> = alive
        .body
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{}", alive.body);
    assert_eq!(lines[0]["result"]["TTL"], "100");
    assert_eq!(
        (&lines[1]["result"]["ID"], lines[1]["result"].get("TTL")),
        (&json!("78"), None)
    );
    assert_eq!(
        ok(&etcd, "/v3/kv/lease/leases", "")["leases"],
        json!([{"ID": "77"}])
    );
    ok(&etcd, "/v3/kv/lease/revoke", json!({"ID": 77}));
    let members = ok(&etcd, "/v3/cluster/member/list", "{}");
    assert_eq!(members["members"][0]["name"], "it");
    assert_eq!(ok(&etcd, "/v3/maintenance/status", "{}")["version"], "3.6.8");
    let deleted = ok(
        &etcd,
        "/v3beta/kv/deleterange",
        json!({"key": "AA==", "rangeEnd": "AA=="}),
    );
    assert_eq!(deleted["deleted"], "1");
    let metrics = etcd.get("/metrics").1;
    let counted = r#"grpc_server_handled_total{grpc_type="unary",grpc_service="etcdserverpb.KV",grpc_method="Put",grpc_code="OK"} 1"#;
    assert!(metrics.contains(counted), "requests are counted as those of gRPC");
}

#[test]
fn errors_have_etcds_codes_and_texts() {
    let etcd = Etcd::start();
    let refused = |path: &str, body: &str, status: u16, code: i64, text: &str| {
        let (got, value) = post(&etcd, path, body);
        assert_eq!(
            (got, &value["code"]),
            (status, &json!(code)),
            "{path} {body}: {value}"
        );
        assert!(value["message"].as_str().unwrap().contains(text), "{value}");
        assert_eq!(value["error"], value["message"]);
    };
    refused("/v3/kv/range", "{}", 400, 3, "etcdserver: key is not provided");
    refused(
        "/v3/kv/range",
        r#"{"key":"YQ==","revision":99}"#,
        400,
        11,
        "required revision is a future revision",
    );
    refused(
        "/v3/lease/revoke",
        r#"{"ID":5}"#,
        404,
        5,
        "etcdserver: requested lease not found",
    );
    refused(
        "/v3/kv/range",
        "{",
        400,
        3,
        "EOF while parsing an object at line 1",
    );
    refused(
        "/v3/kv/range",
        r#"{"key":"*"}"#,
        400,
        3,
        "bytes in base64 for field \"key\"",
    );
    refused("/v3/kv/nothing", "{}", 404, 5, "Not Found");
    for unknown in [r#"{"ID":"7"}"#, r#"{"ID":"7","peerURLs":["nonsense"]}"#] {
        refused(
            "/v3/cluster/member/update",
            unknown,
            404,
            5,
            "etcdserver: member not found",
        );
    }
    let deep = r#"{"success":[{"request_txn":"#.repeat(50_000);
    refused("/v3/kv/txn", &deep, 400, 3, "recursion limit exceeded");
    let large = "A".repeat(6 * 1024 * 1024);
    refused(
        "/v3/kv/put",
        &format!(r#"{{"key":"YQ==","value":"{large}"}}"#),
        429,
        8,
        "larger than max",
    );
    let large = "A".repeat(2_200_000);
    refused(
        "/v3/kv/put",
        &format!(r#"{{"key":"YQ==","value":"{large}"}}"#),
        400,
        3,
        "etcdserver: request is too large",
    );
    assert_eq!(http(etcd.port, "GET", "/v3/kv/range", &[], "").status, 501);
    let watch = post(&etcd, "/v3/watch", r#"{"create_request":{"key":1}}"#);
    assert_eq!((watch.0, &watch.1["error"]["code"]), (400, &json!(3)));
    ok(&etcd, "/v3/kv/put", r#"{"key":"YQ==","value":"YQ=="}"#);
    assert_eq!(ok(&etcd, "/v3/maintenance/defragment", "{}"), json!({}));
    let corrupt = r#"{"action":"ACTIVATE","alarm":"CORRUPT","memberID":"44"}"#;
    ok(&etcd, "/v3/maintenance/alarm", corrupt);
    let status = ok(&etcd, "/v3/maintenance/status", "{}");
    assert_eq!(status["errors"], json!(["memberID:44 alarm:CORRUPT "]));
    let raised = "etcd_debugging_server_alarms{server_id=\"2c\",alarm_type=\"CORRUPT\"} 1\n";
    assert!(etcd.get("/metrics").1.contains(raised));
}

#[test]
fn a_watch_streams_lines_and_ends_with_its_connection() {
    let etcd = Etcd::start();
    let request = json!({"create_request": {"key": "YQ==", "range_end": "Yg==", "prev_kv": true}});
    let mut watch = Streaming::post(etcd.port, "/v3/watch", &request.to_string());
    assert_eq!(watch.json()["result"]["created"], true);
    for value in ["MQ==", "Mg=="] {
        ok(&etcd, "/v3/kv/put", json!({"key": "YWI=", "value": value}));
    }
    ok(&etcd, "/v3/kv/deleterange", json!({"key": "YWI="}));
    let first = &watch.json()["result"]["events"][0];
    assert_eq!((&first["kv"]["value"], first.get("type")), (&json!("MQ=="), None));
    assert_eq!(watch.json()["result"]["events"][0]["prev_kv"]["value"], "MQ==");
    assert_eq!(watch.json()["result"]["events"][0]["type"], "DELETE");
    let watchers = || {
        etcd.get("/metrics")
            .1
            .contains("etcd_debugging_mvcc_watcher_total 1\n")
    };
    assert!(watchers());
    drop(watch);
    wait_for(|| !watchers());
}

#[test]
fn requests_of_a_stream_are_answered_while_it_is_open() {
    let etcd = Etcd::start();
    let create = |key: &str| json!({"create_request": {"key": key}}).to_string();
    let mut watch = Streaming::open(etcd.port, "/v3/watch");
    watch.send(&create("YQ=="));
    assert_eq!(watch.json()["result"].get("watch_id"), None);
    watch.send(&create("Yg=="));
    assert_eq!(watch.json()["result"]["watch_id"], "1");
    watch.send(r#"{"cancel_request":{"watch_id":"1"}}"#);
    assert_eq!(watch.json()["result"]["canceled"], true);
    watch.send("{]");
    let refused = watch.json();
    assert_eq!(refused["error"]["code"], 3, "{refused}");
}

#[test]
fn large_answers_arrive_whole() {
    let etcd = Etcd::start();
    let value = "QUFB".repeat(100_000);
    for number in 0..5 {
        let key = format!("YWF{}", (b'B' + number) as char);
        ok(&etcd, "/v3/kv/put", json!({"key": key, "value": value}));
    }
    let all = ok(&etcd, "/v3/kv/range", json!({"key": "AA==", "range_end": "AA=="}));
    let kvs = all["kvs"].as_array().unwrap();
    assert_eq!((kvs.len(), &all["count"]), (5, &json!("5")));
    assert!(kvs.iter().all(|kv| kv["value"] == value));
}

#[test]
fn the_gateway_and_its_origins_are_switched() {
    let etcd = Etcd::start_with(&[
        "--enable-grpc-gateway=false",
        "--cors=http://a.example,http://b.example",
    ]);
    assert_eq!(http(etcd.port, "POST", "/v3/kv/range", &[], "{}").status, 405);
    let asked = |origin: &str| {
        let answer = http(etcd.port, "OPTIONS", "/version", &[("Origin", origin)], "");
        (answer.status, answer.header("access-control-allow-origin"))
    };
    assert_eq!(
        asked("http://b.example"),
        (200, Some("http://b.example".to_owned()))
    );
    assert_eq!(asked("http://c.example"), (200, None));
    let (port, plain) = (free_port(), free_port());
    let split = Etcd::start_with(&[&format!("--listen-client-http-urls=http://127.0.0.1:{port}")]);
    let put = r#"{"key":"YQ==","value":"YQ=="}"#;
    let answer = http(port, "POST", "/v3/kv/put", &[("Host", "evil.example")], put);
    assert_eq!(answer.status, 200, "every name is allowed by default");
    assert_eq!(answer.header("access-control-allow-origin").as_deref(), Some("*"));
    drop(split);
    let listen = format!("--listen-client-http-urls=http://127.0.0.1:{plain}");
    let _named = Etcd::start_with(&[&listen, "--host-whitelist=etcd.example"]);
    let answer = http(plain, "POST", "/v3/kv/put", &[("Host", "evil.example")], put);
    assert_eq!(answer.status, 421);
}
