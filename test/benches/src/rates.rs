//! What the API server does in a second, and what an operation costs it and etcd.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use client::Client;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::idle::mib;
use crate::latency::Latencies;
use crate::process::Reading;

const NAMESPACE: &str = "bench";
const WATCHERS: usize = 200;
const WATCHED_CREATES: usize = 1000;
const LISTS: usize = 10;
const WATCH_DEADLINE: Duration = Duration::from_secs(120);

pub async fn run(client: &Client, pods: usize, in_flight: usize) -> Result<()> {
    // Whatever an earlier run left; the namespace controller empties it.
    send(
        client,
        Method::POST,
        "/api/v1/namespaces",
        Some(json!({"metadata": {"name": NAMESPACE}})),
    )
    .await
    .ok();
    ensure_service_account(client).await?;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    measure("create pods", pods, in_flight, client, |client, index| {
        let path = path.clone();
        async move {
            send(&client, Method::POST, &path, Some(pod(index, "a")))
                .await
                .map(drop)
        }
    })
    .await?;
    measure("get one object", pods, in_flight, client, |client, index| {
        let path = format!("{path}/pod-a-{}", index % pods.max(1));
        async move { send(&client, Method::GET, &path, None).await.map(drop) }
    })
    .await?;
    lists(client, &path, pods).await?;
    leases(client, pods.min(2000), in_flight).await?;
    watch(client, &path).await?;
    let reading = Reading::now();
    for name in ["etcd", "kube-apiserver"] {
        let usage = reading.get(name);
        println!(
            "{name}: resident {:.0} MiB, peak {:.0} MiB",
            mib(usage.resident_kib),
            mib(usage.peak_kib)
        );
    }
    send(
        client,
        Method::DELETE,
        &format!("/api/v1/namespaces/{NAMESPACE}"),
        None,
    )
    .await
    .map(drop)
}

/// Pods are admitted only once their namespace has its service account.
async fn ensure_service_account(client: &Client) -> Result<()> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default");
    for _ in 0..100 {
        if send(client, Method::GET, &path, None).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let collection = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    send(
        client,
        Method::POST,
        &collection,
        Some(json!({"metadata": {"name": "default"}})),
    )
    .await
    .map(drop)
}

async fn lists(client: &Client, path: &str, pods: usize) -> Result<()> {
    let title = format!("list {pods} pods");
    let size = Arc::new(AtomicU64::new(0));
    measure(&title, LISTS, 1, client, |client, _| {
        let (path, size) = (path.to_owned(), size.clone());
        async move {
            let bytes = send(&client, Method::GET, &path, None).await?;
            size.store(bytes.len() as u64, Ordering::Relaxed);
            Ok(())
        }
    })
    .await?;
    println!(
        "  one list is {:.1} MiB",
        size.load(Ordering::Relaxed) as f64 / 1048576.0
    );
    measure("list 500 pods", LISTS * 5, 1, client, |client, _| {
        let path = format!("{path}?limit=500");
        async move { send(&client, Method::GET, &path, None).await.map(drop) }
    })
    .await
}

async fn leases(client: &Client, renewals: usize, in_flight: usize) -> Result<()> {
    let collection = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases");
    let mut versions = Vec::new();
    for slot in 0..in_flight {
        let made = send(client, Method::POST, &collection, Some(lease(slot, 0, None))).await?;
        versions.push(Mutex::new(version_of(&made)?));
    }
    let versions = Arc::new(versions);
    measure(
        "renew leases (PUT)",
        renewals,
        in_flight,
        client,
        |client, index| {
            // A slot renews one lease at a time, as a node does, with the version of the last renewal.
            let (slot, versions) = (index % in_flight, versions.clone());
            let path = format!("{collection}/lease-{slot}");
            async move {
                let mut version = versions[slot].lock().await;
                let body = lease(slot, index, Some(&version));
                *version = version_of(&send(&client, Method::PUT, &path, Some(body)).await?)?;
                Ok(())
            }
        },
    )
    .await
}

fn lease(slot: usize, transitions: usize, version: Option<&str>) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": format!("lease-{slot}"), "namespace": NAMESPACE, "resourceVersion": version},
        "spec": {"holderIdentity": "bench", "leaseDurationSeconds": 40, "leaseTransitions": transitions}})
}

fn version_of(object: &[u8]) -> Result<String> {
    let object: Value = serde_json::from_slice(object)?;
    object["metadata"]["resourceVersion"]
        .as_str()
        .map(str::to_owned)
        .context("an object without resourceVersion")
}

/// Every watcher must see every create.
async fn watch(client: &Client, path: &str) -> Result<()> {
    let seen = Arc::new(AtomicUsize::new(0));
    let list = send(client, Method::GET, &format!("{path}?limit=1"), None).await?;
    let version = version_of(&list)?;
    let mut watchers = JoinSet::new();
    for _ in 0..WATCHERS {
        let path = format!("{path}?watch=1&resourceVersion={version}");
        let request = Request::builder().uri(&path).body(Bytes::new())?;
        let mut body = client.raw(request).await?.into_body();
        let seen = seen.clone();
        watchers.spawn(async move {
            let mut events = 0;
            while events < WATCHED_CREATES {
                let Some(Ok(frame)) = body.frame().await else {
                    break;
                };
                let found = frame
                    .data_ref()
                    .map_or(0, |data| data.iter().filter(|byte| **byte == b'\n').count());
                events += found;
                seen.fetch_add(found, Ordering::Relaxed);
            }
        });
    }
    let (before, began) = (Reading::now(), Instant::now());
    in_parallel(client, WATCHED_CREATES, 32, |client, index| {
        let path = path.to_owned();
        async move {
            send(&client, Method::POST, &path, Some(pod(index, "w")))
                .await
                .map(drop)
        }
    })
    .await?;
    tokio::time::timeout(WATCH_DEADLINE, watchers.join_all())
        .await
        .context("watchers did not see every event")?;
    let (took, after, events) = (began.elapsed(), Reading::now(), seen.load(Ordering::Relaxed));
    if events < WATCHERS * WATCHED_CREATES {
        bail!(
            "{WATCHERS} watchers saw {events} events instead of {}",
            WATCHERS * WATCHED_CREATES
        );
    }
    println!(
        "watch, {WATCHERS} watchers x {WATCHED_CREATES} creates: {:.0} events/s, apiserver {:.2} us an event (creates included)",
        events as f64 / took.as_secs_f64(),
        after.cpu_since(&before, "kube-apiserver").as_secs_f64() * 1e6 / events as f64
    );
    Ok(())
}

async fn measure<F, Fut>(title: &str, count: usize, in_flight: usize, client: &Client, act: F) -> Result<()>
where
    F: Fn(Client, usize) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let (before, began) = (Reading::now(), Instant::now());
    let latencies = in_parallel(client, count, in_flight, act)
        .await
        .with_context(|| title.to_owned())?;
    let (took, after) = (began.elapsed(), Reading::now());
    let cost = |name| after.cpu_since(&before, name).as_secs_f64() * 1e6 / count.max(1) as f64;
    println!(
        "{title}: {:.0}/s, {latencies}, apiserver {:.0} us, etcd {:.0} us each",
        count as f64 / took.as_secs_f64(),
        cost("kube-apiserver"),
        cost("etcd")
    );
    Ok(())
}

async fn in_parallel<F, Fut>(client: &Client, count: usize, in_flight: usize, act: F) -> Result<Latencies>
where
    F: Fn(Client, usize) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let mut latencies = Latencies::default();
    let mut running: JoinSet<Result<Duration>> = JoinSet::new();
    for index in 0..count {
        if running.len() >= in_flight
            && let Some(done) = running.join_next().await
        {
            latencies.push(done??);
        }
        let operation = act(client.clone(), index);
        running.spawn(async move {
            let began = Instant::now();
            operation.await?;
            Ok(began.elapsed())
        });
    }
    while let Some(done) = running.join_next().await {
        latencies.push(done??);
    }
    Ok(latencies)
}

async fn send(client: &Client, method: Method, path: &str, body: Option<Value>) -> Result<Bytes> {
    let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
    let request = Request::builder()
        .method(&method)
        .uri(path)
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .body(bytes)?;
    let response = client.raw(request).await?;
    let status = response.status();
    let bytes = response
        .into_body()
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("{method} {path}: {error}"))?
        .to_bytes();
    if !status.is_success() {
        bail!(
            "{method} {path}: {status}: {}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(300)])
        );
    }
    Ok(bytes)
}

/// About 2 KiB stored: a pod as a Deployment makes it. No scheduler looks at it.
fn pod(index: usize, series: &str) -> Value {
    let env: Vec<Value> = (0..8)
        .map(|at| json!({"name": format!("VARIABLE_{at}"), "value": format!("value-{at}-of-{index}")}))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod-{series}-{index}"), "labels": {"app": "bench", "series": series, "pod-template-hash": "5d4f8c7b9"},
            "annotations": {"bench/purpose": "measuring the API server"}},
        "spec": {"schedulerName": "nobody", "automountServiceAccountToken": false, "containers": [{"name": "main", "image": "localhost/ferrokube/demo-web:0.1", "env": env,
            "ports": [{"containerPort": 8080, "name": "http"}], "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "32Mi"}},
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}}, "livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080}}}]},
    })
}
