use super::*;
use client::fake::FakeServer;
use client::{ListOptions, Patch};
use k8s_openapi::api::apps::v1::StatefulSetStatus;
use serde_json::{Value, json};
use std::time::Duration;

struct World {
    server: FakeServer,
    controller: StatefulSets,
    /// Keeps the informers alive.
    _context: Context,
}

async fn world() -> World {
    let server = FakeServer::new();
    let context = Context::for_tests(&server);
    let driver = driver(&context);
    for need in &driver.needs {
        need().await;
    }
    World {
        server,
        controller: Arc::into_inner(driver.reconciler).unwrap(),
        _context: context,
    }
}

impl World {
    async fn set(&self, spec: Value) {
        let mut value = json!({"metadata": {"name": "web"}, "spec": {"serviceName": "web", "selector": {"matchLabels": {"app": "w"}}, "updateStrategy": {"type": "RollingUpdate"},
            "template": {"metadata": {"labels": {"app": "w"}}, "spec": {"containers": [{"name": "c", "image": "a"}]}}}});
        for (name, field) in spec.as_object().unwrap() {
            value["spec"][name] = field.clone();
        }
        self.server
            .client()
            .namespaced::<StatefulSet>("ns")
            .create(&serde_json::from_value(value).unwrap())
            .await
            .unwrap();
    }

    async fn patch(&self, spec: Value) {
        self.server
            .client()
            .namespaced::<StatefulSet>("ns")
            .patch("web", &Patch::Merge(json!({"spec": spec})), None)
            .await
            .unwrap();
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

    async fn names(&self) -> Vec<String> {
        self.pods()
            .await
            .into_iter()
            .filter_map(|p| p.metadata.name)
            .collect()
    }

    async fn status(&self) -> StatefulSetStatus {
        self.server
            .client()
            .namespaced::<StatefulSet>("ns")
            .get("web")
            .await
            .unwrap()
            .status
            .unwrap_or_default()
    }

    async fn run_pods(&self) {
        for mut pod in self.pods().await.into_iter().filter(|p| p.status.is_none()) {
            pod.status = serde_json::from_value(
                json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}),
            )
            .unwrap();
            self.server
                .client()
                .namespaced("ns")
                .update_status(&pod)
                .await
                .unwrap();
        }
    }

    async fn caught_up(&self) {
        for _ in 0..500 {
            let (client, all) = (self.server.client(), ListOptions::default());
            let (pods, sets) = (
                client.all::<Pod>().list(&all).await.unwrap().items,
                client.all::<StatefulSet>().list(&all).await.unwrap().items,
            );
            let (revisions, claims) = (
                client.all::<ControllerRevision>().list(&all).await.unwrap().items,
                client
                    .all::<PersistentVolumeClaim>()
                    .list(&all)
                    .await
                    .unwrap()
                    .items,
            );
            let c = &self.controller;
            if same(&pods, &c.pods)
                && same(&sets, &c.sets)
                && same(&revisions, &c.revisions)
                && same(&claims, &c.claims)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the caches did not catch up");
    }

    async fn sync(&self) {
        self.caught_up().await;
        self.controller.reconcile("ns/web").await.unwrap();
        self.caught_up().await;
    }

    /// Until nothing is left to do.
    async fn settle(&self) {
        for _ in 0..10 {
            self.sync().await;
            self.run_pods().await;
        }
    }
}

fn same<T: client::Object>(server: &[T], cache: &Store<T>) -> bool {
    let version = |o: &T| o.metadata().resource_version.clone();
    server.len() == cache.len()
        && server.iter().all(|o| {
            cache
                .get(&object_key(o))
                .is_some_and(|c| version(&c) == version(o))
        })
}

#[tokio::test]
async fn pods_come_one_after_the_other_with_their_claims_and_go_from_the_top() {
    let world = world().await;
    world
        .set(json!({"replicas": 3, "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]}))
        .await;
    world.sync().await;
    world.sync().await;
    assert_eq!(
        world.names().await,
        ["web-0"],
        "the second one waits for the first"
    );
    world.settle().await;
    assert_eq!(world.names().await, ["web-0", "web-1", "web-2"]);
    let claims = world
        .server
        .client()
        .namespaced::<PersistentVolumeClaim>("ns")
        .list(&ListOptions::default())
        .await
        .unwrap()
        .items;
    assert_eq!(
        claims
            .iter()
            .filter_map(|c| c.metadata.name.as_deref())
            .collect::<Vec<_>>(),
        ["data-web-0", "data-web-1", "data-web-2"]
    );
    let status = world.status().await;
    assert_eq!(
        (
            status.replicas,
            status.ready_replicas,
            status.current_replicas,
            status.updated_replicas
        ),
        (3, Some(3), Some(3), Some(3))
    );
    assert_eq!(status.current_revision, status.update_revision);
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.server.forget_writes();
    world.sync().await;
    assert_eq!(world.server.writes(), Vec::<String>::new());
    world.patch(json!({"replicas": 1})).await;
    world.sync().await;
    assert_eq!(world.names().await, ["web-0", "web-1"]);
    world.sync().await;
    assert_eq!(world.names().await, ["web-0"]);
}

#[tokio::test]
async fn parallel_pods_come_at_once() {
    let world = world().await;
    world
        .set(json!({"replicas": 3, "podManagementPolicy": "Parallel", "ordinals": {"start": 5}}))
        .await;
    world.sync().await;
    assert_eq!(world.names().await, ["web-5", "web-6", "web-7"]);
}

#[tokio::test]
async fn an_update_goes_from_the_top_down_to_the_partition() {
    let world = world().await;
    world.set(json!({"replicas": 3})).await;
    world.settle().await;
    let before = world.status().await.current_revision;
    world.patch(json!({"template": {"spec": {"containers": [{"name": "c", "image": "b"}]}}, "updateStrategy": {"rollingUpdate": {"partition": 1}}})).await;
    world.sync().await;
    assert_eq!(world.names().await, ["web-0", "web-1"], "one at a time");
    world.settle().await;
    let revisions: Vec<_> = world
        .pods()
        .await
        .iter()
        .map(|p| identity::revision(p).to_owned())
        .collect();
    let status = world.status().await;
    assert_eq!(
        revisions,
        [
            before.clone().unwrap(),
            status.update_revision.clone().unwrap(),
            status.update_revision.clone().unwrap()
        ]
    );
    assert_eq!(
        (status.current_revision, status.updated_replicas),
        (before.clone(), Some(2))
    );
    world
        .patch(json!({"updateStrategy": {"rollingUpdate": {"partition": 0}}}))
        .await;
    world.settle().await;
    let status = world.status().await;
    assert_ne!(status.current_revision, before);
    assert_eq!(
        (status.updated_replicas, status.current_revision),
        (Some(3), status.update_revision)
    );
}

#[tokio::test]
async fn on_delete_waits_for_the_user_and_a_failed_pod_is_replaced() {
    let world = world().await;
    world
        .set(json!({"replicas": 1, "updateStrategy": {"type": "OnDelete"}}))
        .await;
    world.settle().await;
    let old = world.pods().await.remove(0);
    world
        .patch(json!({"template": {"spec": {"containers": [{"name": "c", "image": "b"}]}}}))
        .await;
    world.settle().await;
    assert_eq!(world.pods().await[0].metadata.uid, old.metadata.uid);
    let mut failed = world.pods().await.remove(0);
    failed.status = serde_json::from_value(json!({"phase": "Failed"})).unwrap();
    world
        .server
        .client()
        .namespaced("ns")
        .update_status(&failed)
        .await
        .unwrap();
    world.settle().await;
    let pods = world.pods().await;
    assert_ne!(pods[0].metadata.uid, old.metadata.uid);
    assert_eq!(
        pods[0].spec.as_ref().unwrap().containers[0].image.as_deref(),
        Some("b")
    );
}
