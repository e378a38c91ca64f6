//! pods/binding: the scheduler's decision, written into the pod.

use apimachinery::json::FieldValidation;
use apimachinery::meta::Meta;
use apimachinery::schema::{Gvk, registry};
use apimachinery::status::{self, GroupResource, StatusError};
use apimachinery::value::{Object, Value};
use component_base::http::Body;
use http::{Response, StatusCode};

use crate::clock;
use crate::endpoints::body;
use crate::endpoints::write::{Call, tree_answer};

const BINDING: Gvk<'static> = Gvk {
    group: "",
    version: "v1",
    kind: "Binding",
};

pub async fn create(call: &Call<'_>) -> Result<Response<Body>, StatusError> {
    let ty = registry()
        .kind(BINDING)
        .ok_or_else(|| status::internal("Binding is not in the schema"))?;
    let mut warnings = Vec::new();
    let binding = body::decode(
        &call.body,
        call.headers,
        BINDING,
        ty,
        FieldValidation::Ignore,
        &mut warnings,
    )?;
    let name = if call.name().is_empty() {
        binding.name()
    } else {
        call.name()
    };
    check(&binding, name)?;
    let mut options = call.options()?;
    let change = |pod: &Value| bind(pod, name, &binding);
    call.store
        .update(call.ctx, call.namespace(), name, "binding", &change, &mut options)
        .await?;
    tree_answer(StatusCode::CREATED, call.headers, call.query, &super::created())
}

fn check(binding: &Value, name: &str) -> Result<(), StatusError> {
    if binding.name() != name {
        return Err(status::bad_request(
            "name in URL does not match name in Binding object",
        ));
    }
    let path = apimachinery::field::Path::new("target");
    let mut errors = Vec::new();
    let kind = binding.str_at("target.kind");
    if !matches!(kind, "" | "Node") {
        errors.push(apimachinery::field::not_supported(
            &path.child("kind"),
            kind,
            &["Node", "<empty>"],
        ));
    }
    if binding.str_at("target.name").is_empty() {
        errors.push(apimachinery::field::required(&path.child("name"), ""));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(status::invalid("", "Binding", name, &errors))
    }
}

fn bind(pod: &Value, name: &str, binding: &Value) -> Result<Value, StatusError> {
    let conflict = |why: String| {
        Err(status::conflict(
            GroupResource::new("", "pods/binding"),
            name,
            why,
        ))
    };
    if pod.is_null() {
        return Err(status::not_found(GroupResource::new("", "pods"), name));
    }
    if !binding.uid().is_empty() && binding.uid() != pod.uid() {
        return conflict(format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            binding.uid(),
            pod.uid()
        ));
    }
    if pod.deletion_timestamp().is_some() {
        return conflict(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        ));
    }
    let node = pod.str_at("spec.nodeName");
    if !node.is_empty() {
        return conflict(format!(
            "pod {name} is already assigned to node {}",
            apimachinery::field::quote(node)
        ));
    }
    if !pod.list_at("spec.schedulingGates").is_empty() {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut bound = pod.clone();
    bound.set_at("spec.nodeName", binding.str_at("target.name").to_owned());
    merge(&mut bound, "metadata.annotations", binding.annotations());
    merge(&mut bound, "metadata.labels", binding.labels());
    set_scheduled(&mut bound);
    Ok(bound)
}

fn merge(pod: &mut Value, path: &str, from: Option<&Object>) {
    let Some(from) = from.filter(|from| !from.is_empty()) else {
        return;
    };
    let into = pod.object_mut_at(path);
    for (key, value) in from.iter() {
        into.insert(key.to_owned(), value.clone());
    }
}

fn set_scheduled(pod: &mut Value) {
    let observed = pod.generation();
    let conditions = pod.list_mut_at("status.conditions");
    conditions.retain(|condition| condition.str_at("type") != "PodScheduled");
    let mut condition = Value::from([("type", "PodScheduled".into())]);
    if observed > 0 {
        condition.set("observedGeneration", observed);
    }
    condition.set("status", "True");
    condition.set("lastProbeTime", Value::Null);
    condition.set("lastTransitionTime", clock::rfc3339(clock::now_s()));
    conditions.push(condition);
}
