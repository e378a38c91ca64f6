use super::*;
use crate::fake::FakeServer;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::time::Duration;

fn config_map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.into()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

type Log = Arc<Mutex<Vec<String>>>;

fn recorded(informer: &Informer<ConfigMap>) -> Log {
    let log = Log::default();
    informer.on_event({
        let log = log.clone();
        move |event| {
            log.lock().push(match event {
                Event::Added(o) => format!("+{}", o.metadata.name.as_deref().unwrap()),
                Event::Modified(_, o) => format!("~{}", o.metadata.name.as_deref().unwrap()),
                Event::Deleted(o) => format!("-{}", o.metadata.name.as_deref().unwrap()),
                Event::Synced => "synced".into(),
            })
        }
    });
    log
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not happen in 5 s");
}

fn informer(server: &FakeServer) -> Informer<ConfigMap> {
    Informer::new(server.client().all(), ListOptions::default())
}

#[tokio::test]
async fn changes_are_told_in_order_and_each_once() {
    let server = FakeServer::new();
    let api = server.client().namespaced::<ConfigMap>("ns");
    api.create(&config_map("a")).await.unwrap();
    let informer = informer(&server);
    let log = recorded(&informer);
    let store = informer.start();
    store.wait_synced().await;
    let mut b = api.create(&config_map("b")).await.unwrap();
    b.data = Some([("k".to_owned(), "v".to_owned())].into());
    api.update(&b).await.unwrap();
    api.delete("a", &Default::default()).await.unwrap();
    until("four events", || log.lock().len() >= 5).await;
    assert_eq!(*log.lock(), ["+a", "synced", "+b", "~b", "-a"]);
    assert_eq!(store.get("ns/b").unwrap().data.as_ref().unwrap()["k"], "v");
}

#[tokio::test]
async fn a_watch_that_ends_is_resumed_without_a_gap_or_a_relist() {
    let server = FakeServer::new();
    let informer = informer(&server);
    let log = recorded(&informer);
    informer.start().wait_synced().await;
    server.end_watches();
    server
        .client()
        .namespaced::<ConfigMap>("ns")
        .create(&config_map("a"))
        .await
        .unwrap();
    until("the event after the break", || log.lock().len() == 2).await;
    assert_eq!(*log.lock(), ["synced", "+a"]);
}

#[tokio::test]
async fn after_410_a_relist_tells_what_was_deleted_meanwhile() {
    let server = FakeServer::new();
    let api = server.client().namespaced::<ConfigMap>("ns");
    for name in ["a", "b"] {
        api.create(&config_map(name)).await.unwrap();
    }
    let informer = informer(&server);
    let log = recorded(&informer);
    let store = informer.start();
    store.wait_synced().await;
    log.lock().clear();
    server.remove_unseen("/api/v1/namespaces/ns/configmaps/a");
    server.compact();
    server.end_watches();
    until("the deletion", || store.get("ns/a").is_none()).await;
    assert_eq!(*log.lock(), ["-a"], "what did not change is not told again");
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let server = FakeServer::new();
    let api = server.client().namespaced::<ConfigMap>("ns");
    for n in 0..1203 {
        api.create(&config_map(&format!("m{n:04}"))).await.unwrap();
    }
    let store = informer(&server).start();
    store.wait_synced().await;
    assert_eq!(store.len(), 1203);
}

#[tokio::test]
async fn a_failing_list_is_retried_and_a_panicking_handler_harms_nobody() {
    let server = FakeServer::new();
    server.fail_next("GET /api/v1/configmaps", 500);
    let informer = informer(&server);
    informer.on_event(|_| panic!("a handler's bug"));
    let log = recorded(&informer);
    informer.start();
    until("sync", || log.lock().contains(&"synced".to_owned())).await;
}

#[tokio::test]
async fn indexes_follow_changes_and_late_handlers_hear_everything() {
    let server = FakeServer::new();
    let api = server.client().namespaced::<ConfigMap>("ns");
    let mut a = config_map("a");
    a.data = Some([("color".to_owned(), "red".to_owned())].into());
    let mut a = api.create(&a).await.unwrap();
    let informer = informer(&server).index("color", |o| {
        o.data.iter().flatten().map(|(_, v)| v.clone()).collect()
    });
    let store = informer.start();
    store.wait_synced().await;
    assert_eq!(store.by_index("color", "red").len(), 1);
    a.data = Some([("color".to_owned(), "blue".to_owned())].into());
    api.update(&a).await.unwrap();
    until("the move", || store.by_index("color", "blue").len() == 1).await;
    assert!(store.by_index("color", "red").is_empty());
    assert_eq!(*recorded(&informer).lock(), ["+a", "synced"]);
}
