use super::*;
use client::ListOptions;
use client::fake::FakeServer;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde_json::Value;
use std::time::Duration;

const VERBS: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];

fn server() -> FakeServer {
    let server = FakeServer::new();
    server.serve(
        "/api",
        json!({"versions": ["v1"], "serverAddressByClientCIDRs": []}),
    );
    server.serve("/apis", json!({"kind": "APIGroupList", "groups": [{"name": "apps", "versions": [{"groupVersion": "apps/v1", "version": "v1"}]}]}));
    let list = |group_version: &str, resources: Value| json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources});
    let resource = |name: &str, kind: &str| json!({"name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": VERBS});
    server.serve(
        "/api/v1",
        list(
            "v1",
            json!([resource("pods", "Pod"), resource("configmaps", "ConfigMap")]),
        ),
    );
    server.serve(
        "/apis/apps/v1",
        list("apps/v1", json!([resource("replicasets", "ReplicaSet")])),
    );
    server
}

struct World {
    server: FakeServer,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn start(server: FakeServer) -> World {
    let context = Context::for_tests(&server);
    let collector = build(&context).unwrap();
    World {
        server,
        task: tokio::spawn(async move { collector.run().await }),
    }
}

async fn set(server: &FakeServer, name: &str) -> ReplicaSet {
    let value = json!({"metadata": {"name": name}, "spec": {"selector": {}}});
    server
        .client()
        .namespaced("ns")
        .create(&serde_json::from_value(value).unwrap())
        .await
        .unwrap()
}

async fn pod(server: &FakeServer, name: &str, owners: Value) -> Pod {
    let value = json!({"metadata": {"name": name, "ownerReferences": owners}});
    server
        .client()
        .namespaced("ns")
        .create(&serde_json::from_value(value).unwrap())
        .await
        .unwrap()
}

fn reference(set: &ReplicaSet) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set.metadata.name, "uid": set.metadata.uid, "controller": true, "blockOwnerDeletion": true})
}

fn absent() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "gone", "uid": "no-such-uid"})
}

impl World {
    async fn pods(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .server
            .client()
            .all::<Pod>()
            .list(&ListOptions::default())
            .await
            .unwrap()
            .items
            .into_iter()
            .filter_map(|p| p.metadata.name)
            .collect();
        names.sort();
        names
    }

    async fn until_pods(&self, wanted: &[&str]) {
        for _ in 0..500 {
            if self.pods().await == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("pods are {:?}, not {wanted:?}", self.pods().await);
    }
}

#[tokio::test]
async fn what_lost_its_owner_before_the_start_is_collected_and_nothing_else() {
    let server = server();
    let owner = set(&server, "rs").await;
    pod(&server, "owned", json!([reference(&owner)])).await;
    pod(&server, "free", json!([])).await;
    pod(&server, "lost", json!([absent()])).await;
    let world = start(server);
    world.until_pods(&["free", "owned"]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.pods().await, ["free", "owned"]);
}

#[tokio::test]
async fn dependents_follow_their_owner_in_the_background() {
    let server = server();
    let owner = set(&server, "rs").await;
    pod(&server, "a", json!([reference(&owner)])).await;
    let world = start(server);
    tokio::time::sleep(Duration::from_millis(300)).await;
    world
        .server
        .client()
        .namespaced::<ReplicaSet>("ns")
        .delete("rs", &client::options::background())
        .await
        .unwrap();
    world.until_pods(&[]).await;
}

#[tokio::test]
async fn one_owner_left_saves_a_dependent_and_the_dead_reference_goes() {
    let server = server();
    let owner = set(&server, "rs").await;
    pod(&server, "a", json!([reference(&owner), absent()])).await;
    let world = start(server);
    for _ in 0..500 {
        let pod = world
            .server
            .client()
            .namespaced::<Pod>("ns")
            .get("a")
            .await
            .unwrap();
        if pod.metadata.owner_references.as_ref().map(Vec::len) == Some(1) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the dead reference stayed");
}

#[tokio::test]
async fn foreground_deletion_waits_for_blocking_dependents() {
    let server = server();
    let owner = set(&server, "rs").await;
    let mut held = pod(&server, "held", json!([reference(&owner)])).await;
    held.metadata.finalizers = Some(vec!["x/hold".into()]);
    let api = server.client().namespaced::<Pod>("ns");
    api.update(&held).await.unwrap();
    let world = start(server);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let sets = world.server.client().namespaced::<ReplicaSet>("ns");
    sets.delete("rs", &client::options::propagation("Foreground"))
        .await
        .unwrap();
    for _ in 0..500 {
        if api
            .get("held")
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_some()
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sets.get("rs").await.expect("the owner waits");
    let mut held = api.get("held").await.unwrap();
    held.metadata.finalizers = None;
    api.update(&held).await.unwrap();
    world.until_pods(&[]).await;
    for _ in 0..500 {
        if sets.get("rs").await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the owner stayed");
}

#[tokio::test]
async fn orphaning_releases_dependents_before_the_owner_goes() {
    let server = server();
    let owner = set(&server, "rs").await;
    pod(&server, "a", json!([reference(&owner)])).await;
    let world = start(server);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let sets = world.server.client().namespaced::<ReplicaSet>("ns");
    sets.delete("rs", &client::options::propagation("Orphan"))
        .await
        .unwrap();
    for _ in 0..500 {
        if sets.get("rs").await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let pod = world
        .server
        .client()
        .namespaced::<Pod>("ns")
        .get("a")
        .await
        .unwrap();
    assert!(pod.metadata.owner_references.is_none_or(|r| r.is_empty()));
}

#[tokio::test]
async fn an_owner_of_an_unknown_kind_condemns_nobody() {
    let server = server();
    pod(
        &server,
        "a",
        json!([{"apiVersion": "example.com/v1", "kind": "Thing", "name": "t", "uid": "u"}]),
    )
    .await;
    server
        .client()
        .namespaced("ns")
        .create(&ConfigMap {
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                name: Some("c".into()),
                ..Default::default()
            },
            ..Default::default()
        })
        .await
        .unwrap();
    let world = start(server);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(world.pods().await, ["a"]);
}
