//! Defaults that depend on other fields, one function a struct, named as upstream's `SetDefaults_*`.

use super::{Hook, image_name, mirrors, pod};
use crate::image::put;
use crate::schema::{Shape, Type};
use crate::value::{Object, Value};

/// The hook of a type, by the last three parts of its name.
pub(super) fn of(ty: &Type) -> Option<Hook> {
    let name = ty
        .name
        .strip_prefix("io.k8s.api.")
        .or_else(|| ty.name.split_once(".pkg.apis.").map(|(_, name)| name))?;
    let hook: Hook = match name {
        "core.v1.Container" | "core.v1.EphemeralContainer" => container,
        "core.v1.Volume" => volume,
        "core.v1.Pod" => pod::pod,
        "core.v1.PodSpec" => mirrors::pod_spec,
        "core.v1.PodStatus" => mirrors::pod_status,
        "core.v1.NodeSpec" => mirrors::node_spec,
        "core.v1.ReplicationController" => replication_controller,
        "core.v1.Service" => service,
        "core.v1.PersistentVolume" => persistent_volume,
        "core.v1.Namespace" => namespace,
        "core.v1.NodeStatus" => node_status,
        "core.v1.LimitRangeItem" => limit_range_item,
        "apps.v1.DeploymentStrategy" => deployment_strategy,
        "apps.v1.DaemonSetUpdateStrategy" => daemon_set_update_strategy,
        "apps.v1.StatefulSet" => stateful_set,
        "batch.v1.Job" => job,
        "rbac.v1.Subject" => subject,
        "networking.v1.NetworkPolicySpec" => network_policy_spec,
        "autoscaling.v2.HorizontalPodAutoscalerSpec" => horizontal_pod_autoscaler_spec,
        "apiextensions.v1.CustomResourceDefinition" => custom_resource_definition,
        "resource.v1.ExactDeviceRequest" | "resource.v1beta2.ExactDeviceRequest" => device_count,
        "resource.v1.DeviceSubRequest"
        | "resource.v1beta2.DeviceSubRequest"
        | "resource.v1beta1.DeviceSubRequest" => device_count,
        "resource.v1beta1.DeviceRequest" => device_request,
        _ => return None,
    };
    Some(hook)
}

pub(super) fn str_of<'a>(object: &'a Object, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// True for absent fields and for the zero values that stand for absence.
fn is_unset(object: &Object, name: &str) -> bool {
    object.get(name).is_none_or(Value::is_null)
}

pub(super) fn default(object: &mut Object, ty: &'static Type, name: &'static str, value: impl Into<Value>) {
    if is_unset(object, name) {
        put(object, ty, name, value.into());
    }
}

/// The type of a struct field.
pub(super) fn child_type(ty: &'static Type, name: &str) -> Option<&'static Type> {
    match &ty.field(name)?.shape {
        Shape::Struct(child) => Some(child.get()),
        _ => None,
    }
}

/// Runs `f` on a struct field that is there.
pub(super) fn with_child(
    object: &mut Object,
    ty: &'static Type,
    name: &str,
    f: impl FnOnce(&mut Object, &'static Type),
) {
    if let (Some(Value::Object(child)), Some(child_ty)) = (object.get_mut(name), child_type(ty, name)) {
        f(child, child_ty);
    }
}

/// Runs `f` on each struct of a list field.
pub(super) fn each_item(
    object: &mut Object,
    ty: &'static Type,
    name: &str,
    mut f: impl FnMut(&mut Object, &'static Type),
) {
    let Some(Shape::List(item)) = ty.field(name).map(|field| &field.shape) else {
        return;
    };
    let Shape::Struct(item) = &**item else { return };
    let items = object
        .get_mut(name)
        .and_then(Value::as_list_mut)
        .into_iter()
        .flatten();
    items
        .filter_map(Value::as_object_mut)
        .for_each(|object| f(object, item.get()));
}

fn container(container: &mut Object, ty: &'static Type) {
    let policy = image_name::default_pull_policy(str_of(container, "image"));
    default(container, ty, "imagePullPolicy", policy);
}

fn volume(volume: &mut Object, ty: &'static Type) {
    if volume.keys().all(|key| key == "name") {
        put(volume, ty, "emptyDir", Value::Object(Object::new()));
    }
    with_child(volume, ty, "image", |image, ty| {
        let policy = image_name::default_pull_policy(str_of(image, "reference"));
        default(image, ty, "pullPolicy", policy);
    });
}

/// Selector and labels come from the template.
fn replication_controller(controller: &mut Object, ty: &'static Type) {
    let labels = controller
        .get("spec")
        .and_then(|spec| spec.at("template.metadata.labels"))
        .cloned();
    let Some(labels) = labels else { return };
    with_child(controller, ty, "spec", |spec, ty| {
        default(spec, ty, "selector", labels.clone())
    });
    with_child(controller, ty, "metadata", |metadata, ty| {
        default(metadata, ty, "labels", labels)
    });
}

fn service(service: &mut Object, ty: &'static Type) {
    let mut kind = String::new();
    with_child(service, ty, "spec", |spec, ty| {
        service_spec(spec, ty);
        kind = str_of(spec, "type").to_owned();
    });
    if kind != "LoadBalancer" {
        return;
    }
    with_child(service, ty, "status", |status, ty| {
        with_child(status, ty, "loadBalancer", |balancer, ty| {
            each_item(balancer, ty, "ingress", |ingress, ty| {
                if !str_of(ingress, "ip").is_empty() {
                    default(ingress, ty, "ipMode", "VIP");
                }
            });
        })
    });
}

/// How long a client keeps its endpoint, `ClientIP` affinity: three hours.
const CLIENT_IP_TIMEOUT_SECONDS: i64 = 10_800;

fn service_spec(spec: &mut Object, ty: &'static Type) {
    session_affinity(spec, ty);
    service_ports(spec, ty);
    let kind = str_of(spec, "type").to_owned();
    let has_external_ips = spec
        .get("externalIPs")
        .and_then(Value::as_list)
        .is_some_and(|ips| !ips.is_empty());
    if matches!(kind.as_str(), "LoadBalancer" | "NodePort") || (kind == "ClusterIP" && has_external_ips) {
        default(spec, ty, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "LoadBalancer" | "NodePort" | "ClusterIP") {
        default(spec, ty, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default(spec, ty, "allocateLoadBalancerNodePorts", true);
    }
}

fn session_affinity(spec: &mut Object, ty: &'static Type) {
    match str_of(spec, "sessionAffinity") {
        "None" => drop(spec.remove("sessionAffinityConfig")),
        "ClientIP" => {
            let timeout = spec
                .get("sessionAffinityConfig")
                .and_then(|config| config.int_at("clientIP.timeoutSeconds"));
            if timeout.is_none() {
                let client_ip = Value::from([("timeoutSeconds", CLIENT_IP_TIMEOUT_SECONDS.into())]);
                put(
                    spec,
                    ty,
                    "sessionAffinityConfig",
                    Value::from([("clientIP", client_ip)]),
                );
            }
        }
        _ => {}
    }
}

/// The target port is the port itself.
fn service_ports(spec: &mut Object, ty: &'static Type) {
    each_item(spec, ty, "ports", |port, ty| {
        if port.get("targetPort").is_none_or(Value::is_zero) {
            let number = port.get("port").and_then(Value::as_int).unwrap_or_default();
            put(port, ty, "targetPort", number.into());
        }
    });
}

fn persistent_volume(volume: &mut Object, ty: &'static Type) {
    with_child(volume, ty, "spec", |spec, ty| {
        default(spec, ty, "persistentVolumeReclaimPolicy", "Retain");
        default(spec, ty, "volumeMode", "Filesystem");
    });
}

/// Every namespace carries its name as a label.
fn namespace(namespace: &mut Object, ty: &'static Type) {
    with_child(namespace, ty, "metadata", |metadata, ty| {
        let name = str_of(metadata, "name").to_owned();
        if name.is_empty() {
            return;
        }
        default(metadata, ty, "labels", Object::map());
        if let Some(Value::Object(labels)) = metadata.get_mut("labels") {
            labels.insert("kubernetes.io/metadata.name", name.into());
        }
    });
}

fn node_status(status: &mut Object, ty: &'static Type) {
    if let Some(capacity) = status.get("capacity").cloned() {
        default(status, ty, "allocatable", capacity);
    }
}

/// Containers: the maximum is the default limit, the default limit and the minimum are the default request.
fn limit_range_item(item: &mut Object, ty: &'static Type) {
    if str_of(item, "type") != "Container" {
        return;
    }
    for (into, from) in [
        ("default", "max"),
        ("defaultRequest", "default"),
        ("defaultRequest", "min"),
    ] {
        if let Some(Value::Object(source)) = item.get(from).cloned() {
            merge_missing(item, ty, into, &source);
        }
    }
}

/// Adds to the map field `into` the entries of `source` that it lacks.
pub(super) fn merge_missing(object: &mut Object, ty: &'static Type, into: &'static str, source: &Object) {
    if source.is_empty() {
        return;
    }
    default(object, ty, into, Object::map());
    let Some(Value::Object(target)) = object.get_mut(into) else {
        return;
    };
    for (key, value) in source.iter() {
        if !target.contains_key(key) {
            target.insert(key, value.clone());
        }
    }
}

fn deployment_strategy(strategy: &mut Object, ty: &'static Type) {
    if str_of(strategy, "type") != "RollingUpdate" {
        return;
    }
    default(strategy, ty, "rollingUpdate", Object::new());
    with_child(strategy, ty, "rollingUpdate", |rolling, ty| {
        default(rolling, ty, "maxUnavailable", "25%");
        default(rolling, ty, "maxSurge", "25%");
    });
}

fn daemon_set_update_strategy(strategy: &mut Object, ty: &'static Type) {
    if str_of(strategy, "type") != "RollingUpdate" {
        return;
    }
    default(strategy, ty, "rollingUpdate", Object::new());
    with_child(strategy, ty, "rollingUpdate", |rolling, ty| {
        default(rolling, ty, "maxUnavailable", 1);
        default(rolling, ty, "maxSurge", 0);
    });
}

/// An empty strategy becomes a rolling update; a rolling update that was asked for keeps its missing section missing.
fn stateful_set(set: &mut Object, ty: &'static Type) {
    with_child(set, ty, "spec", |spec, ty| {
        with_child(spec, ty, "updateStrategy", |strategy, ty| {
            if is_unset(strategy, "type") {
                put(strategy, ty, "type", "RollingUpdate".into());
                default(strategy, ty, "rollingUpdate", Object::new());
            }
            if str_of(strategy, "type") == "RollingUpdate" {
                with_child(strategy, ty, "rollingUpdate", |rolling, ty| {
                    default(rolling, ty, "partition", 0)
                });
            }
        });
    });
}

/// Retries before a job has failed.
const BACKOFF_LIMIT: i64 = 6;

fn job(job: &mut Object, ty: &'static Type) {
    let mut labels = None;
    with_child(job, ty, "spec", |spec, ty| {
        job_spec(spec, ty);
        labels = spec
            .get("template")
            .and_then(|template| template.at("metadata.labels"))
            .cloned();
    });
    if let Some(labels) = labels {
        with_child(job, ty, "metadata", |metadata, ty| {
            default(metadata, ty, "labels", labels)
        });
    }
}

fn job_spec(spec: &mut Object, ty: &'static Type) {
    if is_unset(spec, "completions") && is_unset(spec, "parallelism") {
        put(spec, ty, "completions", 1.into());
    }
    default(spec, ty, "parallelism", 1);
    let limit = if is_unset(spec, "backoffLimitPerIndex") {
        BACKOFF_LIMIT
    } else {
        i32::MAX.into()
    };
    default(spec, ty, "backoffLimit", limit);
    default(spec, ty, "completionMode", "NonIndexed");
    default(spec, ty, "suspend", false);
    let replacement = if is_unset(spec, "podFailurePolicy") {
        "TerminatingOrFailed"
    } else {
        "Failed"
    };
    default(spec, ty, "podReplacementPolicy", replacement);
    default(spec, ty, "manualSelector", false);
}

fn subject(subject: &mut Object, ty: &'static Type) {
    if matches!(str_of(subject, "kind"), "User" | "Group") {
        default(subject, ty, "apiGroup", "rbac.authorization.k8s.io");
    }
}

fn network_policy_spec(spec: &mut Object, ty: &'static Type) {
    let mut types = vec!["Ingress"];
    if spec
        .get("egress")
        .and_then(Value::as_list)
        .is_some_and(|egress| !egress.is_empty())
    {
        types.push("Egress");
    }
    default(spec, ty, "policyTypes", types);
}

/// Percent of CPU that an autoscaler without metrics aims at.
const CPU_UTILIZATION: i64 = 80;

fn horizontal_pod_autoscaler_spec(spec: &mut Object, ty: &'static Type) {
    let target = Value::from([
        ("type", "Utilization".into()),
        ("averageUtilization", CPU_UTILIZATION.into()),
    ]);
    let resource = Value::from([("name", "cpu".into()), ("target", target)]);
    default(
        spec,
        ty,
        "metrics",
        vec![Value::from([("type", "Resource".into()), ("resource", resource)])],
    );
    with_child(spec, ty, "behavior", |behavior, ty| {
        let up = [("Pods", 4), ("Percent", 100)];
        scaling_rules(behavior, ty, "scaleUp", Some(0), &up);
        scaling_rules(behavior, ty, "scaleDown", None, &[("Percent", 100)]);
    });
}

fn scaling_rules(
    behavior: &mut Object,
    ty: &'static Type,
    name: &'static str,
    window: Option<i64>,
    policies: &[(&str, i64)],
) {
    let policies: Vec<Value> = policies
        .iter()
        .map(|&(kind, value)| scaling_policy(kind, value))
        .collect();
    default(behavior, ty, name, Object::new());
    with_child(behavior, ty, name, |rules, ty| {
        if let Some(window) = window {
            default(rules, ty, "stabilizationWindowSeconds", window);
        }
        default(rules, ty, "selectPolicy", "Max");
        default(rules, ty, "policies", policies);
    });
}

fn scaling_policy(kind: &str, value: i64) -> Value {
    const PERIOD_SECONDS: i64 = 15;
    Value::from([
        ("type", kind.into()),
        ("value", value.into()),
        ("periodSeconds", PERIOD_SECONDS.into()),
    ])
}

fn custom_resource_definition(definition: &mut Object, ty: &'static Type) {
    let mut stored = None;
    with_child(definition, ty, "spec", |spec, ty| {
        with_child(spec, ty, "names", resource_names);
        default(spec, ty, "conversion", Value::from([("strategy", "None".into())]));
        let versions = spec.get("versions").and_then(Value::as_list).unwrap_or_default();
        stored = versions
            .iter()
            .find(|version| version.bool_at("storage"))
            .map(|version| version.str_at("name").to_owned());
    });
    if let Some(stored) = stored {
        with_child(definition, ty, "status", |status, ty| {
            default(status, ty, "storedVersions", vec![stored])
        });
    }
}

fn resource_names(names: &mut Object, ty: &'static Type) {
    let kind = str_of(names, "kind").to_owned();
    if kind.is_empty() {
        return;
    }
    default(names, ty, "singular", kind.to_lowercase());
    default(names, ty, "listKind", format!("{kind}List"));
}

fn device_count(request: &mut Object, ty: &'static Type) {
    if str_of(request, "allocationMode") == "ExactCount" {
        default(request, ty, "count", 1);
    }
}

fn device_request(request: &mut Object, ty: &'static Type) {
    if !str_of(request, "deviceClassName").is_empty() {
        default(request, ty, "allocationMode", "ExactCount");
        device_count(request, ty);
    }
}
