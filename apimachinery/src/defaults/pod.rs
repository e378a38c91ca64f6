//! Pods: requests from limits, host ports, and resources of the pod as a whole.

use super::hooks::{default, each_item, merge_missing, with_child};
use crate::image::put;
use crate::quantity::Quantity;
use crate::schema::Type;
use crate::value::{Object, Value};
use std::collections::BTreeMap;

pub(super) fn pod(pod: &mut Object, ty: &'static Type) {
    with_child(pod, ty, "spec", |spec, ty| {
        let host_network = spec
            .get("hostNetwork")
            .and_then(Value::as_bool)
            .unwrap_or_default();
        for name in ["containers", "initContainers"] {
            each_item(spec, ty, name, |container, ty| {
                with_child(container, ty, "resources", requests_from_limits);
                if host_network {
                    each_item(container, ty, "ports", host_port);
                }
            });
        }
        pod_resources(spec, ty);
        // A pod (not a template) that asks for a negative grace period gets the shortest.
        if spec
            .get("terminationGracePeriodSeconds")
            .and_then(Value::as_int)
            .is_some_and(|seconds| seconds < 0)
        {
            put(spec, ty, "terminationGracePeriodSeconds", 1.into());
        }
        default(spec, ty, "enableServiceLinks", true);
    });
}

fn requests_from_limits(resources: &mut Object, ty: &'static Type) {
    if let Some(Value::Object(limits)) = resources.get("limits").cloned() {
        merge_missing(resources, ty, "requests", &limits);
    }
}

fn host_port(port: &mut Object, ty: &'static Type) {
    let number = port
        .get("containerPort")
        .and_then(Value::as_int)
        .unwrap_or_default();
    default(port, ty, "hostPort", number);
}

type Resources = BTreeMap<String, Quantity>;

/// Pod-level resources: huge page limits and requests that are not given come from the containers, then from the limits.
fn pod_resources(spec: &mut Object, ty: &'static Type) {
    let given = |name: &str| {
        spec.get("resources")
            .and_then(|r| r.get(name))
            .and_then(Value::as_object)
            .cloned()
    };
    let (limits, requests) = (
        given("limits").unwrap_or_default(),
        given("requests").unwrap_or_default(),
    );
    if limits.is_empty() && requests.is_empty() {
        return;
    }
    let mut huge = aggregate(spec, "limits");
    huge.retain(|name, _| is_huge_page(name) && !requests.contains_key(name));
    let mut asked = aggregate(spec, "requests");
    asked.retain(|name, _| matches!(name.as_str(), "cpu" | "memory"));
    with_child(spec, ty, "resources", |resources, ty| {
        merge_missing(resources, ty, "limits", &to_object(&huge));
        let Some(Value::Object(limits)) = resources.get("limits").cloned() else {
            return;
        };
        merge_missing(resources, ty, "requests", &to_object(&asked));
        let supported: Object = limits
            .into_iter()
            .filter(|(name, _)| is_supported(name))
            .collect();
        merge_missing(resources, ty, "requests", &supported);
    });
}

fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Resources that a pod as a whole may have.
fn is_supported(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_page(name)
}

/// What the containers need together: their sum, or an init container (beside the sidecars before it) that needs more.
fn aggregate(spec: &Object, kind: &str) -> Resources {
    let mut sum = Resources::new();
    for container in list(spec, "containers") {
        add(&mut sum, &of(container, kind));
    }
    let (mut sidecars, mut peak) = (Resources::new(), Resources::new());
    for container in list(spec, "initContainers") {
        let mut needed = of(container, kind);
        if container.str_at("restartPolicy") == "Always" {
            add(&mut sum, &needed);
            add(&mut sidecars, &needed);
            needed = sidecars.clone();
        } else {
            add(&mut needed, &sidecars);
        }
        raise(&mut peak, needed);
    }
    raise(&mut sum, peak);
    sum
}

fn list<'a>(spec: &'a Object, name: &str) -> &'a [Value] {
    spec.get(name).and_then(Value::as_list).unwrap_or_default()
}

fn of(container: &Value, kind: &str) -> Resources {
    let resources = container
        .get("resources")
        .and_then(|resources| resources.get(kind))
        .and_then(Value::as_object);
    let parsed =
        |(name, value): (&str, &Value)| Some((name.to_owned(), Quantity::parse(value.as_str()?).ok()?));
    resources
        .into_iter()
        .flat_map(Object::iter)
        .filter_map(parsed)
        .collect()
}

fn add(sum: &mut Resources, more: &Resources) {
    for (name, quantity) in more {
        sum.entry(name.clone()).or_insert(Quantity::ZERO).add(quantity);
    }
}

fn raise(peak: &mut Resources, other: Resources) {
    for (name, quantity) in other {
        let own = peak.entry(name).or_insert_with(|| quantity.clone());
        if quantity > *own {
            *own = quantity;
        }
    }
}

fn to_object(resources: &Resources) -> Object {
    resources
        .iter()
        .map(|(name, quantity)| (name.as_str(), Value::from(quantity.to_string())))
        .collect()
}
