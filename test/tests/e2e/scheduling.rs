//! The scheduler against the API server, on nodes that exist only as objects.

use std::time::Duration;

use anyhow::Result;
use e2e::{Cluster, Daemon, eventually};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

fn cluster(name: &str) -> Result<Cluster> {
    let cluster = Cluster::builder(name).scheduler().start()?;
    cluster.kubectl(&["create", "serviceaccount", "default"])?.ok()?;
    Ok(cluster)
}

/// A node as a kubelet would report it.
fn add_node(cluster: &Cluster, name: &str, cpu: &str, spec: &str) -> Result<()> {
    cluster.apply(&format!(
        "{{ apiVersion: v1, kind: Node, metadata: {{ name: {name}, labels: {{ kubernetes.io/hostname: {name} }} }}, spec: {spec} }}"
    ))?;
    let status = format!(
        r#"{{"status":{{"allocatable":{{"cpu":"{cpu}","memory":"8Gi","pods":"110"}},"capacity":{{"cpu":"{cpu}","memory":"8Gi","pods":"110"}},"conditions":[{{"type":"Ready","status":"True"}}]}}}}"#
    );
    cluster
        .kubectl(&[
            "patch",
            "node",
            name,
            "--subresource=status",
            "--type=merge",
            "-p",
            &status,
        ])?
        .ok()?;
    // What the node lifecycle controller does once a node is ready; it does not run here.
    cluster
        .kubectl(&[
            "patch",
            "node",
            name,
            "--type=merge",
            "-p",
            &format!(r#"{{"spec":{}}}"#, taints_of(spec)),
        ])?
        .ok()?;
    Ok(())
}

fn taints_of(spec: &str) -> &'static str {
    if spec.contains("taints") {
        r#"{"taints":[{"key":"dedicated","effect":"NoSchedule"}]}"#
    } else {
        r#"{"taints":null}"#
    }
}

fn pod(name: &str, cpu: &str, more: &str) -> String {
    format!(
        "{{ apiVersion: v1, kind: Pod, metadata: {{ name: {name}, labels: {{ app: web }} }}, spec: {{ {more} containers: \
         [{{ name: c, image: x, resources: {{ requests: {{ cpu: {cpu}, memory: 100Mi }} }} }}] }} }}"
    )
}

fn await_node_of(cluster: &Cluster, name: &str) -> Result<String> {
    e2e::until(&format!("{name} has a node"), LIMIT, || {
        let pod = cluster.get(&["pod", name])?;
        match pod["spec"]["nodeName"].as_str() {
            Some(node) => Ok(node.to_owned()),
            None => anyhow::bail!("conditions {}", pod["status"]["conditions"]),
        }
    })
}

fn condition(pod: &Value) -> (&str, &str) {
    let condition = &pod["status"]["conditions"][0];
    (
        condition["reason"].as_str().unwrap_or_default(),
        condition["message"].as_str().unwrap_or_default(),
    )
}

#[test]
fn pods_go_where_they_fit_and_the_others_say_why_not() -> Result<()> {
    let cluster = cluster("fit")?;
    add_node(&cluster, "small", "1", "{}")?;
    add_node(
        &cluster,
        "tainted",
        "8",
        "{ taints: [{ key: dedicated, effect: NoSchedule }] }",
    )?;
    cluster.apply(&pod("fits", "500m", ""))?;
    assert_eq!(await_node_of(&cluster, "fits")?, "small");
    cluster.apply(&pod("large", "2", ""))?;
    eventually("the refusal is told", LIMIT, || {
        let pod = cluster.get(&["pod", "large"])?;
        let wanted = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s). \
                      preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.";
        Ok((
            condition(&pod) == ("Unschedulable", wanted),
            pod["status"].to_string(),
        ))
    })?;
    eventually("the event is written", LIMIT, || {
        let events = cluster
            .kubectl(&["get", "events", "--field-selector=reason=FailedScheduling"])?
            .ok()?;
        Ok((
            events.contains("pod/large") && events.contains("Insufficient cpu"),
            events,
        ))
    })?;
    // A node that fits is enough; nobody has to ask again.
    add_node(&cluster, "large", "4", "{}")?;
    assert_eq!(await_node_of(&cluster, "large")?, "large");
    let events = cluster
        .kubectl(&["get", "events", "--field-selector=reason=Scheduled"])?
        .ok()?;
    assert!(events.contains("Successfully assigned default/"), "{events}");
    cluster.finish()
}

#[test]
fn a_more_important_pod_evicts_a_lesser_one() -> Result<()> {
    let cluster = cluster("preempt")?;
    add_node(&cluster, "only", "1", "{}")?;
    cluster
        .kubectl(&["create", "priorityclass", "high", "--value=1000"])?
        .ok()?;
    cluster.apply(&pod("lesser", "800m", "terminationGracePeriodSeconds: 0,"))?;
    await_node_of(&cluster, "lesser")?;
    cluster.apply(&pod("important", "800m", "priorityClassName: high,"))?;
    eventually("the lesser pod is evicted", LIMIT, || {
        let lesser = cluster.kubectl(&["get", "pod", "lesser", "-o", "json"])?;
        // Nobody runs a kubelet here: a pod with a node waits for one to confirm its end.
        let going = lesser.code != 0 || lesser.stdout.contains("deletionTimestamp");
        Ok((going, lesser.stdout))
    })?;
    cluster
        .kubectl(&[
            "delete",
            "pod",
            "lesser",
            "--force",
            "--grace-period=0",
            "--ignore-not-found",
        ])?
        .ok()?;
    assert_eq!(await_node_of(&cluster, "important")?, "only");
    cluster.finish()
}

#[test]
fn a_scheduler_that_was_killed_goes_on_and_binds_nothing_twice() -> Result<()> {
    let mut cluster = cluster("killed")?;
    for n in 0..3 {
        add_node(&cluster, &format!("n{n}"), "4", "{}")?;
    }
    let many: Vec<String> = (0..30).map(|n| pod(&format!("p{n}"), "100m", "")).collect();
    cluster.apply(&many[..15].join("\n---\n"))?;
    cluster.kill(Daemon::Scheduler)?;
    cluster.apply(&many[15..].join("\n---\n"))?;
    cluster.restart(Daemon::Scheduler)?;
    eventually("all pods have a node", LIMIT, || {
        let pods = cluster.get(&["pods"])?;
        let waiting = pods["items"].as_array().map_or(0, |i| {
            i.iter().filter(|p| p["spec"]["nodeName"].is_null()).count()
        });
        Ok((waiting == 0, format!("{waiting} wait")))
    })?;
    cluster.finish()
}
