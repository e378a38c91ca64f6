//! Lives of pods.

use std::time::{Duration, Instant};

use cri::fake::FakeRuntime;

use crate::node::{TestNode, eventually};

const WEB: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 1
  initContainers: [{name: init, image: 'i:1'}]
  containers: [{name: app, image: 'i:1'}, {name: side, image: 'i:1'}]
";

fn runtime() -> FakeRuntime {
    FakeRuntime::new().with_image("i:1")
}

async fn running_web(runtime: FakeRuntime) -> TestNode {
    let node = TestNode::new(runtime.clone(), None).await;
    node.write("web.yaml", WEB);
    eventually("the init container runs", || runtime.running() == ["init"]).await;
    runtime.exit("init", 0);
    eventually("both containers run", || runtime.running().len() == 2).await;
    node
}

#[tokio::test]
async fn a_static_pod_starts_in_order_and_is_gone_with_its_file() {
    let runtime = runtime();
    let mut node = running_web(runtime.clone()).await;
    assert_eq!(node.pods_on_disk(), 1);
    std::fs::remove_file(node.manifests().join("web.yaml")).unwrap();
    eventually("nothing runs", || runtime.running().is_empty()).await;
    eventually("nothing is left on disk", || node.pods_on_disk() == 0).await;
    assert_eq!(runtime.count("stop_podsandbox"), 1);
    node.stop().await;
}

#[tokio::test]
async fn a_restart_of_the_kubelet_restarts_no_container() {
    let runtime = runtime();
    let mut node = running_web(runtime.clone()).await;
    let created = runtime.count("create_container");
    node.stop().await;
    assert_eq!(runtime.running().len(), 2);
    node.start();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        (runtime.running().len(), runtime.count("create_container")),
        (2, created)
    );
    assert_eq!(
        runtime.count("stop_container") + runtime.count("run_podsandbox"),
        1
    );
    node.stop().await;
}

#[tokio::test]
async fn what_was_removed_while_the_kubelet_was_away_is_stopped() {
    let runtime = runtime();
    let mut node = running_web(runtime.clone()).await;
    node.stop().await;
    std::fs::remove_file(node.manifests().join("web.yaml")).unwrap();
    node.start();
    eventually("the orphan is stopped", || runtime.running().is_empty()).await;
    eventually("and its directory removed", || node.pods_on_disk() == 0).await;
    node.stop().await;
}

#[tokio::test]
async fn an_exit_is_answered_within_a_tenth_of_a_second() {
    let mut took = Vec::new();
    // Other tests use the same cores: one of a few tries counts.
    while took.len() < 5 {
        let runtime = runtime();
        let mut node = running_web(runtime.clone()).await;
        let begin = Instant::now();
        app_exits_and_runs_again(&runtime).await;
        took.push(begin.elapsed());
        node.stop().await;
        if took.iter().any(|took| *took < Duration::from_millis(100)) {
            return;
        }
    }
    panic!("{took:?}");
}

async fn app_exits_and_runs_again(runtime: &FakeRuntime) {
    let first = runtime.container("app").unwrap();
    runtime.exit("app", 1);
    eventually("app runs again", || {
        runtime.container("app").is_some_and(|id| id != first) && runtime.running().len() == 2
    })
    .await;
}

#[tokio::test]
async fn the_second_failure_in_a_row_waits() {
    let runtime = runtime();
    let mut node = running_web(runtime.clone()).await;
    app_exits_and_runs_again(&runtime).await;
    runtime.exit("app", 1);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        runtime.running(),
        ["side"],
        "the second failure in a row backs off"
    );
    let logs = runtime.config("app").unwrap();
    assert_eq!(logs.log_path, "app/1.log");
    node.stop().await;
}

#[tokio::test]
async fn a_lost_sandbox_is_made_anew_with_everything_in_it() {
    let runtime = runtime();
    let mut node = running_web(runtime.clone()).await;
    runtime.lose_sandboxes();
    eventually("init runs again", || runtime.running() == ["init"]).await;
    let attempts: Vec<u32> = runtime
        .sandbox_configs()
        .iter()
        .map(|c| c.metadata.as_ref().unwrap().attempt)
        .collect();
    assert_eq!(attempts, [0, 1]);
    node.stop().await;
}

#[tokio::test]
async fn a_changed_file_is_another_pod_and_waits_for_the_one_before() {
    let runtime = runtime();
    let mut node = running_web(runtime.clone()).await;
    node.write("web.yaml", &WEB.replace("name: side", "name: other"));
    eventually("the new one begins", || runtime.running() == ["init"]).await;
    let calls = runtime.calls();
    let position = |call: &str, nth: usize| {
        calls
            .iter()
            .enumerate()
            .filter(|(_, c)| c.starts_with(call))
            .nth(nth)
            .unwrap()
            .0
    };
    assert!(
        position("stop_podsandbox", 0) < position("run_podsandbox", 1),
        "never two of one name"
    );
    node.stop().await;
}
