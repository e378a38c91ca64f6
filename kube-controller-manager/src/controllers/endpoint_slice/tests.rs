use super::*;
use k8s_openapi::api::discovery::v1::Endpoint;
use serde_json::{Value, json};

fn service(change: Value) -> Service {
    let mut value = json!({"metadata": {"name": "web", "namespace": "ns", "uid": "svc"},
        "spec": {"clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"], "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}});
    for (path, new) in change.as_object().unwrap() {
        *value.pointer_mut(path).unwrap() = new.clone();
    }
    serde_json::from_value(value).unwrap()
}

fn pod(number: usize, ready: bool) -> Arc<Pod> {
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": format!("p{number}"), "namespace": "ns", "uid": format!("u{number}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": format!("10.0.0.{number}"), "podIPs": [{"ip": format!("10.0.0.{number}")}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}}))
        .unwrap(),
    )
}

fn nodes() -> Store<Node> {
    Store::of([serde_json::from_value(
        json!({"metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z"}}}),
    )
    .unwrap()])
}

fn planned(service: &Service, pods: &[Arc<Pod>], existing: Vec<EndpointSlice>) -> Plan {
    let desired = desired::endpoints(service, pods, &nodes());
    packing::plan(
        service,
        desired.groups,
        existing.into_iter().map(Arc::new).collect(),
        100,
    )
}

fn assert_nothing(plan: &Plan) {
    assert_eq!(
        (plan.create.len(), plan.update.len(), plan.delete.len()),
        (0, 0, 0)
    );
}

fn addresses(slice: &EndpointSlice) -> Vec<String> {
    let mut all: Vec<_> = slice
        .endpoints
        .iter()
        .flatten()
        .flat_map(|e: &Endpoint| e.addresses.clone())
        .collect();
    all.sort();
    all
}

#[test]
fn ready_and_unready_pods_are_told_apart_and_named_ports_are_resolved() {
    let plan = planned(&service(json!({})), &[pod(1, true), pod(2, false)], vec![]);
    let [slice] = plan.create.as_slice() else {
        panic!("one slice")
    };
    assert_eq!(addresses(slice), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(slice.ports.as_ref().unwrap()[0].port, Some(8080));
    let ready: Vec<_> = slice
        .endpoints
        .iter()
        .flatten()
        .map(|e| e.conditions.as_ref().unwrap().ready.unwrap())
        .collect();
    assert_eq!(ready, [true, false]);
    assert_eq!(slice.endpoints.as_ref().unwrap()[0].zone.as_deref(), Some("z"));
    assert_eq!(slice.metadata.labels.as_ref().unwrap()[SERVICE_NAME], "web");
}

#[test]
fn a_steady_state_plans_nothing() {
    let (service, pods) = (service(json!({})), [pod(1, true), pod(2, true)]);
    let first = planned(&service, &pods, vec![]).create;
    assert_nothing(&planned(&service, &pods, first));
}

#[test]
fn a_service_without_pods_has_one_empty_slice_which_then_fills() {
    let service = service(json!({}));
    let empty = planned(&service, &[], vec![]).create;
    assert_eq!((empty.len(), empty[0].endpoints.as_ref().unwrap().len()), (1, 0));
    assert_nothing(&planned(&service, &[], empty.clone()));
    let plan = planned(&service, &[pod(1, true)], empty);
    assert_eq!(
        (plan.create.len(), plan.update.len(), plan.delete.len()),
        (0, 1, 0),
        "the placeholder is reused"
    );
}

#[test]
fn a_change_touches_only_the_slice_it_is_in() {
    let service = service(json!({}));
    let pods: Vec<_> = (1..=150).map(|n| pod(n, true)).collect();
    let slices = planned(&service, &pods, vec![]).create;
    assert_eq!(
        slices
            .iter()
            .map(|s| s.endpoints.as_ref().unwrap().len())
            .collect::<Vec<_>>(),
        [100, 50]
    );
    let mut fewer = pods.clone();
    fewer.remove(3);
    let plan = planned(&service, &fewer, slices.clone());
    assert_eq!(
        (plan.create.len(), plan.update.len(), plan.delete.len()),
        (0, 1, 0)
    );
    let mut more = pods;
    more.push(pod(151, true));
    let plan = planned(&service, &more, slices);
    assert_eq!(
        (plan.create.len(), plan.update.len()),
        (0, 1),
        "the newcomer goes where there is room"
    );
}

#[test]
fn terminating_pods_serve_but_are_not_ready() {
    let mut leaving = (*pod(1, true)).clone();
    leaving.metadata.deletion_timestamp = Some(crate::meta::now());
    let plan = planned(&service(json!({})), &[Arc::new(leaving)], vec![]);
    let conditions = plan.create[0].endpoints.as_ref().unwrap()[0]
        .conditions
        .clone()
        .unwrap();
    assert_eq!(
        (conditions.ready, conditions.serving, conditions.terminating),
        (Some(false), Some(true), Some(true))
    );
}

#[test]
fn a_headless_service_marks_its_slices_and_a_pod_on_an_unknown_node_waits() {
    let headless = service(json!({"/spec/clusterIP": "None"}));
    assert!(
        planned(&headless, &[], vec![]).create[0]
            .metadata
            .labels
            .as_ref()
            .unwrap()
            .contains_key("service.kubernetes.io/headless")
    );
    let desired = desired::endpoints(&headless, &[pod(1, true)], &Store::of([]));
    assert_eq!((desired.skipped, desired.groups[0].endpoints.len()), (1, 0));
}

#[test]
fn the_cache_is_stale_until_it_shows_what_was_written() {
    let tracker = Tracker::default();
    let slice = |generation| {
        let value = json!({"metadata": {"name": "s", "uid": "s", "generation": generation}, "addressType": "IPv4", "endpoints": []});
        Arc::new(serde_json::from_value::<EndpointSlice>(value).unwrap())
    };
    tracker.wrote("ns/web", &slice(2));
    assert!(tracker.is_stale("ns/web", &[]));
    assert!(tracker.is_stale("ns/web", &[slice(1)]));
    assert!(!tracker.is_stale("ns/web", &[slice(2)]));
    assert!(!tracker.is_foreign("ns/web", &slice(2)) && tracker.is_foreign("ns/web", &slice(3)));
    tracker.deleted("ns/web", &slice(2));
    assert!(tracker.is_stale("ns/web", &[slice(2)]) && !tracker.is_stale("ns/web", &[]));
    assert!(tracker.saw_deletion("ns/web", &slice(2)));
}
