use super::*;
use client::fake::FakeServer;

struct World {
    server: FakeServer,
    controller: Lifecycle,
}

async fn node(server: &FakeServer, name: &str, ready: &str) -> Node {
    let value = json!({"metadata": {"name": name}, "spec": {}, "status": {"conditions": [
        {"type": "Ready", "status": ready, "lastHeartbeatTime": "2024-01-01T00:00:00Z"}]}});
    server
        .client()
        .all()
        .create(&serde_json::from_value(value).unwrap())
        .await
        .unwrap()
}

async fn world(nodes: &[(&str, &str)], pods: Vec<serde_json::Value>) -> World {
    let server = FakeServer::new();
    let (health, zones) = (
        Arc::new(Health::default()),
        Arc::new(Zones::new(crate::options::Options::for_tests().node_lifecycle)),
    );
    let mut all = Vec::new();
    for (name, ready) in nodes {
        let node = node(&server, name, ready).await;
        health.saw_node(None, &node);
        zones.saw(&node);
        all.push(node);
    }
    let informer = Informer::new(server.client().all(), Default::default())
        .index(NODE, |p: &Pod| vec![crate::pod::node_name(p).to_owned()]);
    for pod in pods {
        let pod: Pod = server
            .client()
            .namespaced("ns")
            .create(&serde_json::from_value(pod).unwrap())
            .await
            .unwrap();
        informer.store().fill([pod]);
    }
    let controller = Lifecycle {
        reader: server.client(),
        client: server.client(),
        recorder: EventRecorder::new(server.client(), "test", ""),
        options: crate::options::Options::for_tests().node_lifecycle,
        nodes: Store::of(all),
        pods: informer.store(),
        health,
        zones,
    };
    World { server, controller }
}

impl World {
    async fn node(&self, name: &str) -> Node {
        self.server.client().all::<Node>().get(name).await.unwrap()
    }
}

fn taint_names(node: &Node) -> Vec<String> {
    let mut names: Vec<_> = node
        .spec
        .iter()
        .flat_map(|s| s.taints.iter().flatten())
        .map(|t| format!("{}:{}", t.key, t.effect))
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_healthy_node_costs_no_write_and_is_looked_at_when_its_grace_is_over() {
    let world = world(&[("n", "True")], vec![]).await;
    world.server.forget_writes();
    let Requeue::After(delay) = world.controller.reconcile("n").await.unwrap() else {
        panic!("a timer")
    };
    assert!(
        delay > Duration::from_secs(45) && delay < Duration::from_secs(52),
        "{delay:?}"
    );
    let writes: Vec<_> = world
        .server
        .writes()
        .into_iter()
        .filter(|w| !w.contains("events"))
        .collect();
    assert!(writes.is_empty(), "{writes:?}");
}

#[tokio::test]
async fn a_silent_node_becomes_unknown_is_tainted_and_its_pods_are_not_ready() {
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [], "nodeName": "n"},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    let world = world(&[("n", "True"), ("other", "True")], vec![pod]).await;
    world
        .controller
        .health
        .pretend_silence("n", Duration::from_secs(51));
    let mut sick = world.node("n").await;
    sick.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "Unknown".into();
    world.controller.zones.saw(&sick);
    world.controller.reconcile("n").await.unwrap();
    let node = world.node("n").await;
    let ready = health::ready(&node).unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_deref()),
        ("Unknown", Some("NodeStatusUnknown"))
    );
    assert_eq!(
        taint_names(&node),
        [
            "node.kubernetes.io/unreachable:NoExecute",
            "node.kubernetes.io/unreachable:NoSchedule"
        ]
    );
    let pod = world
        .server
        .client()
        .namespaced::<Pod>("ns")
        .get("p")
        .await
        .unwrap();
    assert!(!is_ready(&pod));
}

#[tokio::test]
async fn a_lease_that_our_watch_missed_saves_the_node() {
    let world = world(&[("n", "True")], vec![]).await;
    let lease = json!({"metadata": {"name": "n"}, "spec": {"renewTime": "2024-01-01T00:00:00.000000Z"}});
    world
        .server
        .client()
        .namespaced::<Lease>("kube-node-lease")
        .create(&serde_json::from_value(lease).unwrap())
        .await
        .unwrap();
    world
        .controller
        .health
        .pretend_silence("n", Duration::from_secs(51));
    world.controller.reconcile("n").await.unwrap();
    assert_eq!(ready_status(&world.node("n").await), Some("True"));
}

#[tokio::test]
async fn taints_follow_conditions_and_others_are_left_alone() {
    let mut node: Node = serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": {"unschedulable": true, "taints": [
        {"key": "dedicated", "effect": "NoSchedule"}, {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"}]}}))
    .unwrap();
    let wanted = taints::wanted(&node, taints::Evict::AsReady).unwrap();
    node.spec.as_mut().unwrap().taints = Some(wanted);
    assert_eq!(
        taint_names(&node),
        [
            "dedicated:NoSchedule",
            "node.kubernetes.io/disk-pressure:NoSchedule",
            "node.kubernetes.io/unschedulable:NoSchedule"
        ]
    );
    assert!(taints::wanted(&node, taints::Evict::AsReady).is_none());
}
