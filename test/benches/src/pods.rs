//! From the create of a pod to its Running status, one pod after the other on a warm node.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use client::informer::{Event, Informer};
use client::{Client, ListOptions};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::sync::mpsc;

use crate::latency::Latencies;
use crate::process::{DAEMONS, Reading};

const TIMEOUT: Duration = Duration::from_secs(60);
/// The first pods warm the node: image unpacked, caches filled.
const WARM_UP: usize = 2;

pub async fn run(client: &Client, count: usize, image: &str) -> Result<()> {
    let api = client.namespaced::<Pod>("default");
    let (sender, mut running) = mpsc::unbounded_channel();
    let informer = Informer::new(api.clone(), ListOptions::labels("bench=pods"));
    informer.on_event(move |event| {
        if let Event::Modified(_, pod) = event
            && phase(pod) == "Running"
        {
            // The receiver lives as long as the run; after it, nobody waits for this.
            sender.send(pod.metadata.name.clone()).ok();
        }
    });
    informer.start().wait_synced().await;
    let before = Reading::now();
    let mut latencies = Latencies::default();
    for index in 0..count + WARM_UP {
        let name = format!("bench-{index}");
        let began = Instant::now();
        api.create(&pod(&name, image)?).await.context("create")?;
        wait_for(&mut running, &name).await?;
        if index >= WARM_UP {
            latencies.push(began.elapsed());
        }
    }
    let after = Reading::now();
    println!(
        "pod create to Running, {} pods one by one: {latencies}",
        latencies.len()
    );
    for name in DAEMONS {
        println!(
            "  {name:<24} {:.1} ms CPU a pod",
            after.cpu_since(&before, name).as_secs_f64() * 1000.0 / (count + WARM_UP) as f64
        );
    }
    api.delete_collection(
        &client::DeleteOptions::default(),
        &ListOptions::labels("bench=pods"),
    )
    .await
    .context("delete")?;
    Ok(())
}

async fn wait_for(running: &mut mpsc::UnboundedReceiver<Option<String>>, name: &str) -> Result<()> {
    loop {
        match tokio::time::timeout(TIMEOUT, running.recv()).await {
            Ok(Some(Some(found))) if found == name => return Ok(()),
            Ok(Some(_)) => (),
            Ok(None) => bail!("the watch ended"),
            Err(_) => bail!("pod {name} is not Running after {TIMEOUT:?}: kubectl describe pod {name}"),
        }
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("")
}

fn pod(name: &str, image: &str) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"bench": "pods"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "web", "image": image, "imagePullPolicy": "IfNotPresent"}]},
    }))?)
}
