//! A Deployment and its ReplicaSets under their two controllers, with a kubelet that makes every pod ready.

use super::*;
use crate::controllers::replica_set;
use client::ListOptions;
use client::fake::FakeServer;
use serde_json::{Value, json};
use std::time::Duration;

struct World {
    server: FakeServer,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

async fn kubelet(client: Client) {
    loop {
        for mut pod in client
            .all::<Pod>()
            .list(&ListOptions::default())
            .await
            .unwrap()
            .items
        {
            let broken = pod
                .spec
                .as_ref()
                .is_some_and(|s| s.containers[0].image.as_deref() == Some("broken"));
            if pod.status.is_none() && !broken {
                pod.status = Some(serde_json::from_value(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z"}]})).unwrap());
                client
                    .namespaced(namespace(&pod.metadata))
                    .update_status(&pod)
                    .await
                    .ok();
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn world() -> World {
    let server = FakeServer::new();
    let context = Context::for_tests(&server);
    let controllers = [build(&context).unwrap(), replica_set::build(&context).unwrap()];
    let mut tasks: Vec<_> = controllers
        .into_iter()
        .map(|c| tokio::spawn(async move { c.run().await }))
        .collect();
    tasks.push(tokio::spawn(kubelet(server.client())));
    World { server, tasks }
}

impl World {
    async fn create(&self, replicas: i32, strategy: Value) -> Deployment {
        let value = json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "strategy": strategy,
            "progressDeadlineSeconds": 600, "revisionHistoryLimit": 1,
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "one"}]}}}});
        self.server
            .client()
            .namespaced("ns")
            .create(&serde_json::from_value(value).unwrap())
            .await
            .unwrap()
    }

    async fn change(&self, change: impl Fn(&mut DeploymentSpec)) {
        let api = self.server.client().namespaced::<Deployment>("ns");
        loop {
            let mut deployment = api.get("web").await.unwrap();
            change(deployment.spec.as_mut().unwrap());
            match api.update(&deployment).await {
                Err(error) if error.is_conflict() => {}
                outcome => break drop(outcome.unwrap()),
            }
        }
    }

    async fn image(&self, image: &str) {
        self.change(|spec| spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned()))
            .await;
    }

    async fn sets(&self) -> Vec<ReplicaSet> {
        self.server
            .client()
            .all::<ReplicaSet>()
            .list(&ListOptions::default())
            .await
            .unwrap()
            .items
    }

    async fn images(&self) -> Vec<String> {
        let pods = self
            .server
            .client()
            .all::<Pod>()
            .list(&ListOptions::default())
            .await
            .unwrap()
            .items;
        pods.into_iter()
            .filter_map(|p| p.spec.unwrap().containers[0].image.clone())
            .collect()
    }

    async fn complete(&self) -> Deployment {
        for _ in 0..1000 {
            let deployment = self
                .server
                .client()
                .namespaced::<Deployment>("ns")
                .get("web")
                .await
                .unwrap();
            if deployment
                .status
                .as_ref()
                .is_some_and(|s| status::is_complete(&deployment, s))
            {
                return deployment;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "the rollout did not complete: {:?}",
            self.server
                .client()
                .namespaced::<Deployment>("ns")
                .get("web")
                .await
                .unwrap()
                .status
        );
    }
}

fn progressing(deployment: &Deployment) -> String {
    let conditions = deployment
        .status
        .as_ref()
        .unwrap()
        .conditions
        .clone()
        .unwrap_or_default();
    conditions
        .into_iter()
        .find(|c| c.type_ == "Progressing")
        .and_then(|c| c.reason)
        .unwrap_or_default()
}

fn rolling() -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})
}

#[tokio::test]
async fn a_new_deployment_gets_its_set_revision_and_pods() {
    let world = world();
    world.create(3, rolling()).await;
    let deployment = world.complete().await;
    let sets = world.sets().await;
    assert_eq!(sets.len(), 1);
    let hash = crate::meta::label(&sets[0].metadata, "pod-template-hash").unwrap();
    assert_eq!(set_name(&sets[0]), format!("web-{hash}"));
    assert_eq!(
        deployment.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"],
        "1"
    );
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(progressing(&world.complete().await), "NewReplicaSetAvailable");
    world.server.forget_writes();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(
        world.server.writes(),
        Vec::<String>::new(),
        "a steady state writes nothing"
    );
}

#[tokio::test]
async fn a_rolling_update_never_has_less_than_wanted_nor_more_than_the_surge() {
    let world = world();
    world.create(3, rolling()).await;
    world.complete().await;
    world.image("two").await;
    for _ in 0..1000 {
        let running = world.images().await;
        assert!((3..=4).contains(&running.len()), "{running:?}");
        if running == ["two", "two", "two"] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let deployment = world.complete().await;
    assert_eq!(
        deployment.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"],
        "2"
    );
    assert_eq!(world.sets().await.len(), 2);
}

#[tokio::test]
async fn going_back_reuses_the_old_set_and_history_is_limited() {
    let world = world();
    world.create(1, rolling()).await;
    world.complete().await;
    for image in ["two", "three", "two"] {
        world.image(image).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.complete().await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let sets = world.sets().await;
    assert_eq!(sets.len(), 2, "the current set and one old one");
    let newest = sets.iter().max_by_key(|s| replica_sets::revision(s)).unwrap();
    assert_eq!(
        newest.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"],
        "4"
    );
    assert_eq!(
        newest.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision-history"],
        "2"
    );
    assert_eq!(world.images().await, ["two"]);
}

#[tokio::test]
async fn recreate_stops_the_old_before_it_starts_the_new() {
    let world = world();
    world.create(2, json!({"type": "Recreate"})).await;
    world.complete().await;
    world.image("two").await;
    for _ in 0..1000 {
        let images = world.images().await;
        assert!(
            !(images.contains(&"one".to_owned()) && images.contains(&"two".to_owned())),
            "{images:?}"
        );
        if images == ["two", "two"] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    world.complete().await;
}

#[tokio::test]
async fn a_paused_deployment_scales_but_does_not_roll() {
    let world = world();
    world.create(1, rolling()).await;
    world.complete().await;
    world
        .change(|spec| {
            spec.paused = Some(true);
            spec.replicas = Some(2);
            spec.template.spec.as_mut().unwrap().containers[0].image = Some("two".into());
        })
        .await;
    for _ in 0..500 {
        if world.images().await.len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.images().await, ["one", "one"]);
    world.change(|spec| spec.paused = None).await;
    world.complete().await;
    assert_eq!(world.images().await, ["two", "two"]);
}

#[tokio::test]
async fn a_rollout_that_cannot_work_keeps_the_old_pods() {
    let world = world();
    world.create(2, rolling()).await;
    world.complete().await;
    world.image("broken").await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let images = world.images().await;
    assert_eq!(images.iter().filter(|i| *i == "one").count(), 2, "{images:?}");
    assert_eq!(images.len(), 3);
}
