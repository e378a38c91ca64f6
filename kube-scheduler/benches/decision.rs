//! One decision over many nodes, and a burst of pods until they are assumed; no API server.
//!
//! `cargo bench -p kube-scheduler -- [nodes] [pods]`

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube_scheduler::config::{Configuration, build_profiles, complete};
use kube_scheduler::framework::profile::Profile;
use kube_scheduler::queue::Settings;
use kube_scheduler::scheduler::{Outcome, Scheduler};
use serde_json::{Value, json};

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let nodes = numbers.first().copied().unwrap_or(5000);
    let pods = numbers.get(1).copied().unwrap_or(10_000);
    println!("{nodes} nodes, {pods} pods, mean time per pod from event to assumed");
    report("plain", nodes, pods, 0, |_| json!({}));
    report("plain, all nodes scored", nodes, pods.min(2000), 100, |_| {
        json!({})
    });
    report(
        "node selector",
        nodes,
        pods,
        0,
        |_| json!({ "nodeSelector": { "pool": "a" } }),
    );
    report("zone spread", nodes, pods, 0, |_| {
        json!({ "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": { "matchLabels": { "app": "web" } } }] })
    });
    report("preferred anti-affinity", nodes, pods, 0, |_| {
        json!({ "affinity": { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 1, "podAffinityTerm": { "topologyKey": "kubernetes.io/hostname",
            "labelSelector": { "matchLabels": { "app": "web" } } } }] } } })
    });
    report("required anti-affinity", nodes, pods.min(nodes), 0, |_| {
        json!({ "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [{
            "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": "web" } } }] } } })
    });
    report(
        "fits nowhere",
        nodes,
        pods.min(1000),
        0,
        |n| json!({ "nodeSelector": { "none": n.to_string() } }),
    );
}

fn report(name: &str, nodes: usize, pods: usize, percentage: i32, spec: impl Fn(usize) -> Value) {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(profiles(), Settings::default(), percentage, 1, now);
    (0..nodes).for_each(|n| scheduler.put_node(None, &Arc::new(node(n)), now));
    let pods: Vec<Arc<Pod>> = (0..pods).map(|n| Arc::new(pod(n, spec(n)))).collect();
    let start = Instant::now();
    pods.iter().for_each(|pod| scheduler.put_pod(None, pod, now));
    let queued = start.elapsed();
    let (mut decided, mut bound) = (Vec::with_capacity(pods.len()), 0);
    loop {
        let start = Instant::now();
        let Some(outcome) = scheduler.schedule_next(now) else {
            break;
        };
        decided.push(start.elapsed());
        bound += usize::from(matches!(black_box(outcome), Outcome::Bind(_)));
    }
    assert!(scheduler.overcommitted().is_empty());
    decided.sort();
    let at = |share: f64| decided[((decided.len() - 1) as f64 * share) as usize];
    let sum: Duration = decided.iter().sum();
    println!(
        "{name:<28} {:>9.1?} decide (p50 {:.1?}, p99 {:.1?}) + {:.1?} queue, {bound} bound, {:.0} pods/s",
        sum / decided.len() as u32,
        at(0.5),
        at(0.99),
        queued / pods.len() as u32,
        decided.len() as f64 / (sum + queued).as_secs_f64(),
    );
}

fn profiles() -> HashMap<String, Profile> {
    let configuration = complete(Configuration::default()).expect("the default configuration is valid");
    build_profiles(&configuration).expect("the default profile builds")
}

fn node(n: usize) -> Node {
    let (name, zone) = (format!("node-{n}"), format!("zone-{}", n % 3));
    let pool = if n.is_multiple_of(2) { "a" } else { "b" };
    parse(json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name, "pool": pool,
            "topology.kubernetes.io/zone": zone } },
        "status": { "allocatable": { "cpu": "32", "memory": "64Gi", "pods": "110" } },
    }))
}

fn pod(n: usize, mut spec: Value) -> Pod {
    spec["containers"] = json!([{ "name": "c", "image": "web:1",
        "resources": { "requests": { "cpu": "100m", "memory": "200Mi" } } }]);
    let name = format!("pod-{n}");
    parse(json!({
        "metadata": { "name": name, "namespace": "default", "uid": name, "labels": { "app": "web" } },
        "spec": spec,
    }))
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a well-formed object")
}
