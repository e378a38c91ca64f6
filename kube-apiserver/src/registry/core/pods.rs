//! Pods: born Pending with their QoS class, deleted gracefully, and changed after creation in very few fields.

use apimachinery::field::{self, ErrorList, Path};
use apimachinery::meta::Meta;
use apimachinery::quantity::Quantity;
use apimachinery::validation;
use apimachinery::value::Value;

use crate::registry::store::{DeleteOptions, keep, split_by_status};
use crate::registry::strategy::{Request, Strategy};

pub mod spec;
mod update;

pub struct PodStrategy {
    pub allow_privileged: bool,
}

const SPEC: Path<'static> = Path::new("spec");

impl Strategy for PodStrategy {
    fn validates_required_fields(&self) -> bool {
        true
    }

    fn prepare_create(&self, request: &Request<'_>, pod: &mut Value) {
        let qos = qos_class(pod);
        pod.set_at("status.phase", "Pending");
        if !pod.list_at("spec.schedulingGates").is_empty() {
            pod.list_mut_at("status.conditions").push(gated(request.now));
        }
        pod.set_at("status.qosClass", qos);
    }

    fn split(&self, request: &Request<'_>, new: &mut Value, old: &Value) {
        match request.subresource {
            "status" => keep_spec(new, old),
            "ephemeralcontainers" => keep_all_but(new, old, "spec.ephemeralContainers"),
            "resize" => keep_all_but(new, old, "spec.containers"),
            _ => split_by_status(request, new, old),
        }
    }

    fn validate_create(&self, _: &Request<'_>, pod: &Value) -> ErrorList {
        spec::validate(
            pod.get("spec").unwrap_or(&Value::Null),
            &SPEC,
            &spec::Rules {
                allow_privileged: self.allow_privileged,
                ephemeral: false,
            },
        )
    }

    fn validate_update(&self, request: &Request<'_>, new: &Value, old: &Value) -> ErrorList {
        match request.subresource {
            "" => update::validate(new, old),
            "ephemeralcontainers" => update::validate_ephemeral(new, old),
            "resize" => update::validate_resize(new, old),
            _ => ErrorList::new(),
        }
    }

    fn warnings(&self, pod: &Value) -> Vec<String> {
        let messages = validation::dns1123_label(pod.name());
        if messages.is_empty() {
            return Vec::new();
        }
        let list = messages.join(" ");
        vec![format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{list}]"
        )]
    }

    fn grace_period(&self, pod: &Value, options: &mut DeleteOptions) -> Option<i64> {
        let wanted = options
            .grace_period_seconds
            .or_else(|| pod.int_at("spec.terminationGracePeriodSeconds"))
            .unwrap_or(0);
        let runs = !pod.str_at("spec.nodeName").is_empty()
            && !matches!(pod.str_at("status.phase"), "Failed" | "Succeeded");
        let period = match (runs, wanted) {
            (false, _) => 0,
            (true, negative) if negative < 0 => 1,
            (true, wanted) => wanted,
        };
        options.grace_period_seconds = Some(period);
        Some(period)
    }
}

/// A status update may not touch the spec, nor owners: old kubelets corrupted them in a way that broke garbage collection.
fn keep_spec(new: &mut Value, old: &Value) {
    keep(new, old, "spec");
    match old.at("metadata.ownerReferences") {
        Some(owners) => new.set_at("metadata.ownerReferences", owners.clone()),
        None => drop(new.remove_at("metadata.ownerReferences")),
    }
    if new.str_at("status.qosClass").is_empty() && !old.str_at("status.qosClass").is_empty() {
        new.set_at("status.qosClass", old.str_at("status.qosClass").to_owned());
    }
}

fn keep_all_but(new: &mut Value, old: &Value, path: &str) {
    let wanted = new.at(path).cloned();
    let version = new.resource_version().to_owned();
    *new = old.clone();
    new.metadata_mut().insert("resourceVersion", Value::from(version));
    match wanted {
        Some(wanted) => new.set_at(path, wanted),
        None => drop(new.remove_at(path)),
    }
}

fn gated(now: i64) -> Value {
    Value::from([
        ("type", "PodScheduled".into()),
        ("status", "False".into()),
        ("lastProbeTime", Value::Null),
        ("lastTransitionTime", crate::clock::rfc3339(now).into()),
        ("reason", "SchedulingGated".into()),
        (
            "message",
            "Scheduling is blocked due to non-empty scheduling gates".into(),
        ),
    ])
}

/// Guaranteed: every container limits CPU and memory and requests just that. BestEffort: none asks for anything.
fn qos_class(pod: &Value) -> &'static str {
    if let Some(resources) = pod.at("spec.resources").filter(|r| !r.is_zero()) {
        return class_of(std::iter::once(resources));
    }
    let containers = pod
        .list_at("spec.containers")
        .iter()
        .chain(pod.list_at("spec.initContainers"));
    class_of(containers.map(|c| c.get("resources").unwrap_or(&Value::Null)))
}

fn class_of<'a>(all: impl Iterator<Item = &'a Value>) -> &'static str {
    let (mut guaranteed, mut asks) = (true, false);
    for resources in all {
        for resource in ["cpu", "memory"] {
            let request = amount(resources, "requests", resource);
            let limit = amount(resources, "limits", resource);
            asks |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.as_ref().is_none_or(|r| limit.as_ref() == Some(r));
        }
    }
    match (asks, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn amount(resources: &Value, side: &str, resource: &str) -> Option<Quantity> {
    let text = resources.get(side)?.get(resource)?.as_str()?;
    Quantity::parse(text).ok().filter(|q| !q.is_zero())
}

/// Pod templates of workloads.
pub fn validate_template(
    template: Option<&Value>,
    path: &Path<'_>,
    restart_policies: &[&str],
    allow_privileged: bool,
) -> ErrorList {
    let Some(template) = template else {
        return vec![field::required(path, "")];
    };
    let mut errors = ErrorList::new();
    crate::registry::store::meta::validate_labels(
        template.labels(),
        &path.child("metadata").child("labels"),
        &mut errors,
    );
    let spec_path = path.child("spec");
    let spec = template.get("spec").unwrap_or(&Value::Null);
    errors.extend(spec::validate(
        spec,
        &spec_path,
        &spec::Rules {
            allow_privileged,
            ephemeral: false,
        },
    ));
    let policy = spec.str_at("restartPolicy");
    if !policy.is_empty() && !restart_policies.contains(&policy) {
        errors.push(field::not_supported(
            &spec_path.child("restartPolicy"),
            policy,
            restart_policies,
        ));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json::decode_untyped;

    fn pod(resources: &str) -> Value {
        decode_untyped(
            format!(r#"{{"spec":{{"containers":[{{"name":"c","resources":{resources}}}]}}}}"#).as_bytes(),
        )
        .unwrap()
    }

    #[test]
    fn qos_follows_requests_and_limits() {
        assert_eq!(qos_class(&pod("{}")), "BestEffort");
        assert_eq!(qos_class(&pod(r#"{"requests":{"cpu":"1"}}"#)), "Burstable");
        assert_eq!(
            qos_class(&pod(r#"{"limits":{"cpu":"1","memory":"1Gi"}}"#)),
            "Guaranteed"
        );
        assert_eq!(
            qos_class(&pod(
                r#"{"limits":{"cpu":"1","memory":"1Gi"},"requests":{"cpu":"500m"}}"#
            )),
            "Burstable"
        );
    }

    #[test]
    fn grace_applies_to_running_pods_only() {
        let strategy = PodStrategy {
            allow_privileged: false,
        };
        let mut pod = pod("{}");
        pod.set_at("spec.terminationGracePeriodSeconds", 30i64);
        assert_eq!(
            strategy.grace_period(&pod, &mut DeleteOptions::default()),
            Some(0)
        );
        pod.set_at("spec.nodeName", "n");
        assert_eq!(
            strategy.grace_period(&pod, &mut DeleteOptions::default()),
            Some(30)
        );
        let mut options = DeleteOptions {
            grace_period_seconds: Some(5),
            ..Default::default()
        };
        assert_eq!(strategy.grace_period(&pod, &mut options), Some(5));
        pod.set_at("status.phase", "Succeeded");
        assert_eq!(
            strategy.grace_period(&pod, &mut DeleteOptions::default()),
            Some(0)
        );
    }
}
