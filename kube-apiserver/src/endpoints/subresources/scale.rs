//! /scale of workloads: `autoscaling/v1 Scale`, a view of spec.replicas.

use apimachinery::field::{self, Path};
use apimachinery::json::{self, FieldValidation};
use apimachinery::meta::Meta;
use apimachinery::patch;
use apimachinery::schema::{Gvk, TypeId, registry};
use apimachinery::selector::LabelSelector;
use apimachinery::status::{self, StatusError};
use apimachinery::value::Value;
use component_base::http::Body;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};

use crate::endpoints::body;
use crate::endpoints::write::{Call, tree_answer};

const SCALE: Gvk<'static> = Gvk {
    group: "autoscaling",
    version: "v1",
    kind: "Scale",
};

pub async fn serve(call: &Call<'_>) -> Result<Response<Body>, StatusError> {
    match call.ctx.info.verb.as_str() {
        "get" => get(call).await,
        "update" => {
            let scale = body::decode(
                &call.body,
                call.headers,
                SCALE,
                ty()?,
                FieldValidation::Ignore,
                &mut Vec::new(),
            )?;
            replace(call, &|_: &Value| Ok(scale.clone())).await
        }
        _ => {
            let (content_type, tree) = patch_body(call)?;
            replace(call, &|old: &Value| patched(&content_type, &tree, old)).await
        }
    }
}

fn ty() -> Result<TypeId, StatusError> {
    registry()
        .kind(SCALE)
        .ok_or_else(|| status::internal("Scale is not in the schema"))
}

async fn get(call: &Call<'_>) -> Result<Response<Body>, StatusError> {
    call.store.consistent().await?;
    let object = call
        .store
        .get(call.namespace(), call.name())
        .ok_or_else(|| call.store.not_found(call.name()))?;
    tree_answer(StatusCode::OK, call.headers, call.query, &view(&object.value()))
}

/// What a workload's scale looks like. Selectors of replication controllers are plain maps.
fn view(object: &Value) -> Value {
    let mut scale = Value::from([("kind", "Scale".into()), ("apiVersion", "autoscaling/v1".into())]);
    for name in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.get("metadata").and_then(|m| m.get(name)) {
            scale.object_mut_at("metadata").insert(name, value.clone());
        }
    }
    scale.set_at("spec", Value::Object(Default::default()));
    match object.int_at("spec.replicas").unwrap_or(0) {
        0 => {}
        replicas => scale.set_at("spec.replicas", replicas),
    }
    scale.set_at("status.replicas", object.int_at("status.replicas").unwrap_or(0));
    let selector = object.at("spec.selector");
    let parsed = match selector.map(|s| s.get("matchLabels").is_some() || s.get("matchExpressions").is_some())
    {
        Some(true) => LabelSelector::from_object(selector).ok(),
        _ => selector
            .and_then(Value::as_object)
            .map(LabelSelector::from_match_labels),
    };
    if let Some(parsed) = parsed {
        scale.set_at("status.selector", parsed.to_string());
    }
    scale
}

fn patch_body(call: &Call<'_>) -> Result<(String, Value), StatusError> {
    let content_type = call
        .headers
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let tree = json::decode_untyped(&call.body)
        .map_err(|e| status::bad_request(format!("error decoding patch: {e}")))?;
    Ok((
        content_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned(),
        tree,
    ))
}

fn patched(content_type: &str, tree: &Value, old: &Value) -> Result<Value, StatusError> {
    let mut scale = old.clone();
    let result = match content_type {
        "application/json-patch+json" => patch::json_patch(&mut scale, tree),
        "application/merge-patch+json" => {
            patch::merge_patch(&mut scale, tree);
            Ok(())
        }
        "application/strategic-merge-patch+json" => patch::strategic(&mut scale, tree, ty()?),
        _ => {
            return Err(status::unsupported_media_type(&[
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
            ]));
        }
    };
    result.map_err(status::unpatchable)?;
    Ok(scale)
}

async fn replace(
    call: &Call<'_>,
    change: &(dyn Fn(&Value) -> Result<Value, StatusError> + Send + Sync),
) -> Result<Response<Body>, StatusError> {
    let mut options = call.options()?;
    let update = |old: &Value| {
        if old.is_null() {
            return Err(call.store.not_found(call.name()));
        }
        let wanted = change(&view(old))?;
        check(&wanted, call.name())?;
        let mut new = old.clone();
        new.metadata_mut().insert(
            "resourceVersion",
            Value::from(wanted.resource_version().to_owned()),
        );
        new.set_at("spec.replicas", wanted.int_at("spec.replicas").unwrap_or(0));
        Ok(new)
    };
    let written = call
        .store
        .update(
            call.ctx,
            call.namespace(),
            call.name(),
            "scale",
            &update,
            &mut options,
        )
        .await?;
    tree_answer(
        StatusCode::OK,
        call.headers,
        call.query,
        &view(&written.object.value()),
    )
}

fn check(scale: &Value, name: &str) -> Result<(), StatusError> {
    if !scale.name().is_empty() && scale.name() != name {
        let message = format!(
            "the name of the object ({}) does not match the name on the URL ({name})",
            scale.name()
        );
        return Err(status::bad_request(message));
    }
    let replicas = scale.int_at("spec.replicas").unwrap_or(0);
    if replicas < 0 {
        let path = Path::new("spec");
        let error = field::invalid(
            &path.child("replicas"),
            replicas,
            "must be greater than or equal to 0",
        );
        return Err(status::invalid("autoscaling", "Scale", name, &vec![error]));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_shows_replicas_and_selector() {
        let mut object = Value::Null;
        object.set_at("metadata.name", "web");
        object.set_at("spec.replicas", 3i64);
        object.set_at("spec.selector.matchLabels.app", "web");
        let scale = view(&object);
        assert_eq!(scale.int_at("spec.replicas"), Some(3));
        assert_eq!(scale.str_at("status.selector"), "app=web");
    }

    #[test]
    fn negative_replicas_are_refused() {
        let mut scale = Value::Null;
        scale.set_at("spec.replicas", -1i64);
        assert_eq!(check(&scale, "web").unwrap_err().code, 422);
    }
}
