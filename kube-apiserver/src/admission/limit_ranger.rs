//! LimitRanger: a namespace's LimitRanges give containers their defaults and bounds.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::quantity::Quantity;
use apimachinery::value::{Object, Value};

use super::objects::Objects;
use super::{Operation, Plugin, Seams, Verdict, forbidden, is_main};
use crate::registry::admission::Attributes;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub struct LimitRanger {
    objects: Arc<dyn Objects>,
}

impl LimitRanger {
    pub fn new(seams: &Seams) -> Self {
        LimitRanger {
            objects: seams.objects.clone(),
        }
    }

    /// The `spec.limits` of every LimitRange of the namespace, by name.
    fn limits(&self, namespace: &str) -> Vec<Vec<Value>> {
        let ranges = self.objects.list_namespace("", "limitranges", namespace);
        ranges
            .iter()
            .map(|r| r.value().list_at("spec.limits").to_vec())
            .collect()
    }
}

impl Plugin for LimitRanger {
    fn operations(&self) -> &'static [Operation] {
        &[Operation::Create, Operation::Update]
    }

    fn admit(&self, a: &mut Attributes) -> Verdict {
        if a.operation != Operation::Create || !is_main(a, "", "pods") {
            return Ok(());
        }
        for limits in self.limits(&a.namespace) {
            if let Some(pod) = &mut a.object {
                set_defaults(pod, &limits);
            }
        }
        Ok(())
    }

    fn validate(&self, a: &Attributes) -> Verdict {
        let (pod, claim) = (is_main(a, "", "pods"), is_main(a, "", "persistentvolumeclaims"));
        let resize = a.is_resource("", "pods") && a.subresource == "resize";
        let applies = resize || claim || (pod && a.operation == Operation::Create);
        let Some(object) = a
            .object
            .as_ref()
            .filter(|_| applies && !a.old.as_ref().is_some_and(|o| o.deleting))
        else {
            return Ok(());
        };
        for limits in self.limits(&a.namespace) {
            let mut errors = Vec::new();
            for limit in &limits {
                match limit.str_at("type") {
                    "PersistentVolumeClaim" if claim => check_claim(object, limit, &mut errors),
                    "Container" if !claim => check_containers(object, limit, &mut errors),
                    "Pod" if !claim => check(&pod_total(object), limit, &mut errors),
                    _ => {}
                }
            }
            match errors.len() {
                0 => {}
                1 => return Err(forbidden(a, errors.remove(0))),
                _ => return Err(forbidden(a, format!("[{}]", errors.join(", ")))),
            }
        }
        Ok(())
    }
}

fn set_defaults(pod: &mut Value, limits: &[Value]) {
    let mut notes = Vec::new();
    for (list, word) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod
            .get_mut("spec")
            .and_then(|s| s.get_mut(list))
            .and_then(Value::as_list_mut);
        for container in containers.into_iter().flatten() {
            for (kind, source, what) in [
                ("requests", "defaultRequest", "request"),
                ("limits", "default", "limit"),
            ] {
                let set = add_missing(container, kind, source, limits);
                if !set.is_empty() {
                    notes.push(format!(
                        "{} {what} for {word} {}",
                        set.join(", "),
                        container.str_at("name")
                    ));
                }
            }
        }
    }
    if !notes.is_empty() {
        pod.object_mut_at("metadata.annotations").insert(
            ANNOTATION,
            format!("LimitRanger plugin set: {}", notes.join("; ")).into(),
        );
    }
}

/// The names of the resources that were given a default.
fn add_missing(container: &mut Value, kind: &str, source: &str, limits: &[Value]) -> Vec<String> {
    let mut defaults: BTreeMap<String, Value> = BTreeMap::new();
    for limit in limits.iter().filter(|l| l.str_at("type") == "Container") {
        let given = limit.get(source).and_then(Value::as_object);
        defaults.extend(
            given
                .into_iter()
                .flat_map(|d| d.iter())
                .map(|(k, v)| (k.to_owned(), v.clone())),
        );
    }
    let path = format!("resources.{kind}");
    let missing: Vec<(String, Value)> = defaults
        .into_iter()
        .filter(|(name, _)| container.at(&path).and_then(|r| r.get(name)).is_none())
        .collect();
    for (name, value) in &missing {
        container
            .object_mut_at(&path)
            .insert(name.as_str(), value.clone());
    }
    missing.into_iter().map(|(name, _)| name).collect()
}

/// Milli-units by resource name.
type Amounts = BTreeMap<String, i128>;

#[derive(Default)]
struct Usage {
    requests: Amounts,
    limits: Amounts,
}

impl Usage {
    fn of(holder: &Value) -> Usage {
        Usage {
            requests: amounts(holder.at("resources.requests")),
            limits: amounts(holder.at("resources.limits")),
        }
    }

    fn add(&mut self, other: &Usage) {
        for (mine, theirs) in [
            (&mut self.requests, &other.requests),
            (&mut self.limits, &other.limits),
        ] {
            theirs
                .iter()
                .for_each(|(name, amount)| *mine.entry(name.clone()).or_default() += amount);
        }
    }

    fn raise_to(&mut self, other: &Usage) {
        for (mine, theirs) in [
            (&mut self.requests, &other.requests),
            (&mut self.limits, &other.limits),
        ] {
            for (name, amount) in theirs {
                let slot = mine.entry(name.clone()).or_default();
                *slot = (*slot).max(*amount);
            }
        }
    }
}

fn amounts(list: Option<&Value>) -> Amounts {
    list.and_then(Value::as_object)
        .into_iter()
        .flat_map(|l| l.iter())
        .filter_map(|(name, v)| Some((name.to_owned(), milli(v.as_str()?)?)))
        .collect()
}

/// Exact where it fits; whole units times a thousand where milli would overflow.
fn milli(text: &str) -> Option<i128> {
    const MAX_EXACT: i64 = i64::MAX / 1000;
    let quantity = Quantity::parse(text).ok()?;
    let whole = quantity.value();
    Some(if whole <= MAX_EXACT {
        i128::from(quantity.milli_value())
    } else {
        i128::from(whole) * 1000
    })
}

/// Containers together, or the largest init container with the sidecars started before it.
fn pod_total(pod: &Value) -> Usage {
    let (mut total, mut sidecars, mut init) = (Usage::default(), Usage::default(), Usage::default());
    pod.list_at("spec.containers")
        .iter()
        .for_each(|c| total.add(&Usage::of(c)));
    for container in pod.list_at("spec.initContainers") {
        let usage = Usage::of(container);
        if container.str_at("restartPolicy") == "Always" {
            total.add(&usage);
            sidecars.add(&usage);
            init.raise_to(&sidecars);
        } else {
            let mut at_once = usage;
            at_once.add(&sidecars);
            init.raise_to(&at_once);
        }
    }
    total.raise_to(&init);
    let of_pod = Usage::of(pod.get("spec").unwrap_or(&Value::Null));
    total.requests.extend(of_pod.requests);
    total.limits.extend(of_pod.limits);
    total
}

fn check_containers(pod: &Value, limit: &Value, errors: &mut Vec<String>) {
    for container in pod
        .list_at("spec.containers")
        .iter()
        .chain(pod.list_at("spec.initContainers"))
    {
        check(&Usage::of(container), limit, errors);
    }
}

fn entries<'a>(limit: &'a Value, key: &str) -> Vec<(&'a str, &'a str, i128)> {
    let map = limit.get(key).and_then(Value::as_object).map(Object::iter);
    map.into_iter()
        .flatten()
        .filter_map(|(name, v)| Some((name, v.as_str()?, milli(v.as_str()?)?)))
        .collect()
}

fn check(usage: &Usage, limit: &Value, errors: &mut Vec<String>) {
    let kind = limit.str_at("type");
    for (name, text, min) in entries(limit, "min") {
        errors.extend(minimum(kind, name, text, min, usage));
    }
    for (name, text, max) in entries(limit, "max") {
        errors.extend(maximum(kind, name, text, max, usage));
    }
    for (name, text, ratio) in entries(limit, "maxLimitRequestRatio") {
        errors.extend(max_ratio(kind, name, text, ratio, usage));
    }
}

fn minimum(kind: &str, name: &str, text: &str, min: i128, usage: &Usage) -> Option<String> {
    let start = format!("minimum {name} usage per {kind} is {text}");
    match (usage.requests.get(name), usage.limits.get(name)) {
        (None, _) => Some(format!("{start}.  No request is specified")),
        (Some(request), _) if *request < min => {
            Some(format!("{start}, but request is {}", show(name, *request)))
        }
        (_, Some(limit)) if *limit < min => Some(format!("{start}, but limit is {}", show(name, *limit))),
        _ => None,
    }
}

fn maximum(kind: &str, name: &str, text: &str, max: i128, usage: &Usage) -> Option<String> {
    let start = format!("maximum {name} usage per {kind} is {text}");
    match (usage.requests.get(name), usage.limits.get(name)) {
        (_, None) => Some(format!("{start}.  No limit is specified")),
        (_, Some(limit)) if *limit > max => Some(format!("{start}, but limit is {}", show(name, *limit))),
        (Some(request), _) if *request > max => {
            Some(format!("{start}, but request is {}", show(name, *request)))
        }
        _ => None,
    }
}

fn max_ratio(kind: &str, name: &str, text: &str, max: i128, usage: &Usage) -> Option<String> {
    let start = format!("{name} max limit to request ratio per {kind} is {text}");
    let amount = |amounts: &Amounts| amounts.get(name).copied().filter(|a| *a != 0);
    let Some(request) = amount(&usage.requests) else {
        return Some(format!("{start}, but no request is specified or request is 0"));
    };
    let Some(limit) = amount(&usage.limits) else {
        return Some(format!("{start}, but no limit is specified or limit is 0"));
    };
    (limit * 1000 > max * request).then(|| {
        format!(
            "{start}, but provided ratio is {:.6}",
            limit as f64 / request as f64
        )
    })
}

fn check_claim(claim: &Value, limit: &Value, errors: &mut Vec<String>) {
    const KIND: &str = "PersistentVolumeClaim";
    let usage = Usage {
        requests: amounts(claim.at("spec.resources.requests")),
        limits: Amounts::new(),
    };
    for (name, text, min) in entries(limit, "min") {
        errors.extend(minimum(KIND, name, text, min, &usage));
    }
    for (name, text, max) in entries(limit, "max") {
        match usage.requests.get(name) {
            None => errors.push(format!(
                "maximum {name} usage per {KIND} is {text}.  No request is specified"
            )),
            Some(request) if *request > max => errors.push(format!(
                "maximum {name} usage per {KIND} is {text}, but request is {}",
                show(name, *request)
            )),
            Some(_) => {}
        }
    }
}

/// An amount in the form that its resource is usually written in.
fn show(name: &str, milli: i128) -> String {
    const BINARY: [(&str, i128); 4] = [("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    if milli % 1000 != 0 {
        return format!("{milli}m");
    }
    let whole = milli / 1000;
    let unit = BINARY
        .iter()
        .find(|(_, size)| name != "cpu" && whole != 0 && whole % size == 0);
    unit.map_or_else(
        || whole.to_string(),
        |(unit, size)| format!("{}{unit}", whole / size),
    )
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Cluster, message, new_pod, object, seams};
    use super::*;
    use serde_json::json;

    fn plugin(limits: serde_json::Value) -> LimitRanger {
        LimitRanger::new(&seams(Cluster::default().with(
            "v1",
            "LimitRange",
            json!({"metadata": {"namespace": "ns", "name": "l"}, "spec": {"limits": limits}}),
        )))
    }

    fn pod(resources: serde_json::Value) -> Attributes {
        new_pod(json!({"spec": {"containers": [{"name": "c", "resources": resources}]}}))
    }

    #[test]
    fn containers_get_what_they_do_not_say() {
        let plugin = plugin(
            json!([{"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}}]),
        );
        let mut a = pod(json!({"limits": {"cpu": "2"}}));
        plugin.admit(&mut a).expect("admitted");
        let pod = object(&a);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "100m"}})
        );
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container c; memory limit for container c"
        );
    }

    #[test]
    fn bounds_are_checked_with_upstreams_words() {
        let bounds = plugin(
            json!([{"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "2"}}]),
        );
        let refused = |requests: &str, limits: &str| {
            message(bounds.validate(&pod(
                json!({"requests": {"cpu": requests}, "limits": {"cpu": limits}}),
            )))
        };
        assert!(
            bounds
                .validate(&pod(json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1"}})))
                .is_ok()
        );
        assert!(
            refused("50m", "100m").contains("minimum cpu usage per Container is 100m, but request is 50m")
        );
        assert!(refused("1", "2").contains("maximum cpu usage per Container is 1, but limit is 2"));
        assert!(
            refused("200m", "1").contains(
                "cpu max limit to request ratio per Container is 2, but provided ratio is 5.000000"
            )
        );
        assert!(
            message(bounds.validate(&pod(json!({}))))
                .contains("minimum cpu usage per Container is 100m.  No request is specified")
        );
    }

    #[test]
    fn a_pods_total_counts_sidecars_and_the_largest_init_container() {
        let bounds = plugin(json!([{"type": "Pod", "max": {"memory": "1Gi"}}]));
        let memory = |m: &str| json!({"limits": {"memory": m}});
        let pod = |init: serde_json::Value| {
            new_pod(
                json!({"spec": {"containers": [{"name": "a", "resources": memory("600Mi")}], "initContainers": init}}),
            )
        };
        assert!(
            bounds
                .validate(&pod(json!([{"name": "i", "resources": memory("1Gi")}])))
                .is_ok()
        );
        let sidecar = json!([{"name": "s", "restartPolicy": "Always", "resources": memory("600Mi")}]);
        assert!(
            message(bounds.validate(&pod(sidecar)))
                .contains("maximum memory usage per Pod is 1Gi, but limit is 1200Mi")
        );
    }
}
