//! Watches over the wire.

use std::time::Duration;

use anyhow::{Context, Result};
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use crate::server::Cluster;

const PATIENCE: Duration = Duration::from_secs(10);
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

struct Stream {
    body: Incoming,
    rest: Vec<u8>,
}

impl Stream {
    async fn open(cluster: &Cluster, query: &str) -> Result<Stream> {
        let response = cluster
            .open(
                Method::GET,
                &format!("{CONFIG_MAPS}?watch=1&{query}"),
                "application/json",
                None,
            )
            .await?;
        assert_eq!(response.status(), 200);
        Ok(Stream {
            body: response.into_body(),
            rest: Vec::new(),
        })
    }

    /// The next event; `None` = the server ended the watch.
    async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            match tokio::time::timeout(PATIENCE, self.body.frame())
                .await
                .context("no event came")?
            {
                Some(frame) => self
                    .rest
                    .extend_from_slice(frame?.data_ref().map_or(&[][..], |data| data)),
                None => return Ok(None),
            }
        }
    }

    async fn expect(&mut self, kind: &str, name: &str) -> Result<Value> {
        let event = self
            .next()
            .await?
            .with_context(|| format!("the watch ended before {kind} {name}"))?;
        assert_eq!(
            (
                event["type"].as_str(),
                event["object"]["metadata"]["name"].as_str()
            ),
            (Some(kind), Some(name)),
            "{event}"
        );
        Ok(event)
    }
}

async fn create(cluster: &Cluster, name: &str, label: &str) -> Result<String> {
    let body = format!(r#"{{"metadata":{{"name":"{name}","labels":{{"l":"{label}"}}}}}}"#);
    let answer = cluster.call(Method::POST, CONFIG_MAPS, Some(&body)).await?;
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    Ok(answer.json()["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default()
        .to_owned())
}

async fn relabel(cluster: &Cluster, name: &str, label: &str) -> Result<()> {
    let body = format!(r#"{{"metadata":{{"labels":{{"l":"{label}"}}}}}}"#);
    let answer = cluster
        .call_with(
            Method::PATCH,
            &format!("{CONFIG_MAPS}/{name}"),
            "application/merge-patch+json",
            Some(&body),
        )
        .await?;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    Ok(())
}

async fn delete(cluster: &Cluster, name: &str) -> Result<()> {
    let answer = cluster
        .call(Method::DELETE, &format!("{CONFIG_MAPS}/{name}"), None)
        .await?;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    Ok(())
}

#[tokio::test]
async fn every_change_comes_once_and_in_order_from_any_version() -> Result<()> {
    let cluster = Cluster::start().await?;
    let first = create(&cluster, "a", "1").await?;
    let mut from_version = Stream::open(&cluster, &format!("resourceVersion={first}")).await?;
    let mut from_state = Stream::open(&cluster, "").await?;
    from_state.expect("ADDED", "a").await?;
    create(&cluster, "b", "1").await?;
    relabel(&cluster, "a", "2").await?;
    delete(&cluster, "b").await?;
    for stream in [&mut from_version, &mut from_state] {
        stream.expect("ADDED", "b").await?;
        let modified = stream.expect("MODIFIED", "a").await?;
        assert_eq!(modified["object"]["kind"], "ConfigMap");
        let deleted = stream.expect("DELETED", "b").await?;
        let version = |event: &Value| {
            event["object"]["metadata"]["resourceVersion"]
                .as_str()
                .unwrap()
                .parse::<i64>()
                .unwrap()
        };
        assert!(
            version(&deleted) > version(&modified),
            "a deletion has its own revision"
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_object_that_leaves_the_selection_is_deleted_for_its_watcher() -> Result<()> {
    let cluster = Cluster::start().await?;
    let mut stream = Stream::open(&cluster, "labelSelector=l%3D1").await?;
    create(&cluster, "a", "1").await?;
    create(&cluster, "b", "2").await?;
    stream.expect("ADDED", "a").await?;
    relabel(&cluster, "a", "2").await?;
    let left = stream.expect("DELETED", "a").await?;
    assert_eq!(
        left["object"]["metadata"]["labels"]["l"], "1",
        "it shows what the watcher knew"
    );
    relabel(&cluster, "b", "1").await?;
    stream.expect("ADDED", "b").await?;
    Ok(())
}

#[tokio::test]
async fn streaming_lists_end_with_the_annotated_bookmark() -> Result<()> {
    let cluster = Cluster::start().await?;
    create(&cluster, "a", "1").await?;
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut stream = Stream::open(&cluster, query).await?;
    stream.expect("ADDED", "a").await?;
    let bookmark = stream.next().await?.context("no bookmark")?;
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    create(&cluster, "b", "1").await?;
    stream.expect("ADDED", "b").await?;
    Ok(())
}

#[tokio::test]
async fn a_timeout_ends_a_watch_with_a_bookmark_to_resume_from() -> Result<()> {
    let cluster = Cluster::start().await?;
    let version = create(&cluster, "a", "1").await?;
    let mut stream = Stream::open(
        &cluster,
        &format!("resourceVersion={version}&allowWatchBookmarks=true&timeoutSeconds=1"),
    )
    .await?;
    // Something else happens meanwhile, so that there is a later revision to tell.
    let other = r#"{"metadata":{"name":"elsewhere"}}"#;
    cluster
        .call(
            Method::POST,
            "/api/v1/namespaces/kube-system/configmaps",
            Some(other),
        )
        .await?;
    let bookmark = stream.next().await?.context("no bookmark")?;
    assert_eq!(bookmark["type"], "BOOKMARK", "{bookmark}");
    let told: i64 = bookmark["object"]["metadata"]["resourceVersion"]
        .as_str()
        .context("no version")?
        .parse()?;
    assert!(told > version.parse::<i64>()?);
    assert!(stream.next().await?.is_none());
    Ok(())
}

#[tokio::test]
async fn versions_that_history_does_not_reach_are_expired() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    cluster.restart_api().await?;
    let mut stream = Stream::open(&cluster, "resourceVersion=1").await?;
    let error = stream.next().await?.context("no event")?;
    assert_eq!(
        (
            error["type"].as_str(),
            error["object"]["code"].as_i64(),
            error["object"]["reason"].as_str()
        ),
        (Some("ERROR"), Some(410), Some("Expired"))
    );
    Ok(())
}

#[tokio::test]
async fn pages_of_one_list_are_one_snapshot() -> Result<()> {
    let cluster = Cluster::start().await?;
    for name in ["a", "b", "c", "d"] {
        create(&cluster, name, "1").await?;
    }
    let page = |answer: &crate::server::Answer| {
        let list = answer.json();
        let names: Vec<String> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        (
            names,
            list["metadata"]["continue"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            list["metadata"]["resourceVersion"].clone(),
        )
    };
    let (names, token, version) = page(
        &cluster
            .call(Method::GET, &format!("{CONFIG_MAPS}?limit=2"), None)
            .await?,
    );
    assert_eq!(names, ["a", "b"]);
    delete(&cluster, "c").await?;
    create(&cluster, "cc", "1").await?;
    let (names, token, again) = page(
        &cluster
            .call(
                Method::GET,
                &format!("{CONFIG_MAPS}?limit=2&continue={token}"),
                None,
            )
            .await?,
    );
    assert_eq!(
        (names, token, again),
        (vec!["c".to_owned(), "d".to_owned()], String::new(), version)
    );
    Ok(())
}

#[tokio::test]
async fn a_killed_server_loses_nothing_it_answered_for() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let version = create(&cluster, "a", "1").await?;
    create(&cluster, "b", "1").await?;
    delete(&cluster, "a").await?;
    cluster.restart_api().await?;
    let answer = cluster.call(Method::GET, CONFIG_MAPS, None).await?;
    let names: Vec<_> = answer.json()["items"]
        .as_array()
        .context("no list")?
        .iter()
        .map(|i| i["metadata"]["name"].clone())
        .collect();
    assert_eq!(names, ["b"]);
    // The new server has no history of before its start: it says so rather than leaving the deletion out.
    let mut stream = Stream::open(&cluster, &format!("resourceVersion={version}")).await?;
    let event = stream.next().await?.context("no event")?;
    assert_eq!(event["object"]["code"], 410);
    Ok(())
}

#[tokio::test]
async fn patches_that_race_for_one_object_all_take_effect() -> Result<()> {
    let cluster = std::sync::Arc::new(Cluster::start().await?);
    create(&cluster, "counter", "0").await?;
    let writers = (0..20).map(|i| {
        let cluster = cluster.clone();
        tokio::spawn(async move {
            let patch = format!(r#"{{"data":{{"w{i}":"x"}}}}"#);
            cluster
                .call_with(
                    Method::PATCH,
                    &format!("{CONFIG_MAPS}/counter"),
                    "application/merge-patch+json",
                    Some(&patch),
                )
                .await
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        assert_eq!(writer.await??.status, 200);
    }
    let answer = cluster
        .call(Method::GET, &format!("{CONFIG_MAPS}/counter"), None)
        .await?;
    assert_eq!(answer.json()["data"].as_object().context("no data")?.len(), 20);
    Ok(())
}
