//! autoscaling/v1 HorizontalPodAutoscaler knows one metric, CPU utilization; the rest of a v2 object rides in annotations, as upstream writes them.

use apimachinery::json;
use apimachinery::value::Value;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

pub fn v1_to_v2(hpa: &mut Value) {
    let mut metrics = Vec::new();
    if let Some(percent) = hpa.remove_at("spec.targetCPUUtilizationPercentage") {
        metrics.push(cpu_metric("target", "averageUtilization", percent));
    }
    metrics.extend(take_annotation(hpa, METRICS).and_then(list));
    let metrics: Vec<Value> = flatten(metrics);
    if !metrics.is_empty() {
        hpa.set_at("spec.metrics", Value::List(metrics));
    }
    let mut current = Vec::new();
    if let Some(percent) = hpa.remove_at("status.currentCPUUtilizationPercentage") {
        current.push(cpu_metric("current", "averageUtilization", percent));
    }
    current.extend(take_annotation(hpa, CURRENT_METRICS).and_then(list));
    let current = flatten(current);
    hpa.set_at(
        "status.currentMetrics",
        if current.is_empty() {
            Value::Null
        } else {
            Value::List(current)
        },
    );
    if let Some(conditions) = take_annotation(hpa, CONDITIONS) {
        hpa.set_at("status.conditions", conditions);
    }
    if let Some(behavior) = take_annotation(hpa, BEHAVIOR) {
        hpa.set_at("spec.behavior", behavior);
    }
}

pub fn v2_to_v1(hpa: &mut Value) {
    if let Some(metrics) = hpa.remove_at("spec.metrics") {
        let (cpu, others) = split_cpu(metrics, "target");
        if let Some(percent) = cpu {
            hpa.set_at("spec.targetCPUUtilizationPercentage", percent);
        }
        put_annotation(hpa, METRICS, others);
    }
    if let Some(metrics) = hpa.remove_at("status.currentMetrics") {
        let (cpu, others) = split_cpu(metrics, "current");
        if let Some(percent) = cpu {
            hpa.set_at("status.currentCPUUtilizationPercentage", percent);
        }
        put_annotation(hpa, CURRENT_METRICS, others);
    }
    let conditions = hpa.remove_at("status.conditions").filter(|c| !c.is_zero());
    put_annotation(hpa, CONDITIONS, conditions);
    let behavior = hpa.remove_at("spec.behavior").filter(|b| !b.is_zero());
    put_annotation(hpa, BEHAVIOR, behavior);
}

fn cpu_metric(side: &'static str, field: &'static str, percent: Value) -> Value {
    let mut metric = Value::from([("type", "Resource".into())]);
    metric.set_at("resource.name", "cpu");
    if side == "target" {
        metric.set_at("resource.target.type", "Utilization");
    }
    metric.object_mut_at("resource").entry(side).set(field, percent);
    metric
}

/// The first CPU utilization metric's percentage, and a list of all others.
fn split_cpu(metrics: Value, side: &str) -> (Option<Value>, Option<Value>) {
    let Value::List(metrics) = metrics else {
        return (None, None);
    };
    let mut cpu = None;
    let mut others = Vec::new();
    for metric in metrics {
        let path = format!("resource.{side}.averageUtilization");
        let percent = metric
            .at(&path)
            .cloned()
            .filter(|_| metric.str_at("resource.name") == "cpu" && metric.str_at("type") == "Resource");
        match percent.filter(|_| cpu.is_none()) {
            Some(percent) => cpu = Some(percent),
            None => others.push(metric),
        }
    }
    (cpu, (!others.is_empty()).then_some(Value::List(others)))
}

fn list(value: Value) -> Option<Value> {
    matches!(value, Value::List(_)).then_some(value)
}

fn flatten(values: Vec<Value>) -> Vec<Value> {
    values
        .into_iter()
        .flat_map(|v| match v {
            Value::List(items) => items,
            one => vec![one],
        })
        .collect()
}

fn take_annotation(hpa: &mut Value, name: &str) -> Option<Value> {
    let annotations = hpa.at_mut("metadata.annotations")?;
    let text = annotations.remove(name)?;
    if annotations.is_zero() {
        hpa.remove_at("metadata.annotations");
    }
    json::decode_untyped(text.as_str()?.as_bytes()).ok()
}

fn put_annotation(hpa: &mut Value, name: &'static str, value: Option<Value>) {
    if let Some(value) = value {
        let text = String::from_utf8_lossy(&json::to_vec(&value)).into_owned();
        hpa.object_mut_at("metadata.annotations")
            .insert(name, Value::from(text));
    }
}
