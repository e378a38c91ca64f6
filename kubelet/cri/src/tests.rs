use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::fake::FakeRuntime;
use crate::remote::Unobserved;
use crate::v1::*;

fn short() -> RuntimeTimeouts {
    RuntimeTimeouts {
        request: Duration::from_millis(200),
        connect: Duration::from_millis(200),
    }
}

#[tokio::test]
async fn a_runtime_that_never_answers_is_given_up_at_the_deadline_and_the_call_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cri.sock");
    let _listener = tokio::net::UnixListener::bind(&path).unwrap();
    let endpoint = format!("unix://{}", path.display());
    let runtime = RemoteRuntime::connect(&endpoint, None, short(), Arc::new(Unobserved)).unwrap();
    let start = Instant::now();
    let error = runtime.list_containers(None).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(error.call, "list_containers");
    assert!(
        error.is_deadline() || error.code == tonic::Code::Cancelled,
        "{error:?}"
    );
}

#[tokio::test]
async fn a_missing_socket_is_unavailable_at_once_and_says_why() {
    let runtime = RemoteRuntime::connect(
        "unix:///nonexistent/cri.sock",
        None,
        short(),
        Arc::new(Unobserved),
    )
    .unwrap();
    let error = runtime.version().await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    assert!(error.message.contains("No such file"), "{error}");
}

#[test]
fn an_endpoint_that_is_no_socket_is_refused_with_the_right_spelling() {
    let error = remote::socket_path("tcp://1.2.3.4:5").unwrap_err();
    assert!(error.message.contains("unix:///path/to/socket"));
    assert_eq!(remote::socket_path("unix:/a/b").unwrap().to_str(), Some("/a/b"));
    assert_eq!(remote::socket_path("/a/b").unwrap().to_str(), Some("/a/b"));
}

#[tokio::test]
async fn the_fake_keeps_upstreams_life_cycle() {
    let fake = FakeRuntime::new().with_image("busybox");
    let config = PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: "p".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let sandbox = fake.run_pod_sandbox(config.clone(), "").await.unwrap();
    let container = ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: "c".into(),
            attempt: 0,
        }),
        ..Default::default()
    };
    let id = fake.create_container(&sandbox, container, config).await.unwrap();
    fake.start_container(&id).await.unwrap();
    assert_eq!(fake.running(), ["c"]);
    fake.exit("c", 3);
    let status = fake.container_status(&id, false).await.unwrap().status.unwrap();
    assert_eq!(
        (status.state(), status.exit_code),
        (ContainerState::ContainerExited, 3)
    );
}
