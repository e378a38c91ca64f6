//! What the API server writes beside its answers: the audit log, and its own place in the endpoints.

use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{Cluster, Daemon, eventually};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- { level: Metadata, resources: [{ group: '', resources: [secrets] }] }
- { level: Request, verbs: [get, list] }
- level: RequestResponse
  resources: [{ group: '', resources: [configmaps, serviceaccounts/token] }]
";

/// Events of one resource, once there are as many as `wanted` says.
fn events(log: &std::path::Path, resource: &str, wanted: usize) -> Result<Vec<Value>> {
    e2e::until("the audit log", LIMIT, || {
        let text = std::fs::read_to_string(log)?;
        let all = text
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<Vec<Value>, _>>()?;
        let of_user = |e: &Value| {
            e["user"]["username"] == "kubernetes-admin" && e["objectRef"]["namespace"] == "default"
        };
        let own = |e: &Value| of_user(e) && e["objectRef"]["resource"] == resource;
        let events: Vec<Value> = all.into_iter().filter(own).collect();
        anyhow::ensure!(events.len() >= wanted, "{events:?}");
        Ok(events)
    })
}

#[test]
fn audit_events_have_the_bodies_that_the_policy_asks_for() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (policy, log) = (folder.path().join("policy.yaml"), folder.path().join("audit.log"));
    std::fs::write(&policy, POLICY)?;
    let cluster = Cluster::builder("audit")
        .flag(
            Daemon::ApiServer,
            &format!("--audit-policy-file={}", policy.display()),
        )
        .flag(Daemon::ApiServer, &format!("--audit-log-path={}", log.display()))
        .start()?;
    cluster
        .kubectl(&["create", "configmap", "c", "--from-literal=a=1"])?
        .ok()?;
    cluster
        .kubectl(&["patch", "configmap", "c", "-p", r#"{"data":{"b":"2"}}"#])?
        .ok()?;
    cluster.kubectl(&["get", "configmap", "c", "-o", "json"])?.ok()?;
    cluster.kubectl(&["create", "configmap", "c"])?.refused()?;
    let seen = events(&log, "configmaps", 4)?;
    let verb = |verb: &str, code: u64| {
        let found = seen
            .iter()
            .find(|e| e["verb"] == verb && e["responseStatus"]["code"] == code);
        found.with_context(|| format!("no {verb} with {code} in {seen:?}"))
    };
    let created = verb("create", 201)?;
    assert_eq!(created["requestObject"]["data"]["a"], "1");
    assert!(
        created["responseObject"]["metadata"]["uid"].is_string(),
        "{created}"
    );
    let patched = verb("patch", 200)?;
    assert_eq!(patched["requestObject"], json!({"data": {"b": "2"}}));
    assert_eq!(patched["responseObject"]["data"], json!({"a": "1", "b": "2"}));
    let read = verb("get", 200)?;
    assert!(
        read["responseObject"].is_null() && read["requestObject"].is_null(),
        "{read}"
    );
    let refused = verb("create", 409)?;
    assert_eq!(refused["responseStatus"]["reason"], "AlreadyExists");
    assert_eq!(refused["responseObject"]["kind"], "Status");

    cluster
        .kubectl(&["create", "secret", "generic", "s", "--from-literal=word=xyzzy"])?
        .ok()?;
    let secret = &events(&log, "secrets", 1)?[0];
    assert!(
        secret["requestObject"].is_null() && secret["responseObject"].is_null(),
        "{secret}"
    );
    cluster.finish()
}

#[test]
fn an_api_server_leases_its_place_in_the_endpoints_and_leaves_it() -> Result<()> {
    let mut cluster = Cluster::builder("masterlease").start()?;
    let keys = |cluster: &Cluster| {
        cluster
            .etcdctl(&["get", "/registry/masterleases/", "--prefix", "-w", "json"])?
            .json()
    };
    let held = keys(&cluster)?;
    let lease = held["kvs"][0]["lease"].as_i64().context("a lease")?;
    assert_eq!(held["count"], 1);
    let lives = cluster
        .etcdctl(&["lease", "timetolive", &format!("{lease:x}")])?
        .ok()?;
    assert!(lives.contains("granted with TTL(15s)"), "{lives}");
    let endpoints = cluster.get(&["endpoints", "kubernetes"])?;
    assert_eq!(endpoints["subsets"][0]["addresses"], json!([{"ip": "127.0.0.1"}]));
    let slice = cluster.get(&["endpointslice", "kubernetes"])?;
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["127.0.0.1"]));

    // It renews its lease before it ends, with a new one each time.
    eventually("the lease is renewed", LIMIT, || {
        let now = keys(&cluster)?["kvs"][0]["lease"].as_i64();
        Ok((now.is_some_and(|now| now != lease), format!("{now:?}")))
    })?;
    cluster.stop(Daemon::ApiServer)?;
    assert!(keys(&cluster)?["kvs"].is_null(), "it left nothing behind");
    cluster.restart(Daemon::ApiServer)?;
    cluster.finish()
}
