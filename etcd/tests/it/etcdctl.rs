//! Debian's etcdctl 3.4 against ours.

use crate::harness::{Etcd, etcdctl};

#[test]
fn keys_are_put_read_and_deleted() {
    let etcd = Etcd::start();
    let Some(put) = etcd.ctl(&["put", "a", "1"]) else {
        return;
    };
    assert_eq!(put, "OK\n");
    etcd.ctl(&["put", "b", "2"]);
    etcd.ctl(&["put", "a", "3"]);
    assert_eq!(etcd.ctl(&["get", "a"]).unwrap(), "a\n3\n");
    assert_eq!(etcd.ctl(&["get", "a", "--rev=2"]).unwrap(), "a\n1\n");
    assert_eq!(
        etcd.ctl(&["get", "", "--prefix", "--keys-only"]).unwrap(),
        "a\n\nb\n\n"
    );
    assert_eq!(
        etcd.ctl(&[
            "get",
            "",
            "--from-key",
            "--sort-by=MODIFY",
            "--order=DESCEND",
            "--limit=1"
        ])
        .unwrap(),
        "a\n3\n"
    );
    assert_eq!(etcd.ctl(&["put", "a", "4", "--prev-kv"]).unwrap(), "OK\na\n3\n");
    assert_eq!(etcd.ctl(&["put", "a", "--ignore-value"]).unwrap(), "OK\n");
    assert_eq!(
        etcd.ctl(&["del", "", "--prefix", "--prev-kv"]).unwrap(),
        "2\na\n4\nb\n2\n"
    );
    assert_eq!(etcd.ctl(&["get", "a"]).unwrap(), "");
    let json: serde_json::Value =
        serde_json::from_str(&etcd.ctl(&["get", "a", "-w", "json"]).unwrap()).unwrap();
    assert_eq!(json["header"]["revision"], 7);
}

#[test]
fn a_transaction_takes_the_path_that_its_condition_says() {
    let etcd = Etcd::start();
    if etcd.ctl(&["put", "k", "old"]).is_none() {
        return;
    }
    let endpoint = format!("--endpoints=127.0.0.1:{}", etcd.port);
    let run = |text: &str| String::from_utf8(etcdctl(&[&endpoint, "txn"], text).unwrap().stdout).unwrap();
    assert_eq!(
        run("value(\"k\") = \"old\"\n\nput k new\nget k\n\nget k\n\n"),
        "SUCCESS\n\nOK\n\nk\nnew\n"
    );
    assert_eq!(
        run("mod(\"k\") > \"100\"\n\nput k never\n\nget k\n\n"),
        "FAILURE\n\nk\nnew\n"
    );
    let twice = etcdctl(&[&endpoint, "txn"], "\nput k 1\nput k 2\n\n\n").unwrap();
    assert!(
        String::from_utf8_lossy(&twice.stderr).contains("etcdserver: duplicate key given in txn request")
    );
}

#[test]
fn leases_are_granted_kept_alive_listed_and_revoked() {
    let etcd = Etcd::start();
    let Some(granted) = etcd.ctl(&["lease", "grant", "100"]) else {
        return;
    };
    let id = granted.split(' ').nth(1).unwrap().to_owned();
    assert!(granted.contains("granted with TTL(100s)"), "{granted}");
    etcd.ctl(&["put", "leased", "v", &format!("--lease={id}")]);
    let told = etcd.ctl(&["lease", "timetolive", &id, "--keys"]).unwrap();
    assert!(
        told.contains("granted with TTL(100s)") && told.contains("attached keys([leased])"),
        "{told}"
    );
    assert!(
        etcd.ctl(&["lease", "keep-alive", "--once", &id])
            .unwrap()
            .contains("keepalived with TTL(100)")
    );
    assert!(etcd.ctl(&["lease", "list"]).unwrap().contains(&id));
    etcd.ctl(&["lease", "revoke", &id]);
    assert_eq!(etcd.ctl(&["get", "leased"]).unwrap(), "");
    let gone = etcd.etcdctl(&["lease", "revoke", &id]).unwrap();
    assert!(String::from_utf8_lossy(&gone.stderr).contains("etcdserver: requested lease not found"));
}

#[test]
fn a_lease_ends_with_its_keys_and_not_before_its_time() {
    let etcd = Etcd::start();
    let Some(granted) = etcd.ctl(&["lease", "grant", "2"]) else {
        return;
    };
    let start = std::time::Instant::now();
    let id = granted.split(' ').nth(1).unwrap().to_owned();
    etcd.ctl(&["put", "short", "v", &format!("--lease={id}")]);
    while etcd.ctl(&["get", "short"]).unwrap() != "" {
        assert!(
            start.elapsed() < crate::harness::PATIENCE,
            "the lease never expired"
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(
        start.elapsed().as_millis() >= 1900,
        "expired after {:?}",
        start.elapsed()
    );
}

#[test]
fn compaction_forgets_history_and_says_so() {
    let etcd = Etcd::start();
    if etcd.ctl(&["put", "a", "1"]).is_none() {
        return;
    }
    etcd.ctl(&["put", "a", "2"]);
    etcd.ctl(&["put", "a", "3"]);
    assert_eq!(
        etcd.ctl(&["compaction", "3", "--physical"]).unwrap(),
        "compacted revision 3\n"
    );
    let old = etcd.etcdctl(&["get", "a", "--rev=2"]).unwrap();
    assert!(
        String::from_utf8_lossy(&old.stderr)
            .contains("etcdserver: mvcc: required revision has been compacted")
    );
    assert_eq!(etcd.ctl(&["get", "a", "--rev=3"]).unwrap(), "a\n2\n");
    let again = etcd.etcdctl(&["compaction", "2"]).unwrap();
    assert!(String::from_utf8_lossy(&again.stderr).contains("required revision has been compacted"));
    let future = etcd.etcdctl(&["compaction", "99"]).unwrap();
    assert!(
        String::from_utf8_lossy(&future.stderr)
            .contains("etcdserver: mvcc: required revision is a future revision")
    );
    let watch = etcd.etcdctl(&["watch", "a", "--rev=2"]).unwrap();
    assert!(String::from_utf8_lossy(&watch.stderr).contains("required revision has been compacted"));
}

#[test]
fn the_endpoint_tells_status_health_hash_members_and_alarms() {
    let etcd = Etcd::start();
    let Some(status) = etcd.ctl(&["endpoint", "status", "-w", "json"]) else {
        return;
    };
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status[0]["Status"]["version"], "3.6.8");
    assert_eq!(
        status[0]["Status"]["leader"],
        status[0]["Status"]["header"]["member_id"]
    );
    // etcdctl prints this on stderr.
    assert!(etcd.etcdctl(&["endpoint", "health"]).unwrap().status.success());
    assert!(
        etcd.ctl(&["endpoint", "hashkv"])
            .unwrap()
            .contains(&etcd.port.to_string())
    );
    let members = etcd.ctl(&["member", "list"]).unwrap();
    assert!(members.contains("started, it, http://127.0.0.1"), "{members}");
    assert_eq!(etcd.ctl(&["alarm", "list"]).unwrap(), "");
    assert!(etcd.ctl(&["defrag"]).unwrap().contains("Finished defragmenting"));
    assert_eq!(etcd.ctl(&["user", "list"]).unwrap(), "");
}

#[test]
fn the_quota_raises_an_alarm_that_clears_itself() {
    let etcd = Etcd::start_with(&["--quota-backend-bytes=300000"]);
    let value = "x".repeat(50_000);
    if etcd.ctl(&["put", "k0", &value]).is_none() {
        return;
    }
    let refused = (1..20).find_map(|number| {
        let output = etcd.etcdctl(&["put", &format!("k{number}"), &value]).unwrap();
        (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
    });
    assert!(
        refused
            .expect("the quota was never reached")
            .contains("etcdserver: mvcc: database space exceeded")
    );
    wait_for(|| etcd.ctl(&["alarm", "list"]).unwrap().contains("alarm:NOSPACE"));
    assert_eq!(etcd.get("/health").0, 503);
    etcd.ctl(&["del", "k", "--prefix"]);
    let json: serde_json::Value =
        serde_json::from_str(&etcd.ctl(&["get", "k", "-w", "json"]).unwrap()).unwrap();
    etcd.ctl(&["compaction", &json["header"]["revision"].to_string()]);
    wait_for(|| etcd.ctl(&["alarm", "list"]).unwrap().is_empty());
    etcd.ctl(&["put", "k", "fits again"]);
}

pub fn wait_for(mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < crate::harness::PATIENCE,
            "the condition did not come true"
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
