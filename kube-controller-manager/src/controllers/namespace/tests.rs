use super::*;
use client::fake::FakeServer;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

fn server() -> FakeServer {
    let server = FakeServer::new();
    server.serve(
        "/api",
        json!({"versions": ["v1"], "serverAddressByClientCIDRs": []}),
    );
    server.serve("/apis", json!({"kind": "APIGroupList", "groups": []}));
    server.serve(
        "/api/v1",
        json!({"kind": "APIResourceList", "groupVersion": "v1", "resources": [
            {"name": "configmaps", "singularName": "", "namespaced": true, "kind": "ConfigMap", "verbs": VERBS},
            {"name": "pods", "singularName": "", "namespaced": true, "kind": "Pod", "verbs": VERBS},
            {"name": "pods/status", "singularName": "", "namespaced": true, "kind": "Pod", "verbs": ["get"]},
            {"name": "nodes", "singularName": "", "namespaced": false, "kind": "Node", "verbs": VERBS},
        ]}),
    );
    server
}

async fn terminating(server: &FakeServer) -> NamespaceController {
    let client = server.client();
    let namespace: Namespace =
        serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}}))
            .unwrap();
    client.all().create(&namespace).await.unwrap();
    client
        .all::<Namespace>()
        .delete("a", &Default::default())
        .await
        .unwrap();
    let namespaces = Store::of([client.all::<Namespace>().get("a").await.unwrap()]);
    NamespaceController { client, namespaces }
}

fn meta(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        ..ObjectMeta::default()
    }
}

#[tokio::test]
async fn everything_is_deleted_and_the_namespace_ends() {
    let server = server();
    let controller = terminating(&server).await;
    server
        .client()
        .namespaced("a")
        .create(&ConfigMap {
            metadata: meta("c"),
            ..Default::default()
        })
        .await
        .unwrap();
    assert_eq!(controller.reconcile("a").await.unwrap(), Requeue::Done);
    assert!(
        server
            .client()
            .all::<Namespace>()
            .get("a")
            .await
            .unwrap_err()
            .is_not_found()
    );
    assert!(
        server
            .client()
            .all::<ConfigMap>()
            .list(&ListOptions::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

#[tokio::test]
async fn nothing_else_is_deleted_while_a_pod_remains() {
    let server = server();
    let controller = terminating(&server).await;
    let api = server.client();
    api.namespaced("a")
        .create(&ConfigMap {
            metadata: meta("c"),
            ..Default::default()
        })
        .await
        .unwrap();
    let held = Pod {
        metadata: ObjectMeta {
            finalizers: Some(vec!["x/hold".into()]),
            ..meta("p")
        },
        ..Default::default()
    };
    api.namespaced("a").create(&held).await.unwrap();
    assert!(matches!(
        controller.reconcile("a").await.unwrap(),
        Requeue::After(_)
    ));
    api.namespaced::<ConfigMap>("a").get("c").await.unwrap();
    let namespace = api.all::<Namespace>().get("a").await.unwrap();
    let conditions = namespace.status.unwrap().conditions.unwrap();
    let remaining = conditions
        .iter()
        .find(|c| c.type_ == "NamespaceContentRemaining")
        .unwrap();
    assert_eq!(
        remaining.message.as_deref(),
        Some("Some resources are remaining: pods. has 1 resource instances")
    );
}

#[tokio::test]
async fn a_group_that_does_not_answer_is_named_and_the_rest_is_deleted() {
    let server = server();
    server.serve("/apis", json!({"kind": "APIGroupList", "groups": [{"name": "metrics.k8s.io", "versions": [{"groupVersion": "metrics.k8s.io/v1beta1", "version": "v1beta1"}]}]}));
    server.fail_next("GET /apis/metrics.k8s.io/v1beta1", 503);
    let controller = terminating(&server).await;
    server
        .client()
        .namespaced("a")
        .create(&ConfigMap {
            metadata: meta("c"),
            ..Default::default()
        })
        .await
        .unwrap();
    controller.reconcile("a").await.unwrap_err();
    assert!(
        server
            .client()
            .namespaced::<ConfigMap>("a")
            .get("c")
            .await
            .is_err()
    );
    let conditions = server
        .client()
        .all::<Namespace>()
        .get("a")
        .await
        .unwrap()
        .status
        .unwrap()
        .conditions
        .unwrap();
    let failure = conditions
        .iter()
        .find(|c| c.type_ == "NamespaceDeletionDiscoveryFailure")
        .unwrap();
    assert!(
        failure
            .message
            .as_deref()
            .unwrap()
            .contains("metrics.k8s.io/v1beta1"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn a_namespace_that_lives_is_left_alone() {
    let server = server();
    let client = server.client();
    let namespace = client
        .all()
        .create(&Namespace {
            metadata: meta("a"),
            ..Default::default()
        })
        .await
        .unwrap();
    server.forget_writes();
    let controller = NamespaceController {
        client,
        namespaces: Store::of([namespace]),
    };
    controller.reconcile("a").await.unwrap();
    assert!(server.writes().is_empty());
}
