use super::eligibility::target_node;
use super::*;
use client::ListOptions;
use client::fake::FakeServer;
use serde_json::{Value, json};

struct World {
    server: FakeServer,
    controller: DaemonSets,
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
    async fn node(&self, name: &str) {
        self.server
            .client()
            .all::<Node>()
            .create(&serde_json::from_value(json!({"metadata": {"name": name}})).unwrap())
            .await
            .unwrap();
    }

    async fn daemon_set(&self, image: &str) -> DaemonSet {
        self.server
            .client()
            .namespaced("ns")
            .create(&wanted(image))
            .await
            .unwrap()
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

    async fn revisions(&self) -> Vec<ControllerRevision> {
        self.server
            .client()
            .namespaced::<ControllerRevision>("ns")
            .list(&ListOptions::default())
            .await
            .unwrap()
            .items
    }

    /// Events arrive in the order of writes: the last object of each kind stands for all.
    async fn caught_up(&self) {
        for _ in 0..500 {
            let client = self.server.client();
            let all = ListOptions::default();
            let pods = client.all::<Pod>().list(&all).await.unwrap().items;
            let sets = client.all::<DaemonSet>().list(&all).await.unwrap().items;
            let nodes = client.all::<Node>().list(&all).await.unwrap().items;
            let revisions = client.all::<ControllerRevision>().list(&all).await.unwrap().items;
            let c = &self.controller;
            if same(&pods, &c.pods)
                && same(&sets, &c.sets)
                && same(&nodes, &c.nodes)
                && same(&revisions, &c.revisions)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the caches did not catch up");
    }

    async fn sync(&self) -> Outcome {
        self.caught_up().await;
        let outcome = self.controller.reconcile("ns/ds").await;
        self.caught_up().await;
        // Handlers run after the store shows the change.
        tokio::time::sleep(Duration::from_millis(10)).await;
        outcome
    }

    async fn set(&self) -> DaemonSet {
        self.server
            .client()
            .namespaced::<DaemonSet>("ns")
            .get("ds")
            .await
            .unwrap()
    }

    async fn run_pods(&self) {
        for mut pod in self.pods().await {
            let node = target_node(&pod).unwrap().to_owned();
            pod.spec.as_mut().unwrap().node_name = Some(node);
            let mut bound: Pod = self.server.client().namespaced("ns").update(&pod).await.unwrap();
            bound.status = serde_json::from_value(
                json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}),
            )
            .unwrap();
            self.server
                .client()
                .namespaced("ns")
                .update_status(&bound)
                .await
                .unwrap();
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

fn wanted(image: &str) -> DaemonSet {
    let value: Value = json!({"metadata": {"name": "ds"}, "spec": {"selector": {"matchLabels": {"app": "d"}}, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
        "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}});
    serde_json::from_value(value).unwrap()
}

#[tokio::test]
async fn each_node_gets_one_pod_of_the_revision_and_a_steady_state_writes_nothing() {
    let world = world().await;
    world.node("n1").await;
    world.node("n2").await;
    world.daemon_set("a").await;
    world.sync().await.unwrap();
    let pods = world.pods().await;
    assert_eq!(
        pods.iter()
            .filter_map(target_node)
            .collect::<std::collections::BTreeSet<_>>(),
        ["n1", "n2"].into()
    );
    let hash = world.revisions().await[0].metadata.labels.as_ref().unwrap()[REVISION_HASH].clone();
    assert!(
        pods.iter()
            .all(|p| p.metadata.labels.as_ref().unwrap()[REVISION_HASH] == hash)
    );
    assert!(pods[0].spec.as_ref().unwrap().tolerations.as_ref().unwrap().len() >= 6);
    world.run_pods().await;
    world.sync().await.unwrap();
    let status = world.set().await.status.unwrap();
    assert_eq!(
        (
            status.desired_number_scheduled,
            status.number_ready,
            status.number_available,
            status.updated_number_scheduled
        ),
        (2, 2, Some(2), Some(2))
    );
    world.sync().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.server.forget_writes();
    world.sync().await.unwrap();
    assert_eq!(world.server.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn an_update_replaces_one_node_at_a_time_and_numbers_its_revision() {
    let world = world().await;
    world.node("n1").await;
    world.node("n2").await;
    world.daemon_set("a").await;
    world.sync().await.unwrap();
    world.run_pods().await;
    world.sync().await.unwrap();
    let mut set = world.set().await;
    set.spec = wanted("b").spec;
    world.server.client().namespaced("ns").update(&set).await.unwrap();
    world.sync().await.unwrap();
    assert_eq!(world.pods().await.len(), 1);
    assert_eq!(world.revisions().await.iter().map(|r| r.revision).max(), Some(2));
    world.sync().await.unwrap();
    assert_eq!(world.pods().await.len(), 2);
    world.sync().await.unwrap();
    assert_eq!(world.pods().await.len(), 2, "the new pod is not available yet");
    world.run_pods().await;
    world.sync().await.unwrap();
    assert_eq!(world.pods().await.len(), 1);
}

#[tokio::test]
async fn a_failed_pod_is_replaced() {
    let world = world().await;
    world.node("n1").await;
    world.daemon_set("a").await;
    world.sync().await.unwrap();
    let mut pod = world.pods().await.remove(0);
    pod.status = serde_json::from_value(json!({"phase": "Failed"})).unwrap();
    world
        .server
        .client()
        .namespaced("ns")
        .update_status(&pod)
        .await
        .unwrap();
    world.sync().await.unwrap();
    world.sync().await.unwrap();
    let pods = world.pods().await;
    assert_eq!(pods.len(), 1);
    assert_ne!(pods[0].metadata.uid, pod.metadata.uid);
}
