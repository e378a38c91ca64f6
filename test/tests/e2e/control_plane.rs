//! What a user does with kubectl against a control plane without nodes.

use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{Cluster, Daemon, eventually};

const LIMIT: Duration = Duration::from_secs(30);

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, labels: { app: web } }
spec:
  replicas: 2
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      containers:
      - { name: web, image: 'localhost/ferrokube/demo-web:0.1', ports: [{ containerPort: 8080 }] }
";

fn control_plane(name: &str) -> Result<Cluster> {
    Cluster::builder(name).controller_manager().scheduler().start()
}

#[test]
fn objects_are_created_read_changed_and_deleted() -> Result<()> {
    let cluster = Cluster::builder("crud").start()?;
    cluster
        .kubectl(&["create", "configmap", "c", "--from-literal=a=1"])?
        .ok()?;
    let read = cluster.get(&["configmap", "c"])?;
    assert_eq!(read["data"]["a"], "1");
    let yaml = cluster.kubectl(&["get", "configmap", "c", "-o", "yaml"])?.ok()?;
    assert!(
        yaml.contains("kind: ConfigMap") && yaml.contains("  a: \"1\""),
        "{yaml}"
    );
    cluster
        .kubectl(&[
            "patch",
            "configmap",
            "c",
            "--type=merge",
            "-p",
            r#"{"data":{"b":"2"}}"#,
        ])?
        .ok()?;
    cluster.kubectl(&["label", "configmap", "c", "team=x"])?.ok()?;
    let labelled = cluster.get(&["configmap", "-l", "team=x"])?;
    assert_eq!(labelled["items"][0]["data"]["b"], "2");
    cluster.kubectl(&["delete", "configmap", "c"])?.ok()?;
    let missing = cluster.kubectl(&["get", "configmap", "c"])?.refused()?;
    assert!(
        missing.contains(r#"Error from server (NotFound): configmaps "c" not found"#),
        "{missing}"
    );
    cluster.finish()
}

#[test]
fn apply_creates_then_configures_and_tells_what_is_wrong() -> Result<()> {
    let cluster = Cluster::builder("apply").start()?;
    assert!(cluster.apply(WEB)?.contains("deployment.apps/web created"));
    assert!(cluster.apply(WEB)?.contains("deployment.apps/web unchanged"));
    let more = WEB.replace("replicas: 2", "replicas: 5");
    assert!(cluster.apply(&more)?.contains("deployment.apps/web configured"));
    assert_eq!(cluster.get(&["deployment", "web"])?["spec"]["replicas"], 5);
    let misspelt = WEB.replace("replicas:", "replikas:");
    let refused = cluster.kubectl_with(&["apply"], Some(&misspelt))?.refused()?;
    assert!(refused.contains("unknown field \"spec.replikas\""), "{refused}");
    let invalid = WEB.replace("name: web, labels", "name: Web_1, labels");
    let refused = cluster.kubectl_with(&["create"], Some(&invalid))?.refused()?;
    assert!(
        refused.contains("is invalid: metadata.name: Invalid value: \"Web_1\""),
        "{refused}"
    );
    cluster.finish()
}

#[test]
fn a_deployment_makes_pods_that_wait_for_a_node() -> Result<()> {
    let cluster = control_plane("deployment")?;
    cluster.apply(WEB)?;
    await_pods(&cluster, 2)?;
    eventually("pods say why they wait", LIMIT, || {
        let pods = cluster.get(&["pods"])?;
        let condition = &pods["items"][0]["status"]["conditions"][0];
        let told = condition["reason"] == "Unschedulable"
            && condition["message"] == "no nodes available to schedule pods";
        Ok((told, condition.to_string()))
    })?;
    let wide = cluster.kubectl(&["get", "pods", "-o", "wide"])?.ok()?;
    assert!(
        wide.contains("NOMINATED NODE") && wide.contains("Pending"),
        "{wide}"
    );
    let described = cluster.kubectl(&["describe", "deployment", "web"])?.ok()?;
    assert!(described.contains("NewReplicaSet:"), "{described}");
    let pod = cluster.kubectl(&["describe", "pods"])?.ok()?;
    assert!(pod.contains("FailedScheduling"), "{pod}");
    cluster.finish()
}

#[test]
fn a_deployment_scales_changes_its_image_and_takes_its_pods_along() -> Result<()> {
    let cluster = control_plane("scale")?;
    cluster.apply(WEB)?;
    await_pods(&cluster, 2)?;
    cluster
        .kubectl(&["scale", "deployment", "web", "--replicas=4"])?
        .ok()?;
    await_pods(&cluster, 4)?;
    cluster
        .kubectl(&[
            "set",
            "image",
            "deployment/web",
            "web=localhost/ferrokube/demo-web:0.2",
        ])?
        .ok()?;
    eventually("a second replica set", LIMIT, || {
        let sets = cluster.get(&["replicasets"])?;
        let count = sets["items"].as_array().map_or(0, Vec::len);
        Ok((count == 2, format!("{count} replica sets")))
    })?;
    cluster
        .kubectl(&["delete", "deployment", "web", "--wait=false"])?
        .ok()?;
    await_pods(&cluster, 0)?;
    cluster.finish()
}

#[test]
fn a_new_namespace_gets_its_service_account_and_root_certificate_and_goes_away_whole() -> Result<()> {
    let cluster = control_plane("namespace")?;
    cluster.kubectl(&["create", "namespace", "team"])?.ok()?;
    let wanted = ["serviceaccount/default", "configmap/kube-root-ca.crt"];
    eventually("namespace content", LIMIT, || {
        let missing: Vec<&str> = wanted
            .into_iter()
            .filter(|o| cluster.get(&["-n", "team", o]).is_err())
            .collect();
        Ok((missing.is_empty(), format!("missing {missing:?}")))
    })?;
    cluster
        .kubectl(&["-n", "team", "create", "configmap", "c"])?
        .ok()?;
    cluster
        .kubectl(&["delete", "namespace", "team", "--timeout=30s"])?
        .ok()?;
    let gone = cluster
        .etcdctl(&["get", "/registry/configmaps/team/", "--prefix", "--keys-only"])?
        .ok()?;
    assert_eq!(gone.trim(), "");
    cluster.finish()
}

#[test]
fn etcd_holds_upstreams_keys() -> Result<()> {
    let cluster = Cluster::builder("keys").start()?;
    cluster
        .kubectl(&["create", "configmap", "c", "--from-literal=a=1"])?
        .ok()?;
    cluster.apply("{ apiVersion: v1, kind: Node, metadata: { name: n1 } }")?;
    cluster.apply(
        "{ apiVersion: v1, kind: Pod, metadata: { name: p }, spec: { containers: [{ name: c, image: x }], \
         automountServiceAccountToken: false, serviceAccountName: none } }",
    )
    .or_else(|_| cluster.kubectl(&["create", "serviceaccount", "default"])?.ok())?;
    let keys = cluster
        .etcdctl(&["get", "/registry", "--prefix", "--keys-only"])?
        .ok()?;
    for wanted in [
        "/registry/configmaps/default/c",
        "/registry/minions/n1",
        "/registry/namespaces/kube-system",
        "/registry/services/specs/default/kubernetes",
        "/registry/clusterroles/cluster-admin",
    ] {
        assert!(
            keys.lines().any(|k| k == wanted),
            "{wanted} is missing in\n{keys}"
        );
    }
    let value = cluster
        .etcdctl(&["get", "/registry/configmaps/default/c", "--print-value-only"])?
        .ok()?;
    assert!(value.starts_with("k8s"), "{value}");
    cluster.finish()
}

#[test]
fn rbac_decides_who_may_what() -> Result<()> {
    let cluster = Cluster::builder("rbac").start()?;
    assert_eq!(cluster.kubectl(&["auth", "can-i", "*", "*"])?.ok()?.trim(), "yes");
    let may = |verb: &str, kind: &str| -> Result<String> {
        let answer = cluster.kubectl(&["auth", "can-i", verb, kind, "--as=jane"])?;
        Ok(answer.stdout.trim().to_owned())
    };
    assert_eq!(may("list", "pods")?, "no");
    cluster
        .kubectl(&["create", "role", "reader", "--verb=get,list", "--resource=pods"])?
        .ok()?;
    cluster
        .kubectl(&["create", "rolebinding", "jane", "--role=reader", "--user=jane"])?
        .ok()?;
    eventually("the binding counts", LIMIT, || {
        let answer = may("list", "pods")?;
        Ok((answer == "yes", answer))
    })?;
    assert_eq!(may("delete", "pods")?, "no");
    let forbidden = cluster.kubectl(&["get", "secrets", "--as=jane"])?.refused()?;
    assert!(
        forbidden.contains(
            r#"secrets is forbidden: User "jane" cannot list resource "secrets" in API group "" in the namespace "default""#
        ),
        "{forbidden}"
    );
    cluster.finish()
}

#[test]
fn readyz_is_verbose_and_discovery_lists_what_is_served() -> Result<()> {
    let cluster = Cluster::builder("discovery").start()?;
    let ready = cluster.kubectl(&["get", "--raw", "/readyz?verbose"])?.ok()?;
    assert!(
        ready.contains("[+]etcd ok") && ready.contains("readyz check passed"),
        "{ready}"
    );
    let resources = cluster.kubectl(&["api-resources", "--no-headers"])?.ok()?;
    for wanted in ["pods ", "deployments ", "endpointslices ", "clusterroles "] {
        assert!(
            resources.lines().any(|l| l.starts_with(wanted)),
            "{wanted} is missing in\n{resources}"
        );
    }
    let version = cluster.kubectl(&["version", "-o", "json"])?.json()?;
    assert_eq!(version["serverVersion"]["minor"], "36");
    let explained = cluster.kubectl(&["explain", "pod.spec.nodeName"])?.ok()?;
    assert!(explained.contains("nodeName"), "{explained}");
    cluster.finish()
}

#[test]
fn a_watch_tells_every_change_once_or_says_that_it_cannot() -> Result<()> {
    let mut cluster = Cluster::builder("watch").start()?;
    let start = list_version(&cluster)?;
    create_some(&cluster, "first")?;
    assert_eq!(told_by_watch(&cluster, &start, "first")?, Told::All);
    let middle = list_version(&cluster)?;
    create_some(&cluster, "before")?;
    cluster.kill(Daemon::ApiServer)?;
    cluster.restart(Daemon::ApiServer)?;
    // A server that has just started may not remember; then the client must be told to list again.
    assert_ne!(told_by_watch(&cluster, &middle, "before")?, Told::Some);
    let end = list_version(&cluster)?;
    create_some(&cluster, "after")?;
    assert_eq!(told_by_watch(&cluster, &end, "after")?, Told::All);
    cluster.finish()
}

pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[derive(Debug, PartialEq)]
enum Told {
    All,
    /// Loss or repetition without a word.
    Some,
    Expired,
}

pub fn list_version(cluster: &Cluster) -> Result<String> {
    let list = cluster.kubectl(&["get", "--raw", CONFIG_MAPS])?.json()?;
    Ok(list["metadata"]["resourceVersion"]
        .as_str()
        .context("a version")?
        .to_owned())
}

fn create_some(cluster: &Cluster, prefix: &str) -> Result<()> {
    for n in 0..5 {
        cluster
            .kubectl(&["create", "configmap", &format!("{prefix}-{n}")])?
            .ok()?;
    }
    Ok(())
}

fn told_by_watch(cluster: &Cluster, from: &str, prefix: &str) -> Result<Told> {
    let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={from}&timeoutSeconds=2");
    let events = cluster.kubectl(&["get", "--raw", &path])?.ok()?;
    if events.contains("\"Expired\"") {
        return Ok(Told::Expired);
    }
    let added = |name: &str| {
        let line = |l: &&str| l.contains("\"ADDED\"") && l.contains(&format!("\"{name}\""));
        events.lines().filter(line).count()
    };
    let once = (0..5).all(|n| added(&format!("{prefix}-{n}")) == 1);
    Ok(if once { Told::All } else { Told::Some })
}

fn await_pods(cluster: &Cluster, wanted: usize) -> Result<()> {
    eventually(&format!("{wanted} pods"), LIMIT, || {
        let pods = cluster.get(&["pods", "-l", "app=web"])?;
        let count = pods["items"].as_array().map_or(0, Vec::len);
        Ok((count == wanted, format!("{count} pods")))
    })
}
