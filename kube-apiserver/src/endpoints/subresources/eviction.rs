//! pods/eviction: a delete that a PodDisruptionBudget may refuse.

use apimachinery::json::{self, FieldValidation};
use apimachinery::meta::Meta;
use apimachinery::protobuf;
use apimachinery::schema::{Gvk, registry};
use apimachinery::selector::LabelSelector;
use apimachinery::status::{self, StatusError};
use apimachinery::value::Value;
use component_base::http::Body;
use http::{Response, StatusCode};

use crate::clock;
use crate::endpoints::body;
use crate::endpoints::write::{Call, tree_answer};
use crate::registry::Store;
use crate::registry::store::{DeleteOptions, Preconditions, WriteOptions};
use crate::storage::object::CachedObject;

const EVICTION: Gvk<'static> = Gvk {
    group: "policy",
    version: "v1",
    kind: "Eviction",
};

const OLD: &str = "policy/v1beta1";

/// Disruptions that a budget may record and the controller has not seen happen yet.
const MAX_DISRUPTED: usize = 2000;

pub async fn create(call: &Call<'_>) -> Result<Response<Body>, StatusError> {
    let ty = registry()
        .kind(EVICTION)
        .ok_or_else(|| status::internal("Eviction is not in the schema"))?;
    let gvk = Gvk {
        version: version(&call.body),
        ..EVICTION
    };
    let eviction = body::decode(
        &call.body,
        call.headers,
        gvk,
        ty,
        FieldValidation::Ignore,
        &mut Vec::new(),
    )?;
    if eviction.name() != call.name() {
        return Err(status::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    call.store.consistent().await?;
    let pod = call
        .store
        .get(call.namespace(), call.name())
        .ok_or_else(|| call.store.not_found(call.name()))?;
    let mut options = options(&eviction);
    options.dry_run |= call.options()?.dry_run;
    if !evictable_freely(&pod) {
        take_from_budget(call, &pod, options.dry_run).await?;
    }
    call.store
        .delete(call.ctx, call.namespace(), call.name(), &mut options)
        .await?;
    tree_answer(StatusCode::CREATED, call.headers, call.query, &super::created())
}

/// As upstream, evictions are still taken in the version that is gone otherwise: kubectl before 1.22 drains with it.
fn version(body: &[u8]) -> &'static str {
    let of_json = |body| {
        json::decode_untyped(body)
            .map(|tree| tree.str_at("apiVersion") == OLD)
            .unwrap_or_default()
    };
    let old = match protobuf::unwrap(body) {
        Ok(unknown) => unknown.api_version == OLD,
        Err(_) => of_json(body),
    };
    if old { "v1beta1" } else { EVICTION.version }
}

fn options(eviction: &Value) -> DeleteOptions {
    let text = |path: &str| eviction.at(path).and_then(Value::as_str).map(str::to_owned);
    DeleteOptions {
        grace_period_seconds: eviction.int_at("deleteOptions.gracePeriodSeconds"),
        preconditions: Preconditions {
            uid: text("deleteOptions.preconditions.uid"),
            resource_version: text("deleteOptions.preconditions.resourceVersion"),
        },
        dry_run: !eviction.list_at("deleteOptions.dryRun").is_empty(),
        ..Default::default()
    }
}

/// A pod that runs nothing, or that goes anyway, costs no budget.
fn evictable_freely(pod: &CachedObject) -> bool {
    pod.deleting
        || matches!(
            pod.field("status.phase"),
            Some("Succeeded" | "Failed" | "Pending")
        )
}

async fn take_from_budget(call: &Call<'_>, pod: &CachedObject, dry_run: bool) -> Result<(), StatusError> {
    let Some(budgets) = call.endpoints.store("policy", "poddisruptionbudgets") else {
        return Ok(());
    };
    let matching: Vec<_> = budgets
        .list_namespace(&pod.namespace)
        .into_iter()
        .filter(|budget| selects(budget, pod))
        .collect();
    match matching.as_slice() {
        [] => Ok(()),
        [budget] => disrupt(call, budgets, &budget.name, pod, dry_run).await,
        _ => Err(status::internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        )),
    }
}

fn selects(budget: &CachedObject, pod: &CachedObject) -> bool {
    let value = budget.value();
    LabelSelector::from_object(value.at("spec.selector")).is_ok_and(|selector| selector.matches(pod))
}

async fn disrupt(
    call: &Call<'_>,
    budgets: &Store,
    budget: &str,
    pod: &CachedObject,
    dry_run: bool,
) -> Result<(), StatusError> {
    let change = |old: &Value| one_less(old, budget, pod);
    let mut options = WriteOptions {
        dry_run,
        ..Default::default()
    };
    budgets
        .update(call.ctx, &pod.namespace, budget, "status", &change, &mut options)
        .await
        .map(drop)
}

fn one_less(old: &Value, name: &str, pod: &CachedObject) -> Result<Value, StatusError> {
    let refuse = |why: String| {
        let status = status::too_many_requests(
            "Cannot evict pod as it would violate the pod's disruption budget.",
            0,
        );
        Err(status.with_cause("DisruptionBudget", "", &why))
    };
    if old.int_at("status.observedGeneration").unwrap_or(0) < old.generation() {
        return refuse(format!(
            "The disruption budget {name} is still being processed by the server."
        ));
    }
    let allowed = old.int_at("status.disruptionsAllowed").unwrap_or(0);
    if allowed <= 0 {
        let (healthy, desired) = (
            old.int_at("status.currentHealthy").unwrap_or(0),
            old.int_at("status.desiredHealthy").unwrap_or(0),
        );
        return refuse(format!(
            "The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
        ));
    }
    let mut new = old.clone();
    new.set_at("status.disruptionsAllowed", allowed - 1);
    let disrupted = new.object_mut_at("status.disruptedPods");
    if disrupted.len() >= MAX_DISRUPTED {
        return refuse(
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller".to_string(),
        );
    }
    disrupted.insert(pod.name.to_string(), Value::from(clock::rfc3339(clock::now_s())));
    Ok(new)
}
