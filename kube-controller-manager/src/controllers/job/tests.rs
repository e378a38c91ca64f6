use super::*;
use client::ListOptions;
use client::fake::FakeServer;
use k8s_openapi::api::batch::v1::JobStatus;
use serde_json::{Value, json};

struct World {
    server: FakeServer,
    controller: Jobs,
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
    async fn job(&self, spec: Value) {
        let mut value = json!({"metadata": {"name": "j"}, "spec": {"selector": {"matchLabels": {"job": "j"}},
            "template": {"metadata": {"labels": {"job": "j"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}}});
        for (name, field) in spec.as_object().unwrap() {
            value["spec"][name] = field.clone();
        }
        self.server
            .client()
            .namespaced::<Job>("ns")
            .create(&serde_json::from_value(value).unwrap())
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

    async fn status(&self) -> JobStatus {
        self.server
            .client()
            .namespaced::<Job>("ns")
            .get("j")
            .await
            .unwrap()
            .status
            .unwrap_or_default()
    }

    async fn end(&self, phase: &str, which: impl Fn(&Pod) -> bool) {
        for mut pod in self.pods().await.into_iter().filter(|p| which(p)) {
            pod.status = serde_json::from_value(json!({"phase": phase})).unwrap();
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
            let (pods, jobs) = (
                client.all::<Pod>().list(&all).await.unwrap().items,
                client.all::<Job>().list(&all).await.unwrap().items,
            );
            if same(&pods, &self.controller.pods) && same(&jobs, &self.controller.jobs) {
                // Handlers run after the store shows the change.
                return tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the caches did not catch up");
    }

    async fn sync(&self) -> Outcome {
        self.caught_up().await;
        let outcome = self.controller.reconcile("ns/j").await;
        self.caught_up().await;
        outcome
    }

    async fn settle(&self) {
        for _ in 0..4 {
            self.sync().await.unwrap();
        }
    }

    async fn conditions(&self) -> Vec<(String, String)> {
        self.status()
            .await
            .conditions
            .unwrap_or_default()
            .into_iter()
            .map(|c| (c.type_, c.reason.unwrap_or_default()))
            .collect()
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

fn pair(a: &str, b: &str) -> (String, String) {
    (a.to_owned(), b.to_owned())
}

#[tokio::test]
async fn a_job_runs_to_completion_and_counts_each_pod_once() {
    let world = world().await;
    world.job(json!({"parallelism": 2, "completions": 3})).await;
    world.settle().await;
    assert_eq!(world.pods().await.len(), 2);
    assert!(world.pods().await.iter().all(is_tracked));
    world.end("Succeeded", |_| true).await;
    world.settle().await;
    let status = world.status().await;
    assert_eq!((status.succeeded, status.active), (Some(2), Some(1)));
    assert!(
        world
            .pods()
            .await
            .iter()
            .filter(|p| crate::pod::phase(p) == "Succeeded")
            .all(|p| !is_tracked(p))
    );
    world.end("Succeeded", |_| true).await;
    world.settle().await;
    let status = world.status().await;
    assert_eq!(
        (
            status.succeeded,
            status.active,
            status.uncounted_terminated_pods.unwrap()
        ),
        (Some(3), None, Default::default())
    );
    assert!(status.completion_time.is_some());
    assert_eq!(
        world.conditions().await,
        [
            pair("SuccessCriteriaMet", "CompletionsReached"),
            pair("Complete", "CompletionsReached")
        ]
    );
}

#[tokio::test]
async fn a_steady_state_writes_nothing() {
    let world = world().await;
    world.job(json!({"parallelism": 1, "completions": 1})).await;
    world.settle().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    world.server.forget_writes();
    world.sync().await.unwrap();
    assert_eq!(world.server.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_failed_pod_is_replaced_later_and_too_many_end_the_job() {
    let world = world().await;
    world
        .job(json!({"parallelism": 1, "completions": 1, "backoffLimit": 0}))
        .await;
    world.settle().await;
    world.end("Failed", |_| true).await;
    world.settle().await;
    assert_eq!(world.status().await.failed, Some(1));
    assert_eq!(
        world.conditions().await,
        [
            pair("FailureTarget", "BackoffLimitExceeded"),
            pair("Failed", "BackoffLimitExceeded")
        ]
    );
    let patient = self::world().await;
    patient
        .job(json!({"parallelism": 1, "completions": 1, "backoffLimit": 1}))
        .await;
    patient.settle().await;
    patient.end("Failed", |_| true).await;
    let next = patient.sync().await.unwrap();
    assert!(
        matches!(next, Requeue::After(wait) if wait > Duration::from_secs(5) && wait <= Duration::from_secs(10)),
        "{next:?}"
    );
    assert_eq!(patient.pods().await.len(), 1);
}

#[tokio::test]
async fn indexes_are_given_out_and_finished_one_by_one() {
    let world = world().await;
    world
        .job(json!({"parallelism": 3, "completions": 3, "completionMode": "Indexed"}))
        .await;
    world.settle().await;
    let mut found: Vec<_> = world.pods().await.iter().filter_map(indexes::index_of).collect();
    found.sort_unstable();
    assert_eq!(found, [0, 1, 2]);
    let pod = world.pods().await.remove(0);
    assert_eq!(
        pod.spec.as_ref().unwrap().containers[0].env.as_ref().unwrap()[0].name,
        "JOB_COMPLETION_INDEX"
    );
    world.end("Succeeded", |p| indexes::index_of(p) != Some(1)).await;
    world.settle().await;
    assert_eq!(world.status().await.completed_indexes.as_deref(), Some("0,2"));
    world.end("Succeeded", |p| indexes::index_of(p) == Some(1)).await;
    world.settle().await;
    let status = world.status().await;
    assert_eq!(
        (status.completed_indexes.as_deref(), status.succeeded),
        (Some("0-2"), Some(3))
    );
    assert!(
        world
            .conditions()
            .await
            .contains(&pair("Complete", "CompletionsReached"))
    );
}

#[tokio::test]
async fn a_suspended_job_has_no_pods_and_a_resumed_one_starts_anew() {
    let world = world().await;
    world.job(json!({"parallelism": 2, "completions": 2})).await;
    world.settle().await;
    assert_eq!(world.pods().await.len(), 2);
    let api = world.server.client().namespaced::<Job>("ns");
    api.patch(
        "j",
        &client::Patch::Merge(json!({"spec": {"suspend": true}})),
        None,
    )
    .await
    .unwrap();
    world.settle().await;
    assert!(world.pods().await.is_empty());
    assert_eq!(world.status().await.failed, None);
    assert_eq!(
        (world.conditions().await, world.status().await.start_time),
        (vec![pair("Suspended", "JobSuspended")], None)
    );
    api.patch(
        "j",
        &client::Patch::Merge(json!({"spec": {"suspend": false}})),
        None,
    )
    .await
    .unwrap();
    world.settle().await;
    assert_eq!(world.pods().await.len(), 2);
    assert!(world.status().await.start_time.is_some());
}

#[tokio::test]
async fn a_job_past_its_deadline_fails_with_its_running_pods() {
    let world = world().await;
    world
        .job(json!({"parallelism": 2, "completions": 2, "activeDeadlineSeconds": 1}))
        .await;
    world.settle().await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.settle().await;
    assert!(world.pods().await.is_empty());
    assert_eq!(world.status().await.failed, Some(2));
    assert!(
        world
            .conditions()
            .await
            .contains(&pair("Failed", "DeadlineExceeded"))
    );
}

#[tokio::test]
async fn pods_of_a_job_that_is_gone_are_let_go() {
    let world = world().await;
    world.job(json!({"parallelism": 1, "completions": 1})).await;
    world.settle().await;
    world
        .server
        .client()
        .namespaced::<Job>("ns")
        .delete("j", &Default::default())
        .await
        .unwrap();
    world.caught_up().await;
    let pod = world.pods().await.remove(0);
    world
        .controller
        .reconcile(&format!("orphan:{}", object_key(&pod)))
        .await
        .unwrap();
    assert!(!is_tracked(&world.pods().await[0]));
}
