//! What pods and the node use: from the runtime and the cgroups, read when asked.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use cri::v1::ContainerStats;
use serde_json::{Value, json};

use crate::kubelet::Kubelet;
use crate::node::machine;
use crate::runtime::labels;

struct ContainerUse {
    pod: labels::PodIdentity,
    container: String,
    id: String,
    image: String,
    cpu_nanos: u64,
    memory_usage: u64,
    working_set: u64,
    rss: u64,
    writable: u64,
    at: i64,
}

async fn containers(kubelet: &Kubelet) -> Vec<ContainerUse> {
    let stats = kubelet
        .manager
        .runtime
        .list_container_stats(None)
        .await
        .unwrap_or_default();
    stats
        .into_iter()
        .filter_map(|s| container_use(kubelet, s))
        .collect()
}

fn container_use(kubelet: &Kubelet, stats: ContainerStats) -> Option<ContainerUse> {
    let attributes = stats.attributes?;
    let pod = labels::pod_identity(&attributes.labels)?;
    let cpu = stats.cpu.unwrap_or_default();
    let memory = stats.memory.unwrap_or_default();
    let number = |v: Option<cri::v1::UInt64Value>| v.map_or(0, |v| v.value);
    let image = kubelet
        .pleg
        .cache
        .get(&pod.uid)
        .and_then(|s| s.by_id(&attributes.id).map(|c| c.image.clone()));
    let working_set = number(memory.working_set_bytes);
    Some(ContainerUse {
        container: attributes.labels.get(labels::CONTAINER_NAME)?.clone(),
        id: attributes.id,
        image: image.unwrap_or_default(),
        cpu_nanos: number(cpu.usage_core_nano_seconds),
        memory_usage: memory.usage_bytes.map_or(working_set, |v| v.value),
        working_set,
        rss: number(memory.rss_bytes),
        writable: number(stats.writable_layer.and_then(|w| w.used_bytes)),
        at: cpu.timestamp,
        pod,
    })
}

fn node_cpu_nanos(kubelet: &Kubelet) -> u64 {
    kubelet
        .cgroups
        .hierarchy()
        .cpu_usage_nanos(Path::new(""))
        .unwrap_or(0)
}

/// Bytes in use that cannot be given back.
pub fn node_working_set(kubelet: &Kubelet) -> i64 {
    let root = kubelet.cgroups.hierarchy().working_set(Path::new(""));
    root.unwrap_or_else(|| {
        // The root group of version 2 has no memory.current.
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = |key: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default();
            line.trim().trim_end_matches(" kB").parse::<i64>().unwrap_or(0)
        };
        (kib("MemTotal:") - kib("MemFree:") - kib("Inactive(file):")).max(0) * 1024
    })
}

fn timestamp() -> String {
    jiff::Timestamp::now().to_string()
}

fn file_system(path: &Path) -> Value {
    let Ok(s) = rustix::fs::statvfs(path) else {
        return Value::Null;
    };
    let bytes = |blocks: u64| blocks.saturating_mul(s.f_frsize);
    json!({
        "time": timestamp(),
        "availableBytes": bytes(s.f_bavail),
        "capacityBytes": bytes(s.f_blocks),
        "usedBytes": bytes(s.f_blocks - s.f_bfree),
        "inodesFree": s.f_ffree,
        "inodes": s.f_files,
        "inodesUsed": s.f_files - s.f_ffree,
    })
}

pub async fn summary(kubelet: &Kubelet, node_name: &str) -> Value {
    let mut pods: BTreeMap<String, (Value, Vec<Value>, u64, u64)> = BTreeMap::new();
    for c in containers(kubelet).await {
        let time = jiff::Timestamp::from_nanosecond(i128::from(c.at))
            .map(|t| t.to_string())
            .unwrap_or_default();
        let entry = pods.entry(c.pod.uid.to_string()).or_insert_with(|| {
            (
                json!({"name": c.pod.name, "namespace": c.pod.namespace, "uid": c.pod.uid.as_str()}),
                Vec::new(),
                0,
                0,
            )
        });
        entry.1.push(json!({
            "name": c.container,
            "cpu": {"time": time, "usageCoreNanoSeconds": c.cpu_nanos},
            "memory": {"time": time, "usageBytes": c.memory_usage, "workingSetBytes": c.working_set, "rssBytes": c.rss},
            "rootfs": {"time": time, "usedBytes": c.writable},
        }));
        entry.2 += c.cpu_nanos;
        entry.3 += c.working_set;
    }
    let now = timestamp();
    let pods: Vec<Value> = pods
        .into_values()
        .map(|(reference, containers, cpu, memory)| {
            json!({"podRef": reference, "containers": containers, "cpu": {"time": now, "usageCoreNanoSeconds": cpu},
                "memory": {"time": now, "workingSetBytes": memory}})
        })
        .collect();
    let working_set = node_working_set(kubelet);
    json!({
        "node": {
            "nodeName": node_name,
            "cpu": {"time": now, "usageCoreNanoSeconds": node_cpu_nanos(kubelet)},
            "memory": {"time": now, "availableBytes": machine::memory_total() - working_set, "workingSetBytes": working_set},
            "fs": file_system(&kubelet.manager.settings.root_dir),
        },
        "pods": pods,
    })
}

/// Writing to a String cannot fail.
fn line(out: &mut String, name: &str, labels: &[(&str, &str)], value: f64) {
    let labels: Vec<String> = labels
        .iter()
        .map(|(k, v)| format!("{k}=\"{}\"", v.replace('\\', "\\\\").replace('"', "\\\"")))
        .collect();
    let braces = if labels.is_empty() {
        String::new()
    } else {
        format!("{{{}}}", labels.join(","))
    };
    let _ = writeln!(out, "{name}{braces} {value}");
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

const NANOS: f64 = 1e9;

pub async fn resource_metrics(kubelet: &Kubelet) -> String {
    let all = containers(kubelet).await;
    let mut out = String::new();
    let who = |c: &ContainerUse| [c.container.clone(), c.pod.namespace.clone(), c.pod.name.clone()];
    family(
        &mut out,
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
    );
    for c in &all {
        let [container, namespace, pod] = who(c);
        line(
            &mut out,
            "container_cpu_usage_seconds_total",
            &[
                ("container", &container),
                ("namespace", &namespace),
                ("pod", &pod),
            ],
            c.cpu_nanos as f64 / NANOS,
        );
    }
    family(
        &mut out,
        "container_memory_working_set_bytes",
        "gauge",
        "Current working set of the container in bytes",
    );
    for c in &all {
        let [container, namespace, pod] = who(c);
        line(
            &mut out,
            "container_memory_working_set_bytes",
            &[
                ("container", &container),
                ("namespace", &namespace),
                ("pod", &pod),
            ],
            c.working_set as f64,
        );
    }
    family(
        &mut out,
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the node in core-seconds",
    );
    line(
        &mut out,
        "node_cpu_usage_seconds_total",
        &[],
        node_cpu_nanos(kubelet) as f64 / NANOS,
    );
    family(
        &mut out,
        "node_memory_working_set_bytes",
        "gauge",
        "Current working set of the node in bytes",
    );
    line(
        &mut out,
        "node_memory_working_set_bytes",
        &[],
        node_working_set(kubelet) as f64,
    );
    let mut pods: BTreeMap<(String, String), (f64, f64)> = BTreeMap::new();
    for c in &all {
        let sum = pods
            .entry((c.pod.namespace.clone(), c.pod.name.clone()))
            .or_default();
        sum.0 += c.cpu_nanos as f64 / NANOS;
        sum.1 += c.working_set as f64;
    }
    family(
        &mut out,
        "pod_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the pod in core-seconds",
    );
    for ((namespace, pod), (cpu, _)) in &pods {
        line(
            &mut out,
            "pod_cpu_usage_seconds_total",
            &[("namespace", namespace), ("pod", pod)],
            *cpu,
        );
    }
    family(
        &mut out,
        "pod_memory_working_set_bytes",
        "gauge",
        "Current working set of the pod in bytes",
    );
    for ((namespace, pod), (_, memory)) in &pods {
        line(
            &mut out,
            "pod_memory_working_set_bytes",
            &[("namespace", namespace), ("pod", pod)],
            *memory,
        );
    }
    family(
        &mut out,
        "resource_scrape_error",
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
    );
    line(&mut out, "resource_scrape_error", &[], 0.0);
    out
}

pub async fn cadvisor_metrics(kubelet: &Kubelet) -> String {
    let all = containers(kubelet).await;
    let mut out = String::new();
    type Read = fn(&ContainerUse) -> f64;
    let families: [(&str, &str, &str, Read); 5] = [
        (
            "container_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed in seconds.",
            |c| c.cpu_nanos as f64 / NANOS,
        ),
        (
            "container_memory_working_set_bytes",
            "gauge",
            "Current working set in bytes.",
            |c| c.working_set as f64,
        ),
        (
            "container_memory_usage_bytes",
            "gauge",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
            |c| c.memory_usage as f64,
        ),
        ("container_memory_rss", "gauge", "Size of RSS in bytes.", |c| {
            c.rss as f64
        }),
        (
            "container_fs_usage_bytes",
            "gauge",
            "Number of bytes that are consumed by the container on this filesystem.",
            |c| c.writable as f64,
        ),
    ];
    for (name, kind, help, read) in families {
        family(&mut out, name, kind, help);
        for c in &all {
            let id = format!("/kubepods/pod{}/{}", c.pod.uid, c.id);
            let own = [
                ("container", c.container.as_str()),
                ("id", &id),
                ("image", &c.image),
                ("name", &c.id),
                ("namespace", &c.pod.namespace),
                ("pod", &c.pod.name),
            ];
            line(&mut out, name, &own, read(c));
        }
    }
    family(
        &mut out,
        "machine_cpu_cores",
        "gauge",
        "Number of logical CPU cores.",
    );
    line(
        &mut out,
        "machine_cpu_cores",
        &[],
        std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64),
    );
    family(
        &mut out,
        "machine_memory_bytes",
        "gauge",
        "Amount of memory installed on the machine.",
    );
    line(
        &mut out,
        "machine_memory_bytes",
        &[],
        machine::memory_total() as f64,
    );
    out
}
