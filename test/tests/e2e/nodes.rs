//! Pods on a real node: containerd, kubelet, kube-proxy, in namespaces of their own.

use std::time::Duration;

use anyhow::{Context, Result};
use e2e::node::{POD_LIMIT, await_node_ready, ctr, running_tasks};
use e2e::{Cluster, Daemon, eventually, skip, until};
use serde_json::Value;

/// A cluster with a node, or `None` where that is not possible, with the reason printed.
pub fn with_node(name: &str) -> Result<Option<Cluster>> {
    let builder = Cluster::builder(name).node();
    match builder.skip_reason() {
        Some(reason) => {
            skip(&reason);
            Ok(None)
        }
        None => builder.start().map(Some),
    }
}

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 3
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: localhost/ferrokube/demo-web:0.1
        ports: [{ containerPort: 8080 }]
        env:
        - { name: POD_IP, valueFrom: { fieldRef: { fieldPath: status.podIP } } }
        - { name: NODE_NAME, valueFrom: { fieldRef: { fieldPath: spec.nodeName } } }
        readinessProbe: { httpGet: { path: /readyz, port: 8080 }, periodSeconds: 1 }
";

/// A pod of busybox that runs a shell script.
fn script(name: &str, script: &str, more: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  containers:
  - name: main
    image: localhost/ferrokube/busybox:0.1
    command: [sh, -c, '{script}']
{more}"
    )
}

pub fn deploy_web(cluster: &Cluster) -> Result<()> {
    cluster.apply(WEB)?;
    let limit = format!("--timeout={}s", POD_LIMIT.as_secs());
    cluster
        .kubectl(&["rollout", "status", "deployment/web", &limit])?
        .ok()?;
    Ok(())
}

fn await_phase(cluster: &Cluster, pod: &str, wanted: &str) -> Result<Value> {
    until(&format!("{pod} is {wanted}"), POD_LIMIT, || {
        let object = cluster.get(&["pod", pod])?;
        anyhow::ensure!(object["status"]["phase"] == wanted, "status {}", object["status"]);
        Ok(object)
    })
}

#[test]
fn a_deployment_answers_through_its_service() -> Result<()> {
    let Some(cluster) = with_node("service")? else {
        return Ok(());
    };
    deploy_web(&cluster)?;
    cluster
        .kubectl(&["expose", "deployment", "web", "--port=80", "--target-port=8080"])?
        .ok()?;
    let service = cluster.get(&["service", "web"])?;
    let address = service["spec"]["clusterIP"]
        .as_str()
        .context("a cluster IP")?
        .to_owned();
    let mut hosts = std::collections::BTreeSet::new();
    eventually("all three replicas answer", Duration::from_secs(30), || {
        let page = cluster.curl(&format!("http://{address}/"))?;
        anyhow::ensure!(page.contains("node: node-1"), "{page}");
        hosts.insert(page.lines().next().unwrap_or_default().to_owned());
        Ok((hosts.len() == 3, format!("{hosts:?}")))
    })?;
    let wide = cluster.kubectl(&["get", "pods", "-o", "wide"])?.ok()?;
    assert_eq!(wide.matches("Running").count(), 3, "{wide}");
    cluster.kubectl(&["delete", "service", "web"])?.ok()?;
    eventually("the service is gone", Duration::from_secs(30), || {
        Ok((
            cluster.curl(&format!("http://{address}/")).is_err(),
            "it still answers".to_owned(),
        ))
    })?;
    cluster.finish()
}

#[test]
fn logs_volumes_and_exit_codes_are_as_written() -> Result<()> {
    let Some(cluster) = with_node("volumes")? else {
        return Ok(());
    };
    cluster
        .kubectl(&["create", "configmap", "settings", "--from-literal=color=blue"])?
        .ok()?;
    cluster
        .kubectl(&["create", "secret", "generic", "key", "--from-literal=word=xyzzy"])?
        .ok()?;
    let volumes = "    volumeMounts:
    - { name: settings, mountPath: /settings }
    - { name: key, mountPath: /key }
    - { name: scratch, mountPath: /scratch }
  volumes:
  - { name: settings, configMap: { name: settings } }
  - { name: key, secret: { secretName: key } }
  - { name: scratch, emptyDir: {} }
";
    let reads = "cat /settings/color /key/word; echo; echo kept > /scratch/x; cat /scratch/x; cat /var/run/secrets/kubernetes.io/serviceaccount/namespace";
    cluster.apply(&script("reader", reads, volumes))?;
    await_phase(&cluster, "reader", "Succeeded")?;
    let logs = cluster.kubectl(&["logs", "reader"])?.ok()?;
    assert_eq!(logs, "bluexyzzy\nkept\ndefault");
    cluster.apply(&script("failing", "exit 7", ""))?;
    let failed = await_phase(&cluster, "failing", "Failed")?;
    assert_eq!(
        failed["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"],
        7
    );
    cluster.finish()
}

#[test]
fn a_container_that_fails_its_liveness_probe_is_restarted() -> Result<()> {
    let Some(cluster) = with_node("probes")? else {
        return Ok(());
    };
    let probe = "    livenessProbe: { exec: { command: [cat, /tmp/alive] }, periodSeconds: 1, failureThreshold: 1 }\n";
    let pod = script(
        "sick",
        "touch /tmp/alive; sleep 3; rm /tmp/alive; sleep 600",
        probe,
    );
    cluster.apply(&pod.replace("restartPolicy: Never", "restartPolicy: Always"))?;
    eventually("a restart", POD_LIMIT, || {
        let status = &cluster.get(&["pod", "sick"])?["status"]["containerStatuses"][0];
        Ok((status["restartCount"].as_i64() >= Some(1), status.to_string()))
    })?;
    cluster.finish()
}

#[test]
fn a_deleted_pod_leaves_nothing_on_the_node() -> Result<()> {
    let Some(cluster) = with_node("deleted")? else {
        return Ok(());
    };
    deploy_web(&cluster)?;
    cluster.kubectl(&["delete", "deployment", "web"])?.ok()?;
    eventually("no containers", POD_LIMIT, || {
        let containers = ctr(&cluster, &["containers", "list", "--quiet"])?.ok()?;
        let pods = cluster.kubectl(&["get", "pods", "-o", "name"])?.ok()?;
        Ok((
            containers.trim().is_empty() && pods.is_empty(),
            format!("{containers}{pods}"),
        ))
    })?;
    cluster.finish()
}

#[test]
fn restarts_of_kubelet_and_api_server_restart_no_container() -> Result<()> {
    let Some(mut cluster) = with_node("restarts")? else {
        return Ok(());
    };
    deploy_web(&cluster)?;
    let before = running_tasks(&cluster)?;
    for daemon in [Daemon::Kubelet, Daemon::ApiServer, Daemon::Containerd] {
        cluster.stop(daemon)?;
        cluster.restart(daemon)?;
        await_node_ready(&mut cluster)?;
        assert_eq!(
            running_tasks(&cluster)?,
            before,
            "after a restart of {}",
            daemon.name()
        );
    }
    let pods = cluster.get(&["pods"])?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        assert_eq!(
            pod["status"]["containerStatuses"][0]["restartCount"], 0,
            "{}",
            pod["status"]
        );
    }
    cluster.finish()
}
