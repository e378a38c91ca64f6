use super::*;
use client::ListOptions;
use client::fake::FakeServer;
use serde_json::json;

struct World {
    server: FakeServer,
    controller: Replicas<ReplicaSet>,
    context: Context,
}

/// A reconciler with real informers on a fake server.
async fn world() -> World {
    let server = FakeServer::new();
    let context = Context::for_tests(&server);
    let driver = driver::<ReplicaSet>(
        &context,
        "replicaset-controller",
        "replicaset-controller",
        "test",
        1,
        &context.informers.replica_sets,
    );
    for need in &driver.needs {
        need().await;
    }
    let controller = Arc::into_inner(driver.reconciler).unwrap();
    World {
        server,
        controller,
        context,
    }
}

impl World {
    async fn replica_set(&self, replicas: i32) -> ReplicaSet {
        let value = json!({"metadata": {"name": "rs"}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}}}});
        let created: ReplicaSet = self
            .server
            .client()
            .namespaced("ns")
            .create(&serde_json::from_value(value).unwrap())
            .await
            .unwrap();
        self.caught_up().await;
        created
    }

    async fn pod(&self, value: serde_json::Value) -> Pod {
        let pod = self
            .server
            .client()
            .namespaced("ns")
            .create(&serde_json::from_value(value).unwrap())
            .await
            .unwrap();
        self.caught_up().await;
        pod
    }

    async fn pods(&self) -> Vec<Pod> {
        self.server
            .client()
            .namespaced::<Pod>("ns")
            .list(&ListOptions::default())
            .await
            .unwrap()
            .items
    }

    /// Waits until the caches show what the server has.
    async fn caught_up(&self) {
        for _ in 0..500 {
            let pods = self
                .server
                .client()
                .all::<Pod>()
                .list(&ListOptions::default())
                .await
                .unwrap()
                .items;
            let sets = self
                .server
                .client()
                .all::<ReplicaSet>()
                .list(&ListOptions::default())
                .await
                .unwrap()
                .items;
            let same = |key: &str, version: &Option<String>, cached: Option<Option<String>>| {
                cached == Some(version.clone()) && !key.is_empty()
            };
            let pods_same = pods.len() == self.controller.pods.len()
                && pods.iter().all(|p| {
                    same(
                        &object_key(p),
                        &p.metadata.resource_version,
                        self.controller
                            .pods
                            .get(&object_key(p))
                            .map(|c| c.metadata.resource_version.clone()),
                    )
                });
            let sets_same = sets.iter().all(|s| {
                same(
                    &object_key(s),
                    &s.metadata.resource_version,
                    self.controller
                        .owners
                        .get(&object_key(s))
                        .map(|c| c.metadata.resource_version.clone()),
                )
            });
            if pods_same && sets_same {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the caches did not catch up");
    }

    async fn sync(&self) -> Outcome {
        let outcome = self.controller.reconcile("ns/rs").await;
        self.caught_up().await;
        outcome
    }

    async fn status(&self) -> k8s_openapi::api::apps::v1::ReplicaSetStatus {
        self.server
            .client()
            .namespaced::<ReplicaSet>("ns")
            .get("rs")
            .await
            .unwrap()
            .status
            .unwrap()
    }
}

#[tokio::test]
async fn missing_pods_are_created_once_and_a_steady_state_writes_nothing() {
    let world = world().await;
    world.replica_set(3).await;
    world.sync().await.unwrap();
    let pods = world.pods().await;
    assert_eq!(pods.len(), 3);
    assert!(
        pods.iter()
            .all(|p| p.metadata.generate_name.as_deref() == Some("rs-")
                && p.metadata.owner_references.as_ref().unwrap()[0].controller == Some(true))
    );
    world.sync().await.unwrap();
    assert_eq!(world.status().await.replicas, 3);
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.server.forget_writes();
    world.sync().await.unwrap();
    assert_eq!(world.server.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_cache_that_is_behind_does_not_create_twice() {
    let world = world().await;
    world.replica_set(2).await;
    world.controller.expectations.expect_creations("ns/rs", 2);
    world.sync().await.unwrap();
    assert!(world.pods().await.is_empty());
}

#[tokio::test]
async fn a_matching_orphan_is_adopted_and_one_that_stopped_matching_is_released() {
    let world = world().await;
    let set = world.replica_set(1).await;
    world
        .pod(json!({"metadata": {"name": "orphan", "labels": {"app": "web"}}}))
        .await;
    world.sync().await.unwrap();
    let orphan = &world.pods().await[0];
    assert_eq!(
        orphan.metadata.owner_references.as_ref().unwrap()[0].uid,
        set.metadata.uid.clone().unwrap()
    );
    let mut changed = orphan.clone();
    changed.metadata.labels = Some([("app".to_owned(), "debug".to_owned())].into());
    world
        .server
        .client()
        .namespaced("ns")
        .update(&changed)
        .await
        .unwrap();
    world.caught_up().await;
    world.sync().await.unwrap();
    let pods = world.pods().await;
    assert_eq!(pods.len(), 2, "the released pod is replaced");
    assert!(pods.iter().any(|p| p.metadata.name.as_deref() == Some("orphan")
        && p.metadata.owner_references.as_ref().is_none_or(Vec::is_empty)));
}

#[tokio::test]
async fn scaling_down_takes_the_pending_pod() {
    let world = world().await;
    let set = world.replica_set(1).await;
    let owner = json!([crate::meta::controller_reference(&set)]);
    for (name, phase) in [("running", "Running"), ("pending", "Pending")] {
        world.pod(json!({"metadata": {"name": name, "labels": {"app": "web"}, "ownerReferences": owner}, "spec": {"containers": [], "nodeName": "n"}, "status": {"phase": phase}})).await;
    }
    world.sync().await.unwrap();
    let names: Vec<_> = world
        .pods()
        .await
        .into_iter()
        .filter_map(|p| p.metadata.name)
        .collect();
    assert_eq!(names, ["running"]);
}

#[tokio::test]
async fn a_refused_creation_is_a_condition_and_stops_the_batch() {
    let world = world().await;
    world.replica_set(5).await;
    world.server.fail_next("POST /api/v1/namespaces/ns/pods", 403);
    world.sync().await.unwrap_err();
    assert!(world.pods().await.is_empty(), "one refusal, not five");
    assert_eq!(
        world.status().await.conditions.unwrap()[0].reason.as_deref(),
        Some("FailedCreate")
    );
    world.sync().await.unwrap();
    assert_eq!(world.pods().await.len(), 5);
    world.sync().await.unwrap();
    assert_eq!(world.status().await.conditions, None);
}

#[tokio::test]
async fn an_owner_that_is_being_deleted_makes_no_pods() {
    let world = world().await;
    let mut set = world.replica_set(2).await;
    set.metadata.finalizers = Some(vec!["foregroundDeletion".into()]);
    let api = world.server.client().namespaced::<ReplicaSet>("ns");
    api.update(&set).await.unwrap();
    api.delete("rs", &Default::default()).await.unwrap();
    world.caught_up().await;
    world.sync().await.unwrap();
    assert!(world.pods().await.is_empty());
    assert!(world.context.informers.replica_sets.store().is_synced());
}
